"""How far a study is: from checkpoints and manifests alone, in lines that a pipe and a terminal can hold."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time

import nbformat
import pytest

from studykit.runs import status
from studykit.study import plan
from studykit.study.family import load_plan
from studykit.study.file import Study
from studykit.workflow import display, progress, steps, time_left
from studykit.workflow import run as workflow_run
from tests import made_runs
from tests.project import ROOT

SMALL = {"study": "small", "task": "generation", "members": ["python"], "target": "lua", "seeds": [0],
         "methods": ["base", "bottleneck", "advfusion_zero"], "evaluate": {"sources": []},
         "adapter": {"steps": 100, "target_steps": 100}}  # fmt: skip


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
    headline = {"validation loss": 0.51234, "rows": 7}
    made_runs.finish(home / run.dir, run.stage, run.params, seconds=seconds, headline=headline)
    (home / run.dir / "notebook.ipynb").write_text("{}")


def test_a_step_is_that_of_the_newest_whole_checkpoint(home, planned):
    adapter = of(planned, "adapter")
    assert steps.training_step(adapter) is None
    checkpoint(home, adapter, 20, 60, 1.25)
    torn = home / "runs/.staging" / adapter.name / "checkpoints/checkpoint-40"
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"global_step": 4')
    assert str(steps.training_step(adapter)) == "step 20 of 60, loss 1.250"


def test_phases_are_named_and_each_is_half_of_the_way(home, planned):
    fusion = of(planned, "fusion")
    checkpoint(home, fusion, 50, 100, 1.0, "phase1")
    step = steps.training_step(fusion)
    assert (str(step), step.share) == ("phase 1, step 50 of 100, loss 1.000", 0.25)
    time.sleep(0.02)
    checkpoint(home, fusion, 20, 100, 0.5, "phase2")
    assert steps.training_step(fusion).phase == "phase 2" and steps.training_step(fusion).share == pytest.approx(0.6)


def test_the_time_left_is_what_runs_of_a_stage_took_divided_by_the_places(home, planned):
    base, data, *rest = planned
    one = 10 + time_left.STARTUP
    adapters = [run for run in rest if run.stage == "adapter"]
    for run in (base, data, adapters[0]):
        finish(home, run, 10)
    assert time_left.time_left(planned, {adapters[1]: "waiting"}, {}, 1) == (one, True)
    both = {run: "waiting" for run in adapters}
    assert time_left.time_left(planned, both, {}, 1)[0] == 2 * one
    assert time_left.time_left(planned, both, {}, 2)[0] == one
    assert time_left.time_left(planned, both, {}, 8)[0] == one, "no shorter than the longest run"
    assert time_left.time_left(planned, both, {}, 8, gpus=1)[0] == 2 * one, "a GPU holds one run at a time"
    assert time_left.time_left(planned, both, {}, 1, gpus=8)[0] == 2 * one, "a GPU is no core"
    running = {adapters[1]: "running"}
    assert time_left.time_left(planned, running, {adapters[1]: 4.0}, 2)[0] == one - 4
    todo = {run: "waiting" for run in rest}
    assert time_left.time_left(planned, todo, {}, 2)[0] < time_left.time_left(planned, todo, {}, 1)[0], "some can wait"
    assert time_left.time_left(planned, {}, {}, 2) == (0.0, True)


def test_figures_that_a_notebook_draws_after_its_run_count(home, planned):
    first, second = [run for run in planned if run.stage == "adapter"]
    finish(home, first, 10)
    (home / first.dir / ".manifest.json").write_text("{}")
    published = time.time() - 25
    os.utime(home / first.dir / ".manifest.json", (published, published))
    assert time_left.time_left(planned, {second: "waiting"}, {}, 1) == (10 + 25 + time_left.STARTUP, True)
    os.utime(home / first.dir / ".manifest.json", (published - 86400,) * 2)
    assert time_left.drawing_seconds(home / first.dir) == 0, "it was shown again on another day"


def test_a_fusion_is_evaluated_longer_than_one_adapter(planned):
    work = {run.params["method"]: time_left.work(run.stage, run.params) for run in planned if run.stage == "evaluate"}
    assert work == {"base": 1, "bottleneck": 1, "advfusion_zero": 2 * time_left.FUSED}


def test_the_shares_are_of_the_runs_made_since_then(home, planned):
    assert progress.describe_shares(planned, 0) == ""
    base, data = of(planned, "base_model"), of(planned, "data")
    finish(home, base, seconds=30.0)
    finish(home, data, seconds=10.0)
    said = progress.describe_shares(planned, 0)
    assert said == "40 s of work: base_model 75% (30 s, 1 run), data 25% (10 s, 1 run)"
    os.utime(home / base.dir / "manifest.json", (1, 1))
    assert progress.describe_shares(planned, 2).startswith("10 s of work: data 100%"), "the base was there before"


def test_a_training_is_timed_by_its_own_speed_once_it_has_some(home, planned):
    adapter = of(planned, "adapter")

    def left(spent: float) -> float:
        return time_left.time_left(planned, {adapter: "running"}, {adapter: spent}, 1)[0]

    checkpoint(home, adapter, 2, 100, 1.0)
    unit = time_left.PRIORS["adapter"] * time_left.work("adapter", adapter.params)
    assert left(1) == pytest.approx(unit + time_left.STARTUP - 1), "at 2 % only the prior is known"
    checkpoint(home, adapter, 50, 100, 1.0)
    assert left(10) == pytest.approx(10, abs=1)
    for at, written in (("2", 10), ("50", 6)):
        state = next(home.glob(f"runs/.staging/{adapter.name}/checkpoints/checkpoint-{at}/*.json"))
        os.utime(state, (time.time() - written,) * 2)
    assert left(16) == pytest.approx(10 - 6, abs=1), "the half was done when its checkpoint was written"


def test_a_first_training_tells_how_fast_the_others_will_be(home, planned):
    """Until the first run has ended: after a tenth of it, on a machine four times as slow as the priors say."""
    base, rest = of(planned, "base_model"), {run: "waiting" for run in planned if run.stage in ("adapter", "fusion")}
    expected, _ = time_left.time_left(planned, rest, {}, 1, startup=0)
    took = 4 * time_left.PRIORS["base_model"] * time_left.work("base_model", base.params)
    checkpoint(home, base, 10, 100, 1.0)
    slow, complete = time_left.time_left(planned, rest | {base: "running"}, {base: 0.1 * took}, 1, startup=0)
    assert complete and slow - 0.9 * took == pytest.approx(4 * expected, rel=0.05)


def test_other_studies_tell_of_runs_on_the_same_base_alone(home, planned):
    adapter = of(planned, "adapter")
    prior = time_left.time_left(planned, {adapter: "waiting"}, {}, 1)
    (home / "runs/adapter/torn-0123456789").mkdir(parents=True)
    (home / "runs/adapter/torn-0123456789/manifest.json").write_text('{"seco')
    other = adapter.params | {"base": "runs/base_model/other-0123456789"}
    made_runs.finish(home / "runs/adapter/other-0123456789", "adapter", other, seconds=300)
    assert time_left.time_left(planned, {adapter: "waiting"}, {}, 1) == prior
    longer = adapter.params | {"steps": 3 * adapter.params["steps"]}
    made_runs.finish(home / "runs/adapter/longer-0123456789", "adapter", longer, seconds=300)
    assert time_left.time_left(planned, {adapter: "waiting"}, {}, 1) == (100 + time_left.STARTUP, True)
    finish(home, adapter, 30)
    assert time_left.time_left(planned, {adapter: "waiting"}, {}, 1) == (30 + time_left.STARTUP, True)


def test_nothing_is_known_of_a_published_base_until_something_with_it_has_ended(home):
    planned = plan.plan(Study.model_validate(SMALL | {"base": "org/model"}))
    adapters = [run for run in planned if run.stage == "adapter"]
    todo = {run: "waiting" for run in planned if run.stage in ("adapter", "fusion")}
    assert not time_left.time_left(planned, todo, {}, 1)[1]
    finish(home, adapters[0], 590.0)
    seconds, complete = time_left.time_left(planned, todo, {}, 1)
    speed = 590 / time_left.work("adapter", adapters[0].params) / time_left.PRIORS["adapter"]
    at_least = speed * sum(time_left.PRIORS[run.stage] * time_left.work(run.stage, run.params) for run in todo)
    assert complete and seconds == pytest.approx(at_least + len(todo) * time_left.STARTUP), "as slow as the adapter was"


@pytest.mark.parametrize("slower", [0.4, 1.0, 3.0, 12.0])
def test_after_a_tenth_the_time_left_is_right_within_half(home, slower):
    """Stages take other times than their priors say, by a third, and the machine is slower or faster."""
    planned = load_plan(str(ROOT / "params/quickstart.yaml"), ROOT).runs
    odd = dict(zip(time_left.PRIORS, (0.75, 1.0, 1.3, 0.75, 1.3, 1.3, 1.0, 1.0), strict=True))
    takes = {
        run: slower * odd[run.stage] * time_left.PRIORS[run.stage] * time_left.work(run.stage, run.params)
        for run in planned
    }
    for at, run in enumerate(planned[:-1], 1):
        finish(home, run, takes[run])
        todo = planned[at:]
        truth = time_left.makespan({run: takes[run] + 5 for run in todo}, 0, 2)
        told, complete = time_left.time_left(planned, dict.fromkeys(todo, "waiting"), {}, 2, startup=5)
        if at > len(planned) / 10:
            assert complete and truth / 1.5 <= told <= 1.5 * truth, (at, told, truth)


def test_before_the_first_run_the_quickstart_is_told_as_it_was_measured(home):
    """It took 3 min 7 s to 5 min 51 s on two cores of four machines; its base, which is not trained, took 0.3 s."""
    planned = load_plan(str(ROOT / "params/quickstart.yaml"), ROOT).runs
    told, complete = time_left.time_left(planned, dict.fromkeys(planned, "waiting"), {}, 2)
    assert complete and 187 <= told <= 351


def test_checkpoints_may_vanish_while_the_display_reads_them(home, planned, monkeypatch):
    """A training prunes its checkpoints at any moment, also between the listing and the reading of a directory."""
    base = planned[0]
    folder = home / "runs/.staging" / base.name / "checkpoints"
    for step in range(1, 40):
        checkpoint(home, base, step, 40, 1.0)
    ending = threading.Event()

    def prune() -> None:
        while not ending.is_set():
            for step in range(1, 40):
                shutil.rmtree(folder / f"checkpoint-{step}", ignore_errors=True)
            for step in range(1, 40):
                checkpoint(home, base, step, 40, 1.0)

    pruning = threading.Thread(target=prune)
    pruning.start()
    try:
        for _ in range(300):
            step = steps.training_step(base)
            assert step is None or step.steps == 40
    finally:
        ending.set()
        pruning.join()
    shutil.rmtree(folder)
    assert steps.training_step(base) is None


def test_what_stands_on_a_failed_run_is_left_out(planned):
    adapter = of(planned, "adapter")
    cannot = progress.blocked(planned, {adapter})
    assert {run for run in planned if adapter in run.needs} <= cannot and of(planned, "compare") in cannot
    assert adapter not in cannot and not {of(planned, "base_model"), of(planned, "data")} & cannot
    assert progress.blocked(planned, set()) == set()


@contextlib.contextmanager
def logged(home, run: plan.Run, text: str, notebook: str | None = None):
    """The logs of a run, held as papermill holds them."""
    log = home / "logs" / f"{run.name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    if notebook is not None:
        log.with_suffix(".ipynb").write_text(notebook)
    with open(log, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(text)
        held.flush()
        yield


BEGUN = "Input Notebook:  a.ipynb\nOutput Notebook: b.ipynb\nExecuting notebook with kernel: python3\n"
DEAD = f"{BEGUN}Traceback (most recent call last):\n  x\nnbclient.exceptions.DeadKernelError: Kernel died\n"


def cells(*done: str) -> str:
    return json.dumps(
        {"cells": [{"metadata": {"papermill": {"status": state, "start_time": "12:00"}}} for state in done]}
    )


@pytest.mark.parametrize("text, notebook, then", [
    (BEGUN, None, "stopped before its first cell had ended"),
    (BEGUN, '{"cells": [{"cell', "stopped before its first cell had ended"),
    (BEGUN, cells("completed", "running"), "stopped in cell 2 of 2"),
    (f"{BEGUN}Aborted!", cells("completed", "completed"), "stopped in cell 2 of 2"),
    (DEAD, cells("completed", "completed"), "its kernel died: it was killed, most often because memory ran out"),
    (DEAD.replace("nbclient.exceptions.DeadKernelError: Kernel died", "OSError: No space"), '{"c', "OSError: No space"),
    ("python: No module named studykit.workflow.papermill", None, "python: No module named studykit.workflow.papermill"),
])  # fmt: skip
def test_a_notebook_has_failed_only_when_papermill_has_ended(home, planned, text, notebook, then):
    base, ended = planned[0], {}
    since = time.time() - 1
    with logged(home, base, text, notebook):
        assert status.run_status(base.dir).state == "running" and display._state(base, since, ended) == "starting"
    said = status.run_status(base.dir)
    assert said.state in ("failed", "stopped") and said.error.startswith(then)
    assert display._state(base, since, ended) == "failed" and ended[base][1] == said.error
    assert (said.state == "failed") == (not then.startswith("stopped"))


@pytest.mark.parametrize("text, notebook", [("", None), ("", '{"cell'), (BEGUN, cells("completed", "completed"))])
def test_what_begins_or_has_just_ended_has_not_failed(home, planned, text, notebook):
    """The shell has made the log and Python starts; or the manifest of another host is not seen yet."""
    with logged(home, planned[0], text, notebook):
        pass
    assert status.run_status(planned[0].dir).state in ("running", "missing")
    assert display._state(planned[0], time.time() - 1, {}) == "starting"


def test_papermill_holds_its_log_until_its_kernel_is_dead(home, planned):
    base = planned[0]
    source = ["print(1)", "import os, time\nwhile not os.path.exists('die'): time.sleep(0.1)\nos.kill(os.getpid(), 9)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(line) for line in source])
    nbformat.write(notebook, home / "a.ipynb")
    log = home / "logs" / f"{base.name}.ipynb"
    log.parent.mkdir(parents=True)
    since = time.time() - 1
    with open(log.with_suffix(".txt"), "w") as text:
        command = [sys.executable, "-m", "studykit.workflow.papermill", "-k", "python3", "a.ipynb", str(log)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, cwd=home, stdout=text, stderr=text, env=environment)
    seen = set()
    while not (log.is_file() and '"completed"' in log.read_text()):
        seen.add((status.run_status(base.dir).state, display._state(base, since, {})))
        assert process.poll() is None, log.with_suffix(".txt").read_text()
    assert seen == {("running", "starting")}
    (home / "die").touch()
    assert process.wait(30) != 0
    assert (
        status.run_status(base.dir).error.startswith("its kernel died") and display._state(base, since, {}) == "failed"
    )
    out = io.StringIO()
    os.utime(log.with_suffix(".txt"), (1, 1))
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2)"])
    threading.Timer(1, os.utime, [log.with_suffix(".txt")]).start()
    assert display.follow(child, planned, 2, out) == 0
    assert "base_model scratch-s0 failed: its kernel died" in out.getvalue()


@pytest.mark.parametrize("seconds, complete, said", [
    (0.2, True, ""), (42.4, True, "about 42 s left"), (200, False, "time left not known yet"),
    (9000, True, "about 2.5 h left"),
])  # fmt: skip
def test_the_time_left_in_words(seconds, complete, said):
    assert time_left.describe_time_left(seconds, complete) == said


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
    assert display.follow(child, planned, 2, out) == 0
    worker.join()
    return out.getvalue()


def test_in_a_pipe_each_event_is_a_plain_line(home, planned):
    said = followed(home, planned, io.StringIO())
    lines = said.split("\n")
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", said), "no control characters"
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines if line)
    events = [line[9:] for line in lines if line]
    assert events[0] == f"{len(planned)} of {len(planned)} runs to do"
    assert events[1].startswith("base_model scratch-s0 done in 10.0 s: validation loss 0.512, rows 7 (1 of ")
    assert len(events) == 2, "a short training has no lines before it ends"


def test_in_a_pipe_a_long_training_has_a_line_for_a_quarter_of_its_steps(home, planned, monkeypatch):
    monkeypatch.setattr(display, "QUIET", 0.2)
    events = [line[9:] for line in followed(home, planned, io.StringIO()).split("\n") if line]
    assert events[1].startswith("base_model scratch-s0 step 10 of 40, loss 2.500 (0 of 10 done, about ")
    assert events[2].startswith("base_model scratch-s0 done") and len(events) == 3


def test_in_a_terminal_few_lines_are_rewritten(home, planned, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    said = followed(home, planned, Terminal())
    assert re.search(r"base_model +0 of 1\n    scratch-s0  step 10 of 40, loss 2.500", said)
    assert f"\x1b[{2 + len({run.stage for run in planned})}F\x1b[J" in said, "a line for all, and one per stage"
    assert f"1 of {len(planned)} done" in said
    block = [line for line in re.sub(r"\x1b\[\d*[FJ]", "", said).split("\n") if line.startswith((" ", "["))]
    assert max(map(len, block)) < 60


def test_status_has_a_row_per_stage_and_what_runs(home, planned, monkeypatch):
    monkeypatch.setattr("studykit.runs.store.digests", lambda *_: {})
    finish(home, planned[0])
    adapter = of(planned, "adapter")
    checkpoint(home, adapter, 20, 60, 1.25)
    with open(home / "runs/.staging" / adapter.name / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("process 12 on host")
        lock.flush()
        said = progress.status_table(planned).split("\n")
    assert said[0].split() == ["stage", "done", "running", "failed", "not", "run"]
    rows = {line.split()[0]: line.split()[1:] for line in said[1:8]}
    assert rows["base_model"] == ["1", "-", "-", "-"] and rows["adapter"] == ["-", "1", "-", "1"]
    at = said.index(f"running: adapter {adapter.label}: step 20 of 60, loss 1.250")
    assert said[at + 1] == "    being written by process 12 on host"
    assert said[-2].startswith(f"{len(planned) - 1} of {len(planned)} runs are to do")
    assert said[-1] == "No study is running." and max(map(len, said)) <= 80


def test_programs_can_read_the_status(home, planned):
    checkpoint(home, of(planned, "adapter"), 20, 60, 1.25)
    logged_text = home / "logs" / f"{of(planned, 'adapter').name}.txt"
    logged_text.parent.mkdir(parents=True)
    logged_text.write_text(BEGUN)
    told = json.loads(json.dumps(progress.status_data(planned)))
    assert told["runs"] == {"missing": len(planned) - 1, "stopped": 1} and told["command"] is None
    (stopped,) = [run for run in told["not_done"] if run["state"] == "stopped"]
    assert stopped["step"] == {"step": 20, "steps": 60, "loss": 1.25, "share": pytest.approx(1 / 3)}
    assert told["seconds_left"] > 0 and told["seconds_left_cover_every_run"]


@pytest.mark.parametrize("text, said", [
    ("Building DAG\nMissingInputException in rule data:\nMissing input files\nComplete log(s): x\n",
     "MissingInputException in rule data: Missing input files"),
    ("Error in rule x:\n  a\nWorkflowError:\nAt least one job did not complete successfully.\n", "Error in rule x: a"),
    ("", "it printed nothing."),
])  # fmt: skip
def test_an_error_of_snakemake_is_told_in_a_sentence(tmp_path, text, said):
    (tmp_path / "log.txt").write_text(text)
    assert workflow_run.last_error(tmp_path / "log.txt") == said
