"""The real Snakefile, profiles and command on a study of six tiny notebooks: resume, rerun, failure, kill.

The tests share one project and build on each other's state, each starting from a study that is complete; they run in
the order of the file. Traps are those measured in a trial of Snakemake: see the name of each test.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import psutil
import pytest

from tests import project
from tests.project import stamps, studykit

ALL = {"base_model/scratch-s0", "data/generation-lua", "adapter/lua-bottleneck-s0", "evaluate/lua-base",
       "evaluate/lua-bottleneck", "compare/lua"}  # fmt: skip
STUDY = project.STUDY + "adapter: {learning_rate: 1e-5}\ndata: {path: rows.jsonl}\n"
FLAVOUR = "def flavour(x):\n    return ['plain', x]\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A project in which the study has run once."""
    home = project.make(tmp_path_factory.mktemp("project"), STUDY)
    (home / "rows.jsonl").write_text("{}\n")
    done = studykit(home, "run", "params/tiny.yaml")
    assert done.returncode == 0, done.stdout
    return home


@pytest.fixture(autouse=True)
def _put_back(home):
    yield
    (home / "studykit/flavour.py").write_text(FLAVOUR)
    (home / "params/tiny.yaml").write_text(STUDY)


def planned(home: Path, study: str = "params/tiny.yaml") -> dict[str, int]:
    """What a dry run would do: jobs by rule, the index aside."""
    said = studykit(home, "run", study, "--dry-run", "--verbose")
    assert said.returncode == 0, said.stdout
    jobs = re.search(r"Job stats:\njob +count\n[- ]+\n(.*?)\ntotal", said.stdout, flags=re.S)
    assert jobs or "Nothing to be done" in said.stdout, said.stdout
    found = {line.split()[0]: int(line.split()[1]) for line in jobs[1].split("\n")} if jobs else {}
    return {rule: count for rule, count in found.items() if rule not in ("index", "study")}


def test_a_family_is_planned_as_one_study(tmp_path):
    home = project.make(tmp_path, project.STUDY + "vary: {data.seed: [0, 1]}\n")
    assert planned(home) == {"base_model": 1, "data": 2, "adapter": 2, "evaluate": 4, "compare": 2, "gather": 1}


def value(home: Path, run: str):
    return json.loads(next(home.glob(f"runs/{run}-*/value.json")).read_text())


def children(process) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def wait_until(condition, seconds: float, what: str):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"after {seconds} s: {what}"
        time.sleep(0.1)


def test_a_clean_run_makes_everything(home):
    assert set(stamps(home)) == ALL
    assert all((Path(f).parent / "notebook.ipynb").is_file() for f in home.glob("runs/*/*/manifest.json"))
    index = (home / "reports/tiny/index.html").read_text()
    assert "6 of 6 runs are done" in index and "Does the command do what it says?" in index
    assert len(list((home / "reports/tiny").glob("*.html"))) == 7


def test_numbers_keep_their_type_on_the_way(home):
    assert value(home, "adapter/lua-bottleneck-s0") == ["plain", 1e-5]  # JSON's 1e-05 would arrive as a string


def test_threads_are_the_jobs_own(home):
    threads = {
        m["stage"]: m["threads"] for m in (json.loads(f.read_text()) for f in home.glob("runs/*/*/manifest.json"))
    }
    assert threads["base_model"] == 1 and threads["adapter"] == 1


def test_a_second_run_does_nothing(home):
    before = stamps(home)
    said = studykit(home, "run", "params/tiny.yaml")
    assert said.returncode == 0 and "all 6 runs exist" in said.stdout and stamps(home) == before
    assert "done in" not in said.stdout


@pytest.mark.parametrize("line, reruns", [
    ("evaluate: {sources: [], timeout: 1.0}", {"evaluate": 2, "compare": 1}),
    ("adapter: {learning_rate: 1e-5, target_steps: 5}", {"adapter": 1, "evaluate": 1, "compare": 1}),
    ("base_model: {steps: 7}", {"base_model": 1, "data": 1, "adapter": 1, "evaluate": 2, "compare": 1}),
    ("data: {path: rows.jsonl, test_examples: 7}", {"data": 1, "adapter": 1, "evaluate": 2, "compare": 1}),
    ("compare: {resamples: 5000}", {"compare": 1}),
])  # fmt: skip
def test_a_changed_parameter_reruns_exactly_its_downstream(home, line, reruns):
    kept = [old for old in STUDY.split("\n") if old.split(":")[0] != line.split(":")[0]]
    (home / "params/tiny.yaml").write_text("\n".join([*kept, line]) + "\n")
    assert planned(home) == reruns


