"""Training: both losses, exact accumulation, the penalty on W_v, and a killed run that ends as if it had not been."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from studykit.errors import Interrupted, UserError
from studykit.runs import files
from studykit.study.training_parameters import AdapterParams
from studykit.training import batches, trainer
from studykit.training.adapters import new_adapter
from studykit.training.batches import Collator
from studykit.training.generate import complete
from studykit.training.train import TrainingSettings, last_checkpoint, train
from studykit.training.trainer import Patience, trained_weights
from studykit.tuners import FusionConfig, fusion_layers, value_deviation
from tests import tiny
from tests.tuners import models

USUAL = {"learning_rate": 1e-2, "batch_size": 4, "eval_every": 4, "precision": "fp32"}
# Another language's rows: what is learned helps them at first, and then no more.
IMPATIENT = {"steps": 60, "eval_every": 2, "patience": 2, "n": 4, "learning_rate": 0.1, "valid": "python"}


@pytest.fixture(scope="module")
def tokens():
    return tiny.tokenizer()


def adapter(tokens, method: str = "bottleneck"):
    """A tiny base with a fresh adapter; lora's has a dropout, so that its training draws random numbers."""
    return new_adapter(tiny.base_model(tokens), AdapterParams(language="lua", method=method, reduction_factor=4))


def fusion(tokens):
    model = adapter(tokens)
    model.add_adapter("fusion", FusionConfig(members=["lua"], task_type="CAUSAL_LM"))
    model.set_adapter("fusion")
    return model


def wide_fusion(tokens):
    """A fusion with matrices of 4096 entries, the fewest of which bitsandbytes keeps adam_state in 8 bits."""
    special = {"pad_token_id": tokens.pad_token_id, "eos_token_id": tokens.eos_token_id, "bos_token_id": None}
    base = models.tiny(hidden_size=64, vocab_size=len(tokens), **special).requires_grad_(False)
    model = new_adapter(base, AdapterParams(language="lua", reduction_factor=4))
    model.add_adapter("fusion", FusionConfig(members=["lua"], task_type="CAUSAL_LM"))
    model.set_adapter("fusion")
    return model


def run(
    model, tokens, checkpoints, steps=8, n=10, value_regularizer=0.0, adam_state=None, seed=0, valid="lua", **settings
):
    p = TrainingSettings(**USUAL | settings)
    train_rows, valid_rows = tiny.examples(tokens, n), tiny.examples(tokens, 5, valid, first=n)
    return train(model, tokens, train_rows, valid_rows, p, steps=steps, trainer_state_dir=checkpoints, seed=seed,
                 value_regularizer=value_regularizer, adam_state=adam_state)  # fmt: skip


