"""What packing saves: a training step of one adapter on the same rows, padded and packed.

Rows have the lengths of commit diffs and functions, many short and a few long: lognormal, with the median and spread
given in `LENGTHS`. Both forms compute the same loss, which is checked beside the times.
"""

from __future__ import annotations

import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402
from measure import QUICK, Shape, arguments, random_base, setting, table, write  # noqa: E402
from peft import get_peft_model  # noqa: E402

from studykit.training.batches import Collator, token_losses  # noqa: E402
from studykit.tuners import BottleneckConfig  # noqa: E402

LENGTHS = {"median": 90, "sigma": 0.8, "longest": 512}  # tokens
ROWS = 16  # per batch


def batches(shape: Shape, lengths: dict, rows: int, count: int) -> list[list[dict]]:
    """Batches of random rows; the loss is on their second halves."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        drawn = torch.exp(torch.randn(rows, generator=generator) * lengths["sigma"]) * lengths["median"]
        sizes = drawn.round().int().clamp(4, lengths["longest"]).tolist()
        ids = [torch.randint(3, shape.vocabulary, (size,), generator=generator).tolist() for size in sizes]
        found.append([{"input_ids": row, "labels": [-100] * (len(row) // 2) + row[len(row) // 2 :]} for row in ids])
    return found


def step(model, batch: dict) -> tuple[float, float]:
    """Milliseconds of CPU time of forward and backward, and the loss."""
    start = time.process_time()
    loss = token_losses(model, batch, batch["labels"]).sum() / (batch["labels"] != -100).sum()
    loss.backward()
    return 1e3 * (time.process_time() - start), loss.item()


def main() -> None:
    args = arguments(__doc__.split("\n")[0]).parse_args()
    torch.set_num_threads(1)
    shape, repeats, rows = (QUICK, 1, 8) if args.quick else (Shape(), 7, ROWS)
    lengths = LENGTHS | ({"median": 6, "longest": 16} if args.quick else {})
    model = get_peft_model(random_base(shape), BottleneckConfig(reduction_factor=16, task_type="CAUSAL_LM"))
    forms = {"padded": Collator(0), "packed": Collator(0, packing=True)}
    times: dict[str, list[float]] = {name: [] for name in forms}
    tokens = dict.fromkeys(forms, 0)
    difference = 0.0
    for turn, examples in enumerate(batches(shape, lengths, rows, repeats + 1)):
        losses = []
        for name, collate in forms.items():
            batch = collate(examples)
            ms, loss = step(model, batch)
            losses.append(loss)
            if turn:  # the first warms up
                times[name].append(ms)
                tokens[name] += batch["input_ids"].numel()
        difference = max(difference, abs(losses[0] - losses[1]))
    ms = {name: statistics.median(values) for name, values in times.items()}
    ratios = statistics.median(a / b for a, b in zip(times["padded"], times["packed"], strict=True))
    lines = [[name, f"{ms[name]:.0f}", tokens[name] // repeats] for name in forms]
    print(table([f"step on {rows} rows", "ms", "tokens, padding included"], lines), end="\n\n")
    print(f"Packed steps are {ratios:.2f} times as fast; losses differ by {difference:.1e} at most.")
    content = {**setting(shape, repeats), "rows": rows, "lengths": lengths, "ms": ms, "tokens": tokens,
               "speedup": ratios, "loss_difference": difference}  # fmt: skip
    print(write(args.output, "packing", content))


if __name__ == "__main__":
    main()
