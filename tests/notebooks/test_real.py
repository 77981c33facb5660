"""A small study on a real checkpoint of 135 million parameters, to its reports. `make test-real`"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from tests.notebooks.conftest import copy_project
from tests.project import stamps, studykit
from tests.real_checkpoint import unpack

KEPT = os.environ.get("STUDYKIT_REAL", "")  # where the checkpoint lies, or is to be unpacked
pytestmark = [pytest.mark.real, pytest.mark.skipif(not KEPT, reason="fetches a checkpoint; `make test-real`")]
VOCABULARY = 49_152
STUDY = """
study: quickstart
question: Does a study run on a real base?
task: commit
base: {base}
members: [python]
target: lua
methods: [base, bottleneck, advfusion_zero]
seeds: [0]
data: {{source_examples: 8, target_examples: 6, valid_examples: 2, test_examples: 2, max_prompt_tokens: 80, max_target_tokens: 14}}
adapter: {{learning_rate: 0.001, steps: 4, target_steps: 4, batch_size: 2, eval_every: 2}}
fusion: {{learning_rate: 0.0001, steps: 2, batch_size: 2, eval_every: 1, temperature: auto}}
evaluate: {{sources: [], max_new_tokens: 12, batch_size: 2, batch_check: 1}}
fusion_attention: {{samples: 2, mute: none}}
compare: {{resamples: 2000}}
"""


def test_a_study_runs_on_a_real_checkpoint(tmp_path):
    checkpoint = unpack(Path(KEPT).resolve() / "smollm2")
    home = copy_project(tmp_path / "home", STUDY.format(base=checkpoint))
    run = studykit(home, "run", "params/quickstart.yaml", "--cores", "1", timeout=3600)
    assert run.returncode == 0, run.stdout[-4000:]
    assert sorted({name.split("/")[0] for name in stamps(home)}) == [
        "adapter", "base_model", "compare", "data", "evaluate", "fusion", "fusion_attention"
    ]  # fmt: skip
    (base,) = home.glob("runs/base_model/*/base.json")
    about = json.loads(base.read_text())
    assert (about["parameters"], about["layers"], about["vocabulary"]) == (134_515_008, 30, VOCABULARY)
    assert not (base.parent / "model").exists(), "weights are never copied"
    for file in sorted(home.glob("runs/adapter/*/training.json")):
        losses = [entry["eval_loss"] for entry in json.loads(file.read_text())["log"] if "eval_loss" in entry]
        print(file.parent.name, *(f"{loss:.3f}" for loss in losses))
        assert losses[0] < math.log(VOCABULARY), "a base that has learned nothing guesses uniformly"
        assert min(losses) < losses[0], "an adapter learns in four steps"
    assert "runs are done" in (home / "reports/quickstart/index.html").read_text()
