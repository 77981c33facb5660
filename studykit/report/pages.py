"""Reports of a study: one self-contained page per run and an index, in reports/<study>/.

A page is the run's executed notebook without its code (see `rendering`) under a header that says what was run with
which parameters, code and versions. The index has the question, the headline figures, every run and how it stands, and
how to make all of it again. Pages request nothing from any network, and a content policy in them forbids it.

A page is rendered again only when something that it shows has changed, so the report of a study is cheap to refresh.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from studykit.errors import UserError
from studykit.report import summary
from studykit.runs import code_digest, provenance
from studykit.runs import files as run_files
from studykit.runs import status as runs_status
from studykit.runs.status import Status
from studykit.study import plan
from studykit.study.file import Study, load_study
from studykit.study.parameters import STAGES, kind
from studykit.study.plan import Run

STYLE = Path(__file__).with_name("report.css")
MARK = "studykit-source"
TABLES = {"csv": "CSV", "md": "Markdown", "tex": "LaTeX"}  # of a comparison: table.csv ..., copied beside its page
esc = html.escape


def write(file: str) -> Path:
    """Render the report of the study in `file`, whatever of it has run; the path of its index."""
    study = load_study(file, run_files.home(), check_paths=False)
    only_of_its_name(file, study)
    planned = plan.plan(study)
    folder = run_files.home() / "reports" / study.study
    folder.mkdir(parents=True, exist_ok=True)
    found = runs_status.of_study(planned)
    code = code_digest.digest_modules("report.pages", without=("study",))
    pages = {run: page_name(run) for run, status in found.items() if status.log}
    for run, name in pages.items():
        _refresh(folder / name, run, found[run], study, pages, code)
    for page in folder.glob("*.html"):
        if page.name not in {"index.html", *pages.values()} and _mark(page):
            page.unlink()  # of a run that is no longer planned
            for kind in ("ipynb", *TABLES):
                page.with_suffix(f".{kind}").unlink(missing_ok=True)
    _put(folder / "index.html", index(study, file, found, pages))
    return folder / "index.html"


def only_of_its_name(file: str, study: Study) -> None:
    """UserError if another file in params/ has this study's name: each would remove the pages of the other."""
    for other in sorted((run_files.home() / "params").glob("*.y*ml")):
        text = other.read_text(encoding="utf-8", errors="replace")  # another study may be damaged
        named = re.search(r"^study:\s*['\"]?(\w+)", text, flags=re.M)
        if named and named[1] == study.study and not other.samefile(run_files.home() / file):
            raise UserError(f"{file} and params/{other.name} both have study: {study.study}, and so one report; "
                            "give one of them another name.")  # fmt: skip


def page_name(run: Run) -> str:
    return f"{STAGES[run.stage].notebook}-{run.label}-{run.key}.html"


def _refresh(target: Path, run: Run, status: Status, study: Study, pages: dict[Run, str], code: str) -> None:
    current = run_files.home() / run.notebook
    prose = current.read_bytes() if current.is_file() else b""
    linked = [pages[n] for n in run.needs if n in pages]
    shown = json.dumps([study.study, code, status.state, status.error, status.manifest, run.params, linked])
    mark = hashlib.sha256(b"\0".join([shown.encode(), prose, status.log.read_bytes()])).hexdigest()
    if _mark(target) != mark:
        import nbformat  # as slow to import as rendering, and needed as rarely

        notebook = nbformat.reads(status.log.read_text(encoding="utf-8"), as_version=4)
        now = nbformat.reads(prose.decode(), as_version=4) if prose else None
        _put(target.with_suffix(".ipynb"), status.log.read_text(encoding="utf-8"))
        for kind, file in tables(run).items():
            _put(target.with_suffix(f".{kind}"), file.read_text(encoding="utf-8"))
        _put(target, page(run, status, study, pages, notebook, now, mark))


