"""AttentionSummary: the fusion weights of one method on test rows, over its seeds (notebook 05).

A fusion_attention run holds `records/s<seed>-<phase>.npz`, one FusionRecord per seed and phase, phase 1 under its mask,
and `summary.json`, an AttentionSummary:

    summary = AttentionSummary.read("runs/fusion_attention/lua-advfusion_zero-.../summary.json")
    summary.phases["phase 2"].weights.mean(0)  # (L, A), mean over seeds
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from studykit.attention import record as attention_record
from studykit.attention.capture import capture
from studykit.attention.record import FusionRecord, Origin, check_record, target_weights
from studykit.attention.snapshots import composition_name, load_snapshots
from studykit.data.rows import Row
from studykit.errors import UserError
from studykit.runs import files, store
from studykit.runs.manifest import finished_run
from studykit.study.methods import PHASES, parse
from studykit.study.parameters import FusionAttentionParams
from studykit.training.fusions import load_trained, masked_members, trained_phases
from studykit.training.result import read_phase_results
from studykit.tuners import fusion_members


@dataclass(frozen=True)
class PhaseSummary:
    """The mean weights at the end of one phase, for each of S seeds, over L layers and A members."""

    weights: np.ndarray  # (S, L, A), mean softmax weights
    shares: np.ndarray  # (S, L, A), mean norm-weighted shares
    own_weight: np.ndarray  # (S,), weight of the target's own adapter, mean over layers
    own_share: np.ndarray  # (S,), norm-weighted share of the target's own adapter, mean over layers
    entropy: np.ndarray  # (S, L), mean entropy of a token's weights, in bits

    @classmethod
    def from_records(cls, records: Sequence[FusionRecord], tokens: str) -> Self:
        """Returns the means over `tokens` of the records of one phase, one record per seed, to 8 digits."""

        def by_seed(quantity: Callable[[FusionRecord], np.ndarray]) -> np.ndarray:
            return np.round(np.stack([quantity(record) for record in records]), 8)

        return cls(
            weights=by_seed(lambda record: attention_record.mean_weights(record, tokens)),
            shares=by_seed(lambda record: attention_record.mean_weights(record, tokens, weighted=True)),
            own_weight=by_seed(lambda record: target_weights(record, tokens).mean()),
            own_share=by_seed(lambda record: target_weights(record, tokens, weighted=True).mean()),
            entropy=by_seed(lambda record: attention_record.entropy(record, tokens)),
        )


@dataclass(frozen=True)
class AttentionSummary:
    """The mean fusion weights of one method, by phase and seed."""

    method: str  # the study's word, as "advfusion_zero"
    target: str  # the member whose language is the target
    members: list[str]  # A names, in the order of the last axis
    layers: list[str]  # L labels
    tokens: str  # pool of tokens that the means are over: "completion", "prompt" or "both"
    samples: int  # number of test rows
    seeds: list[int | None]  # S seeds, in the order of the first axis
    mask: str  # mask of phase 1: "none", "zero" or "exclude"
    checkpoints: list[str]  # names of the fusion runs, by seed
    phases: dict[str, PhaseSummary]  # by the title of the phase, in order

    @classmethod
    def from_records(cls, method: str, records: Mapping[str, Sequence[FusionRecord]], tokens: str) -> Self:
        """Returns the summary of records by phase and seed; raises UserError unless all have the same samples."""
        every = [record for of_phase in records.values() for record in of_phase]
        attention_record.require_comparable(*every)
        first = next(iter(records.values()))
        return cls(
            method=method,
            target=first[0].target,
            members=first[0].members,
            layers=first[0].layers,
            tokens=tokens,
            samples=len(first[0].ids),
            seeds=[record.seed for record in first],
            mask=next((record.mask for record in every if record.masked), "none"),
            checkpoints=[record.checkpoint for record in first],
            phases={title: PhaseSummary.from_records(of_phase, tokens) for title, of_phase in records.items()},
        )

    def headline(self) -> dict[str, float]:
        """Returns what the index of a study shows: the own adapter's weight after each phase, the last one first, and
        its norm-weighted share after the last."""
        weights = {
            f"own weight, {title}": float(phase.own_weight.mean()) for title, phase in reversed(self.phases.items())
        }
        last = list(self.phases)[-1]
        return weights | {f"own norm-weighted, {last}": float(self.phases[last].own_share.mean())}

    def write(self, file: str | Path) -> None:
        """Writes the summary as JSON, arrays as nested lists."""
        phases = {
            title: {name: array.tolist() for name, array in asdict(phase).items()}
            for title, phase in self.phases.items()
        }
        files.write_json(file, asdict(self) | {"phases": phases})

    @classmethod
    def read(cls, file: str | Path) -> Self:
        """Reads a file of `write`; raises UserError for a file of another version."""
        try:
            values = files.read_json(file)
            phases = {
                title: PhaseSummary(**{name: np.array(array) for name, array in phase.items()})
                for title, phase in values["phases"].items()
            }
            return cls(**values | {"phases": phases})
        except (KeyError, TypeError) as error:
            raise UserError(f"{file} is no summary of this version ({error}); make its run again.") from None


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
    return all_params[0]


def capture_run(
    base: Any, tokenizer: Any, fusion_run: str | Path, rows: Sequence[Row], limits: tuple[int, int], **options: Any
) -> dict[str, FusionRecord]:
    """Returns a record for each phase of a finished fusion run by the phase's title, under the mask that it had.

    Args:
        base: a model without adapters; it has none afterwards.
        limits: maximum number of prompt tokens and of target tokens of a row.
        options: batch_size, keep and progress of `capture.capture`.
    """
    params, records = finished_run(fusion_run).params, {}
    origin = Origin(composition_name(params), Path(fusion_run).name, Path(params["base"]).name, params["seed"])
    for phase in trained_phases(params["method"]):
        model: Any = load_trained(base, fusion_run, phase.key)
        if masked := masked_members(params, phase):
            fusion_members(model, masked, params["mask"])
        about = {"target": params["target"], "phase": phase.recorded_as, "limits": limits, "origin": origin}
        records[phase.title] = capture(model, tokenizer, rows, **about, **options)
        model.unload()
    return records


def save_records(records: Sequence[Mapping[str, FusionRecord]], run: store.OpenRun) -> None:
    """Writes `records/s<seed>-<phase>.npz` for each seed's records by phase."""
    for of_seed in records:
        for title, record in of_seed.items():
            record.save(run.path("records", _file_name(record.seed, title)))


