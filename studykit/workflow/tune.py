"""A study's trials run, and the study written again with the values that were best: `studykit tune params/x.yaml`.

Adapters are tuned first, since fusions are tried over members with the values that were found. Trials are ordinary
runs: they are shared, named by their content, and continued by the same command after a stop. A family that varies one
key is tuned at each of its levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from studykit.errors import UserError
from studykit.runs import files, store
from studykit.runs.manifest import finished_run
from studykit.study.family import StudyPlan, load_plan, with_named_levels
from studykit.study.file import Study, read_study
from studykit.study.plan import Run
from studykit.study.trials import SECTIONS, tuned_methods
from studykit.study.yaml_file import write_yaml
from studykit.workflow import run as workflow_run


@dataclass(frozen=True)
class _Tuned:
    """A study that is tuned: one of a family at one level, or the only one."""

    number: int  # among the family's levels
    level: str  # its name; "" where the file is one study
    study: Study
    trials: dict[str, list[list[str]]]  # runs by method, trial and seed

    def of(self, section: str) -> dict[str, list[list[str]]]:
        """The trials of the methods of a section."""
        return {m: self.trials[m] for m in tuned_methods(self.study, section) if m in self.trials}


def tune(planned: StudyPlan, cores: int | None, verbose: bool) -> int:
    """Runs the trials of a study and writes `<file>_tuned.yaml` beside its file; returns the exit code.

    Raises: UserError for a study without values to try, for a family that varies several keys, and for a file of that
        name that was written by hand.
    """
    study, file = planned.study, Path(planned.file)
    if planned.family and len(planned.family.vary) > 1:
        raise UserError(
            f"{file} varies {' and '.join(planned.family.vary)}; a family is tuned at each level of one key, so it may "
            "vary one."
        )
    if not any(tuned.trials for tuned in _studies(planned)):
        raise UserError(
            f"{file} has no values to try; name some in `tune`, as in "
            "tune: {adapter: {learning_rate: [5e-5, 1e-4, 2e-4]}}."
        )
    name = f"{study.study}_tuned"
    tuned_file = file.with_name(f"{name}.yaml")
    raw: dict[str, Any] = with_named_levels(read_study(file, files.home())) | {"study": name}
    title = f"# {file} with the values that"
    at = files.home() / tuned_file
    if at.exists() and not at.read_text(encoding="utf-8", errors="replace").startswith(title):
        raise UserError(f"{tuned_file} was not written by this command, which would replace it; move it away.")
    lines = [
        f"{title} `studykit tune {file}` found: for each method those of the trial with the",
        "# least completion loss on half of the validation rows; the other half selected the steps. A loss is the",
        f"# mean over the seeds {', '.join(map(str, study.tune.seeds))}, in brackets; every method has as many trials.",
    ]
    for section in SECTIONS:
        of_section = [(tuned, tuned.of(section)) for tuned in _studies(planned)]
        runs = store.run_dirs([trials for _, trials in of_section])
        if not runs:
            continue
        code = workflow_run.run(replace(planned, runs=_with_needs(planned, runs)), cores, False, verbose, [], False)
        if code:
            return code
        for tuned, trials in of_section:
            lines += _take_best(raw, tuned, section, trials)
        at.write_text("\n".join(lines) + "\n\n" + write_yaml(raw), encoding="utf-8")
        planned = load_plan(str(tuned_file))
    print(f"studykit: {tuned_file} has the values that were best; `studykit run {tuned_file}` runs it")
    return 0


def _studies(planned: StudyPlan) -> Iterator[_Tuned]:
    """The studies of a file with their trials."""
    compares = {run.dir: run for run in planned.runs if run.stage == "compare"}
    if not planned.family:
        yield _Tuned(0, "", planned.study, planned.result.params["trials"] or {})
    for number, member in enumerate(planned.members):
        compare = compares[planned.result.params["compares"][member.label]]
        (level,) = member.levels.values()
        yield _Tuned(number, str(level), member.study, compare.params["trials"] or {})


def _with_needs(planned: StudyPlan, directories: list[str]) -> list[Run]:
    """Runs and all that they need, in an order in which they can be made."""
    wanted = set(directories)
    for run in reversed(planned.runs):
        wanted |= {need.dir for need in run.needs} if run.dir in wanted else set()
    return [run for run in planned.runs if run.dir in wanted]


def _take_best(raw: dict[str, Any], tuned: _Tuned, section: str, trials: dict[str, list[list[str]]]) -> list[str]:
    """Writes the best values of each method into the study, or into its level; returns lines on the trials."""
    (levels,) = raw.get("vary", {"": {"": raw}}).values()
    changed = list(levels.values())[tuned.number]
    of_file, of_level = raw.get(section) or {}, changed.get(section) or {}
    by_method = dict(of_level.get("by_method") or of_file.get("by_method") or {})
    about = [f"# At {tuned.level}:"] if tuned.level and trials else []
    for method, directories in trials.items():
        tried = tuned.study.tune.combinations(section, method)
        losses = [[finished_run(x).manifest.about["trial_loss"] for x in of_seeds] for of_seeds in directories]
        means = [fmean(of_seeds) for of_seeds in losses]
        by_method[method] = (by_method.get(method) or {}) | tried[means.index(min(means))]
        about += [f"# {method}:", *map(_line, tried, means, losses)]
    if trials:
        changed[section] = of_level | {"by_method": by_method}
    return about


def _line(values: dict[str, Any], mean: float, losses: list[float]) -> str:
    named = ", ".join(f"{key} {value}" for key, value in values.items())
    return f"#   {named}: loss {mean:.4f} ({' '.join(f'{loss:.4f}' for loss in losses)})"