def weights(model) -> dict:
    return {name: weight.clone() for name, weight in trained_weights(model).items()}


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Kill(TrainerCallback):
    """The end of a process: after a step, or in the middle of writing a checkpoint."""

    def __init__(self, step: int, at: str = "on_step_end"):
        self.step, self.at = step, at

    def on_step_end(self, args, state, control, **kwargs):
        if self.at == "on_step_end" and state.global_step == self.step:
            raise KeyboardInterrupt

    def on_save(self, args, state, control, **kwargs):
        if self.at == "on_save" and state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def killed(monkeypatch):
    """Runs `work` with a kill in it."""

    def with_kill(work, *kill):
        init = trainer.StudyTrainer.__init__

        def patched(self, *args, callbacks, **kwargs):
            init(self, *args, callbacks=[*callbacks, Kill(*kill)], **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(trainer.StudyTrainer, "__init__", patched)
            with pytest.raises(Interrupted, match="Stopped at step .*; run this cell again to go on."):
                work()

    return with_kill


def test_the_loss_falls_and_both_losses_are_logged(tokens, tmp_path):
    result, _ = run(adapter(tokens), tokens, tmp_path, steps=20, eval_every=5, learning_rate=0.1)
    looks = [row for row in result.log if "eval_loss" in row]
    assert [row["step"] for row in looks] == [0, 5, 10, 15, 20]
    assert all("eval_sequence_loss" in row for row in looks)
    assert looks[-1]["eval_loss"] < looks[0]["eval_loss"] / 2
    assert result.steps == 20 and result.best_step in (5, 10, 15, 20)
    assert {"loss", "learning_rate", "grad_norm"} <= {key for row in result.log for key in row}


def test_an_adapter_trains_alone(tokens, tmp_path):
    model = adapter(tokens)
    before = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    result, _ = run(model, tokens, tmp_path)
    assert result.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert equal({name: p for name, p in model.named_parameters() if not p.requires_grad}, before)


def test_evaluation_is_the_mean_over_tokens_not_over_batches(tokens, tmp_path):
    model, rows = adapter(tokens), tiny.examples(tokens, 5, first=10)
    result, _ = run(model, tokens, tmp_path, batch_size=1)
    totals = {"labels": [0.0, 0], "input_ids": [0.0, 0]}
    fresh = adapter(tokens).eval()
    for row in rows:
        logits = fresh(torch.tensor([row["input_ids"]])).logits[0, :-1].log_softmax(-1)
        for key, total in totals.items():
            for t, label in enumerate(row[key][1:]):
                if label != -100:
                    total[0] -= logits[t, label].item()
                    total[1] += 1
    first = result.log[0]
    assert first["eval_loss"] == pytest.approx(totals["labels"][0] / totals["labels"][1], rel=1e-4)
    assert first["eval_sequence_loss"] == pytest.approx(totals["input_ids"][0] / totals["input_ids"][1], rel=1e-4)


@pytest.mark.parametrize("loss_on", ["completion", "sequence"])
def test_loss_on_says_which_tokens_train(tokens, tmp_path, loss_on):
    rows = tiny.examples(tokens, 4)
    batch = Collator(tokens.pad_token_id, loss_on)(rows)
    prompt = torch.tensor([[label == -100 for label in row["labels"]][:4] for row in rows])
    assert (batch["labels"][:, 1:4][prompt[:, 1:4]] == -100).all() == (loss_on == "completion")
    assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()
    result, _ = run(adapter(tokens), tokens, tmp_path, loss_on=loss_on, n=4, eval_every=1, learning_rate=1e-6)
    other = {"completion": "eval_loss", "sequence": "eval_sequence_loss"}[loss_on]
    model = adapter(tokens).eval()
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten())
    assert next(row["loss"] for row in result.log if "loss" in row) == pytest.approx(expected.item(), rel=1e-3)
    assert other in result.log[0]


def test_two_times_four_is_eight(tokens, tmp_path):
    """Accumulated gradients are those of the whole batch, though its parts differ in length; one penalty for all."""
    made = {}
    for batch, accumulation in ((8, 1), (4, 2), (2, 4)):
        model = fusion(tokens)
        result, adam_state = run(model, tokens, tmp_path / str(batch), n=8, steps=3, eval_every=3, value_regularizer=0.1,
                               batch_size=batch, gradient_accumulation=accumulation)  # fmt: skip
        first = {name: state["exp_avg"] for name, state in adam_state.items()}
        made[batch] = (weights(model), first, [row["loss"] for row in result.log if "loss" in row])
    for batch in (4, 2):
        for mine, theirs in zip(made[batch][:2], made[8][:2], strict=True):
            for name in theirs:
                torch.testing.assert_close(mine[name], theirs[name], rtol=1e-3, atol=2e-5)
        assert made[batch][2] == pytest.approx(made[8][2], rel=1e-4)


@pytest.mark.parametrize("method, kill", [("bottleneck", 2), ("bottleneck", 7), ("bottleneck", 10), ("lora", 6)])
def test_a_killed_run_ends_bit_for_bit_like_another(tokens, tmp_path, killed, method, kill):
    """Kills before the first checkpoint, between two and at the border of an epoch (3 steps); dropout draws on."""
    whole = adapter(tokens, method)
    expected, adam_state = run(whole, tokens, tmp_path / "whole", steps=12, eval_every=3, n=12)
    killed(lambda: run(adapter(tokens, method), tokens, tmp_path / "cut", steps=12, eval_every=3, n=12), kill)
    torch.manual_seed(99)
    resumed = adapter(tokens, method)
    result, found = run(resumed, tokens, tmp_path / "cut", steps=12, eval_every=3, n=12)
    assert equal(weights(resumed), weights(whole))
    assert result.log == expected.log
    assert (result.best_step, result.steps) == (expected.best_step, expected.steps)
    assert all(equal(found[name], adam_state[name]) for name in adam_state)


