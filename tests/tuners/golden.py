"""The reference's numbers: a tiny Qwen2 with adapters and fusions, as the `adapters` library 1.3.0 computed them.

`golden_qwen2.safetensors` holds the base (`base/`), every tensor of the adapters and fusions at Pfeiffer's place under
the reference's own names (`weights/`), and its results (`expected/`); configurations stand in the file's metadata.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model
from safetensors import safe_open
from transformers import Qwen2Config, Qwen2ForCausalLM

from studykit.tuners import BottleneckConfig, FusionConfig

with safe_open(Path(__file__).with_name("golden_qwen2.safetensors"), "pt") as file:
    TENSORS = {key: file.get_tensor(key) for key in file.keys()}
    META = {key: json.loads(value) for key, value in file.metadata().items()}

SINGLES, FUSIONS = META["configs"], META["fusions"]


def inputs() -> dict[str, torch.Tensor]:
    return {name: TENSORS[f"expected/{name}"] for name in ("input_ids", "attention_mask", "labels")}


def base_model() -> Qwen2ForCausalLM:
    fields = {k: v for k, v in META["base"].items() if k not in ("architectures", "transformers_version")}
    model = Qwen2ForCausalLM._from_config(Qwen2Config(**fields), attn_implementation="eager").eval()
    model.load_state_dict({k[5:]: v for k, v in TENSORS.items() if k.startswith("base/")})
    return model


def bottleneck_config(name: str) -> BottleneckConfig:
    config = SINGLES[name]
    return BottleneckConfig(
        task_type="CAUSAL_LM",
        reduction_factor=config["reduction_factor"],
        activation=config["non_linearity"],
        scaling=config["scaling"],
        phm_dim=config["phm_dim"] if config["phm_layer"] else None,
        phm_rank=config["phm_rank"] if config["factorized_phm_W"] else None,
        phm_shared_rule=config["shared_phm_rule"],
        phm_rule_rank=1 if config["factorized_phm_rule"] else None,
    )


def our_name(reference: str) -> str:
    """The name in our state dict of a tensor that the reference calls `reference` (without `model.`)."""
    adapter = re.fullmatch(
        r"model\.layers\.(\d+)\.output_adapters\.adapters\.(\w+)\.adapter_(down|up)(?:\.0)?\.(\w+)", reference
    )
    if adapter:
        return "model.layers.{}.composition.adapters.{}.{}.{}".format(*adapter.groups())
    fusion = re.fullmatch(
        r"model\.layers\.(\d+)\.output_adapters\.adapter_fusion_layer\.([\w,]+)\.(\w+)\.(\w+)", reference
    )
    layer, name, part, tensor = fusion.groups()
    return f"model.layers.{layer}.composition.fusions.{fusion_name(name)}.{part}.{tensor}"


def fusion_name(members: str) -> str:
    return next(name for name, fusion in FUSIONS.items() if ",".join(fusion["names"]) == members)


def model_with(*names: str, fusion: str | None = None) -> PeftModel:
    """The golden base with the named adapters, and the named fusion on top, active and trainable, in eval mode."""
    model = get_peft_model(base_model(), bottleneck_config(names[0]), adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, bottleneck_config(name))
    if fusion:
        config = FusionConfig(task_type="CAUSAL_LM", members=list(names), value=fusion != "static")
        model.add_adapter(fusion, config)
    model.set_adapter(fusion or names[0])
    load_reference_weights(model)
    return model.eval()


def load_reference_weights(model: PeftModel) -> None:
    own = model.get_base_model().state_dict()
    given = {}
    for key, tensor in TENSORS.items():
        if not key.startswith("weights/"):
            continue
        rule = re.fullmatch(r"weights/model\.shared_parameters\.(\w+)\.phm_rule", key)
        if rule:  # one tensor of the reference, a name of ours in every layer
            given |= {k: tensor for k in own if f".adapters.{rule[1]}." in k and k.endswith(".phm_rule")}
        elif (name := our_name(key.removeprefix("weights/"))) in own:
            given[name] = tensor
    assert set(given) == {k for k in own if ".composition." in k}
    model.get_base_model().load_state_dict(given, strict=False)
