"""Fusions on a base: a new one over the adapters of finished runs, and those of finished fusion runs.

A fusion run holds `<phase>/fusion/`, the weights that trained in that phase, and `members.json`, which names the
adapter runs of its members in their order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors.torch import load_file
from transformers import PreTrainedModel, set_seed

from studykit.errors import UserError
from studykit.runs.files import write_json
from studykit.runs.manifest import finished_run
from studykit.study.fusion_parameters import FusionParams
from studykit.study.methods import PEFT_COMPOSITIONS, PHASES, Phase
from studykit.training.adapters import (
    FullWeights,
    adapter_directory,
    copy_parameters,
    full_weights,
    load_members,
    save_parameters,
    trained_head,
    use_head,
)
from studykit.training.peft_baselines import new_peft_composition
from studykit.training.placebos import replace_members
from studykit.training.rounding import round_to_bf16
from studykit.tuners import CompositionModel, FusionConfig
from studykit.tuners.config import KINDS

FUSION = "fusion"  # name of the composition among the adapters of a model
GATE_FILE = "trained.safetensors"  # what trained in a composition by PEFT; empty where nothing trains


# What is trained is decided here, where a change makes fusions out of date; `study.methods` only names the phases.
TWO_PHASES = {"advfusion": ("phase1", "phase2")}  # keys of the phases of a method, in order; others have one, `fusion`
MASKED_PHASES = frozenset({"phase1"})  # keys of the phases in which a member is masked


def trained_phases(method: str) -> tuple[Phase, ...]:
    """Returns the phases in which a composition is trained, in their order."""
    named = {phase.key: phase for phase in PHASES[method]}
    return tuple(named[key] for key in TWO_PHASES.get(method, ("fusion",)))


def masked_members(params: Mapping[str, Any], phase: Phase) -> tuple[str, ...]:
    """Returns the members that are masked while a phase trains.

    Args:
        params: the parameters of a fusion run, as its manifest holds them.
    """
    at = trained_phases(params["method"]).index(phase)
    masked = params["phases"][at]["masked"] if params.get("phases") else None
    if masked is None and phase.key in MASKED_PHASES and params["mask"] != "none":
        masked = params["masked_member"] or "target"
    return {None: (), "none": (), "target": (params["target"],)}.get(masked, (masked,))


def masked_afterwards(params: Mapping[str, Any], phase: Phase) -> tuple[str, ...]:
    """Returns the members that stay masked when the weights of a phase are evaluated: after the last phase none."""
    return () if phase == trained_phases(params["method"])[-1] else masked_members(params, phase)


def fusion_config(p: FusionParams) -> FusionConfig:
    """Returns the configuration that the parameters of notebook 03 describe; a temperature yet to be found is 1."""
    return FusionConfig(
        members=list(p.members),
        kind=p.method if p.method in KINDS else "attention",
        heads=p.heads if p.method == "mhr" else None,
        temperature=1.0 if p.temperature == "auto" else p.temperature,
        scores=p.scores,
        value=p.variant != "static",
        rank=p.rank if p.variant == "lowrank" else None,
        task_type="CAUSAL_LM",
    )


def fusion_head(params: Mapping[str, Any], phase: Phase) -> Path | None:
    """Returns the trained head with which a fusion run has this phase; None for the base's own.

    The reference implementation loads the head of each member, so that the last one stays. When it restores the target
    it loads the target's. Its members stand in a fixed order, with the target among them; here the last source stands
    for the last one.

    Args:
        params: the parameters of a fusion run.
    """
    sources = [member for member in params["members"] if member != params["target"]]
    first = phase == trained_phases(params["method"])[0]
    whose = {"none": None, "target": params["target"], "source": sources[-1] if sources else None}
    whose["restored"] = whose["source" if first else "target"]
    member = whose[params["head"]]
    return trained_head(params["members"][member]) if member in params["members"] else None


def new_fusion(model: PreTrainedModel, p: FusionParams) -> PeftModel:
    """Returns the base with its members, frozen, and a new composition of them, trainable and drawn from the seed.

    Raises UserError for members that do not fit together.
    """
    if p.method in PEFT_COMPOSITIONS:
        set_seed(p.seed)
        return new_peft_composition(model, p, FUSION)
    use_head(model, fusion_head(p.model_dump(), trained_phases(p.method)[0]))
    peft_model = _load_fused(model, p.members, p.model_dump())
    set_seed(p.seed)
    try:
        peft_model.add_adapter(FUSION, fusion_config(p))
    except ValueError as error:
        raise UserError(str(error)) from None
    peft_model.set_adapter(FUSION)
    if p.weights == "bf16":
        round_to_bf16(peft_model)
    return peft_model


def _load_fused(model: PreTrainedModel, members: Mapping[str, str], params: Mapping[str, Any]) -> PeftModel:
    """Returns the base with the members of a fusion run, frozen; its parameters say whether sources are placebos."""
    peft_model = load_members(model, members)
    if params["placebo"] != "none":
        sources = [member for member in members if member != params["target"]]
        replace_members(peft_model, sources, params["placebo"], params["seed"])
    return peft_model


def save_fusion(model: PeftModel, directory: Path) -> None:
    """Writes what trained in a composition to `directory/fusion`; its members are saved by their own runs."""
    if isinstance(model.base_model, CompositionModel):
        model.save_pretrained(str(directory), selected_adapters=[FUSION])
    else:
        trained = ((name, p) for name, p in model.named_parameters() if p.requires_grad)
        save_parameters(trained, directory / FUSION / GATE_FILE)


def save_members(directory: Path, members: Mapping[str, str]) -> None:
    """Writes `members.json`: the adapter runs of a fusion's members by name, in order."""
    write_json(directory / "members.json", members)


def load_trained(model: PreTrainedModel, run: str | Path, phase: str | None = None) -> PeftModel | FullWeights:
    """Returns the base with what a finished adapter run or fusion run trained, active and frozen.

    Args:
        phase: of a fusion run, the key of a phase (`phase1`, `phase2`, or `fusion` where there is only one); None
            means the last. No member is masked, whatever the phase: `fusion_members` masks them.
    Raises: UserError if the run is neither, or has no such phase.
    """
    run = Path(run)
    use_head(model, trained_head(run))
    if weights_file := full_weights(run):
        finished_run(run).verify("adapter")
        return FullWeights(model.eval(), weights_file)
    if (run / "adapter").exists():
        directory = adapter_directory(run)
        return PeftModel.from_pretrained(model, directory, adapter_name=directory.name).eval()
    if not (run / "members.json").exists():
        raise UserError(f"{run} is neither a finished adapter run nor a finished fusion run.")
    members = json.loads((run / "members.json").read_text(encoding="utf-8"))
    phases = [path.parent.name for path in sorted(run.glob(f"*/{FUSION}"))]
    if not phases or phase not in (None, *phases):
        raise UserError(f"{run} has no {phase or 'phase'!r}; it holds {', '.join(phases) or 'no fusion'}.")
    phase = phase or phases[-1]
    directory = run / phase / FUSION
    finished_run(run).verify(phase)
    params = finished_run(run).params
    if (directory / GATE_FILE).exists():
        peft_model = new_peft_composition(model, FusionParams.model_validate(params), FUSION)
        copy_parameters(peft_model, load_file(directory / GATE_FILE))
    else:
        use_head(model, fusion_head(params, next(x for x in PHASES[params["method"]] if x.key == phase)))
        peft_model = _load_fused(model, members, params)
        peft_model.load_adapter(directory, adapter_name=FUSION)
        peft_model.set_adapter(FUSION)
    return peft_model.requires_grad_(False).eval()
