"""Snapshots of a fusion in training: its attention and its texts, before it and after each phase."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studykit.attention.capture import capture
from studykit.data.rows import read_rows
from studykit.runs import files, store
from studykit.study.methods import BEFORE_TRAINING, PEFT_COMPOSITIONS
from studykit.study.parameters import FusionParams
from studykit.training.fusions import FUSION
from studykit.training.generate import complete
from studykit.training.phases import TrainingPhase
from studykit.tuners import fusion_members

EXAMPLES = 3  # validation rows whose completions are kept


def look(
    model: Any,
    tokenizer: Any,
    p: FusionParams,
    limits: tuple[int, int],
    run: store.OpenRun,
    trained: TrainingPhase | None = None,
) -> None:
    """Record attention and texts of a fusion in training: before it (`trained` None), or after a phase, mask still set.

    After phase 1 the text is written under the mask. A composition by PEFT gives members no weights to record.
    Leaves the model as it was.
    """
    rows = read_rows(p.data, p.target, "valid")
    texts = run.read_json("texts.json")
    phase = trained.phase if trained else BEFORE_TRAINING
    if trained is None:
        files.write_json(run.path("sizes.json"), sizes(model, run.read_json("sizes.json")["base"]))
        states = {phase.key: ()}
    else:
        texts[phase.key] = complete(model, tokenizer, rows[:EXAMPLES], limits)
        states = ({f"{phase.key}-masked": trained.masked} if trained.masked else {}) | {phase.key: ()}
    files.write_json(run.path("texts.json"), texts)
    if p.method in PEFT_COMPOSITIONS:
        return
    for moment, masked in states.items():
        fusion_members(model, masked, trained.mode if trained else "zero")
        record = capture(
            model, tokenizer, rows, target=p.target, phase=phase.recorded_as,
            max_prompt_tokens=limits[0], max_target_tokens=limits[1], batch_size=p.batch_size, keep=0,
            method=composition(p.model_dump()), checkpoint=Path(p.out).name, base=Path(p.base).name, seed=p.seed,
            progress=False,
        )  # fmt: skip
        record.save(run.path("attention", f"{moment}.npz"))
    if trained:
        fusion_members(model, trained.masked, trained.mode)


def look_at_base(base: Any, tokenizer: Any, p: FusionParams, limits: tuple[int, int], run: store.OpenRun) -> None:
    """Keep what the base writes without adapters, and its size."""
    rows = read_rows(p.data, p.target, "valid")
    files.write_json(run.path("sizes.json"), {"base": base.num_parameters()})
    files.write_json(run.path("texts.json"), {"base": complete(base, tokenizer, rows[:EXAMPLES], limits)})


def sizes(model: Any, base: int) -> dict[str, int]:
    """Parameters of the base, of the members together and of what composes them."""
    trained, everything = model.get_nb_trainable_parameters()
    fusion = trained or sum(p.numel() for name, p in model.named_parameters() if f".{FUSION}." in name)
    return {"base": base, "members": everything - base - fusion, "fusion": fusion}


def composition(made: Mapping[str, Any]) -> str:
    """What composes the members, from the parameters of a fusion run: "advfusion", "adapterfusion-lowrank"."""
    return made["method"] + f"-{made['variant']}" * (made["variant"] != "full")
