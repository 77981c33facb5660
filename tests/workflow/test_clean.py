"""What `studykit clean` finds and removes: runs that no study needs, and nothing that one does."""

from __future__ import annotations

import fcntl
import os
import shutil

import pytest

from studykit.errors import UserError
from studykit.runs import process, store
from studykit.study import plan
from studykit.study.file import load_study
from studykit.workflow import clean, studies
from tests import made_runs
from tests.project import STUDY


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project with a finished needed run, a needed one half-way, and two that nothing needs, one of them half-way."""
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params").mkdir()
    (tmp_path / "params/tiny.yaml").write_text(STUDY)
    done, half = plan.plan(load_study("params/tiny.yaml"))[:2]
    made = {
        f"{done.dir}/manifest.json": 10,
        f"{done.dir}/weights": 5000,
        f"runs/.staging/{done.name}/lock": 20,
        f"runs/.staging/{half.name}/checkpoints/state": 7000,
        "runs/adapter/old-0123456789/manifest.json": 10,
        "runs/adapter/old-0123456789/adapter/weights": 300_000,
        "logs/adapter/old-0123456789.ipynb": 1000,
        "runs/.staging/fusion/older-0123456789/checkpoints/state": 2_000_000,
        "runs/.staging/fusion/older-0123456789/lock": 0,
    }
    for file, size in made.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(bytes(size))
    return tmp_path


def files(home) -> set[str]:
    return {str(f.relative_to(home)) for f in home.rglob("*") if f.is_file() and f.name not in (".command.lock",)}


def test_the_listing_has_sizes_and_removes_nothing(home):
    before = files(home)
    said = clean.list_leftovers().split("\n")
    assert said[0] == "  2.00 MB  fusion/older-0123456789" and said[1] == "   301 kB  adapter/old-0123456789"
    assert said[2].startswith("2.30 MB in 2 runs that no study needs") and files(home) == before


def test_removing_leaves_what_studies_need(home):
    before = files(home)
    assert clean.remove_leftovers().endswith("2.30 MB removed.")
    assert files(home) == {f for f in before if "old" not in f}
    assert clean.list_leftovers() == "Nothing is left over: every run is needed by a study."


def test_a_run_that_is_being_written_stays(home):
    with open(home / "runs/.staging/fusion/older-0123456789/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("process 12 on host")
        lock.flush()
        assert "kept: it is being written by process 12 on host" in clean.remove_leftovers()
    assert (home / "runs/.staging/fusion/older-0123456789/checkpoints/state").exists()


def test_what_was_staged_for_a_finished_run_goes(home):
    done = plan.plan(load_study("params/tiny.yaml"))[0]
    (home / "runs/.staging" / done.name / "checkpoints").mkdir()
    (home / "runs/.staging" / done.name / "checkpoints/state").write_bytes(bytes(9000))
    clean.remove_leftovers()
    assert (home / done.dir / "weights").exists() and not (home / "runs/.staging" / done.name).exists()


def test_a_study_that_cannot_be_read_stops_it(home):
    before = files(home)
    (home / "params/other.yaml").write_text("study: [")
    with pytest.raises(UserError, match="params/other.yaml"):
        clean.remove_leftovers()
    assert files(home) - {"params/other.yaml"} == before


@pytest.mark.parametrize("call", range(1, 9))
def test_an_interrupted_removal_leaves_no_run_that_seems_finished(home, monkeypatch, call):
    """Death before any one step; the manifest and its copy, by which a run could be used again, go first."""
    old = home / "runs/adapter/old-0123456789"
    shutil.copyfile(old / "manifest.json", old / store.COPY)
    left = [call]

    def dying(real):
        def step(*args, **options):
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            return real(*args, **options)

        return step

    with monkeypatch.context() as patch:
        for name in ("unlink", "rmdir"):
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            clean.remove_leftovers()
        except KeyboardInterrupt:
            assert "removes them" in clean.list_leftovers()
    assert not (old / "manifest.json").exists() or (old / "adapter/weights").exists()
    clean.remove_leftovers()
    assert not {f for f in files(home) if "old" in f}


def by_hand(home, out: str, base: str = "") -> None:
    params = {"out": out} | ({"base": base} if base else {})
    with store.open_run(out, stage=out.split("/")[1], params=params) as run:
        run.path("value").write_text("3")
        run.publish()


def test_a_run_made_by_hand_goes_only_when_it_is_named(home, monkeypatch):
    monkeypatch.delenv("STUDYKIT_COMMAND", raising=False)
    base, mine = "base_model/mine-0123456789", "adapter/mine-0123456789"
    by_hand(home, f"runs/{base}")
    by_hand(home, f"runs/{mine}", f"runs/{base}")
    assert (
        f"adapter/mine-0123456789  kept: it was made by hand; `studykit clean {mine} --yes`" in clean.list_leftovers()
    )
    clean.remove_leftovers()
    assert (home / "runs" / mine / "value").exists() and (home / "runs" / base / "value").exists()
    with pytest.raises(UserError, match=f"{base} is needed by a study or by another run"):
        clean.remove_leftovers([base])
    with pytest.raises(UserError, match="adapter/absent is not in runs/"):
        clean.list_leftovers(["adapter/absent"])
    assert f"`studykit clean runs/{mine} --yes` removes them" in clean.list_leftovers([f"runs/{mine}"])
    assert clean.remove_leftovers([mine]).endswith("removed.") and not (home / "runs" / mine).exists()
    assert (home / "runs" / base).exists()


def test_what_the_command_made_is_not_by_hand(home, monkeypatch):
    monkeypatch.setenv("STUDYKIT_COMMAND", process.name())
    by_hand(home, "runs/adapter/theirs-0123456789")
    clean.remove_leftovers()
    assert not (home / "runs/adapter/theirs-0123456789").exists()


def test_a_study_that_was_run_from_elsewhere_keeps_its_runs(home, tmp_path_factory):
    mine = tmp_path_factory.mktemp("elsewhere") / "mine.yaml"
    mine.write_text(STUDY.replace("seeds: [0]", "seeds: [7]"))
    run = next(run for run in plan.plan(load_study(mine)) if run.stage == "adapter")
    (home / run.dir).mkdir(parents=True)
    (home / run.dir / "manifest.json").write_bytes(bytes(10))
    assert run.name in clean.list_leftovers(), "it is not known"
    for file in (str(mine), "params/tiny.yaml", str(mine)):
        studies.remember(file)
    assert studies.remembered() == [mine] and str(mine) in (home / "runs/.studies").read_text().split('"')
    assert run.name not in clean.list_leftovers()
    mine.unlink()
    assert (
        f"{mine}, a study that was run, is gone: the runs that only it needed are left over." in clean.list_leftovers()
    )
    clean.remove_leftovers()
    assert not (home / run.dir).exists() and studies.remembered() == []


def test_without_any_study_nothing_counts_as_left_over(home):
    before = files(home) - {"params/tiny.yaml"}
    (home / "params/tiny.yaml").unlink()
    for ask in (clean.list_leftovers, clean.remove_leftovers):
        with pytest.raises(UserError, match="params/ holds no study file, and no study elsewhere has been run"):
            ask()
    assert files(home) == before


def test_what_a_run_that_is_being_written_reads_stays(home, monkeypatch):
    """Its inputs and theirs; by name, since none of them is in a study."""
    monkeypatch.setenv("STUDYKIT_COMMAND", process.name())
    base, adapter = "runs/base_model/own-0123456789", "runs/adapter/old-0123456789"
    made_runs.finish(home / base, "base_model", {})
    made_runs.finish(home / adapter, "adapter", {"base": base})
    params = {"members": {"lua": adapter}}
    with store.open_run("runs/fusion/written-0123456789", stage="fusion", params=params):
        said = clean.remove_leftovers()
        assert "fusion/written-0123456789  kept" in said and "older" in said
    assert (home / base / "manifest.json").exists() and (home / adapter / "adapter/weights").exists()
    clean.remove_leftovers()
    assert not (home / base).exists() and not (home / adapter).exists()


def test_a_writer_that_comes_at_the_last_moment_is_seen(home, monkeypatch):
    (home / "runs/adapter/old-0123456789/manifest.json").unlink()
    found = clean.leftovers()
    monkeypatch.setattr(clean, "leftovers", lambda named=(): found)
    with store.open_run("runs/adapter/old-0123456789", stage="adapter", params={}, wait=0) as run:
        said = clean.remove_leftovers()
        assert f"adapter/old-0123456789  kept: it is being written by process {os.getpid()} on" in said
        assert (run.staging / "lock").exists()
    assert not (home / "runs/.staging/fusion/older-0123456789").exists()


def test_nothing_is_removed_while_a_study_runs(home):
    with open(home / "runs/.command.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("Process 1 on another-host")
        lock.flush()
        with pytest.raises(UserError, match="Process 1 on another-host is running a study"):
            clean.remove_leftovers()
