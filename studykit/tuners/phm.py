"""Parameterised hypercomplex multiplication: the weight of a Compacter layer.

Zhang et al. 2021 (arXiv 2102.08597) write a linear map as a sum of Kronecker products; Compacter (Karimi Mahabadi et
al. 2021, arXiv 2106.04647, eq. 5) shares the small factor between layers and makes the large one rank-one:

    H = sum_i kron(A_i, W_i),    W_i = L_i R_i,    y = x H + b

`A` is called the rule. Shapes: A (n, n, n), W (n, in/n, out/n), L (n, in/n, k), R (n, k, out/n), H (in, out).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def new_rule(n: int, factor_rank: int | None = None, std: float = 0.01) -> list[nn.Parameter]:
    """Returns the rule A, drawn from N(0, std): one parameter (n, n, n), or two factors (n, n, k) and (n, k, n)."""
    shapes = [(n, n, n)] if factor_rank is None else [(n, n, factor_rank), (n, factor_rank, n)]
    return [nn.Parameter(torch.empty(shape).normal_(std=std)) for shape in shapes]


class PHMLinear(nn.Module):
    """A linear layer whose weight is a sum of n Kronecker products.

    Args:
        inputs, outputs: the widths; both must be divisible by `n`, or a ValueError is raised.
        n: the number of Kronecker terms (`phm_dim`).
        rank: the rank k of W_i = L_i R_i; None for a full W.
        rule: the parameters of A, from `new_rule`; several layers share them if they get the same list.
    """

    phm_rule: nn.Parameter
    phm_rule_left: nn.Parameter
    phm_rule_right: nn.Parameter

    def __init__(self, inputs: int, outputs: int, n: int, rank: int | None, rule: list[nn.Parameter]):
        super().__init__()
        if inputs % n or outputs % n:
            raise ValueError(
                f"A PHM layer needs inputs={inputs} and outputs={outputs} divisible by phm_dim={n}; "
                "reduction_factor decides the smaller."
            )
        if rank is None:
            self.W = nn.Parameter(torch.empty(n, inputs // n, outputs // n))
        else:
            self.W_left = nn.Parameter(torch.empty(n, inputs // n, rank))
            self.W_right = nn.Parameter(torch.empty(n, rank, outputs // n))
        for weight in self.parameters():
            for term in weight:
                nn.init.xavier_normal_(term)
        self.bias = nn.Parameter(torch.zeros(outputs))
        names = ["phm_rule"] if len(rule) == 1 else ["phm_rule_left", "phm_rule_right"]
        for name, parameter in zip(names, rule, strict=True):
            self.register_parameter(name, parameter)

    @property
    def weight(self) -> Tensor:
        """Returns the dense weight H^T in the layout of nn.Linear, (outputs, inputs)."""
        rule = self.phm_rule if hasattr(self, "phm_rule") else self.phm_rule_left @ self.phm_rule_right  # (n, n, n)
        W = self.W if hasattr(self, "W") else self.W_left @ self.W_right  # (n, in/n, out/n)
        H = torch.einsum("nab,nij->aibj", rule, W)  # sum of Kronecker products, blocks unflattened
        return H.reshape(H.shape[0] * H.shape[1], -1).T

    def forward(self, x: Tensor) -> Tensor:  # (..., in) -> (..., out)
        """Returns x H + b."""
        return F.linear(x, self.weight, self.bias)
