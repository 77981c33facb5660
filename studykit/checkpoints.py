"""Adapters and fusions on a base: new ones to train, and those of finished runs.

An adapter run holds `adapter/<language>/` in PEFT's format; a fusion run holds `<phase>/fusion/`, the fusion's own
weights, and `members.json`, which names the adapter runs it stands on in their order.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import set_seed

from studykit.params import UserError
from studykit.runs import manifest, write_json
from studykit.tuners import BottleneckConfig, FusionConfig

warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")  # PEFT asks by transformers' older name
FUSION = "fusion"
PHASES = {"adapterfusion": ("fusion",), "advfusion": ("phase1", "phase2")}


def adapter_config(p) -> BottleneckConfig | LoraConfig:
    """What the parameters of notebook 02 describe. LoRA adapts PEFT's default projections of the family."""
    if p.method == "lora":
        return LoraConfig(
            r=p.lora_rank, lora_alpha=p.lora_alpha, lora_dropout=p.lora_dropout, bias="none", task_type="CAUSAL_LM"
        )
    return BottleneckConfig(reduction_factor=p.reduction_factor, task_type="CAUSAL_LM")


def new_adapter(model, p) -> PeftModel:
    """The base with one fresh, trainable adapter, named after its language and drawn from the seed."""
    set_seed(p.seed)
    return get_peft_model(model, adapter_config(p), adapter_name=p.language)


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
        directory = adapter_directory(run)
        config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
        if "reduction_factor" not in config:
            raise UserError(f"{run} cannot be fused: it is a {config.get('peft_type')} adapter, not a bottleneck.")
        if peft_model is None:
            peft_model = PeftModel.from_pretrained(model, directory, adapter_name=language)
        else:
            peft_model.load_adapter(directory, adapter_name=language)
    return peft_model


def new_fusion(model, members: dict[str, str], seed: int) -> PeftModel:
    """The base with its members and a fresh, trainable fusion of them, drawn from the seed."""
    peft_model = load_members(model, members)
    set_seed(seed)
    peft_model.add_adapter(FUSION, FusionConfig(members=list(members), task_type="CAUSAL_LM"))
    peft_model.set_adapter(FUSION)
    return peft_model


def save_adapter(model: PeftModel, directory: Path, name: str) -> None:
    """Writes one adapter's own weights and config to `directory/name`."""
    model.save_pretrained(directory, selected_adapters=[name])


def save_members(directory: Path, members: dict[str, str]) -> None:
    write_json(directory / "members.json", members)


def load_run(model, run: str | Path, phase: str | None = None) -> PeftModel:
    """The base with what an adapter run or a fusion run trained, active and frozen.

    Args:
        phase: of a fusion run, `phase1` or `phase2` (`fusion` for AdapterFusion); the last one by default. No member
            is masked, whatever the phase: call `fusion_members` to mask.
    """
    run = Path(run)
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
    peft_model = load_members(model, members)
    peft_model.load_adapter(run / phase / FUSION, adapter_name=FUSION)
    peft_model.set_adapter(FUSION)
    return peft_model.requires_grad_(False).eval()
