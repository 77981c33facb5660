"""The bottleneck adapter: down-projection, non-linearity, up-projection.

Houlsby et al. 2019 (arXiv 1902.00751); at the place of Pfeiffer et al. 2021 (AdapterFusion, arXiv 2005.00247), once per
layer on the layer's output h:

    A(x) = scaling * (act(x D^T + b_D) U^T + b_U),   h <- h + A(h),   D (r, d), U (d, r), r = d // reduction_factor

With PHM weights in D and U it is Compacter++ (arXiv 2106.04647).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from studykit.tuners.phm import PHMLinear

# `gelu` is the exact form, `swish` is x * sigmoid(x), as in the reference implementation.
ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "swish": F.silu}


def bottleneck_width(hidden_size: int, reduction_factor: float) -> int:
    """r = d // reduction_factor, at least 1."""
    return max(1, int(hidden_size // reduction_factor))


class Bottleneck(nn.Module):
    """One adapter of one layer, without its residual.

    Args:
        hidden_size: d, width of the residual stream.
        width: r, width of the bottleneck.
        activation: a key of ACTIVATIONS.
        scaling: factor on the output.
        dropout: probability, after the scaling; part of the adapter alone, never of a fusion.
        phm: arguments for PHMLinear (`n`, `rank`, and `rules`: those of the down- and the up-projection), or None for
            dense projections. Dense weights start at N(0, 0.02), biases at 0: a fresh adapter is not the identity.
    """

    def __init__(
        self,
        hidden_size: int,
        width: int,
        activation: str = "relu",
        scaling: float = 1.0,
        dropout: float = 0.0,
        phm: dict | None = None,
    ):
        super().__init__()
        self.activation, self.scaling = activation, scaling
        self.dropout = nn.Dropout(dropout)
        if phm is None:
            self.down, self.up = nn.Linear(hidden_size, width), nn.Linear(width, hidden_size)
            for layer in (self.down, self.up):
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        else:
            down_rule, up_rule = phm["rules"]
            self.down = PHMLinear(hidden_size, width, phm["n"], phm["rank"], down_rule)
            self.up = PHMLinear(width, hidden_size, phm["n"], phm["rank"], up_rule)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, d) -> (B, T, d)
        z = ACTIVATIONS[self.activation](self.down(x))  # (B, T, r)
        return self.dropout(self.scaling * self.up(z))
