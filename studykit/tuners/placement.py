"""Where an adapter reads its input x and where its output is added, in a decoder layer.

| placement | x                                          | added to                      | used by                     |
|-----------|--------------------------------------------|-------------------------------|-----------------------------|
| output    | the layer's output, residual included      | the same                      | Pfeiffer, Compacter++       |
| houlsby   | output of o_proj; output of the MLP's last | the same, before the residual | Houlsby, Compacter          |
|           | projection                                 |                               |                             |
| parallel  | input of the norm before the MLP           | the layer's output            | He et al. 2022 (2110.04366) |
| linear    | input of a linear layer, such as q_proj    | output of that linear layer   | LoRA                        |

A *site* is a module at which adapters of one placement sit: one per layer, two for `houlsby`, one per projection for
`linear`. Adapters can be fused if they have the same sites.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Every decoder layer of the Llama-like families; PEFT matches a string as a full regular expression.
LAYER = r"(.*\.)?layers\.\d+"
TARGETS = {
    "output": LAYER,
    "houlsby": LAYER + r"\.(self_attn\.o_proj|mlp\.(down_proj|c_proj))",  # Starcoder2 calls it c_proj
    "parallel": LAYER,
    "linear": LAYER + r"\.self_attn\.(q_proj|v_proj)",
}
PLACES = {  # the names of the sites that a layer must have
    "output": ("output",),
    "houlsby": ("attention", "mlp"),
    "parallel": ("parallel",),
    "linear": ("q_proj", "v_proj"),
}
# The norm before the MLP, whose input the parallel adapter reads. Families that have the first name, such as Gemma 2,
# use the second for another norm, that of the attention's output.
STREAM_NORMS = ("pre_feedforward_layernorm", "post_attention_layernorm")


class Site(NamedTuple):
    """One place in the model at which adapters sit; sites sort in the order of the layers."""

    layer: int  # index of the decoder layer
    name: str  # output, attention, mlp, parallel, or the name of a linear layer such as q_proj


def targets_in(placement: str, layers: list[int] | None) -> str:
    """Returns the regular expression of a placement's modules in these layers; None: in all."""
    if layers is None:
        return TARGETS[placement]
    return TARGETS[placement].replace(r"\d+", f"({'|'.join(map(str, layers))})", 1)


def linear_targets(modules: list[str]) -> str:
    """Returns the regular expression of the linear layers with these names."""
    return rf"{LAYER}\..*\.({'|'.join(map(re.escape, sorted(modules)))})"


def site_of(module_name: str, placement: str) -> Site:
    """Returns the site of a module by its name: `model.layers.3.mlp.down_proj` is (3, "mlp") for `houlsby`."""
    layer = re.search(r"layers\.(\d+)", module_name)
    assert layer is not None, module_name
    index, rest = int(layer[1]), module_name[layer.end() :]
    if placement == "houlsby":
        return Site(index, "attention" if "self_attn" in rest else "mlp")
    return Site(index, placement if not rest else rest.rpartition(".")[2])
