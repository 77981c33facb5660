"""PEFT's own compositions of LoRAs over the same frozen members, as baselines of the attention over outputs.

Three merge the members into one LoRA, once, and nothing is trained. With s_n B_n A_n the update of member n:

task_arithmetic  factor * sum_n s_n B_n A_n, exactly (Ilharco et al. 2023, arXiv 2212.04089). PEFT's type `cat` puts
                 the A and the B of all members side by side.
ties             factor * the mean of the entries of s_n B_n A_n that are among the `density` largest of their member
                 and have the sign of the sum of these (Yadav et al. 2023, arXiv 2306.01708). The paper trims a task's
                 weights together, PEFT's function each matrix. It would trim A and B apart; here it gets their product.
merge            PEFT's type `linear`: A and B are summed apart, each with a factor of sqrt(factor * s_n). The product
                 has terms B_i A_j of different members, so this is no sum of the updates.

Two route tokens through the members:

arrow            Each token reads the `top_k` LoRAs whose first right singular vector it fits best, weighed by a softmax
                 of that fit; nothing is trained (Ostapenko et al. 2024, arXiv 2405.11157).
xlora            A linear gate reads the last states of a pass without adapters and gives each token one weight per
                 LoRA, the same in all layers; only it trains (Buehler and Buehler 2024, arXiv 2402.07148). It takes
                 two passes per step and no KV cache.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import ArrowConfig, PeftModel, XLoraConfig, create_arrow_model, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.merge_utils import ties
from torch import Tensor, nn
from transformers import PreTrainedModel

from studykit.errors import UserError
from studykit.study.fusion_parameters import FusionParams
from studykit.training.adapters import adapter_directory
from studykit.training.base import quantization_of

MERGED_BY = {"task_arithmetic": "cat", "ties": "cat", "merge": "linear"}  # types of PEFT's add_weighted_adapter


def set_exact_prototypes(model: PeftModel) -> None:
    """Gives each router of Arrow the first right singular vectors of its LoRAs' updates B A (Ostapenko et al. 2024).

    PEFT's own are 15 steps of a power iteration from a random start, which often are not there yet: of LoRAs of rank 16
    on the tiny base one of 18 has a cosine of .76 with the vector, and the loss moves by .02 to .04.
    """
    modules: Any = model.modules()
    for layer in modules:
        for router in getattr(layer, "lora_arrow", {}).values():
            router.top_right_singular_vec_from_BA = first_right_singular_vector  # which it calls at its first tokens


@torch.no_grad()
def first_right_singular_vector(down: Tensor, up: Tensor) -> Tensor:  # (r, d_in), (d_out, r) -> (d_in,)
    """Returns that of the product `up @ down`, from the singular values of a matrix of r x r."""
    (_, upper), (q, lower) = torch.linalg.qr(up.double()), torch.linalg.qr(down.double().T)
    return q @ torch.linalg.svd(upper @ lower.T).Vh[0]


def new_peft_composition(model: PreTrainedModel, p: FusionParams, name: str) -> PeftModel:
    """Returns the base with a composition of LoRAs, active and frozen, but for the gate of `xlora`, which trains.

    Args:
        p: the method, the adapter runs of its members, and its factor, density or top_k.
        name: the name of the merged adapter.
    Raises: UserError for a member that is not a LoRA.
    """
    members = {member: adapter_directory(run) for member, run in p.members.items()}
    for member, directory in members.items():
        kind = json.loads((Path(directory) / "adapter_config.json").read_text(encoding="utf-8")).get("peft_type")
        if kind != "LORA":
            raise UserError(f"{p.method} composes LoRAs, but the member {member!r} in {directory} is a {kind} adapter.")
    paths = [str(directory) for directory in members.values()]
    if p.method == "arrow":
        top = min(p.top_k, len(paths))
        routed = create_arrow_model(model, paths, ArrowConfig(top_k=top, rng_seed=0)).requires_grad_(False)
        set_exact_prototypes(routed)
        return routed
    if p.method == "xlora":
        if (kept := quantization_of(model)) != "none" or p.gradient_checkpointing:
            wrong = f"quantization {kept}" if kept != "none" else "gradient_checkpointing true"
            raise UserError(f"xlora of PEFT does not work with {wrong}; none and false are accepted.")
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
    factors = [p.merge_factor] * len(paths)
    peft_model.add_weighted_adapter(list(members), factors, name, combination_type=MERGED_BY[p.method])
    if p.method == "ties":
        merge_by_sign(peft_model, list(members), name, p.merge_factor, p.density)
    peft_model.set_adapter(name)
    return peft_model.requires_grad_(False)


@torch.no_grad()
def merge_by_sign(model: nn.Module, members: Sequence[str], name: str, factor: float, density: float) -> None:
    """Replaces the adapter `name` by the TIES merge of LoRAs, a dense update for each module that they adapt.

    The update (d_out, d_in) is one of the two matrices, and the other one the identity. PEFT's `ties_svd` would cut it
    down to a rank instead.
    """
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            updates = [layer.get_delta_weight(member) for member in members]  # type: ignore[operator]
            merged = ties(updates, torch.full((len(members),), factor, device=updates[0].device), density)
            rows, columns = merged.shape
            narrow = torch.eye(min(rows, columns), device=merged.device, dtype=merged.dtype)
            first, second = (narrow, merged) if columns <= rows else (merged, narrow)
            for part, weight in ((layer.lora_A, first), (layer.lora_B, second)):
                part[name].weight = nn.Parameter(weight.contiguous(), requires_grad=False)
            layer.scaling[name] = 1.0


def unload(model: Any) -> nn.Module:
    """Removes the composition or adapter that a base holds and returns the bare base."""
    if isinstance(model, PeftModel) and isinstance(model.active_peft_config, XLoraConfig):
        composition: Any = model.base_model
        base = composition.lora_model.unload()
        base.config.use_cache = True
        return base
    return model.unload()
