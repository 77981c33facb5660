"""Adapters, fusions and setups in the files of the `adapters` library (AdapterHub), read and written.

The library is that of Poth et al. 2023 (arXiv 2311.11077). A directory holds one of three things:

| thing   | configuration              | tensors, as safetensors or as pickled .bin                         |
|---------|----------------------------|--------------------------------------------------------------------|
| adapter | adapter_config.json        | adapter.safetensors, pytorch_adapter.bin                           |
| fusion  | adapter_fusion_config.json | model_adapter_fusion.safetensors, pytorch_model_adapter_fusion.bin |
| setup   | adapter_setup.json         | one directory per adapter, one for the fusion                      |

What the tuner does not compute is refused, never approximated. What a file says beyond our configuration is kept beside
it, so reading and writing gives the same fields and the same bits.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

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
    fusion_config,
    fusion_fields,
    named,
    naming,
    origin,
    read_json,
    read_tensors,
    trust_tensors,
    write_json,
)
from studykit.tuners.bottleneck import Bottleneck, bottleneck_width
from studykit.tuners.config import BottleneckConfig, FusionConfig
from studykit.tuners.model import composition_layers
from studykit.tuners.phm import new_rule
from studykit.tuners.placement import TARGETS, locate

Config = BottleneckConfig | FusionConfig
Read = tuple[Config, dict[str, Tensor]]  # tensors by the library's names without `model.`


def load_adapter(model: nn.Module, directory: str | Path, name: str | None = None) -> PeftModel:
    """The model with the library's adapter as a frozen adapter of ours; `set_adapter` makes it trainable.

    Args:
        model: a transformers model, or one that already holds adapters of ours.
        directory: what the library's `save_adapter` wrote; a head in it is ignored.
        name: None for the one in the file.
    Raises: ValueError, with the model unchanged, if a file is damaged, does not fit the model, or holds something that
        the tuner does not compute.
    """
    read = read_adapter(base_of(model), Path(directory))
    return add(model, read, name or read[0].origin.label, Path(directory))


def load_fusion(model: nn.Module, directory: str | Path, name: str = "fusion") -> PeftModel:
    """As `load_adapter`, of what `save_adapter_fusion` wrote; the model must hold the members, by their names."""
    held = model.peft_config if isinstance(model, PeftModel) else {}
    return add(model, read_fusion(base_of(model), Path(directory), held), name, Path(directory))


def load_setup(model: nn.Module, directory: str | Path, name: str = "fusion") -> PeftModel:
    """As `load_adapter`, of what `save_adapter_setup` wrote of a Fuse(...): members and a fusion, which is active."""
    directory, base = Path(directory), base_of(model)
    members = read_setup(directory / SETUP)
    read = {member: read_adapter(base, directory / member) for member in members}
    parts = sorted(path.parent for path in directory.glob(f"*/{FUSION[0]}"))
    if len(parts) != 1:
        raise ValueError(f"{directory} holds {len(parts)} directories with {FUSION[0]}; accepted is one.")
    fusion = read_fusion(base, parts[0], {member: config for member, (config, _) in read.items()})
    if fusion[0].members != members:
        raise ValueError(f"{parts[0]} fuses {fusion[0].members}, but {directory / SETUP} names {members}.")
    if len({*members, name}) <= len(members):
        raise ValueError(f"{directory}: the names {[*members, name]}, of members and fusion, must all differ.")
    for new in (*members, name):
        check_free(model, new, directory)
    for member in members:
        model = add(model, read[member], member, directory / member)
    model = add(model, fusion, name, parts[0])
    model.set_adapter(name)
    return model


def save_adapter(model: PeftModel, directory: str | Path, name: str, safe: bool = True) -> None:
    """Writes an adapter as the library's `save_adapter` does, without a head; `safe=False` writes a .bin.

    Raises: ValueError if there is no such adapter, or the library cannot compute it.
    """
    config, base = held(model, name, BottleneckConfig), base_of(model)
    fields = bottleneck_fields(name, config, hidden_size(base))
    if sorted(layer.sites[name] for layer in composition_layers(model) if name in layer.adapters) != sites(
        base, config.place
    ):
        raise ValueError(f"{name!r} is not in every layer, which the adapters library's files cannot say here.")
    given = {"name": name, "config": fields}
    write(base, Path(directory), ADAPTER, given, parameters_of(model, name, name), config, safe)


def save_fusion(model: PeftModel, directory: str | Path, name: str, safe: bool = True) -> None:
    """As `save_adapter`, of a fusion; its members are not written."""
    config, base = held(model, name, FusionConfig), base_of(model)
    check_fusable(name, model.peft_config[config.members[0]])
    fields, label = fusion_fields(name, config, default_dropout(base)), label_of(config)
    given = {"name": label, "adapter_names": list(config.members), "config": fields}
    write(base, Path(directory), FUSION, given, parameters_of(model, name, label), config, safe)


def save_setup(model: PeftModel, directory: str | Path, name: str, safe: bool = True) -> None:
    """As `save_adapter`, of a fusion with its members, as the library writes Fuse(...)."""
    directory, config = Path(directory), held(model, name, FusionConfig)
    save_fusion(model, directory / label_of(config), name, safe)
    for member in config.members:
        save_adapter(model, directory / member, member, safe)
    setup = {"type": "Fuse", "children": [{"type": "single", "children": [member]} for member in config.members]}
    write_json(directory / SETUP, {"adapter_setup": setup, "head_setup": None, "version": VERSION}, sort_keys=False)


def read_setup(path: Path) -> list[str]:
    """The members' names, which are also those of directories."""
    given = read_json(path)
    setup = given.get("adapter_setup")
    try:
        kinds = [setup["type"], *(child["type"] for child in setup["children"])]
        members = [named(path, member) for child in setup["children"] for member in child["children"]]
    except (TypeError, KeyError):
        kinds, members = [], []
    if not members or kinds != ["Fuse"] + ["single"] * len(members):
        raise ValueError(f"{path}: adapter_setup={setup!r} is not supported; accepted is a Fuse of single adapters.")
    if given.get("head_setup"):
        warnings.warn(f"{path}: the setup of a head is ignored.", stacklevel=3)
    return members


