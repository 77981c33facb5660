"""The evaluation of one method on one test split: completions are generated, then scored, checkpoint by checkpoint.

Both steps can be repeated alone. Completions are kept in `predictions/<checkpoint>.jsonl`, together with the settings
that decided them. A killed run continues after the last whole line of that file. A run that is made again because a
metric or a test harness has changed takes the completions over and scores them again; completions that were generated
with other settings, on another device for instance, are dropped. The scores of a checkpoint are kept until the run is
published.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

from transformers import PreTrainedModel

from studykit.data.rows import DataRun, Row
from studykit.errors import UserError
from studykit.evaluation.calibration import calibrate
from studykit.evaluation.execution import execute
from studykit.evaluation.execution.programs import runs_in
from studykit.evaluation.execution.sandbox import NoSandboxError
from studykit.evaluation.few_shot import END, room_for_prompt, with_examples
from studykit.evaluation.instruments import Instruments
from studykit.evaluation.losses import reference_losses
from studykit.evaluation.samples import ReferenceLoss, write_samples
from studykit.evaluation.scores import (
    BatchConsistency,
    Calibration,
    CheckpointScores,
    EvaluationScores,
    Score,
    Seconds,
)
from studykit.evaluation.scoring import can_run
from studykit.evaluation.trained import EvaluatedCheckpoint, evaluated_checkpoints, loaded
from studykit.runs import code_digest, files, store
from studykit.study.methods import FEW_SHOT
from studykit.study.parameters import EvaluateParams
from studykit.training.base import load_base
from studykit.training.decoding import Decoding
from studykit.training.generate import Prediction, batch_consistency, predict, settings_of
from studykit.tuners import fusion_layers

COMPLETION_MODULES = (
    "evaluation.trained",
    "evaluation.few_shot",
    "training.generate",
)  # they and their imports decide completions


@dataclass(frozen=True)
class Task:
    """The part of an evaluation that is the same for all of its checkpoints."""

    p: EvaluateParams
    run: store.OpenRun
    rows: list[Row]
    limits: tuple[int, int]  # tokens of a prompt and of a target, at most
    instruments: Instruments  # that score the completions
    decoding: Decoding
    not_executed: str | None  # why rows that have tests have no pass@k

    @property
    def runs_programs(self) -> bool:
        """Returns whether there are rows whose completions are run, with tests or as whole programs without them."""
        return not self.not_executed and (
            any(map(can_run, self.rows)) or self.instruments.runs_whole_programs(self.rows)
        )

    def predictions_file(self, checkpoint: EvaluatedCheckpoint) -> Path:
        """Returns the completions of a checkpoint until the run is published."""
        return self.run.checkpoints / f"{checkpoint.file_stem}.jsonl"

    def samples_file(self, checkpoint: EvaluatedCheckpoint) -> Path:
        """Returns the samples of a checkpoint until the run is published."""
        return self.run.checkpoints / f"{checkpoint.file_stem}.samples.jsonl"


@dataclass(frozen=True)
class Completions:
    """The completions of one checkpoint, and its losses on the references."""

    predictions: list[Prediction]
    losses: list[ReferenceLoss]  # one per row; empty where no row has a reference
    folded: bool  # whether the fusion was folded before generation
    batches: BatchConsistency | None  # None: not examined
    settings: dict[str, Any]  # see `generate.settings_of`; those of all methods, also of a few-shot prompt
    shots: float | None  # mean number of examples before a prompt; None: there are none
    seconds: float


def evaluate_method(p: EvaluateParams, run: store.OpenRun) -> EvaluationScores:
    """Generates and scores the completions of every checkpoint, and returns the content of `scores.json`.

    Writes `predictions/<checkpoint>.jsonl` and `samples/<checkpoint>.jsonl` into the run.
    """
    data = DataRun(p.data)
    rows = data.rows(p.language, "test")[: p.limit]
    stop = None if p.stop is None else tuple(p.stop)

    @cache
    def base() -> tuple[PreTrainedModel, Any]:  # bare but while a checkpoint is loaded onto it
        return load_base(p.base, p.quantization)

    word = data.task_of(p.language)
    instruments = Instruments(
        p=p,
        data=data.params,
        limits=data.limits,
        task=word,
        programs=data.are_programs(p.language),
        first_line=word == "commit" if p.first_line is None else p.first_line,
        judged=run.checkpoints / "judge",
        bare_base=base,
    )
    task = Task(
        p=p,
        run=run,
        rows=rows,
        limits=data.limits,
        instruments=instruments,
        decoding=Decoding(p.max_new_tokens, p.temperature, p.top_p, p.samples, p.sampling_seed, stop, p.top_k),
        not_executed=why_not_executed(rows, p.execute, p.allow_unsandboxed),
    )
    isolation = execute.isolation(p.allow_unsandboxed) if task.runs_programs else None
    checkpoints = evaluated_checkpoints(p)
    instruments.look_up()
    instruments.take_over_answers(run.dir)
    scores = []
    for checkpoint in checkpoints:
        kept = run.checkpoints / f"{checkpoint.file_stem}.scores.json"
        if not kept.exists():
            completions = generate_completions(task, *base(), checkpoint, check_batches=checkpoint is checkpoints[-1])
            files.write_json(kept, score_completions(task, checkpoint, completions).model_dump(mode="json"))
        scores.append(CheckpointScores.model_validate_json(kept.read_bytes()))
    for checkpoint in checkpoints:
        name = f"{checkpoint.file_stem}.jsonl"
        shutil.copyfile(task.predictions_file(checkpoint), run.path("predictions", name))
        shutil.copyfile(task.samples_file(checkpoint), run.path("samples", name))
    calibration = calibrations(task, rows[0].language)
    for file in files.files_below(instruments.judged) if p.judge else ():
        shutil.copyfile(file, run.path("judge", file.name))
    return EvaluationScores(
        method=p.method,
        language=p.language,
        ids=[row.id for row in rows],
        groups=[row.group for row in rows],
        isolation=isolation,
        not_executed=task.not_executed,
        checkpoints=scores,
        calibration=calibration,
    )


def calibrations(task: Task, language: str) -> list[Calibration]:
    """Returns the calibration of the scores of this evaluation, which is computed once in a run."""
    kept, p = task.run.checkpoints / "calibration.json", task.p
    if not kept.exists():
        found = calibrate(task.instruments, language, p.calibrate) if p.calibrate else []
        files.write_json(kept, [one.model_dump(mode="json") for one in found])
    return [Calibration(**one) for one in files.read_json(kept)]


def why_not_executed(
    rows: Sequence[Row], languages: Sequence[str] | None = None, allow_unsandboxed: bool = False
) -> str | None:
    """Returns the reason why rows that have tests get no pass@k; None where they get it, or have no tests.

    languages: those whose programs may be run; None: all that have a runtime on this machine.
    allow_unsandboxed: whether programs may be run where no sandbox works.
    """
    tested = sorted({runs_in(row.language, row.check) for row in rows if row.check})
    for language in tested:
        if languages is not None and language not in languages:
            named = ", ".join(languages) or "no language"
            return f"evaluate.execute names {named}, so programs in {language} are not run."
        try:
            execute.runtime_version(language)
        except UserError as error:
            return str(error)
    try:
        if tested:
            execute.isolation(allow_unsandboxed)
    except NoSandboxError as error:
        return str(error)
    return None


def generate_completions(
    task: Task, base: PreTrainedModel, tokenizer: Any, checkpoint: EvaluatedCheckpoint, *, check_batches: bool
) -> Completions:
    """Completes the prompts of all rows by one checkpoint and measures its loss on their references.

    check_batches: whether some rows are completed again one by one, to see whether batches change completions.
    """
    began, p = monotonic(), task.p
    rows, limits, decoding, shots = task.rows, task.limits, task.decoding, None
    if p.method == FEW_SHOT:
        limits = room_for_prompt(base.config, p.max_new_tokens), limits[1]
        given = {"shots": p.shots, "max_prompt_tokens": task.limits[0], "room": limits[0]}
        rows, counts = with_examples(rows, DataRun(p.data).rows(p.language, "train"), tokenizer, **given)
        shots, stop = sum(counts) / len(counts), decoding.stop
        decoding = decoding if stop is None else replace(decoding, stop=(*stop, END))
    options = {"batch_size": p.batch_size, "max_prompt_tokens": limits[0]}
    with loaded(base, checkpoint) as model:
        folded = any(layer.folded(name) for layer in fusion_layers(model) for name in layer.active_adapters)
        file, origin = task.predictions_file(checkpoint), completion_origin(checkpoint, p)
        settings = settings_of(model, task.decoding, p.batch_size, task.limits[0])
        _take_over(task.run.dir / "predictions" / file.name, file, origin | settings_of(model, decoding, **options))
        predictions = predict(model, tokenizer, rows, file, decoding, settings=origin, **options)
        with_reference = [] if all(row.no_reference for row in rows) else rows
        losses = reference_losses(model, tokenizer, with_reference, limits, p.batch_size)
        n = p.batch_check if check_batches else 0
        batches = batch_consistency(model, tokenizer, rows, predictions, decoding, n=n, **options)
    consistency = batches and BatchConsistency.model_validate(batches)
    return Completions(predictions, losses, folded, consistency, settings, shots, monotonic() - began)


def score_completions(task: Task, checkpoint: EvaluatedCheckpoint, completions: Completions) -> CheckpointScores:
    """Scores the completions of one checkpoint and writes its samples."""
    began, p = monotonic(), task.p
    result = task.instruments.score(task.rows, completions.predictions, samples=p.samples, run=not task.not_executed)
    scores = dict(result.scores)
    if completions.losses:
        scores["loss"] = loss_score(completions.losses)
    if task.not_executed:
        n = sum(row.check is not None for row in task.rows)
        for k in p.pass_k:
            scores[f"pass_at_{k}"] = Score(label=f"pass@{k}", value=None, reason=task.not_executed, n=n)
    file = task.samples_file(checkpoint)
    write_samples(file, task.rows, completions.predictions, completions.losses, result.programs)
    files.fsync(file)  # before the scores: where those are kept, the samples are not written again
    return CheckpointScores(
        name=checkpoint.name,
        seed=checkpoint.seed,
        run=checkpoint.run,
        phase=checkpoint.phase,
        file_stem=checkpoint.file_stem,
        folded=completions.folded,
        batches=completions.batches,
        seconds=Seconds(generation=round(completions.seconds, 2), scoring=round(monotonic() - began, 2)),
        scores=scores,
        counts=result.counts,
        execution=result.execution,
        settings=completions.settings,
        shots=completions.shots,
    )


def loss_score(losses: Sequence[ReferenceLoss]) -> Score:
    """Returns the completion loss, of which less is better, as a score."""
    nats, tokens = map(sum, zip(*losses, strict=True))
    return Score(
        label="Completion loss",
        value=nats / tokens,
        statistics=[list(loss) for loss in losses],
        signature=f"loss|nats per token|level:corpus|tokens:{tokens}|n:{len(losses)}",
        n=len(losses),
    )


def completion_origin(checkpoint: EvaluatedCheckpoint, p: EvaluateParams) -> dict[str, Any]:
    """Returns everything besides prompts and settings that decides completions: the code, and the weights, which the
    manifests of their runs stand for."""
    run_dirs = [p.base, checkpoint.run] if checkpoint.run else [p.base]
    manifests = "".join(str(files.sha256(files.home() / run_dir / "manifest.json")) for run_dir in run_dirs)
    return {
        "run": checkpoint.run,
        "phase": checkpoint.phase,
        "base": p.base,
        "data": p.data,
        **({"shots": p.shots} if p.method == FEW_SHOT else {}),
        "weights": hashlib.sha256(manifests.encode()).hexdigest()[:16],
        "code": code_digest.digest_modules(*COMPLETION_MODULES),
    }


def _take_over(published: Path, file: Path, settings: dict[str, Any]) -> None:
    """Keeps the completions of an earlier attempt, or copies those of an earlier run of the same directory, if they
    were generated with these settings; drops those of an attempt that were not."""
    if file.exists() and not _has_settings(file, settings):
        print(f"{file.name}: its completions were generated with other settings; they are dropped.")
        file.unlink()
    if not file.exists() and published.exists() and _has_settings(published, settings):
        shutil.copyfile(published, file)  # of a copy that is killed half-way, the whole lines count


def _has_settings(file: Path, settings: dict[str, Any]) -> bool:
    """Whether the first line of a file of predictions holds these settings; the line may be torn."""
    try:
        with file.open(encoding="utf-8") as lines:
            return json.loads(next(lines, "{}")).get("settings") == json.loads(json.dumps(settings))
    except ValueError:
        return False
