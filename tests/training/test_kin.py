"""Attention finds what is alike, where the truth is known: a quick form of the calibration by params/kinship.yaml.

With eight random bases (seeds 0 to 7) the clone had the largest weight on seven, 0.48 to 0.99, and the near one on
seed 0. The test has a base with a wide margin, since it is to notice a mistake and not to measure how often it holds.
"""

from __future__ import annotations

import random
from pathlib import Path

from studykit.attention.capture import capture
from studykit.attention.record import mean_weights
from studykit.data.rows import Row, write_rows
from studykit.runs import store
from studykit.study.parameters import check
from studykit.study.training_parameters import AdapterParams
from studykit.training import adapters, fusions, phases
from studykit.training.base import load_base
from studykit.training.batches import encode_rows
from studykit.training.train import TrainingSettings, train
from tests import tiny

LETTERS = {"clone": "abcdefgh", "near": "abcdwxyz", "alien": "stuvwxyz"}  # for the digits; the target has the clone's
LIMITS = (40, 40)
SEED = 4  # of the base: the clone has 0.92


def rows(n: int, letters: str, seed: int) -> list[Row]:
    """Digits to be written as letters."""
    rng = random.Random(seed)
    said = [[rng.randrange(8) for _ in range(4)] for _ in range(n)]
    return [
        Row(f"{seed}-{i}", "lua", f"say {' '.join(map(str, ks))}\n", " ".join(letters[k] for k in ks))
        for i, ks in enumerate(said)
    ]


def trained_source(home: Path, base_run: str, number: int, name: str, steps: int) -> str:
    """An adapter of a language with other letters; all are trained alike, on rows of their own."""
    base, tokens = load_base(base_run)
    p = AdapterParams(base=base_run, language=name, reduction_factor=2)
    model = adapters.new_adapter(base, p)
    settings = TrainingSettings(learning_rate=1e-2, batch_size=8, eval_every=99, keep="last", precision="fp32")
    read = encode_rows(rows(64, LETTERS.get(name, LETTERS["clone"]), number), tokens, *LIMITS)
    if steps:
        train(model, tokens, read, read[:2], settings, steps=steps, trainer_state_dir=home / f"state/{name}", seed=0)
    place = home / "runs/adapter" / f"{name}-bottleneck-s0-{number:010d}"
    adapters.save_adapter(model, place / "adapter", name)
    return tiny.finish(home, place, p.model_dump())


def test_phase_1_attends_to_the_language_that_is_the_targets_wherever_it_stands(home):
    base_run, data_run = tiny.base_run(home, SEED), home / "runs/data/kin-0000000002"
    splits = {split: rows(16, LETTERS["clone"], 100 + n) for n, split in enumerate(("train", "valid", "test"))}
    write_rows(data_run / "rows", {"lua": splits})
    data = tiny.finish(home, data_run, {"task": "generation", "language": "", "members": ["lua"],
                                        "max_prompt_tokens": LIMITS[0], "max_target_tokens": LIMITS[1]})  # fmt: skip
    runs = {name: trained_source(home, base_run, n, name, steps=60) for n, name in enumerate(LETTERS, 1)}
    runs["lua"] = trained_source(home, base_run, 9, "lua", steps=0)  # excluded, so that it has no say
    for number, order in enumerate((["clone", "near", "alien", "lua"], ["near", "alien", "clone", "lua"])):
        p = check("fusion", {
            "base": base_run, "data": data, "members": {name: runs[name] for name in order}, "target": "lua",
            "method": "advfusion", "mask": "exclude", "steps": 40, "eval_every": 40, "batch_size": 8,
            "learning_rate": 1e-2, "precision": "fp32", "keep": "last", "out": f"runs/fusion/kin-{number:010d}",
        })  # fmt: skip
        base, tokens = load_base(base_run)
        model = fusions.new_fusion(base, p)
        with store.open_run(p.out, stage="fusion", params=p) as run:
            next(phases.train_phases(model, tokens, p, LIMITS, run))
        record = capture(model, tokens, splits["test"], target="lua", phase="phase 1", limits=LIMITS, progress=False)
        weight = dict(zip(order, mean_weights(record).mean(0).tolist(), strict=True))
        assert weight["lua"] == 0 and weight["clone"] > 0.7 and sum(weight.values()) > 0.999, weight
