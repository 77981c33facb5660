"""Where an adapter reads its input x and where its output is added, in a decoder layer.

| place    | x                                          | added to                      | used by                     |
|----------|--------------------------------------------|-------------------------------|-----------------------------|
| output   | the layer's output, residual included      | the same                      | Pfeiffer, Compacter++       |
| houlsby  | output of o_proj; output of the MLP's last | the same, before the residual | Houlsby, Compacter          |
|          | projection                                 |                               |                             |
| parallel | input of the norm before the MLP           | the layer's output            | He et al. 2022 (2110.04366) |
| linear   | input of a linear layer, such as q_proj    | output of that linear layer   | LoRA                        |

A *site* is a module at which adapters of one place sit: one per layer, two for `houlsby`, one per projection for
`linear`. Adapters can be fused where they have the same sites.
"""

from __future__ import annotations

import re

# Every decoder layer of the Llama-like families; PEFT matches a string as a full regular expression.
LAYER = r"(.*\.)?layers\.\d+"
TARGETS = {
    "output": LAYER,
    "houlsby": LAYER + r"\.(self_attn\.o_proj|mlp\.(down_proj|c_proj))",  # Starcoder2 calls it c_proj
    "parallel": LAYER,
    "linear": LAYER + r"\.self_attn\.(q_proj|v_proj)",
}
# Whose input the parallel adapter reads: the norm before the MLP. Where Gemma 2 and its like have the first of them,
# their post_attention_layernorm is another, of the attention's output.
STREAM_NORMS = ("pre_feedforward_layernorm", "post_attention_layernorm")


def linear_targets(modules: list[str]) -> str:
    """The regular expression of linear layers by the last part of their names."""
    return rf"{LAYER}\..*\.({'|'.join(map(re.escape, sorted(modules)))})"


def locate(key: str, place: str) -> tuple[int, str]:
    """(index of the decoder layer, name of the site in it) of a module, as (3, "output"), (3, "mlp"), (3, "q_proj")."""
    layer = re.search(r"layers\.(\d+)", key)
    index, rest = int(layer[1]), key[layer.end() :]
    if place == "houlsby":
        return index, "attention" if "self_attn" in rest else "mlp"
    return index, place if not rest else rest.rpartition(".")[2]