def test_a_second_study_shares_what_is_equal(home):
    other = STUDY.replace("study: tiny", "study: other") + "compare: {resamples: 5000}\n"
    (home / "params/other.yaml").write_text(other)
    assert planned(home, "params/other.yaml") == {"compare": 1}
    before = {file: file.read_text() for file in home.glob("runs/*/*/manifest.json")}
    said = studykit(home, "run", "params/other.yaml")
    assert said.returncode == 0 and said.stdout.count("done in") == 1, said.stdout
    after = {file: file.read_text() for file in home.glob("runs/*/*/manifest.json")}
    (new,) = after.keys() - before.keys()
    assert before.items() <= after.items() and new.parent.parent.name == "compare"
    (home / "params/other.yaml").unlink()
    listed = studykit(home, "clean").stdout
    assert f"compare/{new.parent.name}" in listed and "in 1 run that no study needs" in listed
    assert studykit(home, "clean", "--yes").returncode == 0
    assert {file: file.read_text() for file in home.glob("runs/*/*/manifest.json")} == before


def test_times_outputs_and_prose_are_no_change(home):
    """A fresh checkout, a notebook executed and saved in JupyterLab, a mended sentence: nothing is computed again."""
    file = home / "notebooks/06_compare.ipynb"
    notebook = json.loads(file.read_text())
    notebook["cells"][0]["source"] = "# Another title"
    notebook["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x"}]
    file.write_text(json.dumps(notebook))
    for file in [*home.glob("notebooks/*.ipynb"), *home.glob("studykit/*.py"), home / "Snakefile", home / "rows.jsonl"]:
        os.utime(file)
    assert planned(home) == {}
    assert studykit(home, "report", "params/tiny.yaml").returncode == 0
    assert "Another title" in next(home.glob("reports/tiny/06_compare-*.html")).read_text(), "but the report has it"


def test_parameters_messages_and_labels_leave_all_trainings_done(home):
    """A parameters cell edited by hand, a mended message in a reader, in the watchdog, in a label: nothing is run."""
    file = home / "notebooks/02_adapter.ipynb"
    notebook = json.loads(file.read_text())
    notebook["cells"][0]["source"] = "# Other prose"
    notebook["cells"][1]["source"] = "out = None\nseed = 7"
    originals = {file: file.read_text()}
    file.write_text(json.dumps(notebook))
    mended = {
        "data/readers/codesearchnet.py": "# a mended message\n",
        "runs/process.py": "# a mended message of the watchdog\n",
        "study/methods.py": 'BEFORE_TRAINING = Phase("init", "before training", "init")\n',
        "report/conclusions.py": "# a mended label\n",
        "workflow/progress.py": "# a mended word\n",
    }
    for name, line in mended.items():
        module = home / "studykit" / name
        originals[module] = module.read_text()
        module.write_text(originals[module] + line)
    try:
        assert planned(home) == {}
        listed = studykit(home, "plan", "params/tiny.yaml").stdout
        assert listed.count("done ") == 6 and "outdated" not in listed
    finally:
        for path, text in originals.items():
            path.write_text(text)
    rows = home / "studykit/data/rows.py"
    whole = rows.read_text()
    rows.write_text(whole + "x = 1\n")
    assert planned(home) == {"adapter": 1, "evaluate": 1, "compare": 1}, "but what it reads its rows with counts"
    rows.write_text(whole)


def test_the_users_data_is_an_input(home):
    (home / "rows.jsonl").write_text('{"changed": 1}\n')
    assert planned(home) == {"data": 1, "adapter": 1, "evaluate": 2, "compare": 1}
    (home / "rows.jsonl").write_text("{}\n")


