"""What must hold after every stop of a soak: results as they were, nothing done twice, trainings that go on."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from studykit.runs import store
from studykit.study import plan
from studykit.workflow import steps

MEASURED = {"seconds", "peak_memory_mb", "memory_mb", "tokens_per_second", "prompts_per_second", "time",
            "members_seconds", "cpu_seconds", "members_cpu_seconds"}  # fmt: skip
RECORDS = ("training.json", "scores.json", "compare.json", "summary.json", "texts.json")


def numbers(home: Path) -> dict[str, dict[str, str]]:
    """Digests of the results of every finished run: weights as they are, records without what a clock measured."""

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k not in MEASURED}
        return [plain(v) for v in value] if isinstance(value, list) else value

    def digest(file: Path) -> str:
        content = file.read_bytes()
        if file.suffix == ".json":
            content = json.dumps(plain(json.loads(content)), sort_keys=True).encode()
        return hashlib.sha256(content).hexdigest()

    found: dict[str, dict[str, str]] = {}
    for run in finished(home):
        files = [f for f in (home / "runs" / run).rglob("*") if f.suffix == ".safetensors" or f.name in RECORDS]
        found[run] = {str(file.relative_to(home / "runs" / run)): digest(file) for file in files}
    return found


def finished(home: Path) -> dict[str, str]:
    """The manifests of finished runs by their names: made again, a run has another. They are the copies that stay where
    Snakemake removes the manifest because it executes the notebook again."""
    return {str(f.parent.relative_to(home / "runs")): f.read_text() for f in home.glob(f"runs/*/*/{store.COPY}")}


class Left(NamedTuple):
    """An unfinished run as a stop left it."""

    run: plan.Run
    attempt: int
    noted: int  # when that was written
    step: steps.Step | None  # of its newest checkpoint


def left(home: Path, run: plan.Run) -> Left | None:
    """None for a run that is finished, or was never opened."""
    file = home / "runs/.staging" / run.name / "attempt.json"
    if not file.is_file() or (home / run.dir / store.COPY).is_file():
        return None
    return Left(run, json.loads(file.read_text())["attempt"], file.stat().st_mtime_ns, steps.training_step(run))


class Laws:
    """What must hold after every stop, of everything since the study was last cleared."""

    def __init__(self, home: Path, reference: dict[str, dict[str, str]], report: Callable[[str], None]):
        self.home, self.reference, self.report = home, reference, report
        self.kept: dict[str, str] = {}
        self.left: list[Left] = []
        self.resumed = Counter()  # trainings that said so, by stage

    def check(self, where: str, now_left: list[Left]) -> bool:
        """Whether everything holds `where`; what does not is reported."""
        now, said = finished(self.home), []
        if redone := [name for name, made in self.kept.items() if now.get(name) != made]:
            said.append(f"finished runs were made again: {', '.join(redone)}")
        if other := [name for name, found in numbers(self.home).items() if found != self.reference.get(name)]:
            said.append(f"results are other ones: {', '.join(other)}")
        said += [sentence for before in self.left if before.step and (sentence := self._went_on(before))]
        self.kept, self.left = self.kept | now, now_left
        for sentence in said:
            self.report(f"{where}: {sentence}")
        return not said

    def _went_on(self, before: Left) -> str:
        """What is wrong with how a training with a checkpoint went on since, if it was opened at all; or ""."""
        run, step = before.run, before.step
        now, manifest = left(self.home, run), self.home / run.dir / store.COPY
        if now and now.noted == before.noted:
            return "" if now.step and now.step.share >= step.share else f"{run.name} lost its checkpoints"
        done = manifest.is_file()
        attempt = json.loads(manifest.read_text())["attempt"] if done else now.attempt if now else 0
        if attempt <= before.attempt or not done and (now.step is None or now.step.share < step.share):
            return f"{run.name}, attempt {before.attempt}, was at {step}; it did not go on from there"
        log = self.home / "logs" / f"{run.name}.ipynb"
        words = log.read_text() if log.is_file() else ""  # of the last attempt, as far as it was saved
        came_from = re.findall(r"Resuming from step (\d+)\.", words)
        self.resumed[run.stage] += bool(came_from)
        whole = done and attempt == before.attempt + 1 and f"continues, attempt {attempt}." in words
        if whole and step.step < step.steps and str(step.step) not in came_from:
            return f"{run.name} was at {step}; its notebook does not say that it resumed there"
        return ""

    def forget(self) -> None:
        self.kept, self.left = {}, []
