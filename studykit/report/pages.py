"""Reports of a study, in reports/<study>/: one self-contained page per run, an index, a zip.

The page of a run is its executed notebook without the code (see `html`), under a header that names
the run, its parameters, its code and its versions. The first page is that of `index`.

A page is rendered again only when something that it shows has changed, so the report of a study is
cheap to refresh.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

from markupsafe import Markup

from studykit.errors import UserError
from studykit.report.documents import FOLDER, MARK, TABLE_FORMATS, document, exported_tables, render
from studykit.runs import code_digest, provenance
from studykit.runs import files as run_files
from studykit.runs import status as runs_status
from studykit.runs.status import Status
from studykit.study.family import StudyPlan
from studykit.study.file import Study
from studykit.study.parameters import STAGES
from studykit.study.plan import Run


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
    index = folder / "index.html"
    mark = _mark_of_index(planned, statuses, pages, digest)
    if _mark_of(index) != mark:
        from studykit.report.index import index_page  # it draws figures: nothing else waits for matplotlib

        _write(index, index_page(study, file, statuses, pages, mark))
    return index


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
                f"{file} and params/{other.name} both have the name study: {study.study} and would overwrite each "
                "other's report; give one of them another name."
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
    for ending in exported_tables(run):
        text = (run_files.home() / run.dir / f"table.{ending}").read_text(encoding="utf-8")
        _write(page.with_suffix(f".{ending}"), text)
    _write(page, run_page(run, status, study, pages, log, prose, mark))


def _mark_of_index(planned: StudyPlan, statuses: dict[Run, Status], pages: dict[Run, str], digest: str) -> str:
    """Returns a digest of all that the first page shows; where no run has a commit, it names this checkout."""
    records = [
        [run.dir, pages.get(run), status.state, status.error, status.manifest and status.manifest.model_dump()]
        for run, status in statuses.items()
    ]
    has_commit = any(status.manifest and status.manifest.commit for status in statuses.values())
    commit = None if has_commit else provenance.commit(run_files.home())
    words = code_digest.digest_modules("study.methods")  # with the titles of methods and stages
    shown = [planned.study.model_dump(), planned.file, digest, words, commit and commit.id, records]
    return hashlib.sha256(json.dumps(shown, default=str).encode()).hexdigest()


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


def run_page(run: Run, status: Status, study: Study, pages: dict[Run, str], log: bytes, prose: bytes, mark: str) -> str:
    """Returns the page of a run.

    Args:
        pages: the file names of all pages of the report.
        log: the executed notebook, as far as it came.
        prose: the notebook as it is now; empty if there is none.
        mark: a digest of what the page is made from.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # it takes seconds: see workflow.papermill
    import nbformat  # slow to import, as is nbconvert, and needed only where a notebook has changed

    from studykit.report.html import RenderedNotebook, render_notebook

    try:
        executed = nbformat.reads(log.decode(), as_version=4)
        current = nbformat.reads(prose.decode(), as_version=4) if prose else None
        notebook = render_notebook(executed, current, study.methods)
    except Exception as error:  # one damaged notebook must not take the whole report with it
        message = Markup("<p>The executed notebook is damaged and cannot be shown ({}: {}).</p>")
        notebook = RenderedNotebook(Markup(), message.format(type(error).__name__, error))
    content = render(
        "run.html.j2",
        run=run,
        status=status,
        study=study,
        pages=pages,
        notebook=notebook,
        inputs=[need for need in run.needs if need in pages],
        stem=page_name(run).removesuffix(".html"),
        tables=exported_tables(run),
    )
    return document(f"{run.label} · {run.stage} · {study.study}".replace("_", " "), content, mark)
