"""Checkpoints that people have: none runs code, none is filled up at random, and an encoder is no base."""

from __future__ import annotations

import ast
import json
import os
import pty
import socket
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from studykit.data.rows import Row
from studykit.errors import UserError
from studykit.runs.store import open_run
from studykit.study.parameters import BaseModelParams, check
from studykit.training import base
from studykit.training.adapters import new_adapter
from studykit.training.batches import encode_rows
from studykit.training.pretraining import adopt_base, train_tokenizer
from studykit.training.result import TrainingResult
from studykit.training.train import TrainingSettings, train
from tests.tuners.models import SIZES, tiny

ROOT = Path(__file__).parents[2]
TOKENIZER = train_tokenizer(["def f(x): return x\n"] * 30, 300)
ENCODER = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
           "num_attention_heads": 4, "pad_token_id": 0}  # fmt: skip


def save(model, directory: Path) -> Path:
    model.save_pretrained(directory)
    TOKENIZER.save_pretrained(directory)
    return directory


def adopt(directory: Path, out: Path, **given):
    p = BaseModelParams(base=str(directory), languages=["python", "lua"], target="lua", out=str(out), **given)
    with open_run(p.out, stage="base_model", params=p) as run:
        adopted = adopt_base(p, run)
        run.publish(headline=adopted[2])
    return adopted


def calls() -> list[tuple[str, ast.Call]]:
    """Returns every call of `from_pretrained` or `from_config` in library, benchmarks and notebooks."""
    sources = {
        str(file): file.read_text("utf-8") for top in ("studykit", "benchmarks") for file in (ROOT / top).rglob("*.py")
    }
    for file in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(file.read_text("utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        sources[str(file)] = "\n".join(
            line for line in "\n".join(code).splitlines() if line.lstrip()[:1] not in ("%", "!")
        )
    found = []
    for file, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr in ("from_pretrained", "from_config"):
                    found.append((f"{file}:{node.lineno}", node))
    return found


def test_every_load_forbids_code_of_the_checkpoint():
    found = calls()
    assert len(found) > 6
    for place, call in found:
        if ast.unparse(call.func.value).startswith(("Peft", "FusionConfig")):  # they read tensors and JSON only
            continue
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        value = given.get("trust_remote_code")
        assert isinstance(value, ast.Constant) and value.value is False, f"{place} lacks trust_remote_code=False"


def test_no_terminal_is_asked_to_run_code(tmp_path):
    """Behind a terminal transformers would ask "[y/N]" and run the checkpoint's code after a `y`."""
    directory, mark = tmp_path / "evil", tmp_path / "it ran"
    directory.mkdir()
    code = f"open({str(mark)!r}, 'w')\nfrom transformers import *\nclass Evil(PreTrainedConfig):\n    model_type = 'evil'\n"
    (directory / "evil.py").write_text(code)
    auto = {name: "evil.Evil" for name in ("AutoConfig", "AutoModelForCausalLM")}
    (directory / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}))
    tokenizer = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    program = f"""
from types import SimpleNamespace
from studykit.errors import UserError
from studykit.training import base, estimate
loads = [base.pinned, base.open_tokenizer, base.open_model, lambda name: estimate.read_config(
    SimpleNamespace(base=name, base_model=None))]
for load in loads:
    try:
        load({str(directory)!r})
    except UserError as error:
        print("refused", "\\n" not in str(error))
"""
    terminal, child_side = pty.openpty()
    os.write(terminal, b"y\n" * 20)
    home = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    child = subprocess.run(
        [sys.executable, "-c", program], stdin=child_side, stdout=subprocess.PIPE, env=home, timeout=120, text=True
    )
    os.close(terminal)
    os.close(child_side)
    assert child.stdout.splitlines() == ["refused True"] * 4
    assert not mark.exists()


@pytest.mark.parametrize("name", ["model.layers.1.mlp.down_proj.weight", "model.norm.weight", "lm_head.weight"])
@pytest.mark.parametrize("fault", ["missing", "another shape"])
def test_a_base_that_lacks_a_weight_is_refused_by_its_name(name, fault, tmp_path):
    directory = save(tiny("Llama", vocab_size=len(TOKENIZER), tie_word_embeddings=False), tmp_path / "base")
    weights = load_file(directory / "model.safetensors")
    weight = weights.pop(name)
    if fault != "missing":
        weights[name] = weight[1:].clone()
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError) as error:
        adopt(directory, tmp_path / "run")
    assert f"base={str(directory)!r}" in str(error.value) and "\n" not in str(error.value)
    if fault == "missing":
        assert f"lacks the weight {name}," in str(error.value)
    with pytest.raises(UserError):
        base.open_model(str(directory))