@pytest.mark.parametrize("stage, reruns", [
    ("base_model", {"base_model": 1, "data": 1, "adapter": 1, "evaluate": 2, "compare": 1}),
    ("data", {"data": 1, "adapter": 1, "evaluate": 2, "compare": 1}),
    ("adapter", {"adapter": 1, "evaluate": 1, "compare": 1}),
    ("evaluate", {"evaluate": 2, "compare": 1}),
    ("compare", {"compare": 1}),
    ("fusion", {}),  # of which this study has none
])  # fmt: skip
def test_a_changed_notebook_reruns_exactly_its_downstream(home, stage, reruns):
    project.notebook(home, stage, after="x = 1")
    assert planned(home) == reruns
    project.notebook(home, stage)


def test_changed_code_that_nothing_imports_reruns_nothing(home):
    (home / "studykit/unused.py").write_text("x = 1\n")
    (home / "studykit/report/unused.py").write_text("x = 1\n")
    assert planned(home) == {}
    (home / "studykit/unused.py").unlink()
    (home / "studykit/report/unused.py").unlink()


def test_changed_code_reruns_its_downstream_and_a_failing_cell_stops_only_its_own(home):
    (home / "studykit/flavour.py").write_text(
        "def flavour(x):\n    if isinstance(x, float):\n        raise ValueError('a bad <flavour>')\n    return [x]\n"
    )
    assert planned(home) == {"adapter": 1, "evaluate": 2, "compare": 1}
    before = stamps(home)
    said = studykit(home, "run", "params/tiny.yaml")
    assert said.returncode == 1
    assert re.search(
        r"studykit: adapter/lua-bottleneck-s0-\w+: ValueError: a bad <flavour>\n +see logs/adapter/", said.stdout
    )
    after = stamps(home)
    assert after["evaluate/lua-base"] != before["evaluate/lua-base"], "others went on"
    assert value(home, "evaluate/lua-base") == [0], "and were computed anew, not shown"
    assert {run for run in ALL if before[run] == after.get(run)} >= {"base_model/scratch-s0", "data/generation-lua"}
    assert "adapter/lua-bottleneck-s0" not in after, "a failed run does not count"
    index = (home / "reports/tiny/index.html").read_text()
    assert "ValueError: a bad &lt;flavour&gt;" in index and "3 of 6 runs are done, 1 failed, 2 out of date" in index
    assert "This cell failed" in next(home.glob("reports/tiny/02_adapter-*.html")).read_text()
    listed = studykit(home, "plan", "params/tiny.yaml").stdout
    assert re.search(r"failed .*adapter/lua-bottleneck-s0-\w+  ValueError: a bad <flavour>", listed)


# Kills. The adapter's notebook now writes a checkpoint and then hangs while the file `slow` exists.

HANGING = """import time
from studykit.flavour import flavour
resumed = (run.checkpoints / 'step').exists()
(run.checkpoints / 'step').write_text(str(run.attempt))
while (files.home() / 'slow').exists(): time.sleep(0.1)
value = {'resumed': resumed, 'attempt': run.attempt}"""


def running(home: Path, attempt: int):
    """The command, in the middle of the adapter's n-th attempt, and its processes."""
    (home / "slow").touch()
    command = studykit(home, "run", "params/tiny.yaml", wait=False)
    steps = "runs/.staging/adapter/*/checkpoints/step"
    wait_until(lambda: [s for s in home.glob(steps) if s.read_text() == str(attempt)], 600, "the adapter has not begun")
    return command, children(command)


def gone(processes) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


