"""Weights that are stored in bf16 without a copy in fp32, as the published fusions were.

An optimizer that keeps its moments in fp32 computes the new weight in fp32 and stores it in bf16. Rounding fp32 weights
after every step does the same, on every device.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback


class RoundedWeights(TrainerCallback):
    """Rounds the trained weights to bf16 after every step, as if they were stored in bf16 without a copy in fp32."""

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        round_to_bf16(model)


@torch.no_grad()
def round_to_bf16(model: Any) -> None:
    """Rounds every trainable parameter to the nearest number of bf16; its type stays as it is."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.copy_(parameter.bfloat16())
