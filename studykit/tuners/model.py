"""The PEFT tuner over the plain modules: puts a `CompositionLayer` at every site of an unchanged model.

An adapter is a bottleneck, or a composition whose configuration names its members, or a folded fusion;
`set_adapter(name)` makes exactly that one trainable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from studykit.tuners.bottleneck import Bottleneck, PHMSettings, bottleneck_width
from studykit.tuners.config import BottleneckConfig, FoldedConfig, FusionConfig, check_name
from studykit.tuners.folded import FoldedFusion
from studykit.tuners.fusion import MASK_MODES, Fusion, ScalarMix
from studykit.tuners.layer import UNMERGEABLE, CompositionLayer, PassWeights, can_fold
from studykit.tuners.phm import new_rule
from studykit.tuners.placement import PLACES, Site, site_of, targets_in

ATTRIBUTE = "composition"  # name of the submodule that a site's module gets


class CompositionModel(BaseTuner):
    """The tuner that PEFT instantiates for the configurations of `config`."""

    # PEFT warns of adapters whose name occurs in the prefix, so it holds neither a language's name nor `fusion`.
    prefix = "mix_"
    tuner_layer_cls = CompositionLayer
    target_module_mapping: dict[str, list[str]] = {}

    def _pre_injection_hook(self, model: nn.Module, config: PeftConfig, adapter_name: str) -> None:
        self.__dict__.setdefault("_rules", {})  # adapter -> the rule that all its PHM layers share

    def _check_new_adapter_config(self, config: PeftConfig) -> None:
        super()._check_new_adapter_config(config)
        for name in self.peft_config:
            check_name(name)
        if isinstance(config, BottleneckConfig):
            self._check_sites(config)

    def _check_sites(self, config: BottleneckConfig) -> None:
        """Raises ValueError, with the modules or layers, unless each asked layer has each place of an adapter once.

        Encoders of images and sound have layers of their own; experts and recurrent layers lack a place of `houlsby`.
        """
        modules: dict[Site, str] = {}
        for name, _ in self.model.named_modules():
            if re.fullmatch(str(config.target_modules), name) and re.search(r"layers\.\d+", name):
                site = site_of(name, config.placement)
                if (first := modules.setdefault(site, name)) != name:
                    raise ValueError(
                        f"{first} and {name} are both layer {site.layer} of a {type(self.model).__name__}; an adapter "
                        "needs a target_modules that matches one stack of layers."
                    )
        layers = config.layers_to_transform
        if config.target_modules != targets_in(config.placement, layers):
            return  # the caller's own choice of modules
        asked = range(self.model.config.get_text_config().num_hidden_layers) if layers is None else layers
        for place in PLACES[config.placement]:
            if lacking := [index for index in asked if Site(index, place) not in modules]:
                raise ValueError(
                    f"The layers {lacking} of this {type(self.model).__name__} have no module for the place {place!r} "
                    f"of {config.placement!r} adapters; another placement or the target_modules to adapt are needed."
                )

    def _prepare_adapter_config(self, config: PeftConfig, model_config: dict) -> PeftConfig:
        if isinstance(config, FusionConfig):
            config.target_modules = self._member_config(config).target_modules
            if config.rank == "match":
                config.rank = self._matched_rank(config)
        return config

    def _matched_rank(self, config: FusionConfig) -> int:
        """Returns the rank at which a fusion has as many parameters as its first member, as nearly as ranks allow.

        A site with inputs of width d_in and outputs of width d_out has d_in + d_out + 2 of them per rank for query and
        key, and 2 d_out for the value.
        """
        name, placement = config.members[0], self._member_config(config).placement
        layers = [layer for layer in composition_layers(self.model) if name in layer.adapters]
        member = nn.ModuleList(layer.adapters[name] for layer in layers)
        widths = [self._widths(layer.get_base_layer(), placement) for layer in layers]
        per_rank = sum(inputs + outputs + 2 + 2 * outputs * config.value for inputs, outputs in widths)
        return max(1, round(sum(p.numel() for p in member.parameters()) / per_rank))

    def _member_config(self, config: FusionConfig) -> BottleneckConfig:
        """Returns the configuration of the first member; raises ValueError if the members cannot be fused."""
        adapters = {name: c for name, c in self.peft_config.items() if isinstance(c, BottleneckConfig)}
        if missing := [member for member in config.members if member not in adapters]:
            raise ValueError(f"The fusion needs adapters {missing}, but the model holds {list(adapters)}.")
        name, *others = config.members
        first = adapters[name]
        for other in others:
            if adapters[other].placement != first.placement:
                placements = f"{name!r} is at {first.placement!r}, {other!r} at {adapters[other].placement!r}"
                raise ValueError(f"Only adapters of one placement can be fused, but {placements}.")
            if adapters[other].target_modules != first.target_modules:
                modules = f"{first.target_modules} and {adapters[other].target_modules}"
                raise ValueError(f"{name!r} and {other!r} adapt different modules: {modules}.")
        if config.heads and any(
            adapters[name].activation != "identity" or adapters[name].biased for name in config.members
        ):
            raise ValueError("kind='mhr' weighs parts of its members' input, so all of them must be LoRAs.")
        return first

    def _create_and_replace(self, config, adapter_name, target, target_name, parent, current_key, **kwargs) -> None:  # type: ignore[override]
        placement = (self._member_config(config) if isinstance(config, FusionConfig) else config).placement
        site, (inputs, outputs) = site_of(current_key, placement), self._widths(target, placement)
        layer = getattr(target, ATTRIBUTE, None)
        if layer is None:
            layer = CompositionLayer(target, site)
            setattr(target, ATTRIBUTE, layer)
        members: list[str] | None = None
        module: nn.Module
        if isinstance(config, FoldedConfig):
            members = config.folded
            shape = inputs, outputs, config.widths, config.activations
            module = FoldedFusion(*shape, config.temperature, config.query_norm)
        elif isinstance(config, FusionConfig):
            members = config.members
            if config.kind == "attention":
                scores = config.temperature, config.dropout, config.scores
                module = Fusion(inputs, outputs, config.value, cast(int | None, config.rank), *scores)
            else:
                if config.heads and inputs % config.heads:
                    raise ValueError(f"heads={config.heads} does not divide the {inputs} inputs of the members evenly.")
                module = ScalarMix(len(members), learned=config.kind != "average", heads=config.heads)
        else:
            module = self._bottleneck(config, adapter_name, inputs, outputs)
        layer.update_layer(adapter_name, module, placement, site, members)

    def _widths(self, target: Any, placement: str) -> tuple[int, int]:
        """Returns (d_in, d_out) of an adapter at a site."""
        if placement == "linear":
            return target.in_features, target.out_features
        hidden_size = self.model.config.get_text_config().hidden_size
        return hidden_size, hidden_size

    def _bottleneck(self, config: BottleneckConfig, name: str, inputs: int, outputs: int) -> Bottleneck:
        phm = None
        if (n := config.phm_dim) is not None:

            def rule(std: float) -> list[nn.Parameter]:
                return new_rule(n, config.phm_rule_rank, std)

            if config.phm_shared_rule:
                shared = self._rules.setdefault(name, rule(1e-4))
                phm = PHMSettings(n, config.phm_rank, shared, shared)
            else:
                phm = PHMSettings(n, config.phm_rank, rule(0.01), rule(0.01))
        return Bottleneck(
            inputs,
            outputs,
            config.rank or bottleneck_width(inputs, config.reduction_factor),
            config.activation,
            config.scaling,
            config.dropout,
            config.biased,
            config.init,
            phm,
        )

    @contextmanager
    def _enable_peft_forward_hooks(self, *args, adapter_names: Sequence[str] | None = None, **kwargs) -> Iterator[None]:
        """Raises ValueError for a batch with an adapter per row, which PEFT would ignore for this tuner."""
        if adapter_names is not None:
            raise ValueError(
                f"adapter_names={list(adapter_names)} asks for an adapter per row; call set_adapter, then run each "
                "adapter's rows as a batch of their own."
            )
        yield

    def fold_fusion(self, name: str | None = None) -> list[str]:
        """Folds an attention fusion with its members until `unfold_fusion()` or `train()`.

        The folded form is the same function without any d^2 product, for inference.

        Args:
            name: the fusion; None: the active one.
        Returns: the names of the folded fusions. Compositions without attention have nothing to fold.
        Raises: ValueError if the named fusion is not an attention fusion.
        """
        folded: set[str] = set()
        for layer in composition_layers(self):
            for fusion in [name] if name else layer.active_adapters:
                if fusion in layer.fusions and can_fold(layer.fusions[fusion]):
                    layer.fold(fusion)
                    folded.add(fusion)
        if name and not folded:
            raise ValueError(f"{name!r} is not an attention fusion of this model; it cannot be folded.")
        return sorted(folded)

    def unfold_fusion(self) -> None:
        """Lets the fusions themselves compute again."""
        for layer in composition_layers(self):
            layer.unfold()

    def delete_adapter(self, adapter_name: str) -> None:
        """Deletes an adapter or a composition; raises ValueError for a member of a fusion that the model holds."""
        fusions = [name for name, config in self.peft_config.items() if adapter_name in getattr(config, "members", ())]
        if fusions:
            raise ValueError(f"Adapter {adapter_name!r} is a member of fusion {fusions[0]!r}; delete the fusion first.")
        super().delete_adapter(adapter_name)
        self._rules.pop(adapter_name, None)  # another adapter of this name must not inherit it

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        for kind in CompositionLayer.adapter_layer_names:
            key = key.replace(f"{ATTRIBUTE}.{kind}.{adapter_name}.", f"{ATTRIBUTE}.{kind}.", 1)
        return key

    def _unload_and_optionally_merge(self, merge: bool = True, **kwargs) -> nn.Module:  # type: ignore[override]
        if merge:
            raise ValueError(UNMERGEABLE)
        for module in list(self.model.modules()):
            layer = getattr(module, ATTRIBUTE, None)
            if isinstance(layer, CompositionLayer):
                layer.remove_hooks()
                delattr(module, ATTRIBUTE)
        if hasattr(self.model, "peft_config"):  # PEFT would think that the model still had these adapters
            del self.model.peft_config
        return self.model


def save_folded(model: PeftModel, directory: str | Path, name: str = "folded") -> None:
    """Writes the active fusion, folded with its members, to `directory/name`: an adapter that needs no other.

    Raises ValueError if no attention fusion is active, or if its members' widths differ from site to site.
    """
    active = active_fusions(model)
    if not active or not all(can_fold(layer.fusions[fusion]) for layer, fusion in active):
        raise ValueError("No attention fusion is active; call set_adapter with the name of one first.")
    first, fusion = active[0]
    stack, attention = first.stack(fusion), cast(Fusion, first.fusions[fusion])
    if any(layer.stack(fusion).widths != stack.widths for layer, fusion in active):
        raise ValueError("The members' widths differ from site to site; such a fusion cannot be saved folded.")
    settings = cast(FusionConfig, model.peft_config[fusion])
    config = FoldedConfig(
        folded=first.members[fusion],
        widths=stack.widths,
        activations=stack.activations,
        placement=first.placements[fusion],
        temperature=attention.divisor,
        query_norm=attention.scores == "query_norm",
        target_modules=settings.target_modules,
        task_type=settings.task_type,
    )
    model.add_adapter(name, config)
    try:
        for layer, fusion in active:
            folded = FoldedFusion.from_fusion(cast(Fusion, layer.fusions[fusion]), layer.stack(fusion))
            layer.fusions[name].load_state_dict(folded.state_dict())
        model.save_pretrained(str(directory), selected_adapters=[name])
    finally:
        model.delete_adapter(name)


def composition_layers(model: nn.Module) -> list[CompositionLayer]:
    """Returns all composition layers, in the order of the decoder layers and, within one, of the forward pass."""
    layers = [module for module in model.modules() if isinstance(module, CompositionLayer)]
    return sorted(layers, key=lambda layer: layer.site)


def fusion_layers(model: nn.Module) -> list[CompositionLayer]:
    """Returns the composition layers that hold a fusion, in order."""
    return [layer for layer in composition_layers(model) if layer.fusions]


def active_fusions(model: nn.Module) -> list[tuple[CompositionLayer, str]]:
    """Returns the layers with an active fusion and the fusion's name, in order."""
    return [(layer, name) for layer in fusion_layers(model) for name in layer.active_adapters if name in layer.fusions]


