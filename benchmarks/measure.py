"""What the benchmarks share: a random model, interleaved timing, saved activations, and how results are written.

Timing is process CPU time of one thread, because wall time on shared cores tells of the neighbours. Variants take turns
within one process, so that a slow minute meets all of them; each number is a median, and before each recorded step of a
variant stands an unrecorded one. It needs torch and transformers 4.57 or newer, so that the peer runs the same code.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn

MIB = 2**20


@dataclass(frozen=True)
class Shape:
    """A Qwen2 decoder and a batch."""

    hidden: int = 512
    layers: int = 8
    intermediate: int = 1376
    heads: int = 8
    vocabulary: int = 4096
    batch: int = 4
    length: int = 256  # tokens


QUICK = Shape(hidden=32, layers=2, intermediate=48, heads=4, vocabulary=61, batch=2, length=8)


def random_base(shape: Shape) -> transformers.PreTrainedModel:
    """A frozen Qwen2 with random weights, fp32, sdpa, in training mode."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        intermediate_size=shape.intermediate,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=1024,
    )
    config._attn_implementation = "sdpa"
    return transformers.Qwen2ForCausalLM(config).requires_grad_(False).train()


def batch_of(shape: Shape) -> Tensor:  # (batch, length)
    return torch.randint(3, shape.vocabulary, (shape.batch, shape.length), generator=torch.Generator().manual_seed(0))


class Floor:
    """Gradients down to the embeddings: one trainable vector added to them, (hidden,), while `on`."""

    def __init__(self, model: nn.Module, hidden: int):
        self.vector, self.on = nn.Parameter(torch.zeros(hidden)), False
        model.get_input_embeddings().register_forward_hook(self._add)

    def _add(self, embeddings: nn.Module, inputs: tuple, output: Tensor) -> Tensor:  # (B, T, hidden)
        return output + self.vector if self.on else output


@dataclass
class Variant:
    """One thing to be timed. `enter` makes it the active one and returns what trains; nothing means forward only."""

    name: str
    enter: Callable[[], list[nn.Parameter]]
    members: int | None = None


def time_variants(model: nn.Module, variants: list[Variant], shape: Shape, repeats: int) -> dict[str, dict]:
    """{variant: milliseconds of a step and its parts, saved MiB, trainable parameters}: medians of `repeats`."""
    ids = batch_of(shape)
    optimizers: dict[str, torch.optim.Optimizer | None] = {}
    times: dict[str, list[tuple[float, ...]]] = {variant.name: [] for variant in variants}
    results: dict[str, dict] = {}
    for turn in range(repeats):
        for variant in variants:
            trained = variant.enter()
            if turn == 0:
                optimizers[variant.name] = torch.optim.AdamW(trained, lr=1e-4, foreach=True) if trained else None
                saved = saved_mib(model, ids) if trained else 0.0
                results[variant.name] = {"trainable": sum(p.numel() for p in trained), "saved_mib": saved}
                if variant.members is not None:
                    results[variant.name]["members"] = variant.members
            step(model, ids, optimizers[variant.name])
            times[variant.name].append(step(model, ids, optimizers[variant.name]))
    for name, rows in times.items():
        for part, values in zip(("step", "forward", "backward", "optimizer"), zip(*rows, strict=True), strict=True):
            results[name][f"{part}_ms"] = statistics.median(values)
        steps = [row[0] for row in rows]
        results[name]["step_ms_range"] = [min(steps), max(steps)]
    return results


def step(model: nn.Module, ids: Tensor, optimizer: torch.optim.Optimizer | None) -> tuple[float, float, float, float]:
    """Milliseconds of CPU time: step, forward, backward, optimizer."""
    start = time.process_time()
    with torch.set_grad_enabled(optimizer is not None):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    forward = backward = end = time.process_time()
    if optimizer is not None:
        loss.backward()
        backward = time.process_time()
        optimizer.step()
        optimizer.zero_grad()
        end = time.process_time()
    return tuple(1e3 * t for t in (end - start, forward - start, backward - forward, end - backward))


def saved_mib(model: nn.Module, ids: Tensor) -> float:
    """Memory that autograd keeps for the backward pass: distinct storages other than parameters'."""
    own, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # a node that kept its own output would never be freed

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=ids, labels=ids, use_cache=False).loss  # noqa: B018
    return sum(kept.values()) / MIB


def arguments(description: str, output: str = "docs") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="tiny shapes and few repeats: does it run at all?")
    parser.add_argument("--output", type=Path, default=Path(output), help="directory of benchmarks.json")
    return parser


def machine() -> dict:
    """What the numbers depend on."""
    names = [line.split(":")[1].strip() for line in read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8") if Path(path).exists() else ""


def setting(shape: Shape, repeats: int) -> dict:
    return {"shape": asdict(shape), "repeats": repeats, "machine": machine()}


def write(directory: Path, section: str, content: dict) -> Path:
    """Replaces one section of `directory/benchmarks.json`; the others stay."""
    path = directory / "benchmarks.json"
    directory.mkdir(parents=True, exist_ok=True)
    everything = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    everything[section] = content
    path.write_text(json.dumps(rounded(everything), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path


def rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def table(header: list[str], rows: list[list]) -> str:
    """A Markdown table: the first column to the left, numbers to the right."""
    cells = [header] + [[cell if isinstance(cell, str) else f"{cell:,}" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    columns = list(zip("<" + ">" * (len(header) - 1), widths, strict=True))
    padded = [[f"{cell:{pad}{w}}" for cell, (pad, w) in zip(row, columns, strict=True)] for row in cells]
    lines = ["| " + " | ".join(row) + " |" for row in padded]
    rule = "|" + "|".join("-" * (w + 1) + ("-" if pad == "<" else ":") for pad, w in columns) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
