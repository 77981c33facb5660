"""Step time and peak memory of training on a GPU: single adapter, AdapterFusion, AdvFusion, over NF4 bases.

    python benchmarks/gpu.py                                    # both bases, batch 8, 512 tokens, N = 4
    python benchmarks/gpu.py --base codellama-7b --batch 4 --optimizer adamw_8bit
    python benchmarks/gpu.py --tiny                             # the same code on a tiny base, on the CPU

The bases have the shapes of the published models and random weights, quantised as the study does: NF4 with double
quantisation and bf16 arithmetic, while adapters and fusions are fp32. Both phases of AdvFusion train the same weights
as AdapterFusion; phase 1 masks one member. Time is wall time between synchronisations.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

import bitsandbytes as bnb
import torch
from measure import MIB, arguments, machine, table, write
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config

from studykit.training.batches import token_losses
from studykit.tuners import BottleneckConfig, FusionConfig, fusion_members, value_deviation

BASES = {
    "qwen2.5-coder-1.5b": Qwen2Config(
        hidden_size=1536,
        num_hidden_layers=28,
        intermediate_size=8960,
        num_attention_heads=12,
        num_key_value_heads=2,
        vocab_size=151936,
        tie_word_embeddings=True,
    ),
    "codellama-7b": LlamaConfig(
        hidden_size=4096,
        num_hidden_layers=32,
        intermediate_size=11008,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=32016,
        max_position_embeddings=16384,
    ),
}
TINY = Qwen2Config(
    hidden_size=64,
    num_hidden_layers=2,
    intermediate_size=128,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=97,
    tie_word_embeddings=True,
)
OPTIMIZERS = {
    "adamw": lambda trained: torch.optim.AdamW(trained, lr=1e-4, fused=True),
    "adamw_8bit": lambda trained: bnb.optim.AdamW8bit(trained, lr=1e-4),
}
REGULARIZER = 0.01


def random_nf4(config: Qwen2Config | LlamaConfig, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """A frozen model with random weights; all linear layers but the head in NF4, never held in full all at once."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation="sdpa", trust_remote_code=False
        )
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name != "lm_head":
            model.set_submodule(name, quantised(module, device, dtype))
    for module in list(model.modules()):
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta:
                value = torch.ones if parameter.dim() == 1 else torch.randn
                value = value(parameter.shape, dtype=dtype, device=device)
                setattr(module, name, nn.Parameter(value if value.dim() == 1 else 0.02 * value))
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config).to(device)
    model.tie_weights()
    return model.requires_grad_(False).train()


def quantised(linear: nn.Linear, device: torch.device, dtype: torch.dtype) -> bnb.nn.Linear4bit:
    """A random 4-bit layer of the same shape."""
    bias = linear.bias is not None
    layer = bnb.nn.Linear4bit(linear.in_features, linear.out_features, bias, dtype, True, "nf4", device="meta")
    weight = 0.02 * torch.randn(linear.weight.shape, dtype=dtype, device=device)
    layer.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True).to(device)
    if bias:
        layer.bias = nn.Parameter(torch.zeros(linear.out_features, dtype=dtype, device=device))
    layer.support_avx512bf16_for_cpu = False  # that form has no gradient
    return layer


def measure(model: PeftModel, ids: Tensor, optimizer: str, steps: int, penalised: bool) -> dict:
    """Median milliseconds of `steps` steps after two, and the peak of allocated memory from before the first."""
    trained = [p for p in model.parameters() if p.requires_grad]
    gc.collect()
    cuda = ids.is_cuda
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    row = {"trainable": sum(p.numel() for p in trained), "step_ms": None, "peak_mib": None}
    try:
        update, times = OPTIMIZERS[optimizer](trained), []
        for _ in range(2 + steps):
            start = now(cuda)
            losses = token_losses(model, {"input_ids": ids}, ids)
            loss = losses.mean() + REGULARIZER * value_deviation(model) if penalised else losses.mean()
            loss.backward()
            update.step()
            update.zero_grad()
            del losses, loss
            times.append(1e3 * (now(cuda) - start))
        row["step_ms"] = statistics.median(times[2:])
    except torch.OutOfMemoryError:
        row["failed"] = "out of memory"
        model.zero_grad()
    if cuda and row["step_ms"]:
        row["peak_mib"] = torch.cuda.max_memory_allocated() / MIB
    return row


