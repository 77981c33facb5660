"""Stops a small real study in every way at random points, goes on with the same command, and compares the end.

    python -m tests.soak --kills 24 --seed 0 --minutes 25        (make soak)

Each time: what was started is gone, what had finished is not made again, a second engine was refused. Once the study is
complete its weights and scores must be those of a run that nobody stopped; then it is cleared and stopped again. The
project lies in a small file system of its own, which can be full or read-only; where mounting is not permitted, those
two kinds are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
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
from collections.abc import Iterator
from pathlib import Path

import psutil

from studykit import plan, progress, study
from studykit.params import STAGES
from tests.notebooks.conftest import copy_project
from tests.project import studykit

STUDY = """
study: quickstart
task: generation
languages: [python]
target: lua
methods: [bottleneck, advfusion_zero]
seeds: [0]
base_model: {hidden_size: 16, layers: 2, heads: 2, intermediate_size: 32, steps: 12, samples: 400}
data: {source_examples: 24, target_examples: 8, valid_examples: 4, test_examples: 6}
adapter: {steps: 800, target_steps: 800, eval_every: 20, patience: 0, batch_size: 4}
fusion: {steps: 400, eval_every: 20, patience: 0, batch_size: 4}
evaluate: {sources: [], max_new_tokens: 8, allow_unsandboxed: true}
fusion_attention: {samples: 4}
compare: {resamples: 100}
"""
FILE = "params/quickstart.yaml"
KINDS = ("Ctrl-C", "SIGTERM", "SIGKILL of the engine", "SIGKILL of a kernel", "SIGKILL of everything", "failing cell",
         "out of memory", "disk full", "read-only")  # fmt: skip
MEASURED = {"seconds", "peak_memory_mb", "memory_mb", "tokens_per_second", "prompts_per_second", "time",
            "members_seconds"}  # fmt: skip
TOGETHER = 5  # stops before the study is let to its end
ENDS = 90.0  # seconds in which a study must end by itself after a fault


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


def numbers(home: Path) -> dict[str, str]:
    """A digest of every result: weights as they are, records without what was measured with a clock."""

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k not in MEASURED}
        return [plain(v) for v in value] if isinstance(value, list) else value

    found = {}
    for file in sorted(home.glob("runs/*/*/**/*")):
        if file.suffix == ".safetensors":
            found[str(file.relative_to(home))] = hashlib.sha256(file.read_bytes()).hexdigest()
        elif file.name in ("training.json", "scores.json", "compare.json", "summary.json", "texts.json"):
            text = json.dumps(plain(json.loads(file.read_text())), sort_keys=True)
            found[str(file.relative_to(home))] = hashlib.sha256(text.encode()).hexdigest()
    return found


def finished(home: Path) -> dict[str, str]:
    """The manifests of finished runs by their names: made again, a run has another."""
    return {str(f.parent.relative_to(home / "runs")): f.read_text() for f in home.glob("runs/*/*/manifest.json")}


class Stop:
    """One stop of a running study: its kind, where it hit, what was left."""

    def __init__(self, home: Path, kind: str, after: float):
        self.home, self.kind, self.after = home, kind, after
        self.planned = plan.plan(study.load_study(FILE, home))
        self.at, self.resumes, self.anew, self.refused, self.gone_after, self.code = "", [], [], "", 0.0, 0

    def make(self) -> bool:
        """Start the study, stop it, put the cause right; False if the stop came too late to hit anything."""
        undo = self._break_a_cell() if self.kind == "failing cell" else None
        engine = studykit(self.home, "run", FILE, "--cores", "2", wait=False)
        try:
            engine.wait(self.after)
            if undo is None:
                return False
        except subprocess.TimeoutExpired:
            pass
        if self.kind == "SIGKILL of the engine":
            second = studykit(self.home, "run", FILE)
            host = socket.gethostname()
            refused = second.returncode == 2 and f"Process {engine.pid} on {host} is running a study" in second.stdout
            self.refused = "yes" if refused else f"NO: {second.stdout[-200:]}"
        below = self._below(engine)
        self.at = ", ".join(self._at_work(below))
        if undo is None:
            undo = self._hit(engine, below)
        try:
            self.code = engine.wait(ENDS)
        finally:
            undo()
        asked, until = time.monotonic(), time.monotonic() + 10
        while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in below) and time.monotonic() < until:
            time.sleep(0.05)
        self.gone_after = time.monotonic() - asked
        for run in self.planned:
            staged = self.home / "runs/.staging" / run.name / "attempt.json"
            if staged.is_file() and run.name not in finished(self.home):
                step = self._step(run)
                (self.resumes if step else self.anew).append(f"{run.stage}{f' at {step.step}' if step else ''}")
        return self.code != 0

    def _below(self, engine: subprocess.Popen) -> list[psutil.Process]:
        try:
            return psutil.Process(engine.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _at_work(self, below: list[psutil.Process]) -> list[str]:
        """Stages whose notebooks are open, and the step of those that train."""
        words = [" ".join(_words(process)) for process in below]
        open_now = [run for run in self.planned if any(f"ipynb logs/{run.name}.ipynb" in text for text in words)]
        found = []
        for run in open_now:
            lock, step = self.home / "runs/.staging" / run.name / "lock", self._step(run)
            writes = lock.exists() and subprocess.run(["flock", "-n", str(lock), "true"]).returncode
            where = f"{step.phase} {step.step} of {step.steps}".strip() if step else "writes" if writes else "starts"
            found.append(f"{run.stage} {where}")
        return found or ["between notebooks"]

    def _step(self, run: plan.Run) -> progress.Step | None:
        os.environ["STUDYKIT_HOME"] = str(self.home)
        return progress.step_of(run)

    def _hit(self, engine: subprocess.Popen, below: list[psutil.Process]):
        """Do it; what puts the cause right again."""
        kernels = [p for p in below if p.is_running() and "ipykernel_launcher" in " ".join(_words(p))]
        if self.kind in ("Ctrl-C", "SIGTERM", "SIGKILL of the engine"):
            engine.send_signal({"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM}.get(self.kind, signal.SIGKILL))
        elif self.kind == "SIGKILL of everything" or (not kernels and "kernel" in self.kind):
            for process in [engine, *below]:
                with contextlib.suppress(psutil.NoSuchProcess):  # some end by themselves once the first is gone
                    process.kill()
        elif self.kind == "SIGKILL of a kernel":
            kernels[0].kill()
        elif self.kind == "out of memory":
            for kernel in kernels:
                with contextlib.suppress(psutil.NoSuchProcess):
                    kernel.rlimit(psutil.RLIMIT_AS, (kernel.memory_info().vms + 2**20,) * 2)
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


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def clear(home: Path) -> None:
    for name in ("runs", "logs", "reports", ".snakemake"):
        shutil.rmtree(home / name, ignore_errors=True)


def soak(home: Path, kinds: list[str], draw: random.Random, until: float, tell=print) -> list[str]:
    """Stop the study once for each kind, or as often as time allows; what went wrong, a sentence each."""
    wrong: list[str] = []
    began = time.monotonic()
    done = studykit(home, "run", FILE, "--cores", "2")
    assert done.returncode == 0, done.stdout[-3000:]
    length, reference = time.monotonic() - began, numbers(home)
    tell(f"uninterrupted: {length:.0f} s, {len(finished(home))} runs, {len(reference)} results")
    tell("| # | kind | after (s) | at work | finished | exit | all gone after (s) | goes on | begins anew | equal |")
    tell("|---|---|---|---|---|---|---|---|---|---|")
    clear(home)
    kept: dict[str, str] = {}
    waiting: list[str] = []

    def report(sentence: str) -> None:
        wrong.append(sentence)
        tell(f"WRONG: {sentence}")

    def complete() -> None:
        """Let the study end, and compare it."""
        last = studykit(home, "run", FILE, "--cores", "2")
        equal = last.returncode == 0 and numbers(home) == reference
        if not equal:
            other = [name for name, digest in numbers(home).items() if reference.get(name) != digest]
            report(f"the end is another: exit {last.returncode}, {other or last.stdout[-500:]}")
        check_kept()
        for line in waiting:
            tell(f"{line} {'yes' if equal else 'NO'} |")
        clear(home)
        kept.clear()
        waiting.clear()

    def check_kept() -> None:
        now = finished(home)
        if redone := [name for name, made in kept.items() if now.get(name) != made]:
            report(f"finished runs were made again: {', '.join(redone)}")
        kept.update(now)

    number = 0
    while number < len(kinds) and time.monotonic() < until:
        stop = Stop(home, kinds[number], draw.uniform(4, max(12.0, 0.35 * length)))
        if not stop.make():
            complete()  # it was done first: not counted, and the same kind again
            continue
        number += 1
        check_kept()
        if stop.gone_after > 5:
            report(f"after {stop.kind} something still ran {stop.gone_after:.0f} s later")
        if stop.refused.startswith("NO"):
            report(f"a second engine was not refused: {stop.refused}")
        waiting.append(f"| {number} | {stop.kind} | {stop.after:.1f} | {stop.at} | {len(kept)} | {stop.code} | "
                       f"{stop.gone_after:.1f} | {', '.join(stop.resumes) or '-'} | {', '.join(stop.anew) or '-'} |")
        if len(waiting) == TOGETHER:
            complete()
    if waiting:
        complete()
    tell(f"{number} stops in {(time.monotonic() - began) / 60:.1f} min, {len(wrong)} wrong")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=25, help="no new stop after this")
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
            until = time.monotonic() + 60 * args.minutes
            wrong = soak(home, kinds[: args.kills], draw, until, lambda line: print(line, flush=True))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
