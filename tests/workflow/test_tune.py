"""`studykit tune`: the best values of each method are written into a study that can be run, at each level of a family."""

import math
import shutil

import pytest

from studykit.errors import UserError
from studykit.evaluation.covariates import covariates
from studykit.study import parameters
from studykit.study.family import load_plan
from studykit.study.yaml_file import read_yaml
from studykit.workflow import run as workflow_run
from studykit.workflow import tune
from tests import made_runs
from tests.project import ROOT

STUDY = """
study: small
task: generation
members: [python]
target: lua
methods: [lora, adapterfusion]
seeds: [0]
adapter: {by_method: {lora: {batch_size: 2}}}
tune:
  adapter: {target_learning_rate: [0.1, 0.2, 0.3]}
  fusion: {learning_rate: [0.01, 0.02, 0.03]}
  seeds: [8, 9]
"""
FAMILY = STUDY + "vary: {data.target_examples: [10, 30]}\ngather: {covariate: target_rows}\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params").mkdir()
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    return tmp_path


def finished(home, monkeypatch, loss) -> list[str]:
    """The runs that the command asks for, finished at once; `loss` tells that of a trial from its parameters."""
    made: list[str] = []

    def finish(planned, *_):
        rows = {run.dir: run.params["target_examples"] for run in planned.runs if run.stage == "data"}
        for run in planned.runs:
            if not (home / run.dir).exists():
                (home / run.dir).mkdir(parents=True)
                about = {}
                if run.params.get("validation") == "half":
                    about = {"trial_loss": loss(run.params, rows[run.params["data"]]), "trial_rows": 24}
                made_runs.finish(home / run.dir, run.stage, run.params, about=about)
                made.append(run.name)
        return 0

    monkeypatch.setattr(workflow_run, "run", finish)
    return made


def test_the_values_of_the_least_mean_loss_are_written(home, monkeypatch, capsys):
    def loss(params, _):
        if params["seed"] == 8:
            return {0.1: 1.0, 0.2: 1.5, 0.3: 2.0}.get(params["learning_rate"], 1.0)
        return {0.1: 4.0, 0.2: 1.5, 0.3: 2.0}.get(params["learning_rate"], 1.0)

    (home / "params/small.yaml").write_text(STUDY)
    made = finished(home, monkeypatch, loss)
    assert tune.tune(load_plan("params/small.yaml"), 1, False) == 0
    tuned = read_yaml("params/small_tuned.yaml", home)
    assert tuned["adapter"]["by_method"] == {
        "lora": {"batch_size": 2, "target_learning_rate": 0.2}, "bottleneck": {"target_learning_rate": 0.2},
    }, "0.1 is best with seed 8 alone"  # fmt: skip
    assert tuned["fusion"]["by_method"] == {"adapterfusion": {"learning_rate": 0.01}}, "the first of equal ones"
    text = (home / "params/small_tuned.yaml").read_text()
    assert "# lora:\n#   target_learning_rate 0.1: loss 2.5000 (1.0000 4.0000)\n" in text
    assert "mean over the seeds 8, 9" in text and "`studykit run params/small_tuned.yaml`" in capsys.readouterr().out
    assert not any(name.startswith("compare/") for name in made), "only trials and what they need"
    again = load_plan("params/small_tuned.yaml").runs
    own = [run for run in again if run.stage == "adapter" and run.params["seed"] == 0]
    rates = {run.label: run.params["learning_rate"] for run in own}
    assert rates["lua-lora-s0"] == rates["lua-bottleneck-s0"] == 0.2 != rates["python-bottleneck-s0"]


def test_a_family_is_tuned_at_each_level(home, monkeypatch):
    (home / "params/small.yaml").write_text(FAMILY)
    finished(home, monkeypatch, lambda params, rows: abs(params["learning_rate"] - rows / 100))
    assert tune.tune(load_plan("params/small.yaml"), 1, False) == 0
    levels = read_yaml("params/small_tuned.yaml", home)["vary"]["data.target_examples"]
    found = {level: changes["adapter"]["by_method"]["lora"] for level, changes in levels.items()}
    assert found == {
        "10": {"batch_size": 2, "target_learning_rate": 0.1}, "30": {"batch_size": 2, "target_learning_rate": 0.3},
    }  # fmt: skip
    assert levels["30"]["data"] == {"target_examples": 30}
    planned = load_plan("params/small_tuned.yaml")
    rates = [run.params["learning_rate"] for run in planned.runs if run.label == "lua-lora-s0"]
    assert sorted(rates) == [0.1, 0.3] and "# At 30:\n# lora:" in (home / "params/small_tuned.yaml").read_text()


def test_a_tuned_family_keeps_its_covariate_and_its_long_levels(home, monkeypatch):
    finished(home, monkeypatch, lambda params, rows: params["learning_rate"])
    (home / "params/small.yaml").write_text(
        STUDY + "vary: {fusion.steps: [60, 120]}\ngather: {covariate: fusion.steps}\n"
    )
    assert tune.tune(load_plan("params/small.yaml"), 1, False) == 0
    gathered = load_plan("params/small_tuned.yaml").result.params
    values = covariates(parameters.STAGES["gather"].model.model_validate(gathered), {})
    assert sorted(values.values()) == [math.log10(60), math.log10(120)]
    many = "[lora, adapterfusion, advfusion_zero, advfusion_none, advfusion_exclude, average]"
    (home / "params/small.yaml").write_text(STUDY.replace("small", "wide") + f"vary: {{methods: [[lora], {many}]}}\n")
    assert tune.tune(load_plan("params/small.yaml"), 1, False) == 0
    levels = read_yaml("params/wide_tuned.yaml", home)["vary"]["methods"]
    assert [len(changes["methods"]) for changes in levels.values()] == [1, 6]
    assert "advfusion_none" in list(levels.values())[1]["fusion"]["by_method"]


@pytest.mark.parametrize(
    "text, said",
    [
        (FAMILY.replace("[10, 30]", "[10], data.seed: [0]"), "varies data.target_examples and data.seed; a family is"),
        (STUDY.split("tune:")[0], "has no values to try; name some in `tune`"),
    ],
)
def test_what_cannot_be_tuned_is_refused(home, text, said):
    (home / "params/small.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        tune.tune(load_plan("params/small.yaml"), 1, False)


def test_a_file_of_ones_own_is_not_replaced(home):
    (home / "params/small.yaml").write_text(STUDY)
    (home / "params/small_tuned.yaml").write_text("mine")
    with pytest.raises(UserError, match="was not written by this command, which would replace it"):
        tune.tune(load_plan("params/small.yaml"), 1, False)
    assert (home / "params/small_tuned.yaml").read_text() == "mine"
