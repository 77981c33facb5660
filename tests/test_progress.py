"""How far a study is: from checkpoints and manifests alone, in lines that a pipe and a terminal can hold."""

from __future__ import annotations

import fcntl
import io
import json
import re
import subprocess
import sys
import threading
import time

import pytest

from studykit import driver, plan, progress
from studykit.study import Study

SMALL = {"study": "small", "task": "generation", "languages": ["python"], "target": "lua", "seeds": [0],
         "methods": ["base", "bottleneck", "advfusion_zero"], "evaluate": {"sources": []}}  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def planned() -> list[plan.Run]:
    return plan.plan(Study.model_validate(SMALL))


def of(planned: list[plan.Run], stage: str) -> plan.Run:
    return next(run for run in planned if run.stage == stage)


def checkpoint(home, run: plan.Run, step: int, steps: int, loss: float, phase: str = "") -> None:
    folder = home / "runs/.staging" / run.name / "checkpoints" / phase / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    log = [{"step": step - 1, "loss": loss}, {"step": step, "eval_loss": 9.0}]
    state = {"global_step": step, "max_steps": steps, "log_history": log}
    (folder / "trainer_state.json").write_text(json.dumps(state))


def finish(home, run: plan.Run, seconds: float = 10.0) -> None:
    (home / run.dir).mkdir(parents=True)
    made = {"seconds": seconds, "headline": {"validation loss": 0.51234, "rows": 7}, "params": run.params, "inputs": {}}
    (home / run.dir / "manifest.json").write_text(json.dumps(made))
    (home / run.dir / "notebook.ipynb").write_text("{}")


def test_a_step_is_that_of_the_newest_whole_checkpoint(home, planned):
    adapter = of(planned, "adapter")
    assert progress.step_of(adapter) is None
    checkpoint(home, adapter, 20, 60, 1.25)
    torn = home / "runs/.staging" / adapter.name / "checkpoints/checkpoint-40"
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"global_step": 4')
    assert str(progress.step_of(adapter)) == "step 20 of 60, loss 1.250"


def test_phases_are_named_and_each_is_half_of_the_way(home, planned):
    fusion = of(planned, "fusion")
    checkpoint(home, fusion, 50, 100, 1.0, "phase1")
    step = progress.step_of(fusion)
    assert (str(step), step.share) == ("phase 1, step 50 of 100, loss 1.000", 0.25)
    time.sleep(0.02)
    checkpoint(home, fusion, 20, 100, 0.5, "phase2")
    assert progress.step_of(fusion).phase == "phase 2" and progress.step_of(fusion).share == pytest.approx(0.6)


def test_the_time_left_follows_finished_runs_and_what_can_run_at_once(home, planned):
    base, data, *rest = planned
    around = progress.AROUND
    adapters = [run for run in rest if run.stage == "adapter"]
    for run in (base, data, adapters[0]):
        finish(home, run, 10)
    todo = {run: "waiting" for run in adapters[1:]}
    assert progress.time_left(planned, todo, {}, 1) == (10 + around, True)
    both = {run: "waiting" for run in adapters}
    assert progress.time_left(planned, both, {}, 1)[0] == 2 * (10 + around)
    assert progress.time_left(planned, both, {}, 2)[0] == 10 + around
    running = {adapters[1]: "running"}
    assert progress.time_left(planned, running, {adapters[1]: 4.0}, 2)[0] == 6 + around
    assert progress.time_left(planned, {base: "", data: ""}, {}, 2)[0] == 2 * (10 + around), "data waits for the base"
    seconds, complete = progress.time_left(planned, {run: "waiting" for run in rest}, {}, 2)
    assert not complete and seconds >= 10 + around, "nothing is known of fusions yet"
    checkpoint(home, of(planned, "fusion"), 50, 100, 1.0, "phase1")
    fusion = {of(planned, "fusion"): "running"}
    assert progress.time_left(planned, fusion, {of(planned, "fusion"): 30.0}, 2) == (pytest.approx(90.0), True)


@pytest.mark.parametrize("seconds, complete, said", [
    (0.2, True, ""), (42.4, True, "about 42 s left"), (200, False, "at least 3 min left"),
    (9000, True, "about 2.5 h left"),
])  # fmt: skip
def test_the_time_left_in_words(seconds, complete, said):
    assert progress.about(seconds, complete) == said


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def followed(home, planned, out) -> str:
    """What `follow` says while the base begins, trains and ends, and nothing else happens."""
    base = planned[0]
    (home / "runs/.staging" / base.name).mkdir(parents=True)

    def work() -> None:
        time.sleep(0.3)
        with open(home / "runs/.staging" / base.name / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            time.sleep(0.8)
            checkpoint(home, base, 10, 40, 2.5)
            time.sleep(0.8)
            finish(home, base)

    worker = threading.Thread(target=work)
    worker.start()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3)"])
    assert progress.follow(child, planned, 2, out) == 0
    worker.join()
    return out.getvalue()


def test_in_a_pipe_each_event_is_a_plain_line(home, planned):
    said = followed(home, planned, io.StringIO())
    lines = said.split("\n")
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", said), "no control characters"
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines if line)
    events = [line[9:] for line in lines if line]
    assert events[0] == f"{len(planned)} of {len(planned)} runs to do"
    assert events[1] == "base_model scratch-s0 starts"
    assert events[2] == "base_model scratch-s0 step 10 of 40, loss 2.500"
    assert events[3].startswith("base_model scratch-s0 done in 10.0 s: validation loss 0.512, rows 7 (1 of ")
    assert len(events) == 4


def test_in_a_terminal_few_lines_are_rewritten(home, planned, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    said = followed(home, planned, Terminal())
    assert "base_model scratch-s0  step 10 of 40, loss 2.500" in said and "\x1b[2F\x1b[J" in said
    assert f"1 of {len(planned)} done" in said
    block = [line for line in re.sub(r"\x1b\[\d*[FJ]", "", said).split("\n") if line.startswith((" ", "["))]
    assert max(map(len, block)) < 60


def test_status_has_a_row_per_stage_and_what_runs(home, planned, monkeypatch):
    monkeypatch.setattr("studykit.runs.basis", lambda *_: {})
    finish(home, planned[0])
    adapter = of(planned, "adapter")
    checkpoint(home, adapter, 20, 60, 1.25)
    with open(home / "runs/.staging" / adapter.name / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("process 12 on host")
        lock.flush()
        said = progress.table(planned).split("\n")
    assert said[0].split() == ["stage", "done", "running", "failed", "not", "run"]
    rows = {line.split()[0]: line.split()[1:] for line in said[1:8]}
    assert rows["base_model"] == ["1", "-", "-", "-"] and rows["adapter"] == ["-", "1", "-", "1"]
    assert f"running: adapter {adapter.label}: step 20 of 60, loss 1.250; being written by process 12 on host" in said
    assert said[-1].startswith(f"{len(planned) - 1} of {len(planned)} runs are to do")
    assert "no engine is running" in said[-1]


@pytest.mark.parametrize("text, said", [
    ("Building DAG\nMissingInputException in rule data:\nMissing input files\nComplete log(s): x\n",
     "MissingInputException in rule data: Missing input files"),
    ("Error in rule x:\n  a\nWorkflowError:\nAt least one job did not complete successfully.\n", "Error in rule x: a"),
    ("", "it said nothing."),
])  # fmt: skip
def test_an_error_of_snakemake_is_told_in_a_sentence(tmp_path, text, said):
    (tmp_path / "log.txt").write_text(text)
    assert driver.last_error(tmp_path / "log.txt") == said
