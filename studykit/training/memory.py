"""The memory that a pass over a model takes, measured without weights: the real code runs on tensors without content.

A model is built from its configuration on the `meta` device and run as FakeTensors: every operation, its backward pass,
autocast and gradient checkpointing are PyTorch's own, but tensors have shapes only. `LiveMemory` counts the storages
that are alive. So no formula has to be kept in step with adapters, fusions and model families. For orientation, a
frozen Llama layer above a bottleneck of width r keeps these numbers per token in fp32 with sdpa (h: hidden size,
a: heads times their width, m: width of the MLP, T: tokens per row, V: vocabulary):

    2h (what the norms read) + 4a (q, k, v, attention's output) + T (the mask) + 3m (gate, its silu, up) + h + r

The first layer keeps only h + r, since nothing below it trains, and the loss keeps V for each token that counts in it.
With gradient checkpointing a layer keeps h, and the rest exists for one layer at a time. Workspaces inside kernels and
the fragments of an allocator are not counted.
"""

from __future__ import annotations

import re
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as LORA_TARGETS
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, PretrainedConfig

from studykit.training.batches import logits_at
from studykit.tuners import BottleneckConfig, fusion_layers, value_deviation
from studykit.tuners.fusion import MemberStack
from studykit.tuners.placement import linear_targets

CHECKPOINTING = {"use_reentrant": False, "preserve_rng_state": False}  # a random state has no fake


def skeleton(config: PretrainedConfig, dtype: torch.dtype) -> nn.Module:
    """Returns the model of a configuration on `meta`, with all shapes and no content; frozen."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation="sdpa", trust_remote_code=False
        )
    return model.requires_grad_(False)


def attach(model: nn.Module, configs: dict[str, PeftConfig]) -> PeftModel:
    """Returns the model with adapters, added in order; the last one is active, and only it trains."""
    for name, config in configs.items():
        with next(model.parameters()).device:
            if isinstance(model, PeftModel):
                model.add_adapter(name, config)
            else:
                model = get_peft_model(model, config, adapter_name=name)
    model.set_adapter(name)
    return model


def as_member(config: PeftConfig, family: str) -> BottleneckConfig:
    """Returns an adapter's configuration as a fusion needs it: a LoRA becomes a bottleneck (see `tuners.lora`)."""
    if not isinstance(config, LoraConfig):
        return config
    modules = linear_targets(sorted(config.target_modules or LORA_TARGETS[family]))
    return BottleneckConfig(
        placement="linear",
        rank=config.r,
        activation="identity",
        biased=False,
        init="lora",
        target_modules=modules,
        task_type=config.task_type,
    )


def quantized_layers(model: nn.Module) -> list[nn.Linear]:
    """Returns the linear layers that bitsandbytes quantizes: all but the output embedding."""
    head = model.get_output_embeddings()
    return [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]


