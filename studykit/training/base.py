"""The base model: a small decoder trained from scratch, or any checkpoint; loaded whole or quantised.

A base run holds `base.json`, which names the checkpoint (`model`, a directory beside it, or a hub id) and how it is
quantised. Remote code is never run.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedTokenizerFast,
)

from studykit.errors import UserError
from studykit.runs import files


def half_precision() -> bool:
    """Whether this machine has a device with fast bf16."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def quantization_config(quantization: str) -> BitsAndBytesConfig | None:
    """`nf4`: 4-bit NormalFloat with double quantisation, as published; `int8`: LLM.int8(); `none`."""
    compute = torch.bfloat16 if half_precision() else torch.float32
    if quantization == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
    return BitsAndBytesConfig(load_in_8bit=True) if quantization == "int8" else None


def describe_base(base_run: str | Path) -> dict:
    """What `base.json` of a base run says: checkpoint, quantization."""
    path = Path(base_run) / "base.json"
    if not path.exists():
        raise UserError(f"{base_run} holds no base model; a finished run of notebook 00_base_model is needed.")
    return json.loads(path.read_text(encoding="utf-8"))


def load_tokenizer(base_run: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a base run; padding falls back to the end-of-text token."""
    return open_tokenizer(base_weights(base_run))


def open_tokenizer(name_or_path: str) -> PreTrainedTokenizerFast:
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"base={name_or_path!r} has no tokenizer that can be loaded ({str(error).splitlines()[0]}); its files must "
            "stand beside the weights."
        ) from None
    if tokenizer.eos_token is None:
        raise UserError(f"base={name_or_path!r} has no end-of-text token; a tokenizer with an eos_token is needed.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def base_weights(base_run: str | Path) -> str:
    """Directory or hub id of the base run's weights."""
    name = describe_base(base_run)["weights"]
    if name == "model":
        return str(Path(base_run) / "model")
    return str(files.home() / name) if name.startswith("./") else name


def portable_name(base: str) -> str:
    """How `base.json` names a checkpoint: a hub id as it is, a directory from the project's home or absolute."""
    place = Path(base).expanduser()
    if not place.is_dir():
        return base
    place = place.resolve()
    return f"./{place.relative_to(files.home())}" if place.is_relative_to(files.home()) else str(place)


def load_base(base_run: str | Path, quantization: str | None = None):
    """(model, tokenizer) of a base run, frozen, on the GPU if there is one, bf16 where the hardware is fast with it.

    Args:
        quantization: overrides that of the run: `none`, `nf4` or `int8`.
    """
    quantization = quantization or describe_base(base_run)["quantization"]
    model = open_model(base_weights(base_run), quantization)
    return model.requires_grad_(False), load_tokenizer(base_run)


def open_model(name_or_path: str, quantization: str = "none"):
    own_gpu = {"": int(os.environ.get("LOCAL_RANK", 0))}  # of this process; `accelerate launch` numbers them
    try:
        model = AutoModelForCausalLM.from_pretrained(
            name_or_path,
            dtype=torch.bfloat16 if half_precision() else torch.float32,
            quantization_config=quantization_config(quantization),
            device_map=own_gpu if torch.cuda.is_available() else "cpu" if quantization != "none" else None,
        )
    except OSError as error:
        raise UserError(
            f"base={name_or_path!r} cannot be loaded ({str(error).splitlines()[0]}); a directory with a checkpoint of "
            "transformers, or the id of one on the hub, is accepted."
        ) from None
    for module in model.modules():
        # On CPUs with AVX512-BF16, bitsandbytes repacks 4-bit weights at the first evaluation into a form that has no
        # gradient: what trains after it would get a wrong one, without a word, or crash.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model.eval()


def inspect_weights(name_or_path: str) -> dict:
    """Family and sizes of a checkpoint from its config alone; raises UserError if it cannot be read."""
    try:
        config = AutoConfig.from_pretrained(name_or_path).get_text_config()
    except (OSError, ValueError) as error:
        raise UserError(
            f"base={name_or_path!r} cannot be read ({str(error).splitlines()[0]}); a directory with a checkpoint of "
            "transformers, or the id of one on the hub, is accepted."
        ) from None
    return {
        "family": config.model_type,
        "hidden_size": config.hidden_size,
        "layers": config.num_hidden_layers,
        "vocabulary": config.vocab_size,
    }
