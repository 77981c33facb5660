"""Whether a base identifies an edit by its message among others: the mean reciprocal rank, and the AUC.

Each built-in edit has a message in other words, and another edit's message in other words. The base ranks the edit's
diff among those of other edits by the likelihood of each message, as `evaluate.identification` does.

    python -m tests.real_checkpoint .real/smollm2
    python benchmarks/identification.py .real/smollm2 --edits 20 --others 19
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from studykit.evaluation import edits
from studykit.evaluation.calibration import auc
from studykit.evaluation.identification import chance, identification_score
from studykit.study.templates import TEMPLATES
from studykit.training.base import open_model, open_tokenizer

LIMITS = (256, 40)  # tokens of a prompt and of a message


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="a directory with weights and tokenizer, or an id of the hub")
    parser.add_argument("--edits", type=int, default=20)
    parser.add_argument("--others", type=int, default=19, help="prompts beside the own one")
    parser.add_argument("--language", default="lua")
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    drawn = edits.edits(options.language, options.edits, TEMPLATES["commit"])
    texts = [(one.reworded, other.reworded) for one, other in zip(drawn, edits.others(drawn), strict=True)]
    began, used = time.perf_counter(), time.process_time()
    score = identification_score(
        open_model(options.base).eval(),
        open_tokenizer(options.base),
        [one.row for one in drawn],
        [text for pair in texts for text in pair],
        others=options.others,
        limits=LIMITS,
        batch_size=options.batch_size,
        name="base",
        samples=2,  # a pair of a prompt and a message that both need is read once
    )
    assert score and score.per_example
    same, other = np.asarray(score.per_example).reshape(-1, 2).T  # (n,) each
    value, low, high = auc(same, other)
    among = int(score.signature.split("among:")[1].split("|")[0])
    print(f"{len(same)} edits in {options.language}, {score.signature}")
    print(f"MRR of the same edit {same.mean():.1f}, of another edit {other.mean():.1f}, chance {chance(among):.1f}")
    print(f"the own diff is first for {np.mean(same == 100):.0%} of the messages")
    print(f"AUC {value:.2f} [{low:.2f}, {high:.2f}]")
    print(f"{time.perf_counter() - began:.0f} s, {time.process_time() - used:.0f} s of processor time")


if __name__ == "__main__":
    main()
