"""The PEFT tuner over the plain modules: attaches them to the decoder layers of an unchanged model.

A decoder layer is not replaced: a `CompositionLayer` becomes its submodule and a forward hook adds what the active
adapter contributes to the layer's output. So quantised bases, KV caches and gradient checkpointing need no special
code. An adapter is either a bottleneck or a fusion whose config names its members; `set_adapter(name)` makes exactly
that one trainable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

from studykit.tuners.bottleneck import Bottleneck, bottleneck_width
from studykit.tuners.config import BottleneckConfig, FusionConfig, check_name
from studykit.tuners.fusion import MASK_MODES, Fusion, MemberStack
from studykit.tuners.phm import new_rule

ATTRIBUTE = "composition"


class CompositionLayer(nn.Module, BaseTunerLayer):
    """All adapters and fusions of one decoder layer."""

    adapter_layer_names = ("adapters", "fusions")
    other_param_names = ()

    def __init__(self, decoder_layer: nn.Module, index: int, hidden_size: int):
        super().__init__()
        self._decoder_layer = (decoder_layer,)  # in a tuple: the parent must not become its own descendant
        self.index, self.hidden_size = index, hidden_size
        self.adapters, self.fusions = nn.ModuleDict(), nn.ModuleDict()
        self.members: dict[str, list[str]] = {}
        self.masked: dict[str, tuple[tuple[int, ...], str]] = {}  # fusion -> (masked indices, mode)
        self.record: FusionRecording | None = None
        self._stacks: dict[str, tuple[tuple, MemberStack]] = {}
        self._disable_adapters, self._active_adapter, self.merged_adapters = False, [], []
        self._hook = decoder_layer.register_forward_hook(self._after_layer)

    def get_base_layer(self) -> nn.Module:
        return self._decoder_layer[0]

    def merge(self, *args, **kwargs):
        raise ValueError("A bottleneck adapter or a fusion is not linear in its input: it cannot be merged.")

    unmerge = merge

    def add(self, name: str, module: nn.Module, members: list[str] | None = None) -> None:
        parameter = next((p for p in self.get_base_layer().parameters()), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        if members is None:
            self.adapters[name] = module.to(device)
            return
        missing = [member for member in members if member not in self.adapters]
        if missing:
            raise ValueError(f"Fusion {name!r} needs adapters {missing}, but the model holds {list(self.adapters)}.")
        self.fusions[name], self.members[name] = module.to(device), list(members)

    def train(self, mode: bool = True) -> CompositionLayer:
        self._stacks.clear()
        return super().train(mode)

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        self._stacks.clear()
        super().set_adapter(adapter_names, inference_mode)

    def stack(self, name: str) -> MemberStack:
        """The members of a fusion side by side, built once and again when a member's weights change.

        Autograd's version counters tell of every in-place change but one through `.data`; such a change is seen after
        the next `train()`, `eval()` or `set_adapter()`.
        """
        members = [self.adapters[member] for member in self.members[name]]
        parameters = [p for member in members for p in member.parameters()]
        if any(p.requires_grad for p in parameters) and torch.is_grad_enabled():
            return MemberStack.of(members)
        version = tuple((p.data_ptr(), p._version) for p in parameters)
        if self._stacks.get(name, (None,))[0] != version:
            with torch.no_grad():
                self._stacks[name] = (version, MemberStack.of(members))
        return self._stacks[name][1]

    def _after_layer(self, decoder_layer: nn.Module, inputs: tuple, output: Tensor | tuple) -> Tensor | tuple:
        if self.disable_adapters:
            return output
        hidden = output[0] if isinstance(output, tuple) else output  # (B, T, d)
        for name in self.active_adapters:
            if name in self.adapters:
                x = hidden.to(next(self.adapters[name].parameters()).dtype)
                hidden = hidden + self.adapters[name](x).to(hidden.dtype)
            elif name in self.fusions:
                hidden = hidden + self._fuse(name, hidden).to(hidden.dtype)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    def _fuse(self, name: str, hidden: Tensor) -> Tensor:
        fusion, stack = self.fusions[name], self.stack(name)
        masked, mode = self.masked.get(name, ((), "zero"))
        context, alpha, z = fusion(hidden.to(fusion.query.weight.dtype), stack, masked, mode)
        if self.record is not None:
            self.record.weights[self.index] = alpha.detach().float()
            self.record.norms[self.index] = fusion.member_norms(stack, z.detach(), masked).float()
        return context


class CompositionModel(BaseTuner):
    """The tuner that PEFT instantiates for BottleneckConfig and FusionConfig."""

    prefix = "mix_"  # must hold neither a language's name nor `fusion`: PEFT warns of adapters named like a part of it
    tuner_layer_cls = CompositionLayer
    target_module_mapping: dict[str, list[str]] = {}

    def _pre_injection_hook(self, model: nn.Module, config: PeftConfig, adapter_name: str) -> None:
        self.__dict__.setdefault("_rules", {})  # adapter -> the rule that all its PHM layers share

    def _check_new_adapter_config(self, config: PeftConfig) -> None:
        super()._check_new_adapter_config(config)
        for name in self.peft_config:
            check_name(name)

    def _create_and_replace(self, config, adapter_name, target, target_name, parent, current_key, **kwargs) -> None:
        hidden_size = self.model.config.get_text_config().hidden_size
        layer = getattr(target, ATTRIBUTE, None)
        if layer is None:
            layer = CompositionLayer(target, int(re.search(r"\d+$", current_key)[0]), hidden_size)
            setattr(target, ATTRIBUTE, layer)
        if isinstance(config, FusionConfig):
            layer.add(adapter_name, Fusion(hidden_size, config.value), config.members)
        else:
            layer.add(adapter_name, self._bottleneck(config, adapter_name, hidden_size))

    def _bottleneck(self, config: BottleneckConfig, name: str, hidden_size: int) -> Bottleneck:
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
        width = bottleneck_width(hidden_size, config.reduction_factor)
        return Bottleneck(hidden_size, width, config.activation, config.scaling, config.dropout, phm)

    def delete_adapter(self, adapter_name: str) -> None:
        users = [name for name, config in self.peft_config.items() if adapter_name in getattr(config, "members", ())]
        if users:
            raise ValueError(f"Adapter {adapter_name!r} is a member of fusion {users[0]!r}; delete the fusion first.")
        super().delete_adapter(adapter_name)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        for kind in CompositionLayer.adapter_layer_names:
            key = key.replace(f"{ATTRIBUTE}.{kind}.{adapter_name}.", f"{ATTRIBUTE}.{kind}.", 1)
        return key

    def _unload_and_optionally_merge(self, merge: bool = True, **kwargs) -> nn.Module:
        if merge:
            raise ValueError("A bottleneck adapter or a fusion is not linear in its input: it cannot be merged.")
        for module in list(self.model.modules()):
            layer = getattr(module, ATTRIBUTE, None)
            if isinstance(layer, CompositionLayer):
                layer._hook.remove()
                delattr(module, ATTRIBUTE)
        if hasattr(self.model, "peft_config"):  # PEFT would take its adapters for ones that the model still has
            del self.model.peft_config
        return self.model


def fusion_layers(model: nn.Module) -> list[CompositionLayer]:
    """The composition layers that hold a fusion, in the order of the decoder layers."""
    layers = [module for module in model.modules() if isinstance(module, CompositionLayer) and module.fusions]
    return sorted(layers, key=lambda layer: layer.index)


def fusion_members(model: nn.Module, masked: list[str] | tuple[str, ...] = (), mode: str = "zero") -> list[str]:
    """Masks members of the active fusion in every layer, without touching a weight; `masked=[]` restores all.

    Phase 1 of AdvFusion is `masked=[target]`, phase 2 is `masked=[]`.

    Args:
        masked: names of the members to mask.
        mode: `zero` (the authors': the slot stays in the softmax with output 0) or `exclude` (attention exactly 0).

    Returns: the names of all members, in order.
    Raises: ValueError for an unknown mode or member, no active fusion, or if every member would be excluded.
    """
    if mode not in MASK_MODES:
        raise ValueError(f"mode={mode!r} is unknown; accepted are {list(MASK_MODES)}.")
    active = [(at, name) for at in fusion_layers(model) for name in at.active_adapters if name in at.fusions]
    if not active:
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
    """Sum over layers of ||W_v - I||_F^2 of the active fusion: the regulariser without its factor, a scalar."""
    penalties = [
        layer.fusions[name].value_penalty()
        for layer in fusion_layers(model)
        for name in layer.active_adapters
        if name in layer.fusions
    ]
    return torch.stack(penalties).sum()


@dataclass
class FusionRecording:
    """What the last forward pass attended to."""

    members: list[str]
    weights: dict[int, Tensor] = field(default_factory=dict)  # layer -> alpha (B, T, N), fp32
    norms: dict[int, Tensor] = field(default_factory=dict)  # layer -> ||W_v u_n|| (B, T, N), fp32


@contextmanager
def record_fusion(model: nn.Module) -> Iterator[FusionRecording]:
    """Within the context, every forward pass overwrites the recording with its fusion weights."""
    layers = fusion_layers(model)
    names = {name for layer in layers for name in layer.active_adapters if name in layer.fusions}
    if len(names) != 1:
        raise ValueError(f"Recording needs exactly one active fusion, but {sorted(names)} are active.")
    recording = FusionRecording(members=layers[0].members[names.pop()])
    for layer in layers:
        layer.record = recording
    try:
        yield recording
    finally:
        for layer in layers:
            layer.record = None
