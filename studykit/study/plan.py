"""The runs that a study needs and what each depends on: a pure function from a study to runs named by their content.

A run is named `runs/<stage>/<label>-<key>`. The label is for people; the key is the hash of the stage's validated
parameters with every input path replaced by the key in that path. So two studies share a run that is equal, a changed
parameter changes exactly what lies downstream, and a path says what is in it.

    base_model -> data -> adapter (source x seed, target x seed) -> fusion (method x seed)
                       -> evaluate (method, source) -> fusion_attention (fusion method) -> compare
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from studykit.study import fields, methods, parameters, training_parameters
from studykit.study.fields import kind
from studykit.study.file import Study
from studykit.study.parameters import STAGES
from studykit.study.training_parameters import WITHOUT_FOLD
from studykit.study.trials import trials

COMPACTERS = ("compacter", "compacterpp")
FILE_PARAMETERS = {  # of data that come from files
    "format", "diff_context", "split_by", "reference", "shares", "near_duplicates", "bad_rows",
}  # fmt: skip


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
    made: dict[str, Run] = {}

    def run(stage: str, word: str = "", **given: Any) -> Run:
        model = STAGES[stage].model
        given |= {"validation": validation} if "validation" in model.model_fields else {}
        values = {k: v for k, v in settings(study, stage, word).items() if k in model.model_fields} | given
        values |= {name: value for name, value in published(stage, values).items() if values[name] is None}
        values = parameters.check(stage, values, f"study {study.study}, {stage}").model_dump()
        values = reset_unused(stage, values)
        planned = named(stage, values, made)
        return made.setdefault(planned.dir, planned)

    members, target = study.all_members, study.target
    read = members if study.members_are == "languages" and study.data.kinship is None else list(fields.POLYGLOT)
    base = run("base_model", base=study.base, quantization=study.quantization, languages=read, target=read[-1])
    data = run("data", base=base.dir, task=study.task, language=study.language or "", members=members, target=target)
    on = {"base": base.dir, "data": data.dir}
    asked = [methods.parse(word).among(study.members, study.target) for word in study.methods]
    fused_on = {m.word: settings(study, "fusion", m.word)["rows"] for m in asked}
    cross_validated = {study.target} if study.data.valid == "k_fold" else set()

    def at(n: int, several: Sequence[list[Run]]) -> list[str]:  # of the seed of number n
        return [of_seeds[n].dir for of_seeds in several]

    def adapters(
        language: str, kind: str, trained_on: str = "task", starts: Sequence[list[Run]] = (), **changes: Any
    ) -> list[Run]:
        """One per seed; each starts from one of the `starts`, which have one per seed too, or anew."""
        given: dict[str, Any] = {"language": language, "method": kind, "trained_on": trained_on}
        given["steps"] = settings(study, "adapter", kind)["target_steps" if language == study.target else "steps"]
        given |= changes | ({"epochs": None} if "steps" in changes else {})
        chooses = language in cross_validated and given["steps"] > 0 and given.get("rows", "all") == "all"
        folds = [{**changes, "rows": of} for of in WITHOUT_FOLD * chooses]
        by_fold = [adapters(language, kind, trained_on, starts, **of_fold) for of_fold in folds]
        return [
            run("adapter", kind, **on, **given, start=at(n, starts), steps_from=at(n, by_fold), seed=seed)
            for n, seed in enumerate(study.seeds)
        ]

    def rows(method: methods.Method, member: str) -> str:
        """Which rows train a member: half of them if it is the target's and the fusion is to train on the others."""
        return "half" if member == study.target and fused_on[method.word] == "held_out" else "all"

    def is_cross_fit(method: methods.Method) -> bool:
        return fused_on[method.word] == "cross_fit" and method.learns and study.target in method.remaining(members)

    def single(method: methods.Method) -> list[Run]:
        """The adapters of a method that is one adapter, one per seed."""
        kind, target = method.name, study.target
        own = settings(study, "adapter", kind)
        of_members = len(study.members) * own["steps"] + own["target_steps"]  # steps of all members
        if method.training == "long":
            return adapters(target, kind, steps=of_members + 2 * study.fusion.steps, patience=0)
        if method.training == "pooled":
            return adapters(target, kind, starts=[adapters(target, kind, rows="pooled", steps=of_members)])
        if method.training in ("transfer", "transfer_tuned"):
            sources = [adapters(member, kind) for member in study.members]
            untrained: dict[str, Any] = {"steps": 0} if method.training == "transfer" else {}
            return adapters(target, kind, starts=sources, **untrained)
        return adapters(target, kind)

    kinds = list(dict.fromkeys(m.members for m in asked if m.members))  # of fused adapters
    fused = {k: {(x, rows(m, x)) for m in asked if m.members == k for x in m.remaining(members)} for k in kinds}
    in_order = {k: [(x, of) for x in members for of in ("all", "half") if (x, of) in fused[k]] for k in kinds}
    of_members = {k: {(x, of): adapters(x, k, study.members_on, rows=of) for x, of in in_order[k]} for k in kinds}
    folded = {m.members for m in asked if is_cross_fit(m) or cross_validated and m.learns}
    by_fold = {k: [adapters(target, k, study.members_on, rows=of) for of in WITHOUT_FOLD] for k in kinds if k in folded}
    trained = {m.word: single(m) for m in asked if m.is_adapter}
    whole = [k for k in kinds if study.members_on == "task" and (study.target, "all") in fused[k]]
    own = {k: adapters(study.target, k) for k in whole}
    trained = {word: trained.get(word) or own[word] for word in dict.fromkeys([*own, *trained])}
    evaluated = {
        x: adapters(x, kinds[0] if kinds and study.members_on == "task" else "bottleneck")
        for x in study.evaluated_sources
    }

    def fusion(m: methods.Method, n: int, fold: int = 0) -> Run:
        """The fusion of one seed; with a fold, the one that is trained without it, as its member of the target is."""
        folds = range(1, len(WITHOUT_FOLD) + 1) if cross_validated and m.learns and not fold else ()
        kind = m.members or ""
        members_of = {x: of_members[kind][x, rows(m, x)][n].dir for x in m.remaining(members)}
        if fold and study.target in members_of:
            members_of[study.target] = by_fold[kind][fold - 1][n].dir
        return run(
            "fusion",
            m.word,
            **on,
            **{name: getattr(m, name) for name in ("mask", "masked_member", "placebo", "variant")},
            members=members_of,
            target=study.target,
            method=m.name,
            left_out=list(m.left_out),
            seed=study.seeds[n],
            fold=fold,
            fold_members=at(n, by_fold[kind]) if is_cross_fit(m) else [],
            steps_from=[fusion(m, n, of).dir for of in folds],
        )

    trained |= {m.word: [fusion(m, n) for n in range(len(study.seeds))] for m in asked if m.members}

    def evaluate(method: str, language: str, trained_runs: list[str]) -> str:
        seeds = study.seeds if trained_runs else []
        return run("evaluate", **on, trained_runs=trained_runs, method=method, language=language, seeds=seeds).dir

    paths = {word: [r.dir for r in of_seeds] for word, of_seeds in trained.items()} | dict.fromkeys(
        methods.UNTRAINED_BASES, []
    )
    evaluations = {m.word: evaluate(m.word, study.target, paths[m.word]) for m in asked}
    on_sources = {
        x: evaluate(of_seeds[0].params["method"], x, [r.dir for r in of_seeds]) for x, of_seeds in evaluated.items()
    }
    attention = {
        m.word: run("fusion_attention", **on, trained_runs=paths[m.word], method=m.word, seeds=study.seeds).dir
        for m in asked
        if m.has_weights
    }
    tried: dict[str, list[str]] = {}  # trial runs by method
    for trial in trials(study):
        *planned, comparison = plan(trial.study, "half")
        training = comparison.params[f"{trial.section}s"][trial.method][0]
        tried.setdefault(trial.method, []).append(training)
        chain = {training}
        for earlier in reversed(planned):
            chain |= {need.dir for need in earlier.needs} if earlier.dir in chain else set()
        made |= {r.dir: r for r in planned if r.dir in chain and r.dir not in made}
    run(
        "compare",
        trials=tried,
        evaluations=evaluations,
        sources=on_sources,
        attention=attention,
        target=study.target,
        adapters={word: paths[word] for word in trained if methods.parse(word).is_adapter},
        fusions={m.word: paths[m.word] for m in asked if m.members},
        baseline=study.baseline,
    )
    return list(made.values())


