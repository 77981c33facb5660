"""Digests of what a notebook's run depends on besides its parameters: code (by import closure) and the user's files.

One rule decides which code counts: every library file that the notebook's code cells import, at any depth, without the
packages `study`, `runs`, `report` and `workflow`. The first names a run by its parameters, the second keeps it, the
other two show it: none of them decides a number, but for three modules of `study` (DECIDING), which count.

Two digests are made of that. Snakemake executes a notebook again when `digest` changes. Its results are computed again
only when `computing` changes, which leaves out the cells after the publishing one: a finished training whose figures
are drawn in another way is only shown again. Neither the cell tagged `parameters` nor prose enters a digest: the
parameters name the run, and reports take prose from the notebook as it is now.

Digests are made of contents, not of times: a fresh clone, or a notebook that was only executed and saved in JupyterLab,
changes nothing.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shlex
from collections.abc import Collection, Iterator
from functools import cache
from os.path import expanduser, isfile
from pathlib import Path
from typing import Any

from studykit.errors import UserError
from studykit.study.data_files import FOLDERS_ABOVE, LINKED_FILES, corpus_files, files_of_rows

PACKAGE = Path(__file__).parent.parent
WITHOUT = frozenset({"study", "runs", "report", "workflow"})  # packages that decide no number
# Modules of these packages that decide numbers all the same: the text of prompts, and which files hold rows.
DECIDING = frozenset({("study", "templates"), ("study", "languages"), ("study", "data_files")})
BLOCKS = ("body", "orelse", "handlers", "finalbody", "cases")  # fields of syntax trees that hold statements


def digest(notebook: Path) -> str:
    """Returns 16 hex digits over the notebook's code cells and every library file that they import, at any depth."""
    return _digest(code_cells(notebook))


def computing(notebook: Path) -> str:
    """Returns the same digest over the cells up to the publishing one, which decide a run's results."""
    code = code_cells(notebook)
    last = next((i for i, cell in enumerate(code) if ".publish(" in cell), len(code))
    return _digest(code[: last + 1])


def digest_modules(*modules: str, without: Collection[str] = WITHOUT) -> str:
    """Returns a digest, as `digest` does, for code that imports these modules of the package."""
    return _digest([f"import {PACKAGE.name}.{module}" for module in modules], without)


def _digest(code: list[str], without: Collection[str] = WITHOUT) -> str:
    hashed = hashlib.sha256(json.dumps(code).encode())
    for file in closure("\n".join(code), without):
        hashed.update(f"\0{file.relative_to(PACKAGE)}\0".encode() + file.read_bytes())
    return hashed.hexdigest()[:16]


def data_files(stage: str, params: dict[str, Any], home: Path = Path()) -> list[Path]:
    """Returns the user's own files that a run reads: rows, a corpus, a base in a directory, a judge, a model of
    embeddings, or ratings; none of the hub."""
    if stage == "data":
        paths = [_row_files(params, name, home) for name in ("path", "test_path") if _is_local(params.get(name))]
    elif stage == "base_model":
        paths = [_base_files(params, home), _corpus_files(params, home)]
    elif stage == "compare" and params.get("ratings"):
        paths = [sorted((home / expanduser(params["ratings"])).glob("rated-*.json"))]
    elif stage == "evaluate":
        paths = [_judging_files(params, home)]
    else:
        return []
    return [file for files in paths for file in files if file.is_file()]


def _judging_files(params: dict[str, Any], home: Path) -> list[Path]:
    """The files that the words of the judge's command name, and those of a directory with a model of embeddings."""
    words = shlex.split(params.get("judge") or "")
    model = params.get("embedding")
    folder = home / expanduser(model) if model else None
    in_directory = sorted(folder.glob("[!.]*")) + sorted(folder.glob("[!.]*/**/[!.]*")) if folder else []
    return [*(home / expanduser(word) for word in words), *in_directory]


def _is_local(address: str | None) -> bool:
    return address is not None and address not in ("scratch", "polyglot") and not address.startswith("hf://")


def _row_files(params: dict[str, Any], name: str, home: Path) -> list[Path]:
    path = home / Path(expanduser(params[name]))
    root = path if path.is_dir() else path.parent
    paths = root.rglob("[!.]*") if path.is_dir() else [path]
    names = [file.relative_to(root).as_posix() for file in paths]
    rows = files_of_rows(names, params.get("members") or (), root=str(root), is_test=name == "test_path")
    above = [root, *list(root.parents)[:FOLDERS_ABOVE]]
    linked = [next((folder / f for folder in above if (folder / f).is_file()), root / f) for f in LINKED_FILES]
    return [*(root / row.name for row in rows), *linked]


def _base_files(params: dict[str, Any], home: Path) -> list[Path]:
    if not _is_local(params.get("base")):
        return []
    path = home / Path(expanduser(params["base"]))
    return sorted(path.rglob("[!.]*")) if path.is_dir() else [path]


def _corpus_files(params: dict[str, Any], home: Path) -> list[Path]:
    if params.get("base") != "scratch" or not _is_local(params.get("corpus")):
        return []
    folder = home / Path(expanduser(params["corpus"]))
    names = sorted(file.name for file in folder.glob("*.jsonl"))
    return [folder / name for name in corpus_files(names, params["languages"])]


def code_cells(notebook: Path) -> list[str]:
    """Returns the sources of the code cells of an .ipynb file, without the one tagged `parameters`."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [
        "".join(cell["source"])
        for cell in cells
        if cell["cell_type"] == "code" and "parameters" not in cell.get("metadata", {}).get("tags", [])
    ]


def closure(code: str, without: Collection[str] = WITHOUT) -> list[Path]:
    """Returns the files of this package that `code` imports, at any depth.

    Packages named in `without`, and the files that only they import, are left out, but for the modules in DECIDING
    with the YAML beside them.
    """
    code = re.sub(r"^\s*[%!].*$", "", code, flags=re.M)  # magics are not Python
    todo, seen, found = list(_imports(code, ())), set(), set()
    while todo:
        if (module := todo.pop()) in seen:
            continue
        seen.add(module)
        for depth in range(len(module) + 1):  # a.b.c runs a/__init__ and a/b/__init__ too
            file = _file(module[:depth])
            if file is None or file in found:
                continue
            if module[:1] and module[0] in without:
                if module[:depth] in DECIDING:
                    found |= {file, *file.parent.glob(f"{file.stem}.yaml")}
                continue
            found.add(file)
            inside = module[:depth] if file.name == "__init__.py" else module[: depth - 1]
            todo += _imports(file.read_text(encoding="utf-8"), inside)
    return sorted(found)


@cache
def _imports(code: str, package: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The modules of this package that `code` names, as paths below it; `package` is where relative imports start."""
    try:
        return tuple(_walk(ast.parse(code), package))
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise UserError(f"The line {line!r} is not Python ({error.msg}); correct it before running.") from None


def _walk(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for node in _statements(tree):
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


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yields all statements at any depth; expressions, nine of ten nodes of a module, hold no import."""
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        for block in BLOCKS:
            todo += getattr(node, block, ())


def _file(module: tuple[str, ...]) -> Path | None:
    at = "/".join([str(PACKAGE), *module])
    for path in (f"{at}/__init__.py", f"{at}.py") if module else (f"{at}/__init__.py",):
        if isfile(path):
            return Path(path)
    return None
