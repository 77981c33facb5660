"""The estimate: counts that are known, bytes that a real pass keeps, and sentences for what cannot be estimated."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from transformers import BitsAndBytesConfig, LlamaConfig

from studykit import cli
from studykit.errors import UserError
from studykit.runs.text import format_bytes
from studykit.study.file import load_study
from studykit.training import estimate, fit, memory
from studykit.training.batches import token_losses
from studykit.tuners import PRESETS, BottleneckConfig, FusionConfig, fusion_layers, value_deviation
from tests.study.test_parameters import GOOD
from tests.tuners import models

DEEPSEEK = {"vocab_size": 32256, "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16,
            "num_key_value_heads": 16, "intermediate_size": 5504, "tie_word_embeddings": False}  # fmt: skip
BATCH, LENGTH = 3, 24


def config(layers: int = 2, **sizes) -> LlamaConfig:
    return LlamaConfig(**{**models.SIZES, "num_hidden_layers": layers, **sizes})


def adapters(kind: str, **fusion) -> dict:
    """An adapter of a kind, or a fusion of three bottlenecks."""
    if kind != "fusion":
        return {"lua": BottleneckConfig(task_type="CAUSAL_LM", **PRESETS[kind] | {"reduction_factor": 4})}
    members = {name: BottleneckConfig(task_type="CAUSAL_LM", reduction_factor=4) for name in ("lua", "go", "julia")}
    return members | {"fusion": FusionConfig(members=list(members), task_type="CAUSAL_LM", **fusion)}


@pytest.mark.parametrize("presets, fusion, expected", [
    (["bottleneck"], None, 12_635_136), (["compacterpp"], None, 152_128), (["compacter"], None, 304_192),
    (["bottleneck"] * 2, {}, 302_088_192), (["bottleneck"] * 2, {"value": False}, 201_424_896),
    (["houlsby"], {}, 604_176_384),
])  # fmt: skip
def test_counts_of_deepseek_coder(presets, fusion, expected):
    """Those of the reference implementation, from the config alone."""
    made = {f"m{i}": BottleneckConfig(task_type="CAUSAL_LM", **PRESETS[kind]) for i, kind in enumerate(presets)}
    if fusion is not None:
        made["fusion"] = FusionConfig(members=list(made), task_type="CAUSAL_LM", **fusion)
    model = memory.attach(memory.skeleton(LlamaConfig(**DEEPSEEK), torch.bfloat16), made)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected
    assert {p.device.type for p in model.parameters()} == {"meta"}


def kept(model, value_penalty: bool, counted: int) -> int:
    """Bytes that a forward pass on real numbers keeps for its backward pass, by autograd's own hooks."""
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    for layer in fusion_layers(model):
        stack = layer.stack("fusion")
        own |= {x.untyped_storage().data_ptr() for x in (stack.down, stack.down_bias, stack.up, stack.up_bias)}
    found = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage
        return tensor

    ids = models.tokens(BATCH, LENGTH)
    mask = torch.ones_like(ids)
    mask[0, -1] = 0
    labels = ids.clone()
    labels[:, : LENGTH - counted] = -100
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = token_losses(model, {"input_ids": ids, "attention_mask": mask}, labels).sum()
        loss = loss + value_deviation(model) if value_penalty else loss
    return sum(storage.nbytes() for storage in found.values())


@pytest.mark.parametrize("family", ["Llama", "Qwen3", "Gemma"])
@pytest.mark.parametrize("kind, counted", [*((kind, LENGTH) for kind in PRESETS), ("fusion", LENGTH), ("fusion", 3)])
def test_what_is_kept_for_the_backward_pass(family, kind, counted):
    """Predicted on tensors without content, measured on real ones, for every kind of adapter."""
    base = models.tiny(family).requires_grad_(False)
    model = memory.attach(base, adapters(kind)).train()
    blank = memory.attach(memory.skeleton(models.tiny(family).config, torch.float32), adapters(kind))
    step = memory.training_step(blank, BATCH, LENGTH, value_penalty=kind == "fusion", counted=counted)
    assert step.saved == pytest.approx(kept(model, kind == "fusion", counted), rel=0.05)
    assert step.gradients == 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert step.peak >= step.saved + step.gradients // 2


