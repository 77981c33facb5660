"""How tokens are chosen: greedily or by sampling, and where a completion stops.

Sampling adds Gumbel noise to the tempered logits and takes the largest, which draws from their softmax (Gumbel 1954;
Maddison et al. 2014, arXiv 1411.0030). Each completion has a noise generator of its own, seeded by its row, sample and
the study's seed: what is drawn for it depends neither on its batch nor on where a killed run went on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria, TopPLogitsWarper


@dataclass(frozen=True)
class Decoding:
    """What decides a completion beside model and prompt."""

    max_new_tokens: int
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0  # in (0, 1]; the smallest set of tokens with this much probability is drawn from
    samples: int = 1  # completions per prompt
    seed: int = 0  # of the draws
    stop: tuple[str, ...] | None = None  # strings that end a completion; None: those of the row

    def settings(self) -> dict:
        """For the record. Not `samples`: a first sample is the same whether or not there is a second."""
        drawn = {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        stop = {} if self.stop is None else {"stop": list(self.stop)}
        greedy = {"decoding": "greedy"} if not self.temperature else {"decoding": "sampling", **drawn}
        return {**greedy, "max_new_tokens": self.max_new_tokens, **stop}


class Draw(LogitsProcessor):
    """Turns logits (B, V) into ones whose largest entry is a draw, with one generator per row of the batch."""

    def __init__(self, decoding: Decoding, seeds: Sequence[int]):
        self.temperature = decoding.temperature
        self.top_p = TopPLogitsWarper(decoding.top_p) if decoding.top_p < 1 else None
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logits = scores.float() / self.temperature
        if self.top_p is not None:
            logits = self.top_p(input_ids, logits)
        uniform = torch.stack([torch.rand(scores.shape[1], generator=g) for g in self.generators])  # (B, V)
        noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        return logits + noise.to(logits.device)


class Stops(StoppingCriteria):
    """Ends each row of a batch (B,) once its own stop strings occur in its new text."""

    def __init__(self, tokenizer, stops: Sequence[Sequence[str]], start: int):
        self.tokenizer, self.stops, self.start = tokenizer, stops, start
        longest = max((len(text.encode()) for stop in stops for text in stop), default=0)
        self.window = longest + 8  # a token holds a byte or more; some of them are part of one character

    def __call__(self, input_ids: Tensor, scores: Tensor, **_) -> Tensor:
        tails = self.tokenizer.batch_decode(input_ids[:, self.start :][:, -self.window :])
        met = [any(text in tail for text in stop) for tail, stop in zip(tails, self.stops, strict=True)]
        return torch.tensor(met, device=input_ids.device)


def cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text up to its first stop string, and whether there is one."""
    places = [place for place in map(text.find, stop) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)
