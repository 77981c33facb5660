"""A study's trials run, and the study written again with the values that were best: `studykit tune params/x.yaml`.

Adapters are tuned first, since fusions are tried over members with the values that were found. Trials are ordinary
runs: they are shared, named by their content, and continued by the same command after a stop.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from studykit.errors import UserError
from studykit.runs import files, store
from studykit.runs.manifest import finished_run
from studykit.study.family import StudyPlan, load_plan
from studykit.study.plan import Run
from studykit.study.trials import SECTIONS, tuned_methods
from studykit.study.yaml_file import read_yaml, write_yaml
from studykit.workflow import run as workflow_run


def tune(planned: StudyPlan, cores: int | None, verbose: bool) -> int:
    """Runs the trials of a study and writes `<file>_tuned.yaml` beside its file; returns the exit code.

    Raises: UserError for a study without values to try, and for a file of that name that was written by hand.
    """
    study, file = planned.study, Path(planned.file)
    if planned.members:
        raise UserError(f"{file} makes several studies (`vary`), of which each would be tuned; name one study.")
    if not study.tune.tries_something:
        raise UserError(
            f"{file} has no values to try; name some in `tune`, as in "
            "tune: {adapter: {learning_rate: [5e-5, 1e-4, 2e-4]}}."
        )
    name = f"{study.study}_tuned"
    tuned = file.with_name(f"{name}.yaml")
    raw: dict[str, Any] = read_yaml(file, files.home()) | {"study": name}
    title = f"# {file} with the values that"
    at = files.home() / tuned
    if at.exists() and not at.read_text(encoding="utf-8", errors="replace").startswith(title):
        raise UserError(f"{tuned} was not written by this command, which would replace it; move it away.")
    lines = [
        f"{title} `studykit tune {file}` found: for each method those of the trial with the",
        "# least completion loss on half of the validation rows; the other half selected the steps. A loss is the",
        f"# mean over the seeds {', '.join(map(str, study.tune.seeds))}, in brackets; every method has as many trials.",
    ]
    for section in SECTIONS:
        if not any(_trials(planned, section).values()):
            continue
        part_of_study = replace(planned, runs=_trial_runs(planned, section))
        code = workflow_run.run(part_of_study, cores, False, verbose, [], report=False)
        if code:
            return code
        found = _best(planned, section)
        part = raw.get(section) or {}
        own = part.get("by_method") or {}
        merged = own | {method: (own.get(method) or {}) | values for method, (values, _) in found.items()}
        raw[section] = part | {"by_method": merged}
        lines += [line for _, about in found.values() for line in about]
        at.write_text("\n".join(lines) + "\n\n" + write_yaml(raw), encoding="utf-8")
        planned = load_plan(str(tuned))
    print(f"studykit: {tuned} has the values that were best; `studykit run {tuned}` runs it")
    return 0


def _trials(planned: StudyPlan, section: str) -> dict[str, list[list[str]]]:
    """The trial runs of the methods of a section: by trial, one of each seed."""
    trials = planned.runs[-1].params["trials"]
    return {method: trials[method] for method in tuned_methods(planned.study, section) if method in trials}


def _trial_runs(planned: StudyPlan, section: str) -> list[Run]:
    """The trials of a section and all runs that they need, in an order in which they can be made."""
    wanted = set(store.run_dirs(_trials(planned, section)))
    for run in reversed(planned.runs):
        wanted |= {need.dir for need in run.needs} if run.dir in wanted else set()
    return [run for run in planned.runs if run.dir in wanted]


def _best(planned: StudyPlan, section: str) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """The best values of each method of a section, and lines of comment on its trials."""
    found = {}
    for method, directories in _trials(planned, section).items():
        tried = planned.study.tune.combinations(section, method)
        losses = [[finished_run(x).manifest.about["trial_loss"] for x in of_seeds] for of_seeds in directories]
        means = [fmean(of_seeds) for of_seeds in losses]
        lines = [_line(*trial) for trial in zip(tried, means, losses, strict=True)]
        found[method] = (tried[means.index(min(means))], [f"# {method}:", *lines])
    return found


def _line(values: dict[str, Any], mean: float, losses: list[float]) -> str:
    named = ", ".join(f"{key} {value}" for key, value in values.items())
    return f"#   {named}: loss {mean:.4f} ({' '.join(f'{loss:.4f}' for loss in losses)})"
