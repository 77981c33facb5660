"""The command: help that fits a terminal, names that may be short or mistaken, output that programs can read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from studykit import cli
from studykit.study.family import load_plan
from studykit.workflow import names
from tests import made_runs
from tests.project import ROOT, STUDY, quickstart


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project with two studies and nothing run."""
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params").mkdir()
    (tmp_path / "params/tiny.yaml").write_text(STUDY)
    quickstart(tmp_path)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    return tmp_path


def finish(home, run) -> None:
    (home / run.dir).mkdir(parents=True)
    made_runs.finish(home / run.dir, run.stage, run.params)


def test_bare_it_shows_its_help(capsys):
    assert cli.main([]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in cli.studykit.commands) and "..." not in said.split("Commands:")[1]


@pytest.mark.parametrize("command", cli.studykit.commands)
def test_the_help_of_every_command_has_an_example_and_fits_80_columns(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"\n  Example:\n    studykit {command}" in said and max(map(len, said.split("\n"))) <= 80


def test_version(capsys):
    assert cli.main(["--version"]) == 0 and capsys.readouterr().out.startswith("studykit 0.")


@pytest.mark.parametrize("arguments, said", [
    (["reprot", "tiny"], "No such command 'reprot'. Did you mean 'report'? See `studykit --help`."),
    (["report", "tiny", "--zipp"], "No such option '--zipp'. Did you mean '--zip'? See `studykit report --help`."),
    (["plan"], "Missing argument 'STUDY'. See `studykit plan --help`."),
    (["plan", "quikstart"], "quikstart is no study file; did you mean params/quickstart.yaml?"),
    (["run", "params/quikstart.yaml"], "params/quikstart.yaml is no study file; did you mean params/quickstart.yaml?"),
    (["plan", "other"], "other cannot be read (No such file or directory); name a file like params/quickstart.yaml."),
    (["rate", "tiny", "a.json"], "--read and the files that raters saved go together: `studykit rate tiny --read FILE`."),
    (["rate", "tiny", "--method", "lora"], "--method 'lora' is no method of params/tiny.yaml; it has base, bottleneck."),
    (["rate", "tiny", "--method", "base"],
     "params/tiny.yaml would be rated with 1 method; a page compares at least two."),
    (["rate", "tiny", "--read", "a.json"],
     "a.json cannot be read (No such file or directory); name a file that a rating page saved."),
    (["open", "tiny"], "tiny has no report yet; `studykit report tiny` renders one of what has run."),
])  # fmt: skip
def test_a_mistake_is_explained_in_a_sentence(home, capsys, arguments, said):
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", f"studykit: {said}\n")


def test_a_home_that_is_gone_is_said_so(home, monkeypatch, capsys):
    monkeypatch.setenv("STUDYKIT_HOME", "/gone")
    assert cli.main(["plan", "tiny"]) == 2
    assert capsys.readouterr().err == (
        "studykit: STUDYKIT_HOME is /gone, which is no directory; it must name the project's.\n"
    )


@pytest.mark.parametrize("name", ["tiny", "tiny.yaml", "params/tiny.yaml", "{home}/params/tiny.yaml"])
def test_a_study_is_found_by_its_file_or_its_name(home, name):
    assert names.find_study(name.format(home=home)) == "params/tiny.yaml"


def test_a_study_is_found_from_below_the_project(home, monkeypatch):
    monkeypatch.chdir(home / "params")
    assert names.find_study("tiny") == names.find_study("tiny.yaml") == "params/tiny.yaml"


def test_a_run_is_found_by_the_beginning_of_its_name_if_no_other_has_it(home):
    for run in ("adapter/lua-lora-s0-0123456789", "adapter/lua-lora-s1-0123456789", "fusion/lua-zero-s0-0123456789",
                "adapter/lua-lora-s10-0123456789"):  # fmt: skip
        (home / "runs" / run).mkdir(parents=True)
    assert names.find_run("lua-z") == "runs/fusion/lua-zero-s0-0123456789"
    assert names.find_run("adapter/lua-lora-s1") == "runs/adapter/lua-lora-s1-0123456789", "its whole label"
    assert names.find_run("runs/adapter/lua-lora-s0-01") == "runs/adapter/lua-lora-s0-0123456789"
    assert names.find_run("lua", ["fusion"]) == "runs/fusion/lua-zero-s0-0123456789"
    assert names.find_run("python") == "python", "whoever needs it says what is missing"
    with pytest.raises(
        Exception, match="'lua' begins the names of 4 runs; type more of one: adapter/lua-lora-s0-01234"
    ):
        names.find_run("lua")
    with pytest.raises(Exception, match="begins with 'lua-zreo-s0'; did you mean lua-zero-s0-0123456789?"):
        names.find_run("lua-zreo-s0")


def test_tab_completes_studies_and_runs(home, capsys):
    (home / "runs/fusion/lua-zero-s0-0123456789").mkdir(parents=True)

    def completed(command: str, begun: str) -> list[str]:
        parameter = cli.studykit.commands[command].params[0]
        return [found.value for found in parameter.shell_complete(None, begun)]

    assert completed("plan", "ti") == ["tiny"] and completed("plan", "params/t") == ["params/tiny.yaml"]
    assert completed("explore", "lua-z") == completed("clean", "lua") == ["lua-zero-s0-0123456789"]


def test_programs_can_read_the_plan(home, capsys):
    runs = load_plan("params/tiny.yaml").runs
    finish(home, runs[0])
    assert cli.main(["plan", "tiny", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [run["run"] for run in told] == [run.name for run in runs]
    assert {run["state"] for run in told[1:]} == {"missing"} and told[0]["seconds"] == 1.0


def test_a_watched_status_ends_when_everything_is_done(home, capsys, monkeypatch):
    runs = load_plan("params/tiny.yaml").runs
    for run in runs[1:]:
        finish(home, run)
    monkeypatch.setattr("studykit.runs.store.digests", lambda *_: {})
    monkeypatch.setattr(cli.time, "sleep", lambda _: finish(home, runs[0]))
    assert cli.main(["status", "tiny", "--watch"]) == 0
    said = capsys.readouterr().out
    assert f"of {len(runs)} runs are to do" in said and said.endswith(f"All {len(runs)} runs are done.\n")


def test_a_new_study_has_what_was_given_and_is_checked(home, capsys):
    given = ["--member", "python", "--member", "go", "--target", "ruby", "--seed", "3"]
    (home / "rows").mkdir()
    assert cli.main(["new", "mine", "--base", "owner/name", "--data", "rows", *given]) == 0
    assert capsys.readouterr().out == "params/mine.yaml: `studykit plan params/mine.yaml` lists its runs.\n"
    study = load_plan("params/mine.yaml").study
    assert (study.study, study.base, study.members, study.target) == ("mine", "owner/name", ["python", "go"], "ruby")
    assert (study.seeds, study.data.path) == ([3], "rows")
    before = (home / "params/mine.yaml").read_text()
    assert cli.main(["new", "mine", *given]) == 2 and "exists; give another name" in capsys.readouterr().err
    assert (home / "params/mine.yaml").read_text() == before
    assert cli.main(["new", "wrong", "--member", "ruby", "--target", "ruby"]) == 2
    assert "which is also among members" in capsys.readouterr().err and not (home / "params/wrong.yaml").exists()


def test_a_report_is_opened(home, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(cli.webbrowser, "open", lambda address: opened.append(address) or len(opened) == 1)
    (home / "reports/tiny").mkdir(parents=True)
    (home / "reports/tiny/index.html").write_text("<p>")
    assert cli.main(["open", "tiny"]) == 0 and capsys.readouterr().out == "reports/tiny/index.html\n"
    assert opened == [(home / "reports/tiny/index.html").as_uri()]
    assert cli.main(["open", "tiny"]) == 2 and "there is no browser here; open /" in capsys.readouterr().err


def test_a_command_waits_for_no_library_of_models_or_figures():
    """The index draws figures, but reads the numbers of an attention without what recorded them."""
    heavy = "{'torch', 'transformers', 'peft', 'matplotlib', 'pandas', 'numpy'} & sys.modules.keys()"
    code = (
        f"import sys; import studykit.cli; assert not {heavy}, {heavy};"
        "import studykit.report.index; assert not {'torch', 'transformers', 'peft'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
