"""The first page of a report: the question, its answer as a picture, the study's questions, and all runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bs4 import BeautifulSoup
from markupsafe import Markup

from studykit.report import glossary, summary
from studykit.report.documents import document, exported_tables, render
from studykit.runs import files as run_files
from studykit.runs import provenance
from studykit.runs.manifest import Manifest
from studykit.runs.status import Status
from studykit.study.file import Study
from studykit.study.methods import titled
from studykit.study.parameters import STAGES
from studykit.study.plan import Run

NOT_DONE = {  # states in the index, in this order
    "failed": "failed",
    "stopped": "stopped half-way",
    "damaged": "damaged",
    "outdated": "out of date",
    "running": "running",
    "missing": "not run yet",
}


@dataclass(frozen=True)
class StageRuns:
    """The runs of a stage as a matrix: a row per label, a column per seed."""

    stage: str
    seeds: list[int | None]  # the columns; None for runs without a seed
    rows: dict[str, list[Run | None]]  # the runs of a label in the order of `seeds`
    done: int
    seconds: float  # of all runs together
    number: str  # what the cells hold, the first number that the runs of this stage published; "" for none


@dataclass(frozen=True)
class Origins:
    """The commits, versions and machines of the finished runs, with the number of runs of each."""

    commits: list[tuple[Mapping[str, Any] | None, int]]
    versions: list[tuple[Mapping[str, str], int]]
    hosts: list[str]
    peak_memory_mb: float  # of the notebook that used most
    with_changes: bool  # whether the code of any run differed from its commit


def index_page(study: Study, file: str, statuses: dict[Run, Status], pages: dict[Run, str], mark: str) -> str:
    """Returns the first page of a study's report.

    Args:
        pages: the file names of the runs' pages.
        mark: a digest of what the page is made from.
    """
    manifests = [status.manifest for status in statuses.values() if status.manifest]
    compare_run, comparison = list(statuses.items())[-1]  # of a family, the run that gathers
    headline = comparison.manifest.headline if comparison.manifest and comparison.state == "done" else {}
    content = render(
        "index.html.j2",
        study=study,
        methods=[titled(word) for word in study.methods],
        question=study.question or f"How do {len(study.methods)} methods compare on {study.target}?",
        statuses=statuses,
        pages=pages,
        compare_run=compare_run,
        comparison=comparison,
        figures=list(headline.items()),
        family=summary.read_family(compare_run) if headline else None,
        studies=_study_pages(compare_run, pages),
        findings=summary.read_findings(compare_run, study.target) if headline else None,
        counts=Counter({"done": 0}) + Counter(status.state for status in statuses.values()),
        not_done=NOT_DONE,
        unfinished=[
            (run, status) for run, status in statuses.items() if status.state in ("failed", "stopped", "damaged")
        ],
        reasons=_reasons(statuses),
        total_seconds=sum(manifest.seconds for manifest in manifests),
        stages=_stages(statuses),
        tables=exported_tables(compare_run),
        commands=_commands(file, manifests),
        origins=_origins(manifests) if manifests else None,
    )
    soup = BeautifulSoup(content, "html.parser")
    glossary.explain(soup)
    content = Markup(str(soup))
    return document(f"{study.study.replace('_', ' ').capitalize()} · studykit", content, mark)


def _study_pages(gather_run: Run, pages: Mapping[Run, str]) -> dict[str, str]:
    """Returns the page of each study's own comparison, by study; nothing for a run that gathers none."""
    of_runs = {run.dir: page for run, page in pages.items()}
    compares = gather_run.params.get("compares") or {}
    return {study: of_runs[run] for study, run in compares.items() if run in of_runs}


def _reasons(statuses: dict[Run, Status]) -> list[tuple[Run, str]]:
    """Returns why the runs that are out of date or wait for another run are not done."""
    reasons = []
    for run, status in statuses.items():
        missing = [need for need in run.needs if statuses[need].state != "done"]
        waits = f"waits for {missing[0].stage} {missing[0].label}" if missing and not status.manifest else ""
        if status.state not in ("failed", "stopped", "damaged") and (reason := status.error or waits):
            reasons.append((run, reason))
    return reasons


def _stages(statuses: dict[Run, Status]) -> list[StageRuns]:
    """Returns the runs of each stage, in the order of the stages."""
    found = []
    for stage in STAGES:
        runs = [run for run in statuses if run.stage == stage]
        seeds = list(dict.fromkeys(run.params.get("seed") for run in runs))
        rows: dict[str, list[Run | None]] = {}
        for run in runs:
            seed = run.params.get("seed")
            label = run.label.replace(f"-s{seed}", "")
            row = rows.setdefault(label, [None] * len(seeds))
            if row[seeds.index(seed)] is None:
                row[seeds.index(seed)] = run
            else:  # two runs of one label, apart only in their keys
                rows.setdefault(f"{label} {run.key[:4]}", [None] * len(seeds))[seeds.index(seed)] = run
        manifests = [manifest for run in runs if (manifest := statuses[run].manifest)]
        numbers = next((list(manifest.headline) for manifest in manifests if manifest.headline), [""])
        done = sum(statuses[run].state == "done" for run in runs)
        if runs:
            seconds = sum(manifest.seconds for manifest in manifests)
            found.append(StageRuns(stage, seeds, rows, done, seconds, numbers[0]))
    return found


def _commands(file: str, manifests: list[Manifest]) -> str:
    """Returns the commands that reproduce a report, with a checkout if all runs are of one commit."""
    commits = {manifest.commit.id for manifest in manifests if manifest.commit}
    if not commits and (commit := provenance.commit(run_files.home())):
        commits = {commit.id}
    checkout = f"git checkout {commits.pop()[:12]}\n" if len(commits) == 1 else ""
    return f"{checkout}studykit run {file}"


def _origins(manifests: list[Manifest]) -> Origins:
    return Origins(
        commits=_counted([manifest.commit and manifest.commit.model_dump() for manifest in manifests]),
        versions=_counted([manifest.versions for manifest in manifests]),
        hosts=sorted({manifest.host for manifest in manifests}),
        peak_memory_mb=max(manifest.peak_memory_mb for manifest in manifests),
        with_changes=any(manifest.commit is not None and manifest.commit.dirty for manifest in manifests),
    )


def _counted(values: list[Any]) -> list[tuple[Any, int]]:
    """Returns the different values of a list with their numbers, the most frequent first."""
    counts = Counter(json.dumps(value) for value in values)
    return [(json.loads(value), count) for value, count in counts.most_common()]
