"""Stops a small real study in every way, goes on with the same command, and compares with a run that nobody stopped.

    python -m tests.soak --kills 24 --seed 0 --minutes 30        (make soak)

After each stop: what was started is gone, a second command was refused, what had finished is not made again and has the
numbers of the undisturbed run, and a training that had a checkpoint has gone on from it. Every other stop waits for a
training to be at work, of the stage that was hit least; the others come at random. After a few stops the study is let
to its end, compared and cleared. The project lies in a small file system of its own, which can be full or read-only;
where mounting is not permitted, those two kinds are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil

from studykit.runs import locks as runs_locks
from studykit.study import file as study_file
from studykit.study import plan
from studykit.study.parameters import STAGES
from studykit.workflow import steps, warm
from tests.notebooks.conftest import copy_project
from tests.project import studykit
from tests.soak_laws import Laws, finished, left, numbers

STUDY = """
study: quickstart
task: generation
members: [python]
target: lua
methods: [bottleneck, advfusion_zero]
seeds: [0]
base_model: {hidden_size: 16, layers: 2, heads: 2, intermediate_size: 32, steps: 12, samples: 400}
data: {source_examples: 24, target_examples: 8, valid_examples: 4, test_examples: 6}
adapter: {steps: 800, target_steps: 800, eval_every: 20, patience: 0, batch_size: 4}
fusion: {steps: 400, eval_every: 20, patience: 0, batch_size: 4}
evaluate: {sources: [], max_new_tokens: 8}
fusion_attention: {samples: 4}
compare: {resamples: 2000}
"""
FILE = "params/quickstart.yaml"
KINDS = ("Ctrl-C", "SIGTERM", "SIGKILL of the command", "SIGKILL of a kernel", "SIGKILL of everything", "failing cell",
         "out of memory", "disk full", "read-only")  # fmt: skip
TRAINED = ("base_model", "adapter", "fusion")  # stages that are waited for
TOGETHER = 5  # stops before the study is let to its end
ENOUGH = 20  # stops that tell something; fewer, where more were asked for, are a failure
ENDS = 90.0  # seconds in which a study must end by itself after a fault, besides those that its other runs take


@contextlib.contextmanager
def small_disk(at: Path, megabytes: int = 300) -> Iterator[bool]:
    """`at` as a file system of its own; False where that is not permitted."""
    at.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(at)], capture_output=True)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", str(at)], check=True)


class Stop:
    """One stop of a running study: its kind, where it hit, what was left."""

    def __init__(self, home: Path, planned: list[plan.Run], kind: str):
        self.home, self.planned, self.kind = home, planned, kind
        self.at, self.hit, self.left, self.refused, self.gone_after, self.code = "", set(), [], "", 0.0, 0

    def make(self, after: float, target: str = "", most: float = 0.0) -> str | None:
        """Start the study, stop it `after` so many seconds, put the cause right; what the command said if it ended
        before it was hit. With a `target` the seconds count from when that stage trains, waited for `most` seconds."""
        undo = self._break_a_cell() if self.kind == "failing cell" else None
        command = studykit(self.home, "run", FILE, "--cores", "2", wait=False)
        if self.kind == "SIGKILL of the command":
            self._start_a_second(command)
        began = time.monotonic()
        while target and command.poll() is None and time.monotonic() < began + most and target not in self._training():
            time.sleep(0.05)
        with contextlib.suppress(subprocess.TimeoutExpired):  # which is how it should go
            command.wait(after)
        self.after = time.monotonic() - began
        if command.poll() is not None and undo is None:
            self.code = command.returncode
            return command.stdout.read()
        below = self._below(command)
        self.at, self.hit = ", ".join(self._at_work(below)), self._training()
        if undo is None:
            undo = self._hit(command, below)
        try:
            self.code = command.wait(ENDS + 2 * most)
        finally:
            undo()
        asked, until = time.monotonic(), time.monotonic() + 10
        while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in below) and time.monotonic() < until:
            time.sleep(0.05)
        self.gone_after = time.monotonic() - asked
        self.left = [found for run in self.planned if (found := left(self.home, run))]
        return None if self.code else command.stdout.read()

    def _start_a_second(self, command: subprocess.Popen) -> None:
        while command.poll() is None and not runs_locks.holder(self.home / "runs/.command.lock"):
            time.sleep(0.05)
        second = studykit(self.home, "run", FILE)
        expected = f"Process {command.pid} on {socket.gethostname()} is running a study"
        refused = second.returncode == 2 and expected in second.stdout
        self.refused = "yes" if refused or command.poll() is not None else f"NO: {second.stdout[-200:]}"

    def _training(self) -> set[str]:
        """Stages of which a run is open and has a checkpoint."""
        locks = {run: self.home / "runs/.staging" / run.name / "lock" for run in self.planned if run.stage in TRAINED}
        return {run.stage for run, lock in locks.items() if runs_locks.holder(lock) and steps.training_step(run)}

    def _below(self, command: subprocess.Popen) -> list[psutil.Process]:
        try:
            return psutil.Process(command.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _at_work(self, below: list[psutil.Process]) -> list[str]:
        """Stages whose notebooks are open, and the step of those that train."""
        words = [" ".join(_words(process)) for process in below]
        open_now = [run for run in self.planned if any(f"ipynb logs/{run.name}.ipynb" in text for text in words)]
        found = []
        for run in open_now:
            writes = runs_locks.holder(self.home / "runs/.staging" / run.name / "lock")
            step = steps.training_step(run)
            where = f"{step.phase} {step.step} of {step.steps}".strip() if step else "writes" if writes else "starts"
            found.append(f"{run.stage} {where}")
        return found or ["between notebooks"]

    def _hit(self, command: subprocess.Popen, below: list[psutil.Process]):
        """Do it; what puts the cause right again."""
        kernels = [p for p in below if _is_kernel(p)]
        if self.kind in ("Ctrl-C", "SIGTERM", "SIGKILL of the command"):
            command.send_signal({"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM}.get(self.kind, signal.SIGKILL))
        elif self.kind == "SIGKILL of everything" or (not kernels and "kernel" in self.kind):
            for process in [command, *below]:
                with contextlib.suppress(psutil.NoSuchProcess):  # some end by themselves once the first is gone
                    process.kill()
        elif self.kind == "SIGKILL of a kernel":
            kernels[0].kill()
        elif self.kind == "out of memory":
            for kernel in kernels:
                with contextlib.suppress(psutil.NoSuchProcess):
                    kernel.rlimit(psutil.RLIMIT_AS, (kernel.memory_info().vms,) * 2)
        elif self.kind == "disk full":
            return self._fill()
        elif self.kind == "read-only":
            at = str(self.home / "runs")
            subprocess.run(["mount", "--bind", at, at], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", at], check=True)
            return lambda: subprocess.run(["umount", "-l", at], check=True)
        return lambda: None

    def _fill(self):
        filler = self.home / "filler"
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):  # until there is no space left
            while True:
                file.write(bytes(2**20))
        return filler.unlink

    def _break_a_cell(self):
        """Let the first notebook that has no finished run fail at its start."""
        done = {name.split("/")[0] for name in finished(self.home)}
        stage = next((s for s in STAGES if s not in done), "compare")
        file = self.home / "notebooks" / f"{STAGES[stage].notebook}.ipynb"
        whole = file.read_text()
        notebook = json.loads(whole)
        at = next(i for i, c in enumerate(notebook["cells"]) if "open_run(" in "".join(c["source"]))
        notebook["cells"][at]["source"] = "raise RuntimeError('broken on purpose')\n"
        file.write_text(json.dumps(notebook))
        return lambda: file.write_text(whole)


def _is_kernel(process: psutil.Process) -> bool:
    """Whether a process is a kernel: one started cold by its command line, a fork by the name that it gave itself."""
    if "ipykernel_launcher" in " ".join(_words(process)):
        return True
    with contextlib.suppress(psutil.Error):
        return process.name() == warm.KERNEL
    return False


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def clear(home: Path) -> None:
    for name in ("runs", "logs", "reports", ".snakemake"):
        shutil.rmtree(home / name, ignore_errors=True)


def soak(home: Path, kinds: list[str], draw: random.Random, until: float, tell=print) -> tuple[list[str], int]:
    """Stop the study once for each kind, or as often as time allows; what went wrong, a sentence each, and how many
    stops were made. STUDYKIT_HOME must name `home`."""
    wrong: list[str] = []
    began = time.monotonic()
    done = studykit(home, "run", FILE, "--cores", "2")
    assert done.returncode == 0, done.stdout[-3000:]
    length, reference = time.monotonic() - began, numbers(home)
    tell(f"uninterrupted: {length:.0f} s, {len(reference)} runs, {sum(map(len, reference.values()))} results")
    tell("| # | kind | after (s) | at work | finished | exit | all gone after (s) | goes on | begins anew | equal |")
    tell("|---|---|---|---|---|---|---|---|---|---|")
    clear(home)
    planned = plan.plan(study_file.load_study(FILE, home))
    hits = Counter({stage: 0 for stage in TRAINED if any(run.stage == stage for run in planned)})
    trainings, number, waits = 0, 0, True
    waiting: list[tuple[str, bool]] = []

    def report(sentence: str) -> None:
        wrong.append(sentence)
        tell(f"WRONG: {sentence}")

    laws = Laws(home, reference, report)

    def complete() -> None:
        """Let the study end, and compare it."""
        last = studykit(home, "run", FILE, "--cores", "2")
        equal = laws.check("at the end", [])
        if last.returncode or finished(home).keys() != reference.keys():
            report(f"the study did not come to its end: exit {last.returncode}, {last.stdout[-500:]}")
            equal = False
        for line, held in waiting:
            tell(f"{line} {'yes' if equal and held else 'NO'} |")
        clear(home)
        laws.forget()
        waiting.clear()

    while number < len(kinds) and time.monotonic() < until:
        kind, target = kinds[number], ""
        open_stages = [s for s in hits if any(r.stage == s and r.name not in finished(home) for r in planned)]
        if waits and open_stages and kind != "failing cell":  # which fails before anything trains
            target = min(open_stages, key=hits.__getitem__)  # of equal ones the first, which comes soonest
        stop = Stop(home, planned, kind)
        said = stop.make(draw.uniform(0, 3) if target else draw.uniform(4, max(12.0, 0.35 * length)), target, length)
        if said is not None:  # it was done first: not counted, and the same kind again
            if stop.code:
                report(f"before stop {number + 1} the same command ended by itself, exit {stop.code}: {said[-500:]}")
            complete()
            waits = False  # what hit a training as it was may have missed it
            continue
        number += 1
        waits = not waits
        hits.update(stop.hit & hits.keys())
        trainings += any(found.step for found in stop.left)
        held = laws.check(f"after stop {number}, {kind}", stop.left)
        if stop.code == 2 or kind == "failing cell" and stop.code != 1:
            report(f"{kind} ended with exit {stop.code}")
        if stop.gone_after > 5:
            report(f"after {kind} something still ran {stop.gone_after:.0f} s later")
        if stop.refused.startswith("NO"):
            report(f"a second command was not refused: {stop.refused}")
        goes_on = ", ".join(f"{run.stage} at {step.step}" for run, _, _, step in stop.left if step)
        anew = ", ".join(run.stage for run, _, _, step in stop.left if not step)
        waiting.append((f"| {number} | {kind} | {stop.after:.1f} | {stop.at} | {len(laws.kept)} | {stop.code} | "
                        f"{stop.gone_after:.1f} | {goes_on or '-'} | {anew or '-'} |", held))  # fmt: skip
        if len(waiting) == TOGETHER:
            complete()
    if waiting:
        complete()
    if trainings and not laws.resumed:
        report(f"{trainings} stops left a training with a checkpoint, and no notebook says that it resumed")
    if number >= ENOUGH and (missed := [stage for stage, times in hits.items() if not times]):
        report(f"no stop hit a training of {', '.join(missed)}")
    tell(f"hit while they trained: {_times(hits)}; seen to resume: {_times(laws.resumed)}")
    tell(f"{number} stops of {len(kinds)} in {(time.monotonic() - began) / 60:.1f} min, {len(wrong)} wrong")
    if number < len(kinds):
        tell(f"out of time: {len(kinds) - number} stops were not made; ask for fewer, or give more minutes")
    return wrong, number


def _times(counted: Counter) -> str:
    return ", ".join(f"{stage} {times}" for stage, times in counted.items()) or "none"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=24, help=f"stops; fewer than {ENOUGH} of them made is a failure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30, help="no new stop after this")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this one; may be repeated")
    args = parser.parse_args()
    draw, folder = random.Random(args.seed), Path(tempfile.mkdtemp(prefix="soak-"))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
    try:
        with small_disk(folder / "disk") as mounted:
            possible = [k for k in args.kind or KINDS if mounted or k not in ("disk full", "read-only")]
            rounds = -(-args.kills // len(possible))
            kinds = [kind for _ in range(rounds) for kind in draw.sample(possible, len(possible))]
            home = copy_project(folder / "disk" / "project", STUDY)
            os.environ["STUDYKIT_HOME"] = str(home)
            until = time.monotonic() + 60 * args.minutes
            wrong, made = soak(home, kinds[: args.kills], draw, until, lambda line: print(line, flush=True))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if wrong or made < min(args.kills, ENOUGH) else 0


if __name__ == "__main__":
    sys.exit(main())