def named(stage: str, values: dict[str, Any], made: Mapping[str, Run]) -> Run:
    """Returns the run of a stage with these validated parameters; it needs those of `made` that they name."""
    out = directory(stage, values)
    label, _, key = PurePosixPath(out).name.rpartition("-")
    needs = tuple(dict.fromkeys(made[p] for p in _inputs(stage, values) if p in made))
    return Run(stage, label, key, values | {"out": out}, needs)


def settings(study: Study, stage: str, word: str) -> dict[str, Any]:
    """Returns a section's values for a method: those of `by_method` go before, of a longer word before a shorter."""
    values = getattr(study, stage).model_dump()
    by_method = values.pop("by_method", {})
    for begin in sorted(by_method, key=len):
        if word == begin or re.match(re.escape(begin) + "[-_~@^]", word):
            values |= by_method[begin]
    return values


def published(stage: str, values: dict[str, Any]) -> dict[str, float]:
    """Returns what parameters that are None mean: the values of the published study, where it has one."""
    if stage == "adapter":
        narrow = values["method"] in COMPACTERS
        return {
            "learning_rate": 2e-5 if values["method"] == "full" else 1e-4,
            "reduction_factor": 32.0 if narrow else 16.0,
        }
    if stage == "fusion":
        rate = 1e-4 if _kind_of_members(values["members"]) in COMPACTERS else 1e-5
        return {"learning_rate": 5e-2 if values["method"] == "scalar_mix" else rate}
    return {}


