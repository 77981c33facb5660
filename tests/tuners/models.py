"""Tiny random models of several families for the tests."""

from __future__ import annotations

import torch
import transformers
from peft import PeftModel, get_peft_model

from studykit.tuners import BottleneckConfig, FusionConfig

FAMILIES = ["Llama", "Qwen2", "Qwen3", "Gemma", "Mistral", "Starcoder2"]
SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def tiny(family: str = "Qwen2", seed: int = 0, **overrides):
    """A random decoder of the family: 2 layers of width 32, vocabulary 61, in eval mode."""
    torch.manual_seed(seed)
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **overrides})
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def tokens(batch: int = 3, length: int = 9, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, SIZES["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(seed))


def fused(members: list[str], family: str = "Qwen2", widths: dict[str, int] | None = None, **overrides) -> PeftModel:
    """A tiny model with a fusion of the members, active; all weights random enough that nothing is near zero."""
    base = tiny(family, **overrides)
    model = None
    for name in members:
        factor = (widths or {}).get(name, 4)
        config = BottleneckConfig(task_type="CAUSAL_LM", reduction_factor=factor)
        if model is None:
            model = get_peft_model(base, config, adapter_name=name)
        else:
            model.add_adapter(name, config)
    model.add_adapter("fusion", FusionConfig(task_type="CAUSAL_LM", members=list(members)))
    model.set_adapter("fusion")
    randomise(model)
    return model.eval()


def randomise(model: PeftModel, seed: int = 0, std: float = 0.3) -> None:
    """N(0, std) into every adapter and fusion weight, by name, so that equal names get equal weights."""
    for name, parameter in model.named_parameters():
        if ".composition." in name:
            generator = torch.Generator().manual_seed(seed + sum(map(ord, name)))
            noise = torch.randn(parameter.shape, generator=generator) * std
            parameter.data.copy_(noise + (torch.eye(len(parameter)) if name.endswith("value.weight") else 0))
