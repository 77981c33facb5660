"""Trials: as many for every method, on a seed of their own, with half of the validation rows for the steps."""

import pytest
from pydantic import ValidationError

from studykit.errors import UserError
from studykit.study import file, plan

SMALL = {
    "study": "small", "task": "generation", "members": ["python", "go"], "target": "lua", "seeds": [0, 1],
    "methods": ["base", "lora", "adapterfusion", "advfusion_zero", "average"],
}  # fmt: skip
TUNE = {"adapter": {"learning_rate": [1e-3, 2e-3], "target_steps": [5, 7]},
        "fusion": {"learning_rate": [1e-5, 2e-5, 3e-5, 4e-5]}, "seeds": [8, 9]}  # fmt: skip


def planned(**changes) -> list[plan.Run]:
    return plan.plan(file.Study.model_validate(SMALL | changes))


def test_every_method_that_trains_has_as_many_trials_each_with_its_values():
    runs = {run.dir: run for run in planned(tune=TUNE)}
    tried = next(run for run in runs.values() if run.stage == "compare").params["trials"]
    assert list(tried) == ["lora", "bottleneck", "adapterfusion", "advfusion_zero"]
    for method, directories in tried.items():
        assert len({directory for of_seeds in directories for directory in of_seeds}) == 8
        for n, seed in enumerate([8, 9]):
            assert {(runs[x[n]].params["seed"], runs[x[n]].params["validation"]) for x in directories} == {
                (seed, "half")
            }
        values = [runs[of_seeds[0]].params for of_seeds in directories]
        if method in ("lora", "bottleneck"):
            steps_and_rates = [(of["learning_rate"], of["steps"]) for of in values]
            assert steps_and_rates == [(1e-3, 5), (1e-3, 7), (2e-3, 5), (2e-3, 7)]
        else:
            assert [of["learning_rate"] for of in values] == [1e-5, 2e-5, 3e-5, 4e-5]
            assert len({str(of["members"]) for of in values}) == 1, "all over the same members"


def test_no_row_selects_a_step_of_a_trial_or_its_members_and_judges_it():
    runs = {run.dir: run for run in planned(tune=TUNE)}
    for run in runs.values():
        if run.stage == "fusion":
            halves = {
                run.params["validation"],
                *(runs[member].params["validation"] for member in run.params["members"].values()),
            }
            assert halves == {"half" if run.params["seed"] in (8, 9) else "all"}


def test_trials_leave_the_runs_of_the_study_as_they_are_and_come_before_what_reads_them():
    plain, tuned = planned(), planned(tune=TUNE)
    names = [run.name for run in tuned]
    assert {run.name for run in plain if run.stage != "compare"} <= set(names) and len(names) == len(set(names))
    for run in tuned:
        assert all(names.index(need.name) < names.index(run.name) for need in run.needs)


def test_single_methods_try_values_of_their_own_and_those_that_do_not_train_some_too():
    words = ["lora", "adapterfusion-lora", "mhr", "ties", "arrow", "average-lora"]
    own = {"lora": {"learning_rate": [0.1, 0.2]}, "mhr": {"learning_rate": [0.3, 0.4]}, "ties": {"factor": [1, 2]},
           "arrow": {"top_k": [1, 2]}}  # fmt: skip
    tune = {"fusion": {"learning_rate": [1e-5, 2e-5]}, "by_method": own}
    runs = {run.dir: run for run in planned(methods=words, tune=tune)}
    tried = next(run for run in runs.values() if run.stage == "compare").params["trials"]
    key = {"ties": "factor", "arrow": "top_k"}
    values = {m: [runs[x[0]].params[key.get(m, "learning_rate")] for x in of] for m, of in tried.items()}
    expected = {m: next(iter(keys.values())) for m, keys in own.items()} | {"adapterfusion-lora": [1e-5, 2e-5]}
    assert values == expected, "each has two trials, and average-lora, which has nothing to try, none"
    assert all(runs[x].params["validation"] == "half" for of in tried.values() for seeds in of for x in seeds)


def test_a_trial_with_the_values_of_the_study_is_shared_by_equal_studies():
    def trials(**changes):
        return {run.name for run in planned(**changes) if run.params.get("validation") == "half"}

    assert trials(tune=TUNE) == trials(tune=TUNE, seeds=[3], study="other")
    assert not trials()


def test_fusions_are_tried_over_members_with_the_values_of_the_study():
    own = {"by_method": {"bottleneck": {"learning_rate": 0.25}}}
    fusions = [run for run in planned(tune=TUNE, adapter=own) if run.stage == "fusion" and run.params["seed"] in (8, 9)]
    assert {need.params["learning_rate"] for run in fusions for need in run.needs if need.stage == "adapter"} == {0.25}


BAD = {
    r"unlike numbers of trials \(adapter 3, fusion 2\); every method must have the same number": {
        "adapter": {"learning_rate": [0.1, 0.2, 0.3]}, "fusion": {"learning_rate": [0.1, 0.2]}},
    r"unlike numbers of trials \(fusion 2, by_method.average 1\)": {
        "fusion": {"learning_rate": [0.1, 0.2]}, "by_method": {"average": {"factor": [1]}}},
    "tune.by_method.lora.steps names 3 twice": {"by_method": {"lora": {"steps": [3, 3]}}},
    "tune.adapter.steps names 3 twice": {"adapter": {"steps": [3, 3]}},
    "at least 1 item": {"adapter": {"steps": []}},
    "tune.seeds names 7 twice; each may be named once": {"adapter": {"steps": [3]}, "seeds": [7, 8, 7]},
}  # fmt: skip


@pytest.mark.parametrize("said", BAD)
def test_a_section_that_tunes_methods_unlike_is_refused(said):
    with pytest.raises(ValidationError, match=said):
        file.Study.model_validate(SMALL | {"tune": BAD[said]})


@pytest.mark.parametrize(
    "tune, said",
    [
        ({"adapter": {"learning_rat": [0.1]}}, "tune.adapter names 'learning_rat'; it may name "),
        ({"fusion": {"by_method": [{}]}}, "tune.fusion names 'by_method'"),
        (
            {"by_method": {"average": {"learning_rat": [1]}}},
            "tune.by_method.average names 'learning_rat'; it may name ",
        ),
        ({"by_method": {"ties": {"factor": [1]}}}, "tune.by_method names 'ties'; it may name lora, bottleneck, adapt"),
        ({"by_method": {"average": {"density": [7]}}}, "density is 7; it must be at most 1"),
        ({"by_method": {"average": {"density": [0.1, 0.2]}}}, "for average, of which two are the same training"),
        ({"adapter": {"learning_rate": [0.1]}, "seeds": [9, 1]}, "tune.seeds names 1, which is also among seeds"),
        ({"adapter": {"learning_rate": ["fast"]}}, "learning_rate is 'fast'; it must be a number"),
        ({"fusion": {"learning_rate": [3.0]}}, "learning_rate is 3.0; it must be at most 1"),
    ],
)
def test_values_that_cannot_be_tried_are_refused_before_anything_runs(tune, said):
    with pytest.raises(UserError, match=said):
        planned(tune=tune)
