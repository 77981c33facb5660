"""The parameters of a notebook that is run by hand or by the engine: checked, and filled in from a study."""

from __future__ import annotations

import ast
import os
from types import ModuleType
from typing import Any

from studykit.errors import UserError, show
from studykit.runs import files, process
from studykit.study import parameters
from studykit.study.file import load_study
from studykit.study.parameters import STAGES, kind
from studykit.study.plan import directory, plan, without_silent

QUICKSTART = "params/quickstart.yaml"
KERNEL_NAMES = {"In", "Out"}  # what IPython itself puts among a notebook's names


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
    values = without_silent(stage, values)
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
    asked = load_study(study, files.home())
    rates = {"full": asked.adapter.full_learning_rate, "scalar_mix": asked.fusion.scalar_mix_learning_rate}
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
    os.chdir(files.home())  # JupyterLab starts a kernel beside its notebook; all paths are the project's
    process.watch()
    process.claim_gpu(stage)
    chosen = parameters.check(stage, given, place).model_dump()
    return parameters.check(stage, resolve(stage, chosen, study), place)


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
    model, asked = STAGES[stage].model, load_study(study, files.home())
    section = getattr(asked, stage).model_dump()  # also what has no say in that run, as LoRA's rank in a bottleneck's
    for run in plan(asked):
        if run.stage == stage and all(run.params[n] == v for n, v in roles.items()):
            return {n: None if kind(model, n) in ("path", "auto") else section.get(n, v) for n, v in run.params.items()}
    raise UserError(f"{study} has no {stage} run with {roles}.")
