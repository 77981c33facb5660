"""The runs that a study needs and what each depends on: a pure function from a study to runs named by their content.

A run is named `runs/<stage>/<label>-<key>`. The label is for people; the key is the hash of the stage's validated
parameters with every input path replaced by the key in that path (`run_names`). So two studies share a run that is
equal, a changed parameter changes exactly what lies downstream, and a path says what is in it.

    base_model -> data -> adapter (source x seed, target x seed) -> fusion (method x seed)
                       -> evaluate (method, source) -> fusion_attention (fusion method) -> compare
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from studykit.errors import UserError, show
from studykit.study import fields, methods, parameters
from studykit.study.file import Study
from studykit.study.methods import Method
from studykit.study.parameters import STAGES
from studykit.study.run_names import directory, inputs, published, reset_unused
from studykit.study.training_parameters import WITHOUT_FOLD
from studykit.study.trials import trials


@dataclass(frozen=True)
class Run:
    """One execution of one notebook."""

    stage: str
    label: str
    key: str
    params: dict[str, Any] = field(compare=False)  # validated, with every path of an input and `out`
    needs: tuple[Run, ...] = field(compare=False, repr=False)

    @property
    def name(self) -> str:
        return f"{self.stage}/{self.label}-{self.key}"

    @property
    def dir(self) -> str:
        return f"runs/{self.name}"

    @property
    def notebook(self) -> str:
        return f"notebooks/{STAGES[self.stage].notebook}.ipynb"


def plan(study: Study, validation: str = "all") -> list[Run]:
    """Returns the study's runs, each once, in an order in which they can be made.

    Args:
        validation: the validation rows that select steps, see `Training.validation`; in trials half of them.
    """
    runs = StudyRuns(study, validation)
    runs.add_members()
    trained, evaluated = runs.trainings()
    asked, target = runs.asked, study.target
    paths: dict[str, list[str]] = dict.fromkeys(methods.UNTRAINED_BASES, []) | {
        word: paths_of(of_seeds) for word, of_seeds in trained.items()
    }
    evaluations = {m.word: runs.evaluation(m.word, target, paths[m.word]) for m in asked}
    sources = {x: runs.evaluation(of[0].params["method"], x, paths_of(of)) for x, of in evaluated.items()}
    weighed = [m.word for m in asked if m.has_weights]
    runs.add(
        "compare",
        evaluations=evaluations,
        sources=sources,
        attention={word: runs.attention(word, paths[word]) for word in weighed},
        trials=runs.trials(),
        target=target,
        adapters={word: paths[word] for word in trained if methods.parse(word).is_adapter},
        fusions={m.word: paths[m.word] for m in asked if m.members},
        baseline=study.baseline,
        ratings=study.compare.ratings or f"ratings/{study.study}",
    )
    return list(runs.by_dir.values())


def paths_of(runs: Sequence[Run]) -> list[str]:
    """Returns the directories of runs."""
    return [run.dir for run in runs]


class StudyRuns:
    """The runs of one study while they are planned; a list of runs holds one per seed of the study."""

    def __init__(self, study: Study, validation: str):
        self.study, self.validation = study, validation
        self.by_dir: dict[str, Run] = {}  # in an order in which they can be made
        self.members = study.all_members
        self.asked = [methods.parse(word).among(study.members, study.target) for word in study.methods]
        self.fused_on = {m.word: settings(study, "fusion", m.word)["rows"] for m in self.asked}
        self.cross_validated = {study.target} if study.data.valid == "k_fold" else set()
        languages = study.members_are == "languages" and study.data.kinship is None
        read = self.members if languages else list(fields.POLYGLOT)
        weights = {
            "base": study.base,
            "quantization": study.quantization,
            "dtype": study.base_dtype,
            "task": study.task,
        }
        base = self.add("base_model", **weights, languages=read, target=read[-1])
        data = self.add(
            "data",
            base=base.dir,
            task=study.task,
            language=study.language or "",
            members=self.members,
            target=study.target,
        )
        self.inputs = {"base": base.dir, "data": data.dir}

    def add(self, stage: str, word: str = "", **given: Any) -> Run:
        """Returns the run of a stage with these parameters and, for the others, those of the study for a method."""
        model = STAGES[stage].model
        given |= {"validation": self.validation} if "validation" in model.model_fields else {}
        values = {k: v for k, v in settings(self.study, stage, word).items() if k in model.model_fields} | given
        values |= {name: value for name, value in published(stage, values).items() if values[name] is None}
        if stage != "base_model" and values.get("quantization") == self.study.quantization:
            values["quantization"] = None
        values = parameters.check(stage, values, f"study {self.study.study}, {stage}").model_dump()
        planned = named(stage, reset_unused(stage, values), self.by_dir)
        return self.by_dir.setdefault(planned.dir, planned)

    def adapters(
        self, language: str, kind: str, trained_on: str = "task", starts: Sequence[list[Run]] = (), **changes: Any
    ) -> list[Run]:
        """Returns adapters of one kind; each starts from that of its seed in all of `starts`, or anew."""
        own = settings(self.study, "adapter", kind)
        given: dict[str, Any] = {"language": language, "method": kind, "trained_on": trained_on}
        of_target = language == self.study.target
        given["steps"] = own["target_steps" if of_target else "steps"]
        if of_target and own["target_learning_rate"] is not None:
            given["learning_rate"] = own["target_learning_rate"]
        given |= changes | ({"epochs": None} if "steps" in changes else {})
        chooses = language in self.cross_validated and given["steps"] > 0 and given.get("rows", "all") == "all"
        folds = [{**changes, "rows": of} for of in WITHOUT_FOLD * chooses]
        by_fold = [self.adapters(language, kind, trained_on, starts, **of_fold) for of_fold in folds]
        return [
            self.add(
                "adapter",
                kind,
                **self.inputs,
                **given,
                start=[of_seeds[n].dir for of_seeds in starts],
                steps_from=[of_seeds[n].dir for of_seeds in by_fold],
                seed=seed,
            )
            for n, seed in enumerate(self.study.seeds)
        ]

    def single(self, method: Method) -> list[Run]:
        """Returns the adapters of a method that is one adapter."""
        kind, target, study = method.name, self.study.target, self.study
        own = settings(study, "adapter", kind)
        of_members = len(study.members) * own["steps"] + own["target_steps"]  # steps of all members
        if method.training in ("long", "pooled"):
            of_fusion = equal_steps(study) if method.training == "long" else 0
            if own["epochs"] is not None or of_fusion is None:
                raise UserError(
                    f"study {study.study}: {method.word} trains for the steps of other trainings together, but these "
                    "have epochs; give adapter.steps and fusion.steps in their place, or leave the method out."
                )
            if method.training == "long":
                return self.adapters(target, kind, steps=of_members + of_fusion, patience=0)
            of_all = {"rows": "pooled", "steps": of_members, "learning_rate": own["learning_rate"]}
            return self.adapters(target, kind, starts=[self.adapters(target, kind, **of_all)])
        if method.training in ("transfer", "transfer_tuned"):
            sources = [self.adapters(member, kind) for member in study.members]
            untrained: dict[str, Any] = {"steps": 0} if method.training == "transfer" else {}
            return self.adapters(target, kind, starts=sources, **untrained)
        return self.adapters(target, kind)

    def rows(self, method: Method, member: str) -> str:
        """Returns which rows train a member: half if it is the target's and the fusion is to train on the others."""
        return "half" if member == self.study.target and self.fused_on[method.word] == "held_out" else "all"

    def is_cross_fit(self, method: Method) -> bool:
        """Returns whether a fusion reads each row of the target through an adapter that has not seen it."""
        has_target = self.study.target in method.remaining(self.members)
        return self.fused_on[method.word] == "cross_fit" and method.learns and has_target

    def add_members(self) -> None:
        """Plans the adapters that are fused: by kind, member and rows; and those of the target without each fold."""
        self.kinds = list(dict.fromkeys(m.members for m in self.asked if m.members))
        self.fused: dict[str, dict[tuple[str, str], list[Run]]] = {}
        for kind in self.kinds:
            of_kind = [m for m in self.asked if m.members == kind]
            needed = {(x, self.rows(m, x)) for m in of_kind for x in m.remaining(self.members)}
            in_order = [(x, of) for x in self.members for of in ("all", "half") if (x, of) in needed]
            self.fused[kind] = {(x, of): self._member(x, kind, of) for x, of in in_order}
        folded = {m.members for m in self.asked if self.is_cross_fit(m) or self.cross_validated and m.learns}
        self.by_fold = {
            kind: [self._member(self.study.target, kind, of) for of in WITHOUT_FOLD]
            for kind in self.kinds
            if kind in folded
        }

    def _member(self, language: str, kind: str, rows: str) -> list[Run]:
        return self.adapters(language, kind, self.study.members_on, rows=rows)

    def fusion(self, m: Method, n: int, fold: int = 0) -> Run:
        """Returns the fusion of seed number n; with a fold, one that trains without it, as its target's member does."""
        folds = range(1, len(WITHOUT_FOLD) + 1) if self.cross_validated and m.learns and not fold else ()
        kind = m.members or ""
        members = {x: self.fused[kind][x, self.rows(m, x)][n].dir for x in m.remaining(self.members)}
        if fold and self.study.target in members:
            members[self.study.target] = self.by_fold[kind][fold - 1][n].dir
        return self.add(
            "fusion",
            m.word,
            **self.inputs,
            **{name: getattr(m, name) for name in ("mask", "masked_member", "placebo", "variant")},
            members=members,
            target=self.study.target,
            method=m.name,
            left_out=list(m.left_out),
            members_quantization=self.trained_in(kind, stored_in(self.study, "fusion", m.word)),
            seed=self.study.seeds[n],
            **phases_of(self.study, m),
            fold=fold,
            fold_members=[of_seeds[n].dir for of_seeds in self.by_fold[kind]] if self.is_cross_fit(m) else [],
            steps_from=[self.fusion(m, n, of).dir for of in folds],
        )

    def trainings(self) -> tuple[dict[str, list[Run]], dict[str, list[Run]]]:
        """Returns the trainings of all methods by their words, and the source adapters to evaluate by language."""
        study, on_task = self.study, self.study.members_on == "task"
        trained = {m.word: self.single(m) for m in self.asked if m.is_adapter}
        whole = [kind for kind in self.kinds if on_task and (study.target, "all") in self.fused[kind]]
        own = {kind: self.adapters(study.target, kind) for kind in whole}
        trained = {word: trained.get(word) or own[word] for word in dict.fromkeys([*own, *trained])}
        kind = self.kinds[0] if self.kinds and on_task else "bottleneck"
        evaluated = {x: self.adapters(x, kind) for x in study.evaluated_sources}
        fused = [m for m in self.asked if m.members]
        return trained | {m.word: [self.fusion(m, n) for n in range(len(study.seeds))] for m in fused}, evaluated

    def trained_in(self, word: str, here: str) -> str | None:
        """Returns how the base of a method's trainings was kept in memory; None where it is kept so here, too."""
        method = methods.parse(word)
        stage, known_by = ("adapter", method.name) if method.is_adapter else ("fusion", word)
        stored = stored_in(self.study, stage, known_by)
        return None if stored == here else stored

    def evaluation(self, method: str, language: str, trained_runs: list[str]) -> str:
        """Returns the directory of the run that evaluates trainings of a method, or the base, on one language."""
        seeds = self.study.seeds if trained_runs else []
        options: dict[str, Any] = {"method": method, "language": language, "seeds": seeds}
        if trained_runs:
            options["trained_quantization"] = self.trained_in(method, stored_in(self.study, "evaluate"))
        return self.add("evaluate", **self.inputs, trained_runs=trained_runs, **options).dir

    def attention(self, method: str, trained_runs: list[str]) -> str:
        """Returns the directory of the run that records the attention of a method's fusions."""
        here = stored_in(self.study, "evaluate")
        options: dict[str, Any] = {"method": method, "seeds": self.study.seeds, "quantization": here}
        options["trained_quantization"] = self.trained_in(method, here)
        return self.add("fusion_attention", **self.inputs, trained_runs=trained_runs, **options).dir

    def trials(self) -> dict[str, list[list[str]]]:
        """Plans the trainings that try values, with what they need, and returns their directories by method and trial.

        Raises: UserError for a method on which values that it should try have no effect.
        """
        tried: dict[str, list[list[str]]] = {}
        for trial in trials(self.study):
            *planned, comparison = plan(trial.study, "half")
            of_seeds = comparison.params[f"{trial.section}s"][trial.method]
            if of_seeds in tried.setdefault(trial.method, []):
                raise UserError(
                    f"tune tries {show(self.study.tune.combinations(trial.section, trial.method))} for {trial.method}, "
                    "of which two are the same training; tune.by_method must give it values that have an effect."
                )
            tried[trial.method].append(of_seeds)
            chain = set(of_seeds)
            for earlier in reversed(planned):
                chain |= {need.dir for need in earlier.needs} if earlier.dir in chain else set()
            self.by_dir |= {r.dir: r for r in planned if r.dir in chain and r.dir not in self.by_dir}
        return tried


