"""The parameters of a notebook, run by hand or by Snakemake: checked, and completed from a study."""

from __future__ import annotations

import ast
import os
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from studykit.errors import UserError, show
from studykit.runs import files, process, status
from studykit.runs.manifest import read_manifest
from studykit.study import parameters
from studykit.study.family import load_plan
from studykit.study.fields import kind
from studykit.study.file import Study, load_study
from studykit.study.gather_parameters import GatherSection
from studykit.study.methods import ATTENTIVE, changes
from studykit.study.parameters import STAGES
from studykit.study.plan import Run, plan
from studykit.study.run_names import directory, reset_unused

QUICKSTART = "params/quickstart.yaml"
KERNEL_NAMES = {"In", "Out"}  # what IPython itself puts among a notebook's names
LATE = 0.3  # seconds after which the cells that follow a failed one have arrived: only these are skipped by the kernel
SCROLL = "setTimeout(() => element.closest('.jp-Cell')?.scrollIntoView({block: 'center'}), 500)"


def resolve(stage: str, values: dict[str, Any], study: str = QUICKSTART) -> dict[str, Any]:
    """Returns the validated parameters of a notebook run by hand; values of None come from the study in file `study`.

    The study's run of the same role (language, method, seed) lends its inputs. The study is read only when something is
    missing. Raises UserError when the study has no such run.
    """
    model = STAGES[stage].model
    asked = [n for n in values if n != "out" and kind(model, n) not in (None, "plan_only")]
    missing = [n for n in asked if values[n] is None]
    missing = [n for n in missing if n != "steps" or values["epochs"] is None]
    if stage == "gather" and missing:  # its file says how a family is gathered, in keys that None and [] do not set
        missing += [n for n in GatherSection.model_fields if n not in missing and values[n] in (None, [])]
    if missing:
        lent = _lent(stage, values, study)
        said_of_inputs = [n for n in values if values[n] is None and kind(model, n) == "plan_only"]
        values = values | {n: lent[n] for n in (*missing, *said_of_inputs)}
    values = reset_unused(stage, values)
    if values["out"] is None:
        values = values | {"out": directory(stage, values)}
    return values


# Parameters that say which run of the study lends its inputs: those that must be equal, then those that should be.
ROLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "adapter": (("language",), ("method", "seed")),
    "fusion": (("target", "seed"), ("method", "mask", "masked_member", "left_out", "placebo", "variant")),
    "evaluate": (("language", "method"), ()),
    "fusion_attention": (("method",), ()),
}


def _lent(stage: str, values: dict[str, Any], file: str) -> dict[str, Any]:
    """The parameters of the study's run whose inputs this one should have.

    A seed or a method that the study does not have is added to it: the runs that are then needed are named by their
    content, so those that were made by hand are found. Raises UserError if they are not finished yet.
    """
    lending = load_plan(file, files.home())
    study, planned = lending.study, lending.runs
    if stage == "base_model" and values["base"] not in (None, study.base):  # what a base reads depends on which it is
        planned = plan(study.model_copy(update={"base": values["base"]}))
    required, preferred = ROLES.get(stage, ((), ()))
    roles = {name: values[name] for name in required if values[name] is not None}
    wanted = roles | {name: values[name] for name in preferred if values.get(name) is not None}
    lender = _lender(planned, stage, wanted)
    if lender is None:
        widened = _widened(study, stage, values)
        lender = _lender(plan(widened), stage, wanted) if widened else None
        if lender and widened:
            _require_finished(stage, file, lender, {run.dir for run in planned}, widened)
    lender = lender or _lender(planned, stage, roles)
    if lender is None:
        asked = ", ".join(f"{name}={show(value)}" for name, value in roles.items())
        present = dict.fromkeys(
            ", ".join(show(run.params[name]) for name in roles) for run in planned if run.stage == stage
        )
        raise UserError(
            f"{STAGES[stage].notebook}: {file} has no run with {asked}; it has "
            f"{'; '.join(present) or 'none at all'}. For another one, name a study that has it in `study`."
        )
    return lender.params


def _lender(planned: list[Run], stage: str, wanted: dict[str, Any]) -> Run | None:
    """The first run of a stage with these parameters."""
    alike = (run for run in planned if run.stage == stage)
    return next((run for run in alike if all(run.params[name] == value for name, value in wanted.items())), None)


def _widened(study: Study, stage: str, values: dict[str, Any]) -> Study | None:
    """The study with the seed and the method of a notebook added; None if it cannot have them."""
    word = values.get("method")
    if stage == "fusion":
        masks = {method: word for word, method in ATTENTIVE.items()}
        word = masks.get((values["method"], values["mask"]), values["method"])
        word += f"-{values['variant']}" if values["variant"] != "full" else ""
        word += changes(values)
    raw = study.model_dump()
    for key, value in (("seeds", values.get("seed")), ("methods", word)):
        if value is not None and value not in raw[key]:
            raw[key] = [*raw[key], value]
    try:
        return Study.model_validate(raw)
    except ValidationError:
        return None


