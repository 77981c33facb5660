"""Published statements beside ours: who agrees, and the published attention at the same depth."""

from __future__ import annotations

import pytest

from studykit.attention.summary import AttentionSummary
from studykit.evaluation.comparison import compare
from studykit.report import reproduction
from tests import made_runs
from tests.made_records import made_record
from tests.made_scores import method
from tests.report.test_pooled import results


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project with a data run and an evaluation of translations into Lua."""
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    data = {"task": "translation", "language": "", "target": "lua", "members": ["go", "lua"]}
    made_runs.finish(tmp_path / "runs/data/x-0123456789", "data", data)
    evaluation = {"data": "runs/data/x-0123456789", "language": "lua"}
    made_runs.finish(tmp_path / "runs/evaluate/x-0123456789", "evaluate", evaluation)
    return tmp_path


PAIRS = [("advfusion_zero", "adapterfusion"), ("lora", "advfusion_zero")]
EVALUATIONS = {"lora": "runs/evaluate/x-0123456789"}


def test_a_statement_agrees_contradicts_or_is_undecided(home):
    """Published of translation: AdapterFusion and LoRA are better than AdvFusion."""
    scores = {"advfusion_zero": method(0.5), "adapterfusion": method(0.8, rng_seed=1), "lora": method(0.2, rng_seed=2)}
    compared = compare(scores, "pass_at_1", "adapterfusion", 0.95, 400, pairs=PAIRS)
    found = {row["published"]: row["verdict"] for row in reproduction.claim_table(compared, EVALUATIONS)}
    assert found == {
        "adapterfusion is better than advfusion_zero": "agrees",
        "lora is better than advfusion_zero": "contradicts",
    }
    same = {name: method(0.5, rng_seed=seed) for seed, name in enumerate(["advfusion_zero", "adapterfusion"])}
    (row,) = reproduction.claim_table(compare(same, "pass_at_1", "adapterfusion", 0.95, 400), EVALUATIONS)
    assert row["verdict"] == "undecided" and row["source"] == "arXiv 2511.02869, abstract"


def test_languages_of_a_statement():
    ruby, lua = (reproduction.claims("summarization", target) for target in ("ruby", "lua"))
    assert {claim["better"] for claim in ruby} == {"advfusion_zero"} and lua == []


def test_pooled_differences_count_in_either_direction(home):
    pooled = results([4.0, 5.1, 5.9, 7.0, 8.1]).main
    (one,) = pooled.gathered
    data = {"a": "runs/data/x-0123456789"}
    for better, worse, verdict in (("adapterfusion", "advfusion_zero", "agrees"),
                                   ("advfusion_zero", "adapterfusion", "contradicts")):  # fmt: skip
        named = one.model_copy(update={"method": better, "against": worse})
        (row,) = reproduction.gathered_claim_table(pooled.model_copy(update={"gathered": [named]}), data)
        assert row["verdict"] == verdict
        assert row["here"].startswith("+" if better == "adapterfusion" else "\u2212")


def test_own_attention_beside_the_published(home):
    states = {"initialisation": 0, "phase 1, masked": 1, "phase 1, restored": 2, "phase 2": 3}
    records = {title: [made_record(seed=seed, phase=title)] for title, seed in states.items()}
    summary = AttentionSummary.from_records("advfusion_exclude", records, "completion")
    *layers, mean = reproduction.own_attention_table({"advfusion_exclude": summary})
    assert len(layers) == 3 and mean["published (%)"] == "19.4"
    assert mean["here (%)"] == f"{100 * summary.last.own_weight.mean():.1f}"
