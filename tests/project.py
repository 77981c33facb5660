"""A miniature of the project for tests: the real Snakefile, profiles and package, notebooks of a few lines."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

from studykit.study.parameters import STAGES

ROOT = Path(__file__).parents[1]
STUDY = """
study: tiny
question: Does the command do what it says?
task: generation
members: [python]
target: lua
methods: [base, bottleneck]
seeds: [0]
evaluate: {sources: []}
"""

# What each notebook does: `flavour` is a library module of adapters and evaluations only.
WORK = {
    "base_model": "value = p.steps",
    "data": "value = p.source_examples",
    "adapter": "from studykit.data import rows\nfrom studykit.flavour import flavour\nvalue = flavour(p.learning_rate)",
    "evaluate": "from studykit.flavour import flavour\nvalue = flavour(len(p.trained_runs))",
}


def copy_library(home: Path, *left_out: str) -> None:
    """Copies the package into `home`, but for names left out, with its bytecode.

    Processes that a test starts write none, so that no test depends on another, and each would compile all modules
    anew. A changed module has another time, and is compiled.
    """
    compileall.compile_dir(ROOT / "studykit", quiet=2)
    half_written = shutil.ignore_patterns("*.pyc.*", *left_out)
    shutil.copytree(ROOT / "studykit", home / "studykit", ignore=half_written)


def make(home: Path, study: str = STUDY) -> Path:
    """Lay the miniature out in `home`."""
    copy_library(home, "tuners")
    shutil.copytree(ROOT / "profiles", home / "profiles")
    shutil.copy(ROOT / "Snakefile", home)
    (home / "studykit/flavour.py").write_text("def flavour(x):\n    return ['plain', x]\n")
    (home / "params").mkdir()
    (home / "params/tiny.yaml").write_text(study)
    (home / "notebooks").mkdir()
    for stage in STAGES:
        notebook(home, stage)
    return home


def quickstart(home: Path) -> None:
    """Copy the quickstart's study file and base into `home`."""
    shutil.copytree(ROOT / "params/tiny_base", home / "params/tiny_base")
    shutil.copy(ROOT / "params/quickstart.yaml", home / "params")


def notebook(home: Path, stage: str, work: str | None = None, after: str = "") -> None:
    """Write a stage's notebook; `work` computes `value`, `after` follows the publishing."""
    head = "\n".join(f"{name} = None" for name in STAGES[stage].model.model_fields if name == "out")
    cells = [
        nbformat.v4.new_markdown_cell(f"# The {stage} notebook\n\nProse."),
        nbformat.v4.new_code_cell(head, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(
            f"from studykit.runs import files, notebook, store\n\np = notebook.from_notebook({stage!r}, globals())"
        ),
        nbformat.v4.new_code_cell(
            f"with store.open_run(p.out, stage={stage!r}, params=p) as run:\n    if not run.done:\n"
            + "".join(f"        {line}\n" for line in (work or WORK.get(stage, "value = 1")).split("\n"))
            + "        files.write_json(run.path('value.json'), value)\n"
            + "        run.publish(headline={'value': len(str(value))})"
        ),
        nbformat.v4.new_code_cell(f"print(run.read_json('value.json'))\n{after}"),
    ]
    for i, cell in enumerate(cells):
        cell["id"] = f"{stage}-{i}".replace("_", "-")
    nbformat.write(nbformat.v4.new_notebook(cells=cells), home / "notebooks" / f"{STAGES[stage].notebook}.ipynb")


def environment(home: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("STUDYKIT_")}
    return kept | {"PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}


def studykit(home: Path, *args: str, wait: bool = True, timeout: float = 900):
    """Run the command in the miniature; the finished process, or the running one with wait=False."""
    command = [sys.executable, "-m", "studykit.cli", *args]
    options = dict(cwd=home, env=environment(home), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if not wait:
        return subprocess.Popen(command, **options, start_new_session=True)
    return subprocess.run(command, **options, timeout=timeout)


def stamps(home: Path) -> dict[str, str]:
    """When each finished run was made, by stage and label."""
    found = {}
    for file in sorted((home / "runs").glob("*/*/manifest.json")):
        made = json.loads(file.read_text())
        found[f"{made['stage']}/{file.parent.name.rpartition('-')[0]}"] = f"{file.stat().st_mtime_ns}"
    return found