def tables(run: Run) -> dict[str, Path]:
    """The tables that a finished run has left for spreadsheets and papers, by their kind."""
    files = {kind: run_files.home() / run.dir / f"table.{kind}" for kind in TABLES}
    return {kind: file for kind, file in files.items() if file.is_file()}


def _mark(page: Path) -> str | None:
    """The digest of what a page was made from, as it says itself; None for a foreign or missing file."""
    try:
        with open(page, encoding="utf-8") as text:
            found = re.search(rf'name="{MARK}" content="(\w+)"', text.read(2000))
    except OSError:
        return None
    return found[1] if found else None


def _put(target: Path, text: str) -> None:
    part = target.with_name(target.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(target)


# Pages


def page(run: Run, status: Status, study: Study, pages: dict[Run, str], notebook: Any, prose: Any, mark: str) -> str:
    """The HTML of one run."""
    from studykit.report import (
        html as report_html,  # nbconvert is slow to import and needed only when a notebook has changed
    )

    title, content = report_html.body(notebook, prose)
    made = status.manifest or {}
    lines = [f"{state(status)} <span class='mono'>{esc(run.name)}</span>"]
    if made:
        where = f"{_plural(made['threads'], 'thread')}, {esc(made['device'])}"
        where += f", attempt {made['attempt']}" if made["attempt"] > 1 else ""
        lines.append(f"{esc(made['started'][:16].replace('T', ' '))} UTC, {duration(made['seconds'])}, "
                     f"{made['peak_memory_mb']} MB at most, {where}")  # fmt: skip
        lines.append(f"{_commit(made['commit'])}, {_versions(made['versions'])}")
    if status.error:
        lines.append(f"<span class='error'>{esc(status.error)}</span>")
    stands = [f"<a href='{esc(pages[n])}'>{esc(_words(n.stage))} {esc(n.label)}</a>" for n in run.needs if n in pages]
    inputs = f"<summary>Stands on {_plural(len(stands), 'run')}</summary><p class='meta'>{', '.join(stands)}</p>"
    back = f'<a href="index.html">← {esc(_words(study.study).capitalize())}</a>'
    header = (f"<nav>{back} · {esc(_words(run.stage))}</nav>"
              + f"<h1>{title or esc(_words(run.stage).capitalize())}</h1>"
              + "".join(f'<div class="meta">{line}</div>' for line in lines)
              + f"<details><summary>Parameters</summary>{parameters(run)}</details>"
              + (f"<details>{inputs}</details>" if stands else ""))  # fmt: skip
    stem = esc(page_name(run)).removesuffix(".html")
    links = [f'<a href="index.html">All runs of {esc(_words(study.study))}</a>',
             f'<a href="{stem}.ipynb">the executed notebook</a>']  # fmt: skip
    if kinds := [f'<a href="{stem}.{kind}">{TABLES[kind]}</a>' for kind in tables(run)]:
        links.append(f"its tables as {', '.join(kinds)}")
    footer = f"<footer>{' · '.join(links)}</footer>"
    tab = f"{run.label} · {_words(run.stage)} · {_words(study.study)}"
    return document(tab, f"<header>{header}</header><main>{content}</main>{footer}", mark)


def document(title: str, content: str, mark: str) -> str:
    """A whole page. Its content policy allows what is inside it and nothing else; scripts only if it has frames."""
    scripts = "'unsafe-inline'" if "<iframe" in content else "'none'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {scripts}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="{MARK}" content="{mark}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{esc(title)}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style></head>\n"
        f"<body>\n{content}\n</body></html>\n"
    )


def parameters(run: Run) -> str:
    """A run's parameters as a table; inputs by their names."""
    def cell(value: Any) -> str:
        if isinstance(value, dict):
            return "<br>".join(f"{esc(str(k))}: {cell(v)}" for k, v in value.items())
        if isinstance(value, list):
            return ", ".join(cell(v) for v in value) or "none"
        return esc("none" if value is None else str(value).removeprefix("runs/"))

    own = {n: v for n, v in run.params.items() if n != "out"}
    order = sorted(own, key=lambda n: {"role": 0, "path": 2}.get(kind(STAGES[run.stage].model, n) or "", 1))
    rows = "".join(f"<tr><th scope='row'>{esc(n)}</th><td>{cell(own[n])}</td></tr>" for n in order)
    return f'<div class="scroll"><table class="parameters"><tbody>{rows}</tbody></table></div>'


