"""Power: more seeds or rows find smaller differences, and what is said to be needed is enough."""

from __future__ import annotations

import numpy as np
import pytest

from studykit.errors import UserError
from studykit.evaluation import power
from studykit.evaluation.results import ComparisonResults
from tests.evaluation.test_comparison import compared, random_study
from tests.made_scores import method

PAIRS = [("bottleneck", "adapterfusion")]


@pytest.fixture(scope="module")
def comparison():
    return compared(random_study(np.random.default_rng(0), 2, 5, 100, 3.0, 0.5), "chrf")


def published(comparison, directory) -> str:
    results = ComparisonResults(main=comparison.metric, metrics={comparison.metric: comparison}, sources=[],
                                attention=[], cost=[], time=[])  # fmt: skip
    (directory / "compare.json").write_text(results.model_dump_json())
    return str(directory)


def test_more_seeds_and_more_rows_find_smaller_differences(comparison):
    (contrast,) = comparison.contrasts
    found = {(s, n): power.found_difference(contrast, s, n, 0.05) for s in (3, 5, 10) for n in (50, 100, 400)}
    assert found[5, 100] == pytest.approx(contrast.detectable_overall, rel=0.02), "as the comparison itself says"
    for s, n in found:
        assert found.get((s, 4 * n), 0) < found[s, n] and found.get((2 * s, n), 0) < found[s, n]


def test_the_rows_that_are_needed_are_enough_and_no_more(comparison):
    (contrast,) = comparison.contrasts
    rows = power.rows_needed(contrast, 10, 2.0, 0.01)
    assert (
        power.found_difference(contrast, 10, rows, 0.01)
        <= 2.0
        < power.found_difference(contrast, 10, rows * 0.97, 0.01)
    )
    assert power.rows_needed(contrast, 3, 0.01, 0.01) is None, "three seeds never find it"


def equal(contrast):
    """The same difference of another method, without an error over rows."""
    return contrast.model_copy(update={"method": "lora", "error": 0.0})


def test_the_table_has_a_line_per_difference(comparison, tmp_path):
    run = published(comparison, tmp_path)
    text = power.report(run, PAIRS, 4, 0.95, None)
    said = " ".join(text.split())
    assert "with 100 rows, by chrF" in said and "over 1 comparison." in said
    assert max(map(len, text.splitlines())) <= 80
    head, line = text.splitlines()[-2:]
    assert head.split()[1:] == ["sd", "error", "3", "seeds", "4", "5", "10", "20", "50"]
    assert line.startswith("bottleneck - adapterfusion")
    assert "never" in power.report(run, PAIRS, 4, 0.95, 0.01)
    with pytest.raises(UserError, match="none of the study's differences with two seeds"):
        power.report(run, [("lora", "base")], 4, 0.95, None)
    both = comparison.model_copy(update={"contrasts": [*comparison.contrasts, equal(comparison.contrasts[0])]})
    text = power.report(published(both, tmp_path), [*PAIRS, ("lora", "adapterfusion")], 4, 0.95, None)
    said = " ".join(text.split())
    assert said.endswith("left out, with one seed or an equal difference on every row: lora - adapterfusion")
    one_seed = compared({"adapterfusion": method(0.4, seeds=(0,)), "bottleneck": method(0.5, seeds=(0,))})
    with pytest.raises(UserError, match="two seeds or more"):
        power.report(published(one_seed, tmp_path), PAIRS, 4, 0.95, None)
    with pytest.raises(UserError, match="--difference is -1; it must be a number above 0"):
        power.report(run, PAIRS, 4, 0.95, -1.0)
    with pytest.raises(UserError, match="has no compare.json"):
        power.report(str(tmp_path / "nothing"), PAIRS, 4, 0.95, None)
    (tmp_path / "compare.json").write_text("{}")
    with pytest.raises(UserError, match="compare.json is damaged or from another version .at main.; run 06_compare"):
        power.report(str(tmp_path), PAIRS, 4, 0.95, None)