def read_adapter(base: nn.Module, directory: Path) -> Read:
    path = directory / ADAPTER[0]
    given = read_json(path)
    if "peft_type" in given:
        raise ValueError(f"{path} is of PEFT (peft_type={given['peft_type']!r}), not of the adapters library.")
    said, label = given.get("config"), given.get("name")
    if not isinstance(said, dict) or not isinstance(label, str):
        raise ValueError(f"{path} needs `name` and a nested `config`, as the adapters library writes them.")
    if said.get("architecture") is not None:
        kind = said["architecture"]
        raise ValueError(f"{path}: architecture={kind!r} is not supported; accepted is a bottleneck adapter (null).")
    check_width(path, given, base)
    tensors, tensor_path = read_tensors(directory, ADAPTER)
    fields = trust_tensors(path, said, tensors)
    with naming(path):
        config = bottleneck_config(path, fields, len(sites(base, "output")), given.get("version"))
        expected = adapter_shapes(base, config, label)
    if heads := [name for name in HEADS if (directory / name).exists()]:
        warnings.warn(f"{directory}: the files of a head, {heads}, are ignored.", stacklevel=3)
    config.origin = Origin(said, label, check_fit(tensor_path, tensors, expected))
    return config, tensors


def read_fusion(base: nn.Module, directory: Path, configs: dict[str, Config]) -> Read:
    """`configs` are those of adapters that its members may be."""
    path = directory / FUSION[0]
    given = read_json(path)
    label, members = given.get("name"), given.get("adapter_names")
    if members is None and isinstance(label, str):
        members = label.split(",")  # files older than the field
    if not isinstance(members, list) or not all(isinstance(name, str) for name in (*members, label or "")):
        raise ValueError(f"{path} needs the members' names in `adapter_names`, or in `name` with commas.")
    label = ",".join(members) if label is None else named(path, label, commas=True)
    check_width(path, given, base)
    with naming(path):
        config = fusion_config(path, given.get("config"), members, default_dropout(base))
    adapters = [name for name, config in configs.items() if isinstance(config, BottleneckConfig)]
    if missing := [member for member in members if member not in adapters]:
        raise ValueError(f"{path}: the fusion needs adapters {missing}, but the model holds {adapters}.")
    place = check_fusable(path, configs[members[0]])
    tensors, tensor_path = read_tensors(directory, FUSION)
    others = re.compile(rf".*\.adapter_fusion_layer\.(?!{re.escape(label)}\.)")  # written by the library by mistake
    tensors = {key: tensor for key, tensor in tensors.items() if not others.match(key)}
    d = hidden_size(base)
    shapes = {"query.weight": (d, d), "query.bias": (d,), "key.weight": (d, d), "key.bias": (d,)}
    shapes |= {"value.weight": (d, d)} if config.value else {}
    expected = {fusion_key(at, label, part): s for at in sites(base, place) for part, s in shapes.items()}
    config.origin.label, config.origin.dtype = label, check_fit(tensor_path, tensors, expected)
    return config, tensors


@torch.no_grad()
def add(model: nn.Module, read: Read, name: str, directory: Path) -> PeftModel:
    check_free(model, name, directory)
    config, tensors = read
    config.task_type = "CAUSAL_LM" if base_of(model).can_generate() else None
    with naming(directory):  # such as members of several places
        if isinstance(model, PeftModel):
            model.add_adapter(name, config)
        else:
            model = get_peft_model(model, config, adapter_name=name)
    for key, parameter in parameters_of(model, name, config.origin.label).items():
        parameter.copy_(tensors[key])
        parameter.requires_grad_(False)
    return model


