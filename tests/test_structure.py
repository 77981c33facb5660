"""The shape of the library: nine packages on floors, imports that only go down, no circles, few files behind a run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from studykit.runs import code_digest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "studykit"
FLOORS = {
    "errors": 0, "tuners": 1, "study": 2, "runs": 3, "data": 4, "training": 5, "attention": 6, "evaluation": 6,
    "report": 7, "workflow": 8, "cli": 9,
}  # fmt: skip
MAY_IMPORT = {
    "tuners": {"errors"}, "study": {"errors"}, "runs": {"errors", "study"}, "data": {"errors", "study", "runs"},
    "training": {"errors", "study", "runs", "data", "tuners"},
    "attention": {"errors", "study", "runs", "data", "tuners", "training"},
    "evaluation": {"errors", "study", "runs", "data", "tuners", "training"},
    "report": {"errors", "study", "runs", "data", "tuners", "training", "attention", "evaluation"},
    "workflow": {"errors", "study", "runs", "report"},
}  # fmt: skip


def modules() -> dict[str, Path]:
    """Every module of the library by its dotted name below `studykit`."""
    found = {}
    for file in LIBRARY.rglob("*.py"):
        parts = file.relative_to(LIBRARY).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(modules: dict[str, Path]) -> dict[str, set[str]]:
    """The modules that each module imports, in functions and under TYPE_CHECKING too."""
    graph: dict[str, set[str]] = {}
    for name, file in modules.items():
        graph[name] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "studykit":
                base = node.module.removeprefix("studykit").lstrip(".")
                for alias in node.names:
                    below = f"{base}.{alias.name}".lstrip(".")
                    graph[name].add(below if below in modules else base)
            elif isinstance(node, ast.Import):
                graph[name] |= {a.name.removeprefix("studykit").lstrip(".") for a in node.names
                                if a.name.split(".")[0] == "studykit"}  # fmt: skip
    return graph


GRAPH = imports(modules())


def test_the_library_is_nine_packages_and_two_files():
    at_the_root = {path.name.removesuffix(".py") for path in LIBRARY.iterdir() if path.name[0] not in "._"}
    assert at_the_root == FLOORS.keys()


def test_imports_only_go_down():
    for name, imported in GRAPH.items():
        for other in imported:
            package, below = name.split(".")[0], other.split(".")[0]
            if package and below and package != below:
                assert FLOORS[below] < FLOORS[package], f"studykit.{name} imports studykit.{other}, which lies above it"
                assert below in MAY_IMPORT.get(package, FLOORS), f"studykit.{name} must not import studykit.{other}"


def test_no_modules_import_each_other_in_a_circle():
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        assert name not in path, f"a circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for other in sorted(GRAPH.get(name, ())):
                visit(other, [*path, name])
            done.add(name)

    for name in sorted(GRAPH):
        visit(name, [])


def test_relative_imports_are_not_used():
    for name, file in modules().items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"studykit.{name} has a relative import"


def test_every_package_says_what_it_is_for():
    for package in MAY_IMPORT.keys() - {"tuners"}:
        text = ast.get_docstring(ast.parse((LIBRARY / package / "__init__.py").read_text(encoding="utf-8")))
        assert "ay import" in text and "To read, in this order" in text, package


def test_every_package_names_its_modules():
    for init in LIBRARY.rglob("*/__init__.py"):
        text = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
        missing = [f.stem for f in init.parent.glob("*.py") if f != init and f"`{f.stem}`" not in text]
        assert missing == [], f"the docstring of {init.parent.name} does not name {missing}"


def public_functions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node


NO_VERBS = {"This", "Its", "Whether", "Rows", "Texts", "Files", "Tests", "Tokens", "Names", "Words", "Programs"}


@pytest.mark.parametrize("name", sorted(modules()))
def test_docstrings_of_public_functions_begin_with_a_verb(name):
    """Its subject is the function: "Returns the members of a fusion"."""
    for function in public_functions(ast.parse(modules()[name].read_text(encoding="utf-8")).body):
        first = (ast.get_docstring(function) or "Overrides").split()[0]
        assert re.fullmatch(r"[A-Z][a-z-]+s,?", first) and first not in NO_VERBS, f"{name}.{function.name}: {first} ..."


def behind(notebook: str) -> set[str]:
    """The library files on which the runs of a notebook depend."""
    code = "\n".join(code_digest.code_cells(ROOT / "notebooks" / f"{notebook}.ipynb"))
    return {str(file.relative_to(LIBRARY)) for file in code_digest.closure(code)}


def test_few_files_decide_an_adapter():
    assert len(behind("02_adapter")) < 30


@pytest.mark.parametrize("notebook", ["00_base_model", "02_adapter", "03_fusion"])
def test_no_training_depends_on_readers_watchdog_or_labels(notebook):
    """A message mended in any of these leaves every training done."""
    unneeded = ("data/readers/", "runs/", "study/", "report/", "workflow/")
    deciding = tuple("/".join(module) + "." for module in code_digest.DECIDING)
    found = [file for file in behind(notebook) if file.startswith(unneeded) and not file.startswith(deciding)]
    assert found == []


def test_what_decides_numbers_counts():
    """The phases and their masks, prompts, and the files that hold rows."""
    assert "training/fusions.py" in behind("03_fusion") & behind("04_evaluate") & behind("05_fusion_attention")
    assert {f"{'/'.join(module)}.py" for module in code_digest.DECIDING} <= behind("01_data")
