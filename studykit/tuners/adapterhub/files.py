"""Adapters, fusions and setups in the files of the `adapters` library (AdapterHub), read and written.

The library is that of Poth et al. 2023 (arXiv 2311.11077). A directory holds one of three things:

| thing   | configuration              | tensors, as safetensors or as pickled .bin                         |
|---------|----------------------------|--------------------------------------------------------------------|
| adapter | adapter_config.json        | adapter.safetensors, pytorch_adapter.bin                           |
| fusion  | adapter_fusion_config.json | model_adapter_fusion.safetensors, pytorch_model_adapter_fusion.bin |
| setup   | adapter_setup.json         | one directory per adapter, one for the fusion                      |

A file that the tuner cannot compute is refused, never approximated. Fields of a file that this tuner's configuration
does not have are kept next to it, so that reading and writing gives the same fields and the same bits.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn

from studykit.tuners.adapterhub.format import (
    ADAPTER,
    FUSION,
    HEADS,
    SETUP,
    VERSION,
    Origin,
    bottleneck_config,
    bottleneck_fields,
    check_fit,
    checked_name,
    fusion_config,
    fusion_fields,
    naming,
    origin,
    read_json,
    read_tensors,
    trust_tensors,
    write_json,
)
from studykit.tuners.adapterhub.keys import adapter_shapes, base_of, fusion_key, hidden_size, parameters_of, sites
from studykit.tuners.config import BottleneckConfig, FusionConfig
from studykit.tuners.model import composition_layers

Config = BottleneckConfig | FusionConfig


class Loaded(NamedTuple):
    """An adapter or a fusion as it was read from the library's files."""

    config: Any  # of BottleneckConfig or FusionConfig, with its `origin`
    tensors: dict[str, Tensor]  # by the library's names, without the prefix `model.`


def load_adapter(model: nn.Module, directory: str | Path, name: str | None = None) -> PeftModel:
    """Returns the model with the library's adapter as a frozen adapter of this tuner; `set_adapter` makes it trainable.

    Args:
        model: a transformers model, or one that already holds adapters of this tuner.
        directory: written by the library's `save_adapter`; a head in it is ignored.
        name: the adapter's name in the model; None for the one in the file.
    Raises: ValueError, with the model unchanged, if a file is damaged, does not fit the model, or holds something that
        the tuner does not compute.
    """
    loaded = read_adapter(base_of(model), Path(directory))
    return add(model, loaded, name or loaded.config.origin.label, Path(directory))


def load_fusion(model: nn.Module, directory: str | Path, name: str = "fusion") -> PeftModel:
    """Returns the model with a fusion that `save_adapter_fusion` wrote; it must hold the members, by their names."""
    configs = model.peft_config if isinstance(model, PeftModel) else {}
    return add(model, read_fusion(base_of(model), Path(directory), configs), name, Path(directory))


def load_setup(model: nn.Module, directory: str | Path, name: str = "fusion") -> PeftModel:
    """Returns the model with the members and the fusion that `save_adapter_setup` wrote of a Fuse(...), active."""
    directory, base = Path(directory), base_of(model)
    members = read_setup(directory / SETUP)
    adapters = {member: read_adapter(base, directory / member) for member in members}
    parts = sorted(path.parent for path in directory.glob(f"*/{FUSION[0]}"))
    if len(parts) != 1:
        raise ValueError(f"{directory} holds {len(parts)} directories with {FUSION[0]}; accepted is one.")
    fusion = read_fusion(base, parts[0], {member: loaded.config for member, loaded in adapters.items()})
    if fusion.config.members != members:
        raise ValueError(f"{parts[0]} fuses {fusion.config.members}, but {directory / SETUP} names {members}.")
    if len({*members, name}) <= len(members):
        raise ValueError(f"{directory}: the names {[*members, name]}, of members and fusion, must all differ.")
    for new in (*members, name):
        check_free(model, new, directory)
    for member in members:
        model = add(model, adapters[member], member, directory / member)
    model = add(model, fusion, name, parts[0])
    model.set_adapter(name)
    return model


def save_adapter(model: PeftModel, directory: str | Path, name: str, safe: bool = True) -> None:
    """Writes an adapter as the library's `save_adapter` does, without a head.

    Args:
        safe: True writes safetensors, False a pickled .bin.

    Raises: ValueError if there is no such adapter, or the library cannot compute it.
    """
    config, base = require_config(model, name, BottleneckConfig), base_of(model)
    fields = bottleneck_fields(name, config, hidden_size(base))
    adapted = sorted(layer.sites[name] for layer in composition_layers(model) if name in layer.adapters)
    if adapted != sites(base, config.placement):
        raise ValueError(f"{name!r} is not in every layer, which the files of the adapters library cannot express.")
    given = {"name": name, "config": fields}
    write(base, Path(directory), ADAPTER, given, parameters_of(model, name, name), config, safe)


