"""Snapshots of a fusion in training: its weights and its completions, before training and after each phase.

Notebook 03 keeps in a fusion run, besides what it trained,

    sizes.json            parameters of the base, the members and the fusion
    base_losses.json      validation losses of the base alone
    texts.json            completions of the first validation rows, by "base" or a phase
    attention/<key>.npz   a FusionRecord on the target's validation rows, for each of the keys
        init              before training, no member masked
        phase1-masked     after phase 1, as it was trained
        phase1            the same weights with the target's member restored: what phase 2 starts from
        phase2, fusion    after the last phase
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from studykit.attention.capture import capture
from studykit.attention.record import FusionRecord, Origin
from studykit.data.rows import DataRun
from studykit.runs import files, store
from studykit.study.fusion_parameters import FusionParams
from studykit.study.methods import BEFORE_TRAINING, PEFT_COMPOSITIONS, PHASES, changes
from studykit.training.batches import encode_rows
from studykit.training.fusions import FUSION
from studykit.training.generate import complete
from studykit.training.phases import TrainingPhase
from studykit.training.train import base_losses
from studykit.tuners import fusion_members

EXAMPLES = 3  # validation rows whose completions are kept


def record_base(base: Any, tokenizer: Any, p: FusionParams, limits: tuple[int, int], run: store.OpenRun) -> None:
    """Writes the size of the base, and its validation losses and completions without adapters."""
    rows = DataRun(p.data).rows(p.target, "valid")
    files.write_json(run.path("sizes.json"), {"base": base.num_parameters()})
    examples = encode_rows(rows, tokenizer, *limits)
    files.write_json(run.path("base_losses.json"), base_losses(base, tokenizer, examples, p, run.checkpoints))
    files.write_json(run.path("texts.json"), {"base": complete(base, tokenizer, rows[:EXAMPLES], limits)})


def record_snapshots(
    model: Any,
    tokenizer: Any,
    p: FusionParams,
    limits: tuple[int, int],
    run: store.OpenRun,
    trained: TrainingPhase | None = None,
) -> None:
    """Writes the weights and the completions of a fusion in training; it leaves the model as it was.

    A composition by PEFT has no weights per member, so only its completions are kept.

    Args:
        limits: maximum number of prompt tokens and of target tokens of a row.
        trained: the phase that was trained last and whose mask is still set; None before the first. The completions
            after phase 1 are made under its mask.
    """
    rows = DataRun(p.data).rows(p.target, "valid")
    texts = run.read_json("texts.json")
    phase = trained.phase if trained else BEFORE_TRAINING
    if trained is None:
        files.write_json(run.path("sizes.json"), parameter_counts(model, run.read_json("sizes.json")["base"]))
        masks: dict[str, tuple[str, ...]] = {phase.key: ()}
    else:
        texts[phase.key] = complete(model, tokenizer, rows[:EXAMPLES], limits)
        masks = ({f"{phase.key}-masked": trained.masked} if trained.masked else {}) | {phase.key: ()}
    files.write_json(run.path("texts.json"), texts)
    if p.method in PEFT_COMPOSITIONS:
        return
    origin = Origin(composition_name(p.model_dump()), Path(p.out).name, Path(p.base).name, p.seed)
    for key, masked in masks.items():
        fusion_members(model, masked, trained.mode if trained else "zero")
        record = capture(
            model,
            tokenizer,
            rows,
            target=p.target,
            phase=phase.recorded_as,
            limits=limits,
            batch_size=p.batch_size,
            keep=0,
            origin=origin,
            progress=False,
        )
        record.save(run.path("attention", f"{key}.npz"))
    if trained:
        fusion_members(model, trained.masked, trained.mode)


def snapshot_titles(method: str, keys: Collection[str]) -> dict[str, str]:
    """Returns the titles in figures of a method's snapshots by their keys, in order, for those among `keys`."""
    titles: dict[str, str] = {}
    for phase in (BEFORE_TRAINING, *PHASES[method]):
        masked = f"{phase.key}-masked"
        restored = masked in keys and phase != PHASES[method][-1]  # after the last phase all members always take part
        titles |= {masked: f"{phase.title}, masked", phase.key: phase.title + ", restored" * restored}
    return {key: title for key, title in titles.items() if key in keys}


def load_snapshots(run_dir: str | Path, method: str) -> dict[str, FusionRecord]:
    """Loads the records of a fusion run by the titles of its snapshots, in order; a composition by PEFT has none."""
    files = {file.stem: file for file in Path(run_dir, "attention").glob("*.npz")}
    return {title: FusionRecord.load(files[key]) for key, title in snapshot_titles(method, files).items()}


def parameter_counts(model: Any, base: int) -> dict[str, int]:
    """Returns the number of parameters of the base, of all members together, and of their composition."""
    trainable, total = model.get_nb_trainable_parameters()
    fusion = trainable or sum(p.numel() for name, p in model.named_parameters() if f".{FUSION}." in name)
    return {"base": base, "members": total - base - fusion, "fusion": fusion}


def composition_name(params: Mapping[str, Any]) -> str:
    """Returns the composition of members that the parameters of a fusion run name, as "adapterfusion-lowrank~lua"."""
    return params["method"] + f"-{params['variant']}" * (params["variant"] != "full") + changes(params)
