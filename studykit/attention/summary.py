"""AttentionSummary: the fusion weights of one method on test rows, over its seeds (notebook 05).

A fusion_attention run holds `summary.json`, made from its records (see `recording`). This module needs numpy but no
torch, so that reports can read summaries without it.

    summary = AttentionSummary.read("runs/fusion_attention/lua-advfusion_zero-.../summary.json")
    summary.phases["phase 2"].weights.mean(0)  # (L, A), mean over seeds
    summary.change("phase 2").mean(0)          # (L, A), the same minus the initialisation
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from studykit.attention import record as attention_record
from studykit.attention.record import FusionRecord, target_weights
from studykit.errors import UserError
from studykit.runs import files
from studykit.study.methods import BEFORE_TRAINING


@dataclass(frozen=True)
class PhaseSummary:
    """The weights in one state of a fusion, for each of S seeds, over L layers and A members.

    The standard errors are over the test rows: how far a mean over the seeds would move if other rows were read. Rows
    of one group (a problem, a repository) count as one.
    """

    weights: np.ndarray  # (S, L, A), mean softmax weights
    shares: np.ndarray  # (S, L, A), mean norm-weighted shares
    own_weight: np.ndarray  # (S,), weight of the target's own adapter, mean over layers
    own_share: np.ndarray  # (S,), norm-weighted share of the target's own adapter, mean over layers
    entropy: np.ndarray  # (S, L), mean entropy of a token's weights, in bits
    saturated: np.ndarray  # (S, L), share of tokens with one weight above `record.SATURATED`
    change_error: np.ndarray  # (L, A), standard error of the change of `weights` from the initialisation
    own_error: np.ndarray  # (), standard error of `own_weight`
    own_change_error: np.ndarray  # (), standard error of the change of `own_weight` from the initialisation

    @classmethod
    def from_records(
        cls,
        records: Sequence[FusionRecord],
        before: Sequence[FusionRecord],
        tokens: str,
        groups: Sequence[str | None] | None = None,
    ) -> Self:
        """Returns the means over `tokens` of the records of one state, one record per seed, to 8 digits.

        Args:
            before: the records of the untrained fusions, in the same order.
            groups: group of each sample; None: every sample is independent.
        """

        def by_seed(quantity: Callable[[FusionRecord], np.ndarray]) -> np.ndarray:
            return np.round(np.stack([quantity(record) for record in records]), 8)

        def sums(of: Sequence[FusionRecord]) -> np.ndarray:  # (rows, L, A), means over the seeds
            return np.mean([attention_record.sample_sums(record, tokens)[0] for record in of], axis=0)

        counts, own = attention_record.sample_sums(records[0], tokens)[1], records[0].target_index
        after, change = sums(records), sums(records) - sums(before)
        columns = [] if own is None else [own]  # a fusion of the sources alone has no own adapter
        return cls(
            weights=by_seed(lambda record: attention_record.mean_weights(record, tokens)),
            shares=by_seed(lambda record: attention_record.mean_weights(record, tokens, weighted=True)),
            own_weight=by_seed(lambda record: target_weights(record, tokens).mean()),
            own_share=by_seed(lambda record: target_weights(record, tokens, weighted=True).mean()),
            entropy=by_seed(lambda record: attention_record.entropy(record, tokens)),
            saturated=by_seed(lambda record: attention_record.saturation(record, tokens)),
            change_error=standard_error(change, counts, groups),
            own_error=standard_error(after[..., columns].sum(-1).mean(-1), counts, groups),
            own_change_error=standard_error(change[..., columns].sum(-1).mean(-1), counts, groups),
        )


def standard_error(sums: np.ndarray, counts: np.ndarray, groups: Sequence[str | None] | None = None) -> np.ndarray:
    """Returns the standard error of a mean over tokens, sum(sums) / sum(counts), when samples are drawn.

    The mean is a ratio of two sums over samples; its error is that of the linearised ratio (Cochran 1977, Sampling
    Techniques, section 6.4): the residuals e = sums - mean * counts, of which a sample is one draw.

    Args:
        sums: (S, ...), a quantity summed over the tokens of each sample.
        counts: (S,), the tokens of each sample.
        groups: group of each sample, which is one draw as a whole; None, or a label None: the sample is independent.

    Returns an array of the shape of one sample's sums, to 8 digits; NaN for a single sample or group.
    """
    residuals = sums - np.multiply.outer(counts, sums.sum(0) / counts.sum())
    labels: dict[Any, int] = {}
    at = [labels.setdefault(i if group is None else (group,), len(labels)) for i, group in enumerate(groups or ())]
    if groups:
        residuals = np.stack([residuals[np.array(at) == n].sum(0) for n in range(len(labels))])
    n = len(residuals)
    variance = (residuals**2).sum(0) * n / (n - 1) if n > 1 else np.full(sums.shape[1:], np.nan)
    return np.asarray(np.round(np.sqrt(variance) / counts.sum(), 8))


@dataclass(frozen=True)
class AttentionSummary:
    """The mean fusion weights of one method, by state and seed; the first state is the initialisation."""

    method: str  # the study's word, as "advfusion_zero"
    target: str  # the member whose language is the target
    members: list[str]  # A names, in the order of the last axis
    layers: list[str]  # L labels
    tokens: str  # pool of tokens that the means are over: "completion", "prompt" or "both"
    samples: int  # number of test rows
    clusters: int  # number of independent groups of them
    seeds: list[int | None]  # S seeds, in the order of the first axis
    mask: str  # mask of phase 1: "none", "zero" or "exclude"
    checkpoints: list[str]  # names of the fusion runs, by seed
    phases: dict[str, PhaseSummary]  # by the title of the state, in order

    @classmethod
    def from_records(
        cls,
        method: str,
        records: Mapping[str, Sequence[FusionRecord]],
        tokens: str,
        groups: Sequence[str | None] | None = None,
    ) -> Self:
        """Returns the summary of records by state and seed; raises UserError unless all have the same samples.

        groups: group of each sample, see `standard_error`.
        """
        every = [record for of_phase in records.values() for record in of_phase]
        attention_record.require_comparable(*every)
        if BEFORE_TRAINING.title not in records:
            raise UserError(
                f"the records of {method} lack the {BEFORE_TRAINING.title}; record the untrained fusion too"
            )
        first = records[BEFORE_TRAINING.title]
        return cls(
            method=method,
            target=first[0].target,
            members=first[0].members,
            layers=first[0].layers,
            tokens=tokens,
            samples=len(first[0].ids),
            clusters=len({i if group is None else (group,) for i, group in enumerate(groups or first[0].ids)}),
            seeds=[record.seed for record in first],
            mask=next((record.mask for record in every if record.masked), "none"),
            checkpoints=[record.checkpoint for record in first],
            phases={
                title: PhaseSummary.from_records(of_phase, first, tokens, groups) for title, of_phase in records.items()
            },
        )

    @property
    def own(self) -> list[int]:
        """Returns the column of the target's own adapter in the last axis; [] for a fusion of the sources alone."""
        return [self.members.index(self.target)] if self.target in self.members else []

    @property
    def first(self) -> PhaseSummary:
        """Returns the untrained fusion."""
        return self.phases[BEFORE_TRAINING.title]

    @property
    def last(self) -> PhaseSummary:
        """Returns the finished fusion."""
        return list(self.phases.values())[-1]

    @property
    def unmasked(self) -> dict[str, PhaseSummary]:
        """Returns the states in which every member takes part: only among these is a difference the training's."""
        return {title: phase for title, phase in self.phases.items() if not title.endswith(", masked")}

    def of_members(self) -> dict[str, dict[str, float]]:
        """Returns mean weights and norm-weighted shares by member, under the mask of phase 1, or else when finished.

        Only under the mask do the sources compete among themselves. The means are over seeds and layers.
        """
        masked = [phase for title, phase in self.phases.items() if title.endswith(", masked")]
        state = masked[0] if masked else self.last
        arrays = {"weight": state.weights, "norm-weighted share": state.shares}
        return {name: dict(zip(self.members, of.mean((0, 1)).tolist(), strict=True)) for name, of in arrays.items()}

    def change(self, title: str, since: str = BEFORE_TRAINING.title) -> np.ndarray:
        """Returns the weights of a state minus those of an earlier one, (S, L, A)."""
        return self.phases[title].weights - self.phases[since].weights

    def headline(self) -> dict[str, float]:
        """Returns what the index of a study shows: the own adapter's weight in each state, the last one first, and its
        norm-weighted share in the last."""
        weights = {
            f"own weight, {title}": float(phase.own_weight.mean()) for title, phase in reversed(self.phases.items())
        }
        return weights | {f"own norm-weighted, {list(self.phases)[-1]}": float(self.last.own_share.mean())}

    def write(self, file: str | Path) -> None:
        """Writes the summary as JSON, arrays as nested lists, with null for NaN."""

        def as_lists(array: np.ndarray) -> Any:
            return np.where(np.isnan(array), np.array(None), array).tolist()

        phases = {
            title: {name: as_lists(array) for name, array in asdict(phase).items()}
            for title, phase in self.phases.items()
        }
        files.write_json(file, asdict(self) | {"phases": phases})

    @classmethod
    def read(cls, file: str | Path) -> Self:
        """Reads a file of `write`; raises UserError for a file of another version."""
        try:
            values = files.read_json(file)
            phases = {
                title: PhaseSummary(**{name: np.array(array, dtype=float) for name, array in phase.items()})
                for title, phase in values["phases"].items()
            }
            return cls(**values | {"phases": phases})
        except (KeyError, TypeError) as error:
            raise UserError(f"{file} is not a summary of this version ({error}); repeat its run.") from None
