"""PEFT's own compositions of LoRAs over the same frozen members, as baselines of the attention over outputs.

merge   PEFT's `add_weighted_adapter` with equal weights 1/N and the type `linear`: the A and the B of all members
        are summed, each with a factor of sqrt(scaling / N). The product has terms B_i A_j of different members, so
        this is not the mean of the outputs, which is the method word `average`.
arrow   Every token is routed to the LoRAs whose first singular direction fits it best; nothing is trained
        (Ostapenko et al. 2024, arXiv 2405.11157).
xlora   A small network reads a forward pass without adapters and scales every LoRA in every layer and token; only
        it trains (Buehler and Buehler 2024, arXiv 2402.07148). It takes two passes per step and no KV cache.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import ArrowConfig, PeftModel, XLoraConfig, create_arrow_model, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from studykit.errors import UserError

ARROW_TOP_K = 3  # LoRAs per token; PEFT's default


def new_peft_composition(model: PreTrainedModel, method: str, members: Mapping[str, Path], name: str) -> PeftModel:
    """Returns the base with a composition of LoRAs, active and frozen, but for the gate of `xlora`, which trains.

    Args:
        method: merge, xlora or arrow.
        members: PEFT directories of LoRAs by name.
        name: the name of the merged adapter.
    Raises: UserError for a member that is not a LoRA.
    """
    for member, directory in members.items():
        kind = json.loads((Path(directory) / "adapter_config.json").read_text(encoding="utf-8")).get("peft_type")
        if kind != "LORA":
            raise UserError(f"{method} composes LoRAs, but the member {member!r} in {directory} is a {kind} adapter.")
    paths = [str(directory) for directory in members.values()]
    if method == "arrow":
        top = min(ARROW_TOP_K, len(paths))
        return create_arrow_model(model, paths, ArrowConfig(top_k=top, rng_seed=0)).requires_grad_(False)
    if method == "xlora":
        model.config.use_cache = False  # PEFT demands it: the gate must see the whole sequence at every step
        gate = XLoraConfig(
            task_type="CAUSAL_LM",
            hidden_size=model.config.get_text_config().hidden_size,
            adapters={str(i): path for i, path in enumerate(paths)},
        )
        return get_peft_model(model, gate)
    peft_model: PeftModel | None = None
    for member, path in zip(members, paths, strict=True):
        if peft_model is None:
            peft_model = PeftModel.from_pretrained(model, path, adapter_name=member)
        else:
            peft_model.load_adapter(path, adapter_name=member)
    assert peft_model is not None  # there are members
    peft_model.add_weighted_adapter(list(members), [1 / len(paths)] * len(paths), name, combination_type="linear")
    peft_model.set_adapter(name)
    return peft_model.requires_grad_(False)


def unload(model: Any) -> nn.Module:
    """Removes the composition or adapter that a base holds and returns the bare base."""
    if isinstance(model, PeftModel) and isinstance(model.active_peft_config, XLoraConfig):
        composition: Any = model.base_model
        base = composition.lora_model.unload()
        base.config.use_cache = True
        return base
    return model.unload()