def named(stage: str, values: dict[str, Any], made: Mapping[str, Run]) -> Run:
    """Returns the run of a stage with these validated parameters; it needs those of `made` that they name."""
    out = directory(stage, values)
    label, _, key = PurePosixPath(out).name.rpartition("-")
    needs = tuple(dict.fromkeys(made[p] for p in inputs(stage, values) if p in made))
    return Run(stage, label, key, values | {"out": out}, needs)


def stored_in(study: Study, stage: str, word: str = "") -> str:
    """Returns how a stage keeps the base in memory for a method: none, nf4 or int8."""
    return settings(study, stage, word)["quantization"] or study.quantization


def equal_steps(study: Study) -> int | None:
    """Returns the steps of AdvFusion's two phases together, the most where its variants in the study differ.

    A study without AdvFusion has those that it would give it. None: its phases read their rows `epochs` times instead.
    Raises UserError where one phase has steps and the other epochs, which do not add up.
    """
    totals = []
    for word in [word for word in study.methods if methods.parse(word).name == "advfusion"] or ["advfusion"]:
        own = settings(study, "fusion", word)
        steps = [phase.get("steps") for phase in own.get("phases") or [{}, {}]]
        if own["epochs"] is None:
            totals.append(sum(own["steps"] if of_phase is None else of_phase for of_phase in steps))
        elif None not in steps:
            totals.append(sum(steps))
        elif set(steps) != {None}:
            raise UserError(
                f"study {study.study}: a phase of {word} has {max(step for step in steps if step is not None)} steps, "
                "the other one epochs, so other methods cannot have as many as both; give both phases steps, or set "
                "fusion.budget to single."
            )
    return max(totals, default=None)


