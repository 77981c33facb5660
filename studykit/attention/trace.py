"""AttentionTrace: what the attention of a fusion does while it trains, read at every look at the validation loss.

Each look adds an `attention` entry (`training.result.AttentionLook`) to the log entry of the validation loss, which
checkpoints keep: mean weights, saturated tokens, and the gradient norms of W_q and W_k. So the log says whether a layer
learns to choose or is stuck where it was drawn, from step 0 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import TrainerCallback

from studykit.attention.record import SATURATED
from studykit.data.rows import DataRun
from studykit.study.fusion_parameters import FusionParams
from studykit.study.methods import PEFT_COMPOSITIONS
from studykit.training.batches import Collator, TokenSequence, encode_rows, token_losses
from studykit.training.result import AttentionLook
from studykit.tuners import record_fusion
from studykit.tuners.fusion import Fusion
from studykit.tuners.model import active_fusions

ROWS = 16  # validation rows that are read: a look costs about as much as a training step


class AttentionTrace(TrainerCallback):
    """Reads the attention at every evaluation, on the first validation rows, under the mask of the phase.

    It draws nothing and changes no gradient, so a training with it takes the same steps as one without.
    """

    def __init__(self, sequences: Sequence[TokenSequence], pad_token_id: int, batch_size: int):
        self.batches = [sequences[i : i + batch_size] for i in range(0, len(sequences), batch_size)]
        self.collate = Collator(pad_token_id)

    def on_evaluate(self, args, state, control, model: Any = None, **kwargs):
        """Adds a look to the newest entry of the log, that of this evaluation."""
        was_training = model.training
        model.eval()
        state.log_history[-1]["attention"] = self.look(model)
        model.train(was_training)

    def look(self, model: Any) -> AttentionLook:
        """Returns the means over the tokens that predict a completion, and the gradients of their mean loss."""
        layers = active_fusions(model)
        learned = [layer.fusions[name] for layer, name in layers if isinstance(layer.fusions[name], Fusion)]
        matrices = [m.weight for fusion in learned for m in (cast(Fusion, fusion).query, cast(Fusion, fusion).key)]
        device, tokens = next(model.parameters()).device, 0
        weights: list[Any] = []
        saturated: list[Any] = []
        gradients = [torch.zeros_like(matrix) for matrix in matrices]
        for sequences in self.batches:
            batch = {name: value.to(device) for name, value in self.collate(list(sequences)).items()}
            counted = batch["labels"][:, 1:] != -100  # (B, T - 1)
            with torch.set_grad_enabled(bool(matrices)), record_fusion(model) as last_pass:
                loss = token_losses(model, batch, batch["labels"]).sum()
            if matrices:
                parts = torch.autograd.grad(loss, matrices)
                gradients = [total + part for total, part in zip(gradients, parts, strict=True)]
            alpha = torch.stack([last_pass.weights[layer.sites[name]][:, :-1][counted] for layer, name in layers])
            weights.append(alpha.double().sum(1))  # (L, tokens, A) -> (L, A)
            saturated.append((alpha.amax(-1) > SATURATED).double().sum(1))  # (L,)
            tokens += int(counted.sum())
        norms = [float(gradient.norm()) / tokens for gradient in gradients]
        return {
            "weights": (sum(weights) / tokens).tolist(),
            "saturated": (sum(saturated) / tokens).tolist(),
            "query_gradient": norms[::2],
            "key_gradient": norms[1::2],
        }


def traces(tokenizer: Any, p: FusionParams, limits: tuple[int, int]) -> list[TrainerCallback]:
    """Returns the trace of a fusion's training as a list of callbacks; a composition by PEFT has none.

    Args:
        limits: maximum number of prompt tokens and of target tokens of a row.
    """
    if p.method in PEFT_COMPOSITIONS:
        return []
    rows = DataRun(p.data).rows(p.target, "valid")[:ROWS]
    return [AttentionTrace(encode_rows(rows, tokenizer, *limits), tokenizer.pad_token_id, p.batch_size)]
