"""Adapters and fusions on a base: new ones to train, and those of finished runs.

An adapter run holds `adapter/<language>/` in PEFT's format; a fusion run holds `<phase>/fusion/`, the fusion's own
weights, and `members.json`, which names the adapter runs it stands on in their order.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import set_seed

from studykit.errors import UserError
from studykit.runs.files import write_json
from studykit.runs.store import manifest
from studykit.study.methods import PEFT_COMPOSITIONS
from studykit.training.peft_baselines import new_peft_composition
from studykit.tuners import PRESETS, BottleneckConfig, CompositionModel, FusionConfig, load_lora

warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")  # PEFT asks by transformers' older name
FUSION = "fusion"
WEIGHTS = "model.safetensors"  # of a fully trained base
GATE = "trained.safetensors"  # of a composition by PEFT


def adapter_config(p) -> BottleneckConfig | LoraConfig:
    """What the parameters of notebook 02 describe. LoRA adapts PEFT's default projections of the family."""
    if p.method == "lora":
        return LoraConfig(
            r=p.lora_rank, lora_alpha=p.lora_alpha, lora_dropout=p.lora_dropout, bias="none", task_type="CAUSAL_LM"
        )
    return BottleneckConfig(**PRESETS[p.method] | {"reduction_factor": p.reduction_factor}, task_type="CAUSAL_LM")


def new_adapter(model, p) -> nn.Module:
    """The base with one fresh, trainable adapter, named after its language and drawn from the seed; with the method
    `full` the base itself, all of its weights trainable in fp32."""
    set_seed(p.seed)
    if p.method != "full":
        try:
            return get_peft_model(model, adapter_config(p), adapter_name=p.language)
        except ValueError as error:  # of a name, or of widths that PHM layers cannot divide
            raise UserError(f"method={p.method}, language={p.language}, reduction_factor={p.reduction_factor} make no "
                            f"adapter of this base: {error}") from None
    if getattr(model, "quantization_method", None):
        raise UserError("method full cannot train a quantized base; take quantization: none, or an adapter.")
    return model.float().requires_grad_(True)


def adapter_directory(run: str | Path) -> Path:
    found = sorted(Path(run).glob("adapter/*/adapter_config.json"))
    if len(found) != 1:
        raise UserError(f"{run} holds no adapter; a finished run of notebook 02_adapter is needed.")
    return found[0].parent


def require_base(base: str | Path, trained: Iterable[str | Path]) -> None:
    """UserError unless the finished runs were trained on this base run: on another, their weights mean nothing."""
    for run in trained:
        own = manifest(run)["params"].get("base")
        if own is None or Path(own) != Path(base):
            raise UserError(f"{run} was trained on base={own}, not on {base}; give runs of one base.")


def load_members(model, members: dict[str, str]) -> PeftModel:
    """The base with the adapters of the named runs, in order; they are frozen."""
    peft_model: PeftModel | None = None
    for language, run in members.items():
        if full_weights(run):
            raise UserError(f"{run} cannot be fused: it trained the whole base, no adapter.")
        directory = adapter_directory(run)
        config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
        if config.get("peft_type") == "LORA":
            peft_model = load_lora(model if peft_model is None else peft_model, directory, language)
        elif peft_model is None:
            peft_model = PeftModel.from_pretrained(model, directory, adapter_name=language)
        else:
            peft_model.load_adapter(directory, adapter_name=language)
    return peft_model


def fusion_config(p) -> FusionConfig:
    """What the parameters of notebook 03 describe."""
    kind = p.method if p.method in ("average", "scalar_mix") else "attention"
    rank = p.rank if p.variant == "lowrank" else None
    return FusionConfig(
        members=list(p.members), kind=kind, value=p.variant != "static", rank=rank, task_type="CAUSAL_LM"
    )