# The index


def index(study: Study, file: str, found: dict[Run, Status], pages: dict[Run, str]) -> str:
    """The HTML of a study's first page."""
    question = study.question or f"How do {len(study.methods)} methods compare on {study.target}?"
    parts = [
        f"<nav>studykit · {esc(study.task)} · {esc(study.target)}</nav>",
        f"<h1>{esc(_words(study.study)).capitalize()}</h1>",
        f'<p class="lead">{esc(question)}</p>',
        f'<p class="meta">Target {esc(study.target)}; sources {esc(", ".join(study.languages))}. Base {esc(study.base)}'
        f'{"" if study.quantization == "none" else " in " + esc(study.quantization)}. '
        f'Methods {esc(", ".join(study.methods))}. Seeds {", ".join(map(str, study.seeds))}.</p>',
        _headline(found, pages), _progress(found), _failures(found, pages),
        "<h2>Runs</h2>", _table(found, pages), "<h2>Time</h2>", _times(found),
        "<h2>Make it again</h2>", _again(file, found),
    ]  # fmt: skip
    return document(f"{_words(study.study).capitalize()} · studykit", "\n".join(parts), "index")


def _headline(found: dict[Run, Status], pages: dict[Run, str]) -> str:
    run, status = next((r, s) for r, s in found.items() if r.stage == "compare")
    if status.state == "outdated":  # numbers that are no longer true are not shown as what was found
        return f'<p class="error">The comparison is out of date: {esc(status.error.rstrip("."))}.</p>'
    if status.state != "done" or not status.manifest["headline"]:
        return ""
    if told := summary.read(run_files.home() / run.dir):
        shown = summary.block(told, run.params["target"])
    else:
        figures = status.manifest["headline"].items()
        tiles = "".join(f"<div><dt>{esc(_words(n))}</dt><dd>{number(v)}</dd></div>" for n, v in figures)
        shown = f'<dl class="tiles">{tiles}</dl>'
    whole = pages.get(run)
    link = f'<p><a href="{esc(whole)}">The whole comparison</a></p>' if whole else ""
    return f"<h2>What was found</h2>{shown}{link}"


def _progress(found: dict[Run, Status]) -> str:
    counts = Counter(s.state for s in found.values())
    seconds = sum(s.manifest["seconds"] for s in found.values() if s.manifest)
    said = [f"{counts['done']} of {len(found)} runs are done"]
    said += [f"{counts[s]} {w}" for s, w in (("failed", "failed"), ("stopped", "stopped half-way"),
             ("outdated", "out of date"), ("running", "running"), ("missing", "not run yet")) if counts[s]]  # fmt: skip
    return f'<p class="meta">{", ".join(said)}; {duration(seconds)} of computing in all.</p>'


def _failures(found: dict[Run, Status], pages: dict[Run, str]) -> str:
    bad = [(r, s) for r, s in found.items() if s.state in ("failed", "stopped")]
    if not bad:
        return ""
    items = "".join(f"<li>{_link(r, pages)}: {esc(s.error)}</li>" for r, s in bad)
    return f'<div class="callout" role="alert"><p><strong>Not everything ran.</strong></p><ul>{items}</ul></div>'


