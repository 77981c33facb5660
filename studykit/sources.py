"""What a notebook's run depends on beside its parameters: code (by static import closure) and files of the user's.

Two digests of the code. The workflow engine executes a notebook again when `digest` changes: its code cells and every
library file that they import. What it computed is made again only when `computing` changes, which leaves out what comes
after the publishing and the modules that only show: mending a figure of a finished training does not train again.

Both are made of contents, not of times: a fresh clone, or a notebook that was only executed and saved in JupyterLab,
changes nothing. Nor does prose: reports take it from the notebook as it is now. `methods`, `params`, `study` and
`plan` are in neither: what they do to a run is its parameters, and those name it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from studykit.params import UserError

PACKAGE = Path(__file__).parent
NAMING = {"methods", "params", "study", "plan"}
SHOWING = {"canvas", "plots", "fusion_figures", "token_strip", "tables", "rendering", "reports", "headline",
           "signatures", "explorer"}  # fmt: skip


def digest(notebook: Path) -> str:
    """Sixteen hex digits over the notebook's code cells and every library file that they import, at any depth."""
    return _digest(code_cells(notebook), NAMING)


def computing(notebook: Path) -> str:
    """The same over what decides a run's results: the cells up to the publishing one, no module that only shows."""
    code = code_cells(notebook)
    last = next((i for i, cell in enumerate(code) if ".publish(" in cell), len(code))
    return _digest(code[: last + 1], NAMING | SHOWING)


def digest_modules(*modules: str) -> str:
    """Like `digest`, for code that imports these modules of the package."""
    return _digest([f"import {PACKAGE.name}.{module}" for module in modules], NAMING)


def _digest(code: list[str], without: set[str]) -> str:
    hashed = hashlib.sha256(json.dumps(code).encode())
    for file in closure("\n".join(code), without):
        hashed.update(f"\0{file.relative_to(PACKAGE)}\0".encode() + file.read_bytes())
    return hashed.hexdigest()[:16]


def data_files(stage: str, params: dict[str, Any], home: Path = Path()) -> list[Path]:
    """The user's own files that a run reads: data, corpus, or a base in a directory. A directory stands for the files
    in it."""
    names = {"data": ["path", "test_path"], "base_model": ["base", "corpus"]}.get(stage, [])
    found: list[Path] = []
    for name in names:
        if params.get(name) not in (None, "scratch", "polyglot"):
            at = home / Path(params[name]).expanduser()
            found += sorted(at.rglob("[!.]*")) if at.is_dir() else [at]
    return [file for file in found if file.is_file()]


def code_cells(notebook: Path) -> list[str]:
    """The sources of the code cells of an .ipynb file."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def closure(code: str, without: Collection[str] = NAMING) -> list[Path]:
    """The files of this package that `code` imports, at any depth, with the styles, scripts and texts beside them;
    modules named in `without` and what only they import are left out."""
    code = re.sub(r"^\s*[%!].*$", "", code, flags=re.M)  # magics are not Python
    todo, seen, found = list(_imports(code, ())), set(), set()
    while todo:
        if (module := todo.pop()) in seen:
            continue
        seen.add(module)
        for depth in range(len(module) + 1):  # a.b.c runs a/__init__ and a/b/__init__ too
            file = _file(module[:depth])
            if file is None or file in found or module[:1] and module[0] in without:
                continue
            found.add(file)
            inside = module[:depth] if file.name == "__init__.py" else module[: depth - 1]
            todo += _imports(file.read_text(encoding="utf-8"), inside)
    for file in list(found):  # what a module shows is beside it: a style of its name, or anything in its subpackage
        beside = file.parent.glob(f"{file.stem}.*" if file.parent == PACKAGE else "*")
        found |= {f for f in beside if f.suffix in (".js", ".css", ".html", ".yaml")}
    return sorted(found)


@cache
def _imports(code: str, package: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The modules of this package that `code` names, as paths below it; `package` is where relative imports start."""
    try:
        return tuple(_walk(ast.parse(code), package))
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise UserError(f"The line {line!r} is not Python ({error.msg}); mend it before a run.") from None


def _walk(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
            yield from (name[1:] for name in names if name[0] == PACKAGE.name)
        elif isinstance(node, ast.ImportFrom):
            start = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                start = package[: len(package) - node.level + 1] + start
            elif start[0] == PACKAGE.name:
                start = start[1:]
            else:
                continue
            yield start
            yield from (start + (alias.name,) for alias in node.names)


def _file(module: tuple[str, ...]) -> Path | None:
    at = PACKAGE.joinpath(*module)
    return next((f for f in (at / "__init__.py", at.with_suffix(".py")) if module or f.name == "__init__.py"
                 if f.is_file()), None)  # fmt: skip
