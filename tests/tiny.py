"""Miniature runs for tests: a random base, a data set of a few rows, adapters and fusions on them, made in seconds."""

from __future__ import annotations

from pathlib import Path

import torch

from studykit.data.rows import Row, write_rows
from studykit.runs.files import write_json
from studykit.study.fusion_parameters import FusionParams
from studykit.study.training_parameters import AdapterParams
from studykit.training.adapters import new_adapter, save_adapter
from studykit.training.base import load_base
from studykit.training.batches import encode_rows
from studykit.training.fusions import new_fusion, save_fusion, save_members
from studykit.training.pretraining import train_tokenizer
from tests import made_runs
from tests.tuners.models import tiny

torch.set_num_threads(1)  # at this size threads only wait for each other
MEMBERS = ["python", "ruby", "lua"]
TARGET = MEMBERS[-1]
LIMITS = (24, 24)


def rows(n: int, language: str = TARGET, first: int = 0) -> list[Row]:
    """Rows that can be learned: count up to a number, in a language's way."""
    made = []
    for i in range(first, first + n):
        count = " ".join(str(k) for k in range(i % 5 + 2))
        prompt = f"count to {i % 5 + 1} in {language}, case {i}\n"
        made.append(Row(f"{language}-{i}", language, prompt, f"{language}: {count}"))
    return made


def tokenizer():
    """Byte-level BPE of 300 entries."""
    return train_tokenizer([row.prompt + row.target for x in MEMBERS for row in rows(8, x)], 300)


def base_model(tokens, seed: int = 0):
    """Random, but with a spread of logits: what is added to its hidden states tells."""
    special = {"pad_token_id": tokens.pad_token_id, "eos_token_id": tokens.eos_token_id, "bos_token_id": None}
    return tiny(seed=seed, vocab_size=len(tokens), tie_word_embeddings=True, **special).requires_grad_(False)


def examples(tokens, n: int, language: str = TARGET, first: int = 0) -> list[dict]:
    return encode_rows(rows(n, language, first), tokens, *LIMITS)


def base_run(home: Path, seed: int = 0) -> str:
    """A base run below the project's directory; its path from there."""
    tokens = tokenizer()
    place = home / "runs/base_model" / f"tiny-{seed:010d}"
    base_model(tokens, seed).save_pretrained(place / "model")
    tokens.save_pretrained(place / "model")
    write_json(place / "base.json", {"weights": "model", "quantization": "none"})
    return finish(home, place, {})


def data_run(home: Path) -> str:
    place = home / "runs/data/tiny-0000000002"
    sizes = {"train": (8, 0), "valid": (4, 8), "test": (4, 12)}
    write_rows(place / "rows", {x: {s: rows(n, x, first) for s, (n, first) in sizes.items()} for x in MEMBERS})
    limits = dict(zip(("max_prompt_tokens", "max_target_tokens"), LIMITS, strict=True))
    return finish(home, place, {"task": "generation", "language": "", "members": MEMBERS, **limits})


def adapter_run(home: Path, base: str, language: str, method: str = "bottleneck", seed: int = 0) -> str:
    """An adapter with random weights, far from the identity."""
    tokens = tokenizer()
    p = AdapterParams(language=language, method=method, seed=seed, reduction_factor=4)
    model = new_adapter(base_model(tokens), p)
    noise = torch.Generator().manual_seed(seed + sum(map(ord, language)))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=noise))
    place = home / "runs/adapter" / f"{language}-{method}-s{seed}-0000000003"
    model.create_or_update_model_card = lambda *_: None  # a text for the hub, for which the rest would wait
    save_adapter(model, place / "adapter", language)
    return finish(home, place, p.model_dump() | {"base": base})


def finish(home: Path, place: Path, params: dict) -> str:
    made_runs.finish(place, place.parent.name, params)
    return place.relative_to(home).as_posix()


def fusion_params(home: Path, **given) -> FusionParams:
    """Parameters of notebook 03 on runs that are made in `home`, where the process must be."""
    base = base_run(home)
    members = {language: adapter_run(home, base, language) for language in MEMBERS}
    usual = {"method": "advfusion", "mask": "exclude", "steps": 4, "eval_every": 2, "batch_size": 4,
             "precision": "fp32", "learning_rate": 1e-2, "factor": 0.5, "out": "runs/fusion/lua-advfusion-s0-0000000004"}  # fmt: skip
    return FusionParams(base=base, data=data_run(home), members=members, target=TARGET, **{**usual, **given})


def trained_fusion(home: Path, mask: str, seed: int = 0) -> FusionParams:
    """A finished AdvFusion run whose two phases have other random weights, as has each seed; its parameters."""
    p = fusion_params(home, mask=mask, seed=seed, out=f"runs/fusion/lua-advfusion-s{seed}-0000000004")
    model = new_fusion(load_base(p.base)[0], p)
    for number, phase in enumerate(("phase1", "phase2")):
        torch.manual_seed(2 * seed + number)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.add_(0.03 * torch.randn(parameter.shape))
        save_fusion(model, home / p.out / phase)
    save_members(home / p.out, p.members)
    finish(home, home / p.out, p.model_dump())
    return p
