"""Reports of a study, in reports/<study>/: one self-contained page per run, an index, a zip.

The page of a run is its executed notebook without the code (see `html`), under a header that names
the run, its parameters, its code and its versions. The index holds the study's question, its main
results, every run with its state, and the commands that reproduce the report. Both are Jinja2
templates (`templates/`), whose engine escapes every text. A page requests nothing from any
network: its content policy forbids it, and allows no script but the explorer's.

A page is rendered again only when something that it shows has changed, so the report of a study is
cheap to refresh.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from studykit.errors import UserError
from studykit.report import summary
from studykit.runs import code_digest, provenance
from studykit.runs import files as run_files
from studykit.runs import status as runs_status
from studykit.runs.manifest import Manifest
from studykit.runs.status import Status
from studykit.runs.text import format_bytes, format_duration, format_value, plural
from studykit.study.fields import kind
from studykit.study.file import Study
from studykit.study.parameters import STAGES
from studykit.study.plan import Run, StudyPlan

FOLDER = Path(__file__).parent
MARK = "studykit-source"  # name of the <meta> that holds the digest of what a page was made from
TABLE_FORMATS = {"csv": "CSV", "md": "Markdown", "tex": "LaTeX"}  # endings of a comparison's exported tables
NOT_DONE = {  # states in the index, in this order
    "failed": "failed",
    "stopped": "stopped half-way",
    "damaged": "damaged",
    "outdated": "out of date",
    "running": "running",
    "missing": "not run yet",
}


def write_report(planned: StudyPlan) -> Path:
    """Renders the report of a study and returns the path of its index.

    The report shows as much of the study as has run. Raises UserError if another
    study has its name.
    """
    study, file = planned.study, planned.file
    require_unique_name(file, study)
    folder = run_files.home() / "reports" / study.study
    folder.mkdir(parents=True, exist_ok=True)
    statuses = runs_status.study_status(planned.runs)
    digest = renderer_digest()
    pages = {run: page_name(run) for run, status in statuses.items() if status.log}
    for run, name in pages.items():
        _refresh(folder / name, run, statuses[run], study, pages, digest)
    for page in folder.glob("*.html"):
        if page.name not in {"index.html", *pages.values()} and _mark_of(page):
            page.unlink()  # its run is no longer planned
            for ending in ("ipynb", *TABLE_FORMATS):
                page.with_suffix(f".{ending}").unlink(missing_ok=True)
    _write(folder / "index.html", index_page(study, file, statuses, pages))
    return folder / "index.html"


def pack_report(folder: Path) -> Path:
    """Packs the report in `folder` into a zip beside it, for mailing, and returns its path.

    The zip unpacks into a folder of the study's name. It appears whole or not at all.
    """
    part = shutil.make_archive(str(folder.with_name(f".{folder.name}")), "zip", folder.parent, folder.name)
    return Path(part).replace(folder.with_suffix(".zip"))


def require_unique_name(file: str, study: Study) -> None:
    """Raises UserError if another file in params/ has this study's name.

    Each of the two would remove the pages of the other.
    """
    for other in sorted((run_files.home() / "params").glob("*.y*ml")):
        text = other.read_text(encoding="utf-8", errors="replace")  # another study may be damaged
        name = re.search(r"^study:\s*['\"]?(\w+)", text, flags=re.M)
        if name and name[1] == study.study and not other.samefile(run_files.home() / file):
            raise UserError(
                f"{file} and params/{other.name} both have study: {study.study}, and so one report; "
                "give one of them another name."
            )


def page_name(run: Run) -> str:
    """Returns a run's file name, such as 02_adapter-lua-bottleneck-s0-0123456789.html."""
    return f"{STAGES[run.stage].notebook}-{run.label}-{run.key}.html"


def renderer_digest() -> str:
    """Returns a digest of the code, templates, styles and scripts that decide how a page looks."""
    hashed = hashlib.sha256(code_digest.digest_modules("report.pages", without=("study",)).encode())
    for file in sorted(FOLDER.rglob("*")):
        if file.suffix in (".j2", ".css", ".js"):
            hashed.update(file.read_bytes())
    return hashed.hexdigest()[:16]