def test_a_killed_run_is_patient_for_as_long_as_another(tokens, tmp_path, killed):
    def work(place):
        model = adapter(tokens)
        result, _ = run(model, tokens, tmp_path / place, **IMPATIENT)
        return result, weights(model)

    expected, best = work("whole")
    assert expected.steps == expected.best_step + 2 * 2 < 60
    killed(lambda: work("cut"), expected.steps - 1)
    result, found = work("cut")
    assert result.log == expected.log and result.best_step == expected.best_step and equal(found, best)


def test_a_run_that_had_ended_takes_no_further_step(tokens, tmp_path, killed):
    def work():
        model = adapter(tokens)
        return *run(model, tokens, tmp_path, steps=6, eval_every=2, n=10), weights(model)

    killed(work, 6, "on_save")
    first = work()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    second = work()
    assert first[0].log == second[0].log and first[0].steps == second[0].steps == 6
    assert equal(first[2], second[2])
    assert all(equal(first[1][name], second[1][name]) for name in first[1])
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_bf16_is_of_the_training_and_its_losses_alone(tokens, tmp_path):
    """What is computed with the model afterwards is in its own numbers, whether the training ran here or had ended."""
    judged, seen = TrainingSettings(**USUAL | {"precision": "bf16"}), []

    def used(model) -> list:
        hook = model.get_submodule("base_model.model.model.layers.0.mlp").register_forward_hook(
            lambda module, given, got: seen.append(got.dtype)
        )
        seen.clear()
        with torch.no_grad():
            model(input_ids=torch.arange(5, 12)[None])
        hook.remove()
        return list(seen)

    def work() -> tuple:
        model = adapter(tokens)
        result, _ = run(model, tokens, tmp_path / "here", steps=4, precision="bf16", keep="last")
        rows = tiny.examples(tokens, 5, first=10)
        untrained, _ = train(model, tokens, [], rows, judged, steps=0, trainer_state_dir=tmp_path / "judged", seed=0)
        return result, untrained.validation_loss(0), used(model)

    (first, judge, numbers), (second, again, same) = work(), work()
    assert first.precision == second.precision == "bf16" and numbers == same == [torch.float32]
    assert first.log == second.log and judge == again
    assert judge == [entry["eval_loss"] for entry in first.log if "eval_loss" in entry][-1]


def test_an_untrained_bf16_loss_is_that_of_the_first_step(tokens, tmp_path):
    model = adapter(tokens)
    settings = TrainingSettings(**USUAL | {"precision": "bf16"})
    rows = tiny.examples(tokens, 5, first=10)
    alone, _ = train(model, tokens, [], rows, settings, steps=0, trainer_state_dir=tmp_path / "a", seed=0)
    result, _ = run(model, tokens, tmp_path / "b", steps=4, precision="bf16")
    assert alone.validation_loss(0) == result.validation_loss(0)


def test_a_torn_checkpoint_is_passed_over(tokens, tmp_path, killed):
    whole = adapter(tokens)
    run(whole, tokens, tmp_path / "whole")
    killed(lambda: run(adapter(tokens), tokens, tmp_path / "cut"), 7)
    for number, state in ((5, None), (6, '{"global_step"')):
        torn = tmp_path / f"cut/checkpoint-{number}"
        torn.mkdir()
        (torn / trainer.TRAINED_WEIGHTS_FILE).write_bytes(b"half")
        if state:
            (torn / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path / "cut").name == "checkpoint-4"
    resumed = adapter(tokens)
    run(resumed, tokens, tmp_path / "cut")
    assert equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("torn", [trainer.TRAINED_WEIGHTS_FILE, "optimizer.pt", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize("left", [0.0, 0.5])
def test_after_a_power_cut_an_older_checkpoint_is_taken(tokens, tmp_path, killed, torn, left):
    """Which left `trainer_state.json` whole and another file empty, or half of it."""
    whole = adapter(tokens)
    expected, _ = run(whole, tokens, tmp_path / "whole", eval_every=2)
    killed(lambda: run(adapter(tokens), tokens, tmp_path / "cut", eval_every=2), 7)
    file = tmp_path / "cut/checkpoint-6" / torn
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * left)])
    assert last_checkpoint(tmp_path / "cut").name == "checkpoint-4"
    resumed = adapter(tokens)
    result, _ = run(resumed, tokens, tmp_path / "cut", eval_every=2)
    assert result.log == expected.log and equal(weights(resumed), weights(whole))