def _require_finished(stage: str, file: str, run: Run, planned: set[str], widened: Study) -> None:
    """Raises UserError if a run needs one that is neither finished nor planned by the study."""
    missing = [need for need in run.needs if need.dir not in planned and read_manifest(files.home() / need.dir) is None]
    if missing:
        names = ", ".join(need.name for need in missing[:3]) + (f" and {len(missing) - 3} more" if missing[3:] else "")
        notebook = STAGES[missing[0].stage].notebook
        raise UserError(
            f"{STAGES[stage].notebook}: {file} does not have these parameters, and the runs that they need do not "
            f"exist yet ({names}); make them with {notebook}, or with `studykit run` and a copy of the study that has "
            f"seeds: {widened.seeds} and methods: [{', '.join(widened.methods)}]."
        )


def from_notebook(stage: str, names: dict[str, Any]) -> Any:
    """Returns the parameters of a notebook from its `globals()`, validated and resolved.

    Called right after the parameters cell: any public name that is no parameter, module or callable must then be a
    misspelt parameter (papermill only warns of those). When the notebook is run again in the same kernel, its other
    names are there too; then the parameters cell itself says what was asked for. `study` names the file that fills in
    what is None.
    """
    fields = {*STAGES[stage].model.model_fields, "study"}
    mine = _assigned(names.get("In") or [])
    given = {
        n: v
        for n, v in names.items()
        if not (n.startswith("_") or n in KERNEL_NAMES or callable(v) or isinstance(v, ModuleType))
        and (mine is None or n in fields | mine)
    }
    if hidden := [n for n in names if n in fields and n not in given]:
        raise UserError(f"{STAGES[stage].notebook}: {hidden[0]} now names code; run the parameters cell again.")
    if not process.is_under_command() and "get_ipython" in names:
        names["get_ipython"]().events.register("post_run_cell", show_failed_cell)
    study = given.pop("study", QUICKSTART)
    place = STAGES[stage].notebook
    if not isinstance(study, str):
        raise UserError(f"{place}: study is {show(study)}; it must be a study file such as {QUICKSTART}.")
    os.chdir(files.home())  # JupyterLab starts a kernel beside its notebook; all paths are the project's
    process.watch()
    process.claim_gpu(stage)
    chosen = parameters.check(stage, given, place).model_dump()
    resolved = parameters.check(stage, resolve(stage, chosen, study), place)
    if not process.is_under_command():
        print(_describe(stage, resolved.out))
    return resolved


def show_failed_cell(result: Any) -> None:
    """Scrolls JupyterLab to a cell that failed, by IPython's result of it: "Run All Cells" leaves it at the last cell,
    and the message out of sight."""
    if not result.success:
        from IPython.display import display  # there where a kernel calls this

        time.sleep(LATE)
        display({"application/javascript": SCROLL, "text/plain": "(The error stands above.)"}, raw=True)


def _describe(stage: str, out: str) -> str:
    """One sentence, for a reader who has changed parameters: which run they name, and whether it is finished."""
    name, found = f"{stage}/{Path(out).name}", status.run_status(out)
    begun = (files.staging_dir(name) / "attempt.json").is_file()
    known = {
        "done": "is finished; the cells below show it",
        "running": f"is not finished: {found.error}",
        "damaged": f"is damaged ({found.error}); the cells below make it again",
    }
    unfinished = "was stopped; the cells below continue it" if begun else "does not exist yet; the cells below make it"
    return f"The parameters are valid. The run {name} {known.get(found.state, unfinished)}."


def _assigned(history: list[str]) -> set[str] | None:
    """Names that the parameters cells right before this one assign, by IPython's list of executed cells; nothing if
    this cell runs again alone. None if the history does not show them."""
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
    """Returns what a notebook's parameters cell should say.

    This is the study's first run of `stage` (with these roles), in which everything that the study fills in by itself
    is None.
    """
    model, asked = STAGES[stage].model, load_study(study, files.home())
    section = getattr(asked, stage).model_dump()  # also what has no say in that run, as LoRA's rank in a bottleneck's
    for run in plan(asked):
        if run.stage == stage and all(run.params[n] == v for n, v in roles.items()):
            said = {n: v if section.get(n) is None else section[n] for n, v in run.params.items()}  # null: as published
            return {n: None if kind(model, n) in ("path", "auto") else v for n, v in said.items()}
    raise UserError(f"{study} has no {stage} run with {roles}.")