def now(cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def run(config: Qwen2Config | LlamaConfig, device: torch.device, args) -> dict[str, dict]:
    """{"method, with or without checkpointing": row}."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    base = random_nf4(config, device, dtype)
    ids = torch.randint(3, config.vocab_size, (args.batch, args.length), device=device)
    names = [f"a{i}" for i in range(args.members)]
    model = get_peft_model(base, BottleneckConfig(task_type="CAUSAL_LM"), adapter_name=names[0])
    rows: dict[str, dict] = {}

    def both(method: str, penalised: bool) -> None:
        for checkpointing in (False, True):
            if checkpointing:
                base.gradient_checkpointing_enable({"use_reentrant": False})
            else:
                base.gradient_checkpointing_disable()
            key = f"{method}{', checkpointing' if checkpointing else ''}"
            rows[key] = measure(model.train(), ids, args.optimizer, args.steps, penalised)

    both("single adapter", penalised=False)  # before the others are there: their weights would count
    for name in names[1:]:
        model.add_adapter(name, BottleneckConfig(task_type="CAUSAL_LM"))
    model.add_adapter("fusion", FusionConfig(task_type="CAUSAL_LM", members=names))
    model.set_adapter("fusion")
    masks: dict[str, Callable[[], object]] = {
        "AdapterFusion": lambda: fusion_members(model),
        "AdvFusion phase 1": lambda: fusion_members(model, masked=[names[-1]]),
        "AdvFusion phase 2": lambda: fusion_members(model),
    }
    for method, mask in masks.items():
        mask()
        both(method, penalised=True)
    return rows


def report(name: str, rows: dict[str, dict]) -> str:
    def shown(row: dict, key: str, unit: float = 1) -> str:
        return "-" if row[key] is None else f"{row[key] / unit:.1f}"

    lines = [
        [method, row["trainable"], row.get("failed") or shown(row, "step_ms"), shown(row, "peak_mib", 1024)]
        for method, row in rows.items()
    ]
    return table([name, "trainable", "step ms", "peak GiB"], lines)


def main() -> None:
    parser = arguments(__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a tiny base on the CPU; the same as --quick")
    parser.add_argument("--base", choices=BASES, nargs="+", default=list(BASES))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=512, help="tokens")
    parser.add_argument("--members", type=int, default=4, help="N")
    parser.add_argument("--steps", type=int, default=5, help="recorded; two more are not")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw")
    args = parser.parse_args()
    tiny = args.tiny or args.quick
    if tiny:
        bases, device = {"tiny": TINY}, torch.device("cpu")
        torch.set_num_threads(1)
        args.batch, args.length, args.steps = min(args.batch, 2), min(args.length, 16), min(args.steps, 2)
    elif not torch.cuda.is_available():
        raise SystemExit("This benchmark needs a CUDA GPU, and torch finds none; --tiny runs its code on the CPU.")
    else:
        bases, device = {name: BASES[name] for name in args.base}, torch.device("cuda")
    results = {}
    for name, config in bases.items():
        results[name] = run(config, device, args)
        print(report(name, results[name]), end="\n\n")
        gpu = torch.cuda.get_device_name() if device.type == "cuda" else None
        settings = {key: getattr(args, key) for key in ("batch", "length", "members", "steps", "optimizer")}
        path = write(args.output, "gpu", {**settings, "machine": {**machine(), "gpu": gpu}, "bases": results})
        gc.collect()
    print(path)


if __name__ == "__main__":
    main()
