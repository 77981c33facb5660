"""Which runs a study needs and what each stands on: a pure function from a study to runs named by their content.

A run is named `runs/<stage>/<label>-<key>`. The label is for people; the key is the hash of the stage's validated
parameters with every input path replaced by the key in that path. So two studies share a run that is equal, a changed
parameter changes exactly what lies downstream, and a path says what is in it.

    base_model -> data -> adapter (source x seed, target x seed) -> fusion (method x seed)
                       -> evaluate (method, source) -> fusion_attention (fusion method) -> compare
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import ModuleType
from typing import Any

from studykit import engine, methods, params, runs
from studykit.params import STAGES, UserError, kind, show
from studykit.study import Study, load_study

QUICKSTART = "params/quickstart.yaml"
SCRATCH_RATE = {"adapter": 5e-3, "fusion": 2e-3}  # learning rates that fit a base of 0.4M parameters
PRETRAINED_RATE = {"adapter": 1e-4, "fusion": 1e-5}  # those of the published study
FILES_ALONE = {"format", "diff_context", "split_by", "shares", "near_duplicates", "bad_rows"}  # of data parameters
KERNEL_NAMES = {"In", "Out"}  # what IPython itself puts among a notebook's names


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


def plan(study: Study) -> list[Run]:
    """The study's runs, each once, in an order in which they can be made."""
    made: dict[str, Run] = {}

    def run(stage: str, **given: Any) -> Run:
        section = getattr(study, stage).model_dump()
        model = STAGES[stage].model
        values = {k: v for k, v in section.items() if k in model.model_fields} | given
        if values.get("learning_rate", 0) is None:
            values["learning_rate"] = (SCRATCH_RATE if study.base == "scratch" else PRETRAINED_RATE)[stage]
        values = params.check(stage, values, f"study {study.study}, {stage}").model_dump()
        values = _plain(stage, values)
        values["out"] = directory(stage, values)
        label, _, key = PurePosixPath(values["out"]).name.rpartition("-")
        needs = tuple(dict.fromkeys(made[p] for p in _inputs(stage, values) if p in made))
        return made.setdefault(values["out"], Run(stage, label, key, values, needs))

    speaks = {"languages": study.all_languages, "target": study.target}  # the members' names
    spoken = speaks if study.language is None else {"languages": list(params.POLYGLOT), "target": params.POLYGLOT[-1]}
    base = run("base_model", base=study.base, quantization=study.quantization, **spoken)
    data = run("data", base=base.dir, task=study.task, language=study.language or "", **speaks)
    on = {"base": base.dir, "data": data.dir}
    asked = [methods.parse(word) for word in study.methods]

    def adapters(language: str, kind: str, trained_on: str = "task") -> list[Run]:
        """One per seed."""
        given = {"steps": study.adapter.target_steps if language == study.target else study.adapter.steps}
        if kind == "full":
            given["learning_rate"] = study.adapter.full_learning_rate
        return [run("adapter", **on, **given, language=language, method=kind, trained_on=trained_on, seed=s)
                for s in study.seeds]  # fmt: skip

    kinds = list(dict.fromkeys(m.members for m in asked if m.members))  # of fused adapters
    members = {kind: {x: adapters(x, kind, study.members_on) for x in study.all_languages} for kind in kinds}
    trained = {m.word: adapters(study.target, m.word) for m in asked if m.is_adapter}
    own = {kind: adapters(study.target, kind) for kind in kinds} if study.members_on == "task" else {}
    trained = {word: trained.get(word, own.get(word)) for word in dict.fromkeys([*own, *trained])}
    evaluated = {x: members[kinds[0]][x] if kinds and study.members_on == "task" else adapters(x, "bottleneck")
                 for x in study.evaluated_sources}  # fmt: skip
    for m in asked:
        if m.members:
            rate = {"learning_rate": study.fusion.weights_learning_rate} if m.name == "weights" else {}
            trained[m.word] = [
                run("fusion", **on, **rate, members={x: members[m.members][x][at].dir for x in study.all_languages},
                    target=study.target, method=m.name, mask=m.mask, variant=m.variant, seed=seed)
                for at, seed in enumerate(study.seeds)]  # fmt: skip

    def evaluate(method: str, language: str, checkpoints: list[str]) -> str:
        seeds = study.seeds if checkpoints else []
        return run("evaluate", **on, checkpoints=checkpoints, method=method, language=language, seeds=seeds).dir

    paths = {word: [r.dir for r in of_seeds] for word, of_seeds in trained.items()} | {"base": []}
    evaluations = {m.word: evaluate(m.word, study.target, paths[m.word]) for m in asked}
    on_sources = {x: evaluate(of_seeds[0].params["method"], x, [r.dir for r in of_seeds])
                  for x, of_seeds in evaluated.items()}  # fmt: skip
    attention = {m.word: run("fusion_attention", **on, checkpoints=paths[m.word], method=m.word, seeds=study.seeds).dir
                 for m in asked if m.has_weights}  # fmt: skip
    baseline = study.compare.baseline or ("adapterfusion" if "adapterfusion" in study.methods else study.methods[0])
    run("compare", evaluations=evaluations, sources=on_sources, attention=attention, target=study.target,
        adapters={word: paths[word] for word in trained if methods.parse(word).is_adapter},
        fusions={m.word: paths[m.word] for m in asked if m.members}, baseline=baseline)  # fmt: skip
    return list(made.values())