def phases_of(study: Study, m: Method) -> dict[str, Any]:
    """Returns the parameter `phases` of a fusion with one phase whose equal budget is not twice its own steps.

    AdvFusion may have phases of other lengths than `steps`; a method that has steps of its own keeps them.
    """
    own = settings(study, "fusion", m.word)
    if not m.learns or len(methods.PHASES[m.name]) > 1 or own["budget"] != "equal":
        return {}
    (phase,) = own.get("phases") or [{}]
    if phase.get("steps") is not None or own["steps"] != study.fusion.steps:
        return {}
    steps = equal_steps(study)
    if steps is None or own["epochs"] is None and steps == 2 * own["steps"]:
        return {}
    return {"phases": [{**phase, "steps": steps}]}


def settings(study: Study, stage: str, word: str) -> dict[str, Any]:
    """Returns a section's values for a method: those of `by_method` go before, of a longer word before a shorter.

    Steps of a method also go before the epochs of its section or of a shorter word.
    """
    values = getattr(study, stage).model_dump()
    by_method = values.pop("by_method", {})
    for begin in sorted(by_method, key=len):
        if word == begin or re.match(re.escape(begin) + "[-_~@^]", word):
            own = by_method[begin]
            if "learning_rate" in own and "target_learning_rate" in values:  # the rate of a method is also its target's
                values["target_learning_rate"] = None
            if {"steps", "target_steps"} & own.keys():
                values["epochs"] = None
            values |= own
    return values