def new_fusion(model, p) -> PeftModel:
    """The base with its members and a fresh, trainable composition of them, drawn from the seed."""
    if p.method in PEFT_COMPOSITIONS:
        set_seed(p.seed)
        members = {name: adapter_directory(run) for name, run in p.members.items()}
        return new_peft_composition(model, p.method, members, FUSION)
    peft_model = load_members(model, p.members)
    set_seed(p.seed)
    try:
        peft_model.add_adapter(FUSION, fusion_config(p))
    except ValueError as error:  # of members that do not fit together
        raise UserError(str(error)) from None
    peft_model.set_adapter(FUSION)
    return peft_model


def save_adapter(model: nn.Module, directory: Path, name: str) -> None:
    """Writes one adapter's own weights and config to `directory/name`; of a fully trained base, all weights; of a
    composition by PEFT, what trained in it: its members are elsewhere."""
    if not isinstance(model, PeftModel):
        weights, file = model.named_parameters(), WEIGHTS
    elif name == FUSION and not isinstance(model.base_model, CompositionModel):
        weights, file = ((n, p) for n, p in model.named_parameters() if p.requires_grad), GATE
    else:
        model.save_pretrained(directory, selected_adapters=[name])
        return
    (directory / name).mkdir(parents=True, exist_ok=True)
    save_file({n: p.detach().contiguous() for n, p in weights}, directory / name / file)


class FullWeights:
    """The base with the weights of a fully trained run in place of its own, until `unload`."""

    def __init__(self, base: nn.Module, file: Path):
        self.base, self.own = base, {name: p.detach().cpu().clone() for name, p in base.named_parameters()}
        self.set(load_file(file))

    def set(self, weights: dict) -> None:
        with torch.no_grad():
            for name, parameter in self.base.named_parameters():
                parameter.copy_(weights[name])

    def unload(self) -> nn.Module:
        self.set(self.own)
        return self.base

    def __call__(self, *args, **kwargs):
        return self.base(*args, **kwargs)

    def __getattr__(self, name: str):
        return getattr(self.base, name)


def full_weights(run: str | Path) -> Path | None:
    """The weights of a run that trained the whole base."""
    return next(iter(Path(run).glob(f"adapter/*/{WEIGHTS}")), None)


def save_members(directory: Path, members: dict[str, str]) -> None:
    write_json(directory / "members.json", members)


def load_run(model, run: str | Path, phase: str | None = None) -> PeftModel:
    """The base with what an adapter run or a fusion run trained, active and frozen.

    Args:
        phase: of a fusion run, `phase1` or `phase2` (`fusion` for AdapterFusion); the last one by default. No member
            is masked, whatever the phase: call `fusion_members` to mask.
    """
    run = Path(run)
    if weights := full_weights(run):
        return FullWeights(model.eval(), weights)
    if (run / "adapter").exists():
        directory = adapter_directory(run)
        return PeftModel.from_pretrained(model, directory, adapter_name=directory.name).eval()
    if not (run / "members.json").exists():
        raise UserError(f"{run} is neither a finished adapter run nor a finished fusion run.")
    members = json.loads((run / "members.json").read_text(encoding="utf-8"))
    phases = [path.parent.name for path in sorted(run.glob("*/fusion"))]
    if not phases or phase not in (None, *phases):
        raise UserError(f"{run} has no {phase or 'phase'!r}; it holds {', '.join(phases) or 'no fusion'}.")
    phase = phase or phases[-1]
    if (gate := run / phase / FUSION / GATE).exists():
        method = manifest(run)["params"]["method"]
        directories = {member: adapter_directory(place) for member, place in members.items()}
        peft_model = new_peft_composition(model, method, directories, FUSION)
        weights = dict(peft_model.named_parameters())
        with torch.no_grad():
            for name, tensor in load_file(gate).items():
                weights[name].copy_(tensor)
        return peft_model.requires_grad_(False).eval()
    peft_model = load_members(model, members)
    peft_model.load_adapter(run / phase / FUSION, adapter_name=FUSION)
    peft_model.set_adapter(FUSION)
    return peft_model.requires_grad_(False).eval()
