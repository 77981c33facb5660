"""LoRA adapters of PEFT as members of a fusion.

A LoRA (Hu et al. 2021, arXiv 2106.09685) beside a linear layer is a bottleneck at the place `linear`, without
non-linearity and biases: u = (alpha / r) B A x with A (r, d_in), B (d_out, r). So it is fused as any other member: the
query reads x, keys and values read u, and the context is added to the layer's output W x. LoRA's dropout acts on x in
training only, and members do not train.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn

from studykit.tuners.config import BottleneckConfig
from studykit.tuners.placement import linear_targets

# What makes a LoRA more than A and B, with the value at which it does not.
PLAIN = {"bias": "none", "lora_bias": False, "use_dora": False, "use_qalora": False, "use_bdlora": None,
         "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}, "layers_to_transform": None,
         "layer_replication": None, "fan_in_fan_out": False, "target_parameters": None, "trainable_token_indices": None,
         "alora_invocation_tokens": None, "arrow_config": None, "kasa_config": None, "velora_config": None,
         "monteclora_config": None}  # fmt: skip


def lora_config(directory: str | Path) -> BottleneckConfig:
    """What a LoRA directory of PEFT is as a member; ValueError for a LoRA that is more than A and B."""
    given = json.loads((Path(directory) / "adapter_config.json").read_text(encoding="utf-8"))
    if given.get("peft_type") != "LORA":
        raise ValueError(f"{directory} holds a {given.get('peft_type')} adapter, not a LoRA.")
    for key, plain in PLAIN.items():
        if given.get(key) not in (plain, None):
            raise ValueError(f"The LoRA in {directory} has {key}={given[key]!r}; only plain LoRA can be fused.")
    modules = given["target_modules"]
    if isinstance(modules, str):
        raise ValueError(f"The LoRA in {directory} names its modules by the pattern {modules!r}; a list is needed.")
    scale = math.sqrt(given["r"]) if given.get("use_rslora") else given["r"]
    return BottleneckConfig(
        place="linear",
        rank=given["r"],
        activation="identity",
        biased=False,
        init="lora",
        scaling=given["lora_alpha"] / scale,
        target_modules=linear_targets([module.rpartition(".")[2] for module in modules]),
        task_type=given.get("task_type"),
    )


def load_lora(model: nn.Module, directory: str | Path, name: str) -> PeftModel:
    """The model with the LoRA saved in a PEFT directory as a frozen adapter of ours.

    Args:
        model: a transformers model, or one that already holds adapters of ours.
    Raises: ValueError if it is no plain LoRA or does not fit the model.
    """
    config, given = lora_config(directory), {}
    for key, tensor in load_file(Path(directory) / "adapter_model.safetensors").items():
        module, _, part = key.rpartition(".lora_")
        if part not in ("A.weight", "B.weight"):
            raise ValueError(f"The LoRA in {directory} holds {key}; only A and B can be fused.")
        part = {"A.weight": "down", "B.weight": "up"}[part]
        given[f"{module}.composition.adapters.{name}.{part}.weight"] = tensor
    if isinstance(model, PeftModel):
        model.add_adapter(name, config)
    else:
        model = get_peft_model(model, config, adapter_name=name)
    own = {key: weight for key, weight in model.named_parameters() if f".composition.adapters.{name}." in key}
    if wrong := misfit(own, given):
        if len(model.peft_config) > 1:
            model.delete_adapter(name)
        else:
            model.unload()
        raise ValueError(f"The LoRA in {directory} does not fit the model: {wrong}.")
    with torch.no_grad():
        for key, weight in own.items():
            weight.copy_(given[key])
            weight.requires_grad_(False)
    return model


def misfit(own: dict, given: dict) -> str:
    """Why tensors by name do not fit parameters, or ""."""
    for key in sorted(own.keys() | given.keys()):
        shown = key.replace(".composition.adapters", "")
        if key not in own or key not in given:
            return f"{shown} is on one side only"
        if own[key].shape != given[key].shape:
            return f"{shown} is {tuple(given[key].shape)}, the model needs {tuple(own[key].shape)}"
    return ""
