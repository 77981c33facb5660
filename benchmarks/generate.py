"""Prompts per second by batch size, greedy, with a KV cache; and whether a batch writes what single prompts say.

Prompts have 32 to 384 tokens and are batched as evaluations do it: sorted by length, padded on the left.
"""

from __future__ import annotations

import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402
from measure import QUICK, Shape, arguments, random_base, setting, table, write  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from tokenizers.models import WordLevel  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

from studykit.training.decoding import Decoding  # noqa: E402
from studykit.training.generate import generate  # noqa: E402

PROMPTS = 32
NEW_TOKENS = 32
SIZES = (1, 8, 32)


def tokenizer_of(vocabulary: int) -> PreTrainedTokenizerFast:
    """A word for every token id."""
    words = {"<pad>": 0, "<end>": 1, **{f"w{i}": i for i in range(2, vocabulary)}}
    model = Tokenizer(WordLevel(words, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=model, pad_token="<pad>", eos_token="<end>")


def main() -> None:
    args = arguments(__doc__.split("\n")[0]).parse_args()
    torch.set_num_threads(1)
    shape, count, longest, new = (QUICK, 4, 16, 4) if args.quick else (Shape(), PROMPTS, 384, NEW_TOKENS)
    model = random_base(shape).eval()
    for parameter in model.parameters():  # larger weights, so that completions depend on their prompts
        parameter.data *= 1.0 if parameter.dim() == 1 else 4.0
    generator, tokenizer = torch.Generator().manual_seed(0), tokenizer_of(shape.vocabulary)
    lengths = torch.randint(min(32, longest // 2), longest + 1, (count,), generator=generator).tolist()
    prompts = [torch.randint(2, shape.vocabulary, (n,), generator=generator).tolist() for n in lengths]
    seconds, texts = {}, {}
    for size in SIZES:
        start = time.process_time()
        said = generate(model, tokenizer, prompts, Decoding(new), batch_size=size)
        seconds[size], texts[size] = time.process_time() - start, [completion.tokens for completion in said]
    same = {size: sum(a == b for a, b in zip(texts[size], texts[1], strict=True)) for size in SIZES}
    lines = [
        [str(size), f"{count / spent:.2f}", f"{seconds[1] / spent:.1f}", f"{same[size]} of {count}"]
        for size, spent in seconds.items()
    ]
    header = ["batch size", "prompts per second", "times as fast as alone", "same text as alone"]
    print(table(header, lines), end="\n\n")
    content = {**setting(shape, 1), "prompts": count, "new_tokens": new, "distinct": len(set(texts[1])),
               "seconds": {str(n): s for n, s in seconds.items()},
               "same": {str(n): k for n, k in same.items()}}  # fmt: skip
    print(write(args.output, "generate", content))


if __name__ == "__main__":
    main()