def test_no_checkpoint_is_taken_without_the_best_weights_until_then(tokens, tmp_path):
    result, _ = run(adapter(tokens), tokens, tmp_path, **IMPATIENT)
    assert last_checkpoint(tmp_path).name == f"checkpoint-{result.steps}"
    (tmp_path / f"checkpoint-{result.best_step}" / trainer.TRAINED_WEIGHTS_FILE).write_bytes(b"")
    assert result.best_step < result.steps and last_checkpoint(tmp_path) is None


def test_a_checkpoint_is_on_the_disk_before_an_older_one_goes(tokens, tmp_path, monkeypatch):
    synced, real, gone = [], files.fsync, []
    monkeypatch.setattr(trainer, "fsync", lambda path: (synced.append(path), real(path)))

    def rmtree(path):
        newest = max(tmp_path.glob("checkpoint-*"), key=trainer.step_of)
        assert {*newest.iterdir(), newest, tmp_path} <= set(synced)
        gone.append(path)
        shutil.rmtree(path)

    monkeypatch.setattr(trainer, "shutil", SimpleNamespace(rmtree=rmtree))
    result, _ = run(adapter(tokens), tokens, tmp_path, steps=10, eval_every=2)
    left = {trainer.step_of(path) for path in tmp_path.glob("checkpoint-*")}
    assert len(gone) == 4 and len(left) == 2 and {result.best_step, 10} <= left


def test_seconds_and_memory_count_all_attempts(tokens, tmp_path, killed):
    killed(lambda: run(adapter(tokens), tokens, tmp_path), 6)
    kept = json.loads((tmp_path / "meter.json").read_text())
    (tmp_path / "meter.json").write_text(json.dumps({"seconds": 1000.0, "cpu_seconds": 500.0, "peak_memory_mb": 1e6}))
    result, _ = run(adapter(tokens), tokens, tmp_path)
    assert 0 < kept["seconds"] < 1000 < result.seconds < 1100 and result.peak_memory_mb == 1e6
    assert 0 < kept["cpu_seconds"] < 500 < result.cpu_seconds < 600


def test_the_penalty_is_in_the_loss_and_in_the_log(tokens, tmp_path):
    logs = {}
    for factor in (0.0, 0.5):
        result, _ = run(
            fusion(tokens), tokens, tmp_path / str(factor), value_regularizer=factor, n=4, eval_every=1, steps=4
        )
        logs[factor] = [row for row in result.log if "loss" in row]
    # Before the first step W_v is the identity but for its 1e-6; after it, the penalty is what the loss has more.
    model = fusion(tokens)
    assert logs[0.5][0]["value_penalty"] == pytest.approx(0.5 * value_deviation(model).item(), rel=1e-4)
    assert logs[0.5][-1]["value_penalty"] > 1e-4
    assert logs[0.5][0]["loss"] - logs[0.5][0]["value_penalty"] == pytest.approx(logs[0.0][0]["loss"], rel=1e-5)
    assert all("value_penalty" not in row for row in logs[0.0])
    assert "eval_value_penalty" not in result.log[0]  # validation losses are losses of tokens alone


def test_a_larger_penalty_keeps_w_v_nearer_to_the_identity(tokens, tmp_path):
    far = {}
    for factor in (0.0, 10.0):
        model = fusion(tokens)
        run(model, tokens, tmp_path / str(factor), value_regularizer=factor, steps=12)
        far[factor] = value_deviation(model).item()
    assert far[10.0] < far[0.0] / 2


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
def test_w_v_is_never_decayed(tokens, tmp_path, optimizer):
    """With no learning from the loss, decay alone moves weights: all but biases and W_v."""
    model = wide_fusion(tokens)
    for layer in fusion_layers(model):  # members that add nothing: no gradient for query, key, value
        for parameter in layer.adapters["lua"].parameters():
            parameter.data.zero_()
    before = weights(model)
    run(model, tokens, tmp_path, weight_decay=0.5, learning_rate=0.1, optimizer=optimizer, keep="last")
    after = weights(model)
    moved = {name.split(".composition.")[1].split(".", 2)[2] for name in after
             if not torch.equal(before[name], after[name])}  # fmt: skip
    assert moved == {"query.weight", "key.weight"}


