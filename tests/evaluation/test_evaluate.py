"""Evaluation: each checkpoint is scored as if it were alone on the base, and nothing is generated or lost twice."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from studykit.data import rows as data_rows
from studykit.data.checks import Call, FunctionCheck
from studykit.errors import UserError
from studykit.evaluation import behaviour, comparison, edits, evaluate, instruments, scoring, trained
from studykit.evaluation.execution import execute
from studykit.evaluation.samples import read_samples
from studykit.evaluation.scores import EvaluationScores, read_scores
from studykit.runs import files, store
from studykit.study.parameters import EvaluateParams
from studykit.study.templates import TEMPLATES
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
    usual = {"max_new_tokens": 8, "batch_size": 3, "calibrate": 0, "out": f"runs/evaluate/{method}-0000000005"}
    return EvaluateParams(base=p.base, data=p.data, trained_runs=runs_of_seeds, method=method, language=p.target,
                          seeds=list(range(len(runs_of_seeds))), **{**usual, **given})  # fmt: skip


def evaluated(p) -> EvaluationScores:
    with store.open_run(p.out, stage="evaluate", params=p) as run:
        if not run.done:
            scores = evaluate.evaluate_method(p, run)
            files.write_json(run.path("scores.json"), scores.model_dump(mode="json"))
            run.publish()
    return read_scores(run.dir)


def test_the_loss_is_the_validation_loss_of_training(advfusion, tmp_path):
    base, tokens = load_base(advfusion.base)
    model = fusions.load_trained(base, advfusion.members["lua"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("mix_" in name or "lua" in name)
    rows = data_rows.DataRun(advfusion.data).rows("lua", "valid")
    valid = tiny.encode_rows(rows, tokens, *tiny.LIMITS)
    result, _ = train(model, tokens, valid, valid, advfusion, steps=2, trainer_state_dir=tmp_path, seed=0)
    nats, count = map(sum, zip(*evaluate.reference_losses(model, tokens, rows, tiny.LIMITS, 3), strict=True))
    assert nats / count == pytest.approx(result.validation_loss(), rel=1e-6)


def test_checkpoints_on_one_base_are_those_on_a_fresh_base_each(advfusion):
    """Runs of every kind, one after another, twice: nothing of one is left for the next, the base is itself again."""
    ids = torch.arange(3, 33).view(2, 15)
    runs_of_seeds = [advfusion.members["lua"], advfusion.out, advfusion.members["ruby"]]
    p = parameters(advfusion, runs_of_seeds)
    checkpoints = [trained.EvaluatedCheckpoint("base"), *trained.evaluated_checkpoints(p)] * 2
    shared, _ = load_base(advfusion.base)
    for checkpoint in checkpoints:
        fresh, _ = load_base(advfusion.base)
        with trained.loaded(shared, checkpoint) as a, trained.loaded(fresh, checkpoint) as b, torch.no_grad():
            assert torch.equal(a(ids).logits, b(ids).logits)
    assert len({checkpoint.file_stem for checkpoint in checkpoints}) == len(checkpoints) // 2


def test_advfusion_is_scored_after_phase_1_under_its_mask_and_restored_and_after_phase_2(advfusion):
    p = parameters(advfusion, [advfusion.out], "advfusion_exclude")
    scores = evaluated(p)
    assert list(scores.by_name) == ["phase 1", "phase 1, restored", "phase 2"]
    assert [checkpoint.phase for checkpoint in scores.final] == ["phase2"]
    base, tokens = load_base(p.base)
    model = fusions.load_trained(base, advfusion.out, "phase1")
    rows = data_rows.DataRun(p.data).rows(p.language, "test")
    losses = {}
    for masked in ([], ["lua"]):
        fusion_members(model, masked, "exclude")
        losses[len(masked)] = evaluate.reference_losses(model, tokens, rows, tiny.LIMITS, 3)
    assert losses[0] != losses[1]
    assert [checkpoint.folded for checkpoint in scores.checkpoints] == [True, True, True]
    for checkpoint, masked in zip(scores.checkpoints[:2], (1, 0), strict=True):
        losses[masked] = [pytest.approx(pair, rel=1e-6) for pair in losses[masked]]  # the evaluation folds the fusion
        samples = read_samples(p.out, checkpoint)
        assert [(sample.nats, sample.tokens) for sample in samples] == losses[masked]
    assert [sample.id for sample in samples] == scores.ids == [row.id for row in rows]
    assert [tuple(row) for row in scores.score("loss").statistics] == losses[1]


def test_the_base_is_one_checkpoint_without_a_seed_and_rows_without_tests_have_no_pass_at_1(advfusion):
    scores = evaluated(parameters(advfusion, [], "base", limit=2))
    (checkpoint,) = scores.checkpoints
    assert (checkpoint.name, checkpoint.seed, checkpoint.run) == ("base", None, None)
    assert scores.isolation is scores.not_executed is checkpoint.execution is None
    assert "pass_at_1" not in checkpoint.scores and len(scores.ids) == 2


def test_a_missing_runtime_is_told_in_the_scores(advfusion, monkeypatch):
    real = data_rows.DataRun.rows
    check = FunctionCheck("solve", [Call([1], 1)])
    monkeypatch.setattr(data_rows.DataRun, "rows", lambda *a: [replace(row, check=check) for row in real(*a)])

    def require(language):
        raise UserError(f"{language} programs cannot be executed: no working `{language}` on the PATH")

    monkeypatch.setattr(execute.runtimes, "require", require)
    scores = evaluated(parameters(advfusion, [advfusion.members["lua"]], out="runs/evaluate/none-0000000006"))
    score = scores.score("pass_at_1")
    assert score.value is None and score.reason == scores.not_executed
    assert "no working `lua`" in score.reason
    assert "pass_at_1" not in comparison.shared_metrics([scores])


def test_a_checkpoint_of_another_base_is_refused(home, advfusion):
    other = parameters(advfusion, [advfusion.members["lua"]]).model_copy(update={"base": tiny.base_run(home, seed=1)})
    with pytest.raises(UserError, match="was trained on runs/base_model/tiny-0000000000, not on"):
        trained.evaluated_checkpoints(other)


def timeless(scores: EvaluationScores) -> dict:
    """The scores without everything that a clock measured."""
    content = scores.model_dump()
    for checkpoint in content["checkpoints"]:
        del checkpoint["seconds"], checkpoint["batches"]
    return content


def written(monkeypatch) -> list[int]:
    """How many completions each call of `generate` was asked for."""
    calls, real = [], generate.generate

    def spy(model, tokenizer, prompts, *args, **options):
        calls.append(len(prompts))
        return real(model, tokenizer, prompts, *args, **options)

    monkeypatch.setattr(generate, "generate", spy)
    return calls


def test_scoring_anew_takes_over_completions_that_would_be_written_the_same(advfusion, monkeypatch):
    """As when a metric has changed: the command removes the manifest, and the code's digest is another."""
    p = parameters(advfusion, [advfusion.members["lua"]], out="runs/evaluate/again-0000000007")
    first = evaluated(p)
    place = files.home() / p.out
    assert (place / "predictions" / "s0.jsonl").exists()
    calls = written(monkeypatch)
    for file in ("manifest.json", store.COPY):
        (place / file).unlink()
    second = evaluated(p)
    assert sum(calls) == 2 * len(first.ids)  # the batch check alone, each prompt singly and in a batch
    assert timeless(first) == timeless(second)
    monkeypatch.setattr(evaluate.code_digest, "digest_modules", lambda *_: "the code that writes is another")
    for file in ("manifest.json", store.COPY):
        (place / file).unlink()
    evaluated(p)
    assert sum(calls) == 5 * len(first.ids)


