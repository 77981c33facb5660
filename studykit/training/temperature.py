"""The temperature of a fusion: the constant that divides its scores, given or found before training.

Scores have no 1/sqrt(d). In a large base, states are so large that the untrained softmax may give nearly all weight to
one member, drawn by the seed, and next to no gradient passes such a softmax (see `tuners.fusion`). With `temperature:
auto` the untrained weights are close to uniform in every layer, so that what is seen later was learned.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from studykit.data.rows import DataRun
from studykit.errors import UserError
from studykit.study.fusion_parameters import FusionParams
from studykit.training.batches import Collator, encode_rows, forward
from studykit.training.fusions import FUSION
from studykit.tuners import FusionConfig, record_fusion, set_temperature

LEAST_ENTROPY = 0.9  # of the untrained weights, as a share of the uniform entropy, in every layer
ROWS = 32  # training rows on which it is measured
LARGEST = 2.0**24


def settle_temperature(model: Any, tokenizer: Any, p: FusionParams, limits: tuple[int, int]) -> None:
    """Finds and sets the temperature of an untrained fusion whose parameters leave it at `auto`.

    It is the least of 1, 2, 4 ... at which the mean entropy of the weights is at least LEAST_ENTROPY of the uniform one
    in every layer, at the tokens that predict completions of the target's first training rows. A temperature changes
    what later layers read, so every candidate is tried in a pass of its own. The fusion's configuration records it.

    Args:
        model: the fusion as `new_fusion` returns it, with no member masked.
        limits: maximum number of prompt tokens and of target tokens of a row.

    Raises UserError if no temperature up to LARGEST suffices.
    """
    if p.temperature != "auto" or p.method not in ("adapterfusion", "advfusion"):
        return
    examples = encode_rows(DataRun(p.data).rows(p.target, "train")[:ROWS], tokenizer, *limits)
    collate, device = Collator(tokenizer.pad_token_id), next(model.parameters()).device
    parts = [examples[i : i + p.batch_size] for i in range(0, len(examples), p.batch_size)]
    batches = [{name: value.to(device) for name, value in collate(part).items()} for part in parts]
    temperature, least = 0.5, 0.0
    while least < LEAST_ENTROPY:
        temperature *= 2
        if temperature > LARGEST:
            raise UserError(
                f"temperature is auto, but at {LARGEST:g} the untrained weights of some layer have only {least:.0%} of "
                "the uniform entropy; give a number."
            )
        set_temperature(model, temperature)
        least = least_entropy(model, batches)


@torch.no_grad()
def least_entropy(model: Any, batches: list[dict[str, torch.Tensor]]) -> float:
    """Returns the entropy of the weights, as a share of the uniform one, in the layer where its mean is least.

    batches: from `Collator`; the mean is over the tokens that predict a label.
    """
    was_training = model.training
    model.eval()
    entropies = []  # (tokens, L) each
    for batch in batches:
        with record_fusion(model) as last_pass:
            forward(model, batch)
        counted = batch["labels"][:, 1:] != -100  # (B, T - 1)
        weights = torch.stack([alpha[:, :-1][counted] for alpha in last_pass.weights.values()], dim=1)  # (tokens, L, N)
        entropies.append(torch.special.entr(weights).sum(-1))
    model.train(was_training)
    members = len(last_pass.members)
    return float(torch.cat(entropies).mean(0).min()) / math.log(members) if members > 1 else 1.0


def trained_temperature(run: str | Path) -> float:
    """Returns the temperature that a fusion run was trained with; 1 for a composition without attention."""
    configs = sorted(Path(run).glob(f"*/{FUSION}/adapter_config.json"))
    return FusionConfig.from_pretrained(str(configs[0].parent)).temperature if configs else 1.0
