"""Completions of a finished fusion without each of its members: what `muted_scores` compares.

All completions are greedy, with the stops of the rows, and as long as targets may be in training; so the fusions'
scores can differ a little from those of notebook 04, which has settings of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from studykit.data.rows import DataRun, Row
from studykit.evaluation.evaluate import why_not_executed
from studykit.evaluation.muted_scores import ALL, MutedScores, compare_muted
from studykit.evaluation.scores import Score
from studykit.evaluation.scoring import score_predictions
from studykit.runs.store import OpenRun
from studykit.study.parameters import FusionAttentionParams
from studykit.training.decoding import Decoding
from studykit.training.fusions import load_trained
from studykit.training.generate import predict
from studykit.tuners import fusion_members


def measure_muted_scores(
    base: Any, tokenizer: Any, p: FusionAttentionParams, target: str, rows: Sequence[Row], run: OpenRun
) -> MutedScores:
    """Returns the scores of the fusions of notebook 05 with all members and without each, over all seeds.

    It generates 1 + A completions of every row per seed, for A members; those of an interrupted run are not repeated.
    """
    data, reason = DataRun(p.data), why_not_executed(rows)
    by_seed: list[dict[str, dict[str, Score]]] = []
    for seed, trained in zip(p.seeds, p.trained_runs, strict=True):
        model: Any = load_trained(base, trained)
        members = fusion_members(model)
        scores = {}
        for muted in [ALL, *(members if len(members) > 1 else [])]:
            fusion_members(model, [muted] if muted else [], "exclude")
            predictions = predict(
                model,
                tokenizer,
                rows,
                run.checkpoints / f"muted-s{seed}-{muted or 'none'}.jsonl",
                Decoding(data.limits[1]),
                batch_size=p.batch_size,
                max_prompt_tokens=data.limits[0],
                settings={"run": trained, "muted": muted},
            )
            scores[muted] = score_predictions(
                rows,
                predictions,
                language=rows[0].language if data.are_programs(target) else None,
                first_line=data.task_of(target) == "commit",
                run=not reason,
            ).scores
        model.unload()
        by_seed.append(scores)
    return compare_muted(p.method, by_seed, [row.group for row in rows], reason)
