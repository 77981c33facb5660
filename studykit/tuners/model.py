"""The PEFT tuner over the plain modules: puts a `CompositionLayer` at every site of an unchanged model.

An adapter is a bottleneck, or a composition whose config names its members, or a folded fusion; `set_adapter(name)`
makes exactly that one trainable.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from studykit.tuners.bottleneck import Bottleneck, bottleneck_width
from studykit.tuners.config import BottleneckConfig, FoldedConfig, FusionConfig, check_name
from studykit.tuners.folded import FoldedFusion
from studykit.tuners.fusion import MASK_MODES, Fusion, ScalarMix
from studykit.tuners.layer import UNMERGEABLE, CompositionLayer, FusionRecording, fuses
from studykit.tuners.phm import new_rule
from studykit.tuners.placement import locate

ATTRIBUTE = "composition"


class CompositionModel(BaseTuner):
    """The tuner that PEFT instantiates for the configurations of `config`."""

    prefix = "mix_"  # must hold neither a language's name nor `fusion`: PEFT warns of adapters named like a part of it
    tuner_layer_cls = CompositionLayer
    target_module_mapping: dict[str, list[str]] = {}

    def _pre_injection_hook(self, model: nn.Module, config: PeftConfig, adapter_name: str) -> None:
        self.__dict__.setdefault("_rules", {})  # adapter -> the rule that all its PHM layers share

    def _check_new_adapter_config(self, config: PeftConfig) -> None:
        super()._check_new_adapter_config(config)
        for name in self.peft_config:
            check_name(name)

    def _prepare_adapter_config(self, config: PeftConfig, model_config: dict) -> PeftConfig:
        if isinstance(config, FusionConfig):
            first = self._fusable(config)
            config.target_modules = first.target_modules
        return config

    def _fusable(self, config: FusionConfig) -> BottleneckConfig:
        """The config of the first member; ValueError, with the reason, if the members cannot be fused."""
        held = {name: c for name, c in self.peft_config.items() if isinstance(c, BottleneckConfig)}
        if missing := [member for member in config.members if member not in held]:
            raise ValueError(f"The fusion needs adapters {missing}, but the model holds {list(held)}.")
        first = held[config.members[0]]
        for member in config.members[1:]:
            if held[member].place != first.place:
                places = f"{config.members[0]!r} at {first.place!r}, {member!r} at {held[member].place!r}"
                raise ValueError(f"Only adapters of one place can be fused, but {places}.")
            if held[member].target_modules != first.target_modules:
                modules = f"{first.target_modules} and {held[member].target_modules}"
                raise ValueError(f"{config.members[0]!r} and {member!r} adapt different modules: {modules}.")
        return first

    def _create_and_replace(self, config, adapter_name, target, target_name, parent, current_key, **kwargs) -> None:
        place = self._fusable(config).place if isinstance(config, FusionConfig) else config.place
        at, (inputs, outputs) = locate(current_key, place), self._widths(target, place)
        layer = getattr(target, ATTRIBUTE, None)
        if layer is None:
            layer = CompositionLayer(target, at)
            setattr(target, ATTRIBUTE, layer)
        if isinstance(config, FoldedConfig):
            module = FoldedFusion(inputs, outputs, config.widths, config.activations, config.temperature)
            layer.add(adapter_name, module, place, at, config.folded)
        elif isinstance(config, FusionConfig):
            if config.kind == "attention":
                module = Fusion(inputs, outputs, config.value, config.rank, config.temperature, config.dropout)
            else:
                module = ScalarMix(len(config.members), learned=config.kind == "scalar_mix")
            layer.add(adapter_name, module, place, at, config.members)
        else:
            layer.add(adapter_name, self._bottleneck(config, adapter_name, inputs, outputs), place, at)

    def _widths(self, target: nn.Module, place: str) -> tuple[int, int]:
        """(d_in, d_out) of an adapter at a site."""
        if place == "linear":
            return target.in_features, target.out_features
        hidden_size = self.model.config.get_text_config().hidden_size
        return hidden_size, hidden_size

    def _bottleneck(self, config: BottleneckConfig, name: str, inputs: int, outputs: int) -> Bottleneck:
        phm = None
        if config.phm_dim is not None:

            def rule(std: float) -> list[nn.Parameter]:
                return new_rule(config.phm_dim, config.phm_rule_rank, std)

            if config.phm_shared_rule:
                shared = self._rules.setdefault(name, rule(1e-4))
                rules = (shared, shared)
            else:
                rules = (rule(0.01), rule(0.01))
            phm = {"n": config.phm_dim, "rank": config.phm_rank, "rules": rules}
        width = config.rank or bottleneck_width(inputs, config.reduction_factor)
        return Bottleneck(
            inputs, outputs, width, config.activation, config.scaling, config.dropout, config.biased, config.init, phm
        )

    def fold_fusion(self, name: str | None = None) -> list[str]:
        """Folds an attention fusion, the active one by default, with its members: exactly the same function, for
        inference, without any d^2 product. Until `unfold_fusion()` or `train()`. Returns what was folded; compositions
        without attention have nothing to fold."""
        folded: set[str] = set()
        for layer in composition_layers(self):
            for fusion in [name] if name else layer.active_adapters:
                if fuses(layer.fusions[fusion]) if fusion in layer.fusions else False:
                    layer.fold(fusion)
                    folded.add(fusion)
        if name and not folded:
            raise ValueError(f"{name!r} is no attention fusion of this model; it cannot be folded.")
        return sorted(folded)

    def unfold_fusion(self) -> None:
        """Let the fusions themselves answer again."""
        for layer in composition_layers(self):
            layer.unfold()

    def delete_adapter(self, adapter_name: str) -> None:
        users = [name for name, config in self.peft_config.items() if adapter_name in getattr(config, "members", ())]
        if users:
            raise ValueError(f"Adapter {adapter_name!r} is a member of fusion {users[0]!r}; delete the fusion first.")
        super().delete_adapter(adapter_name)
        self._rules.pop(adapter_name, None)  # another adapter of this name must not inherit it

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        for kind in CompositionLayer.adapter_layer_names:
            key = key.replace(f"{ATTRIBUTE}.{kind}.{adapter_name}.", f"{ATTRIBUTE}.{kind}.", 1)
        return key

    def _unload_and_optionally_merge(self, merge: bool = True, **kwargs) -> nn.Module:
        if merge:
            raise ValueError(UNMERGEABLE)
        for module in list(self.model.modules()):
            layer = getattr(module, ATTRIBUTE, None)
            if isinstance(layer, CompositionLayer):
                layer.remove()
                delattr(module, ATTRIBUTE)
        if hasattr(self.model, "peft_config"):  # PEFT would take its adapters for ones that the model still has
            del self.model.peft_config
        return self.model


def save_folded(model: nn.Module, directory: str | Path, name: str = "folded") -> None:
    """Writes the active fusion, folded with its members, to `directory/name`: an adapter that needs no other."""
    active = active_fusions(model)
    if not active or not all(fuses(layer.fusions[fusion]) for layer, fusion in active):
        raise ValueError("No attention fusion is active; call set_adapter with the name of one first.")
    stack, (layer, fusion) = active[0][0].stack(active[0][1]), active[0]
    if any(at.stack(name).widths != stack.widths for at, name in active):
        raise ValueError("The members' widths differ from site to site; such a fusion cannot be saved folded.")
    config = FoldedConfig(
        folded=layer.members[fusion],
        widths=stack.widths,
        activations=stack.activations,
        place=layer.places[fusion],
        temperature=layer.fusions[fusion].temperature,
        target_modules=model.peft_config[fusion].target_modules,
        task_type=model.peft_config[fusion].task_type,
    )
    model.add_adapter(name, config)
    try:
        for layer, fusion in active:
            folded = FoldedFusion.of(layer.fusions[fusion], layer.stack(fusion))
            layer.fusions[name].load_state_dict(folded.state_dict())
        model.save_pretrained(directory, selected_adapters=[name])
    finally:
        model.delete_adapter(name)


def composition_layers(model: nn.Module) -> list[CompositionLayer]:
    """All composition layers, in the order of the decoder layers and, within one, of the forward pass."""
    layers = [module for module in model.modules() if isinstance(module, CompositionLayer)]
    return sorted(layers, key=lambda layer: layer.at)


def fusion_layers(model: nn.Module) -> list[CompositionLayer]:
    """The composition layers that hold a fusion, in order."""
    return [layer for layer in composition_layers(model) if layer.fusions]


def active_fusions(model: nn.Module) -> list[tuple[CompositionLayer, str]]:
    return [(at, name) for at in fusion_layers(model) for name in at.active_adapters if name in at.fusions]


def fusion_members(model: nn.Module, masked: list[str] | tuple[str, ...] = (), mode: str = "zero") -> list[str]:
    """Masks members of the active fusion at every site, without touching a weight; `masked=[]` restores all.

    Phase 1 of AdvFusion is `masked=[target]`, phase 2 is `masked=[]`.

    Args:
        masked: names of the members to mask.
        mode: `zero` (the authors': the slot stays in the softmax with output 0) or `exclude` (attention exactly 0).

    Returns: the names of all members, in order.
    Raises: ValueError for an unknown mode or member, no active fusion, or if every member would be excluded.
    """
    if mode not in MASK_MODES:
        raise ValueError(f"mode={mode!r} is unknown; accepted are {list(MASK_MODES)}.")
    if not (active := active_fusions(model)):
        raise ValueError("No fusion is active; call set_adapter with the name of a fusion first.")
    for layer, name in active:
        members = layer.members[name]
        unknown = [member for member in masked if member not in members]
        if unknown:
            raise ValueError(f"masked={unknown} is no member of fusion {name!r}; its members are {members}.")
        if mode == "exclude" and set(masked) == set(members):
            raise ValueError(f"masked={list(masked)} would exclude all members of fusion {name!r}; leave at least one.")
        layer.masked[name] = (tuple(members.index(member) for member in masked), mode)
    return members


def value_penalty(model: nn.Module) -> Tensor:
    """Sum over sites of ||W_v - I||_F^2 of the active fusion: the regulariser without its factor, a scalar."""
    return torch.stack([layer.fusions[name].value_penalty() for layer, name in active_fusions(model)]).sum()


@contextmanager
def record_fusion(model: nn.Module) -> Iterator[FusionRecording]:
    """Within the context, every forward pass overwrites the recording with its fusion weights."""
    active = active_fusions(model)
    names = {name for _, name in active}
    if len(names) != 1:
        raise ValueError(f"Recording needs exactly one active fusion, but {sorted(names)} are active.")
    recording = FusionRecording(members=active[0][0].members[names.pop()])
    for layer, _ in active:
        layer.record = recording
    try:
        yield recording
    finally:
        for layer, _ in active:
            layer.record = None
