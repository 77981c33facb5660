"""The phases in which a fusion is trained.

AdvFusion (arXiv 2307.07854): phase 1 with the target's member masked, phase 2 with it restored. AdapterFusion trains
once, for as many steps as both phases together: the published comparison gave AdvFusion twice the budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from peft import PeftModel
from torch import Tensor

from studykit.data.rows import read_rows
from studykit.runs.files import write_json
from studykit.study.methods import PEFT_COMPOSITIONS, UNTRAINED
from studykit.training.adapters import FUSION, save_adapter
from studykit.training.batches import encode_rows
from studykit.training.train import Outcome, train
from studykit.tuners import fusion_members


@dataclass(frozen=True)
class Phase:
    name: str
    masked: tuple[str, ...]  # members masked while it trains
    mode: str  # zero | exclude
    languages: tuple[str, ...]  # whose rows it trains on
    steps: int


def phases(p) -> list[Phase]:
    """The phases that the parameters of notebook 03 describe."""
    if p.method != "advfusion":
        return [Phase("fusion", (), "zero", (p.target,), 0 if p.method in UNTRAINED else 2 * p.steps)]
    first = tuple(p.members) if p.phase1_data == "all" else (p.target,)
    return [
        Phase("phase1", (p.target,), p.mask, first, p.steps),
        Phase("phase2", (), p.mask, (p.target,), p.steps),
    ]


def train_phases(model: PeftModel, tokenizer, p, limits: tuple[int, int], run) -> Iterator[tuple[Phase, Outcome]]:
    """Trains phase after phase; yields after each, when the model has its weights and its mask is still set.

    What a killed run had done is loaded, so it yields the same in the same order.

    Args:
        limits: max_prompt_tokens, max_target_tokens of the data.
        run: the open run; its checkpoints survive a kill, what is saved to its path is published.
    """
    moments = None
    for phase in phases(p):
        outcome, moments = train_phase(model, tokenizer, phase, p, limits, run, moments)
        if not p.carry_optimizer:
            moments = None
        yield phase, outcome


def train_phase(
    model: PeftModel,
    tokenizer,
    phase: Phase,
    p,
    limits: tuple[int, int],
    run,
    moments: dict[str, dict[str, Tensor]] | None = None,
) -> tuple[Outcome, dict[str, dict[str, Tensor]]]:
    """Trains one phase and saves it to `<run>/<phase>/`; the outcome and AdamW's moments, see `training.train`.

    Args:
        moments: those that phase 1 ended with: the published behaviour, where one Trainer ran both phases.
    """
    if p.method not in PEFT_COMPOSITIONS:
        fusion_members(model, masked=list(phase.masked), mode=phase.mode)
    rows = [row for language in phase.languages for row in read_rows(p.data, language, "train")]
    outcome, moments = train(
        model,
        tokenizer,
        encode_rows(rows, tokenizer, *limits),
        encode_rows(read_rows(p.data, p.target, "valid"), tokenizer, *limits),
        p,
        steps=phase.steps,
        checkpoints=run.checkpoints / phase.name,
        seed=p.seed,
        penalty=p.value_regularizer if p.method in ("adapterfusion", "advfusion") and p.variant != "static" else 0.0,
        moments=moments,
    )
    save_adapter(model, run.path(phase.name), FUSION)
    write_json(run.path(phase.name, "training.json"), outcome.record())
    return outcome, moments