def exported_tables(run: Run) -> dict[str, Path]:
    """Returns the tables that a run has written for spreadsheets and papers, by their endings."""
    files = {ending: run_files.home() / run.dir / f"table.{ending}" for ending in TABLE_FORMATS}
    return {ending: file for ending, file in files.items() if file.is_file()}


def _refresh(page: Path, run: Run, status: Status, study: Study, pages: dict[Run, str], digest: str) -> None:
    """Writes the page of a run, its notebook and its tables, unless they show the same already."""
    current = run_files.home() / run.notebook
    prose = current.read_bytes() if current.is_file() else b""
    log = status.log.read_bytes() if status.log else b""
    links = [pages[need] for need in run.needs if need in pages]
    record = status.manifest.model_dump() if status.manifest else None
    shown = json.dumps([study.study, digest, status.state, status.error, record, run.params, links])
    mark = hashlib.sha256(b"\0".join([shown.encode(), prose, log])).hexdigest()
    if _mark_of(page) == mark:
        return
    page.with_suffix(".ipynb").write_bytes(log)
    for ending, file in exported_tables(run).items():
        _write(page.with_suffix(f".{ending}"), file.read_text(encoding="utf-8"))
    _write(page, run_page(run, status, study, pages, log, prose, mark))


def _mark_of(page: Path) -> str | None:
    """Returns the digest in a page of what it was made from; None for a foreign or missing file."""
    try:
        with open(page, encoding="utf-8") as text:
            mark = re.search(rf'name="{MARK}" content="(\w+)"', text.read(2000))
    except OSError:
        return None
    return mark[1] if mark else None


def _write(file: Path, text: str) -> None:
    """Writes a file whole or not at all; lone surrogates, which no file can hold, become "?"."""
    part = file.with_name(f"{file.name}.part")
    part.write_text(text, encoding="utf-8", errors="replace")
    part.replace(file)


# Templates


@cache
def _templates() -> Environment:
    """Returns the engine of all templates; it escapes every value that is not clean HTML."""
    engine = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters |= {
        "duration": format_duration,
        "memory": lambda mebibytes: format_bytes(mebibytes * 2**20),
        "number": lambda value: format_value(value, 3),
        "ordered_parameters": _ordered_parameters,
        "plural": plural,
        "state_words": lambda state: runs_status.WORDS.get(state, state),
        "strong": lambda text: Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text)))),
        "words": lambda name: name.replace("_", " "),
    }
    return engine


def _render(template: str, **values: Any) -> Markup:
    return Markup(_templates().get_template(template).render(values))


def document(title: str, content: Markup, mark: str) -> str:
    """Returns a whole page: its content policy allows what is inside it and nothing else.

    Args:
        content: clean HTML; a frame in it can only be an explorer's, whose script the policy then
            names by its hash.
        mark: a digest of what the page is made from.
    """
    scripts = "'none'"
    if "<iframe" in content:
        from studykit.report.explorer.page import content_hash, page_script  # imports matplotlib

        scripts = f"'{content_hash(page_script())}'"
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'"
    )
    style = Markup((FOLDER / "report.css").read_text(encoding="utf-8"))
    values = {"policy": policy, "mark_name": MARK, "mark": mark, "title": title, "style": style, "content": content}
    return str(_render("document.html.j2", **values))


def _ordered_parameters(run: Run) -> list[tuple[str, Any]]:
    """Returns a run's parameters with their values: its role first, the paths of its inputs last."""
    model = STAGES[run.stage].model
    ranks: dict[str | None, int] = {"role": 0, "path": 2}
    names = sorted(run.params, key=lambda name: ranks.get(kind(model, name), 1))
    return [(name, run.params[name]) for name in names if name != "out"]


# The page of a run