def _table(found: dict[Run, Status], pages: dict[Run, str]) -> str:
    rows, last = [], None
    for run, status in found.items():
        made = status.manifest or {}
        stage = "" if run.stage == last else esc(_words(run.stage))
        last = run.stage
        figures = list(made.get("headline", {}).items())[:2] if run.stage != "compare" else []  # those stand on top
        numbers = " · ".join(f"{esc(_words(n))} {number(v)}" for n, v in figures)
        waits = [n for n in run.needs if found[n].state != "done"]
        error = status.error or (f"waits for {waits[0].stage} {waits[0].label}" if waits and not made else "")
        rows.append(
            f"<tr><th scope='row'>{stage}</th><td class='what'><div>{_link(run, pages)}"
            + (f"<span class='headline'>{numbers}</span>" if numbers else "")
            + (f"<span class='error'>{esc(error)}</span>" if error else "")
            + f"<details><summary>parameters</summary>{parameters(run)}</details></div></td>"
            f"<td>{state(status)}</td><td class='number'>{duration(made['seconds']) if made else ''}</td></tr>"
        )
    head = "<tr><th>Stage</th><th>Run</th><th>State</th><th class='number'>Time</th></tr>"
    body = f"<thead>{head}</thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll"><table class="runs list">{body}</table></div>'


def _times(found: dict[Run, Status]) -> str:
    spent, count = Counter(), Counter()
    for run, status in found.items():
        if status.manifest:
            spent[run.stage] += status.manifest["seconds"]
            count[run.stage] += 1
    if not spent:
        return "<p class='meta'>Nothing has run yet.</p>"
    most = max(spent.values()) or 1
    rows = "".join(
        f"<tr><th scope='row'>{esc(_words(s))}</th><td class='number'>{count[s]}</td>"
        f"<td class='number'>{duration(spent[s])}</td>"
        f"<td style='width:60%'><span class='bar' style='width:{100 * spent[s] / most:.1f}%'></span></td></tr>"
        for s in STAGES if s in spent
    )  # fmt: skip
    head = "<tr><th>Stage</th><th class='number'>Runs</th><th class='number'>Computing</th><th>Share</th></tr>"
    return (f'<div class="scroll"><table class="runs"><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
            "<p class='meta'>Seconds that runs took, all attempts counted, summed; runs may overlap.</p>")  # fmt: skip


def _again(file: str, found: dict[Run, Status]) -> str:
    made = [s.manifest for s in found.values() if s.manifest]
    ids = {m["commit"]["id"] for m in made if m["commit"]} or {(provenance.commit(run_files.home()) or {"id": ""})["id"]}
    code = f"git checkout {ids.pop()[:12]}\n" if len(ids) == 1 and "" not in ids else ""
    text = f"<pre tabindex='0'><code>{esc(code)}studykit run {esc(file)}</code></pre>"
    if not made:
        return text
    commits = Counter(_commit(m["commit"]) for m in made)
    versions = Counter(_versions(m["versions"]) for m in made)
    hosts = sorted({m["host"] for m in made})
    return (
        text
        + f"<p class='meta'>Runs were made from {_counted(commits)}, with {_counted(versions)}, on "
        f"{esc(', '.join(hosts))}; at most {max(m['peak_memory_mb'] for m in made)} MB in one notebook.</p>"
        + ("<p class='meta'>“With changes” means that the code differed from its commit when the run was made.</p>"
           if any((m["commit"] or {}).get("dirty") for m in made) else "")
    )  # fmt: skip


# Small things


def state(status: Status) -> str:
    return f'<span class="state {status.state}">{runs_status.WORDS.get(status.state, status.state)}</span>'


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def number(value: Any) -> str:
    """A headline value: integers whole, other numbers to three significant digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return esc(str(value))
    if isinstance(value, int) or float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return esc(f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}")


def _link(run: Run, pages: dict[Run, str]) -> str:
    return f'<a href="{esc(pages[run])}">{esc(run.label)}</a>' if run in pages else esc(run.label)


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _commit(commit: dict[str, Any] | None) -> str:
    if not commit:
        return "no commit"
    return f"<code>{esc(commit['id'][:12])}</code>" + (" with changes" if commit["dirty"] else "")


def _versions(versions: dict[str, str]) -> str:
    return esc(", ".join(f"{name} {version}" for name, version in versions.items()))


def _counted(counts: Counter) -> str:
    return " and ".join(f"{what} ({n})" if len(counts) > 1 else what for what, n in counts.most_common())
