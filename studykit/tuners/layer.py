"""What the tuner attaches at one site of one decoder layer: all adapters and compositions that sit there.

The site's module is not replaced: a `CompositionLayer` becomes its submodule, and a forward hook adds the output of the
active adapter to the module's output. So quantised bases, KV caches and gradient checkpointing need no special code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from studykit.tuners.folded import FoldedFusion
from studykit.tuners.fusion import Fusion, MemberStack, member_norms
from studykit.tuners.placement import STREAM_NORMS, Site

UNMERGEABLE = "A bottleneck adapter or a fusion is not linear in its input: it cannot be merged."


@dataclass
class PassWeights:
    """The fusion weights of one forward pass, by site."""

    members: list[str]  # N names, in the order of the last axis
    weights: dict[Site, Tensor] = field(default_factory=dict)  # alpha (B, T, N), fp32
    norms: dict[Site, Tensor] = field(default_factory=dict)  # ||W_v u_n|| (B, T, N), fp32


class CompositionLayer(nn.Module, BaseTunerLayer):
    """All adapters and fusions at one site.

    Args:
        module: the module of the base whose output they change.
        site: the site, as the placement of the first adapter names it.
    """

    adapter_layer_names = ("adapters", "fusions")
    other_param_names = ()

    def __init__(self, module: nn.Module, site: Site):
        super().__init__()
        self._module = (module,)  # in a tuple: the parent must not become its own descendant
        self.site = site
        self.adapters, self.fusions = nn.ModuleDict(), nn.ModuleDict()
        self.placements: dict[str, str] = {}  # adapter or fusion -> placement
        self.sites: dict[str, Site] = {}  # adapter or fusion -> the site as its placement names it
        self.members: dict[str, list[str]] = {}  # fusion -> adapters
        self.masked: dict[str, tuple[tuple[int, ...], str]] = {}  # fusion -> (masked indices, mode)
        self.pass_weights: PassWeights | None = None  # every forward pass writes to it, if there is one
        # What is computed from weights, with the version of the weights; no part of the layer's state.
        self._stacks: dict[str, tuple[tuple, MemberStack]] = {}
        self._folds: dict[str, tuple[tuple, FoldedFusion]] = {}
        self._stream: Tensor | None = None  # the input of parallel adapters, while the layer runs
        self._disable_adapters, self._active_adapter, self.merged_adapters = False, [], []
        self._hooks = [module.register_forward_hook(self._after_module)]

    def get_base_layer(self) -> nn.Module:
        """Returns the module of the base."""
        return self._module[0]

    def merge(self, *args, **kwargs):
        """Raises ValueError: nothing here can be merged into the base."""
        raise ValueError(UNMERGEABLE)

    unmerge = merge

    def update_layer(
        self, adapter_name: str, module: nn.Module, placement: str, site: Site, members: list[str] | None = None
    ) -> None:
        """Adds an adapter, or with `members` a fusion of them, under a name that is free."""
        parameter = next((p for p in self.get_base_layer().parameters()), None)
        module = module.to(torch.device("cpu") if parameter is None else parameter.device)
        if placement == "parallel" and len(self._hooks) == 1:
            self._hooks.append(self._stream_norm().register_forward_pre_hook(self._keep_stream))
        if members is None:
            self.adapters[adapter_name] = module
        else:
            self.fusions[adapter_name], self.members[adapter_name] = module, list(members)
        self.placements[adapter_name], self.sites[adapter_name] = placement, site

    def delete_adapter(self, adapter_name: str) -> None:
        """Deletes an adapter or a fusion, with everything that is stored for it."""
        super().delete_adapter(adapter_name)
        tables = (self.placements, self.sites, self.members, self.masked, self._stacks, self._folds)
        for table in tables:
            table.pop(adapter_name, None)

    def remove_hooks(self) -> None:
        """Takes the layer's hooks off the base, which then computes as if there had been no adapter."""
        for hook in self._hooks:
            hook.remove()

    def train(self, mode: bool = True) -> CompositionLayer:
        self._expire_caches()
        if mode:
            self._folds.clear()
        return super().train(mode)

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        self._expire_caches()
        super().set_adapter(adapter_names, inference_mode)

    def enable_adapters(self, enabled: bool) -> None:
        """Switches all adapters of the layer on or off; a frozen one stays frozen."""
        self._disable_adapters = not enabled

    def _expire_caches(self) -> None:
        """Discards stacks and folds, so that they are computed again at their next use."""
        self._stacks.clear()
        self._folds = {name: ((), fold) for name, (_, fold) in self._folds.items()}

    def stack(self, name: str) -> MemberStack:
        """Returns the members of a fusion side by side; it is built once, and again when a member's weights change.

        Autograd's version counters show every change in place except one through `.data`; such a change is seen
        after the next `train()`, `eval()` or `set_adapter()`.
        """
        members: Any = [self.adapters[member] for member in self.members[name]]
        if torch.is_grad_enabled() and any(p.requires_grad for member in members for p in member.parameters()):
            return MemberStack.from_members(members)
        version = weights_version(members)
        if self._stacks.get(name, (None,))[0] != version:
            with torch.no_grad():
                self._stacks[name] = (version, MemberStack.from_members(members))
        return self._stacks[name][1]

    def fold(self, name: str) -> None:
        """Lets the folded form of a fusion compute in its place until `unfold` or training.

        The folded form is renewed when weights change, as `stack` is.
        """
        fusion: Any = self.fusions[name]
        version = weights_version([fusion, *(self.adapters[member] for member in self.members[name])])
        if self._folds.get(name, (None,))[0] != version:
            self._folds[name] = (version, FoldedFusion.from_fusion(fusion, self.stack(name)))

    def unfold(self) -> None:
        """Lets the fusions themselves compute again."""
        self._folds.clear()

    def folded(self, name: str) -> FoldedFusion | None:
        """Returns the folded form that computes a fusion; None if the fusion itself does."""
        if name in self._folds:
            self.fold(name)
            return self._folds[name][1]
        fusion = self.fusions[name] if name in self.fusions else None
        return fusion if isinstance(fusion, FoldedFusion) else None

    def _stream_norm(self) -> nn.Module:
        layer = self.get_base_layer()
        name = next((name for name in STREAM_NORMS if hasattr(layer, name)), None)
        if name is None:
            raise ValueError(f"This model's layers have none of {STREAM_NORMS}; the placement 'parallel' needs one.")
        return getattr(layer, name)

    def _keep_stream(self, norm: nn.Module, inputs: tuple) -> None:
        self._stream = inputs[0]

    def _after_module(self, module: nn.Module, inputs: tuple, output: Tensor | tuple) -> Tensor | tuple:
        """Adds the output of the active adapters to the module's output; the forward hook."""
        stream, self._stream = self._stream, None
        if self.disable_adapters:
            return output
        hidden = output[0] if isinstance(output, tuple) else output  # (B, T, d_out)
        for name in self.active_adapters:
            if name not in self.placements:
                continue
            read: dict[str, Any] = {"parallel": stream, "linear": inputs[0] if inputs else None}
            x = read.get(self.placements[name], hidden)
            if name in self.adapters:
                added = self.adapters[name](x.to(next(self.adapters[name].parameters()).dtype))
            else:
                added = self._fuse(name, x)
            hidden = hidden + added.to(hidden.dtype)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    def _fuse(self, name: str, x: Tensor) -> Tensor:  # (B, T, d_in) -> (B, T, d_out)
        """Returns the context of a fusion; its weights go to `pass_weights`, if there is one."""
        masked, mode = self.masked.get(name, ((), "zero"))
        norms: Any = None
        if folded := self.folded(name):
            x = x.to(folded.input_projection.weight.dtype)
            context, alpha = folded(x, masked, mode)
            if self.pass_weights is not None:
                norms = folded.member_norms(x, masked)
        else:
            fusion, stack = self.fusions[name], self.stack(name)
            context, alpha, z = fusion(x.to(stack.down.dtype), stack, masked, mode)
            if self.pass_weights is not None:
                norms = member_norms(fusion, stack, z.detach(), masked)
        if self.pass_weights is not None:
            site = self.sites[name]
            self.pass_weights.weights[site] = alpha.detach().float()
            self.pass_weights.norms[site] = norms.float()
        return context


def weights_version(modules: Iterable[nn.Module]) -> tuple:
    """Returns a value that differs once a weight was moved, or changed in place by other means than `.data`."""
    return tuple((p.data_ptr(), p._version) for module in modules for p in module.parameters())


def can_fold(fusion: nn.Module) -> bool:
    """Returns whether a composition is an attention, which can be folded."""
    return isinstance(fusion, Fusion)
