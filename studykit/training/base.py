"""The base model: a small decoder trained from scratch, or pretrained weights; loaded whole or quantised.

A base run holds `base.json`, which names the weights (`model` for the directory of this name next to it, another
directory, or a hub id) and their quantization. Remote code is never run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from os.path import expanduser
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import cached_file

from studykit.errors import UserError
from studykit.runs import files
from studykit.runs.hub import copy_of
from studykit.study.bases import HUB_ID

WIDE = 512  # hidden size from which bf16 pays on a CPU that multiplies it; nothing was measured between 96 and 576
CPUS = Path("/proc/cpuinfo")
BF16_FLAGS = {"amx_bf16", "avx512_bf16"}  # there, of CPUs that multiply bf16 matrices in hardware


def half_precision() -> bool:
    """Returns whether this machine has a device that is fast with bf16."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def cpu_computes_bf16() -> bool:
    """Returns whether passes run on a CPU that multiplies bf16 matrices in hardware, as Linux tells it.

    These are CPUs with AMX or AVX512_BF16, such as Intel's since 2023 and AMD's since Zen 4.
    """
    flags = CPUS.read_text(encoding="utf-8").split() if CPUS.exists() else []
    return not torch.cuda.is_available() and not BF16_FLAGS.isdisjoint(flags)


def fast_precision(base_run: str | Path) -> str:
    """Returns the precision of the forward pass, bf16 or fp32, that `auto` means for trainings on a base run.

    It is bf16 on a GPU that is fast with it. On a CPU that is (`cpu_computes_bf16`) it is bf16 for a wide base only: a
    training step of a base of 135 million parameters and width 576 then takes two thirds of the time with AMX and less
    than half with AVX512_BF16; a fusion of the tiny base, of width 96, takes 1.4 times as long, since its matrices are
    too small to gain.
    """
    if half_precision():
        return "bf16"
    wide = cpu_computes_bf16() and BaseDescription.read(base_run).hidden_size >= WIDE
    return "bf16" if wide else "fp32"


def quantization_config(quantization: str) -> BitsAndBytesConfig | None:
    """Returns the settings of a quantization; None for `none`.

    `nf4` is 4-bit NormalFloat with double quantisation, as published; `int8` is LLM.int8().
    """
    compute = torch.bfloat16 if half_precision() else torch.float32
    if quantization == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
    return BitsAndBytesConfig(load_in_8bit=True) if quantization == "int8" else None


@dataclass(frozen=True)
class BaseDescription:
    """The base of a base run, as `base.json` holds it. Sizes are 0 until the base was loaded for the first time."""

    weights: str  # "model", a directory, or a hub id with its commit
    quantization: str  # none, nf4 or int8
    dtype: str = "auto"  # fp32, bf16, or auto: bf16 on a GPU that is fast with it
    family: str = ""  # transformers' model type, such as qwen2
    hidden_size: int = 0
    layers: int = 0
    vocabulary: int = 0  # entries
    parameters: int = 0
    memory_mb: float = 0.0  # MiB of the weights when loaded

    @classmethod
    def read(cls, base_run: str | Path) -> BaseDescription:
        """Reads the description of a base run; raises UserError if it holds none."""
        path = Path(base_run) / "base.json"
        if not path.exists():
            raise UserError(f"{base_run} holds no base model; a finished run of notebook 00_base_model is needed.")
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, file: Path) -> None:
        """Writes the description as JSON."""
        files.write_json(file, asdict(self))


def kept_in(base_run: str | Path, quantization: str | None) -> str:
    """Returns how a base is kept in memory, none, nf4 or int8: as a run's parameter says, or else as its base run."""
    return quantization or BaseDescription.read(base_run).quantization


def quantization_of(model: Any) -> str:
    """Returns how a loaded model's weights are kept in memory: none, nf4 or int8."""
    config = getattr(model.config, "quantization_config", None)
    if config is None:
        return "none"
    return "nf4" if config.load_in_4bit else "int8"


def load_tokenizer(base_run: str | Path) -> PreTrainedTokenizerFast:
    """Returns the tokenizer of a base run; without a padding token it pads with the end-of-text token."""
    return open_tokenizer(base_weights(base_run))