def check_free(model: nn.Module, name: str, directory: Path) -> None:
    if named(directory, name) in getattr(model, "peft_config", {}):
        raise ValueError(f"{directory}: the model already holds an adapter {name!r}; give another name.")


def check_fusable(fusion: Path | str, member: BottleneckConfig) -> str:
    """The members' place. In a fusion of parallel adapters the library adds the residual stream a second time."""
    if member.place not in ("output", "houlsby"):
        fused = f"fuses adapters at {member.place!r}, which the adapters library computes otherwise"
        raise ValueError(f"{fusion} {fused}; accepted are members at 'output' or 'houlsby'.")
    return member.place


def check_width(path: Path, given: dict, base: nn.Module) -> None:
    if given.get("hidden_size", hidden_size(base)) != hidden_size(base):
        raise ValueError(
            f"{path}: hidden_size={given['hidden_size']!r} does not fit; the model has {hidden_size(base)}."
        )


def base_of(model: nn.Module) -> nn.Module:
    return model.get_base_model() if isinstance(model, PeftModel) else model


def hidden_size(base: nn.Module) -> int:
    return base.config.get_text_config().hidden_size


def default_dropout(base: nn.Module) -> float:
    """Of the scores, where a fusion names none."""
    return getattr(base.config, "attention_probs_dropout_prob", 0.0)


def sites(base: nn.Module, place: str) -> list[tuple[int, str]]:
    return sorted(locate(key, place) for key, _ in base.named_modules() if re.fullmatch(TARGETS[place], key))


def group(layer: int, site: str) -> str:
    return f"layers.{layer}.{'attention' if site == 'attention' else 'output'}_adapters"


def adapter_key(at: tuple[int, str], label: str, part: str, config: BottleneckConfig) -> str:
    """The library's name, without `model.`, of what `Bottleneck` calls `part`."""
    module, _, tensor = part.partition(".")
    if config.phm_shared_rule and tensor.startswith("phm_rule"):
        return f"shared_parameters.{label}.{tensor}"
    if config.phm_dim is not None and tensor == "bias":
        tensor = "b"
    return f"{group(*at)}.adapters.{label}.adapter_{'down.0' if module == 'down' else 'up'}.{tensor}"


def fusion_key(at: tuple[int, str], label: str, part: str) -> str:
    return f"{group(*at)}.adapter_fusion_layer.{label}.{part}"


def parameters_of(model: PeftModel, name: str, label: str) -> dict[str, nn.Parameter]:
    """Those of an adapter or a fusion, by the library's names, without `model.`, of one that it calls `label`."""
    found = {}
    for layer in composition_layers(model):
        if name in layer.adapters:
            for part, parameter in layer.adapters[name].named_parameters(remove_duplicate=False):
                found[adapter_key(layer.sites[name], label, part, model.peft_config[name])] = parameter
        elif name in layer.fusions:
            for part, parameter in layer.fusions[name].named_parameters():
                found[fusion_key(layer.sites[name], label, part)] = parameter
    return found


def adapter_shapes(base: nn.Module, config: BottleneckConfig, label: str) -> dict[str, tuple]:
    d, phm = hidden_size(base), None
    with torch.device("meta"):
        if config.phm_dim is not None:
            rule = new_rule(config.phm_dim, config.phm_rule_rank)
            phm = {"n": config.phm_dim, "rank": config.phm_rank, "rules": (rule, rule)}
        module = Bottleneck(d, d, bottleneck_width(d, config.reduction_factor), phm=phm)
    shapes = {part: tuple(p.shape) for part, p in module.named_parameters(remove_duplicate=False)}
    return {
        adapter_key(at, label, part, config): shape
        for at in sites(base, config.place)
        for part, shape in shapes.items()
    }


def label_of(config: FusionConfig) -> str:
    return origin(config).label or ",".join(config.members)


def held(model: PeftModel, name: str, kind: type) -> Any:
    config = model.peft_config.get(name)
    if not isinstance(config, kind):
        names = [other for other, config in model.peft_config.items() if isinstance(config, kind)]
        raise ValueError(f"The model holds no {kind.__name__.removesuffix('Config').lower()} {name!r}, but {names}.")
    return config


def write(base: nn.Module, directory: Path, names: tuple, given: dict, parameters: dict, config: Config, safe: bool):
    if (directory / names[0]).exists() and "peft_type" in read_json(directory / names[0]):
        raise ValueError(f"{directory} holds an adapter of PEFT, whose {names[0]} would be overwritten.")
    prefix, dtype = "model." if hasattr(base, "model") else "", origin(config).dtype
    tensors = {prefix + key: parameter.detach().cpu().clone() for key, parameter in parameters.items()}
    if all(torch.equal(tensor.to(dtype).to(tensor.dtype), tensor) for tensor in tensors.values()):
        tensors = {key: tensor.to(dtype) for key, tensor in tensors.items()}  # as read, unless it was trained since
    directory.mkdir(parents=True, exist_ok=True)
    (directory / names[2 if safe else 1]).unlink(missing_ok=True)  # the other form, out of date from now on
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