def test_early_stopping_restores_the_best_weights(tokens, tmp_path):
    seen = {}

    class Keep(TrainerCallback):
        def on_evaluate(self, args, state, control, model=None, **kwargs):
            seen[state.global_step] = weights(model)

    init = trainer.StudyTrainer.__init__

    def patched(self, *args, callbacks, **kwargs):
        init(self, *args, callbacks=[*callbacks, Keep()], **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.StudyTrainer, "__init__", patched)
        model = adapter(tokens)
        result, _ = run(model, tokens, tmp_path, **IMPATIENT)
    losses = {row["step"]: row["eval_loss"] for row in result.log if row["step"] and "eval_loss" in row}
    assert result.best_step == min(losses, key=losses.get) < result.steps < 60
    assert equal(weights(model), seen[result.best_step])
    assert not equal(weights(model), seen[result.steps])


HARMFUL = {"learning_rate": 1.0, "steps": 10, "eval_every": 2}  # every step makes the loss of a trained adapter worse


def learn(tokens, checkpoints, learning_rate: float) -> dict:
    """The weights of an adapter that has learned its task."""
    model = adapter(tokens)
    run(model, tokens, checkpoints, steps=40, learning_rate=learning_rate)
    return weights(model)


@pytest.fixture(scope="module")
def learned(tokens, tmp_path_factory):
    return learn(tokens, tmp_path_factory.mktemp("learned"), 0.1)


def continued(tokens, learned):
    model = adapter(tokens)
    for name, parameter in model.named_parameters():
        if name in learned:
            parameter.data.copy_(learned[name])
    return model


def test_a_harmful_training_returns_its_initial_weights(tokens, learned, tmp_path, killed):
    """Also when it was killed, and when it had ended already."""
    for attempt in ("whole", "cut", "cut"):
        if attempt == "cut" and not (tmp_path / "cut").exists():
            killed(lambda: run(continued(tokens, learned), tokens, tmp_path / "cut", **HARMFUL), 5)
        model = continued(tokens, learned)
        result, _ = run(model, tokens, tmp_path / attempt, **HARMFUL)
        assert (result.best_step, result.steps) == (0, 10) and equal(weights(model), learned)
        assert result.validation_loss() == result.validation_loss(0) < result.validation_loss(10)


def test_keep_says_which_step_is_kept(tokens, learned, tmp_path, killed):
    seen, harmful = {}, HARMFUL | {"learning_rate": 0.1}
    for keep in ("best", "best_after_start", "last"):
        killed(lambda keep=keep: run(continued(tokens, learned), tokens, tmp_path / keep, keep=keep, **harmful), 7)
        model = continued(tokens, learned)
        result, _ = run(model, tokens, tmp_path / keep, keep=keep, **harmful)
        seen[keep] = result.best_step, weights(model)
    losses = {row["step"]: row["eval_loss"] for row in result.log if row["step"] and "eval_loss" in row}
    least = min(losses, key=losses.get)
    assert {keep: step for keep, (step, _) in seen.items()} == {"best": 0, "best_after_start": least, "last": 10}
    assert least < 10 and equal(seen["best"][1], learned) and not equal(seen["last"][1], seen["best_after_start"][1])


BY_EXACT_MATCH = {"steps": 60, "eval_every": 6, "learning_rate": 1e-2, "select_on": "exact_match"}


def test_exact_matches_are_those_of_greedy_completions(tokens, tmp_path):
    """Counted in the logits of the references, without generating."""
    model = adapter(tokens, "full")
    run(model, tokens, tmp_path, **BY_EXACT_MATCH)
    rows = tiny.rows(20)
    written = complete(model, tokens, rows, tiny.LIMITS)
    batch = Collator(tokens.pad_token_id)(tiny.examples(tokens, 20))
    hits = batches.label_logits(model, batch, batch["sequence_labels"]).hits()
    exact = trainer.exact_matches(hits, batch["completion_labels"])
    assert exact == sum(text == row.target for text, row in zip(written, rows, strict=True)) and 0 < exact < 20


