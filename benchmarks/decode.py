"""What fused adapters cost when text is generated, one token at a time: textbook, rank space, folded.

First one fusion layer and one token: the textbook form, which applies query, key and value member by member; the form
that trains (`Fusion`); and the folded form (`FoldedFusion`). Then greedy decoding of a whole model with a KV cache,
with and without its fusion, and whether the folded fusion writes the same text.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402
from measure import QUICK, Shape, arguments, batch_of, random_base, setting, table, write  # noqa: E402
from peft import PeftModel, get_peft_model  # noqa: E402
from torch import Tensor  # noqa: E402

from studykit.tuners import (
    BottleneckConfig,
    FusionConfig,  # noqa: E402
)
from studykit.tuners.bottleneck import Bottleneck  # noqa: E402
from studykit.tuners.folded import FoldedFusion  # noqa: E402
from studykit.tuners.fusion import (
    Fusion,
    MemberStack,  # noqa: E402
)

STD = 0.05  # of all weights, so that the fusion is heard


def textbook(x: Tensor, fusion: Fusion, members: list[Bottleneck]) -> Tensor:  # (B, T, d) -> (B, T, d)
    """AdapterFusion as in the paper (eq. 6-8)."""
    query = fusion.query(x)
    outputs = [member(x) for member in members]
    scores = torch.stack([(query * fusion.key(u)).sum(-1) for u in outputs], dim=-1)  # (B, T, N)
    alpha = scores.softmax(-1)
    return sum(alpha[..., n : n + 1] * fusion.value(u) for n, u in enumerate(outputs))


def one_layer(hidden: int, members: int, copies: int) -> dict[str, Callable[[], Tensor]]:
    """The three forms of the same fusion at one token. Each call takes the next of `copies` layers: with one, its
    weights stay in the processor's cache as far as they fit; with many they come from memory, as in a model."""
    layers, x = [], torch.randn(1, 1, hidden, generator=torch.Generator().manual_seed(0))
    for i in range(copies):
        torch.manual_seed(i)
        adapters = [Bottleneck(hidden, hidden, max(1, hidden // 16)).eval() for _ in range(members)]
        fusion = Fusion(hidden, hidden).eval()
        stack = MemberStack.from_members(adapters)
        layers.append((fusion, adapters, stack, FoldedFusion.from_fusion(fusion, stack)))
    turns = {"textbook": 0, "rank space": 0, "folded": 0}

    def following(form: str) -> tuple:
        turns[form] += 1
        return layers[turns[form] % copies]

    def rank_space() -> Tensor:
        fusion, _, stack, _ = following("rank space")
        return fusion(x, stack)[0]

    def book() -> Tensor:
        fusion, adapters, _, _ = following("textbook")
        return textbook(x, fusion, adapters)

    return {"textbook": book, "rank space": rank_space, "folded": lambda: following("folded")[3](x)[0]}


def interleaved(calls: dict[str, Callable], repeats: int, each: int = 1) -> dict[str, float]:
    """{name: median milliseconds of CPU time per call}: `each` calls in a row, the names in turns, one turn unrecorded.

    A process's CPU clock may tick in steps as coarse as a layer takes, so a layer is called many times in a row.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(each):
                call()
            if turn:
                times[name].append(1e3 * (time.process_time() - start) / each)
    return {name: statistics.median(values) for name, values in times.items()}


def fused(shape: Shape, members: int) -> PeftModel:
    base = random_base(shape)
    model = get_peft_model(base, BottleneckConfig(task_type="CAUSAL_LM"), adapter_name="a0")
    for i in range(1, members):
        model.add_adapter(f"a{i}", BottleneckConfig(task_type="CAUSAL_LM"))
    model.add_adapter("fusion", FusionConfig(task_type="CAUSAL_LM", members=[f"a{i}" for i in range(members)]))
    model.set_adapter("fusion")
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".composition." in name and "value" not in name:
                parameter.normal_(std=STD)
    return model.eval()


@torch.no_grad()
def whole_model(shape: Shape, members: int, new_tokens: int, repeats: int) -> dict:
    model, prompt = fused(shape, members), batch_of(shape)[:1, : min(64, shape.length)]
    texts: dict[str, list[int]] = {}

    def write_text(name: str) -> None:
        limits = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False, "pad_token_id": 0}
        answer = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), use_cache=True, **limits)
        texts[name] = answer[0, prompt.shape[1] :].tolist()

    def base() -> None:
        with model.disable_adapter():
            write_text("base")

    def unfolded() -> None:
        model.unfold_fusion()
        write_text("fusion")

    def folded() -> None:
        write_text("folded fusion")

    times = {"base": [], "fusion": [], "folded fusion": []}
    for turn in range(repeats + 1):
        for name, call in (("base", base), ("fusion", unfolded), ("folded fusion", folded)):
            if name == "folded fusion":
                model.fold_fusion()
            start = time.process_time()
            call()
            if turn:
                times[name].append(1e3 * (time.process_time() - start) / new_tokens)
    milliseconds = {name: statistics.median(values) for name, values in times.items()}
    return {
        "members": members,
        "new_tokens": new_tokens,
        "ms_per_token": milliseconds,
        "folded_over_base": milliseconds["folded fusion"] / milliseconds["base"],
        "same_text": texts["folded fusion"] == texts["fusion"],
        "differs_from_base": texts["fusion"] != texts["base"],
    }


def main() -> None:
    parser = arguments(__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, help="medians of so many turns; 7 unless --quick")
    args = parser.parse_args()
    torch.set_num_threads(1)
    repeats = args.repeats or (1 if args.quick else 7)
    shape, hidden, members, new_tokens = (QUICK, 32, 2, 4) if args.quick else (Shape(), 1536, 4, 64)
    layer = {"hidden": hidden, "members": members}
    for memory, copies in (("in cache", 1), ("from memory", 2 if args.quick else 8)):
        each = copies if args.quick else 40
        with torch.no_grad():
            ms = interleaved(one_layer(hidden, members, copies), repeats, each)
        layer[memory] = {"ms": ms, "folded_speedup": ms["textbook"] / ms["folded"]}
    title = f"one token, d = {hidden}, N = {members}"
    rows = [
        [f"{form}, {memory}", f"{ms:.2f}", f"{layer[memory]['ms']['textbook'] / ms:.1f}"]
        for memory in ("in cache", "from memory")
        for form, ms in layer[memory]["ms"].items()
    ]
    print(table([title, "ms", "times as fast as the textbook"], rows), end="\n\n")
    model = whole_model(shape, members, new_tokens, repeats)
    times = model["ms_per_token"]
    rows = [[name, f"{ms:.2f}", f"{ms / times['base']:.2f}"] for name, ms in times.items()]
    print(table([f"greedy decoding, {new_tokens} tokens, N = {members}", "ms per token", "x base"], rows), end="\n\n")
    print(f"The folded fusion wrote {'the same text as' if model['same_text'] else 'ANOTHER TEXT than'} the unfolded.")
    print(write(args.output, "decode", {**setting(shape, repeats), "layer": layer, "model": model}))


if __name__ == "__main__":
    main()