def test_the_rule_of_thumb_in_the_docstring():
    h, a, m, r = 128, 128, 256, 32
    sizes = {"hidden_size": h, "head_dim": a // 4, "intermediate_size": m}
    saved = []
    for layers in (2, 3):
        model = memory.attach(memory.skeleton(config(layers, **sizes), torch.float32), adapters("bottleneck"))
        saved.append(memory.training_step(model, BATCH, LENGTH).saved)
    numbers = 2 * h + 4 * a + LENGTH + 3 * m + h + r
    assert saved[1] - saved[0] == pytest.approx(4 * BATCH * LENGTH * numbers, rel=0.01)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_deep_models_are_told_by_shallow_ones(monkeypatch, accumulation):
    settings = {"half": False, "batch": 2, "length": 16, "value_penalty": True, "accumulation": accumulation}
    told = estimate.training(config(layers=11), adapters("fusion"), **settings)
    monkeypatch.setattr(estimate, "DEPTHS", (4, 11))
    assert estimate.training(config(layers=11), adapters("fusion"), **settings) == told


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_bytes_of_a_quantised_base(tmp_path, quantization):
    base = models.tiny("Llama", hidden_size=128, intermediate_size=192, head_dim=32)
    base.save_pretrained(tmp_path)
    options = {"load_in_8bit": True} if quantization == "int8" else {
        "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}  # fmt: skip
    real = type(base).from_pretrained(tmp_path, quantization_config=BitsAndBytesConfig(**options), dtype=torch.float32)
    held = sum(p.nbytes for p in real.parameters()) + sum(b.nbytes for b in real.buffers())
    for module in real.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            parts = (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
            held += sum(part.nbytes for part in parts)
        scales = getattr(getattr(module, "weight", None), "SCB", None)
        held += scales.nbytes if scales is not None else 0
    told = memory.weight_bytes(memory.skeleton(base.config, torch.float32), quantization)
    assert told == pytest.approx(held, rel=0.01)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
@pytest.mark.parametrize("entries", [100, 4096, 10_000])
def test_bytes_of_adam_state(optimizer, entries):
    from bitsandbytes.optim import AdamW8bit

    weight = torch.nn.Parameter(torch.zeros(entries))
    weight.grad = torch.ones(entries)
    made = (torch.optim.AdamW if optimizer == "adamw" else AdamW8bit)([weight])
    made.step()
    tables = ("step", "qmap1", "qmap2")  # one table for all tensors
    held = sum(value.nbytes for name, value in made.state[weight].items() if name not in tables)
    assert estimate.state_bytes(entries, optimizer) == held


def test_each_remedy_takes_less_and_all_of_them_least():
    job = estimate.Job("fusion", "adapterfusion", config(layers=2, hidden_size=128, head_dim=32), adapters("fusion"),
                       True, batch=8, length=64, bf16=True, value_penalty=True)  # fmt: skip
    need = job.need()
    found = {name: other.need().peak for name, other in fit.remedies(job)}
    assert [name.split(":")[0] for name in found] == [
        "gradient_checkpointing", "optimizer", "batch_size", "quantization", "a fusion of rank 32", "all of these",
    ]  # fmt: skip
    assert all(peak < need.peak for peak in found.values()) and min(found, key=found.get) == "all of these"
    assert replace(job, new=8, length=16).need().trainable == 0


def study(tmp_path, *lines: str):
    text = GOOD.replace("[base, bottleneck]", "[base, lora, adapterfusion, advfusion_zero]")
    (tmp_path / "small.yaml").write_text(text + "\n".join(lines))
    return load_study("small.yaml", tmp_path)


def test_the_report_of_a_study(tmp_path):
    said = fit.report(study(tmp_path), "24GB")
    assert max(map(len, said.split("\n"))) <= 80
    first, second = said.split("\n\n")[1:3]
    weights = {words[1:-4]: words[-4:] for line in first.split("\n")[1:] if (words := tuple(line.split()))[0].isdigit()}
    assert list(weights) >= [("base_model:", "from", "scratch"), ("adapter:", "bottleneck"), ("adapter:", "lora")]
    (fusion,) = [cells for stage, cells in weights.items() if stage[0] == "fusion:"]
    sizes = (word for size in (1, 3) for word in format_bytes(size * 4 * 83_520).split())  # 3 (3 d^2 + 2 d), d = 96
    assert "83,520 " + " ".join(sizes) in " ".join(first.split())
    memory = [line.split() for line in second.split("\n")]
    assert len(memory) == len(weights) + 1 and all(row[-1] == "yes" for row in memory[1:])
    assert first.split("\n")[-1].split()[-2:] == ["-", "-"], "an evaluation leaves nothing"


def test_what_the_rivals_of_attention_take(tmp_path):
    (tmp_path / "small.yaml").write_text(GOOD.replace("[base, bottleneck]", "[lora, mhr, ties]"))
    said = fit.as_data(load_study("small.yaml", tmp_path), "24GB")
    (mixed,) = [one for one in said["stages"] if one["stage"] == "fusion"]
    assert mixed["label"] == "mhr of 3 lora" and mixed["trainable"] == 3 * 2 * 8 * 3, "layers, sites, heads, members"
    assert said["not_estimated"] == ["ties"]


def test_the_members_of_folds_take_room_beside_the_others(tmp_path):
    def fusion(rows: str) -> dict:
        planned = fit.as_data(study(tmp_path, f"fusion: {{rows: {rows}}}"), "24GB")["stages"]
        (of_fusions,) = [one for one in planned if one["stage"] == "fusion"]
        return of_fusions

    same, folded = fusion("same"), fusion("cross_fit")
    assert folded["adapters"] > same["adapters"] and folded["label"] == same["label"]
    assert folded["trainable"] == same["trainable"]


def test_what_would_help_where_a_stage_does_not_fit(tmp_path, monkeypatch):
    job = estimate.Job("adapter", "bottleneck", config(layers=4), adapters("bottleneck"), True, 8, 64, bf16=True)
    monkeypatch.setattr(fit, "jobs", lambda *_: ([job], ["merge"]))
    said = fit.report(study(tmp_path), "601MB")
    assert "adapter: bottleneck needs" in said and re.search(r"^1 .* no$", said, re.MULTILINE)
    assert re.search(r"\n  gradient_checkpointing: true +[\d.]+ MB +-[\d.]+ MB +too large", said)
    assert "not estimated, since PEFT builds them from finished adapters: merge" in said


def test_what_lies_on_disk_is_told_by_stage(tmp_path, monkeypatch):
    """A bottleneck trained by AdamW publishes its weights in fp32; a checkpoint has its two moments beside them."""
    kinds = {"kept": {"keeps_state": True}, "left": {}}
    planned = [estimate.Job("fusion", name, config(layers=4), adapters("bottleneck"), True, 8, 64, **more)
               for name, more in kinds.items()]  # fmt: skip
    monkeypatch.setattr(fit, "jobs", lambda *_: (planned, []))
    said = fit.report(study(tmp_path), "24GB")
    need = planned[0].need()
    state = (4 * need.trainable, 12 * need.trainable)
    assert (need.gradients, need.gradients + need.optimizer) == state
    weights, whole = map(format_bytes, state)
    assert re.search(rf"fusion: kept .* {whole} +{whole}$", said, re.MULTILINE)
    assert re.search(rf"fusion: left .* {weights} +{whole}$", said, re.MULTILINE)


def test_a_base_that_is_not_there_is_one_sentence(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="base='owner/absent' has no config.json that can be read here") as error:
        fit.report(study(tmp_path, "base: owner/absent"))
    assert "\n" not in str(error.value)


def test_a_directory_with_a_config_is_enough(tmp_path):
    config().save_pretrained(tmp_path / "base")
    said = fit.report(study(tmp_path, f"base: {tmp_path}/base"), "24 GiB")
    assert "llama, 2 layers of width 32" in " ".join(said.split())


@pytest.mark.parametrize("text", ["24", "GB", "24 bananas", "-3GB"])
def test_a_size_that_is_none(text):
    with pytest.raises(UserError, match="it must be a size such as 24GB"):
        fit.capacity(text)


def test_the_command(tmp_path, monkeypatch, capsys):
    study(tmp_path)
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["estimate", "small.yaml", "--gpu", "8GB"]) == 0
    shown = capsys.readouterr()
    first, *stages = shown.err.splitlines()
    assert "small, on a GPU of 8GB" in shown.out and first.startswith("Measuring passes of small")
    assert stages[0] == f"1 of {len(stages)}: base_model, from scratch" and "fusion, adapterfusion" in shown.err
    assert cli.main(["estimate", "small.yaml", "--gpu", "much"]) == 2
    assert capsys.readouterr().err.endswith("studykit: --gpu is 'much'; it must be a size such as 24GB or 24GiB.\n")
