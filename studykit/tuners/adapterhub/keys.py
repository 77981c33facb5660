"""The names of tensors in the files of the `adapters` library, and this tuner's parameters under them."""

from __future__ import annotations

import re
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from studykit.tuners.bottleneck import Bottleneck, PHMSettings, bottleneck_width
from studykit.tuners.config import BottleneckConfig
from studykit.tuners.model import composition_layers
from studykit.tuners.phm import new_rule
from studykit.tuners.placement import TARGETS, Site, site_of


def base_of(model: nn.Module) -> Any:
    """Returns the transformers model under the adapters."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def hidden_size(base: Any) -> int:
    """Returns the width of the residual stream."""
    return base.config.get_text_config().hidden_size


def sites(base: nn.Module, placement: str) -> list[Site]:
    """Returns the sites of a placement in a model, in order."""
    names = (name for name, _ in base.named_modules() if re.fullmatch(TARGETS[placement], name))
    return sorted(site_of(name, placement) for name in names)


def group(site: Site) -> str:
    """Returns the library's name of the module that holds all adapters of a site."""
    return f"layers.{site.layer}.{'attention' if site.name == 'attention' else 'output'}_adapters"


def adapter_key(site: Site, label: str, part: str, config: BottleneckConfig) -> str:
    """Returns the library's name, without `model.`, of the parameter that `Bottleneck` calls `part`."""
    module, _, tensor = part.partition(".")
    if config.phm_shared_rule and tensor.startswith("phm_rule"):
        return f"shared_parameters.{label}.{tensor}"
    if config.phm_dim is not None and tensor == "bias":
        tensor = "b"
    return f"{group(site)}.adapters.{label}.adapter_{'down.0' if module == 'down' else 'up'}.{tensor}"


def fusion_key(site: Site, label: str, part: str) -> str:
    """Returns the library's name, without `model.`, of the parameter that `Fusion` calls `part`."""
    return f"{group(site)}.adapter_fusion_layer.{label}.{part}"


def parameters_of(model: PeftModel, name: str, label: str) -> dict[str, nn.Parameter]:
    """Returns the parameters of an adapter or a fusion by the library's names, without `model.`.

    Args:
        name, label: its name in the model, and the name that the library gives it.
    """
    parameters: dict[str, nn.Parameter] = {}
    config: Any = model.peft_config[name]
    for layer in composition_layers(model):
        if name in layer.adapters:
            for part, parameter in layer.adapters[name].named_parameters(remove_duplicate=False):
                parameters[adapter_key(layer.sites[name], label, part, config)] = parameter
        elif name in layer.fusions:
            for part, parameter in layer.fusions[name].named_parameters():
                parameters[fusion_key(layer.sites[name], label, part)] = parameter
    return parameters


def adapter_shapes(base: nn.Module, config: BottleneckConfig, label: str) -> dict[str, tuple]:
    """Returns the shapes of an adapter's parameters by the library's names."""
    d, phm = hidden_size(base), None
    if config.phm_dim is not None and (d % config.phm_dim or (config.phm_rank or 1) > d):
        raise ValueError(
            f"phm_dim={config.phm_dim} and phm_rank={config.phm_rank} do not fit; phm_dim must divide the width "
            f"{d} of the model, and phm_rank must not exceed it."
        )
    with torch.device("meta"):
        if config.phm_dim is not None:
            rule = new_rule(config.phm_dim, config.phm_rule_rank)
            phm = PHMSettings(config.phm_dim, config.phm_rank, rule, rule)
        module = Bottleneck(d, d, bottleneck_width(d, config.reduction_factor), phm=phm)
    shapes = {part: tuple(p.shape) for part, p in module.named_parameters(remove_duplicate=False)}
    return {
        adapter_key(site, label, part, config): shape
        for site in sites(base, config.placement)
        for part, shape in shapes.items()
    }
