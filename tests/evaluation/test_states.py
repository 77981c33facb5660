"""States: what is scored of a method, each as if it alone stood on the base, with the loss that training reports."""

from __future__ import annotations

import pytest
import torch

from studykit import checkpoints, comparison, phases, runs, tasks
from studykit.base import load_base
from studykit.evaluation import execute, outcomes, states, steps
from studykit.params import EvaluateParams, UserError
from studykit.training import train
from studykit.tuners import fusion_members
from tests import tiny


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def inside(home, monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(home))
    monkeypatch.chdir(home)


@pytest.fixture(scope="module")
def advfusion(home):
    """A trained AdvFusion run; its parameters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDYKIT_HOME", str(home))
        patch.chdir(home)
        p = tiny.fusion_params(home)
        base, tokens = load_base(p.base)
        model = checkpoints.new_fusion(base, p)
        with runs.open_run(p.out, stage="fusion", params=p) as run:
            assert len(list(phases.train_phases(model, tokens, p, tiny.LIMITS, run))) == 2
            checkpoints.save_members(run.path(), p.members)
            run.publish()
        return p


def parameters(p, runs_of_seeds: list[str], method: str = "bottleneck", **given) -> EvaluateParams:
    usual = {"max_new_tokens": 8, "batch_size": 3, "out": f"runs/evaluate/{method}-0000000005"}
    return EvaluateParams(base=p.base, data=p.data, checkpoints=runs_of_seeds, method=method, language=p.target,
                          seeds=list(range(len(runs_of_seeds))), **{**usual, **given})  # fmt: skip


def evaluated(p) -> dict:
    with runs.open_run(p.out, stage="evaluate", params=p) as run:
        if not run.done:
            runs.write_json(run.path("scores.json"), steps.evaluate(p, run))
            run.publish()
    return run.read_json("scores.json")


def test_the_loss_is_the_validation_loss_of_training(advfusion, tmp_path):
    base, tokens = load_base(advfusion.base)
    model = checkpoints.load_run(base, advfusion.members["lua"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("mix_" in name or "lua" in name)
    rows = tasks.read_rows(advfusion.data, "lua", "valid")
    valid = tiny.encode_rows(rows, tokens, *tiny.LIMITS)
    outcome, _ = train(model, tokens, valid, valid, advfusion, steps=2, checkpoints=tmp_path, seed=0)
    nats, count = map(sum, zip(*states.completion_losses(model, tokens, rows, tiny.LIMITS, 3), strict=True))
    assert nats / count == pytest.approx(outcome.validation_loss(outcome.best_step), rel=1e-6)


def test_states_on_one_base_are_those_on_a_fresh_base_each(advfusion):
    """Runs of every kind, one after another, twice: nothing of one is left for the next, the base is itself again."""
    ids = torch.arange(3, 33).view(2, 15)
    runs_of_seeds = [advfusion.members["lua"], advfusion.out, advfusion.members["ruby"]]
    wanted = [states.State("base"), *states.states(parameters(advfusion, runs_of_seeds))] * 2
    shared, _ = load_base(advfusion.base)
    for state in wanted:
        fresh, _ = load_base(advfusion.base)
        with states.loaded(shared, state) as a, states.loaded(fresh, state) as b, torch.no_grad():
            assert torch.equal(a(ids).logits, b(ids).logits)
    assert len({state.file for state in wanted}) == len(wanted) // 2


def test_advfusion_is_scored_after_both_phases_and_the_first_under_its_mask(advfusion):
    p = parameters(advfusion, [advfusion.out], "advfusion_exclude")
    scores = evaluated(p)
    assert list(comparison.by_state(scores)) == ["phase 1", "phase 2"]
    assert [state["phase"] for state in comparison.final(scores)] == ["phase2"]
    base, tokens = load_base(p.base)
    model = checkpoints.load_run(base, advfusion.out, "phase1")
    rows = tasks.read_rows(p.data, p.language, "test")
    losses = {}
    for masked in ([], ["lua"]):
        fusion_members(model, masked, "exclude")
        losses[len(masked)] = states.completion_losses(model, tokens, rows, tiny.LIMITS, 3)
    assert losses[0] != losses[1]
    losses[1] = [pytest.approx(pair, rel=1e-6) for pair in losses[1]]  # the evaluation folds the fusion
    assert [state["folded"] for state in scores["states"]] == [True, True]
    found = outcomes.read(p.out, scores["states"][0])
    assert [[row["nats"], row["tokens"]] for row in found] == losses[1]
    assert [row["id"] for row in found] == scores["ids"] == [row["id"] for row in rows]
    assert scores["states"][0]["scores"]["loss"]["statistics"] == losses[1]


def test_the_base_is_one_state_without_a_seed_and_rows_without_tests_have_no_pass_at_1(advfusion):
    scores = evaluated(parameters(advfusion, [], "base", limit=2))
    assert [(s["name"], s["seed"], s["run"]) for s in scores["states"]] == [("base", None, None)]
    assert scores["isolation"] is scores["not_executed"] is scores["states"][0]["execution"] is None
    assert "pass_at_1" not in scores["states"][0]["scores"] and len(scores["ids"]) == 2


def test_a_missing_runtime_is_told_in_the_scores(advfusion, monkeypatch):
    real = tasks.read_rows
    check = {"function": "solve", "tests": [{"args": [1], "expected": 1}]}
    monkeypatch.setattr(tasks, "read_rows", lambda *a: [row | {"check": check} for row in real(*a)])

    def require(language):
        raise UserError(f"{language} programs cannot be executed: no working `{language}` on the PATH")

    monkeypatch.setattr(execute.runtimes, "require", require)
    scores = evaluated(parameters(advfusion, [advfusion.members["lua"]], out="runs/evaluate/none-0000000006"))
    found = scores["states"][0]["scores"]["pass_at_1"]
    assert found["value"] is None and found["reason"] == scores["not_executed"]
    assert "no working `lua`" in found["reason"]
    assert "pass_at_1" not in comparison.shared_metrics([scores])


def test_a_checkpoint_of_another_base_is_refused(home, advfusion):
    other = parameters(advfusion, [advfusion.members["lua"]]).model_copy(update={"base": tiny.base_run(home, seed=1)})
    with pytest.raises(UserError, match="was trained on runs/base_model/tiny-0000000000, not on"):
        states.states(other)
