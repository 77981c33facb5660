"""What `studykit clean` finds and removes: runs that no study needs, and nothing that one does."""

from __future__ import annotations

import fcntl

import pytest

from studykit import clean, plan
from studykit.params import UserError
from studykit.study import load_study
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
    return {str(f.relative_to(home)) for f in home.rglob("*") if f.is_file() and f.name not in (".engine.lock",)}


def test_the_listing_has_sizes_and_removes_nothing(home):
    before = files(home)
    said = clean.listing().split("\n")
    assert said[0] == "   2.0 MB  fusion/older-0123456789" and said[1] == " 301.0 kB  adapter/old-0123456789"
    assert said[2].startswith("2.3 MB in 2 runs that no study in params/ needs") and files(home) == before


def test_removing_leaves_what_studies_need(home):
    before = files(home)
    assert clean.remove().endswith("2.3 MB removed.")
    assert files(home) == {f for f in before if "old" not in f}
    assert clean.listing() == "Nothing is left over: every run is needed by a study in params/."


def test_a_run_that_is_being_written_stays(home):
    with open(home / "runs/.staging/fusion/older-0123456789/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("process 12 on host")
        lock.flush()
        assert "kept: it is being written by process 12 on host" in clean.remove()
    assert (home / "runs/.staging/fusion/older-0123456789/checkpoints/state").exists()


def test_what_was_staged_for_a_finished_run_goes(home):
    done = plan.plan(load_study("params/tiny.yaml"))[0]
    (home / "runs/.staging" / done.name / "checkpoints").mkdir()
    (home / "runs/.staging" / done.name / "checkpoints/state").write_bytes(bytes(9000))
    clean.remove()
    assert (home / done.dir / "weights").exists() and not (home / "runs/.staging" / done.name).exists()


def test_a_study_that_cannot_be_read_stops_it(home):
    before = files(home)
    (home / "params/other.yaml").write_text("study: [")
    with pytest.raises(UserError, match="params/other.yaml"):
        clean.remove()
    assert files(home) - {"params/other.yaml"} == before


def test_nothing_is_removed_while_a_study_runs(home):
    with open(home / "runs/.engine.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("Process 1 on another-host")
        lock.flush()
        with pytest.raises(UserError, match="Process 1 on another-host is running a study"):
            clean.remove()


def test_sizes_read_as_people_write_them():
    assert [clean.shown(n) for n in (0, 999, 1500, 2e6, 3.25e9, 5e12)] == [
        "0 B", "999 B", "1.5 kB", "2.0 MB", "3.2 GB", "5000.0 GB"]  # fmt: skip