def save_fusion(model: PeftModel, directory: str | Path, name: str, safe: bool = True) -> None:
    """Writes a fusion without its members, as the library's `save_adapter_fusion` does."""
    config, base = require_config(model, name, FusionConfig), base_of(model)
    check_fusable(name, cast(BottleneckConfig, model.peft_config[config.members[0]]))
    fields, label = fusion_fields(name, config, default_dropout(base)), label_of(config)
    given = {"name": label, "adapter_names": list(config.members), "config": fields}
    write(base, Path(directory), FUSION, given, parameters_of(model, name, label), config, safe)


def save_setup(model: PeftModel, directory: str | Path, name: str, safe: bool = True) -> None:
    """Writes a fusion with its members, as the library's `save_adapter_setup` does for Fuse(...)."""
    directory, config = Path(directory), require_config(model, name, FusionConfig)
    save_fusion(model, directory / label_of(config), name, safe)
    for member in config.members:
        save_adapter(model, directory / member, member, safe)
    setup = {"type": "Fuse", "children": [{"type": "single", "children": [member]} for member in config.members]}
    write_json(directory / SETUP, {"adapter_setup": setup, "head_setup": None, "version": VERSION}, sort_keys=False)


def read_setup(path: Path) -> list[str]:
    """Reads the members' names from the file of a setup; they are also the names of directories."""
    given = read_json(path)
    setup: Any = given.get("adapter_setup")
    try:
        kinds = [setup["type"], *(child["type"] for child in setup["children"])]
        members = [checked_name(path, member) for child in setup["children"] for member in child["children"]]
    except (TypeError, KeyError):
        kinds, members = [], []
    if not members or kinds != ["Fuse"] + ["single"] * len(members):
        raise ValueError(f"{path}: adapter_setup={setup!r} is not supported; accepted is a Fuse of single adapters.")
    if given.get("head_setup"):
        warnings.warn(f"{path}: the setup of a head is ignored.", stacklevel=3)
    return members


def read_adapter(base: nn.Module, directory: Path) -> Loaded:
    """Reads an adapter of the library that fits a base; raises ValueError for any other."""
    path = directory / ADAPTER[0]
    given = read_json(path)
    if "peft_type" in given:
        raise ValueError(f"{path} is of PEFT (peft_type={given['peft_type']!r}), not of the adapters library.")
    stated, label = given.get("config"), given.get("name")
    if not isinstance(stated, dict) or not isinstance(label, str):
        raise ValueError(f"{path} needs `name` and a nested `config`, as the adapters library writes them.")
    if stated.get("architecture") is not None:
        kind = stated["architecture"]
        raise ValueError(f"{path}: architecture={kind!r} is not supported; accepted is a bottleneck adapter (null).")
    check_width(path, given, base)
    tensors, tensor_path = read_tensors(directory, ADAPTER)
    fields = trust_tensors(path, stated, tensors)
    with naming(path):
        config: Any = bottleneck_config(path, fields, len(sites(base, "output")), given.get("version"))
        expected = adapter_shapes(base, config, label)
    if heads := [name for name in HEADS if (directory / name).exists()]:
        warnings.warn(f"{directory}: the files of a head, {heads}, are ignored.", stacklevel=3)
    config.origin = Origin(stated, label, check_fit(tensor_path, tensors, expected))
    return Loaded(config, tensors)


def read_fusion(base: nn.Module, directory: Path, configs: Mapping[str, Any]) -> Loaded:
    """Reads a fusion of the library that fits a base and these adapters, by name; raises ValueError for any other."""
    path = directory / FUSION[0]
    given = read_json(path)
    label, members = given.get("name"), given.get("adapter_names")
    if members is None and isinstance(label, str):
        members = label.split(",")  # files older than the field
    if not isinstance(members, list) or not all(isinstance(name, str) for name in (*members, label or "")):
        raise ValueError(f"{path} needs the members' names in `adapter_names`, or in `name` with commas.")
    label = ",".join(members) if label is None else checked_name(path, label, commas=True)
    check_width(path, given, base)
    with naming(path):
        config: Any = fusion_config(path, given.get("config"), members, default_dropout(base))
    adapters = [name for name, other in configs.items() if isinstance(other, BottleneckConfig)]
    if missing := [member for member in members if member not in adapters]:
        raise ValueError(f"{path}: the fusion needs adapters {missing}, but the model holds {adapters}.")
    placement = check_fusable(path, configs[members[0]])
    tensors, tensor_path = read_tensors(directory, FUSION)
    others = re.compile(rf".*\.adapter_fusion_layer\.(?!{re.escape(label)}\.)")  # written by the library by mistake
    tensors = {key: tensor for key, tensor in tensors.items() if not others.match(key)}
    d = hidden_size(base)
    shapes = {"query.weight": (d, d), "query.bias": (d,), "key.weight": (d, d), "key.bias": (d,)}
    shapes |= {"value.weight": (d, d)} if config.value else {}
    expected = {fusion_key(site, label, part): s for site in sites(base, placement) for part, s in shapes.items()}
    config.origin.label, config.origin.dtype = label, check_fit(tensor_path, tensors, expected)
    return Loaded(config, tensors)