@pytest.fixture
def interruptible():
    """A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that: not here."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def hanging(home):
    project.notebook(home, "adapter", work=HANGING)
    for stale in [*home.glob("runs/.staging/adapter/*"), *home.glob("runs/adapter/*")]:
        shutil.rmtree(stale)
    assert studykit(home, "run", "params/tiny.yaml", "--until", "data").returncode == 0
    yield {run: stamp for run, stamp in stamps(home).items() if run.split("/")[0] in ("base_model", "data")}
    (home / "slow").unlink(missing_ok=True)


def test_after_any_kill_the_same_command_completes(home, hanging, interruptible):
    """SIGKILL of the command alone, Ctrl-C, SIGKILL of everything; each time the same command, nothing else."""
    command, started = running(home, 1)
    second = studykit(home, "run", "params/tiny.yaml")
    assert second.returncode == 2, "a second command is refused while the first runs"
    assert re.search(rf"studykit: Process {command.pid} on \S+ is running a study in this project", second.stdout)
    command.send_signal(signal.SIGKILL)
    command.wait()
    assert len(started) >= 2 and list(home.glob(".snakemake/locks/*")), "orphans, and Snakemake's lock is left behind"

    command, restarted = running(home, 2)  # at once: it waits for the orphans' end, and unlocks
    assert gone(started), "no orphan writes beside it"
    os.killpg(command.pid, signal.SIGINT)
    command.wait(timeout=120)
    wait_until(lambda: gone(restarted), 60, "Ctrl-C left an orphan")
    assert "stopped; the same command continues it" in command.stdout.read()

    command, restarted = running(home, 3)
    for process in [command, *restarted]:
        with contextlib.suppress(psutil.NoSuchProcess):  # some end by themselves as soon as the first is gone
            process.kill()
    command.wait()

    (home / "slow").unlink()
    last = studykit(home, "run", "params/tiny.yaml")
    assert last.returncode == 0, last.stdout
    assert set(stamps(home)) == ALL
    assert hanging.items() <= stamps(home).items(), "finished notebooks were not made again"
    assert value(home, "adapter/lua-bottleneck-s0") == {"resumed": True, "attempt": 4}, "the killed one went on"


def test_sigterm_ends_it_as_ctrl_c_does(home, hanging):
    """As a batch system or a shutdown stops it; a background job of a shell, which has Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        command, started = running(home, 1)
    finally:
        signal.signal(signal.SIGINT, before)
    shown = studykit(home, "status", "params/tiny.yaml").stdout
    assert re.search(r"running: adapter lua-bottleneck-s0\n +being written by process \d+ on", shown)
    assert f"Process {command.pid} on" in shown
    (home / "runs/.command.lock").unlink()
    second = studykit(home, "run", "params/tiny.yaml")
    assert second.returncode == 2 and "another process is running a study" in second.stdout, "the lock was deleted"
    began = time.monotonic()
    command.send_signal(signal.SIGTERM)
    assert command.wait(timeout=60) == 143
    assert time.monotonic() - began < 20, "it ends within seconds"
    assert gone(started), "nothing is left when the command has returned"
    assert re.search(r"adapter/lua-bottleneck-s0-\w+: stopped during training", command.stdout.read())
    (home / "slow").unlink()
    assert studykit(home, "run", "params/tiny.yaml").returncode == 0


def test_a_damaged_run_is_made_again_and_nothing_else(home):
    """A file of its is gone: one sentence, and the same numbers as before."""
    weights = next(home.glob("runs/data/*/value.json"))
    content, before = weights.read_text(), stamps(home)
    weights.unlink()
    listed = studykit(home, "plan", "params/tiny.yaml").stdout
    assert re.search(r"damaged +data/generation-lua-\w+  value.json is missing", listed)
    assert re.search(r"outdated .* adapter/.*data generation-lua is damaged", listed)
    assert planned(home)["data"] == 1
    done = studykit(home, "run", "params/tiny.yaml")
    assert done.returncode == 0, done.stdout
    assert re.search(r"data/generation-lua-\w+ is damaged \(value.json is missing\) and is run again", done.stdout)
    assert weights.read_text() == content
    after = stamps(home)
    assert {run for run in ALL if after[run] == before[run]} == {"base_model/scratch-s0"}


@pytest.mark.parametrize("content", ["", "[]", "null", "{", '{"stage": "adapter"}'])
def test_a_manifest_that_is_not_whole_ends_no_command(home, content):
    manifest = next(home.glob("runs/adapter/*/manifest.json"))
    whole = manifest.read_text()
    manifest.write_text(content)
    for command in ("status", "plan", "report"):
        answer = studykit(home, command, "params/tiny.yaml")
        assert answer.returncode == 0 and "Traceback" not in answer.stdout, answer.stdout
    assert "damaged" in studykit(home, "plan", "params/tiny.yaml").stdout
    assert studykit(home, "clean").returncode == 0
    manifest.write_text(whole)


