"""Run directories: nothing half-written counts, one writer at a time, a kill loses no checkpoint."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from studykit.errors import Interrupted, UserError
from studykit.runs import code_digest, files, locks, provenance, store
from studykit.runs import process as runs_process
from studykit.runs import status as runs_status
from studykit.runs.manifest import InputRecord, finished_run

ROOT = Path(__file__).parents[2]
OUT = "runs/adapter/lua-bottleneck-s0-0123456789"
PARAMS = {"steps": 60, "base": "runs/base_model/x-1111111111", "learning_rate": 1e-5, "out": OUT}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    monkeypatch.delenv("STUDYKIT_COMMAND", raising=False)
    return tmp_path


def opened(out=OUT, params=PARAMS, **options):
    return store.open_run(out, stage="adapter", params=params, **options)


def script(code: str, home: Path, **environment) -> subprocess.Popen:
    """Another process that uses this library in the same project."""
    head = f"from studykit.runs import store\nOUT, PARAMS = {OUT!r}, {PARAMS!r}\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "STUDYKIT_HOME": str(home)} | environment
    command = [sys.executable, "-c", head + textwrap.dedent(code)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


HOLD = """
    import time
    with store.open_run(OUT, stage="adapter", params=PARAMS) as run:
        (run.checkpoints / "last").write_text("7")
        run.path("half").write_text("half")
        print("holding", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def writer(home):
    process = script(HOLD, home)
    while "holding" not in process.stdout.readline():
        assert process.poll() is None, process.stderr.read()
    yield process
    process.kill()
    process.wait()


def test_a_run_is_published_whole(home, capsys):
    with opened() as run:
        assert not run.done and not run.dir.exists()
        run.path("deep", "er", "file.txt").write_text("content")
        run.checkpoints.joinpath("step-1").write_text("x")
        with pytest.raises(UserError, match="is not a finished run"):
            finished_run(OUT)
        run.publish(headline={"loss": 1.25})
        assert run.done and run.path("deep", "er", "file.txt").read_text() == "content"
    assert (home / OUT / "deep/er/file.txt").read_text() == "content"
    assert not list(home.glob("runs/.staging/**/checkpoints")) and not list(home.glob("runs/.staging/**/publish"))
    made = finished_run(OUT).manifest
    assert made.stage == "adapter" and made.params == PARAMS and made.headline == {"loss": 1.25}
    assert made.inputs == {PARAMS["base"]: InputRecord(key="1111111111", sha256=None)}
    assert made.versions["python"] and made.seconds >= 0 and made.peak_memory_mb > 5 and made.threads >= 1
    assert "starts." in capsys.readouterr().out


def test_a_finished_run_is_shown_and_never_overwritten(capsys):
    with opened() as run:
        files.write_json(run.path("value.json"), [1])
        run.publish()
    before = finished_run(OUT).manifest
    with opened() as run:
        assert run.done and run.read_json("value.json") == [1]
        with pytest.raises(UserError, match="is finished and is never overwritten"):
            run.publish()
    assert finished_run(OUT).manifest == before and "finished on" in capsys.readouterr().out


def test_a_directory_of_another_run_is_refused():
    with opened() as run:
        run.publish()
    with pytest.raises(UserError, match="holds a finished run whose steps is 60, not 61"):
        with opened(params=PARAMS | {"steps": 61}):
            pass


def test_what_the_engine_leaves_there_is_replaced(home):
    (home / OUT).mkdir(parents=True)
    (home / OUT / "stale.txt").write_text("from a run whose manifest the command removed")
    with opened() as run:
        assert not run.done
        run.publish()
    assert {p.name for p in (home / OUT).iterdir()} == {"manifest.json", store.COPY}


@pytest.mark.parametrize("at", ["json.dumps", "os.fsync", "os.rename", "os.replace"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_death_at_any_point_of_publishing_leaves_all_or_nothing(home, at, call):
    code = f"""
        import os, json
        with store.open_run(OUT, stage="adapter", params=PARAMS) as run:
            run.path("artefact").write_text("whole")
            real, left = {at}, [{call}]
            def dying(*args, **kwargs):
                left[0] -= 1
                if not left[0]:
                    os._exit(9)
                return real(*args, **kwargs)
            {at} = dying
            run.publish()
    """
    (home / OUT).mkdir(parents=True)  # so that publishing renames twice
    script(code, home).wait()
    if (home / OUT / "manifest.json").exists():
        assert finished_run(OUT).params == PARAMS and (home / OUT / "artefact").read_text() == "whole"
    with opened() as run:  # and in every case the next writer can finish
        if not run.done:
            run.path("artefact").write_text("whole")
            run.publish()
    assert (home / OUT / "artefact").read_text() == "whole" and runs_status.run_status(OUT).state == "done"


def test_a_second_writer_is_refused_with_process_and_host(writer):
    assert runs_status.run_status(OUT).state == "running" and str(writer.pid) in runs_status.run_status(OUT).error
    with pytest.raises(UserError, match=rf"being written by process {writer.pid} on \S+; wait for it or stop it"):
        with opened(wait=0.3):
            pass
    with pytest.raises(UserError, match=f"process {writer.pid}"):
        locks.wait_for_writer("adapter/lua-bottleneck-s0-0123456789", wait=0)


def test_deleting_the_lock_of_a_writer_admits_no_second_one(home, writer):
    for lock in home.glob("runs/.staging/**/lock"):
        lock.unlink()
    assert runs_status.run_status(OUT).state == "running"
    with pytest.raises(UserError, match="is being written by another process; wait for it or stop it"):
        with opened(wait=0.3):
            pass
    with pytest.raises(UserError, match="another process"):
        locks.wait_for_writer("adapter/lua-bottleneck-s0-0123456789", wait=0)
    os.kill(writer.pid, signal.SIGKILL)
    with opened(wait=5) as run:
        run.publish()


def test_a_second_writer_gets_in_when_the_first_is_killed(writer, capsys):
    os.kill(writer.pid, signal.SIGKILL)
    with opened(wait=5) as run:
        assert (run.checkpoints / "last").read_text() == "7", "checkpoints outlive the kill"
        assert not run.path("half").exists(), "what was half-written does not"
        assert run.attempt == 2
        run.publish()
    assert finished_run(OUT).manifest.attempt == 2 and "continues, attempt 2" in capsys.readouterr().out


def test_a_failing_cell_releases_the_lock_and_keeps_checkpoints():
    with pytest.raises(ZeroDivisionError):
        with opened() as run:
            (run.checkpoints / "last").write_text("7")
            raise ZeroDivisionError
    with opened(wait=0) as run:
        assert (run.checkpoints / "last").exists()


def test_an_interruption_is_one_sentence_and_keeps_checkpoints():
    with pytest.raises(Interrupted, match="^adapter/lua-bottleneck-s0-.* is stopped; run this cell again to go on.$"):
        with opened() as run:
            (run.checkpoints / "last").write_text("7")
            raise KeyboardInterrupt
    with pytest.raises(Interrupted, match="^at step 3$"), opened() as run:
        assert (run.checkpoints / "last").read_text() == "7" and run.attempt == 2
        raise Interrupted("at step 3")


def test_checkpoints_of_other_code_are_dropped(home, capsys):
    (home / "notebooks").mkdir()
    file = home / "notebooks/02_adapter.ipynb"
    file.write_text(json.dumps({"cells": [{"cell_type": "code", "source": ["x = 1"]}]}))
    with opened() as run:
        (run.checkpoints / "last").write_text("7")
    with opened() as run:
        assert (run.checkpoints / "last").exists()
    file.write_text(json.dumps({"cells": [{"cell_type": "code", "source": ["x = 2"]}]}))
    with opened() as run:
        assert not (run.checkpoints / "last").exists() and run.attempt == 1
    assert "its code changed since the last attempt; its checkpoints are dropped." in capsys.readouterr().out


@pytest.mark.parametrize("change", ["its inputs", "its data files", "its parameters", "nothing", "an attempt unknown"])
def test_checkpoints_of_other_inputs_are_dropped(home, capsys, change):
    """A half-trained state of old rows would else be finished on new ones, and certified as made from them."""
    base, rows = home / PARAMS["base"] / "manifest.json", home / "rows.jsonl"
    base.parent.mkdir(parents=True)
    base.write_text("{}")
    rows.write_text("{}")
    params, out = {"base": PARAMS["base"], "path": "rows.jsonl", "steps": 60}, "runs/data/x-0123456789"
    with store.open_run(out, stage="data", params=params) as run:
        (run.checkpoints / "last").write_text("7")
    if change == "its inputs":
        base.write_text('{"made": "again"}')
    elif change == "its data files":
        rows.write_text("{}{}")
    elif change == "its parameters":
        params = params | {"steps": 61}
    elif change == "an attempt unknown":
        (run.staging / "attempt.json").write_text("")
    with store.open_run(out, stage="data", params=params) as run:
        kept, said = (run.checkpoints / "last").exists(), capsys.readouterr().out
        run.publish()
    assert kept == (change == "nothing") and run.attempt == 1 + kept
    assert ("its checkpoints are dropped" in said) != kept
    assert f": {change} changed since the last attempt" in said or not change.startswith("its")
    assert finished_run(out).manifest.inputs[PARAMS["base"]].sha256 == files.sha256(base)


def test_an_input_that_is_made_again_meanwhile_is_not_the_one_that_was_read(home):
    base = home / PARAMS["base"] / "manifest.json"
    base.parent.mkdir(parents=True)
    base.write_text("{}")
    read = files.sha256(base)
    with opened() as run:
        base.write_text('{"made": "again"}')
        run.publish()
    assert finished_run(OUT).manifest.inputs[PARAMS["base"]].sha256 == read != files.sha256(base)


def test_what_killed_and_failed_attempts_took_is_counted(home, writer):
    """A killed one until its last checkpoint, a failed one to its end."""
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    note = home / "runs/.staging/adapter" / Path(OUT).name / "attempt.json"
    os.utime(note.with_name("checkpoints") / "last", times=(0, note.stat().st_mtime + 1000))
    with pytest.raises(ZeroDivisionError):
        with opened() as run:
            run.earlier_peak_memory_mb = 10**6
            time.sleep(0.3)
            raise ZeroDivisionError
    os.utime(note, times=(0, note.stat().st_mtime + 1000))  # this one ended after its last checkpoint
    with opened() as run:
        run.publish()
    made = finished_run(OUT).manifest
    assert made.attempt == 3 and 1000.3 <= made.seconds < 1100 and made.peak_memory_mb == 10**6


def test_all_that_is_published_is_on_the_disk_before_it_counts(home, monkeypatch):
    synced, real = [], files.fsync
    monkeypatch.setattr(store, "fsync", lambda path: (synced.append(path), real(path)))
    with opened() as run:
        run.path("deep", "file").write_text("x")
        publish = run.staging / "publish"
        run.publish()
    assert {publish, publish / "deep", publish / "deep/file", publish / "manifest.json", run.dir.parent} <= set(synced)


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_in_a_sentence(home, monkeypatch, error):
    """Rather than taken for a lock that somebody holds, or that nobody does."""
    (home / "lock").touch()

    def flock(file, how):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    for ask in (lambda: opened(wait=60).__enter__(), lambda: locks.holder(home / "lock")):
        with pytest.raises(
            UserError, match=r"lock cannot be locked \(.*\): its file system has no locks; .* with flock"
        ):
            ask()


def probed(home: Path, seconds: float) -> threading.Thread:
    """Somebody who looks for so long whether the run's lock is held."""
    lock = home / "runs/.staging/adapter" / Path(OUT).name / "lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("process 1 on host, which is dead")
    file = open(lock, "rb")
    fcntl.flock(file, fcntl.LOCK_SH)
    closing = threading.Timer(seconds, file.close)
    closing.start()
    return closing


@pytest.mark.parametrize("seconds", [0.4, 1.6])
def test_one_who_only_looks_at_a_lock_is_no_writer(home, capsys, seconds):
    closing = probed(home, seconds)
    with opened(wait=5):
        closing.join()
    assert ("(another process); waiting for it" in capsys.readouterr().out) == (seconds > locks.NOTICE_AFTER)


def test_a_lock_that_was_moved_away_is_not_waited_for(home):
    """As `clean` does with what nobody needs: the next writer has a lock of its own, where others look for it."""
    closing = probed(home, 30)
    staging = home / "runs/.staging/adapter" / Path(OUT).name
    moving = threading.Timer(0.3, lambda: shutil.move(staging, home / "trash"))
    moving.start()
    with opened(wait=5):
        assert locks.holder(staging / "lock").startswith(f"process {os.getpid()} on")
    closing.cancel()


def test_json_is_written_whole_or_not_at_all(home):
    files.write_json("a.json", {"x": 1})
    with pytest.raises(ValueError, match="nan|NaN"):
        files.write_json("a.json", {"x": float("nan")})
    with pytest.raises(TypeError):
        files.write_json("a.json", {"x": object()})
    assert files.read_json("a.json") == {"x": 1}


def logged(home: Path, *cells: dict) -> None:
    log = home / "logs/adapter" / f"{Path(OUT).name}.ipynb"
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps({"cells": list(cells)}))


def cell(status: str, *outputs: dict) -> dict:
    about = {"status": status, "start_time": None if status == "pending" else "2026-01-01T00:00:00"}
    return {"cell_type": "code", "metadata": {"papermill": about}, "outputs": list(outputs)}


def error(ename: str, evalue: str) -> dict:
    return {"output_type": "error", "ename": ename, "evalue": evalue, "traceback": []}


@pytest.mark.parametrize("raised, said", [
    (error("UserError", "steps is 0."), "steps is 0."),
    (error("KeyError", "'x'\nmore"), "KeyError: 'x'"),
    (error("RuntimeError", "\x1b[31mred\x1b[0m " + "x" * 999), "RuntimeError: red " + "x" * 379 + "..."),
    (error("MemoryError", ""), "MemoryError"),
])  # fmt: skip
def test_a_failed_run_tells_its_error_in_a_sentence(home, raised, said):
    logged(home, cell("completed"), cell("failed", raised))
    assert (runs_status.run_status(OUT).state, runs_status.run_status(OUT).error) == ("failed", said)


def test_a_killed_run_is_told_from_a_failed_one(home):
    logged(home, cell("completed"), cell("completed"), cell("failed", error("KeyboardInterrupt", "")), cell("pending"))
    assert runs_status.run_status(OUT).state == "stopped" and "in cell 3 of 4" in runs_status.run_status(OUT).error


def test_a_run_that_papermill_could_not_begin(home):
    assert runs_status.run_status(OUT) == runs_status.Status("missing")
    text = home / "logs/adapter" / f"{Path(OUT).name}.txt"
    text.parent.mkdir(parents=True)
    text.write_text("Traceback\n  line\nNoSuchKernel: python3\n\n")
    assert runs_status.run_status(OUT) == runs_status.Status("failed", "NoSuchKernel: python3")


def test_outside_of_a_project(tmp_path, monkeypatch):
    monkeypatch.delenv("STUDYKIT_HOME")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is not inside the project"):
        files.home()
    (tmp_path / "Snakefile").touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert files.home() == tmp_path


def test_commit_and_dirt(tmp_path):
    assert provenance.commit(tmp_path) is None
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]

    def git(*args):
        subprocess.run(["git", *who, *args], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    assert provenance.commit(tmp_path) is None, "a repository without a commit"
    (tmp_path / "Snakefile").write_text("x")
    git("add", ".")
    git("commit", "-qm", "one")
    (tmp_path / "notes.txt").write_text("not code")
    clean = provenance.commit(tmp_path)
    assert len(clean.id) == 40 and clean.dirty is False
    (tmp_path / "Snakefile").write_text("y")
    assert provenance.commit(tmp_path) == clean.model_copy(update={"dirty": True})


# The command's death, and GPUs


def test_a_notebook_ends_with_its_engine(home):
    dying = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    orphan = script(HOLD, home, STUDYKIT_COMMAND=runs_process.name(dying.pid))
    assert "goes on" in orphan.stdout.readline() or "holding" in orphan.stdout.readline()
    time.sleep(1.2)
    assert orphan.poll() is None, "it lives while its command lives"
    dying.kill()
    dying.wait()
    assert orphan.wait(timeout=5) == -signal.SIGKILL
    with opened(wait=0) as run:
        assert (run.checkpoints / "last").exists()


def test_a_notebook_of_a_dead_engine_does_not_begin(home):
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    name = runs_process.name(gone.pid)
    gone.wait()
    assert not runs_process.alive(name) and runs_process.alive(runs_process.name())
    assert runs_process.alive("elsewhere|1|0"), "a command on another host is believed"
    assert not runs_process.alive(runs_process.name().rsplit("|", 1)[0] + "|1"), "a reused pid is no command"
    assert script(HOLD, home, STUDYKIT_COMMAND=name).wait(timeout=10) == -signal.SIGKILL
    assert not (home / "runs").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="a time of day is all that there is")
@pytest.mark.parametrize("step", [-3600, 10, 3600])
def test_a_clock_that_is_set_right_kills_nothing(home, monkeypatch, step):
    """psutil reckons a process's time of start from that of the boot, which moves with the clock."""
    name, real = runs_process.name(), psutil.Process.create_time
    monkeypatch.setattr(psutil, "boot_time", lambda: time.time() + step)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: real(self) + step)
    assert runs_process.alive(name) and runs_process.name() == name
    monkeypatch.setattr(runs_process, "BOOT", home / "another_boot")
    (home / "another_boot").write_text("of another boot")
    assert not runs_process.alive(name), "the same pid and ticks after a restart are another process"


