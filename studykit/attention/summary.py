"""What is looked at in fusion runs: attention and texts while one trains, then one method's attention over its seeds.

A fusion run (notebook 03) keeps, beside what it trained, `sizes.json` (parameters of base, members and fusion),
`texts.json` (base or phase -> completions of the first validation rows) and `attention/<moment>.npz`, a FusionRecord on
the target's validation rows for each of

    init              before training, no member masked
    phase1-masked     after phase 1, as it was trained
    phase1            the same weights, the target's member restored: what phase 2 starts from
    phase2, fusion    after the last phase

A fusion_attention run (notebook 05) keeps `records/s<seed>-<phase>.npz` on test rows, phase 1 under its mask, and
`summary.json`: method, mask, target, members, layers, tokens, samples, seeds, checkpoints, and for each phase, all by
seed: `weights` and `shares` (norm-weighted), each layers x members; `own` and `own_share`, the target's own adapter
over all layers; `entropy` per layer, in bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from studykit.attention import record as attention_record
from studykit.attention.capture import capture
from studykit.attention.record import FusionRecord
from studykit.attention.snapshots import composition
from studykit.data.rows import Row
from studykit.errors import UserError
from studykit.runs import store
from studykit.runs.manifest import finished_run
from studykit.study.methods import BEFORE_TRAINING, PHASES, parse
from studykit.training.fusions import load_trained
from studykit.training.result import TrainingResult
from studykit.tuners import fusion_members


def snapshot_titles(method: str) -> dict[str, str]:
    """Returns the titles of a method's snapshots in figures by the stems of their files, in order."""
    titles = {BEFORE_TRAINING.key: BEFORE_TRAINING.title}
    for phase in PHASES[method]:
        if phase.masks_target:
            titles[f"{phase.key}-masked"] = f"{phase.title}, masked"
        titles[phase.key] = f"{phase.title}, restored" if phase.masks_target else phase.title
    return titles


def observed(run_dir: str | Path, method: str) -> dict[str, FusionRecord]:
    """The records of a fusion run by the titles of its snapshots, in order; a composition by PEFT has none."""
    files = {title: Path(run_dir, "attention", f"{stem}.npz") for stem, title in snapshot_titles(method).items()}
    return {title: FusionRecord.load(file) for title, file in files.items() if file.exists()}


def trained(run_dir: str | Path, method: str) -> dict[str, TrainingResult]:
    """Returns the training result of each phase of a fusion run by the phase's title in figures, in order."""
    files = {phase.title: Path(run_dir, phase.key, "training.json") for phase in PHASES[method]}
    return {title: TrainingResult.read(file) for title, file in files.items() if file.exists()}


def headline(run_dir: str | Path, method: str) -> dict[str, float]:
    """Validation loss and the own adapter's share, both after each phase; the share is of completion tokens."""
    records, phases = observed(run_dir, method), trained(run_dir, method)
    losses = {f"validation loss, {name}": result.validation_loss() for name, result in phases.items()}
    if not records:
        return losses
    shares = {f"own share, {name}": float(attention_record.target_share(r).mean()) for name, r in records.items()}
    last = list(shares)[-1]
    return losses | {last: shares[last]} | shares


def require_method(p: Any) -> dict[str, Any]:
    """The parameters of the first of p.trained_runs; UserError unless all are what the parameters of notebook 05 say."""
    if not p.trained_runs:
        raise UserError("trained_runs is empty; it must name at least one fusion run.")
    made = [finished_run(checkpoint).params for checkpoint in p.trained_runs]
    asked = parse(p.method)
    wanted = {"method": asked.name, "mask": asked.mask, "variant": asked.variant, "base": p.base,
              "target": made[0].get("target")}  # fmt: skip
    for checkpoint, params, seed in zip(p.trained_runs, made, p.seeds, strict=True):
        kinds = {finished_run(member).params["method"] for member in params["members"].values()}
        if kinds != {asked.members}:
            raise UserError(f"{checkpoint} fuses {', '.join(sorted(kinds))} adapters, not those of {p.method}.")
        for key, value in (wanted | {"seed": seed}).items():
            if params.get(key) != value:
                raise UserError(f"{checkpoint} has {key} {params.get(key)!r}, not {value!r}; trained_runs must be runs "
                                f"of {p.method} on one base and target, in the order of seeds.")  # fmt: skip
    return made[0]


