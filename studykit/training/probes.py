"""Probes of a fusion in training: what does a base in 4 bits change in the gradient that the fusion learns from?

Quantized weights are other weights, so the frozen base of a fusion in nf4 computes another function, and the fusion
gets another gradient than it would get on the base in full precision. Every `probe_every` steps a `GradientProbe` takes
the weights as they are and rows of the training data, and measures, without any effect on the training:

- the **cosine** between the gradients of what trains, on the base as it is kept here and on the base in full precision;
- the **gradient noise** (McCandlish et al. 2018, "An empirical model of large-batch training", arXiv 1812.06162,
  appendix A.1), from the gradients of two halves of the rows, see `noise_and_signal`;
- the share of the trained numbers that **changed** since the last probe: where weights are rounded, small steps are
  lost.

The gradients are those of the loss on the rows alone; the value penalty, which is the same on both bases, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import TrainerCallback

from studykit.study.fusion_parameters import FusionParams
from studykit.study.methods import PEFT_COMPOSITIONS
from studykit.training.adapters import copy_parameters
from studykit.training.base import kept_in, load_base
from studykit.training.batches import Collator, TokenSequence, token_losses
from studykit.training.fusions import FUSION, new_fusion
from studykit.training.result import ProbeLook
from studykit.tuners import FusionConfig, set_temperature

SEED_STRIDE = 7919  # what a step adds to the seed of the rows that are drawn at it


def noise_and_signal(first: Sequence[Tensor], second: Sequence[Tensor], rows: int) -> tuple[float, float]:
    """Returns unbiased estimates of tr(S) and |G|^2: the noise of one row's gradient, and the squared true gradient.

    A gradient over b rows has E|g_b|^2 = |G|^2 + tr(S) / b, where S is the covariance of the gradients of single rows.
    With two halves of b rows each, g1 and g2, and their mean, which has 2 b rows, these are two equations (McCandlish
    et al. 2018, eq. A.2 and A.3), whose solution is

        |G|^2 = g1 . g2        tr(S) = b |g1 - g2|^2 / 2

    Their quotient tr(S) / |G|^2 is the simple noise scale: the batch, in rows, at which noise and signal are alike. One
    probe estimates it badly, and |G|^2 may even be negative, so both are averaged over probes before they are divided.

    Args:
        first, second: the gradients of the two halves, a tensor per parameter.
        rows: b, the rows of a half.
    """
    pairs = list(zip(first, second, strict=True))
    noise = rows / 2 * sum(float((a.float() - b.float()).square().sum()) for a, b in pairs)
    return noise, _dot(first, second)


def cosine(first: Sequence[Tensor], second: Sequence[Tensor]) -> float | None:
    """Returns the cosine of the angle between two gradients, a tensor per parameter; None if one of them is 0."""
    size = math.sqrt(_dot(first, first) * _dot(second, second))
    return _dot(first, second) / size if size else None


def _dot(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    return sum(float((a.double() * b.double()).sum()) for a, b in zip(first, second, strict=True))


def full_precision_twin(model: PeftModel, p: FusionParams) -> PeftModel | None:
    """Returns the same fusion on the same base in full precision; None where nothing is probed or nothing differs.

    It is a second model in memory: `studykit estimate` counts it.
    """
    if not p.probe_every or kept_in(p.base, p.quantization) == "none":
        return None
    twin = new_fusion(load_base(p.base, "none")[0], p)
    config = model.peft_config.get(FUSION)
    if p.method not in PEFT_COMPOSITIONS and isinstance(config, FusionConfig):
        set_temperature(twin, config.temperature)
    return twin


class GradientProbe(TrainerCallback):
    """Adds a `ProbeLook` to the log before the first step and after every so many steps.

    It draws its rows with a generator of its own, changes no gradient and no weight, and evaluates the model without
    dropout, so a training with it takes the same steps as one without.

    Args:
        sequences: the training rows of the phase.
        rows: rows of a probe: those of an optimizer step, at least two; an odd number is rounded down.
        batch_size: rows per forward pass.
        twin: see `full_precision_twin`, in the same phase as the model.
    """

    def __init__(
        self,
        sequences: Sequence[TokenSequence],
        collate: Collator,
        *,
        every: int,
        rows: int,
        batch_size: int,
        seed: int,
        twin: PeftModel | None = None,
    ):
        self.sequences, self.collate, self.every, self.seed, self.twin = sequences, collate, every, seed, twin
        self.rows = max(2, min(rows, len(sequences)) // 2 * 2)
        self.batch_size = batch_size
        self.before: dict[str, Tensor] = {}  # trained weights at the last probe of this attempt

    def on_train_begin(self, args, state, control, model: Any = None, **kwargs):
        """Probes the weights before the first step."""
        if state.global_step == 0:
            self._add(args, state, model)

    def on_step_end(self, args, state, control, model: Any = None, **kwargs):
        """Probes the weights after every so many steps."""
        if state.global_step % self.every == 0:
            self._add(args, state, model)

    def _add(self, args: Any, state: Any, model: Any) -> None:
        was_training = model.training
        model.eval()
        look = self.look(model, state.global_step, args.bf16)
        if math.isfinite(look["norm"]):  # else the training is about to end, and its log will say why
            state.log_history.append({"step": state.global_step, "probe": look})
        model.train(was_training)

    def look(self, model: Any, step: int, bf16: bool = False) -> ProbeLook:
        """Returns what a probe of these weights finds; rows are drawn by seed and step."""
        generator = torch.Generator().manual_seed((self.seed + SEED_STRIDE * step) % 2**32)
        drawn = [self.sequences[i] for i in torch.randperm(len(self.sequences), generator=generator)[: self.rows]]
        drawn = drawn * 2 if len(drawn) == 1 else drawn
        halves = drawn[: self.rows // 2], drawn[self.rows // 2 :]
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        (first, n), (second, m) = (self.gradient(model, list(trained), half, bf16) for half in halves)
        noise, signal = noise_and_signal(first, second, self.rows // 2)
        whole = [(n * a + m * b) / (n + m) for a, b in zip(first, second, strict=True)]
        angle = None
        if self.twin is not None:
            copy_parameters(self.twin, {name: p.detach() for name, p in trained.items()})
            full, _ = self.gradient(self.twin.eval(), list(trained), drawn, bf16)
            angle = cosine(whole, full)
        changed = None
        if self.before:
            differing = sum(int((p.detach() != self.before[name]).sum()) for name, p in trained.items())
            changed = differing / sum(p.numel() for p in trained.values())
        self.before = {name: p.detach().clone() for name, p in trained.items()}
        norm = math.sqrt(_dot(whole, whole))
        return {"rows": self.rows, "norm": norm, "cosine": angle, "noise": noise, "signal": signal, "changed": changed}

    def gradient(
        self, model: Any, names: Sequence[str], sequences: Sequence[TokenSequence], bf16: bool
    ) -> tuple[list[Tensor], int]:
        """Returns the gradient of the mean loss per token at named parameters, and the number of tokens that count."""
        by_name = dict(model.named_parameters())
        parameters = [by_name[name] for name in names]
        total, tokens = [torch.zeros_like(p, dtype=torch.float32) for p in parameters], 0
        device = parameters[0].device
        for at in range(0, len(sequences), self.batch_size):
            batch = self.collate(list(sequences[at : at + self.batch_size]))
            batch = {name: value.to(device) for name, value in batch.items() if name != "fold"}
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = token_losses(model, batch, batch["labels"]).sum()
            parts = torch.autograd.grad(loss, parameters, allow_unused=True)
            total = [a if b is None else a + b for a, b in zip(total, parts, strict=True)]
            tokens += int((batch["labels"][:, 1:] != -100).sum())
        return [gradient / tokens for gradient in total], tokens
