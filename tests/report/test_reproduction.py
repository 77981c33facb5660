"""Published statements beside ours: who agrees, and the published attention at the same depth."""

from __future__ import annotations

import pytest

from studykit.attention.summary import AttentionSummary
from studykit.evaluation.comparison import compare
from studykit.report import reproduction
from studykit.runs.files import write_json
from studykit.study.gather_parameters import GatherParams
from tests import made_runs
from tests.made_records import made_record
from tests.made_scores import method
from tests.report.test_pooled import results


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project without runs."""
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    return tmp_path


def study(home, name, shares, task="translation", target="lua") -> tuple[str, str, dict[str, str]]:
    """Makes the data, the evaluations and the comparison of a study; returns the first and the last, and the others by
    method.

    shares: of rows that each method passes, or pairs of that and of what each further seed passes more.
    """
    data, compared = f"runs/data/{name}-0123456789", f"runs/compare/{name}-0123456789"
    (home / data / "rows" / target).mkdir(parents=True)
    (home / data / "rows" / target / "test.jsonl").write_text(f"{name}\n")
    params = {"task": task, "language": "", "target": target, "members": ["go", target]}
    made_runs.finish(home / data, "data", params)
    evaluations = {}
    for seed, (word, share) in enumerate(shares.items()):
        place = f"runs/evaluate/{name}-{word}-0123456789"
        (home / place).mkdir(parents=True)
        share, spread = share if isinstance(share, tuple) else (share, 0.0)
        write_json(home / place / "scores.json", method(share, spread=spread, rng_seed=seed).model_dump(mode="json"))
        made_runs.finish(home / place, "evaluate", {"data": data, "language": target})
        evaluations[word] = place
    (home / compared).mkdir(parents=True)
    made_runs.finish(home / compared, "compare", {"evaluations": evaluations})
    return data, compared, evaluations


def main_of(shares):
    """A comparison of which the tables read the score, the unit and the confidence."""
    scores = {word: method(0.5, rng_seed=seed) for seed, word in enumerate(shares)}
    return compare(scores, "pass_at_1", "adapterfusion", 0.95, 2000)


def test_a_statement_agrees_contradicts_or_is_undecided(home):
    """Published of translation: AdapterFusion and LoRA are better than AdvFusion."""
    shares = {"advfusion_zero": 0.5, "adapterfusion": 0.8, "lora": 0.2}
    *_, evaluations = study(home, "x", shares)
    found = {row["published"]: row["verdict"] for row in reproduction.claim_table(main_of(shares), evaluations)}
    assert found == {
        "adapterfusion is better than advfusion_zero": "agrees",
        "lora is better than advfusion_zero": "contradicts",
        "lora is better than adapterfusion": "contradicts",
    }
    same = {"advfusion_zero": 0.5, "adapterfusion": 0.5}
    *_, evaluations = study(home, "y", same)
    (row,) = reproduction.claim_table(main_of(same), evaluations)
    assert row["verdict"] == "undecided" and row["source"] == "arXiv 2511.02869, abstract"
    assert (row["difference here"], row["here"]) == ("adapterfusion \u2212 advfusion_zero", "0.0 points")


def test_every_statement_is_tested_whose_methods_a_study_has(home):
    """Of generation seven, of which the questions of a study test some alone; they are a family of tests of their own."""
    shares = {
        "advfusion_zero": 0.5,
        "adapterfusion": 0.3,
        "lora": 0.6,
        "compacter": 0.4,
        "bottleneck": 0.55,
        "base": 0.1,
    }
    *_, evaluations = study(home, "x", shares, task="generation")
    made = main_of(shares)
    assert [pair for pair in SHIPPED if made.contrast(*pair)] == ASKED
    rows = reproduction.claim_table(made, evaluations, 1000)
    verdicts = {row["difference here"]: row["verdict"] for row in rows}
    against = [("compacter", "advfusion_zero"), ("bottleneck", "lora")]
    assert verdicts == {f"{a} \u2212 {b}": "contradicts" if (a, b) in against else "agrees" for a, b in SHIPPED}
    assert rows[1]["here"] == "+10.0 points" and " to " in rows[1]["interval"]


SHIPPED = [
    ("advfusion_zero", "adapterfusion"),
    ("lora", "advfusion_zero"),
    ("compacter", "advfusion_zero"),
    ("bottleneck", "advfusion_zero"),
    ("bottleneck", "lora"),
    ("bottleneck", "compacter"),
    ("bottleneck", "adapterfusion"),
]  # published of generation
ASKED = [("advfusion_zero", "adapterfusion"), ("bottleneck", "adapterfusion")]


def test_at_least_as_good_is_contradicted_by_worse_alone(home):
    """Of commit messages no single adapter is published to be better than a fusion."""
    shares = {"advfusion_zero": 0.5, "adapterfusion": 0.6, "lora": 0.8, "bottleneck": 0.2, "compacter": 0.6}
    *_, evaluations = study(home, "x", shares, task="commit")
    found = {row["published"]: row["verdict"] for row in reproduction.claim_table(main_of(shares), evaluations, 1000)}
    assert found["adapterfusion is better than advfusion_zero"] == "agrees"
    assert found["adapterfusion is at least as good as lora"] == "contradicts"
    assert found["adapterfusion is at least as good as bottleneck"] == "agrees"
    assert found["adapterfusion is at least as good as compacter"] == "undecided"
    assert len(found) == 7


def test_a_difference_of_some_seeds_is_said_to_be_of_these(home):
    shares = {"advfusion_zero": (0.5, 0.2), "adapterfusion": 0.4}
    *_, evaluations = study(home, "x", shares, task="generation")
    (row,) = reproduction.claim_table(main_of(shares), evaluations)
    assert row["verdict"] == "agrees on these seeds only"


def test_the_other_mask_stands_in_where_a_study_has_only_that():
    (first, *_, compacters) = reproduction.claims("translation", "lua")
    assert reproduction.pair_of(first, ["advfusion_exclude", "adapterfusion"]) == ("adapterfusion", "advfusion_exclude")
    assert reproduction.pair_of(first, ["advfusion_exclude", "advfusion_zero"]) is None
    both = ["advfusion_exclude", "advfusion_zero", "adapterfusion"]
    assert reproduction.pair_of(first, both) == ("adapterfusion", "advfusion_zero")
    mixed = ["advfusion_exclude-compacter", "advfusion_zero"]
    assert reproduction.pair_of(compacters, mixed) is None, "two masks would be two causes"


def test_languages_of_a_statement():
    ruby, lua = (reproduction.claims("summarization", target) for target in ("ruby", "lua"))
    assert {claim["better"] for claim in ruby} == {"advfusion_zero"} and lua == []


def gathered(home, **places) -> tuple[list[dict], list[str]]:
    """The statements beside studies by name, each with its shares, task and target."""
    made = {name: study(home, name, *of) for name, of in places.items()}
    p = GatherParams(
        compares={name: compared for name, (_, compared, _) in made.items()},
        data={name: data for name, (data, *_) in made.items()},
        levels={"draw": {name: name for name in made}},
        over=["draw"],
    )
    return reproduction.gathered_claims(results([1.0, 2.0, 3.0]).main, p)


def test_a_statement_is_pooled_over_the_studies_of_its_task_alone(home):
    """Of commit messages AdapterFusion is published to be better, of generation AdvFusion."""
    shares = {
        "commit": [(0.2, 0.5), (0.22, 0.5), (0.21, 0.5)],  # of AdvFusion and AdapterFusion, study by study
        "generation": [(0.8, 0.5), (0.81, 0.5), (0.82, 0.5)],
    }
    places = {
        f"{task}{n}": ({"advfusion_zero": zero, "adapterfusion": plain}, task)
        for task, of_task in shares.items()
        for n, (zero, plain) in enumerate(of_task)
    }
    rows, alone = gathered(home, **places, e=({"advfusion_zero": 0.1, "lora": 0.5}, "generation"))
    found = {row["published"]: (row["here"], row["studies"], row["verdict"]) for row in rows}
    assert found == {
        "adapterfusion is better than advfusion_zero": ("+29.0", 3, "agrees"),
        "advfusion_zero is better than adapterfusion": ("+31.0", 3, "agrees"),
    }
    assert alone == [
        'One study alone, e, has the task, the target and the methods of "lora is better than advfusion_zero" '
        "(generation); its own report sets them side by side."
    ]


def test_a_statement_of_some_languages_is_not_set_against_others(home):
    shares = {"advfusion_zero": 0.5, "adapterfusion": 0.4}
    places = {"a": "ruby", "b": "go", "c": "lua"}
    rows, alone = gathered(home, **{name: (shares, "summarization", target) for name, target in places.items()})
    assert [(row["published"], row["studies"]) for row in rows] == [("advfusion_zero is better than adapterfusion", 2)]
    assert not alone


def test_own_attention_beside_the_published(home):
    states = {"initialisation": 0, "phase 1, masked": 1, "phase 1, restored": 2, "phase 2": 3}
    records = {title: [made_record(seed=seed, phase=title)] for title, seed in states.items()}
    summary = AttentionSummary.from_records("advfusion_exclude", records, "completion")
    *layers, mean = reproduction.own_attention_table({"advfusion_exclude": summary})
    assert len(layers) == 3 and mean["published (%)"] == "19.4"
    assert mean["here (%)"] == f"{100 * summary.last.own_weight.mean():.1f}"
