"""What the tuner attaches at one site of one decoder layer: all adapters and compositions that sit there.

The site's module is not replaced: a `CompositionLayer` becomes its submodule, and a forward hook adds what the active
adapter contributes to the module's output. So quantised bases, KV caches and gradient checkpointing need no special
code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from studykit.tuners.folded import FoldedFusion
from studykit.tuners.fusion import Fusion, MemberStack, member_norms
from studykit.tuners.placement import STREAM_NORMS

UNMERGEABLE = "A bottleneck adapter or a fusion is not linear in its input: it cannot be merged."


@dataclass
class FusionRecording:
    """What the last forward pass attended to, by (index of the decoder layer, name of the site)."""

    members: list[str]
    weights: dict[tuple[int, str], Tensor] = field(default_factory=dict)  # alpha (B, T, N), fp32
    norms: dict[tuple[int, str], Tensor] = field(default_factory=dict)  # ||W_v u_n|| (B, T, N), fp32


class CompositionLayer(nn.Module, BaseTunerLayer):
    """All adapters and fusions at one site."""

    adapter_layer_names = ("adapters", "fusions")
    other_param_names = ()

    def __init__(self, module: nn.Module, at: tuple[int, str]):
        super().__init__()
        self._module = (module,)  # in a tuple: the parent must not become its own descendant
        self.at = at  # (layer, site) as the first adapter's place names it
        self.adapters, self.fusions = nn.ModuleDict(), nn.ModuleDict()
        self.places: dict[str, str] = {}  # adapter or fusion -> place
        self.sites: dict[str, tuple[int, str]] = {}  # adapter or fusion -> (layer, site) as its place names it
        self.members: dict[str, list[str]] = {}  # fusion -> adapters
        self.masked: dict[str, tuple[tuple[int, ...], str]] = {}  # fusion -> (masked indices, mode)
        self.record: FusionRecording | None = None
        self._stacks: dict[str, tuple[tuple, MemberStack]] = {}
        self._folds: dict[str, tuple[tuple, FoldedFusion]] = {}  # made of a fusion of this model; no part of its state
        self._stream: Tensor | None = None  # what parallel adapters read, from within the layer to its end
        self._disable_adapters, self._active_adapter, self.merged_adapters = False, [], []
        self._hooks = [module.register_forward_hook(self._after_module)]

    def get_base_layer(self) -> nn.Module:
        return self._module[0]

    def merge(self, *args, **kwargs):
        raise ValueError(UNMERGEABLE)

    unmerge = merge

    def add(
        self, name: str, module: nn.Module, place: str, at: tuple[int, str], members: list[str] | None = None
    ) -> None:
        parameter = next((p for p in self.get_base_layer().parameters()), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        if place == "parallel" and len(self._hooks) == 1:
            stream = next((getattr(self.get_base_layer(), norm, None) for norm in STREAM_NORMS
                           if hasattr(self.get_base_layer(), norm)), None)  # fmt: skip
            if stream is None:
                raise ValueError(f"This model's layers have none of {STREAM_NORMS}; the place 'parallel' needs one.")
            self._hooks.append(stream.register_forward_pre_hook(self._keep_stream))
        if members is None:
            self.adapters[name] = module.to(device)
        else:
            self.fusions[name], self.members[name] = module.to(device), list(members)
        self.places[name], self.sites[name] = place, at
        for state in (self.masked, self._folds, self._stacks):  # of a deleted adapter of this name
            state.pop(name, None)

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def train(self, mode: bool = True) -> CompositionLayer:
        self._forget()
        if mode:
            self._folds.clear()
        return super().train(mode)

    def _forget(self) -> None:
        """Whatever was made of weights is made again when it is needed."""
        self._stacks.clear()
        self._folds = {name: ((), fold) for name, (_, fold) in self._folds.items()}

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        self._forget()
        super().set_adapter(adapter_names, inference_mode)

    def stack(self, name: str) -> MemberStack:
        """The members of a fusion side by side, built once and again when a member's weights change.

        Autograd's version counters tell of every in-place change but one through `.data`; such a change is seen after
        the next `train()`, `eval()` or `set_adapter()`.
        """
        members = [self.adapters[member] for member in self.members[name]]
        if torch.is_grad_enabled() and any(p.requires_grad for member in members for p in member.parameters()):
            return MemberStack.of(members)
        version = versions(members)
        if self._stacks.get(name, (None,))[0] != version:
            with torch.no_grad():
                self._stacks[name] = (version, MemberStack.of(members))
        return self._stacks[name][1]

    def fold(self, name: str) -> None:
        """From now on the fusion's folded form answers, until `unfold` or training; made again as `stack` is."""
        version = versions([self.fusions[name], *(self.adapters[member] for member in self.members[name])])
        if self._folds.get(name, (None,))[0] != version:
            self._folds[name] = (version, FoldedFusion.of(self.fusions[name], self.stack(name)))

    def unfold(self) -> None:
        self._folds.clear()

    def folded(self, name: str) -> FoldedFusion | None:
        if name in self._folds:
            self.fold(name)
            return self._folds[name][1]
        own = self.fusions[name] if name in self.fusions else None
        return own if isinstance(own, FoldedFusion) else None

    def _keep_stream(self, norm: nn.Module, inputs: tuple) -> None:
        self._stream = inputs[0]

    def _after_module(self, module: nn.Module, inputs: tuple, output: Tensor | tuple) -> Tensor | tuple:
        stream, self._stream = self._stream, None
        if self.disable_adapters:
            return output
        hidden = output[0] if isinstance(output, tuple) else output  # (B, T, d_out)
        for name in self.active_adapters:
            if name not in self.places:
                continue
            x = {"parallel": stream, "linear": inputs[0] if inputs else None}.get(self.places[name], hidden)
            if name in self.adapters:
                added = self.adapters[name](x.to(next(self.adapters[name].parameters()).dtype))
            else:
                added = self._fuse(name, x)
            hidden = hidden + added.to(hidden.dtype)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    def _fuse(self, name: str, x: Tensor) -> Tensor:
        masked, mode = self.masked.get(name, ((), "zero"))
        if folded := self.folded(name):
            x = x.to(folded.read.weight.dtype)
            context, alpha = folded(x, masked, mode)
            norms = folded.member_norms(x, masked) if self.record else None
        else:
            fusion, stack = self.fusions[name], self.stack(name)
            context, alpha, z = fusion(x.to(stack.down.dtype), stack, masked, mode)
            norms = member_norms(fusion, stack, z.detach(), masked) if self.record else None
        if self.record is not None:
            at = self.sites[name]
            self.record.weights[at], self.record.norms[at] = alpha.detach().float(), norms.float()
        return context


def versions(modules: Iterable[nn.Module]) -> tuple:
    """What differs whenever a weight was moved or, but through `.data`, changed in place."""
    return tuple((p.data_ptr(), p._version) for module in modules for p in module.parameters())


def fuses(fusion: nn.Module) -> bool:
    """Whether it is an attention that could be folded."""
    return isinstance(fusion, Fusion)
