"""States: what is scored of a method, each as if it alone stood on the base, with the loss that training reports."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from studykit.data import rows as data_rows
from studykit.data.checks import Call, FunctionCheck
from studykit.errors import UserError
from studykit.evaluation import comparison, evaluate, samples, scoring, trained
from studykit.evaluation.execution import execute
from studykit.runs import files, store
from studykit.study.parameters import EvaluateParams
from studykit.training import fusions, generate, phases
from studykit.training.base import load_base
from studykit.training.train import train
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
        model = fusions.new_fusion(base, p)
        with store.open_run(p.out, stage="fusion", params=p) as run:
            assert len(list(phases.train_phases(model, tokens, p, tiny.LIMITS, run))) == 2
            fusions.save_members(run.path(), p.members)
            run.publish()
        return p


def parameters(p, runs_of_seeds: list[str], method: str = "bottleneck", **given) -> EvaluateParams:
    usual = {"max_new_tokens": 8, "batch_size": 3, "out": f"runs/evaluate/{method}-0000000005"}
    return EvaluateParams(base=p.base, data=p.data, trained_runs=runs_of_seeds, method=method, language=p.target,
                          seeds=list(range(len(runs_of_seeds))), **{**usual, **given})  # fmt: skip


def evaluated(p) -> dict:
    with store.open_run(p.out, stage="evaluate", params=p) as run:
        if not run.done:
            files.write_json(run.path("scores.json"), evaluate.evaluate(p, run))
            run.publish()
    return run.read_json("scores.json")


def test_the_loss_is_the_validation_loss_of_training(advfusion, tmp_path):
    base, tokens = load_base(advfusion.base)
    model = fusions.load_trained(base, advfusion.members["lua"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("mix_" in name or "lua" in name)
    rows = data_rows.read_rows(advfusion.data, "lua", "valid")
    valid = tiny.encode_rows(rows, tokens, *tiny.LIMITS)
    result, _ = train(model, tokens, valid, valid, advfusion, steps=2, trainer_state_dir=tmp_path, seed=0)
    nats, count = map(sum, zip(*trained.completion_losses(model, tokens, rows, tiny.LIMITS, 3), strict=True))
    assert nats / count == pytest.approx(result.validation_loss(), rel=1e-6)


def test_states_on_one_base_are_those_on_a_fresh_base_each(advfusion):
    """Runs of every kind, one after another, twice: nothing of one is left for the next, the base is itself again."""
    ids = torch.arange(3, 33).view(2, 15)
    runs_of_seeds = [advfusion.members["lua"], advfusion.out, advfusion.members["ruby"]]
    wanted = [trained.State("base"), *trained.states(parameters(advfusion, runs_of_seeds))] * 2
    shared, _ = load_base(advfusion.base)
    for state in wanted:
        fresh, _ = load_base(advfusion.base)
        with trained.loaded(shared, state) as a, trained.loaded(fresh, state) as b, torch.no_grad():
            assert torch.equal(a(ids).logits, b(ids).logits)
    assert len({state.file for state in wanted}) == len(wanted) // 2


def test_advfusion_is_scored_after_both_phases_and_the_first_under_its_mask(advfusion):
    p = parameters(advfusion, [advfusion.out], "advfusion_exclude")
    scores = evaluated(p)
    assert list(comparison.by_state(scores)) == ["phase 1", "phase 2"]
    assert [state["phase"] for state in comparison.final(scores)] == ["phase2"]
    base, tokens = load_base(p.base)
    model = fusions.load_trained(base, advfusion.out, "phase1")
    rows = data_rows.read_rows(p.data, p.language, "test")
    losses = {}
    for masked in ([], ["lua"]):
        fusion_members(model, masked, "exclude")
        losses[len(masked)] = trained.completion_losses(model, tokens, rows, tiny.LIMITS, 3)
    assert losses[0] != losses[1]
    losses[1] = [pytest.approx(pair, rel=1e-6) for pair in losses[1]]  # the evaluation folds the fusion
    assert [state["folded"] for state in scores["states"]] == [True, True]
    found = samples.read(p.out, scores["states"][0])
    assert [[row["nats"], row["tokens"]] for row in found] == losses[1]
    assert [row["id"] for row in found] == scores["ids"] == [row.id for row in rows]
    assert scores["states"][0]["scores"]["loss"]["statistics"] == losses[1]


def test_the_base_is_one_state_without_a_seed_and_rows_without_tests_have_no_pass_at_1(advfusion):
    scores = evaluated(parameters(advfusion, [], "base", limit=2))
    assert [(s["name"], s["seed"], s["run"]) for s in scores["states"]] == [("base", None, None)]
    assert scores["isolation"] is scores["not_executed"] is scores["states"][0]["execution"] is None
    assert "pass_at_1" not in scores["states"][0]["scores"] and len(scores["ids"]) == 2


def test_a_missing_runtime_is_told_in_the_scores(advfusion, monkeypatch):
    real = data_rows.read_rows
    check = FunctionCheck("solve", [Call([1], 1)])
    monkeypatch.setattr(data_rows, "read_rows", lambda *a: [replace(row, check=check) for row in real(*a)])

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
        trained.states(other)


def written(monkeypatch) -> list[int]:
    """How many completions each call of `generate` was asked for."""
    calls, real = [], generate.generate

    def spy(model, tokenizer, prompts, *args, **options):
        calls.append(len(prompts))
        return real(model, tokenizer, prompts, *args, **options)

    monkeypatch.setattr(generate, "generate", spy)
    return calls


def test_scoring_anew_takes_over_completions_that_would_be_written_the_same(advfusion, monkeypatch):
    """As when a metric has changed: the engine removes the manifest, and the code's digest is another."""
    p = parameters(advfusion, [advfusion.members["lua"]], out="runs/evaluate/again-0000000007")
    first = evaluated(p)
    place = files.home() / p.out
    assert (place / "predictions" / "s0.jsonl").exists()
    calls = written(monkeypatch)
    for file in ("manifest.json", store.COPY):
        (place / file).unlink()
    second = evaluated(p)
    assert sum(calls) == 2 * len(first["ids"])  # the batch check alone, each prompt singly and in a batch
    for state in (*first["states"], *second["states"]):
        del state["seconds"], state["batches"]
    assert first == second
    monkeypatch.setattr(evaluate.code_digest, "digest_modules", lambda *_: "the code that writes is another")
    for file in ("manifest.json", store.COPY):
        (place / file).unlink()
    evaluated(p)
    assert sum(calls) == 5 * len(first["ids"])


