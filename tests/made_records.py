"""Fusion records with made-up weights, for whatever shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from studykit.attention.record import POOLS, FusionRecord, RecordedSample, mean_weights, token_marks
from studykit.attention.summary import AttentionSummary
from studykit.attention.token_kinds import token_kinds

MEMBERS = ("python", "ruby", "lua")
CODE = ["local", " x", " =", " 1", "\n", "return", " x", " --", " done", "<end>"]
HOSTILE = [
    "</script><script>document.body.dataset.pwned=1</script>",
    "<img src=x onerror='document.body.dataset.pwned=1'>",
    "<!--", "]]>", "&lt;b&gt;", "\"';--", "\u2028", "\x00\x1b", "\ud800", "=1+1", "$\\frac{", "",
]  # fmt: skip


def made_record(
    texts: Sequence[Sequence[str]] = (CODE, CODE[2:], CODE[4:]),
    *,
    layers: int = 3,
    members: Sequence[str] = MEMBERS,
    target: str | None = None,
    seed: int = 0,
    phase: str = "phase 2",
    mask: str = "none",
    keep: int | None = None,
    spoilt: float = 1.0,
    checkpoint: str | None = None,
) -> FusionRecord:
    """A record of these texts, whose weights are drawn from the seed; the target is the last member.

    Args:
        mask: "exclude" or "zero" masks the target.
        keep: how many texts are kept in full; all by default.
        spoilt: what every weight is multiplied by: unless 1, they do not add up.
    """
    rng, target = np.random.default_rng([seed, len(phase), len(members)]), target or members[-1]
    names, ids = [f"L{i + 1}" for i in range(layers)], [f"row {i}" for i in range(len(texts))]
    record = FusionRecord.empty(members, target, phase, names, ids)
    own = record.target_index
    for i, tokens in enumerate(texts):
        weights = spoilt * rng.dirichlet(np.full(len(members), 0.7), size=(layers, len(tokens)))
        if mask == "exclude":
            weights[..., own] = 0
            weights /= weights.sum(-1, keepdims=True)
        shares = weights * rng.uniform(0.2, 1, len(members)) * (np.arange(len(members)) != own if mask == "zero" else 1)
        shares /= np.maximum(shares.sum(-1, keepdims=True), 1e-12)
        marks, kinds = token_marks(len(tokens) // 2, len(tokens)), token_kinds(tokens, "lua")
        record.add(i, weights, shares, marks, kinds)
        if keep is None or i < keep:
            halves = weights.astype(np.float16), shares.astype(np.float16)
            losses = np.random.default_rng([seed, i]).exponential(0.5, len(tokens)).astype(np.float16)
            record.samples.append(RecordedSample(ids[i], list(tokens), marks, kinds, *halves, losses))
    record.seed, record.mask, record.masked = seed, mask, [target] if mask != "none" else []
    record.checkpoint, record.base = checkpoint or f"{target}-made-s{seed}", "made-base"
    return record


def made_summary(seeds: int = 2, groups: Sequence[str | None] | None = None) -> AttentionSummary:
    """The summary of an AdvFusion in its four states, of three texts."""
    states = {
        "initialisation": "init",
        "phase 1, masked": "phase 1",
        "phase 1, restored": "phase 1",
        "phase 2": "phase 2",
    }
    masks = {"phase 1, masked": "exclude"}
    records = {
        title: [made_record(seed=seed, phase=phase, mask=masks.get(title, "none")) for seed in range(seeds)]
        for title, phase in states.items()
    }
    return AttentionSummary.from_records("advfusion_exclude", records, "completion", groups)


def large_record(layers: int, tokens: int, members: int, samples: int = 1) -> FusionRecord:
    """A record as large as asked, of tokens that look like some."""
    texts = [[f" name{(i + j) % 89}" for j in range(tokens)] for i in range(samples)]
    return made_record(texts, layers=layers, members=[f"member {i}" for i in range(members)])


def sample_means(record: FusionRecord, tokens: str = "completion") -> np.ndarray:
    """The mean weights of each sample alone, (S, L, A); NaN where it has no such tokens."""
    count = record.counts[:, POOLS[tokens]].sum(1)[:, None, None]
    sums = record.weight_sums[:, POOLS[tokens]].sum(1)
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan)


def mean_and_sd(records: Sequence[FusionRecord], quantity: Callable = mean_weights) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd (n - 1) of a quantity over the records of several seeds."""
    values = np.stack([quantity(record) for record in records])
    return values.mean(0), values.std(0, ddof=1)