def test_two_runs_get_two_gpus(home):
    code = """
        import os, time
        from studykit.runs import process
        process.claim_gpu("adapter")
        print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
        time.sleep(60)
    """
    cards = {"STUDYKIT_COMMAND": runs_process.name(), "CUDA_VISIBLE_DEVICES": f"a{os.getpid()},b{os.getpid()}"}
    first, second = script(code, home, **cards), script(code, home, **cards)
    try:
        got = {first.stdout.readline().strip(), second.stdout.readline().strip()}
        assert got == set(cards["CUDA_VISIBLE_DEVICES"].split(","))
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
        for card in cards["CUDA_VISIBLE_DEVICES"].split(","):
            Path(f"/tmp/studykit-gpu-{os.getuid()}-{card}.lock").unlink()


# Executed again by the command, which removes the manifest


@pytest.fixture
def finished(home):
    """A finished run on one input, its manifest removed; what the run's code is."""
    (home / "notebooks").mkdir()
    (home / PARAMS["base"]).mkdir(parents=True)
    (home / PARAMS["base"] / "manifest.json").write_text("{}")
    file = home / "notebooks/02_adapter.ipynb"

    def code(*cells):
        file.write_text(json.dumps({"cells": [{"cell_type": "code", "source": [cell]} for cell in cells]}))

    code("x = 1", "run.publish()", "plot()")
    with opened() as run:
        run.path("artefact").write_text("costly")
        run.publish()
    (home / OUT / "manifest.json").unlink()
    return code


