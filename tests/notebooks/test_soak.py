"""The soak, shortened: two stops of a small real study; `make soak` has all kinds, more often."""

from __future__ import annotations

import json
import random
import shutil
import time

import pytest

from studykit.runs import store
from studykit.study import plan
from tests import soak, soak_laws
from tests.notebooks.conftest import copy_project

pytestmark = pytest.mark.notebooks
# Starting notebooks takes most of the time, so there are few: what trains is the base.
STUDY = soak.STUDY.replace("bottleneck, advfusion_zero", "base").replace("steps: 12,", "steps: 60,")


def test_stopped_at_random_points_the_same_command_comes_to_the_same_end(tmp_path, monkeypatch):
    with soak.small_disk(tmp_path / "disk") as mounted:
        home = copy_project(tmp_path / "disk/project", STUDY)
        monkeypatch.setenv("STUDYKIT_HOME", str(home))
        kinds = ["disk full", "read-only"] if mounted else ["SIGKILL of a kernel", "out of memory"]
        assert soak.soak(home, kinds, random.Random(3), time.monotonic() + 600) == ([], len(kinds))


def test_of_records_only_what_a_clock_measured_is_left_out(tmp_path):
    home = tmp_path / "runs/adapter/a"
    home.mkdir(parents=True)
    (home / store.COPY).write_text("{}")
    file = home / "training.json"
    seen = []
    for text in ('{"loss": 1, "seconds": 2}', '{"loss": 1, "seconds": 3}', '{"loss": 2, "seconds": 3}'):
        file.write_text(text)
        seen.append(soak_laws.numbers(tmp_path))
    assert seen[0] == seen[1] != seen[2]


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A project with a training that a stop left at step 20 of its first attempt, and what it learned of that."""
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    run = plan.Run("adapter", "lua", "0", {"out": "runs/adapter/lua-0"}, ())
    attempt(tmp_path, 1, 20)
    told = []
    laws = soak_laws.Laws(tmp_path, {run.name: {"training.json": "another"}}, told.append)
    assert laws.check("first", [soak_laws.left(tmp_path, run)])
    return tmp_path, laws, told


def attempt(home, number: int, step: int) -> None:
    staging = home / "runs/.staging/adapter/lua-0"
    checkpoint = staging / f"checkpoints/checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (staging / "attempt.json").write_text(json.dumps({"attempt": number}))
    state = {"global_step": step, "max_steps": 80, "log_history": []}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))


def test_a_training_that_goes_on_keeps_the_law(stopped):
    home, laws, told = stopped
    attempt(home, 2, 40)
    assert laws.check("then", []) and told == []


def test_a_training_that_begins_anew_breaks_it(stopped):
    home, laws, told = stopped
    shutil.rmtree(home / "runs/.staging/adapter/lua-0/checkpoints")
    attempt(home, 1, 40)
    assert not laws.check("then", []) and "was at step 20 of 80; it did not go on from there" in told[0]


def test_another_result_is_told_at_the_stop_that_made_it(stopped):
    home, laws, told = stopped
    done = home / "runs/adapter/lua-0"
    done.mkdir(parents=True)
    (done / store.COPY).write_text('{"attempt": 2}')
    (done / "training.json").write_text("{}")
    assert not laws.check("after stop 2", []) and told == ["after stop 2: results are other ones: adapter/lua-0"]