def _kind_of_members(members: dict[str, str] | None) -> str | None:
    """The kind of the fused adapters, by the label in their directories."""
    words = PurePosixPath(next(iter((members or {"": ""}).values()))).name.split("-")
    return next((word for word in words if word in methods.FUSABLE), None)


def directory(stage: str, values: dict[str, Any]) -> str:
    """Returns the content-named directory of a run with these validated parameters."""
    return f"runs/{stage}/{_label(stage, values)}-{key(stage, values)}"


def key(stage: str, values: dict[str, Any]) -> str:
    """Returns ten hex digits of the hash of the parameters that decide what the run computes."""
    model = STAGES[stage].model
    identity: dict[str, Any] = {}
    for name in sorted(values.keys() - {"out"}):
        identity[name] = _keys(values[name]) if kind(model, name) == "path" else values[name]
    text = json.dumps([stage, identity], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def reset_unused(stage: str, values: dict[str, Any]) -> dict[str, Any]:
    """Sets every parameter without effect on this run to its default, so that it does not split equal runs."""
    silent: set[str] = set()
    if stage == "base_model" and values["base"] != "scratch":  # nothing is trained: the recipe has no effect
        silent = set(values) - {"base", "quantization", "out"}
    elif stage == "data":
        silent = (set() if values["path"] else FILE_PARAMETERS) | (set() if values["kinship"] else {"kinship_in"})
        if values["task"] != "commit":
            silent = silent | {"diff_context", "split_by"}
        if values["task"] != "summarization":
            silent = silent | {"reference"}
    elif stage == "adapter":
        width, lora = {"reduction_factor"}, {"lora_rank", "lora_alpha", "lora_dropout"}
        silent = {"lora": width, "full": width | lora | {"init_seed"}}.get(values["method"], lora)
        # With a start it has the shape and the weights of what it starts from.
        silent = silent | (width | lora | {"init_seed"} if values["start"] else set())
        silent |= {"steps"} if values["epochs"] is not None else set()
        silent |= {"train_embeddings"} if values["method"] == "full" else set()
        if values["steps"] == 0:
            silent |= training_parameters.Training.model_fields.keys() - {"batch_size"}
    elif stage == "fusion":
        of_two = {"phase1_data", "carry_optimizer", "same_order"}
        silent = of_two if values["method"] != "advfusion" else {"budget"}
        own = [value for phase in values["phases"] for value in phase.values() if value is not None]
        silent |= set() if own else {"phases"}
        silent |= {"rank"} if values["variant"] != "lowrank" else set()
        silent |= {"steps"} if values["epochs"] is not None else set()
        if not methods.has_value_matrix(values["method"], values["variant"]):
            silent |= {"value_regularizer"}
        if not values["value_regularizer"] or "value_regularizer" in silent:
            silent |= {"late_regularizer"}
        if values["method"] not in ("adapterfusion", "advfusion"):
            silent |= {"scores", "temperature"}
        if values["method"] in methods.UNTRAINED:
            silent |= (training_parameters.Training.model_fields.keys() | {"steps", "rows", "budget", "weights"}) - {
                "batch_size"
            }
    elif stage == "evaluate":
        silent = {"shots"} if values["method"] != methods.FEW_SHOT else set()
    return values | {n: STAGES[stage].model.model_fields[n].default for n in silent}


def _keys(value: Any) -> Any:
    """A path field with each path reduced to the key of the run it names. A dict becomes pairs: its order counts."""
    if isinstance(value, dict):
        return [[k, _keys(v)] for k, v in value.items()]
    if isinstance(value, list):
        return [_keys(v) for v in value]
    if isinstance(value, str):
        named = re.search(r"-([0-9a-f]{10})/?$", value)
        return named[1] if named else hashlib.sha256(value.encode()).hexdigest()[:10]
    return value


def _label(stage: str, values: dict[str, Any]) -> str:
    seed, target = f"s{values.get('seed')}", values.get("target")
    method = values.get("method", "")
    mask = f"_{values['mask']}" if method == "advfusion" else ""
    kinds = []  # what a fusion is besides its method, where that is not usual
    if stage == "fusion":
        words_of_kind = (_kind_of_members(values["members"]), values["variant"])
        kinds = [word for word in words_of_kind if word not in (None, "bottleneck", "full")]
        kinds += [methods.label(changes).removeprefix("-")] if (changes := methods.changes(values)) else []
        kinds += [f"without-fold-{values['fold']}"] if values["fold"] else []
    words = {
        "base_model": [values.get("base"), seed if values.get("base") == "scratch" else values.get("quantization")],
        "data": [values.get("task"), target],
        "adapter": [values.get("language"), method, *_training_label(values), seed],
        "fusion": [target, f"{method}{mask}", *kinds, seed],
        "evaluate": [values.get("language"), methods.label(method)],
        "fusion_attention": [methods.label(method)],
        "compare": [target],
        "gather": ["over", *(values.get("over") or [])],
    }[stage]
    if stage == "base_model" and words[0] != "scratch":
        words[0] = str(words[0]).rstrip("/").rsplit("/", 1)[-1].partition("@")[0]
    text = "-".join(str(w) for w in words).lower().replace("#", "sharp").replace("+", "p")
    return re.sub(r"[^a-z0-9_.-]+", "-", text).strip(".-") or stage  # papermill formats paths: no braces


def _training_label(values: dict[str, Any]) -> list[str]:
    """What an adapter's training is besides its language and kind, where that is not usual."""
    start = ("continued" if values.get("steps") else "transferred") if values.get("start") else ""
    rows = values.get("rows", "all").replace("_", "-")
    return [word for word in (rows if rows not in ("all", "half") else "", start) if word]


def _inputs(stage: str, values: dict[str, Any]) -> Iterator[str]:
    """Every run directory that the parameters name, in order."""
    for name, value in values.items():
        if kind(STAGES[stage].model, name) == "path" and name != "out":
            yield from (v for v in _leaves(value) if isinstance(v, str))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _leaves(part)
    else:
        yield value
