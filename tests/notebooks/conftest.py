"""A copy of the project whose quickstart is a study of minutes made a study of seconds; run once for all tests."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest

from studykit.runs import notebook as runs_notebook
from studykit.study.parameters import STAGES
from tests.project import ROOT, copy_library, studykit

QUICKSTART = """
study: quickstart
question: Does every notebook run?
task: generation
members: [python, go]
target: lua
methods: [base, bottleneck, lora, adapterfusion, advfusion_zero, advfusion_exclude]
seeds: [0]
base_model: {hidden_size: 16, layers: 2, heads: 2, intermediate_size: 32, steps: 12, samples: 400}
data: {source_examples: 24, target_examples: 8, valid_examples: 4, test_examples: 6}
adapter: {steps: 6, target_steps: 4, eval_every: 2, patience: 2, batch_size: 4}
fusion: {steps: 4, eval_every: 2, batch_size: 4}
evaluate: {sources: [], max_new_tokens: 8}
fusion_attention: {samples: 4}
compare: {resamples: 2000}
"""

ONE_ADAPTER = """
study: quickstart
task: generation
members: [python]
target: lua
methods: [bottleneck]
seeds: [0]
base_model: {hidden_size: 16, layers: 2, heads: 2, intermediate_size: 32, steps: 12, samples: 400}
data: {source_examples: 24, target_examples: 9, valid_examples: 4, test_examples: 6}
adapter: {steps: 8, target_steps: 8, eval_every: 2, batch_size: 4}
evaluate: {sources: [], max_new_tokens: 8}
"""


def copy_project(home: Path, study: str = QUICKSTART) -> Path:
    """The real library, notebooks and Snakefile in `home`, with `study` as its quickstart."""
    copy_library(home)
    for part in ("notebooks", "profiles"):
        shutil.copytree(ROOT / part, home / part, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copy(ROOT / "Snakefile", home)
    (home / "params").mkdir()
    (home / "params/quickstart.yaml").write_text(study)
    if study == QUICKSTART:
        for stage in STAGES.keys() - {"gather"}:
            adopt_defaults(home, stage)
    return home


def adopt_defaults(home: Path, stage: str) -> None:
    """Put the small quickstart's values into a notebook's parameters cell, as the real one's stand there in git."""
    file = home / "notebooks" / f"{STAGES[stage].notebook}.ipynb"
    notebook = nbformat.read(file, as_version=4)
    values = runs_notebook.defaults(stage, str(home / "params/quickstart.yaml"))
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    for name, value in values.items():
        cell.source, found = re.subn(
            rf"^({name}: .+?) = .*?(  # .*)$", lambda m, v=value: f"{m[1]} = {v!r}{m[2]}", cell.source, flags=re.M
        )
        assert found == 1, name
    nbformat.write(notebook, file)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A project in which the small quickstart has run to its reports."""
    home = copy_project(tmp_path_factory.mktemp("finished"))
    done = studykit(home, "run", "params/quickstart.yaml", "--cores", "2")
    assert done.returncode == 0, done.stdout[-4000:]
    return home