def load_records(run_dir: str | Path, seeds: Sequence[int]) -> dict[str, list[FusionRecord]]:
    """Loads the records of `save_records`: by the title of the phase a list with one record per seed."""
    titles = dict.fromkeys(phase.title for phases in PHASES.values() for phase in phases)
    paths = {title: [Path(run_dir, "records", _file_name(seed, title)) for seed in seeds] for title in titles}
    return {
        title: [FusionRecord.load(path) for path in of_seeds]
        for title, of_seeds in paths.items()
        if of_seeds[0].exists()
    }


def _file_name(seed: int | None, title: str) -> str:
    return f"s{seed}-{title.replace(' ', '')}.npz"


def check_rows(records: Mapping[str, Sequence[FusionRecord]], tokens: str = "completion") -> list[dict[str, Any]]:
    """Returns the rows of a table, one per phase and seed, that shows whether the weights can be believed.

    All tokens are checked; only the weight on masked members is a mean over `tokens`, as all of notebook 05 is.
    """
    rows = []
    for title, of_phase in records.items():
        for record in of_phase:
            check, hidden = check_record(record), [record.members.index(name) for name in record.masked]
            percent = 100 * float(attention_record.mean_weights(record, tokens)[:, hidden].sum(-1).mean())
            row = {
                "phase": title,
                "seed": record.seed,
                "run": record.checkpoint.rpartition("-")[2],
                "mask": record.mask,
                "largest |sum - 1|": check.sum_error,
                "weight on masked (%)": percent if record.masked else None,
                "sound": check.ok,
            }
            rows.append(row)
    return rows