def test_results_are_taken_up_when_only_showing_has_changed(home, finished, capsys):
    before = (home / OUT / store.COPY).read_bytes()
    finished("x = 1", "run.publish()", "from studykit.report import figures", "figures.other()")
    with opened() as run:
        assert run.done and run.path("artefact").read_text() == "costly"
    assert (home / OUT / "manifest.json").read_bytes() == before, "what stands on it sees no change"


@pytest.mark.parametrize("change", [
    "code", "input", "input gone", "parameters", "copy gone", "copy damaged", "file gone", "file cut short",
])  # fmt: skip
def test_results_are_computed_anew_when_anything_else_has(home, finished, change):
    params = PARAMS
    if change == "code":
        finished("x = 2", "run.publish()", "plot()")
    elif change == "input":
        (home / PARAMS["base"] / "manifest.json").write_text('{"made": "again"}')
    elif change == "input gone":
        (home / PARAMS["base"] / "manifest.json").unlink()
    elif change == "parameters":
        params = PARAMS | {"steps": 61}
    elif change == "file gone":
        (home / OUT / "artefact").unlink()
    elif change == "file cut short":
        (home / OUT / "artefact").write_text("cost")
    elif change == "copy gone":
        (home / OUT / store.COPY).unlink()
    else:
        (home / OUT / store.COPY).write_text("{")
    with opened(params=params) as run:
        assert not run.done and not run.path("artefact").exists()


