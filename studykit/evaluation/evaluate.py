"""The evaluation of one method on one test split: completions are written, then scored, state by state.

Each step can be repeated alone. Completions lie in `predictions/<state>.jsonl` beside the settings that made them; a
killed run goes on behind its last whole line, and a run that is made again, because a metric or a test's harness has
changed, takes them over and scores them anew. Written with other settings, as on another device, they are dropped.
Scores of a state are kept until the run is published; they go with the run's checkpoints when an input is made again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from studykit.data import rows as data_rows
from studykit.data.languages import canonical
from studykit.errors import UserError
from studykit.evaluation import samples
from studykit.evaluation.execution import execute
from studykit.evaluation.execution.sandbox import NoSandboxError
from studykit.evaluation.scoring import evaluate_predictions
from studykit.evaluation.trained import State, completion_losses, loaded, loss_entry, states
from studykit.runs import code_digest, files, store
from studykit.training.base import load_base
from studykit.training.decoding import Decoding
from studykit.training.generate import batch_consistency, predict, settings_of
from studykit.tuners import fusion_layers

WRITING = ("evaluation.trained", "training.generate")  # the modules, with what they import, that decide completions


def why_not_executed(
    rows: Sequence[data_rows.Row], languages: Sequence[str] | None = None, allow_unsandboxed: bool = False
) -> str | None:
    """Returns why pass@1 of rows that have tests is not known; None when it is, or nothing has tests.

    Args:
        languages: those whose programs may be run; None: all that have a runtime on this machine.
        allow_unsandboxed: whether programs may be run where no sandbox works.
    """
    tested = sorted({canonical(row.language) for row in rows if row.check})
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


@dataclass
class Written:
    """The completions of a state: the records of `predict`, and the losses of the references."""

    predictions: list[dict]
    losses: list[list]
    folded: bool
    batches: dict | None  # see `generate.batch_consistency`
    settings: dict  # see `generate.settings_of`
    seconds: float


def evaluate(p, run: store.OpenRun) -> dict:
    """Write and score every state; the content of `scores.json`.

    Writes `predictions/<state>.jsonl` and `outcomes/<state>.jsonl` into the run, see `generate` and `outcomes`.

    Returns: method, language, ids and groups of the rows, settings, isolation, not_executed (a reason or None), and
        "states": a list of {name, seed, run, phase, file, folded, batches, scores, counts, execution, seconds}, where
        scores holds `metrics.score`, "loss", and "pass_at_<k>" if rows have tests: its value is None, beside a
        "reason", where they cannot be run.
    """
    rows = data_rows.read_rows(p.data, p.language, "test")[: p.limit]
    limits, reason = data_rows.limits(p.data), why_not_executed(rows, p.execute, p.allow_unsandboxed)
    checks = any(row.check for row in rows)
    isolation = execute.isolation(p.allow_unsandboxed) if checks and not reason else None
    base = tokenizer = None
    found, wanted = [], states(p)
    decoding = Decoding(p.max_new_tokens, p.temperature, p.top_p, p.samples, p.sampling_seed,
                        None if p.stop is None else tuple(p.stop))  # fmt: skip
    for state in wanted:
        kept = run.checkpoints / f"{state.file}.scores.json"
        if not kept.exists():
            if base is None:
                base, tokenizer = load_base(p.base)
            written = write(base, tokenizer, state, rows, limits, decoding, p, run, last=state is wanted[-1])
            files.write_json(kept, score(state, rows, written, reason, p, run))
        found.append(files.read_json(kept))
    for state in wanted:
        shutil.copyfile(_predictions(run, state), run.path("predictions", f"{state.file}.jsonl"))
        shutil.copyfile(_outcomes(run, state), run.path("outcomes", f"{state.file}.jsonl"))
    settings = found[-1].pop("settings")
    for state in found[:-1]:
        del state["settings"]
    groups = [row.group for row in rows]
    return {"method": p.method, "language": p.language, "ids": [row.id for row in rows], "groups": groups,
            "settings": settings, "isolation": isolation, "not_executed": reason, "states": found}  # fmt: skip


def write(base, tokenizer, state: State, rows, limits, decoding: Decoding, p, run, last: bool) -> Written:
    """Complete the rows' prompts in this state; `last`: also see whether batches change completions."""
    began = monotonic()
    options = {"batch_size": p.batch_size, "max_prompt_tokens": limits[0]}
    with loaded(base, state) as model:
        folded = any(layer.folded(name) for layer in fusion_layers(model) for name in layer.active_adapters)
        place, made_by, settings = _predictions(run, state), about(state, p), settings_of(model, decoding, **options)
        _take_over(run.dir / "predictions" / place.name, place, made_by | settings)
        predictions = predict(model, tokenizer, rows, place, decoding, settings=made_by, **options)
        known = [] if all(row.no_reference for row in rows) else rows
        losses = completion_losses(model, tokenizer, known, limits, p.batch_size)
        n = p.batch_check if last else 0
        batches = batch_consistency(model, tokenizer, rows, predictions, decoding, n=n, **options)
    return Written(predictions, losses, folded, batches, settings, monotonic() - began)


