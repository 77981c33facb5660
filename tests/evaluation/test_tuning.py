"""Trials as finished runs: the expected best of n, and what a reader is told."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studykit.errors import UserError
from studykit.evaluation import tuning
from tests.made_runs import finish


@given(st.lists(st.floats(0, 10), min_size=1, max_size=5))
def test_the_expected_best_is_the_mean_over_all_draws_with_replacement(losses):
    for n, expected in enumerate(tuning.expected_best(losses), 1):
        draws = [min(draw) for draw in itertools.product(losses, repeat=n)]
        assert expected == pytest.approx(sum(draws) / len(draws))


def made(
    tmp_path, monkeypatch, rates: list[float], losses: list[list[float]], used: float
) -> list[tuning.MethodTrials]:
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))

    def run(seed: int, rate: float, **about) -> str:
        name = f"runs/adapter/lua-lora-s{seed}-{int(rate * 100):010x}"
        (tmp_path / name).mkdir(parents=True)
        finish(tmp_path / name, "adapter", {"learning_rate": rate, "steps": 4, "seed": seed, "out": name}, about=about)
        return name

    runs = [
        [run(9 + n, rate, trial_loss=loss, trial_rows=24) for n, loss in enumerate(of_seeds)]
        for rate, of_seeds in zip(rates, losses, strict=True)
    ]
    return tuning.read_trials({"lora": runs}, {"lora": [run(0, used)]})


def test_trials_are_read_with_what_differs_and_what_the_study_took(tmp_path, monkeypatch):
    losses = [[3.0, 3.2], [1.5, 0.5], [2.0, 2.2]]
    (one,) = made(tmp_path, monkeypatch, [0.1, 0.2, 0.3], losses, used=0.2)
    assert (one.values, one.losses, one.rows) == (
        [{"learning_rate": 0.1}, {"learning_rate": 0.2}, {"learning_rate": 0.3}], losses, 24)  # fmt: skip
    assert one.best == 1 and one.used == {"learning_rate": 0.2}


def test_the_best_trial_leads_the_closest_by_the_mean_of_seed_by_seed_differences(tmp_path, monkeypatch):
    """Of 1, 2 and 3 the mean is 2 and its standard error 1 / sqrt(3); t with 2 degrees of freedom is 4.3027."""
    (one,) = made(tmp_path, monkeypatch, [0.1, 0.2, 0.3], [[1, 2, 3], [2, 4, 6], [9, 9, 9]], used=0.1)
    assert one.lead.value == 2 and one.lead.high == pytest.approx(2 + 4.3027 / 3**0.5, abs=1e-4)
    told = tuning.remarks([one])
    assert told[0] == (
        "These seeds do not tell the best values from all others for lora: other seeds may choose others."
    )


def test_the_closest_trial_need_not_be_the_next_best(tmp_path, monkeypatch):
    losses = [[1.0, 1.1, 1.2], [1.02, 1.12, 1.22], [0.5, 1.0, 1.9]]
    (one,) = made(tmp_path, monkeypatch, [0.1, 0.2, 0.3], losses, used=0.1)
    assert one.lead.value == pytest.approx(sum([-0.5, -0.1, 0.7]) / 3) and one.lead.low < 0


def test_clear_trials_inside_their_range_give_no_remark(tmp_path, monkeypatch):
    losses = [[3.0, 3.2, 3.1], [1.0, 1.2, 1.1], [2.0, 2.2, 2.1]]
    assert tuning.remarks(made(tmp_path, monkeypatch, [0.1, 0.2, 0.3], losses, used=0.2)) == []


def test_another_value_and_the_end_of_a_range_are_told(tmp_path, monkeypatch):
    told = tuning.remarks(made(tmp_path, monkeypatch, [0.1, 0.2], [[3.0, 3.1], [1.0, 1.1]], used=0.1))
    assert told[0] == "lora runs with learning_rate 0.1, but learning_rate 0.2 was best."
    assert "The best learning_rate of lora is an end of what was tried" in told[1] and len(told) == 2


def test_one_seed_tells_nothing_apart(tmp_path, monkeypatch):
    (one,) = made(tmp_path, monkeypatch, [0.1, 0.2, 0.3], [[3.0], [1.0], [2.0]], used=0.2)
    assert one.lead.value == 1 and tuning.describe_lead(one) == "1.0000"
    assert tuning.remarks([one]) == [
        "The trials have one seed, so nothing says whether other seeds would choose alike."
    ]


def test_a_run_that_is_no_trial_is_refused(tmp_path, monkeypatch):
    made(tmp_path, monkeypatch, [0.1], [[1.0]], used=0.2)
    with pytest.raises(UserError, match="is no trial; a trial was trained with validation: half"):
        tuning.read_trials({"lora": [["runs/adapter/lua-lora-s0-0000000014"]]}, {})