def test_a_users_file_is_part_of_what_a_run_stands_on(home, capsys):
    out, params = "runs/data/x-0123456789", {"path": "rows", "members": ["python", "ruby"]}
    (home / "rows").mkdir()
    (home / "rows/python.jsonl").write_text("{}")
    with store.open_run(out, stage="data", params=params) as run:
        run.publish()
    for name in ("scala.jsonl", "notes.txt"):  # which are not read
        (home / "rows" / name).write_text("{}")
    with store.open_run(out, stage="data", params=params) as run:
        assert run.done and "its data files have changed" not in capsys.readouterr().out
    (home / "rows/ruby.jsonl").write_text("{}")
    with store.open_run(out, stage="data", params=params) as run:
        assert run.done and "its data files have changed since" in capsys.readouterr().out
    (home / out / "manifest.json").unlink()
    with store.open_run(out, stage="data", params=params) as run:
        assert not run.done


# What a notebook's run depends on


def test_a_project_that_was_moved_as_a_whole_is_not_out_of_date(home, tmp_path, monkeypatch):
    params = {"path": "rows", "members": ["python", "ruby"]}
    (home / "rows").mkdir()
    (home / "rows/python.jsonl").write_text("{}")
    here = store.digests("data", params)
    moved = tmp_path / "elsewhere"
    shutil.copytree(home / "rows", moved / "rows")
    monkeypatch.setenv("STUDYKIT_HOME", str(moved))
    assert here["files"] and store.digests("data", params) == here
    (moved / "rows/python.jsonl").rename(moved / "rows/ruby.jsonl")
    assert store.digests("data", params) != here, "the same rows in another language"