def test_a_killed_scoring_goes_on_with_the_next_checkpoint(advfusion, monkeypatch):
    p = parameters(advfusion, [advfusion.out], "advfusion_zero", out="runs/evaluate/kill-0000000008")
    real, calls = scoring.score_predictions, []

    def fails_once(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(instruments, "score_predictions", fails_once)
    with pytest.raises(KeyboardInterrupt):
        evaluated(p)
    asked = written(monkeypatch)
    scores = evaluated(p)
    assert [checkpoint.phase for checkpoint in scores.checkpoints] == ["phase1", "phase1", "phase2"] and len(calls) == 4
    assert asked[0] == 0  # all completions of the second checkpoint were there
    assert scores.checkpoints[-1].batches.same == scores.checkpoints[-1].batches.rows


def test_an_attempts_scores_are_made_again_when_an_input_was(advfusion, monkeypatch):
    """Half of the checkpoints scored, then their run is another one of the same name: nothing of it is certified."""
    p = parameters(advfusion, [advfusion.out], "advfusion_zero", out="runs/evaluate/stale-0000000011")
    real, calls = scoring.score_predictions, []

    def scored(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(instruments, "score_predictions", scored)
    with pytest.raises(KeyboardInterrupt):
        evaluated(p)
    file = files.home() / advfusion.out / "manifest.json"
    before = file.read_text()
    file.write_text(before + "\n")  # made again
    asked = written(monkeypatch)
    evaluated(p)
    file.write_text(before)
    assert len(calls) == 5 and asked[0] > 0


@pytest.mark.parametrize("left", ['{"settings": {"device": "another"}}\n{"key": 1}\n', '{"settings": {', "", "\0" * 9])
def test_completions_of_other_settings_or_torn_ones_are_written_again_by_the_same_command(advfusion, left):
    p = parameters(advfusion, [advfusion.members["lua"]], out="runs/evaluate/torn-0000000012", limit=2)
    whole = evaluated(p.model_copy(update={"out": "runs/evaluate/whole-0000000012"}))
    with pytest.raises(KeyboardInterrupt):
        with store.open_run(p.out, stage="evaluate", params=p) as run:
            (run.checkpoints / "s0.jsonl").write_text(left)
            raise KeyboardInterrupt
    found = evaluated(p)
    assert found.checkpoints[0].scores == whole.checkpoints[0].scores
    for file in ("manifest.json", store.COPY):
        (files.home() / p.out / file).unlink()


def test_samples_are_drawn_scored_and_kept(advfusion):
    p = parameters(advfusion, [advfusion.members["lua"]], out="runs/evaluate/draw-0000000009", samples=3,
                   temperature=0.8, top_p=0.95, limit=2)  # fmt: skip
    scores = evaluated(p)
    samples = read_samples(p.out, scores.checkpoints[0])
    assert [(sample.id, sample.sample) for sample in samples] == [(x, i) for x in scores.ids for i in range(3)]
    assert scores.settings["decoding"] == "sampling" and scores.settings["temperature"] == 0.8
    assert scores.score("bleu_paper").n == 2 and scores.checkpoints[0].counts.n == 6


def test_messages_are_scored_by_meaning_and_the_scores_calibrated(advfusion, home):
    place, limits = home / "runs/data/commits-0000000013", {"max_prompt_tokens": 300, "max_target_tokens": 24}
    rows = [edit.row for edit in edits.edits("lua", 4, TEMPLATES["commit"])]
    data_rows.write_rows(place / "rows", {"lua": {"test": rows}})
    params = {"task": "commit", "language": "", "path": "x", "template": None, "seed": 0, **limits}
    (home / "judge.py").write_text(
        "import json, sys\nfor line in sys.stdin: print(json.dumps({'id': json.loads(line)['id'], 'verdict': 'tie'}))"
    )
    given = {"identification": 2, "calibrate": 5, "judge": f"{sys.executable} judge.py"}
    out = "runs/evaluate/meaning-0000000014"
    p = parameters(advfusion, [], "base", out=out, **given).model_copy(
        update={"data": tiny.finish(home, place, params)}
    )
    scores = evaluated(p)
    meaning = ("names_touched", "names_real", "verb", "direction", "identification", "judge")
    assert set(meaning) < set(comparison.shared_metrics([scores])) and "pass_at_1" not in scores.final[0].scores
    assert scores.score("identification").n == 4 and "among:3" in scores.score("identification").signature
    calibrated = {one.metric for one in scores.calibration}
    assert {*meaning, "b_norm"} - calibrated == {"judge"} and "loss" not in calibrated
    asked = (home / out / "judge" / "questions.jsonl").read_text().splitlines()
    answered = (home / out / "judge" / "answers.jsonl").read_text().splitlines()
    assert len(answered) == len({line.split('"')[3] for line in asked}) == 4  # none of them for the calibration
    (home / "judge.py").write_text("raise SystemExit('asked again')")
    for file in ("manifest.json", store.COPY):
        (home / out / file).unlink()
    assert timeless(evaluated(p)) == timeless(scores)


@pytest.mark.parametrize("key", ["judge", "embedding"])
def test_a_misspelt_judge_or_model_is_refused_before_anything_is_generated(advfusion, monkeypatch, key):
    asked = written(monkeypatch)
    p = parameters(advfusion, [], "base", out="runs/evaluate/misspelt-0000000015", **{key: "no-such-word"})
    monkeypatch.setattr(data_rows.DataRun, "are_programs", lambda *_: False)
    with pytest.raises(UserError, match=f"evaluate.{key}.*no-such-word|no-such-word.*evaluate.{key}"):
        evaluated(p)
    assert not asked


@pytest.mark.skipif(not execute.runtimes.find("python"), reason="no python here")
def test_translations_without_tests_are_run_and_the_scores_say_how_they_were_isolated(advfusion, home, monkeypatch):
    place, limits = home / "runs/data/translations-0000000015", {"max_prompt_tokens": 24, "max_target_tokens": 24}
    targets = ["print(1)", "import os; print(os.urandom(9))", "print(3)"]
    rows = [data_rows.Row(f"{i}", "python", f"translate {i}\n", target) for i, target in enumerate(targets)]
    data_rows.write_rows(place / "rows", {"python": {"test": rows}})
    params = {"task": "translation", "language": "", "path": "x", "template": None, "seed": 0, **limits}
    given = {"allow_unsandboxed": True, "timeout": 10, "out": "runs/evaluate/translated-0000000016"}
    of_data = {"data": tiny.finish(home, place, params), "language": "python"}
    p = parameters(advfusion, [], "base", **given).model_copy(update=of_data)
    scores = evaluated(p)
    assert scores.isolation == execute.isolation(True) and scores.final[0].execution is None
    score = scores.score("behaviour")
    assert score.rows == [0, 2] and f"|isolation:{scores.isolation}|" in score.signature
    assert "pass_at_1" not in scores.final[0].scores and scores.not_executed is None
    unstable = p.model_copy(update={"out": "runs/evaluate/unstable-0000000016"})
    monkeypatch.setattr(behaviour, "reference_outputs", lambda *_: pytest.fail("the references are run again"))
    assert evaluated(unstable).score("behaviour").rows == [0, 2]
    none = evaluated(p.model_copy(update={"execute": ["lua"], "out": "runs/evaluate/unrun-0000000016"}))
    assert none.isolation is None and "does not name python" in none.score("behaviour").reason


@pytest.mark.parametrize("given, said", [
    ({"samples": 3}, "samples is 3, temperature is 0"),
    ({"pass_k": [2]}, r"pass_k holds 2; it may hold numbers from 1 to samples \(1\)"),
])  # fmt: skip
def test_draws_that_cannot_be_are_refused(advfusion, given, said):
    with pytest.raises(ValueError, match=said):
        parameters(advfusion, [], "base", **given)
