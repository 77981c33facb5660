"""Made `scores.json` contents: methods whose scores are known, for tests of what is read from them."""

from __future__ import annotations

import numpy as np


def state(seed: int | None, passed, nats, name: str = "trained") -> dict:
    """One scored state: `passed` (n booleans) and `nats` (n losses of rows of 10 tokens)."""
    n, counts = len(passed), [[int(v), 1, 1, 1, 4, 3, 2, 1, 4, 4] for v in 1 + 3 * np.asarray(passed)]
    tests, losses = [100.0 * v for v in passed], [[float(x), 10] for x in nats]
    scores = {
        "pass_at_1": {"label": "pass@1", "value": float(np.mean(tests)), "per_example": tests, "signature": "p",
                      "n": n},
        "exact_match": {"label": "Exact match", "value": 0.0, "per_example": [0.0] * n, "signature": "em", "n": n},
        "bleu_paper": {"label": "BLEU (paper), corpus", "value": 50.0, "statistics": counts, "signature": "b", "n": n},
        "loss": {"label": "Completion loss", "value": float(np.mean(nats)) / 10, "statistics": losses,
                 "signature": "l", "n": n},
    }  # fmt: skip
    return {"name": name, "seed": seed, "run": None, "file": f"s{seed}-{name}", "scores": scores, "execution": None}


def scores(states: list[dict], method: str = "base", **given) -> dict:
    n = len(states[0]["scores"]["loss"]["statistics"])
    usual = {"method": method, "language": "lua", "ids": [f"r{i}" for i in range(n)], "settings": {"batch_size": 4},
             "isolation": "bwrap", "not_executed": None}  # fmt: skip
    return {**usual, **given, "states": states}


def method(share: float, seeds=(0, 1, 2), n: int = 200, loss=1.0, spread=0.0, rng_seed: int = 0) -> dict:
    """A method that passes the first `share` of the rows, seed i with `spread * i` more, at about a loss."""
    rng = np.random.default_rng(rng_seed)
    nats = 10 * loss + rng.normal(0, 0.5, n)
    return scores([state(seed, np.arange(n) < round(n * (share + spread * i)), nats) for i, seed in enumerate(seeds)])
