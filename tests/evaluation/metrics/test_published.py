"""CodeBLEU against the published package, which wants older grammars and so is installed aside.

BLEU, chrF and ROUGE-L are held against their libraries, which are installed anyway, in test_metrics.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studykit.evaluation.metrics import codebleu
from tests.evaluation.metrics.code_pairs import PAIRS, REPAIRED_PAIRS

PINS = Path(__file__).with_name("published.txt")
# The package merges sources in the order of hash sets, and so at random; with sets that keep order it is repeatable.
PUBLISHED = """
import json, logging, sys
from codebleu import calc_codebleu, dataflow_match
from codebleu.parser import DFG

logging.disable()

class Ordered(dict):
    def __init__(self, items=()):
        super().__init__((item, None) for item in items)

    def add(self, item):
        self[item] = None

dataflow_match.set = DFG.set = Ordered
parts = ["ngram_match_score", "weighted_ngram_match_score", "syntax_match_score", "dataflow_match_score", "codebleu"]
scores = [calc_codebleu([[r]], [p], language) for language, p, r in json.load(sys.stdin)]
json.dump([[score[part] for part in parts] for score in scores], sys.stdout)
"""

NAMES = {"c#": "c_sharp", "c++": "cpp"}  # the package's
NAME = st.sampled_from("abcd")
SIMPLE = st.one_of(
    st.builds("{} = {} + {}{{end}}".format, NAME, NAME, NAME),
    st.builds("{} = {} * 2{{end}}".format, NAME, NAME),
    st.builds("f({}, {}){{end}}".format, NAME, NAME),
).map(lambda line: [line])
HEADS = {
    "python": ["if {} > {}:", "while {} < {}:", "for {} in {}:"],
    "java": ["if ({} > {}) {{", "while ({} < {}) {{", "for (int {} : {}) {{"],
    "go": ["if {} > {} {{", "for {} < {} {{"],
    "ruby": ["if {} > {}", "until {} > {}", "for {} in {} do"],
}
ENDS = {"python": None, "java": "}", "go": "}", "ruby": "end"}


def programs(language: str) -> st.SearchStrategy[str]:
    """Assignments and calls in up to three levels of choices and loops."""

    def block(bodies: st.SearchStrategy[list[str]]) -> st.SearchStrategy[list[str]]:
        head = st.builds(lambda form, a, b: form.format(a, b), st.sampled_from(HEADS[language]), NAME, NAME)
        close = [ENDS[language]] if ENDS[language] else []
        lines = st.lists(bodies, min_size=1, max_size=3).map(lambda parts: sum(parts, []))
        return st.builds(lambda first, body: [first, *("    " + line for line in body), *close], head, lines)

    statement = st.recursive(SIMPLE, block, max_leaves=6)
    end = ";" if language == "java" else ""
    return st.lists(statement, min_size=2, max_size=5).map(
        lambda parts: "\n".join(sum(parts, [])).replace("{end}", end) + "\n"
    )


def made(language: str) -> list[tuple[str, str, str]]:
    """Always the same pairs."""
    pairs = []

    @settings(max_examples=60, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(programs(language), programs(language))
    def collect(prediction: str, reference: str) -> None:
        pairs.append((language, prediction, reference))

    collect()
    return pairs


@pytest.mark.skipif("CI" not in os.environ, reason="installs the published CodeBLEU; set CI to run it")
def test_components_are_those_of_the_published_package(tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--target", str(tmp_path), "-r", str(PINS)], check=True, timeout=300)
    known = PAIRS | REPAIRED_PAIRS
    pairs = [(language, *pair) for language in known for pair in known[language]]
    for language in HEADS:
        pairs += made(language)
    done = subprocess.run(
        [sys.executable, "-c", PUBLISHED], input=json.dumps([(NAMES.get(language, language), *pair) for language, *pair in pairs]), capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wrong = []
    for (language, prediction, reference), (*shares, total) in zip(pairs, json.loads(done.stdout), strict=True):
        row = np.array(codebleu.compare(prediction, reference, language)[0])
        ours = [*np.nan_to_num(codebleu.components(row, published=True)), codebleu.compat(row) / 100]
        compared = 3 if language in REPAIRED_PAIRS else 5  # whose data flow is another
        if ours[:compared] != pytest.approx([*shares, total][:compared], abs=1e-6):
            wrong.append((language, prediction, reference, ours, shares))
    assert not wrong, f"{len(wrong)} of {len(pairs)} pairs differ, among them {wrong[0]}"
