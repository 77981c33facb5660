"""One training in two processes: the losses of one process, and a run that the command then takes up."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from studykit.study import plan
from studykit.study.file import load_study
from tests.notebooks.conftest import ONE_ADAPTER, copy_project
from tests.project import environment, studykit

pytestmark = pytest.mark.notebooks
FILE = "params/quickstart.yaml"


def launch(home: Path, run: str, processes: int) -> subprocess.CompletedProcess:
    """As docs/clusters.md says it."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(processes),
               "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
               "-m", "studykit.training.distributed", FILE, run]  # fmt: skip
    return subprocess.run(command, cwd=home, env=environment(home), capture_output=True, text=True, timeout=600)


def test_two_processes_train_as_one_does_and_the_engine_takes_it_up(tmp_path):
    home = copy_project(tmp_path / "two", ONE_ADAPTER)
    done = studykit(home, "run", FILE, "--until", "data")
    assert done.returncode == 0, done.stdout[-3000:]
    shutil.copytree(home, alone := tmp_path / "one")
    (run,) = [r for r in plan.plan(load_study(FILE, home)) if r.stage == "adapter" and r.params["language"] == "lua"]
    logs = []
    for place, processes in ((alone, 1), (home, 2)):
        said = launch(place, run.name, processes)
        assert said.returncode == 0, said.stderr[-3000:]
        states = place.glob(f"runs/.staging/{run.name}/checkpoints/checkpoint-8/trainer_state.json")
        logs.append(json.loads(next(states).read_text())["log_history"])
    assert len(logs[0]) == len(logs[1]) > 8
    for one, two in zip(*logs, strict=True):
        assert one.keys() == two.keys() and one["step"] == two["step"]
        for key in {"loss", "eval_loss", "eval_sequence_loss", "grad_norm"} & one.keys():
            assert two[key] == pytest.approx(one[key], rel=1e-3), (key, one["step"])

    saved = home.glob(f"runs/.staging/{run.name}/checkpoints/*/trained.safetensors")
    kept = {file.parent.name: load_file(file) for file in saved}
    done = studykit(home, "run", FILE, "--until", "adapter")
    assert done.returncode == 0, done.stdout[-3000:]
    published = home / run.dir
    trained = json.loads((published / "training.json").read_text())
    assert trained["log"] == [row for row in logs[1] if "train_runtime" not in row], "not a step was trained again"
    weights = load_file(next(published.glob("adapter/*/adapter_model.safetensors")))
    best = kept[f"checkpoint-{trained['best_step']}"]
    sums = [sorted(float(t.double().sum()) for t in tensors.values()) for tensors in (weights, best)]
    assert sums[0] == sums[1], "and the weights are those of its best step"


@pytest.mark.parametrize("run, said", [
    ("adapter/absent", "studykit: adapter/absent is not an adapter or fusion run of params/quickstart.yaml; it has "),
])  # fmt: skip
def test_a_wrong_name_gets_a_sentence(tmp_path, run, said):
    answer = launch(copy_project(tmp_path, ONE_ADAPTER), run, 1)
    assert said in answer.stderr