def score(state: State, rows: Sequence[data_rows.Row], written: Written, reason: str | None, p, run) -> dict:
    """All scores of a state's completions, JSON; its rows' outcomes are left beside them."""
    began = monotonic()
    limits = {"timeout": p.timeout, "memory_mb": p.memory_mb, "allow_unsandboxed": p.allow_unsandboxed}
    language = rows[0].language if data_rows.are_programs(p.data, p.language) else None
    scored = evaluate_predictions(
        rows, written.predictions, language=language, run=not reason, samples=p.samples, pass_k=p.pass_k, **limits
    )
    if written.losses:
        scored["scores"]["loss"] = loss_entry(written.losses)
    if reason:
        checks = sum(row.check is not None for row in rows)
        for k in p.pass_k:
            scored["scores"][f"pass_at_{k}"] = {"label": f"pass@{k}", "value": None, "reason": reason, "n": checks}
    samples.write(_outcomes(run, state), rows, written.predictions, written.losses, scored["execution"])
    files.fsync(_outcomes(run, state))  # before the scores: where those are kept, these are not written again
    execution = scored["execution"] and {n: v for n, v in scored["execution"].items() if n not in ("verdicts", "ids")}
    seconds = {"generation": round(written.seconds, 2), "scoring": round(monotonic() - began, 2)}
    return {"name": state.name, "seed": state.seed, "run": state.run, "phase": state.phase, "file": state.file,
            "folded": written.folded, "batches": written.batches, "seconds": seconds, **scored,
            "execution": execution, "settings": written.settings}  # fmt: skip


def about(state: State, p) -> dict:
    """What completions depend on beside prompts and settings: the weights, by the manifests of their runs, and code."""
    named = [p.base, state.run] if state.run else [p.base]
    weights = "".join(str(files.sha256(files.home() / directory / "manifest.json")) for directory in named)
    return {"run": state.run, "phase": state.phase, "base": p.base, "data": p.data,
            "weights": hashlib.sha256(weights.encode()).hexdigest()[:16],
            "code": code_digest.digest_modules(*WRITING)}  # fmt: skip


def _take_over(old: Path, new: Path, settings: dict) -> None:
    """Completions of an earlier attempt, or of an earlier run of the same directory, if they were written as they would
    be now; others of an attempt are dropped."""
    if new.exists() and not _written_with(new, settings):
        print(f"{new.name}: its completions were written with other settings; they are dropped.")
        new.unlink()
    if not new.exists() and old.exists() and _written_with(old, settings):
        shutil.copyfile(old, new)  # of half a copy, whole lines count


def _written_with(file: Path, settings: dict) -> bool:
    """Whether a file of predictions says of these settings that they made it; a torn one need not say anything."""
    try:
        with file.open(encoding="utf-8") as lines:
            return json.loads(next(lines, "{}")).get("settings") == json.loads(json.dumps(settings))
    except ValueError:
        return False


def _predictions(run: store.OpenRun, state: State) -> Path:
    return run.checkpoints / f"{state.file}.jsonl"


def _outcomes(run: store.OpenRun, state: State) -> Path:
    return run.checkpoints / f"{state.file}.outcomes.jsonl"
