"""Studies of a few runs each: killed and resumed, on a 4-bit checkpoint and rows of one's own, of made languages."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from studykit.evaluation.kinship import TRANSFER, TRUTH
from tests.notebooks.conftest import ONE_ADAPTER, QUICKSTART, copy_project
from tests.project import stamps, studykit

pytestmark = pytest.mark.notebooks


def only(home: Path, pattern: str) -> Path:
    (found,) = home.glob(pattern)
    return found


LONG = ONE_ADAPTER.replace("steps: 8, target_steps: 8, eval_every: 2", "steps: 120, target_steps: 120, eval_every: 10")


def adapters(home: Path) -> dict[str, dict]:
    files = sorted(home.glob("runs/adapter/*/adapter/*/adapter_model.safetensors"))
    return {file.parts[-4].rpartition("-")[0]: load_file(file) for file in files}


def test_killed_mid_training_the_same_command_ends_with_the_same_weights_and_scores(tmp_path):
    straight, killed = copy_project(tmp_path / "straight", LONG), copy_project(tmp_path / "killed", LONG)
    done = studykit(straight, "run", "params/quickstart.yaml", "--cores", "2")
    assert done.returncode == 0, done.stdout[-3000:]
    for stage in ("base_model", "data"):  # what comes before the training is copied: it is not what is killed
        shutil.copytree(straight / "runs" / stage, killed / "runs" / stage)

    command = studykit(killed, "run", "params/quickstart.yaml", "--cores", "2", wait=False)
    until = time.monotonic() + 200
    while not list(killed.glob("runs/.staging/adapter/*/checkpoints/checkpoint-2*/trainer_state.json")):
        assert time.monotonic() < until and command.poll() is None, "no adapter came to its checkpoint"
        time.sleep(0.02)
    os.killpg(command.pid, signal.SIGKILL)
    command.wait()
    before = stamps(killed)
    assert {name.split("/")[0] for name in before} == {"base_model", "data"}, "killed while adapters train"
    assert before.items() <= stamps(straight).items()

    done = studykit(killed, "run", "params/quickstart.yaml", "--cores", "2")
    assert done.returncode == 0, done.stdout[-3000:]
    after = stamps(killed)
    assert {name: after[name] for name in before} == before, "finished notebooks are not made again"
    logs = "".join(path.read_text() for path in killed.glob("runs/adapter/*/notebook.ipynb"))
    assert "Resuming from step" in logs
    ours, theirs = adapters(killed), adapters(straight)
    assert ours.keys() == theirs.keys() and ours
    for name, tensors in ours.items():
        assert all(tensor.equal(theirs[name][key]) for key, tensor in tensors.items()), name
    scores = [json.loads(only(home, "runs/compare/*/compare.json").read_text()) for home in (killed, straight)]
    assert scores[0]["metrics"] == scores[1]["metrics"]


def test_a_checkpoint_in_four_bits_on_real_rows_takes_the_same_path(tmp_path):
    """What a user with a GPU changes in params/nichetrans_ruby.yaml: `base` and `quantization`. Here on the CPU."""
    from studykit.training.pretraining import train_tokenizer
    from tests.tuners.models import tiny

    code = {"Python": "def double(x):\n    return 2 * x\n", "Ruby": "def double(x)\n  2 * x\nend\n"}
    code["Go"] = "func double(x int) int {\n\treturn 2 * x\n}\n"
    home = copy_project(tmp_path, "")
    (home / "rows").mkdir()
    for split in ("train", "valid", "test"):
        pairs = [(a, b) for a in code for b in code if a != b]
        lines = [json.dumps({"id": i, "name": f"{split}{i}", a: code[a], b: code[b]}) for i, (a, b) in enumerate(pairs)]
        (home / "rows" / f"niche_{split}.json").write_text("\n".join(lines))
    tokenizer = train_tokenizer(list(code.values()), 300)
    model = tiny(
        "Qwen2",
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        head_dim=16,
        max_position_embeddings=512,
    )
    model.save_pretrained(home / "checkpoint")
    tokenizer.save_pretrained(home / "checkpoint")
    (home / "params/quickstart.yaml").write_text(
        QUICKSTART.replace("task: generation", "task: translation\nbase: ./checkpoint\nquantization: nf4")
        .replace("target: lua", "target: ruby")
        .replace("lora, adapterfusion, advfusion_zero, advfusion_exclude", "advfusion_zero")
        .replace(
            "fusion: {", "fusion: {by_method: {advfusion_zero: {phases: [{}, {steps: 0}]}}, "
        )  # a phase may take none
        .replace("data: {", "data: {path: rows, max_prompt_tokens: 200, max_target_tokens: 64, ")
    )
    done = studykit(home, "run", "params/quickstart.yaml", "--cores", "2")
    assert done.returncode == 0, done.stdout[-4000:]
    base = json.loads(only(home, "runs/base_model/*/base.json").read_text())
    assert base["quantization"] == "nf4"
    manifest = json.loads(only(home, "runs/fusion/*/manifest.json").read_text())
    assert manifest["params"]["learning_rate"] == 1e-5, "the published rate, on a pretrained base"
    fused = load_file(only(home, "runs/fusion/*/phase2/fusion/adapter_model.safetensors"))
    assert {str(tensor.dtype) for tensor in fused.values()} == {"torch.float32"}


KIN = """
study: quickstart
task: generation
members: [amber, birch, cedar]
target: dune
methods: [transfer, advfusion_exclude]
seeds: [0]
vary: {data.seed: [3]}
gather: {similarity: [known, position, tokens, tokenizer, programs, syntax, outputs, cross_entropy]}
base_model: {hidden_size: 16, layers: 2, heads: 2, intermediate_size: 32, steps: 12, samples: 400}
data: {kinship: [1, 0.5, 0], source_examples: 24, target_examples: 8, valid_examples: 4, test_examples: 6}
adapter: {steps: 6, target_steps: 4, eval_every: 6, batch_size: 4}
fusion: {steps: 4, eval_every: 2, batch_size: 4, learning_rate: 0.1, keep: last}
evaluate: {sources: [], max_new_tokens: 8, batch_check: 0}
fusion_attention: {samples: 4}
compare: {resamples: 2000}
"""


def test_a_family_of_made_languages_is_ranked_by_its_known_kinship(tmp_path):
    home = copy_project(tmp_path, KIN)
    done = studykit(home, "run", "params/quickstart.yaml")
    assert done.returncode == 0, done.stdout[-2000:]
    found = json.loads(only(home, "runs/gather/*/kinship.json").read_text())
    assert found["missing"] == ["syntax"], "made languages have no grammar"
    ranked = {(one["measure"], one["outcome"]): one for one in found["ranked"]}
    outcomes = {"weight", "norm-weighted share", "worth"}
    assert {outcome.split(",")[0] for _, outcome in ranked} >= outcomes and len(ranked) == 7 * 6 - 2
    assert ("cross_entropy", TRANSFER) not in ranked and ("known", TRUTH) not in ranked, "each would be 1"
    assert ranked["cross_entropy", TRUTH]["mean"] == ranked["known", TRANSFER]["mean"], "one calibration, read twice"
    for measure in ("tokens", "tokenizer", "programs"):  # of texts alone, so alike on every processor
        assert ranked[measure, "known kinship"]["first"] == 1, "the clone writes what the target writes"
    assert [ranked[name, "known kinship"]["mean"] for name in ("tokens", "programs")] == pytest.approx([1, 1])
    position = ranked["position", "weight, advfusion_exclude"]
    assert list(position["by_study"].values()) == [position["mean"]]
    assert "Does attention find what is alike?" in only(home, "reports/quickstart/07_gather-*.html").read_text()
