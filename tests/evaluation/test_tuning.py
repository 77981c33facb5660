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


def made(tmp_path, monkeypatch, rates: list[float], losses: list[float], used: float) -> list[tuning.MethodTrials]:
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    runs = []
    for number, (rate, loss) in enumerate(zip([*rates, used], [*losses, None], strict=True)):
        run = f"runs/adapter/lua-lora-s{number}-{number:010x}"
        (tmp_path / run).mkdir(parents=True)
        about = {} if loss is None else {"trial_loss": loss, "trial_rows": 24}
        finish(tmp_path / run, "adapter", {"learning_rate": rate, "steps": 4, "out": run}, about=about)
        runs.append(run)
    return tuning.read_trials({"lora": runs[:-1]}, {"lora": runs[-1:]})


def test_trials_are_read_with_what_differs_and_what_the_study_took(tmp_path, monkeypatch):
    (one,) = made(tmp_path, monkeypatch, [0.1, 0.2, 0.3], [3.0, 1.0, 2.0], used=0.2)
    assert (one.values, one.losses, one.rows) == (
        [{"learning_rate": 0.1}, {"learning_rate": 0.2}, {"learning_rate": 0.3}], [3.0, 1.0, 2.0], 24)  # fmt: skip
    assert one.best == 1 and one.used == {"learning_rate": 0.2} and tuning.remarks([one]) == []


def test_another_value_and_the_end_of_a_range_are_told(tmp_path, monkeypatch):
    told = tuning.remarks(made(tmp_path, monkeypatch, [0.1, 0.2], [3.0, 1.0], used=0.1))
    assert told[0] == "lora runs with learning_rate 0.1, but learning_rate 0.2 was best."
    assert "The best learning_rate of lora is an end of what was tried" in told[1] and len(told) == 2


def test_a_run_that_is_no_trial_is_refused(tmp_path, monkeypatch):
    made(tmp_path, monkeypatch, [0.1], [1.0], used=0.1)
    with pytest.raises(UserError, match="is no trial; a trial was trained with validation: half"):
        tuning.read_trials({"lora": ["runs/adapter/lua-lora-s1-0000000001"]}, {})
