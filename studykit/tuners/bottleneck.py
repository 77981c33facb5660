"""The bottleneck adapter: down-projection, non-linearity, up-projection.

Houlsby et al. 2019 (arXiv 1902.00751):

    A(x) = scaling * (act(x D^T + b_D) U^T + b_U),   D (r, d_in), U (d_out, r)

The adapter's placement (see `placement`) says where x is read and where A(x) is added. With PHM weights in D and U it
is Compacter (arXiv 2106.04647); at a linear layer, without non-linearity and biases, it is LoRA (arXiv 2106.09685).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from studykit.tuners.phm import PHMLinear


def identity(x: Tensor) -> Tensor:
    """Returns x: the activation of a linear bottleneck such as LoRA."""
    return x


# `gelu` is the exact form and `swish` is x * sigmoid(x), as in the reference implementation.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "swish": F.silu,
    "identity": identity,
}
INITS = ("bert", "houlsby", "mam_adapter", "lora")


def bottleneck_width(hidden_size: int, reduction_factor: float) -> int:
    """Returns the width r = d // reduction_factor of a bottleneck, at least 1."""
    return max(1, int(hidden_size // reduction_factor))


@dataclass(frozen=True)
class PHMSettings:
    """How the projections of a bottleneck are made of Kronecker products, see `phm`."""

    n: int  # Kronecker terms
    rank: int | None  # rank of W_i; None: full
    down_rule: list[nn.Parameter]  # the rule A of the down-projection: one tensor, or two factors
    up_rule: list[nn.Parameter]  # the rule A of the up-projection; the same list where it is shared


class Bottleneck(nn.Module):
    """One adapter at one site, without its residual.

    Args:
        inputs, outputs: d_in and d_out; both are the width of the residual stream, except at the placement `linear`.
        width: r, the width of the bottleneck.
        activation: a key of ACTIVATIONS.
        scaling: the factor on the output.
        dropout: its probability, applied after the scaling. It acts in the adapter alone, never in a fusion.
        biased: whether D and U have biases; PHM projections always have them.
        init: how dense weights start; biases start at 0. `bert`: N(0, 0.02); `houlsby`: N(0, 0.01) cut off at two
            standard deviations; `mam_adapter` and `lora`: D Kaiming-uniform, U = 0. With the first two a new adapter
            is not the identity.
        phm: the settings of PHM projections; None: dense projections.
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
        phm: PHMSettings | None = None,
    ):
        super().__init__()
        self.activation, self.scaling = activation, scaling
        self.dropout = nn.Dropout(dropout)
        self.down: nn.Linear | PHMLinear
        self.up: nn.Linear | PHMLinear
        if phm is None:
            self.down = nn.Linear(inputs, width, bias=biased)
            self.up = nn.Linear(width, outputs, bias=biased)
            self.reset_bottleneck_parameters(init)
        else:
            self.down = PHMLinear(inputs, width, phm.n, phm.rank, phm.down_rule)
            self.up = PHMLinear(width, outputs, phm.n, phm.rank, phm.up_rule)

    def reset_bottleneck_parameters(self, init: str) -> None:
        """Draws dense projections again; `init` is one of INITS."""
        draw_weight(self.down, init)
        if init in ("mam_adapter", "lora"):
            nn.init.zeros_(self.up.weight)
        else:
            draw_weight(self.up, init)
        for layer in (self.down, self.up):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, d_in) -> (B, T, d_out)
        """Returns A(x), which is added to the output of the site's module."""
        z = ACTIVATIONS[self.activation](self.down(x))  # (B, T, r)
        return self.dropout(self.scaling * self.up(z))


def draw_weight(layer: nn.Linear | PHMLinear, init: str) -> None:
    """Draws the weight of a dense projection, as `Bottleneck` describes."""
    if init == "bert":
        nn.init.normal_(layer.weight, std=0.02)
    elif init == "houlsby":
        nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
    else:
        nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