def fusion_members(model: nn.Module, masked: Sequence[str] = (), mode: str = "zero") -> list[str]:
    """Masks members of the active fusion at every site, without touching a weight, and returns all members.

    Phase 1 of AdvFusion is `masked=[target]`, phase 2 is `masked=[]`, which restores all members.

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
        if unknown := [member for member in masked if member not in members]:
            raise ValueError(
                f"masked names {unknown[0]!r}, which is not a member of fusion {name!r}; its members are {members}."
            )
        if mode == "exclude" and set(masked) == set(members):
            raise ValueError(f"masked={list(masked)} would exclude all members of fusion {name!r}; leave at least one.")
        layer.masked[name] = (tuple(members.index(member) for member in masked), mode)
    return members


def set_temperature(model: PeftModel, temperature: float) -> None:
    """Sets the constant that divides the scores of the active attention fusion, in all layers and its configuration."""
    for layer, name in active_fusions(model):
        cast(Fusion, layer.fusions[name]).temperature = temperature
        cast(FusionConfig, model.peft_config[name]).temperature = temperature
        layer.unfold()


def value_deviation(model: nn.Module) -> Tensor:
    """Returns sum_l ||W_v - I||_F^2 over the sites of the active fusion, a scalar.

    The value penalty of a training is this times `value_regularizer`.
    """
    fusions = [cast(Fusion, layer.fusions[name]) for layer, name in active_fusions(model)]
    return torch.stack([fusion.value_deviation() for fusion in fusions]).sum()


@contextmanager
def record_fusion(model: nn.Module) -> Iterator[PassWeights]:
    """Records the fusion weights of the last forward pass within the context.

        with torch.no_grad(), record_fusion(model) as last_pass:
            model(input_ids)
        alpha = last_pass.weights[(0, "output")]  # (B, T, N)

    Raises ValueError unless exactly one fusion is active.
    """
    active = active_fusions(model)
    names = {name for _, name in active}
    if len(names) != 1:
        raise ValueError(f"Recording needs exactly one active fusion, but {sorted(names)} are active.")
    last_pass = PassWeights(members=active[0][0].members[names.pop()])
    for layer, _ in active:
        layer.pass_weights = last_pass
    try:
        yield last_pass
    finally:
        for layer, _ in active:
            layer.pass_weights = None
