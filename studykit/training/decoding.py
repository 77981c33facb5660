"""The choice of tokens, greedy or by sampling, and the end of a completion.

Sampling adds Gumbel noise to the tempered logits and takes the largest, which draws from their softmax (Gumbel 1954;
Maddison et al. 2014, arXiv 1411.0030). Each completion has its own generator of noise, seeded by its row, its sample
and the study's seed, so it depends neither on its batch nor on where a killed run resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria, TopKLogitsWarper, TopPLogitsWarper

from studykit.data.encoding import decode_continuation


@dataclass(frozen=True)
class Decoding:
    """The settings that decide a completion, besides model and prompt."""

    max_new_tokens: int
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0  # in (0, 1]; the smallest set of tokens with this much probability is drawn from
    samples: int = 1  # completions per prompt
    seed: int = 0  # of the noise
    stop: tuple[str, ...] | None = None  # strings that end a completion; None: the row's own
    top_k: int | None = None  # the number of likeliest tokens that are drawn from; None: all

    def settings(self) -> dict:
        """Returns the settings for the record, without `samples`: a first sample does not depend on a second one."""
        settings: dict = {"decoding": "greedy"}
        if self.temperature:
            sampling = {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
            sampling |= {"top_k": self.top_k} if self.top_k else {}
            settings = {"decoding": "sampling", **sampling}
        settings["max_new_tokens"] = self.max_new_tokens
        if self.stop is not None:
            settings["stop"] = list(self.stop)
        return settings


class GumbelDraw(LogitsProcessor):
    """Adds noise to logits (B, V), so that their largest entry is a draw; each row of the batch has its generator."""

    def __init__(self, decoding: Decoding, seeds: Sequence[int]):
        self.temperature = decoding.temperature
        self.top_k = TopKLogitsWarper(decoding.top_k) if decoding.top_k else None
        self.top_p = TopPLogitsWarper(decoding.top_p) if decoding.top_p < 1 else None
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logits = scores.float() / self.temperature
        if self.top_k is not None:
            logits = self.top_k(input_ids, logits)
        if self.top_p is not None:
            logits = self.top_p(input_ids, logits)
        uniform = torch.stack([torch.rand(scores.shape[1], generator=g) for g in self.generators])  # (B, V)
        noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        return logits + noise.to(logits.device)


class StopStrings(StoppingCriteria):
    """Ends each row of a batch (B,) once one of its own stop strings occurs in its new text.

    Args:
        stops: the stop strings of each row.
        prompts: the tokens of each row's prompt, without padding.
        start: the position of the first new token in the batch.
    """

    def __init__(self, tokenizer, stops: Sequence[Sequence[str]], prompts: Sequence[Sequence[int]], start: int):
        self.tokenizer, self.stops, self.prompts, self.start = tokenizer, stops, prompts, start
        longest = max((len(text.encode()) for stop in stops for text in stop), default=0)
        self.window = longest + 8  # tokens: each holds a byte or more; 8 more, as several may form one character

    def __call__(self, input_ids: Tensor, scores: Tensor, **_) -> Tensor:
        new = input_ids[:, self.start :].tolist()
        ended = []
        for row, stop, prompt in zip(new, self.stops, self.prompts, strict=True):
            tail = decode_continuation(self.tokenizer, [*prompt, *row[: -self.window]], row[-self.window :])
            ended.append(any(text in tail for text in stop))
        return torch.tensor(ended, device=input_ids.device)


def cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """Returns the text up to its first stop string, and whether there is one."""
    starts = [start for start in map(text.find, stop) if start >= 0]
    return (text[: min(starts)], True) if starts else (text, False)


def end_tokens(model, tokenizer) -> list[int]:
    """Returns the tokenizer's end token, which training teaches, and those that the checkpoint's configuration adds."""
    ends = [tokenizer.eos_token_id, *configured_end_tokens(model)]
    return list(dict.fromkeys(token for token in ends if token is not None))


def configured_end_tokens(model) -> list[int]:
    """Returns the end tokens of a checkpoint's generation_config.json; nothing else of that file acts."""
    configured = model.generation_config.eos_token_id
    if isinstance(configured, list):
        return configured
    return [] if configured is None else [configured]
