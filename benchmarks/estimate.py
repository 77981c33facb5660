"""What `studykit estimate` predicts of a training's memory, beside what is measured.

    python benchmarks/estimate.py                    # all cases, each in a process of its own; about ten minutes
    python benchmarks/estimate.py --quick            # the small ones
    python benchmarks/estimate.py --plain-malloc     # with glibc's allocator as it is

Each case trains two steps of an adapter or of a fusion of four, by `training.train`, on a random base. `saved` is what
a forward pass keeps for the backward pass: unique storages of saved tensors and, under checkpointing, of the decoder
layers' inputs; parameters and the fusion's stacked members are left out. `peak` is everything: the growth of the
process's resident set from before the model was made (VmHWM), or torch.cuda.max_memory_allocated.

glibc keeps freed blocks of up to 32 MB for itself, between others that are alive: at these sizes half of the resident
set may be such holes. What is measured is therefore what is alive: blocks from 64 KB on go back to the system.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2Config

from studykit.training import estimate, memory
from studykit.training.batches import Collator, token_losses
from studykit.training.train import TrainingSettings, train
from studykit.tuners import BottleneckConfig, FusionConfig, fusion_layers, value_deviation

LENGTH = 256  # tokens per row
VOCABULARY = 4096
MEMBERS = 4
KEYS = ("kind", "hidden", "layers", "batch", "checkpointing", "optimizer")
CASES = [
    dict(zip(KEYS, case, strict=True))
    for case in [
        *itertools.product(("adapter", "fusion"), (256, 512), (4, 8), (2, 8), (False, True), ("adamw",)),
        ("fusion", 512, 8, 2, False, "adamw_8bit"),
    ]
]
QUICK = [case for case in CASES if case["hidden"] == 256 and case["layers"] == 4]
MB = 1e6
CUDA = torch.cuda.is_available()


def config(case: dict) -> Qwen2Config:
    return Qwen2Config(vocab_size=VOCABULARY, hidden_size=case["hidden"], num_hidden_layers=case["layers"],
                       num_attention_heads=8, num_key_value_heads=8, intermediate_size=int(case["hidden"] * 2.6875),
                       pad_token_id=0, tie_word_embeddings=True)  # fmt: skip


def adapters(case: dict) -> dict:
    if case["kind"] == "adapter":
        return {"python": BottleneckConfig(task_type="CAUSAL_LM")}
    members = {f"m{i}": BottleneckConfig(task_type="CAUSAL_LM") for i in range(MEMBERS)}
    return members | {"fusion": FusionConfig(members=list(members), task_type="CAUSAL_LM")}


def predict(case: dict) -> dict[str, float]:
    need = estimate.training(
        config(case), adapters(case), half=CUDA, batch=case["batch"], length=LENGTH, optimizer=case["optimizer"],
        checkpointing=case["checkpointing"], value_penalty=case["kind"] == "fusion",
    )  # fmt: skip
    return {"saved": need.activations / MB, "peak": need.peak / MB}


def measure(case: dict) -> dict[str, float]:
    """Both numbers in MB; to be called in a fresh process."""
    torch.set_num_threads(1)
    warm()
    before = 0 if CUDA else resident("VmRSS")
    model = AutoModelForCausalLM.from_config(
        config(case),
        trust_remote_code=False,
        dtype=torch.bfloat16 if CUDA else torch.float32,
        attn_implementation="sdpa",
    ).requires_grad_(False)
    model = memory.attach(model.to("cuda") if CUDA else model, adapters(case))
    rows = [{"input_ids": ids, "labels": ids} for ids in ([1] * (LENGTH - i % 2) for i in range(2 * case["batch"]))]
    settings = TrainingSettings(learning_rate=1e-4, batch_size=case["batch"], optimizer=case["optimizer"],
                                gradient_checkpointing=case["checkpointing"], eval_every=2)  # fmt: skip
    gc.collect()
    forget_peak()
    with tempfile.TemporaryDirectory() as directory:
        train(model, SimpleNamespace(pad_token_id=0), rows, rows, settings, steps=2, trainer_state_dir=Path(directory),
              seed=0, value_regularizer=0.01 if case["kind"] == "fusion" else 0.0)  # fmt: skip
    peak = torch.cuda.max_memory_allocated() if CUDA else resident("VmHWM") - before
    return {"saved": saved(model, Collator(0)(rows[: case["batch"]]), case) / MB, "peak": peak / MB}


def saved(model: nn.Module, batch: dict, case: dict) -> int:
    """Bytes that a forward pass keeps for the backward pass."""
    model.train()
    if case["checkpointing"]:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    for layer in fusion_layers(model):
        stack = layer.stack("fusion")
        own |= {x.untyped_storage().data_ptr() for x in (stack.down, stack.down_bias, stack.up, stack.up_bias)}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    def keep_inputs(_: nn.Module, inputs: tuple) -> None:
        keep(inputs[0])

    if case["checkpointing"]:
        for name, module in model.named_modules():
            if re.fullmatch(r".*\.layers\.\d+", name):
                module.register_forward_pre_hook(keep_inputs)

    batch = {name: value.to(next(model.parameters()).device) for name, value in batch.items()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), \
            torch.autocast("cuda", torch.bfloat16, enabled=CUDA):  # fmt: skip
        loss = token_losses(model, batch, batch["labels"]).sum()
        if case["kind"] == "fusion":
            loss = loss + value_deviation(model)
    total = sum(storage.nbytes() for storage in kept.values())
    loss.backward()
    return total


def warm() -> None:
    """One small training, so that what libraries load and allocate once does not count."""
    case = {"kind": "fusion", "hidden": 64, "layers": 1, "batch": 2, "checkpointing": False, "optimizer": "adamw"}
    model = memory.attach(
        AutoModelForCausalLM.from_config(config(case), trust_remote_code=False).requires_grad_(False), adapters(case)
    )
    rows = [{"input_ids": [1] * 8, "labels": [1] * 8}] * 4
    with tempfile.TemporaryDirectory() as directory:
        train(model, SimpleNamespace(pad_token_id=0), rows, rows, TrainingSettings(1e-4, batch_size=2), steps=1,
              trainer_state_dir=Path(directory), seed=0, value_regularizer=0.01)  # fmt: skip
    del model
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def resident(field: str) -> int:
    """Bytes of this process by a field of /proc/self/status."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def forget_peak() -> None:
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small shapes alone")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose names hold this regular expression")
    parser.add_argument("--plain-malloc", action="store_true", help="count what the allocator keeps, too")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print("MEASURED", json.dumps(measure(args.case)))
        return
    print(f"{'case':44} {'saved, MB':>22} {'ratio':>6} {'peak, MB':>22} {'ratio':>6}")
    print(f"{'':44} {'predicted measured':>22} {'':>6} {'predicted measured':>22}")
    for case in QUICK if args.quick else CASES:
        name = (f"{case['kind']} d={case['hidden']} L={case['layers']} B={case['batch']}"
                f"{' checkpointing' * case['checkpointing']}{' 8-bit' * (case['optimizer'] != 'adamw')}")  # fmt: skip
        if not re.search(args.only, name):
            continue
        command = [sys.executable, __file__, "--case", json.dumps(case)]
        env = os.environ | ({} if args.plain_malloc else {"MALLOC_MMAP_THRESHOLD_": "65536"})
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(re.search(r"MEASURED (.*)", done.stdout)[1])
        said = predict(case)
        columns = [f"{said[k]:12.1f} {found[k]:9.1f} {said[k] / found[k]:6.2f}" for k in ("saved", "peak")]
        print(f"{name:44} {columns[0]} {columns[1]}", flush=True)


if __name__ == "__main__":
    main()
