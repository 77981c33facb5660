"""The records of a fusion_attention run: made from finished fusion runs, saved, loaded and checked (notebook 05).

The run holds `records/s<seed>-<key>.npz`, one FusionRecord per seed and state, under the keys of `snapshots`: the
untrained fusion (`init`), and the end of each phase, a masked phase both under its mask and with the member restored.
All are of the same rows, so that the change from the start is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studykit.attention.capture import capture
from studykit.attention.record import FusionRecord, Origin, check_record, mean_weights, target_weights
from studykit.attention.snapshots import composition_name, load_snapshots, snapshot_titles
from studykit.data.rows import Row
from studykit.errors import UserError
from studykit.runs import store
from studykit.runs.manifest import finished_run
from studykit.study.fusion_parameters import FusionParams
from studykit.study.methods import BEFORE_TRAINING, parse
from studykit.study.parameters import FusionAttentionParams
from studykit.training.adapters import require_base
from studykit.training.fusions import load_trained, new_fusion
from studykit.training.phases import training_phases
from studykit.training.result import read_phase_results
from studykit.training.temperature import trained_temperature
from studykit.tuners import fusion_members, set_temperature


def snapshot_headline(run_dir: str | Path, method: str) -> dict[str, float]:
    """Returns what the index of a study shows of a fusion run: the validation loss after each phase, and the own
    adapter's weight on completion tokens in each snapshot, the last one first."""
    records, results = load_snapshots(run_dir, method), read_phase_results(run_dir, method)
    losses = {f"validation loss, {title}": result.validation_loss() for title, result in results.items()}
    weights = {f"own weight, {title}": float(target_weights(record).mean()) for title, record in records.items()}
    last = dict(list(weights.items())[-1:])
    return losses | last | weights


def require_method(p: FusionAttentionParams) -> dict[str, Any]:
    """Returns the parameters of the first of `p.trained_runs`.

    Raises UserError unless all of these runs have the method, base and seeds of `p`, and one target.
    """
    if not p.trained_runs:
        raise UserError("trained_runs is empty; it must name at least one fusion run.")
    all_params = [finished_run(run).params for run in p.trained_runs]
    target, everyone = all_params[0]["target"], [*all_params[0]["members"], *all_params[0]["left_out"]]
    method = parse(p.method).among([member for member in everyone if member != target], target)
    wanted = {
        "method": method.name,
        "mask": method.mask,
        "masked_member": method.masked_member,
        "left_out": sorted(method.left_out),
        "placebo": method.placebo,
        "variant": method.variant,
        "base": p.base,
        "target": target,
    }
    for run, params, seed in zip(p.trained_runs, all_params, p.seeds, strict=True):
        kinds = {finished_run(member).params["method"] for member in params["members"].values()}
        if kinds != {method.members}:
            raise UserError(f"{run} fuses {', '.join(sorted(kinds))} adapters, not those of {p.method}.")
        for key, value in (wanted | {"seed": seed}).items():
            found = sorted(params[key]) if key == "left_out" else params.get(key)
            if found != value:
                raise UserError(
                    f"{run} has {key} {found!r}, not {value!r}; trained_runs must be runs of {p.method} on "
                    f"one base and target, in the order of seeds."
                )
    require_base(p.base, p.trained_runs, p.trained_quantization or p.quantization)
    return all_params[0]


def capture_run(
    base: Any, tokenizer: Any, fusion_run: str | Path, rows: Sequence[Row], limits: tuple[int, int], **options: Any
) -> dict[str, FusionRecord]:
    """Returns the records of a finished fusion run by the keys of `snapshots`, all on the same rows.

    They are the untrained fusion of the run's seed, and the end of each phase: where it trained with a member masked,
    under that mask and then restored.

    Args:
        base: a model without adapters; it has none afterwards.
        limits: maximum number of prompt tokens and of target tokens of a row.
        options: batch_size, keep and progress of `capture.capture`.
    """
    p = FusionParams.model_validate(finished_run(fusion_run).params)
    origin = Origin(composition_name(p.model_dump()), Path(fusion_run).name, Path(p.base).name, p.seed)

    def captured(model: Any, recorded_as: str) -> FusionRecord:
        about: dict[str, Any] = {"target": p.target, "phase": recorded_as, "limits": limits, "origin": origin}
        return capture(model, tokenizer, rows, **about, **options)

    model: Any = new_fusion(base, p)
    if p.temperature == "auto":
        set_temperature(model, trained_temperature(fusion_run))
    records = {BEFORE_TRAINING.key: captured(model, BEFORE_TRAINING.recorded_as)}
    model.unload()
    for trained in training_phases(p):
        key, recorded_as = trained.phase.key, trained.phase.recorded_as
        model = load_trained(base, fusion_run, key)
        if trained.masked:
            fusion_members(model, trained.masked, trained.mode)
            records[f"{key}-masked"] = captured(model, recorded_as)
            fusion_members(model)
        records[key] = captured(model, recorded_as)
        model.unload()
    return records


def save_records(records: Sequence[Mapping[str, FusionRecord]], run: store.OpenRun) -> None:
    """Writes `records/s<seed>-<key>.npz` for each seed's records by key."""
    for of_seed in records:
        for key, record in of_seed.items():
            record.save(run.path("records", f"s{record.seed}-{key}.npz"))


def load_records(run_dir: str | Path, method: str, seeds: Sequence[int]) -> dict[str, list[FusionRecord]]:
    """Loads the records of `save_records`: by the title of the state a list with one record per seed.

    method: the study's word.
    """
    keys = {file.stem.partition("-")[2] for file in Path(run_dir, "records").glob("*.npz")}
    return {
        title: [FusionRecord.load(Path(run_dir, "records", f"s{seed}-{key}.npz")) for seed in seeds]
        for key, title in snapshot_titles(parse(method).name, keys).items()
    }


def check_rows(records: Mapping[str, Sequence[FusionRecord]], tokens: str = "completion") -> list[dict[str, Any]]:
    """Returns the rows of a table, one per state and seed, that shows whether the weights can be believed.

    All tokens are checked; only the weight on masked members is a mean over `tokens`, as all of notebook 05 is.
    """
    rows = []
    for title, of_phase in records.items():
        for record in of_phase:
            check, hidden = check_record(record), [record.members.index(name) for name in record.masked]
            percent = 100 * float(mean_weights(record, tokens)[:, hidden].sum(-1).mean())
            row = {
                "state": title,
                "seed": record.seed,
                "run": record.checkpoint.rpartition("-")[2],
                "mask": record.mask,
                "largest |sum - 1|": check.sum_error,
                "weight on masked (%)": percent if record.masked else None,
                "sound": check.ok,
            }
            rows.append(row)
    return rows
