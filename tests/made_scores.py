"""Synthetic scores: methods whose results are known, for tests of everything that is computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from studykit.evaluation.scores import CheckpointScores, EvaluationScores, PredictionCounts, Score, Seconds


def checkpoint(seed: int | None, passed, nats, name: str = "trained") -> CheckpointScores:
    """One scored checkpoint: `passed` (n booleans) and `nats` (n losses of rows of 10 tokens)."""
    n, counts = len(passed), [[int(v), 1, 1, 1, 4, 3, 2, 1, 4, 4] for v in 1 + 3 * np.asarray(passed)]
    tests, losses = [100.0 * v for v in passed], [[float(x), 10] for x in nats]
    scores = {
        "pass_at_1": Score(label="pass@1", value=float(np.mean(tests)), per_example=tests, signature="p", n=n),
        "exact_match": Score(label="Exact match", value=0.0, per_example=[0.0] * n, signature="em", n=n),
        "bleu_paper": Score(label="BLEU (paper), corpus", value=50.0, statistics=counts, signature="b", n=n),
        "loss": Score(label="Completion loss", value=float(np.mean(nats)) / 10, statistics=losses, signature="l", n=n),
    }
    return CheckpointScores(
        name=name,
        seed=seed,
        run=None,
        phase=None,
        file_stem=f"s{seed}-{name}",
        folded=False,
        batches=None,
        seconds=Seconds(generation=1.0, scoring=1.0),
        scores=scores,
        counts=PredictionCounts(n=n, empty=0, truncated=0, checked=n),
        execution=None,
        settings={"batch_size": 4},
    )


def scores(checkpoints: Sequence[CheckpointScores], method: str = "base", **fields: Any) -> EvaluationScores:
    n = next(iter(checkpoints[0].scores.values())).n
    usual = {"method": method, "language": "lua", "ids": [f"r{i}" for i in range(n)], "groups": [None] * n,
             "isolation": "bwrap", "not_executed": None}  # fmt: skip
    return EvaluationScores(**{**usual, **fields}, checkpoints=list(checkpoints))


def method(share: float, seeds=(0, 1, 2), n: int = 200, loss=1.0, spread=0.0, rng_seed: int = 0) -> EvaluationScores:
    """A method that passes the first `share` of the rows, seed i with `spread * i` more, at about a loss."""
    rng = np.random.default_rng(rng_seed)
    nats = 10 * loss + rng.normal(0, 0.5, n)
    passed = [np.arange(n) < round(n * (share + spread * i)) for i in range(len(seeds))]
    return scores([checkpoint(seed, rows, nats) for seed, rows in zip(seeds, passed, strict=True)])


def changed(content: EvaluationScores, **fields: Any) -> EvaluationScores:
    """The same evaluation with some fields replaced."""
    return content.model_copy(update=fields)


def rescored(content: EvaluationScores, change) -> EvaluationScores:
    """The same evaluation, the scores of each checkpoint replaced by `change(scores)`."""

    def new(scores: Mapping[str, Score]) -> dict[str, Score]:
        return dict(change(scores))

    return changed(content, checkpoints=[c.model_copy(update={"scores": new(c.scores)}) for c in content.checkpoints])