@torch.no_grad()
def add(model: nn.Module, loaded: Loaded, name: str, directory: Path) -> PeftModel:
    """Returns the model with a loaded adapter or fusion under a name that is free."""
    check_free(model, name, directory)
    config, tensors = loaded
    config.task_type = "CAUSAL_LM" if base_of(model).can_generate() else None
    with naming(directory):  # the members may have several placements
        peft_model: Any = model if isinstance(model, PeftModel) else None
        if peft_model is None:
            peft_model = get_peft_model(model, config, adapter_name=name)
        else:
            peft_model.add_adapter(name, config)
    for key, parameter in parameters_of(peft_model, name, config.origin.label).items():
        parameter.copy_(tensors[key])
        parameter.requires_grad_(False)
    return peft_model


def check_free(model: nn.Module, name: str, directory: Path) -> None:
    """Raises ValueError if the model already holds an adapter of this name."""
    if checked_name(directory, name) in getattr(model, "peft_config", {}):
        raise ValueError(f"{directory}: the model already holds an adapter {name!r}; give another name.")


def check_fusable(fusion: Path | str, member: BottleneckConfig) -> str:
    """Returns the members' placement; raises ValueError for one whose fusion the library computes differently.

    In a fusion of parallel adapters the library adds the residual stream a second time.
    """
    if member.placement not in ("output", "houlsby"):
        fused = f"fuses adapters at {member.placement!r}, which the adapters library computes differently"
        raise ValueError(f"{fusion} {fused}; accepted are members at 'output' or 'houlsby'.")
    return member.placement


def check_width(path: Path, given: dict, base: nn.Module) -> None:
    """Raises ValueError if a file was written for a model of another width."""
    if given.get("hidden_size", hidden_size(base)) != hidden_size(base):
        raise ValueError(
            f"{path}: hidden_size={given['hidden_size']!r} does not fit; the model has {hidden_size(base)}."
        )


def default_dropout(base: nn.Module) -> float:
    """Returns the dropout of the scores of a fusion that names none."""
    return getattr(base.config, "attention_probs_dropout_prob", 0.0)


def label_of(config: FusionConfig) -> str:
    """Returns the library's name of a fusion."""
    return origin(config).label or ",".join(config.members)


def require_config(model: PeftModel, name: str, kind: type) -> Any:
    """Returns the configuration of an adapter of this kind; raises ValueError if the model holds none of this name."""
    config = model.peft_config.get(name)
    if not isinstance(config, kind):
        names = [other for other, config in model.peft_config.items() if isinstance(config, kind)]
        raise ValueError(f"The model holds no {kind.__name__.removesuffix('Config').lower()} {name!r}, but {names}.")
    return config


def write(base: Any, directory: Path, names: tuple, given: dict, parameters: dict, config: Config, safe: bool):
    """Writes the configuration and the tensors of an adapter or a fusion.

    Args:
        names: the files' names, as ADAPTER and FUSION hold them.
    """
    if (directory / names[0]).exists() and "peft_type" in read_json(directory / names[0]):
        raise ValueError(f"{directory} holds an adapter of PEFT, whose {names[0]} would be overwritten.")
    prefix, dtype = "model." if hasattr(base, "model") else "", origin(config).dtype
    tensors = {prefix + key: parameter.detach().cpu().clone() for key, parameter in parameters.items()}
    if all(torch.equal(tensor.to(dtype).to(tensor.dtype), tensor) for tensor in tensors.values()):
        tensors = {
            key: tensor.to(dtype) for key, tensor in tensors.items()
        }  # as it was read, unless it was trained since
    directory.mkdir(parents=True, exist_ok=True)
    (directory / names[2 if safe else 1]).unlink(missing_ok=True)  # a file of the other form would now be out of date
    if safe:
        save_file(tensors, directory / names[1])
    else:
        torch.save(tensors, directory / names[2])
    about = {
        "hidden_size": hidden_size(base),
        "model_class": type(base).__name__,
        "model_name": base.name_or_path,
        "model_type": base.config.model_type,
        "version": VERSION,
    }
    write_json(directory / names[0], given | about)
