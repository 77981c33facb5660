"""The four published bases, without weights: sizes from their configurations alone, and a step at a depth of one layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, PretrainedConfig, Qwen2Config

from studykit.runs.hub import commit_of
from studykit.study.bases import PUBLISHED
from studykit.study.family import load_plan
from studykit.training import estimate, memory
from studykit.training.batches import token_losses
from studykit.tuners import PRESETS, BottleneckConfig, FusionConfig, fusion_members, value_deviation
from tests.data import hub_cache
from tests.project import ROOT
from tests.tuners import models

# Of the published configurations: vocabulary, width, MLP, layers, heads, key-value heads, tied embeddings.
SIZES = {
    "codellama-7b": (32016, 4096, 11008, 32, 32, 32, False),
    "deepseek-coder-1.3b": (32256, 2048, 5504, 24, 16, 16, False),
    "qwen2.5-coder-1.5b": (151936, 1536, 8960, 28, 12, 2, True),
    "qwen2.5-coder-3b": (151936, 2048, 11008, 36, 16, 2, True),
}
# Published or derived from the reference implementation, in millions: bottleneck, fusion, fusion of Compacters.
MILLIONS = {
    "codellama-7b": (67.2, 1610.9, 3221.7),
    "deepseek-coder-1.3b": (12.6, 302.1, 604.2),
    "qwen2.5-coder-1.5b": (8.3, 198.3, 396.5),
    "qwen2.5-coder-3b": (19.0, 453.1, 906.3),
}


def config(word: str, **changes: Any) -> PretrainedConfig:
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "num_key_value_heads", "tie_word_embeddings")  # fmt: skip
    family = Qwen2Config if word.startswith("qwen") else LlamaConfig
    return family(**dict(zip(names, SIZES[word], strict=True)) | changes)


def composed(kind: str, fused: bool) -> dict[str, Any]:
    """One adapter of a kind, as published, or a fusion of two."""
    factor = 32 if kind == "compacter" else 16
    presets = PRESETS[kind] | {"reduction_factor": factor}
    members = {name: BottleneckConfig(task_type="CAUSAL_LM", **presets) for name in ("ruby", "swift")[: 1 + fused]}
    return members | ({"fusion": FusionConfig(members=list(members), task_type="CAUSAL_LM")} if fused else {})


@pytest.mark.parametrize("word", PUBLISHED)
def test_sizes_of_adapters_and_fusions(word):
    """Depth is linear, so two layers tell; of the whole model only the base is counted."""
    counts = []
    for kind, fused in (("bottleneck", False), ("bottleneck", True), ("compacter", True)):
        shallow = memory.skeleton(config(word, num_hidden_layers=2), torch.bfloat16)
        model = memory.attach(shallow, composed(kind, fused))
        assert {p.device.type for p in model.parameters()} == {"meta"}
        counts.append(sum(p.numel() for p in model.parameters() if p.requires_grad) * SIZES[word][3] / 2)
    assert tuple(round(count / 1e6, 1) for count in counts) == MILLIONS[word]
    billions = sum(p.numel() for p in memory.skeleton(config(word), torch.bfloat16).parameters()) / 1e9
    assert billions == pytest.approx(
        {"7b": 6.74, "1.3b": 1.35, "1.5b": 1.54, "3b": 3.09}[word.split("-")[-1]], abs=0.01
    )


@pytest.mark.parametrize("word", PUBLISHED)
def test_the_stages_of_a_published_study_can_be_estimated(word, tmp_path, monkeypatch):
    """From config.json in the hub's cache; a fusion's weights and state are those of its count, and its batch is as
    published."""
    hub_cache.use(tmp_path, monkeypatch)
    config(word).save_pretrained(hub_cache.snapshot(tmp_path, PUBLISHED[word].hub_id, "model"))
    planned = load_plan("params/published/translation.yaml", ROOT)
    study = next(member.study for member in planned.members if member.study.base == PUBLISHED[word].hub_id)
    jobs, unknown = estimate.jobs(study, half=True)
    assert unknown == [] and {job.quantization for job in jobs} == {"nf4"}
    job = next(job for job in jobs if job.stage == "fusion" and "compacter" not in job.label)
    assert (job.batch, job.accumulation) == (PUBLISHED[word].batch_size, PUBLISHED[word].gradient_accumulation)
    assert job.batch * job.accumulation == 4 and job.length == 8192 and job.checkpointing
    if word == "deepseek-coder-1.3b":  # one of them, since each takes a second
        need = job.need()
        assert round(need.trainable / 1e6, 1) == MILLIONS[word][1]
        assert need.optimizer == 8 * need.trainable and 10e9 < need.peak < 20e9
    commit_of.cache_clear()


@pytest.mark.parametrize("word", PUBLISHED)
def test_a_step_on_random_weights_of_one_layer(word):
    """All widths are real; the vocabulary is small. Phase 1 of AdvFusion: the fusion alone gets gradients."""
    torch.manual_seed(0)
    base = memory.skeleton(config(word, num_hidden_layers=1, vocab_size=300), torch.float32).to_empty(device="cpu")
    for name, parameter in base.named_parameters():
        _ = parameter.data.fill_(1.0) if "norm" in name else parameter.data.uniform_(-0.02, 0.02)
    assert not [name for name, buffer in base.named_buffers() if "inv_freq" not in name]
    rotary = base.model.rotary_emb
    rotary.inv_freq = type(rotary)(base.config).inv_freq
    model = memory.attach(base.requires_grad_(False), composed("bottleneck", True)).train()
    fusion_members(model, masked=["swift"], mode="zero")
    ids = models.tokens(1, 8)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    (token_losses(model, batch, ids).mean() + 0.01 * value_deviation(model)).backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trained.values()) == 3 * SIZES[word][1] ** 2 + 2 * SIZES[word][1]
    gradients = {name: p.grad.abs().max().item() for name, p in trained.items() if "key.bias" not in name}
    assert all(0 < value < float("inf") for value in gradients.values()), gradients
