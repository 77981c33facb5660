"""The scores of meaning that cost more than reading two texts: they need the base, another model, a judge, or runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from studykit.data.rows import Row
from studykit.evaluation.behaviour import (
    Limits,
    behaviour_score,
    builtin_checks,
    kept_outputs,
    whole_program_score,
    why_no_whole_programs,
)
from studykit.evaluation.embedding import Embedder
from studykit.evaluation.identification import identification_score
from studykit.evaluation.judge import Judge, words_of
from studykit.evaluation.scores import Score
from studykit.evaluation.scoring import PredictionScores, average_samples, first_line_of, score_predictions
from studykit.runs import files
from studykit.study.parameters import EvaluateParams


@dataclass(frozen=True)
class Instruments:
    """Everything that scores the completions of one evaluation, whatever they are of: test rows or built-in edits."""

    p: EvaluateParams
    data: Mapping[str, Any]  # the parameters of the data run
    limits: tuple[int, int]  # tokens of a prompt and of a target
    task: str
    programs: bool  # whether the targets are programs
    first_line: bool  # whether text scores read first lines only
    judged: Path  # the directory of the judge's answers
    bare_base: Callable[[], tuple[Any, Any]]  # returns the base without adapters, and its tokenizer

    @cached_property
    def _embedder(self) -> Embedder | None:
        return Embedder(self.p.embedding) if self.p.embedding and not self.programs else None

    def look_up(self) -> None:
        """Finds and tries the embedding model, and finds the judge's command, before the first completion is paid for.

        Raises: UserError if one is missing, or the model makes no vectors.
        """
        if self._embedder:
            self._embedder.embed(["a"])
        if self.p.judge:
            words_of(self.p.judge)

    def score(
        self,
        rows: Sequence[Row],
        predictions: Sequence[Mapping[str, Any]],
        *,
        samples: int = 1,
        run: bool = True,
        judge: bool = True,
    ) -> PredictionScores:
        """Returns all scores of predictions, `samples` per row (see `scoring.score_predictions`).

        run: whether programs are run. judge: whether the judge is asked.
        """
        p = self.p
        result = score_predictions(
            rows,
            predictions,
            language=rows[0].language if self.programs else None,
            first_line=self.first_line,
            diffs=self.task == "commit",
            run=run,
            samples=samples,
            pass_k=[k for k in p.pass_k if k <= samples],
            timeout=p.timeout,
            memory_mb=p.memory_mb,
            allow_unsandboxed=p.allow_unsandboxed,
        )
        texts = [prediction["text"] for prediction in predictions]
        if self.programs and run:
            result.scores.update(self._behaviour(rows, texts, result, samples))
        if not any(row.no_reference for row in rows):
            result.scores.update(self._beyond_overlap(rows, texts, samples, judge))
        return result

    def runs_whole_programs(self, rows: Sequence[Row]) -> bool:
        """Returns whether the completions of these rows are run as whole programs, without tests."""
        return self._are_whole_programs(rows) and not self._why_no_whole_programs(rows)

    def _are_whole_programs(self, rows: Sequence[Row]) -> bool:
        return self.programs and self.p.inputs > 0 and self.task == "translation" and not any(row.check for row in rows)

    def _why_no_whole_programs(self, rows: Sequence[Row]) -> str | None:
        return why_no_whole_programs(rows[0].language, self.p.execute, self.p.allow_unsandboxed)

    def _behaviour(
        self, rows: Sequence[Row], texts: Sequence[str], result: PredictionScores, samples: int
    ) -> dict[str, Score]:
        p, score = self.p, None
        limits = Limits(p.timeout, p.memory_mb, p.allow_unsandboxed)
        if p.inputs and result.programs:
            checks = builtin_checks(rows, self.data, p.inputs)
            score = behaviour_score(rows, texts, result.programs, checks, limits, samples)
        elif self._are_whole_programs(rows):
            if reason := self._why_no_whole_programs(rows):
                return {"behaviour": Score(label="Equal behaviour", value=None, reason=reason, n=len(rows))}
            score = whole_program_score(rows, texts, kept_outputs(rows, limits), limits, samples)
        return {"behaviour": score} if score else {}

    def _beyond_overlap(self, rows: Sequence[Row], texts: Sequence[str], samples: int, judge: bool) -> dict[str, Score]:
        p = self.p
        scores: dict[str, Score] = {}
        if self.first_line:
            texts = [first_line_of(text) for text in texts]
        of_texts = [row for row in rows for _ in range(samples)]
        references = [first_line_of(row.target) if self.first_line else row.target for row in of_texts]
        if p.identification and not self.programs:
            base, tokenizer = self.bare_base()
            found = identification_score(
                base,
                tokenizer,
                rows,
                texts,
                others=p.identification,
                limits=self.limits,
                batch_size=p.batch_size,
                name=Path(p.base).name.rpartition("-")[2],
                samples=samples,
            )
            scores |= {"identification": found} if found else {}
        if self._embedder:
            scores["embedding"] = self._embedder.score(texts, references)
        if p.judge and judge:
            scores["judge"] = Judge(p.judge, self.judged).score(of_texts, texts, references)
        return {name: average_samples(score, samples) for name, score in scores.items()}

    def take_over_answers(self, run_dir: Path) -> None:
        """Copies the judge's salt and answers of an earlier run of the same directory, so that none is asked again."""
        for name in ("salt", "questions.jsonl", "answers.jsonl") if self.p.judge else ():
            earlier, own = run_dir / "judge" / name, self.judged / name
            if earlier.is_file() and not own.exists():
                files.write_text(own, earlier.read_text(encoding="utf-8"))