@pytest.mark.parametrize("tied", [True, False])
def test_a_whole_base_is_adopted(tied, tmp_path):
    directory = save(tiny("Llama", vocab_size=len(TOKENIZER), tie_word_embeddings=tied), tmp_path / "base")
    assert adopt(directory, tmp_path / "run")[2]["parameters"] > 0


@pytest.mark.parametrize("damage", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"])
def test_damaged_weights_are_one_sentence(damage, tmp_path):
    directory = save(tiny("Llama", vocab_size=len(TOKENIZER)), tmp_path / "base")
    (directory / "model.safetensors").write_bytes(damage)
    with pytest.raises(UserError) as error:
        base.open_model(str(directory))
    assert f"base={str(directory)!r} cannot be loaded" in str(error.value) and "\n" not in str(error.value)


def encoders():
    torch.manual_seed(0)
    yield transformers.BertForMaskedLM(transformers.BertConfig(**ENCODER))
    yield transformers.RobertaForMaskedLM(transformers.RobertaConfig(**ENCODER))
    t5 = transformers.T5Config(vocab_size=400, d_model=32, d_ff=48, num_layers=2, num_heads=4)
    yield transformers.T5ForConditionalGeneration(t5)
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    yield transformers.BartForConditionalGeneration(transformers.BartConfig(vocab_size=400, d_model=32, **sizes))


@pytest.mark.parametrize("model", list(encoders()), ids=lambda model: model.config.model_type)
def test_what_is_no_causal_model_is_refused(model, tmp_path):
    directory = save(model, tmp_path / "base")
    with pytest.raises(UserError) as error:
        adopt(directory, tmp_path / "run")
    assert f"base={str(directory)!r}" in str(error.value) and "\n" not in str(error.value)


def test_a_multimodal_checkpoint_is_refused(tmp_path):
    text = {**SIZES, "vocab_size": 300}
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
              "image_size": 8, "patch_size": 4}  # fmt: skip
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    directory = save(transformers.Gemma3ForConditionalGeneration(config), tmp_path / "base")
    with pytest.raises(UserError, match="reads more than text"):
        adopt(directory, tmp_path / "run")


def test_a_base_of_the_hub_is_pinned_to_its_commit(tmp_path, monkeypatch):
    """A hub cache with two commits: a branch is resolved once, and what follows reads the recorded commit."""
    first, second = "1" * 40, "2" * 40
    cache = tmp_path / "cache/models--owner--name"
    for commit, layers in ((first, 1), (second, 2)):
        model = tiny("Llama", vocab_size=len(TOKENIZER), num_hidden_layers=layers)
        save(model, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text(first)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache.parent))
    adopt("owner/name", tmp_path / "run")
    assert base.BaseDescription.read(tmp_path / "run").weights == f"owner/name@{first}"
    (cache / "refs/main").write_text(second)
    assert base.load_base(tmp_path / "run")[0].config.num_hidden_layers == 1
    assert base.pinned("owner/name") == base.pinned("owner/name@main") == f"owner/name@{second}"
    assert adopt(f"owner/name@{first}", tmp_path / "other")[0].config.num_hidden_layers == 1
    with pytest.raises(UserError, match=r"base='owner/name@dev' cannot be read"):
        base.pinned("owner/name@dev")


@pytest.mark.parametrize("look", [base.pinned, base.open_model, base.open_tokenizer])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_no_file_among_those_of_a_base_is_refused_and_never_waited_for(tmp_path, look, name, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    if kind == "pipe":
        os.mkfifo(name)
    elif kind == "device":
        os.symlink("/dev/zero", name)
    else:
        socket.socket(socket.AF_UNIX).bind(name)
    with pytest.raises(UserError, match=f"holds '{name}', which is no file; a directory of files is needed"):
        look(str(tmp_path))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_base_in_bf16_trains_an_adapter_in_fp32(precision, tmp_path):
    directory = save(tiny("Llama", vocab_size=len(TOKENIZER)), tmp_path / "base")
    adopt(directory, tmp_path / "run", dtype="bf16")
    model, tokens = base.load_base(tmp_path / "run")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert base.BaseDescription.read(tmp_path / "run").dtype == "bf16"
    adapted = new_adapter(model, check("adapter", {"language": "go", "reduction_factor": 4.0}))
    assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {torch.float32}
    rows = encode_rows([Row(str(i), "go", "a b\n", f"c {i}") for i in range(4)], tokens, 16, 16)
    settings = TrainingSettings(learning_rate=1e-2, batch_size=2, eval_every=2, precision=precision)
    result, _ = train(adapted, tokens, rows, rows, settings, steps=2, trainer_state_dir=tmp_path / "t", seed=0)
    assert result.validation_loss(2) < result.validation_loss(0) and result.precision == precision
    assert result.matrix_products == torch.get_float32_matmul_precision()
    result.write(tmp_path / "training.json")
    assert TrainingResult.read(tmp_path / "training.json") == result