def capture_run(
    base: Any, tokenizer: Any, checkpoint: str | Path, rows: Sequence[Row], limits: tuple[int, int], **options: Any
) -> dict[str, FusionRecord]:
    """Records of a finished fusion run's phases by their names, each in the state in which it was trained.

    Args:
        base: a model without adapters; it has none afterwards.
        options: batch_size and keep of `capture.capture`.
    """
    made, records = finished_run(checkpoint).params, {}
    for phase in PHASES[made["method"]]:
        model = load_trained(base, checkpoint, phase.key)
        if phase.masks_target:
            fusion_members(model, [made["target"]], made["mask"])
        records[phase.title] = capture(
            model, tokenizer, rows, target=made["target"], phase=phase.recorded_as, max_prompt_tokens=limits[0],
            max_target_tokens=limits[1], method=composition(made), checkpoint=Path(checkpoint).name,
            base=Path(made["base"]).name, seed=made["seed"], **options,
        )  # fmt: skip
        model.unload()
    return records


def save_records(records: Sequence[Mapping[str, FusionRecord]], run: store.OpenRun) -> None:
    """`records/s<seed>-<phase>.npz` of each seed's records."""
    for of_seed in records:
        for name, record in of_seed.items():
            record.save(run.path("records", f"s{record.seed}-{name.replace(' ', '')}.npz"))


def load_records(run_dir: str | Path, seeds: Sequence[int]) -> dict[str, list[FusionRecord]]:
    """What `save_records` wrote: phase -> a record per seed."""
    titles = dict.fromkeys(phase.title for phases in PHASES.values() for phase in phases)
    files = {title: [Path(run_dir, "records", f"s{seed}-{title.replace(' ', '')}.npz") for seed in seeds]
             for title in titles}  # fmt: skip
    return {name: [FusionRecord.load(f) for f in of_seed] for name, of_seed in files.items() if of_seed[0].exists()}


def summary(records: Mapping[str, Sequence[FusionRecord]], tokens: str) -> dict[str, Any]:
    """What `summary.json` says of phase -> records of the seeds (see above), without method and checkpoints."""
    attention_record.require_comparable(*(record for of_phase in records.values() for record in of_phase))
    first = next(iter(records.values()))
    about = {"target": first[0].target, "members": first[0].members, "layers": first[0].layers, "tokens": tokens,
             "samples": len(first[0].ids), "seeds": [record.seed for record in first],
             "mask": next((r.mask for of_phase in records.values() for r in of_phase if r.masked), "none"),
             "checkpoints": [record.checkpoint for record in first]}  # fmt: skip

    def by_seed(of_phase: Sequence[FusionRecord], quantity) -> list:
        return np.round(np.stack([quantity(record) for record in of_phase]), 8).tolist()

    phases = {
        name: {
            "weights": by_seed(of_phase, lambda r: attention_record.mean(r, tokens)),
            "shares": by_seed(of_phase, lambda r: attention_record.mean(r, tokens, weighted=True)),
            "own": by_seed(of_phase, lambda r: attention_record.target_share(r, tokens).mean()),
            "own_share": by_seed(of_phase, lambda r: attention_record.target_share(r, tokens, weighted=True).mean()),
            "entropy": by_seed(of_phase, lambda r: attention_record.entropy(r, tokens)),
        }
        for name, of_phase in records.items()
    }
    return about | {"phases": phases}


def headline_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """The own adapter's mean weight after each phase, the last first, and its norm-weighted share after the last."""
    phases = dict(reversed(summary["phases"].items()))
    weights = {f"own weight, {name}": float(np.mean(phase["own"])) for name, phase in phases.items()}
    last = next(iter(phases))
    return weights | {f"own norm-weighted, {last}": float(np.mean(phases[last]["own_share"]))}


def sanity(records: Mapping[str, Sequence[FusionRecord]], tokens: str = "completion") -> list[dict[str, Any]]:
    """A row per phase and seed that says why its weights can be believed, or cannot; all tokens are checked.

    The weight on masked members alone is a mean over `tokens`, as the weights of notebook 05 are.
    """
    rows = []
    for name, of_phase in records.items():
        for record in of_phase:
            found, hidden = attention_record.checks(record), [record.members.index(name) for name in record.masked]
            percent = 100 * float(attention_record.mean(record, tokens)[:, hidden].sum(-1).mean())
            rows.append({
                "phase": name, "seed": record.seed, "run": record.checkpoint.rpartition("-")[2], "mask": record.mask,
                "largest miss of 1": found["sum_error"],
                "weight on masked (%)": percent if record.masked else None, "sound": found["ok"],
            })  # fmt: skip
    return rows
