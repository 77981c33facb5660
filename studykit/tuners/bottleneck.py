"""The bottleneck adapter: down-projection, non-linearity, up-projection.

Houlsby et al. 2019 (arXiv 1902.00751):

    A(x) = scaling * (act(x D^T + b_D) U^T + b_U),   D (r, d_in), U (d_out, r)

Where x is read and where A(x) is added is the adapter's place (`places`). With PHM weights in D and U it is Compacter
(arXiv 2106.04647); without non-linearity and biases, beside a linear layer, it is LoRA (arXiv 2106.09685).
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from studykit.tuners.phm import PHMLinear


def identity(x: Tensor) -> Tensor:
    return x


# `gelu` is the exact form, `swish` is x * sigmoid(x), as in the reference implementation.
ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "swish": F.silu, "identity": identity}
INITS = ("bert", "houlsby", "mam_adapter", "lora")


def bottleneck_width(hidden_size: int, reduction_factor: float) -> int:
    """r = d // reduction_factor, at least 1."""
    return max(1, int(hidden_size // reduction_factor))


class Bottleneck(nn.Module):
    """One adapter at one place of one layer, without its residual.

    Args:
        inputs, outputs: d_in and d_out; both the width of the residual stream at all places but `linear`.
        width: r, width of the bottleneck.
        activation: a key of ACTIVATIONS.
        scaling: factor on the output.
        dropout: probability, after the scaling; part of the adapter alone, never of a fusion.
        biased: whether D and U have biases; PHM layers always do.
        init: of dense weights, with biases at 0. `bert`: N(0, 0.02); `houlsby`: N(0, 0.01) cut at two deviations;
            `mam_adapter` and `lora`: Kaiming-uniform D, U = 0. With the first two a fresh adapter is not the identity.
        phm: arguments for PHMLinear (`n`, `rank`, and `rules`: those of the down- and the up-projection), or None for
            dense projections.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        activation: str = "relu",
        scaling: float = 1.0,
        dropout: float = 0.0,
        biased: bool = True,
        init: str = "bert",
        phm: dict | None = None,
    ):
        super().__init__()
        self.activation, self.scaling = activation, scaling
        self.dropout = nn.Dropout(dropout)
        if phm is None:
            self.down, self.up = nn.Linear(inputs, width, bias=biased), nn.Linear(width, outputs, bias=biased)
            initialise(self.down, init, zero=False)
            initialise(self.up, init, zero=init in ("mam_adapter", "lora"))
        else:
            down_rule, up_rule = phm["rules"]
            self.down = PHMLinear(inputs, width, phm["n"], phm["rank"], down_rule)
            self.up = PHMLinear(width, outputs, phm["n"], phm["rank"], up_rule)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, d_in) -> (B, T, d_out)
        z = ACTIVATIONS[self.activation](self.down(x))  # (B, T, r)
        return self.dropout(self.scaling * self.up(z))


def initialise(layer: nn.Linear, init: str, zero: bool) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    if zero:
        nn.init.zeros_(layer.weight)
    elif init == "bert":
        nn.init.normal_(layer.weight, std=0.02)
    elif init == "houlsby":
        nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
    else:
        nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