def test_a_killed_scoring_goes_on_with_the_next_state(advfusion, monkeypatch):
    p = parameters(advfusion, [advfusion.out], "advfusion_zero", out="runs/evaluate/kill-0000000008")
    real, calls = scoring.evaluate_predictions, []

    def fails_once(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(evaluate, "evaluate_predictions", fails_once)
    with pytest.raises(KeyboardInterrupt):
        evaluated(p)
    asked = written(monkeypatch)
    scores = evaluated(p)
    assert [state["phase"] for state in scores["states"]] == ["phase1", "phase2"] and len(calls) == 3
    assert asked[0] == 0  # all completions of the second state were there
    assert scores["states"][1]["batches"]["same"] == scores["states"][1]["batches"]["rows"]


def test_an_attempts_scores_are_made_again_when_an_input_was(advfusion, monkeypatch):
    """Half of the states scored, then their run is another one of the same name: nothing of it is certified."""
    p = parameters(advfusion, [advfusion.out], "advfusion_zero", out="runs/evaluate/stale-0000000011")
    real, calls = scoring.evaluate_predictions, []

    def scored(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(evaluate, "evaluate_predictions", scored)
    with pytest.raises(KeyboardInterrupt):
        evaluated(p)
    file = files.home() / advfusion.out / "manifest.json"
    before = file.read_text()
    file.write_text(before + "\n")  # made again
    asked = written(monkeypatch)
    evaluated(p)
    file.write_text(before)
    assert len(calls) == 4 and asked[0] > 0


@pytest.mark.parametrize("left", ['{"settings": {"device": "another"}}\n{"key": 1}\n', '{"settings": {', "", "\0" * 9])
def test_completions_of_other_settings_or_torn_ones_are_written_again_by_the_same_command(advfusion, left):
    p = parameters(advfusion, [advfusion.members["lua"]], out="runs/evaluate/torn-0000000012", limit=2)
    whole = evaluated(p.model_copy(update={"out": "runs/evaluate/whole-0000000012"}))
    with pytest.raises(KeyboardInterrupt):
        with store.open_run(p.out, stage="evaluate", params=p) as run:
            (run.checkpoints / "s0.jsonl").write_text(left)
            raise KeyboardInterrupt
    found = evaluated(p)
    assert found["states"][0]["scores"] == whole["states"][0]["scores"]
    for file in ("manifest.json", store.COPY):
        (files.home() / p.out / file).unlink()


def test_samples_are_drawn_scored_and_kept(advfusion):
    p = parameters(advfusion, [advfusion.members["lua"]], out="runs/evaluate/draw-0000000009", samples=3,
                   temperature=0.8, top_p=0.95, limit=2)  # fmt: skip
    scores = evaluated(p)
    found = samples.read(p.out, scores["states"][0])
    assert [(row["id"], row["sample"]) for row in found] == [(x, i) for x in scores["ids"] for i in range(3)]
    assert scores["settings"]["decoding"] == "sampling" and scores["settings"]["temperature"] == 0.8
    assert scores["states"][0]["scores"]["bleu_paper"]["n"] == 2 and scores["states"][0]["counts"]["n"] == 6


@pytest.mark.parametrize("given, said", [
    ({"samples": 3}, "samples is 3, temperature is 0"),
    ({"pass_k": [2]}, r"pass_k holds 2; it may hold numbers from 1 to samples \(1\)"),
])  # fmt: skip
def test_draws_that_cannot_be_are_refused(advfusion, given, said):
    with pytest.raises(ValueError, match=said):
        parameters(advfusion, [], "base", **given)
