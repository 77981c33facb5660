"""One method on one test split: every checkpoint in every state that its training ended in -> completions -> scores.

A state is a checkpoint at the end of a phase, under the mask that the phase had. AdvFusion has two per seed (phase 1
scored as it was trained, without the target's adapter); everything else has one. The last state is the method's own
score. All states stand on one base in memory and are scored under the same settings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import torch

from studykit import runs, tasks
from studykit.base import load_base
from studykit.checkpoints import PHASES, load_run
from studykit.evaluation import execute, outcomes
from studykit.evaluation.generate import predict
from studykit.evaluation.scoring import evaluate_predictions
from studykit.params import UserError
from studykit.rivals import unload
from studykit.trainer import Collator, token_losses
from studykit.training import encode_rows
from studykit.tuners import CompositionModel, fusion_layers, fusion_members

NAMES = {"phase1": "phase 1", "phase2": "phase 2"}  # of phases; what has no phases has one state, "trained"


@dataclass(frozen=True)
class State:
    """Something to score. `run` is None for the base itself, `phase` None for what was trained in one go."""

    name: str
    seed: int | None = None
    run: str | None = None
    phase: str | None = None
    masked: tuple[str, ...] = ()
    mode: str = "zero"

    @property
    def file(self) -> str:
        """Its name among files: base, s0, s0-phase1 ..."""
        return "-".join(part for part in (f"s{self.seed}" if self.run else "base", self.phase) if part)


def states(p) -> list[State]:
    """What the parameters of notebook 04 ask for: seed by seed, the phases in their order.

    Raises UserError for a checkpoint that is unfinished or was trained on another base.
    """
    found = [] if p.checkpoints else [State("base")]
    for seed, run in zip(p.seeds, p.checkpoints, strict=True):
        made = runs.manifest(run)["params"]
        if Path(made["base"]).name != Path(p.base).name:
            raise UserError(f"{run} was trained on {made['base']}, not on {p.base}; evaluate it on its own base.")
        if made["method"] != "advfusion":
            found.append(State("trained", seed, run))
            continue
        for phase in PHASES["advfusion"]:
            masked = (made["target"],) if phase == "phase1" else ()
            found.append(State(NAMES[phase], seed, run, phase, masked, made["mask"]))
    return found


@contextmanager
def loaded(base, state: State) -> Iterator[torch.nn.Module]:
    """The base in this state, a fusion by attention folded; afterwards it is the bare base again."""
    if state.run is None:
        yield base
        return
    model = load_run(base, state.run, state.phase)
    if state.masked:
        fusion_members(model, state.masked, state.mode)
    fold(model)
    try:
        yield model
    finally:
        unload(model)


def fold(model: torch.nn.Module) -> bool:
    """Folds the active fusion, if there is one by attention: the same texts, sooner. Whether it did."""
    tuner = getattr(model, "base_model", None)
    return isinstance(tuner, CompositionModel) and bool(tuner.fold_fusion())


@torch.inference_mode()
def completion_losses(model, tokenizer, rows: Sequence[dict], limits: tuple[int, int], batch_size: int) -> list[list]:
    """[nats, tokens] of each row's target under its prompt: sum(nats) / sum(tokens) is the validation loss of training.

    limits: max_prompt_tokens and max_target_tokens of the data; what is longer is cut, as in training.
    """
    examples = encode_rows(rows, tokenizer, *limits)
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i]["input_ids"]))
    collate, device = Collator(tokenizer.pad_token_id), model.get_input_embeddings().weight.device
    found: dict[int, list] = {}
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        batch = collate([examples[i] for i in indices])
        inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
        losses = token_losses(model(**inputs, use_cache=False).logits, batch["labels"])  # (B, T-1)
        counts = (batch["labels"][:, 1:] != -100).sum(1)
        found |= dict(zip(indices, zip(losses.double().sum(1).tolist(), counts.tolist(), strict=True), strict=True))
    return [list(found[i]) for i in range(len(examples))]


def loss_entry(losses: Sequence[Sequence[float]]) -> dict:
    """The completion loss as an entry among the scores (see `metrics.score`): less is better."""
    nats, tokens = map(sum, zip(*losses, strict=True))
    signature = f"loss|nats per token|level:corpus|tokens:{tokens}|n:{len(losses)}"
    return {"label": "Completion loss", "value": nats / tokens, "statistics": [list(row) for row in losses],
            "signature": signature, "n": len(losses)}  # fmt: skip


def why_not_executed(rows: Sequence[dict], languages: Sequence[str] | None = None) -> str | None:
    """Why pass@1 of rows that have tests is not known; None when it is, or nothing has tests.

    Args:
        languages: those whose programs may be run; None: all that have a runtime on this machine.
    """
    for language in sorted({row["language"] for row in rows if row.get("check")}):
        if languages is not None and language not in languages:
            named = ", ".join(languages) or "no language"
            return f"evaluate.execute names {named}, so programs in {language} are not run."
        try:
            execute.runtime_version(language)
        except UserError as error:
            return str(error)
    return None


def evaluate(p, run: runs.OpenRun) -> dict:
    """Score every state; the content of `scores.json`. What was generated before a kill is not generated again.

    Writes `outcomes/<state>.jsonl` into the run, see `outcomes`. Returns
    method, language, ids of the rows, settings, isolation, not_executed (a reason or None), and "states": a list of
    {name, seed, run, phase, file, folded, scores, counts, execution, seconds}, where scores holds `metrics.score`,
    "loss", and "pass_at_1" if rows have tests: its value is None, beside a "reason", where they cannot be run.
    """
    wanted, rows = states(p), tasks.read_rows(p.data, p.language, "test")[: p.limit]
    limits, reason = tasks.limits(p.data), why_not_executed(rows, p.execute)
    checks = sum(bool(row.get("check")) for row in rows)
    isolation = execute.isolation(p.allow_unsandboxed) if checks and not reason else None
    base, tokenizer = load_base(p.base)
    options = {"max_new_tokens": p.max_new_tokens, "batch_size": p.batch_size, "max_prompt_tokens": limits[0]}
    found = []
    for state in wanted:
        began, about = monotonic(), {"run": state.run, "phase": state.phase, "base": p.base, "data": p.data}
        with loaded(base, state) as model:
            folded = any(layer.folded(name) for layer in fusion_layers(model) for name in layer.active_adapters)
            place = run.checkpoints / f"{state.file}.jsonl"
            predictions = predict(model, tokenizer, rows, place, settings=about, **options)
            losses = completion_losses(model, tokenizer, rows, limits, p.batch_size)
        generated = monotonic()
        scored = evaluate_predictions(
            [row | {"check": None} for row in rows] if reason else rows, predictions,
            timeout=p.timeout, memory_mb=p.memory_mb, allow_unsandboxed=p.allow_unsandboxed,
        )  # fmt: skip
        scored["scores"]["loss"] = loss_entry(losses)
        if reason:
            scored["scores"]["pass_at_1"] = {"label": "pass@1", "value": None, "reason": reason, "n": checks}
        outcomes.write(run.path("outcomes", f"{state.file}.jsonl"), rows, predictions, losses, scored["execution"])
        seconds = {"generation": round(generated - began, 2), "scoring": round(monotonic() - generated, 2)}
        names = {"name": state.name, "seed": state.seed, "file": state.file, "folded": folded, "seconds": seconds}
        found.append(names | about | scored | {"execution": _without_verdicts(scored["execution"])})
    header = json.loads(place.open(encoding="utf-8").readline())["settings"]
    settings = {name: value for name, value in header.items() if name not in about}
    return {"method": p.method, "language": p.language, "ids": [row["id"] for row in rows], "settings": settings,
            "isolation": isolation, "not_executed": reason, "states": found}  # fmt: skip


def _without_verdicts(execution: dict | None) -> dict | None:
    return execution and {name: value for name, value in execution.items() if name not in ("verdicts", "ids")}
