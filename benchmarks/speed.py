"""What a training step costs with fused adapters, as a multiple of the least that any training costs.

The floor is a frozen base with gradients down to its embeddings, where one vector trains. Peak memory follows what
autograd keeps for the backward pass, so that is counted too. With `--peer PYTHON`, the python of an environment that
holds the `adapters` library, the same steps run there. "Token order" is the fusion with its products taken towards
the token, as `Fusion` takes them for short inputs and very many members: what the choice of the order saves.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from measure import (  # noqa: E402
    QUICK,
    Floor,
    Shape,
    Variant,
    arguments,
    random_base,
    setting,
    table,
    time_variants,
    write,
)
from peft import PeftModel, get_peft_model  # noqa: E402

from studykit.report.figures.style import (
    category_style,
    new_figure,
    save,
    styled,  # noqa: E402
)
from studykit.tuners import (
    BottleneckConfig,
    FusionConfig,
    fusion,  # noqa: E402
)

RANK = 32
CHEAPEST = fusion.cheapest_order


def with_everything(base: torch.nn.Module, members: list[int], rank: int) -> PeftModel:
    """The base with as many adapters as the largest fusion has members, one fusion per size and a low-rank one."""
    model = get_peft_model(base, BottleneckConfig(task_type="CAUSAL_LM"), adapter_name="a0")
    for i in range(1, max(members)):
        model.add_adapter(f"a{i}", BottleneckConfig(task_type="CAUSAL_LM"))
    for name, n, config in [(f"fuse{n}", n, {}) for n in members] + [("thin", max(members), {"rank": rank})]:
        model.add_adapter(name, FusionConfig(task_type="CAUSAL_LM", members=[f"a{i}" for i in range(n)], **config))
    return model


def variants(model: PeftModel, floor: Floor, members: list[int], rank: int) -> list[Variant]:
    tuner = model.base_model

    def base(on: bool) -> list[torch.nn.Parameter]:
        tuner.disable_adapter_layers()
        model.requires_grad_(False)
        floor.on = on
        return [floor.vector] if on else []

    def adapter(name: str, order: str | None = None) -> list[torch.nn.Parameter]:
        floor.on = False
        fusion.cheapest_order = (lambda orders: order) if order else CHEAPEST
        tuner.enable_adapter_layers()
        model.set_adapter(name)
        return [p for p in model.parameters() if p.requires_grad]

    fusions = [Variant(f"fusion N={n}", lambda n=n: adapter(f"fuse{n}"), n) for n in members]
    ends = (min(members), max(members))
    towards = [Variant(f"token order N={n}", lambda n=n: adapter(f"fuse{n}", "token"), n) for n in ends]
    return [
        Variant("base, forward only", lambda: base(False)),
        Variant("floor", lambda: base(True)),
        Variant("single adapter", lambda: adapter("a0")),
        *fusions,
        Variant(f"low-rank fusion N={max(members)}", lambda: adapter("thin")),
        *towards,
    ]


def summary(results: dict[str, dict]) -> dict[str, float]:
    """Step over the floor at the largest N; growth per added adapter in floors; saved MiB over the floor."""
    floor = results["floor"]
    fusions = sorted((r for name, r in results.items() if name.startswith("fusion")), key=lambda r: r["members"])
    slope = np.polyfit([r["members"] for r in fusions], [r["step_ms"] / floor["step_ms"] for r in fusions], 1)[0]
    return {
        "members": fusions[-1]["members"],
        "step_over_floor": fusions[-1]["step_ms"] / floor["step_ms"],
        "growth_per_adapter": float(slope),
        "saved_mib_over_floor": fusions[-1]["saved_mib"] - floor["saved_mib"],
    }


def report(results: dict[str, dict], title: str) -> str:
    floor = results["floor"]
    header = [title, "trainable", "step ms", "x floor", "forward", "backward", "optimizer", "saved MiB", "over floor"]
    rows = [
        [
            name,
            r["trainable"],
            f"{r['step_ms']:.0f}",
            f"{r['step_ms'] / floor['step_ms']:.2f}",
            *(f"{r[part]:.0f}" for part in ("forward_ms", "backward_ms", "optimizer_ms")),
            f"{r['saved_mib']:.1f}",
            f"{r['saved_mib'] - floor['saved_mib']:+.1f}" if r["trainable"] else "",
        ]
        for name, r in results.items()
    ]
    return table(header, rows)


@styled
def figure(libraries: dict[str, dict], repeats: int):
    """Step time in floors and saved memory over the floor, against N, for each library."""
    picture, axes = new_figure(1, 2, width=7.0, height=2.9)
    for i, (name, results) in enumerate(libraries.items()):
        floor, fusions = results["floor"], [r for key, r in results.items() if key.startswith("fusion")]
        members = [r["members"] for r in fusions]
        axes[0, 0].plot(members, [r["step_ms"] / floor["step_ms"] for r in fusions], label=name, **category_style(i))
        axes[0, 1].plot(members, [r["saved_mib"] - floor["saved_mib"] for r in fusions], **category_style(i))
        axes[0, 0].set_xticks(members)
        axes[0, 1].set_xticks(members)
    axes[0, 0].axhline(1, color="black", linewidth=0.8)
    axes[0, 0].set(xlabel="fused adapters N", ylabel="training step (floor = 1)", ylim=(0, None))
    axes[0, 1].axhline(0, color="black", linewidth=0.8)
    axes[0, 1].set(xlabel="fused adapters N", ylabel="saved activations over the floor (MiB)")
    axes[0, 0].legend(loc="upper left")
    ends = "; ".join(
        f"{name} {s['step_over_floor']:.2f} floors and {s['saved_mib_over_floor']:+.0f} MiB"
        for name, s in ((name, summary(results)) for name, results in libraries.items())
    )
    caption = f"Cost of one training step with N fused adapters; at the largest N: {ends}. Medians of {repeats} steps."
    return picture, caption, caption


def main() -> None:
    parser = arguments(__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, help="medians of so many steps; 5 unless --quick")
    parser.add_argument("--peer", type=Path, help="python of an environment that holds the adapters library")
    args = parser.parse_args()
    torch.set_num_threads(1)
    shape, members, rank = (QUICK, [1, 2], 2) if args.quick else (Shape(), [1, 2, 4, 8], RANK)
    repeats = args.repeats or (2 if args.quick else 5)
    base = random_base(shape)
    floor = Floor(base, shape.hidden)
    model = with_everything(base, members, rank).train()
    results = time_variants(model, variants(model, floor, members, rank), shape, repeats)
    print(report(results, "studykit"), end="\n\n")
    print(sentence("studykit", summary(results)), end="\n\n")
    path = write(args.output, "speed", {**setting(shape, repeats), "variants": results, "summary": summary(results)})
    libraries = {"studykit": results}
    if args.peer and args.peer.exists():
        script = Path(__file__).with_name("peer.py")
        quick = ["--quick"] if args.quick else []
        command = [str(args.peer), str(script), "--repeats", str(repeats), *quick]
        # the peer's environment is its own: nothing of ours may be on its path
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
        peer = json.loads(answer.strip().splitlines()[-1])
        libraries[f"adapters {peer['adapters']}"] = peer["variants"]
        write(args.output, "peer", {**peer, "summary": summary(peer["variants"])})
        print(report(peer["variants"], f"adapters {peer['adapters']}"), end="\n\n")
        print(sentence(f"adapters {peer['adapters']}", summary(peer["variants"])), end="\n\n")
    else:
        kept = json.loads(path.read_text(encoding="utf-8")).get("peer")
        if kept and kept["shape"] == setting(shape, repeats)["shape"]:
            libraries[f"adapters {kept['adapters']}"] = kept["variants"]
        print("The adapters library was not measured: `make bench-peer` sets up its environment and measures both.")
    print(f"{path} and {save(figure(libraries, repeats), args.output / 'benchmarks.svg')}")


def sentence(name: str, s: dict[str, float]) -> str:
    return (
        f"{name}: a step with {s['members']} fused adapters takes {s['step_over_floor']:.2f} x the floor, "
        f"{100 * s['growth_per_adapter']:.1f} % of the floor per added adapter, and keeps "
        f"{s['saved_mib_over_floor']:+.1f} MiB of activations over the floor's."
    )


if __name__ == "__main__":
    main()