def directory(stage: str, values: dict[str, Any]) -> str:
    """The content-named directory of a run with these validated parameters."""
    return f"runs/{stage}/{_label(stage, values)}-{key(stage, values)}"


def key(stage: str, values: dict[str, Any]) -> str:
    """Ten hex digits of the hash of the parameters that decide what the run computes."""
    model = STAGES[stage].model
    identity: dict[str, Any] = {}
    for name in sorted(values.keys() - {"out"}):
        identity[name] = _keys(values[name]) if kind(model, name) == "path" else values[name]
    text = json.dumps([stage, identity], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _plain(stage: str, values: dict[str, Any]) -> dict[str, Any]:
    """`values` with every parameter that has no say in this run at its default, so that it splits no equal runs."""
    silent: set[str] = set()
    if stage == "base_model" and values["base"] != "scratch":  # nothing is trained: the recipe has no say
        silent = set(values) - {"base", "quantization", "out"}
    elif stage == "data":
        silent = {"level", "wording"} if values["path"] else FILES_ALONE
        if values["task"] != "commit":
            silent = silent | {"diff_context", "split_by"}
    elif stage == "adapter":
        width, lora = {"reduction_factor"}, {"lora_rank", "lora_alpha", "lora_dropout"}
        silent = {"lora": width, "full": width | lora}.get(values["method"], lora)
    elif stage == "fusion":
        silent = {"phase1_data", "carry_optimizer"} if values["method"] != "advfusion" else set()
        silent |= {"rank"} if values["variant"] != "lowrank" else set()
        if values["method"] not in ("adapterfusion", "advfusion") or values["variant"] == "static":
            silent |= {"value_regularizer"}
        if values["method"] in methods.UNTRAINED:
            silent |= (params.Training.model_fields.keys() | {"steps"}) - {"batch_size"}
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
    mask = f"_{values['mask']}" if values.get("mask", "none") != "none" else ""
    kinds = []  # what a fusion is beside its method, where that is not usual
    if stage == "fusion" and values["members"]:
        kind = PurePosixPath(next(iter(values["members"].values()))).name.split("-")[-3:-2]
        kinds = [w for w in (*kind, values["variant"]) if w not in ("bottleneck", "full")]
    words = {
        "base_model": [values.get("base"), seed if values.get("base") == "scratch" else values.get("quantization")],
        "data": [values.get("task"), target],
        "adapter": [values.get("language"), values.get("method"), seed],
        "fusion": [target, f"{values.get('method')}{mask}", *kinds, seed],
        "evaluate": [values.get("language"), values.get("method")],
        "fusion_attention": [values.get("method")],
        "compare": [target],
    }[stage]
    if stage == "base_model" and words[0] != "scratch":
        words[0] = str(words[0]).rstrip("/").rsplit("/", 1)[-1]
    text = "-".join(str(w) for w in words).lower().replace("#", "sharp").replace("+", "p")
    return re.sub(r"[^a-z0-9_.-]+", "-", text).strip(".-") or stage  # papermill formats paths: no braces


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


def resolve(stage: str, values: dict[str, Any], study: str = QUICKSTART) -> dict[str, Any]:
    """Validated parameters of a notebook run by hand, with what it left at None taken from the study in file `study`.

    The study's run of the same role (language, method, seed) lends its inputs. The study is read only when something is
    missing. Raises UserError when the study has no such run.
    """
    model = STAGES[stage].model
    missing = [n for n in values if values[n] is None and kind(model, n) is not None and n != "out"]
    if missing:
        lent = _lent(stage, values, study)
        values = values | {n: lent[n] for n in missing}
    values = _plain(stage, values)
    if values["out"] is None:
        values = values | {"out": directory(stage, values)}
    return values


ROLES = {
    "adapter": ("language",),
    "fusion": ("target", "seed"),
    "evaluate": ("language", "method"),
    "fusion_attention": ("method",),
}


def _lent(stage: str, values: dict[str, Any], study: str) -> dict[str, Any]:
    """The parameters of the study's run that stands on what this one should stand on."""
    roles = {n: values[n] for n in ROLES.get(stage, ()) if values[n] is not None}
    asked = load_study(study, runs.home())
    rates = {"full": asked.adapter.full_learning_rate, "weights": asked.fusion.weights_learning_rate}
    mine = [r for r in plan(asked) if r.stage == stage]
    like = [r for r in mine if all(r.params[n] == v for n, v in roles.items())]
    if like:  # the nearest: of the same method, if the study has one
        alike = ("method", "mask", "variant")
        lender = max(like, key=lambda r: sum(r.params.get(n) == values.get(n) for n in alike))
        own = {"learning_rate": rates[values["method"]]} if values.get("method") in rates else {}
        return lender.params | own
    wanted = ", ".join(f"{n}={show(v)}" for n, v in roles.items())
    has = "; ".join(dict.fromkeys(", ".join(show(r.params[n]) for n in roles) for r in mine))
    raise UserError(f"{STAGES[stage].notebook}: {study} has no run with {wanted}; it has {has or 'none at all'}.")


def from_notebook(stage: str, names: dict[str, Any]) -> Any:
    """The parameters of a notebook from its `globals()`, validated and resolved.

    Called right after the parameters cell: any public name that is no parameter, module or callable must then be a
    misspelt parameter (papermill only warns of those). When the notebook is run again in the same kernel, its other
    names are there too; then the parameters cell itself says what was asked for. `study` names the file that fills in
    what is None.
    """
    fields = {*STAGES[stage].model.model_fields, "study"}
    mine = _assigned(names.get("In") or [])
    given = {n: v for n, v in names.items() if not (n.startswith("_") or n in KERNEL_NAMES or callable(v)
             or isinstance(v, ModuleType)) and (mine is None or n in fields | mine)}  # fmt: skip
    if hidden := [n for n in names if n in fields and n not in given]:
        raise UserError(f"{STAGES[stage].notebook}: {hidden[0]} now names code; run the parameters cell again.")
    study = given.pop("study", QUICKSTART)
    place = STAGES[stage].notebook
    if not isinstance(study, str):
        raise UserError(f"{place}: study is {show(study)}; it must be a study file such as {QUICKSTART}.")
    os.chdir(runs.home())  # JupyterLab starts a kernel beside its notebook; all paths are the project's
    engine.watch()
    engine.claim_gpu(stage)
    chosen = params.check(stage, given, place).model_dump()
    return params.check(stage, resolve(stage, chosen, study), place)


def _assigned(history: list[str]) -> set[str] | None:
    """Names that the parameters cells right before this one assign, by IPython's list of executed cells; nothing if
    this cell runs again alone. None if the history does not tell."""
    found: set[str] = set()
    for cell in reversed(history[:-1]):  # the last is the cell that asks
        try:
            lines = ast.parse(cell).body
            for line in lines:
                ast.literal_eval(line.value)
        except (SyntaxError, ValueError, TypeError, AttributeError):
            break  # not a cell of literal assignments
        targets = [t for line in lines for t in getattr(line, "targets", None) or [getattr(line, "target", None)]]
        found |= {t.id for t in targets if isinstance(t, ast.Name)}
        if "study" in found:  # the parameters cell itself; papermill's and the reader's own come after it
            break
    again = any("from_notebook(" in cell for cell in history[:-1])
    return found if found or again else None


def defaults(stage: str, study: str = QUICKSTART, **roles: Any) -> dict[str, Any]:
    """What a notebook's parameters cell should say: the study's first run of `stage` (with these roles), in which
    everything that the study fills in by itself is None."""
    model, asked = STAGES[stage].model, load_study(study, runs.home())
    section = getattr(asked, stage).model_dump()  # also what has no say in that run, as LoRA's rank in a bottleneck's
    for run in plan(asked):
        if run.stage == stage and all(run.params[n] == v for n, v in roles.items()):
            return {n: None if kind(model, n) in ("path", "auto") else section.get(n, v) for n, v in run.params.items()}
    raise UserError(f"{study} has no {stage} run with {roles}.")