def test_a_step_may_be_selected_by_exact_matches(tokens, tmp_path, killed):
    """Also after a kill; among equals the loss decides."""
    assert trainer.shortfall({"eval_exact_match": 0.5, "eval_loss": 2.0}, "exact_match") < trainer.shortfall(
        {"eval_exact_match": 0.25, "eval_loss": 1.0}, "exact_match"
    )
    whole = adapter(tokens, "full")
    result, _ = run(whole, tokens, tmp_path / "whole", **BY_EXACT_MATCH)
    looks = {row["step"]: (-row["eval_exact_match"], row["eval_loss"]) for row in result.evaluations}
    assert result.best_step == min(looks, key=looks.get) and looks[result.best_step][0] < 0
    killed(lambda: run(adapter(tokens, "full"), tokens, tmp_path / "cut", **BY_EXACT_MATCH), 40)
    resumed = adapter(tokens, "full")
    again, _ = run(resumed, tokens, tmp_path / "cut", **BY_EXACT_MATCH)
    assert again.log == result.log and again.best_step == result.best_step and equal(weights(resumed), weights(whole))


def test_after_a_power_cut_the_weights_of_the_start_are_still_kept(tokens, tmp_path, killed):
    """The newest checkpoint is torn; the one before it may still need the weights of the start."""
    learned = learn(tokens, tmp_path / "learned", 0.03)
    better_late = {"steps": 40, "eval_every": 2, "learning_rate": 0.1}
    whole = continued(tokens, learned)
    expected, _ = run(whole, tokens, tmp_path / "whole", **better_late)
    first = next(row["step"] for row in expected.evaluations[1:] if row["eval_loss"] < expected.log[0]["eval_loss"])
    assert first > 2, "a later step than the first validated one must be the first to beat the start"
    killed(lambda: run(continued(tokens, learned), tokens, tmp_path / "cut", **better_late), first + 1)
    (tmp_path / f"cut/checkpoint-{first}" / trainer.TRAINED_WEIGHTS_FILE).write_bytes(b"")
    assert last_checkpoint(tmp_path / "cut").name == f"checkpoint-{first - 2}"
    resumed = continued(tokens, learned)
    result, _ = run(resumed, tokens, tmp_path / "cut", **better_late)
    assert result.log == expected.log and equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("losses, patience, keep, stops", [
    ([9, 3, 4, 5], 2, "best", True), ([9, 3, 4, 2], 2, "best", False), ([9, 3, 3, 3], 2, "last", True),
    ([1, 3, 4, 2], 2, "best", True), ([1, 3, 4, 2], 2, "best_after_start", False), ([9, 3, 4, 5], 0, "best", False),
    ([9], 1, "best", False), ([1, 2], 1, "best", True), ([1, 2], 1, "best_after_start", False),
])  # fmt: skip
def test_patience_counts_looks_without_a_gain_the_start_included(losses, patience, keep, stops):
    state = TrainerState(log_history=[{"step": i, "eval_loss": float(x)} for i, x in enumerate(losses)])
    control = TrainerControl()
    Patience(patience, keep).on_evaluate(None, state, control)
    assert control.should_training_stop == stops


