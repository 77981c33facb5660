"""The scores of one evaluation, as notebook 04 publishes them in `scores.json`.

scores = read_scores("runs/evaluate/lora-lua-0123456789")
[checkpoint.scores["loss"].value for checkpoint in scores.final]  # one completion loss per seed
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from studykit.errors import UserError
from studykit.runs import files
from studykit.runs.manifest import finished_run


class Published(BaseModel):
    """A record that a run publishes as JSON: it never changes, and it has no keys but those that are declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, content: bytes, file: Path, notebook: str) -> Self:
        """Returns the record in a file's content; raises UserError for one that is damaged or of another version.

        notebook: the one that writes it again.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise UserError(f"{file} is damaged or from another version (at {where}); run {notebook} again.") from None


class Score(Published):
    """One metric of one checkpoint on the test rows.

    Either `per_example` or `statistics` is known, unless the programs could not be run: then `value` is None, and
    `reason` says why. `statistics` are counts of which a corpus metric is a function (see `metrics.corpus_value`): a
    bootstrap resamples rows and sums their counts instead of averaging scores of sentences.
    """

    label: str  # the metric's name in tables
    value: float | None  # percent or points of 100; nats per token for the loss
    signature: str = ""  # the variant of the metric: name|tokens|smoothing|level|case|version|n
    n: int  # rows behind the value
    per_example: list[float] | None = None  # (n,) scores whose mean is the value
    statistics: list[list[float]] | None = None  # (n, k) counts of a corpus metric
    reason: str | None = None  # why the value is unknown
    rows: list[int] | None = None  # the indices of the n rows where the metric covers only some of them
    empty: int | None = None  # predictions without a visible character, which are scored like all others
    unparsable: int | None = None  # predictions in which the grammar finds an error
    components: dict[str, float | None] | None = None  # the parts of CodeBLEU; None: no reference has any data flow
    substituted: bool | None = None  # whether CodeBLEU, compat counted a data flow match of 0 as a full one


class PredictionCounts(Published):
    """How many predictions were scored, and how many of them are of a kind that a reader should know about."""

    n: int
    empty: int  # without a visible character
    truncated: int  # stopped by max_new_tokens
    checked: int  # of rows whose tests can be run
    left_out: dict[str, int] = {}  # of rows whose tests need a package that is not installed, by package


class ExecutionSummary(Published):
    """The conditions under which programs were run, and how many ended in which way."""

    isolation: str  # see `execute.isolation`
    runtimes: dict[str, str]  # language -> name and version of its runtime
    timeout: float  # seconds per program
    memory_mb: int  # per program
    empty: int  # programs without a visible character
    statuses: dict[str, int]  # passed, failed, error, ... -> number of programs


class BatchConsistency(Published):
    """How many completions stay the same when their prompts are completed one by one instead of in batches."""

    rows: int
    same: int  # rows with the same completion, token for token
    prompts_per_second: dict[str, float]  # "alone" and "batched"


class Seconds(Published):
    """Wall time of the two steps of an evaluation."""

    generation: float
    scoring: float


class CheckpointScores(Published):
    """All scores of one checkpoint: of the base, of a trained run, or of a run after one of its phases."""

    name: str  # "base", "trained", "phase 1", "phase 1, restored" or "phase 2"
    seed: int | None  # of the training; None for the base
    run: str | None  # the directory of the trained run; None for the base
    phase: str | None  # the directory of the phase inside the run, where a run has several
    file_stem: str  # the name of its files in `predictions/` and `samples/`
    folded: bool  # whether the fusion was folded into fewer matrices before generation
    batches: BatchConsistency | None  # None: not examined
    seconds: Seconds
    scores: dict[str, Score]
    counts: PredictionCounts
    execution: ExecutionSummary | None  # None: nothing was run
    settings: dict[str, Any]  # of generation, see `generate.settings_of`
    shots: float | None = None  # mean number of examples before a prompt; None: there are none

    @property
    def title(self) -> str:
        """Returns the name with the seed, in tables and figures that show every training."""
        return self.name if self.seed is None else f"{self.name}, seed {self.seed}"


ANOTHER, OPPOSITE, CHANGED = "another edit", "the opposite edit", "a changed program"  # what has another meaning


class Calibration(Published):
    """How well a score tells the same meaning from another one, on built-in edits where both are known."""

    metric: str  # key of the score, or "codebleu.syntax" and the like for a part of it
    label: str
    against: str  # ANOTHER, OPPOSITE or CHANGED
    auc: float  # probability that the same meaning scores more, ties counting half: 0.5 is chance
    low: float  # of a 95 % interval over the edits
    high: float
    n: int  # edits
    mean_same: float  # the score of the same meaning in another form: what a perfect answer may get
    language: str  # of the programs behind the edits

    def __str__(self) -> str:
        return f"{self.auc:.2f} [{self.low:.2f}, {self.high:.2f}]"


class EvaluationScores(Published):
    """The content of `scores.json`: one method on the test rows of one language."""

    method: str
    language: str
    ids: list[str]  # of the test rows
    groups: list[str | None]  # of the test rows: rows of one group (a problem, a repository) are dependent
    isolation: str | None  # of the programs that were run; None: none was
    not_executed: str | None  # why rows that have tests have no pass@k
    checkpoints: list[CheckpointScores]  # seed by seed, the phases of a seed in their order
    calibration: list[Calibration] = []  # of the scores, on built-in edits; []: none was asked for, or none fits

    @property
    def settings(self) -> dict[str, Any]:
        """Returns the settings of generation, which all checkpoints share."""
        return self.checkpoints[-1].settings

    @property
    def by_name(self) -> dict[str, list[CheckpointScores]]:
        """Returns the checkpoints by name, each with one entry per seed; the last name is the method's own score."""
        named: dict[str, list[CheckpointScores]] = {}
        for checkpoint in self.checkpoints:
            named.setdefault(checkpoint.name, []).append(checkpoint)
        return named

    @property
    def final(self) -> list[CheckpointScores]:
        """Returns the last checkpoint of every seed, by which the method is judged."""
        return list(self.by_name.values())[-1]

    def score(self, metric: str) -> Score:
        """Returns the score of the first checkpoint: label, signature and rows are the same for all of them."""
        return self.checkpoints[0].scores[metric]

    def groups_of(self, metric: str) -> Sequence[str | None]:
        """Returns the groups of the rows that a metric covers.

        Raises UserError where a metric covers only some of the rows and does not name them.
        """
        score = self.score(metric)
        if score.n == len(self.groups):
            return self.groups
        rows = score.rows or ()
        if len(rows) != score.n:
            raise UserError(
                f"{score.label} covers {score.n} of {len(self.groups)} rows and does not name them, so the rows "
                "cannot be put into their groups; evaluate the method again."
            )
        return [self.groups[i] for i in rows]


def read_scores(run: str | Path) -> EvaluationScores:
    """Reads the `scores.json` of a finished evaluate run; raises UserError if there is none or it is damaged."""
    file = files.project_path(run) / "scores.json"
    try:
        content = file.read_bytes()
    except OSError:
        raise UserError(f"{run} has no scores.json; a finished run of 04_evaluate is needed.") from None
    finished_run(run).verify(file.name)
    return EvaluationScores.parse(content, file, "04_evaluate")
