"""The optimizers of a training: AdamW, and Muon beside AdamW for a base that is trained from scratch.

Muon moves a matrix by the orthogonalised mean of its gradients (Jordan et al. 2024). In as many steps, a small base
reaches a lower loss with it than with AdamW alone (.083 against .091 after 1,000 steps, one seed). Adapters and
fusions, whose published trainings use AdamW, keep it.

torch.optim.Muon is the same optimizer, but it multiplies its matrices in bf16, one by one. Processors without bf16
need fifteen times as long for that as for fp32, which is more than a small base needs for all the rest of a step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from studykit.errors import UserError

MUON = "muon"
# Our words for Trainer's, which has none for MuonWithAdamW: `StudyTrainer` makes that one. In 8 bits, bitsandbytes
# keeps the state of tensors with fewer than 4096 entries (biases, narrow adapters) in fp32.
OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_8bit",
    "paged_adamw_32bit": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    MUON: "adamw_torch_fused",
}


def require_optimizer(name: str) -> None:
    """Raises UserError unless an optimizer, a key of OPTIMIZERS, works on this machine."""
    if name in ("adamw", MUON):
        return
    if name.startswith("paged") and not torch.cuda.is_available():
        raise UserError(
            f"optimizer is {name!r}, whose state may leave the GPU, but this machine has no CUDA device; adamw or "
            "adamw_8bit is accepted here."
        )
    weight = nn.Parameter(torch.zeros(4096, device="cuda" if torch.cuda.is_available() else "cpu"))
    weight.grad = torch.ones_like(weight)
    try:
        from bitsandbytes.optim import AdamW8bit

        AdamW8bit([weight]).step()
    except Exception as error:  # a library that was built for another machine may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"optimizer is {name!r}, which bitsandbytes cannot run on this machine ({reason}); adamw is accepted "
            "everywhere."
        ) from None


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """Replaces the singular values of matrices by values near one, in five steps of a Newton-Schulz iteration.

    The coefficients make the iteration fast rather than exact: the values end between 0.7 and 1.2 or so.

    Args:
        matrices: (..., rows, columns), in any floating type; the products are in theirs.
    """
    is_tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.7750 * gram) @ x
    return x.mT if is_tall else x


class Muon(torch.optim.Optimizer):
    """An optimizer of matrices that moves each by the orthogonalised Nesterov mean of its gradients.

    Its steps are scaled to the size of AdamW's (Liu et al. 2025, arXiv:2502.16982). Matrices of one shape are
    orthogonalised together.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], learning_rate: float, momentum: float = 0.95):
        super().__init__(matrices, {"lr": learning_rate, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        """Moves all matrices by their gradients."""
        for group in self.param_groups:
            momentum = group["momentum"]
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for matrix in group["params"]:
                by_shape.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in by_shape.items():
                updates = []
                for matrix in matrices:
                    mean = self.state[matrix].setdefault("mean", torch.zeros_like(matrix))
                    mean.lerp_(matrix.grad, 1 - momentum)
                    updates.append(matrix.grad.lerp(mean, momentum))
                length = group["lr"] * 0.2 * math.sqrt(max(shape))
                for matrix, update in zip(matrices, orthogonalize(torch.stack(updates)), strict=True):
                    matrix.sub_(update, alpha=length)


class MuonWithAdamW(torch.optim.Optimizer):
    """An optimizer whose first group, matrices, is moved by Muon and whose second, all other tensors, by AdamW.

    Both have one learning rate.

    Args:
        model: embeddings count among the other tensors.
        betas: of AdamW.
    """

    def __init__(self, model: nn.Module, learning_rate: float, betas: tuple[float, float]):
        embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        matrices = [p for p in trained if p.ndim == 2 and id(p) not in embedded]
        chosen = {id(p) for p in matrices}
        others = [p for p in trained if id(p) not in chosen]
        self.parts: tuple[torch.optim.Optimizer, ...] = (
            Muon(matrices, learning_rate),
            torch.optim.AdamW(others, lr=learning_rate, betas=betas, weight_decay=0.0, fused=True),
        )
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure=None):
        """Moves all tensors by their gradients; the state of both parts is this optimizer's, which checkpoints hold."""
        for part, group in zip(self.parts, self.param_groups, strict=True):
            part.state, part.param_groups = self.state, [group]
            part.step()
