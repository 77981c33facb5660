"""Placebo members: source adapters that keep the size and the number of their weights, but not what they learned.

A fusion over them has the parameters and the schedule of the fusion that it is a control of. What the real sources add
to the result is the difference between the two.

random      Every tensor is drawn again from N(0, 1) and scaled to the Frobenius norm that it had, so the members know
            nothing of a language, of the task or of the prompt's form.
shuffled    The layers of each source member change places, none stays: the set of tensors is the same, but each layer
            has what was trained for another one.

The target's own member is never changed. To let members change places within a layer would be no control: attention
over members has no order, so the fusion would compute the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import nn

from studykit.errors import UserError
from studykit.tuners.model import composition_layers


@torch.no_grad()
def replace_members(model: nn.Module, members: Sequence[str], placebo: str, seed: int) -> None:
    """Replaces the weights of members in place by those of a placebo, which the seed and the member's name decide.

    Args:
        members: names of adapters that the model holds.
        placebo: random or shuffled.
    Raises: UserError if layers that differ in shape, or a single one, would have to change places.
    """
    for name in members:
        digest = hashlib.sha256(f"{seed} {placebo} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        if placebo == "random":
            _redraw(model, name, generator)
        else:
            _shuffle(model, name, generator)


def _redraw(model: nn.Module, name: str, generator: torch.Generator) -> None:
    modules = nn.ModuleList(layer.adapters[name] for layer in composition_layers(model) if name in layer.adapters)
    for parameter in modules.parameters():  # a rule that all layers share is there once
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        norm = parameter.double().norm().cpu()
        parameter.copy_(drawn * (norm / drawn.norm()))


def _shuffle(model: nn.Module, name: str, generator: torch.Generator) -> None:
    here = {layer.sites[name]: layer.adapters[name] for layer in composition_layers(model) if name in layer.adapters}
    depths = sorted({site.layer for site in here})
    if len(depths) < 2:
        raise UserError(f"placebo is 'shuffled', but {name} has a single layer, which no other can change places with.")
    order = torch.randperm(len(depths), generator=generator).tolist()
    moved = dict(zip((depths[i] for i in order), (depths[i] for i in [*order[1:], order[0]]), strict=True))  # one cycle
    trained = {site: [p.clone() for p in adapter.parameters()] for site, adapter in here.items()}
    for site, adapter in here.items():
        origin = trained.get(site._replace(layer=moved[site.layer]), [])
        parameters = list(adapter.parameters())
        if [p.shape for p in origin] != [p.shape for p in parameters]:
            raise UserError(f"placebo is 'shuffled', but the layers of {name} differ in shape; take 'random' instead.")
        for parameter, weight in zip(parameters, origin, strict=True):
            parameter.copy_(weight)
