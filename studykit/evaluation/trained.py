"""What is scored of one method: every checkpoint in every state that its training ended in.

A state is a checkpoint at the end of a phase, under the mask that the phase had. AdvFusion has two per seed (phase 1
scored as it was trained, without the target's adapter); everything else has one. The last state is the method's own
score. All states stand on one base in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from studykit.data.rows import Row
from studykit.errors import UserError
from studykit.runs.manifest import finished_run
from studykit.study.methods import PHASES
from studykit.training.batches import Collator, encode_rows, forward, token_losses
from studykit.training.fusions import load_trained
from studykit.training.peft_baselines import unload
from studykit.tuners import CompositionModel, fusion_members


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
    found = [] if p.trained_runs else [State("base")]
    for seed, run in zip(p.seeds, p.trained_runs, strict=True):
        made = finished_run(run).params
        if Path(made["base"]).name != Path(p.base).name:
            raise UserError(f"{run} was trained on {made['base']}, not on {p.base}; evaluate it on its own base.")
        phases = PHASES.get(made["method"], ())
        if len(phases) < 2:  # an adapter has none
            found.append(State("trained", seed, run))
            continue
        for phase in phases:
            masked = (made["target"],) if phase.masks_target else ()
            found.append(State(phase.title, seed, run, phase.key, masked, made["mask"]))
    return found


@contextmanager
def loaded(base, state: State) -> Iterator[torch.nn.Module]:
    """The base in this state, a fusion by attention folded; afterwards it is the bare base again."""
    if state.run is None:
        yield base
        return
    model = load_trained(base, state.run, state.phase)
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
def completion_losses(model, tokenizer, rows: Sequence[Row], limits: tuple[int, int], batch_size: int) -> list[list]:
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
        logits = forward(model, {name: value.to(device) for name, value in batch.items()}).logits
        losses = token_losses(logits, batch["labels"])  # (B, T-1)
        counts = (batch["labels"][:, 1:] != -100).sum(1)
        found |= dict(zip(indices, zip(losses.double().sum(1).tolist(), counts.tolist(), strict=True), strict=True))
    return [list(found[i]) for i in range(len(examples))]


def loss_entry(losses: Sequence[Sequence[float]]) -> dict:
    """The completion loss as an entry among the scores (see `metrics.score`): less is better."""
    nats, tokens = map(sum, zip(*losses, strict=True))
    signature = f"loss|nats per token|level:corpus|tokens:{tokens}|n:{len(losses)}"
    return {"label": "Completion loss", "value": nats / tokens, "statistics": [list(row) for row in losses],
            "signature": signature, "n": len(losses)}  # fmt: skip