def test_adam_state_can_be_carried_into_the_next_training(tokens, tmp_path):
    """Carried: the second training's Adam goes on counting from the first's adam_state; by default it starts afresh."""
    model = fusion(tokens)
    _, first = run(model, tokens, tmp_path / "first", steps=5, eval_every=5, value_regularizer=0.1, weight_decay=0.1)
    start = weights(model)
    made = {}
    for kind, adam_state in (("carried", first), ("fresh", None)):
        again = fusion(tokens)
        for name, parameter in again.named_parameters():
            if name in start:
                parameter.data.copy_(start[name])
        before = {name: {key: value.clone() for key, value in state.items()} for name, state in first.items()}
        result, then = run(
            again, tokens, tmp_path / kind, steps=1, adam_state=adam_state, value_regularizer=0.1, weight_decay=0.1
        )
        assert all(equal(first[name], before[name]) for name in first)  # a copy was carried
        made[kind] = then
        # whatever is carried, the schedule begins anew
        assert [row["learning_rate"] for row in result.log if "loss" in row] == [USUAL["learning_rate"]]
    assert made["carried"].keys() == made["fresh"].keys() == first.keys() == start.keys()
    for name in first:
        assert made["carried"][name]["step"] == first[name]["step"] + 1 == 6
        assert made["fresh"][name]["step"] == 1
        # exp_avg = 0.9 * exp_avg before + 0.1 * gradient, and the gradient is that of the fresh optimizer's first step
        expected = 0.9 * first[name]["exp_avg"] + made["fresh"][name]["exp_avg"]
        torch.testing.assert_close(made["carried"][name]["exp_avg"], expected, rtol=1e-4, atol=1e-7)


def test_adam_state_in_8_bits_takes_a_fourth_and_find_nearly_the_same_weights(tokens, tmp_path):
    found, size = {}, {}
    for optimizer in ("adamw", "adamw_8bit"):
        model = wide_fusion(tokens)
        result, adam_state = run(model, tokens, tmp_path / optimizer, steps=12, optimizer=optimizer)
        kept = [value for state in adam_state.values() for value in state.values() if torch.is_tensor(value)]
        size[optimizer] = sum(value.nbytes for value in kept if value.numel() > 256)  # without tables and biases
        found[optimizer] = (result.validation_loss(), result.validation_loss(0))
    assert found["adamw_8bit"][0] == pytest.approx(found["adamw"][0], rel=0.02)
    assert found["adamw"][0] < found["adamw"][1]
    assert size["adamw_8bit"] == pytest.approx(size["adamw"] / 4, rel=0.02)


def test_adam_state_in_8_bits_survives_a_kill_and_a_second_training(tokens, tmp_path, killed):
    """Bit for bit, as in fp32; carried, they go on counting."""
    eight = {"optimizer": "adamw_8bit", "steps": 8, "eval_every": 2, "weight_decay": 0.1, "value_regularizer": 0.1}
    whole = wide_fusion(tokens)
    expected, adam_state = run(whole, tokens, tmp_path / "whole", **eight)
    assert {state["state1"].dtype for name, state in adam_state.items() if "weight" in name} == {torch.uint8}
    killed(lambda: run(wide_fusion(tokens), tokens, tmp_path / "cut", **eight), 5)
    resumed = wide_fusion(tokens)
    result, found = run(resumed, tokens, tmp_path / "cut", **eight)
    assert equal(weights(resumed), weights(whole)) and result.log == expected.log
    assert all(torch.equal(found[name][key], value) if torch.is_tensor(value) else found[name][key] == value
               for name, state in adam_state.items() for key, value in state.items())  # fmt: skip
    before = copy.deepcopy(adam_state)
    _, then = run(resumed, tokens, tmp_path / "next", **eight | {"steps": 2}, adam_state=adam_state)
    for name, state in then.items():
        assert state["step"] == 10 and adam_state[name]["step"] == 8
        assert torch.equal(adam_state[name]["state1"], before[name]["state1"])  # a copy was carried


@pytest.mark.skipif(torch.cuda.is_available(), reason="pages where there is a GPU")
def test_an_optimizer_that_cannot_work_here_is_refused_before_anything_trains(tokens, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="optimizer is 'paged_adamw_8bit', .* has no CUDA device; adamw or"):
        run(adapter(tokens), tokens, tmp_path / "paged", optimizer="paged_adamw_8bit")
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)  # as if it were not installed
    with pytest.raises(UserError, match="optimizer is 'adamw_8bit', which bitsandbytes cannot run on this machine"):
        run(adapter(tokens), tokens, tmp_path / "absent", optimizer="adamw_8bit")
    assert not list(tmp_path.iterdir())


def test_a_diverged_training_is_told_in_one_sentence(tokens, tmp_path):
    with pytest.raises(UserError, match="loss is nan after step .*learning_rate=1e"):
        run(adapter(tokens), tokens, tmp_path, learning_rate=1e38, max_grad_norm=1e38, steps=8)
