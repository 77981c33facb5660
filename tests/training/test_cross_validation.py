"""Laws of cross-validation: folds choose a step, and the training on all rows is the usual one until that step."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import TrainerCallback

from studykit.data import overview, prepare
from studykit.data.rows import DataRun
from studykit.errors import UserError
from studykit.runs import store
from studykit.study.parameters import DataParams
from studykit.study.training_parameters import WITHOUT_FOLD, AdapterParams
from studykit.training import adapters, fusions, phases, trainer
from studykit.training.base import load_base
from studykit.training.cross_validation import chosen_step, fold_curve
from studykit.training.result import TrainingResult
from studykit.training.train import train
from tests import tiny


def curve(losses: dict[int, float]) -> list:
    return [{"step": step, "eval_loss": loss, "eval_sequence_loss": 2 * loss} for step, loss in losses.items()]


def fold_run(home, number: int, losses: dict[int, float], phase: str = "") -> str:
    """A finished run with only what its training measured."""
    place = home / "runs/fusion" / f"fold-{number:010d}"
    (place / phase).mkdir(parents=True, exist_ok=True)
    TrainingResult(curve(losses), 0, 0, 0.0, 0.0, 0, 0.0).write(place / phase / "training.json")
    return place.as_posix()


def test_a_curve_is_the_mean_over_the_folds_at_the_steps_that_all_have_reached(home):
    runs = [fold_run(home, 1, {0: 4.0, 2: 2.0, 4: 1.0, 6: 0.1}), fold_run(home, 2, {0: 4.0, 2: 1.0, 4: 3.0})]
    found = fold_curve(runs)
    assert [(e["step"], e["eval_loss"], e["eval_sequence_loss"]) for e in found] == [(0, 4, 8), (2, 1.5, 3), (4, 2, 4)]
    assert [chosen_step(found, keep, "loss") for keep in ("best", "best_after_start", "last")] == [2, 2, 4]
    rising = curve({0: 1.0, 2: 2.0, 4: 2.0})
    assert [chosen_step(rising, keep, "loss") for keep in ("best", "best_after_start")] == [0, 2]
    assert fold_curve([]) == fold_curve(None) == []


@pytest.mark.parametrize("best", [0, 4])
def test_the_training_on_all_rows_is_the_usual_one_until_the_chosen_step(home, best):
    """Bit for bit, with the schedule of all steps; given again, it only reads what it had done."""
    p = tiny.fusion_params(home, method="adapterfusion", mask="none", steps=4, keep="last")  # 8 steps in its phase
    weights: dict[int, dict] = {}

    class Keep(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            weights[state.global_step] = {n: w.clone() for n, w in trainer.trained_weights(model).items()}

    def trained(p, callbacks=()):
        base, tokens = load_base(p.base)
        model = fusions.new_fusion(base, p)
        weights.setdefault(0, {n: w.clone() for n, w in trainer.trained_weights(model).items()})
        with store.open_run(p.out, stage="fusion", params=p) as run:
            ((_, result),) = phases.train_phases(model, tokens, p, tiny.LIMITS, run, callbacks)
        return trainer.trained_weights(model), result

    trained(p, [Keep()])
    steps = {step: abs(step - best) + 1.0 for step in (0, 2, 4, 6, 8)}
    folds = [fold_run(home, n, steps, "fusion") for n in (1, 2, 3)]
    ended = p.model_copy(update={"steps_from": folds, "keep": "best", "patience": 1, "out": "runs/fusion/c-0000000009"})
    for _ in range(2):
        now, result = trained(ended)
        assert all(torch.equal(weights[best][name], now[name]) for name in now) and result.steps == best
        assert {e["step"]: e["eval_loss"] for e in result.evaluations} == steps and result.best_step == best
        assert not best or any("loss" in entry for entry in result.log)
        assert result.validation_loss() == 1.0


def test_the_rows_of_a_fold_choose_the_steps_of_what_is_trained_without_them(home):
    p = tiny.fusion_params(home, seed=1, phase1_data="all")
    tiny.finish(home, home / p.data, DataRun(p.data).params | {"valid": "k_fold", "target": "lua"})
    everything = {row.id for row in DataRun(p.data).rows("lua", "train")}
    assert {row.id for row in DataRun(p.data).rows("lua", "valid")} == everything, "there are no others"
    assert not {row.id for row in DataRun(p.data).rows("ruby", "valid")} & {
        row.id for row in DataRun(p.data).rows("ruby", "train")
    }
    left_out = []
    for fold, rows in enumerate(WITHOUT_FOLD, 1):
        own = AdapterParams(base=p.base, data=p.data, language="lua", rows=rows, seed=1)
        chooses, judges = adapters.selecting_rows(own)
        train_ids = {row.id for row in adapters.training_rows(own)}
        of_fold = p.model_copy(update={"fold": fold})
        with pytest.raises(UserError, match=f"fold is {fold}, but .* a member with rows: {rows} and seed 1 is needed"):
            phases.phase_rows(of_fold, ["lua"])
        member = tiny.finish(home, home / f"runs/adapter/lua-{fold:010d}", {"rows": rows, "seed": 1})
        of_fold = of_fold.model_copy(update={"members": p.members | {"lua": member}})
        ids = {row.id for row in chooses}
        assert not judges and {row.id for row in phases.selecting_rows(of_fold)} == ids
        assert train_ids == {row.id for row in phases.phase_rows(of_fold, ["lua"])} == everything - ids
        assert len(phases.phase_rows(of_fold, ["lua", "ruby"])) == len(train_ids) + 8
        left_out += ids
    assert sorted(left_out) == sorted(everything)


def test_rows_of_a_cross_validated_target_have_no_validation_rows():
    sizes = {"source_examples": 6, "target_examples": 6, "valid_examples": 3, "test_examples": 3}
    p = DataParams(members=["python", "lua"], target="lua", valid="k_fold", **sizes)
    rows, manifest = prepare.prepare(p)
    assert [len(rows[x]["valid"]) for x in p.members] == [3, 0] and manifest.splits["lua"]["valid"] == 0
    assert overview.overview(rows, tiny.tokenizer(), p)["headline"]["rows"] == 6 + 6 + 3 + 2 * 3
    usual, _ = prepare.prepare(p.model_copy(update={"valid": "rows"}))
    assert usual["lua"]["train"] == rows["lua"]["train"] and usual["lua"]["test"] == rows["lua"]["test"]


def test_files_need_no_validation_rows_of_a_cross_validated_target(home):
    for language in ("python", "lua"):
        for split, first in {"train": 0, "valid": 10, "test": 20}.items():
            if (language, split) != ("lua", "valid"):
                file = home / "mine" / language / f"{split}.jsonl"
                file.parent.mkdir(parents=True, exist_ok=True)
                rows = [{"prompt": f"p{i} {language}\n", "target": f"t{i}"} for i in range(first, first + 3)]
                file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    p = DataParams(members=["python", "lua"], target="lua", valid="k_fold", path="mine")
    assert prepare.prepare(p)[1].splits["lua"] == {"train": 3, "valid": 0, "test": 3}
    with pytest.raises(UserError, match="no rows for validation for lua; with data.valid: k_fold it needs none"):
        prepare.prepare(p.model_copy(update={"valid": "rows"}))


def test_a_training_ends_at_a_step_between_two_looks_if_the_folds_ended_there(home):
    tokens = tiny.tokenizer()
    model = adapters.new_adapter(tiny.base_model(tokens), AdapterParams(language="lua", reduction_factor=4))
    settings = AdapterParams(precision="fp32", learning_rate=1e-2, eval_every=2, batch_size=4)
    examples = tiny.examples(tokens, 8)
    result, _ = train(
        model, tokens, examples, examples, settings, steps=6, trainer_state_dir=home, seed=0,
        curve=curve({0: 3.0, 2: 2.0, 3: 1.0}),
    )  # fmt: skip
    assert (result.steps, result.best_step) == (3, 3)