def weight_bytes(model: nn.Module, quantization: str = "none") -> int:
    """Returns the bytes of a base's weights, with its linear layers unchanged or in `nf4` or `int8`.

    nf4 with double quantisation takes half a byte per weight, one byte per block of 64 weights, four bytes per 256
    blocks, and 1092 bytes per layer for two tables and an offset. int8 takes a byte per weight and four per output.
    """
    total = sum(p.nbytes for p in model.parameters()) + sum(b.nbytes for b in model.buffers())
    if quantization != "none":
        for weight in (layer.weight for layer in quantized_layers(model)):
            n, rows = weight.numel(), weight.shape[0]
            blocks = -(-n // 64)
            packed = -(-n // 2) + blocks + 4 * -(-blocks // 256) + 1092 if quantization == "nf4" else n + 4 * rows
            total += packed - weight.nbytes
    return total


class _KeptInput(torch.autograd.Function):
    """A frozen linear layer that keeps its input, as LLM.int8() of bitsandbytes does although it does not need it."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.input, ctx.weight = x, weight
        return nn.functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        return grad @ ctx.weight, None, None


class LiveMemory(TorchDispatchMode):
    """A count of the bytes of storages that operations within it create: those alive `now`, and their `peak`."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = self.early = 0
        self._sizes: dict[int, int] = {}

    def ignore(self, *tensors: Tensor) -> None:
        """Excludes the storages of tensors from the count."""
        for tensor in tensors:
            self._sizes[tensor.untyped_storage()._cdata] = 0

    def middle(self, *_) -> None:
        """Starts `peak` again from here, and keeps its value until now as `early`."""
        self.early, self.peak = max(self.early, self.peak), self.now

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self._sizes:
                    self._sizes[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._free, storage._cdata)
        return out

    def _free(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


@contextmanager
def _fake(model: nn.Module, quantization: str) -> Iterator[tuple[FakeTensorMode, LiveMemory]]:
    """Turns a skeleton into FakeTensors on a CPU for a while; its weights and stacks do not count as alive."""
    mode, live = FakeTensorMode(), LiveMemory()
    fakes: dict[int, tuple[Tensor, Tensor]] = {}  # with the original, so that its id is not given to another tensor

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in fakes:
            new = mode.fake_tensor_converter.from_meta_and_device(mode, tensor.detach(), torch.device("cpu"))
            new = nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
            fakes[id(tensor)] = (tensor, new)
            live.ignore(new)
        return fakes[id(tensor)][1]

    tables = [table for module in model.modules() for table in (module._parameters, module._buffers)]
    originals = [(table, name, tensor) for table in tables for name, tensor in table.items() if tensor is not None]
    patched: list[nn.Module] = []
    for table, name, tensor in originals:
        table[name] = fake(tensor)
    with mode:
        for layer in fusion_layers(model):
            for name in set(layer.fusions) & set(layer.active_adapters):
                with torch.no_grad():
                    stack = MemberStack.from_members([layer.adapters[member] for member in layer.members[name]])
                live.ignore(stack.down, stack.down_bias, stack.up, stack.up_bias)
                layer.stack = lambda name, stack=stack: stack  # its own compares addresses, which fakes lack
                patched.append(layer)
        if quantization == "int8":
            for layer in quantized_layers(model):
                layer.forward = lambda x, layer=layer: _KeptInput.apply(x, layer.weight, layer.bias)
                patched.append(layer)
        try:
            yield mode, live
        finally:
            for layer in patched:
                layer.__dict__.pop("stack" if hasattr(layer, "fusions") else "forward", None)
            for table, name, tensor in originals:
                table[name] = tensor


def stack_bytes(model: nn.Module) -> int:
    """Returns the bytes of the copies of frozen members that active fusions keep."""
    total = 0
    for layer in fusion_layers(model):
        for name in set(layer.fusions) & set(layer.active_adapters):
            with torch.no_grad():
                stack = MemberStack.from_members([layer.adapters[member] for member in layer.members[name]])
            total += sum(x.nbytes for x in (stack.down, stack.down_bias, stack.up, stack.up_bias))
    return total


def _widest(model: nn.Module, quantization: str, dtype: torch.dtype) -> int:
    """Returns the bytes of the widest quantized layer, which is unpacked for its product."""
    if quantization == "none":
        return 0
    return max(layer.weight.numel() for layer in quantized_layers(model)) * dtype.itemsize


@dataclass(frozen=True)
class StepMemory:
    """The bytes that a training step takes, besides weights and optimizer state."""

    saved: int  # alive between the forward and the backward pass, gradients excluded
    gradients: int
    early: int  # the peak until the backward pass reaches the middle layer, gradients included
    late: int  # the peak after that, gradients included

    @property
    def peak(self) -> int:
        """Returns the peak of the whole step."""
        return max(self.early, self.late)


def training_step(
    model: nn.Module,
    batch: int,
    length: int,
    *,
    bf16: bool = False,
    checkpointing: bool = False,
    accumulation: int = 1,
    value_penalty: bool = False,
    quantization: str = "none",
    counted: int = 0,
) -> StepMemory:
    """Runs one step of `train` on rows of full length, with the loss of `trainer.StudyTrainer`, and returns its memory.

    Args:
        model: a skeleton; the parameters that require a gradient train.
        batch, length: rows per forward pass and tokens per row, B and T.
        bf16: whether the forward pass runs under autocast, as in Trainer.
        value_penalty: whether the value penalty is part of the loss.
        counted: tokens per row that count in the loss; 0: all.
    """
    model.train()
    if checkpointing:
        _checkpoint(model, True)
    unpacked = _widest(model, quantization, next(model.parameters()).dtype)
    with _fake(model, quantization) as (_, live):
        ids = torch.zeros(batch, length, dtype=torch.long)
        layer = rf".*\.layers\.{model.config.get_text_config().num_hidden_layers // 2}\..*"
        inside = [p for name, p in model.named_parameters() if p.requires_grad and re.fullmatch(layer, name)]
        hook = inside[0].register_post_accumulate_grad_hook(live.middle) if inside else None
        with live:
            for _ in range(min(2, accumulation)):
                before = live.now
                loss = _loss(model, ids, bf16, counted)
                if value_penalty:
                    loss = loss + value_deviation(model)
                saved = live.now - before
                loss.backward()
                del loss
        gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
        if hook:
            hook.remove()
    if checkpointing:
        _checkpoint(model, False)
    return StepMemory(saved, gradients, live.early + unpacked, live.peak + unpacked)


def forward_peak(
    model: nn.Module, batch: int, length: int, *, bf16: bool = False, quantization: str = "none", counted: int = 0
) -> int:
    """Returns the peak in bytes while losses are measured without gradients, (B, T) tokens at a time.

    counted: tokens per row whose loss is measured; 0: all.
    """
    model.eval()
    with _fake(model, quantization) as (_, live):
        ids = torch.zeros(batch, length, dtype=torch.long)
        with live, torch.no_grad():
            _loss(model, ids, bf16, counted)
    return live.peak + _widest(model, quantization, next(model.parameters()).dtype)


def generation_peaks(
    model: nn.Module, batch: int, prompt: int, new: int, *, quantization: str = "none"
) -> tuple[int, int]:
    """Returns two peaks in bytes: while B prompts are read, and while they are continued with a KV cache.

    Args:
        batch, prompt, new: B, the tokens of each prompt, and the tokens that are generated.
    """
    model.eval()
    layers = model.config.get_text_config().num_hidden_layers
    with _fake(model, quantization) as (_, live):
        ids = torch.zeros(batch, prompt, dtype=torch.long)
        with live, torch.no_grad():
            mask = torch.ones_like(ids)
            out = model(input_ids=ids, attention_mask=mask, use_cache=True, logits_to_keep=1)
            logits = out.logits.nbytes
            cache = live.now - logits - mask.nbytes
    grown = cache * (prompt + new) / prompt
    last = grown * (1 + 1 / layers) + 2 * logits  # the cache of one layer at a time is copied to grow
    unpacked = _widest(model, quantization, next(model.parameters()).dtype)
    return live.peak + unpacked, int(last) + unpacked


def _checkpoint(model: nn.Module, on: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the newer name is missing in some versions of transformers
        model.gradient_checkpointing_enable(CHECKPOINTING) if on else model.gradient_checkpointing_disable()


def _loss(model: nn.Module, ids: Tensor, bf16: bool, counted: int = 0) -> Tensor:
    """Returns the loss of the last `counted` tokens of each row, or of all where it is 0."""
    batch, length = ids.shape
    counted = min(counted or length - 1, length - 1)
    at = torch.zeros(batch * counted, dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = logits_at(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, at)
    return nn.functional.cross_entropy(logits.float(), at, reduction="sum")
