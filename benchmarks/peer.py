"""The same steps as `speed.py` with the `adapters` library, for a virtual environment of its own; prints JSON.

    python -m venv .venv-peer && .venv-peer/bin/pip install torch==2.13.0 adapters==1.3.0
    .venv-peer/bin/python benchmarks/peer.py

`make bench-peer` does both and sets the numbers beside ours.
"""

from __future__ import annotations

import argparse
import json
import logging
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import adapters  # noqa: E402
import torch  # noqa: E402
from adapters import Fuse, SeqBnConfig  # noqa: E402
from measure import QUICK, Floor, Shape, Variant, random_base, rounded, setting, time_variants  # noqa: E402


def variants(model: torch.nn.Module, floor: Floor, members: list[int]) -> list[Variant]:
    def trained() -> list[torch.nn.Parameter]:
        return [p for p in model.parameters() if p.requires_grad]

    def base(on: bool) -> list[torch.nn.Parameter]:
        model.set_active_adapters(None)
        model.requires_grad_(False)
        floor.on = on
        return [floor.vector] if on else []

    def single() -> list[torch.nn.Parameter]:
        base(False)
        model.train_adapter("a0")
        return trained()

    def fusion(n: int) -> list[torch.nn.Parameter]:
        base(False)
        model.train_adapter_fusion(Fuse(*(f"a{i}" for i in range(n))))
        return trained()

    fusions = [Variant(f"fusion N={n}", lambda n=n: fusion(n), n) for n in members]
    return [Variant("base, forward only", lambda: base(False)), Variant("floor", lambda: base(True)),
            Variant("single adapter", single), *fusions]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # it warns at every forward pass of the bare base
    shape, members = (QUICK, [1, 2]) if args.quick else (Shape(), [1, 2, 4, 8])
    model = random_base(shape)
    adapters.init(model)
    floor = Floor(model, shape.hidden)
    for i in range(max(members)):
        model.add_adapter(f"a{i}", config=SeqBnConfig(reduction_factor=16))
    for n in members:
        model.add_adapter_fusion(Fuse(*(f"a{i}" for i in range(n))), "dynamic")
    results = time_variants(model.train(), variants(model, floor, members), shape, args.repeats)
    versions = {"adapters": adapters.__version__}
    print(json.dumps(rounded({**setting(shape, args.repeats), **versions, "variants": results})))


if __name__ == "__main__":
    main()
