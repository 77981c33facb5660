"""LoRA adapters of PEFT as members of a fusion.

A LoRA (Hu et al. 2021, arXiv 2106.09685) at a linear layer is a bottleneck at the placement `linear`, without
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
from torch import Tensor, nn

from studykit.tuners.config import BottleneckConfig
from studykit.tuners.placement import linear_targets

# The fields by which a LoRA can be more than A and B, with the value at which it is not.
PLAIN_LORA = {
    "bias": "none",
    "lora_bias": False,
    "use_dora": False,
    "use_qalora": False,
    "use_bdlora": None,
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layers_to_transform": None,
    "layer_replication": None,
    "fan_in_fan_out": False,
    "target_parameters": None,
    "trainable_token_indices": None,
    "alora_invocation_tokens": None,
    "arrow_config": None,
    "kasa_config": None,
    "velora_config": None,
    "monteclora_config": None,
}

# The starts of A and B that leave the base as it is; others, such as PiSSA and OLoRA, take a part of its weights away.
UNCHANGED_BASE = (None, True, False, "gaussian", "orthogonal", "eva")


def lora_config(directory: str | Path) -> BottleneckConfig:
    """Returns the configuration with which a LoRA directory of PEFT becomes a member of a fusion.

    Raises ValueError for another adapter, and for a LoRA that is more than A and B.
    """
    lora = json.loads(lora_file(directory, "adapter_config.json").read_text(encoding="utf-8"))
    if lora.get("peft_type") != "LORA":
        raise ValueError(f"{directory} holds a {lora.get('peft_type')} adapter, not a LoRA.")
    for key, plain in PLAIN_LORA.items():
        if lora.get(key) not in (plain, None):
            raise ValueError(f"The LoRA in {directory} has {key}={lora[key]!r}; only plain LoRA can be fused.")
    if (start := lora.get("init_lora_weights")) not in UNCHANGED_BASE:
        raise ValueError(
            f"The LoRA in {directory} has init_lora_weights={start!r}, which changes the base that it belongs to; save "
            "it with path_initial_model_for_weight_conversion, or start it with one of True, gaussian and orthogonal."
        )
    modules = lora["target_modules"]
    if isinstance(modules, str):
        raise ValueError(f"The LoRA in {directory} names its modules by the pattern {modules!r}; a list is needed.")
    divisor = math.sqrt(lora["r"]) if lora.get("use_rslora") else lora["r"]
    return BottleneckConfig(
        placement="linear",
        rank=lora["r"],
        activation="identity",
        biased=False,
        init="lora",
        scaling=lora["lora_alpha"] / divisor,
        target_modules=linear_targets([module.rpartition(".")[2] for module in modules]),
        task_type=lora.get("task_type"),
    )


def lora_file(directory: str | Path, name: str) -> Path:
    """Returns a file of a LoRA; raises ValueError for a pipe, which would be waited for without end."""
    path = Path(directory) / name
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file.")
    return path


def load_lora(model: nn.Module, directory: str | Path, name: str) -> PeftModel:
    """Returns the model with the LoRA of a PEFT directory as a frozen adapter of this tuner.

    Args:
        model: a transformers model, or one that already holds adapters of this tuner.
    Raises: ValueError if it is not a plain LoRA, or does not fit the model.
    """
    config, weights = lora_config(directory), {}
    for key, tensor in load_file(lora_file(directory, "adapter_model.safetensors")).items():
        module, _, part = key.rpartition(".lora_")
        if part not in ("A.weight", "B.weight"):
            raise ValueError(f"The LoRA in {directory} holds {key}; only A and B can be fused.")
        projection = {"A.weight": "down", "B.weight": "up"}[part]
        weights[f"{module}.composition.adapters.{name}.{projection}.weight"] = tensor
    if isinstance(model, PeftModel):
        model.add_adapter(name, config)
    else:
        model = get_peft_model(model, config, adapter_name=name)
    prefix = f".composition.adapters.{name}."
    parameters = {key: parameter for key, parameter in model.named_parameters() if prefix in key}
    if problem := misfit(parameters, weights):
        if len(model.peft_config) > 1:
            model.delete_adapter(name)
        else:
            model.unload()
        raise ValueError(f"The LoRA in {directory} does not fit the model: {problem}.")
    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_(weights[key])
            parameter.requires_grad_(False)
    return model


def misfit(parameters: dict[str, nn.Parameter], weights: dict[str, Tensor]) -> str:
    """Returns the first difference between named weights and parameters; "" if they fit."""
    for key in sorted(parameters.keys() | weights.keys()):
        shown = key.replace(".composition.adapters", "")
        if key not in parameters or key not in weights:
            return f"{shown} is only in the {'file' if key in weights else 'model'}"
        if parameters[key].shape != weights[key].shape:
            return f"{shown} is {tuple(weights[key].shape)}, the model needs {tuple(parameters[key].shape)}"
    return ""