def run_page(run: Run, status: Status, study: Study, pages: dict[Run, str], log: bytes, prose: bytes, mark: str) -> str:
    """Returns the page of a run.

    Args:
        pages: the file names of all pages of the report.
        log: the executed notebook, as far as it came.
        prose: the notebook as it is now; empty if there is none.
        mark: a digest of what the page is made from.
    """
    import nbformat  # slow to import, as is nbconvert, and needed only where a notebook has changed

    from studykit.report.html import RenderedNotebook, render_notebook

    try:
        executed = nbformat.reads(log.decode(), as_version=4)
        current = nbformat.reads(prose.decode(), as_version=4) if prose else None
        notebook = render_notebook(executed, current)
    except Exception as error:  # one damaged notebook must not take the whole report with it
        message = Markup("<p>The executed notebook is damaged and cannot be shown ({}: {}).</p>")
        notebook = RenderedNotebook(Markup(), message.format(type(error).__name__, error))
    content = _render(
        "run.html.j2",
        run=run,
        status=status,
        study=study,
        pages=pages,
        notebook=notebook,
        inputs=[need for need in run.needs if need in pages],
        stem=page_name(run).removesuffix(".html"),
        tables={ending: TABLE_FORMATS[ending] for ending in exported_tables(run)},
    )
    return document(f"{run.label} · {run.stage} · {study.study}".replace("_", " "), content, mark)


# The index


@dataclass(frozen=True)
class StageShare:
    """The computing time of a stage's runs."""

    stage: str
    runs: int
    seconds: float
    percent: float  # of the stage that took longest


@dataclass(frozen=True)
class Origins:
    """The commits, versions and machines of the finished runs, with the number of runs of each."""

    commits: list[tuple[Mapping[str, Any] | None, int]]
    versions: list[tuple[Mapping[str, str], int]]
    hosts: list[str]
    peak_memory_mb: float  # of the notebook that used most
    with_changes: bool  # whether the code of any run differed from its commit


def index_page(study: Study, file: str, statuses: dict[Run, Status], pages: dict[Run, str]) -> str:
    """Returns the first page of a study's report."""
    manifests = [status.manifest for status in statuses.values() if status.manifest]
    compare_run, comparison = next((run, status) for run, status in statuses.items() if run.stage == "compare")
    headline = comparison.manifest.headline if comparison.manifest and comparison.state == "done" else {}
    content = _render(
        "index.html.j2",
        study=study,
        question=study.question or f"How do {len(study.methods)} methods compare on {study.target}?",
        statuses=statuses,
        pages=pages,
        compare_run=compare_run,
        comparison=comparison,
        figures=list(headline.items()),
        scores=summary.read_score_table(run_files.home() / compare_run.dir, study.target) if headline else None,
        counts=Counter({"done": 0}) + Counter(status.state for status in statuses.values()),
        not_done=NOT_DONE,
        unfinished=[
            (run, status) for run, status in statuses.items() if status.state in ("failed", "stopped", "damaged")
        ],
        waiting_for=lambda run: _waiting_for(run, statuses),
        total_seconds=sum(manifest.seconds for manifest in manifests),
        stage_times=_stage_times(statuses),
        commands=_commands(file, manifests),
        origins=_origins(manifests) if manifests else None,
    )
    return document(f"{study.study.replace('_', ' ').capitalize()} · studykit", content, "index")


def _waiting_for(run: Run, statuses: dict[Run, Status]) -> str:
    """Returns the input that a run waits for, in words; "" for a run that is done or could start."""
    missing = [need for need in run.needs if statuses[need].state != "done"]
    if not missing or statuses[run].manifest:
        return ""
    return f"waits for {missing[0].stage} {missing[0].label}"


def _stage_times(statuses: dict[Run, Status]) -> list[StageShare]:
    seconds: dict[str, list[float]] = {}
    for run, status in statuses.items():
        if status.manifest:
            seconds.setdefault(run.stage, []).append(status.manifest.seconds)
    longest = max(map(sum, seconds.values()), default=0) or 1
    return [
        StageShare(stage, len(seconds[stage]), sum(seconds[stage]), 100 * sum(seconds[stage]) / longest)
        for stage in STAGES
        if stage in seconds
    ]


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