def test_a_study_edited_while_it_runs_is_named(home, hanging):
    """The terminal says that it ran the study as it was, and the report shows that one too."""
    command, _ = running(home, 1)
    (home / "params/tiny.yaml").write_text(STUDY.replace("Does the command do", "Will the edited study do"))
    (home / "slow").unlink()
    said, _ = command.communicate(timeout=600)
    assert command.returncode == 0, said
    assert "params/tiny.yaml was edited meanwhile; the runs and the report are those of the study as it was" in said
    assert "Does the command do what it says?" in (home / "reports/tiny/index.html").read_text()


def test_snakemakes_words_are_in_a_log_and_its_errors_told(home):
    said = studykit(home, "run", "params/tiny.yaml", "--until", "nothing").stdout
    assert re.search(r"studykit: Snakemake: .*nothing.*\n +see logs/tiny.snakemake.txt", said), said
    assert "Building DAG" not in said and "Building DAG" in (home / "logs/tiny.snakemake.txt").read_text()
    assert "Building DAG" in studykit(home, "run", "params/tiny.yaml", "--verbose").stdout


def test_mistakes_are_told_in_a_sentence(home):
    def logs() -> set[tuple[Path, int]]:
        return {(path, path.stat().st_mtime_ns) for path in (home / "logs").rglob("*")}

    before = logs()
    for arguments, said in [
        (["run", "params/absent.yaml"], "params/absent.yaml cannot be read"),
        (["report", "params/absent.yaml"], "params/absent.yaml cannot be read"),
        (["run", "params/tiny.yaml", "--config", "seeds=3"], "--config turns numbers into text"),
        (["run", "params/tiny.yaml", "--coers", "2"], "unrecognized arguments: --coers; did you mean --cores?"),
    ]:
        answer = studykit(home, *arguments)
        assert answer.returncode == 2 and said in answer.stdout and "Traceback" not in answer.stdout
        assert logs() == before, "nothing has started"
    (home / "params/tiny.yaml").write_text(STUDY.replace("seeds", "sedes"))
    answer = studykit(home, "run", "params/tiny.yaml")
    assert answer.returncode == 2
    assert (
        answer.stdout
        == "studykit: params/tiny.yaml: sedes is unknown; did you mean seeds? (1 more of its values are wrong.)\n"
    )


def test_paths_may_hold_what_a_shell_reads_in_its_own_way(home, tmp_path, monkeypatch):
    """The project, and the Python that runs it, lie below a directory that a second download or a person has named."""
    odd = tmp_path / "my kit (1) it's $HOME"
    shutil.copytree(home, odd, ignore=shutil.ignore_patterns("logs", "reports", ".snakemake"))
    shutil.rmtree(odd / "runs")
    (odd / "python").symlink_to(sys.executable)
    packages = sysconfig.get_path("purelib")
    monkeypatch.setenv("JUPYTER_PATH", f"{sys.prefix}/share/jupyter")
    environment = project.environment(odd) | {"PYTHONPATH": f"{odd}:{packages}"}
    command = [odd / "python", "-m", "studykit.cli", "run", "params/tiny.yaml", "--until", "data"]
    done = subprocess.run(command, cwd=odd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(stamps(odd)) == {"base_model/scratch-s0", "data/generation-lua"}


def test_make_says_what_a_colon_in_a_path_costs(tmp_path):
    folder = tmp_path / "a:b"
    folder.mkdir()
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(project.ROOT / name, folder)
    done = subprocess.run(["make", "setup", f"PYTHON={sys.executable}"], cwd=folder, capture_output=True, text=True)
    assert done.returncode and "no virtual environment in a path with a colon, such as" in done.stdout


def test_the_snakefile_stays_small():
    assert len((project.ROOT / "Snakefile").read_text().split("\n")) <= 85
    for profile in ("default", "slurm"):
        text = (project.ROOT / "profiles" / profile / "config.yaml").read_text()
        assert "rerun-incomplete: true" in text and "keep-going: true" in text