def open_tokenizer(name_or_path: str) -> PreTrainedTokenizerFast:
    """Returns the tokenizer stored with weights; raises UserError if it cannot be loaded or has no end token."""
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(**at_revision(name_or_path), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"base={name_or_path!r} has no tokenizer that can be loaded ({str(error).splitlines()[0]}); its files must "
            "lie next to the weights."
        ) from None
    if tokenizer.eos_token is None:
        raise UserError(f"base={name_or_path!r} has no end-of-text token; a tokenizer with an eos_token is needed.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def base_weights(base_run: str | Path) -> str:
    """Returns the directory or hub id of a base run's weights."""
    name = BaseDescription.read(base_run).weights
    if name == "model":
        return str(Path(base_run) / "model")
    return str(files.home() / name) if name.startswith("./") else name


def portable_name(base: str) -> str:
    """Returns the name of weights for `base.json`.

    A hub id is unchanged; a directory is relative to the project if it lies in it, and absolute otherwise.
    """
    directory = Path(expanduser(base))
    if not directory.is_dir():
        return base
    directory = directory.resolve()
    if directory.is_relative_to(files.home()):
        return f"./{directory.relative_to(files.home())}"
    return str(directory)


def load_base(base_run: str | Path, quantization: str | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Returns the model, frozen, and the tokenizer of a base run.

    The model is on the GPU if there is one, in the type of the run, see `BaseDescription`.

    Args:
        quantization: `none`, `nf4` or `int8`; None: that of the run.
    """
    description = BaseDescription.read(base_run)
    model = open_model(base_weights(base_run), quantization or description.quantization, description.dtype)
    return model.requires_grad_(False), load_tokenizer(base_run)


def open_model(name_or_path: str, quantization: str = "none", dtype: str = "auto") -> PreTrainedModel:
    """Returns the model of a directory or hub id; raises UserError if it cannot be loaded."""
    in_bf16 = half_precision() if dtype == "auto" else dtype == "bf16"
    device_map: Any = "cpu" if quantization != "none" else None
    if torch.cuda.is_available():
        device_map = {"": int(os.environ.get("LOCAL_RANK", 0))}  # `accelerate launch` gives each process its GPU
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            **at_revision(name_or_path),
            trust_remote_code=False,
            output_loading_info=True,
            dtype=torch.bfloat16 if in_bf16 else torch.float32,
            quantization_config=quantization_config(quantization),
            device_map=device_map,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise UserError(
            f"base={name_or_path!r} cannot be loaded ({str(error).splitlines()[0]}); a directory with the weights "
            "of a transformers model, or the id of one on the hub, is accepted."
        ) from None
    model, loading = loaded
    if incomplete := sorted([*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])]):
        more = f" and {len(incomplete) - 1} more" if len(incomplete) > 1 else ""
        raise UserError(
            f"base={name_or_path!r} lacks the weight {incomplete[0]}{more}, which would be drawn at random; a "
            f"checkpoint with all weights of a {type(model).__name__} is accepted."
        )
    modules: Iterator[Any] = model.modules()
    for module in modules:
        # On CPUs with AVX512-BF16, bitsandbytes repacks 4-bit weights at the first evaluation into a form that has no
        # gradient: a training after it would crash or, without any message, compute wrong gradients.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if quantization == "nf4" and not torch.cuda.is_available():
        require_true_4_bits(name_or_path, model)
    if quantization == "int8" and not torch.cuda.is_available():
        keep_inputs_whole(model)
    return model.eval()


def keep_inputs_whole(model: PreTrainedModel) -> None:
    """Lets a base in int8 on a CPU compute in evaluation what it computes in training: rounded weights, whole inputs.

    There bitsandbytes also rounds the inputs, by columns that it chooses over the whole batch with its padding. So the
    loss of a row would depend on the rows beside it (by up to .05 on the tiny base), and not be that of the function
    that was trained.
    """
    from bitsandbytes.nn import Linear8bitLt

    modules: Iterator[Any] = model.modules()
    for module in modules:
        if isinstance(module, Linear8bitLt):
            module.state.__class__ = _weights_only()


@lru_cache
def _weights_only() -> type:
    from bitsandbytes import MatmulLtState

    class WeightsOnly(MatmulLtState):
        """The state of a linear layer that always takes the way of a training."""

        is_training = property(lambda self: True, lambda self, value: None)

    return WeightsOnly


def require_true_4_bits(name: str, model: PreTrainedModel) -> None:
    """Raises UserError if bitsandbytes reads back other weights than it has rounded to 4 bits on this CPU.

    It rounds 64 numbers together, counted through the whole matrix. Its kernel for CPUs (0.50) counts them row by row
    where it reads them, so with rows of, say, 96 numbers most of them get the scale of others, and the model computes
    something else without any message. Every width that the model has is tried on random numbers.
    """
    from bitsandbytes.nn import Linear4bit

    modules: Iterator[Any] = model.modules()
    widths = {module.in_features for module in modules if isinstance(module, Linear4bit)}
    if wrong := sorted(width for width in widths if four_bit_error(width) > 0.12):
        raise UserError(
            f"base={name!r} has layers with {', '.join(map(str, wrong))} inputs, whose weights bitsandbytes reads "
            "wrongly in 4 bits on a CPU; multiples of 64, a GPU, or quantization int8 or none are accepted."
        )


@lru_cache
def four_bit_error(width: int) -> float:
    """Returns the relative error of normal random weights, rows of this width, after 4 bits on the CPU.

    It is 0.09 where they are read as they were rounded; 0.2 or more with the scales of others.
    """
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    weights = torch.randn(64, width, generator=torch.Generator().manual_seed(0))
    read = dequantize_4bit(*quantize_4bit(weights, quant_type="nf4"))
    return float((read - weights).norm() / weights.norm())


def at_revision(name_or_path: str) -> dict[str, Any]:
    """Returns how `from_pretrained` names a directory or a hub id, `owner/name@revision`: with the revision apart.

    Files that `studykit fetch` has put below `data/` go before those of the hub. Raises UserError for a directory that
    holds a pipe, a socket or a device, for which a reader would wait without end.
    """
    on_hub = HUB_ID.fullmatch(name_or_path)
    if not on_hub or Path(name_or_path).is_dir():
        for path in Path(name_or_path).glob("*"):
            if path.exists() and not path.is_file() and not path.is_dir():
                raise UserError(
                    f"base={name_or_path!r} holds {path.name!r}, which is no file; a directory of files is needed."
                )
        return {"pretrained_model_name_or_path": name_or_path}
    if fetched := _fetched(on_hub["repo"], on_hub["revision"]):
        return {"pretrained_model_name_or_path": str(fetched)}
    revision = {"revision": on_hub["revision"]} if on_hub["revision"] else {}
    return {"pretrained_model_name_or_path": on_hub["repo"], **revision}


def _fetched(repo: str, revision: str | None) -> Path | None:
    """The copy of a base below `data/`, at a revision or at the only commit that is there; None if there is none."""
    copy = copy_of(repo, revision or "main", "model")
    return copy if copy and (copy / "config.json").is_file() else None


def pinned(name_or_path: str) -> str:
    """Returns a hub id with the commit to which it points now, `owner/name@commit`; a directory is returned unchanged.

    The commit is the one from which config.json comes: the copy's below `data/`, the hub's, or without a network that
    of the hub's cache. Raises UserError unless the configuration of a model can be read there.
    """
    try:
        AutoConfig.from_pretrained(**at_revision(name_or_path), trust_remote_code=False).get_text_config()
    except (OSError, ValueError) as error:
        raise UserError(
            f"base={name_or_path!r} cannot be read ({str(error).splitlines()[0]}); a directory with the weights "
            "of a transformers model, or the id of one on the hub, is accepted."
        ) from None
    on_hub = HUB_ID.fullmatch(name_or_path)
    if not on_hub or Path(name_or_path).is_dir():
        return name_or_path
    if fetched := _fetched(on_hub["repo"], on_hub["revision"]):
        return f"{on_hub['repo']}@{fetched.name.rpartition('@')[2]}"
    file = cached_file(on_hub["repo"], "config.json", revision=on_hub["revision"])  # cache/.../snapshots/<commit>/
    return f"{on_hub['repo']}@{Path(str(file)).parent.name}"


@torch.inference_mode()
def require_causal_model(model: PreTrainedModel, name: str) -> None:
    """Raises UserError unless a model reads text alone and no token of it looks at a later one."""
    if model.config.get_text_config() is not model.config:
        raise UserError(
            f"base={name!r} is a {type(model).__name__}, which reads more than text; a causal "
            "language model is accepted."
        )
    device: Any = model.get_input_embeddings().weight.device
    ids = torch.arange(8, device=device).repeat(2, 1) % model.config.vocab_size  # (2, 8)
    ids[1, -1] = 0
    first, second = model(input_ids=ids, use_cache=False).logits[:, :-1].float()  # (7, V) each
    tolerance = 1e-5 if model.dtype == torch.float32 else 0.1
    # The configuration of GPT-NeoX says that it is no decoder.
    is_encoder = getattr(model.config, "is_decoder", None) is False and "gpt_neox" not in model.config.model_type
    if is_encoder or (first - second).abs().max() > tolerance * first.abs().max():
        raise UserError(
            f"base={name!r} is a {type(model).__name__} whose tokens look at later ones; a causal language model is "
            "accepted."
        )