def test_the_closure_of_imports():
    def closed(code):
        return {str(f.relative_to(code_digest.PACKAGE)) for f in code_digest.closure(code)}

    assert closed("import json\n%matplotlib inline\n!ls") == set()
    direct = closed("from studykit.data import jsonl")
    assert direct == {"__init__.py", "data/__init__.py", "data/jsonl.py", "data/rejects.py", "errors.py"}
    assert closed("import studykit.data.jsonl as j") == direct == closed("from studykit.data.jsonl import json_lines")
    assert closed("def f():\n    from studykit.data import jsonl") == direct, "imports inside functions count"
    for module in ("study.plan", "runs.store", "report.html", "workflow.run"):
        assert closed(f"import studykit.{module}") == set(), "it decides no number"
    assert {"data/prompts.py", "study/templates.py", "study/templates.yaml"} <= closed(
        "from studykit.data import prompts"
    )
    assert {"tuners/__init__.py", "tuners/model.py"} <= closed("from studykit.tuners.model import *")


def test_code_that_is_not_python_is_said_in_a_sentence():
    with pytest.raises(UserError, match="The line 'x = = 1' is not Python"):
        code_digest.closure("y = 1\nx = = 1\n")


def test_the_digest_sees_code_and_nothing_else(tmp_path):
    file = tmp_path / "n.ipynb"

    def digest(*cells, **metadata):
        file.write_text(json.dumps({"cells": list(cells), "metadata": metadata}))
        return code_digest.digest(file)

    code = {"cell_type": "code", "source": ["x = 1"], "outputs": []}
    one = digest(code)
    assert one == digest(code | {"outputs": [1], "execution_count": 3}, kernelspec=1), (
        "executing and saving it is no change"
    )
    assert one == digest({"cell_type": "markdown", "source": ["prose"]}, code), "nor is prose"
    assert one == digest(code | {"source": ["p = 1"], "metadata": {"tags": ["parameters"]}}, code), "nor are parameters"
    assert one != digest(code | {"source": ["x = 2"]})


def test_what_comes_after_the_publishing_or_only_shows_computes_nothing(tmp_path):
    file = tmp_path / "n.ipynb"

    def computing(*cells):
        file.write_text(json.dumps({"cells": [{"cell_type": "code", "source": cell} for cell in cells]}))
        return code_digest.computing(file)

    one = computing("from studykit.report import figures", "run.publish()", "figures.show()")
    assert one == computing("from studykit.report import figures", "run.publish()", "figures.other()")
    assert one != computing("from studykit.report import figures", "x = 1\nrun.publish()", "figures.show()")


def test_whoever_may_read_the_manifest_may_read_every_file(home):
    with opened() as run:
        for name in ("weights.safetensors", "deep/more.npz"):
            run.path(name).parent.mkdir(parents=True, exist_ok=True)
            run.path(name).write_text("x")
            run.path(name).chmod(0o600)
        run.publish()
    mask = os.umask(0)
    os.umask(mask)
    for name in ("weights.safetensors", "deep/more.npz", "manifest.json"):
        assert (Path(run.dir) / name).stat().st_mode & 0o777 == 0o600 | 0o644 & ~mask, name
