"""The phases of a fusion: what trains in each, what never changes, and a kill at any point."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from studykit.attention import recording, snapshots, summary, trace
from studykit.attention.capture import capture
from studykit.attention.record import check_record, entropy, mean_weights, target_weights
from studykit.data.rows import DataRun
from studykit.errors import UserError
from studykit.evaluation import trained
from studykit.runs import store
from studykit.study.parameters import EvaluateParams, FusionAttentionParams
from studykit.study.training_parameters import AdapterParams
from studykit.training import adapters, fusions, phases, temperature, train, trainer
from studykit.training.base import load_base
from studykit.training.result import read_phase_results
from studykit.tuners import fusion_layers, set_temperature
from tests import tiny


def start(p):
    base, tokens = load_base(p.base)
    return fusions.new_fusion(base, p), tokens


def masks(model) -> set:
    return {layer.masked.get("fusion", ((), "none")) for layer in fusion_layers(model)}


def fuse(p, after=lambda phase: None) -> dict:
    """Notebook 03's work; results by phase."""
    with store.open_run(p.out, stage="fusion", params=p) as run:
        if not run.done:
            base, tokens = load_base(p.base)
            snapshots.record_base(base, tokens, p, tiny.LIMITS, run)
            model = fusions.new_fusion(base, p)
            temperature.settle_temperature(model, tokens, p, tiny.LIMITS)
            snapshots.record_snapshots(model, tokens, p, tiny.LIMITS, run)
            looks = trace.traces(tokens, p, tiny.LIMITS)
            for phase, _ in phases.train_phases(model, tokens, p, tiny.LIMITS, run, looks):
                snapshots.record_snapshots(model, tokens, p, tiny.LIMITS, run, phase)
                after(phase)
            fusions.save_members(run.path(), p.members)
            run.publish(headline={})
    return read_phase_results(run.dir, p.method)


@pytest.mark.parametrize("given, expected", [
    ({"method": "adapterfusion", "mask": "none"}, [("fusion", (), ("lua",), 8)]),
    ({"mask": "zero"}, [("phase1", ("lua",), ("lua",), 4), ("phase2", (), ("lua",), 4)]),
    ({"phase1_data": "all"}, [("phase1", ("lua",), ("python", "ruby", "lua"), 4), ("phase2", (), ("lua",), 4)]),
])  # fmt: skip
def test_methods_have_equal_budgets_and_their_own_phases(home, given, expected):
    found = phases.training_phases(tiny.fusion_params(home, **given))
    assert [(phase.phase.key, phase.masked, phase.languages, phase.steps) for phase in found] == expected


@pytest.mark.parametrize("method, mask", [("adapterfusion", "none"), ("advfusion", "zero"), ("advfusion", "exclude")])
def test_the_fusion_trains_in_every_phase_and_nothing_else_ever_changes(home, method, mask):
    p = tiny.fusion_params(home, method=method, mask=mask)
    model, tokens = start(p)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with store.open_run(p.out, stage="fusion", params=p) as run:
        for phase, result in phases.train_phases(model, tokens, p, tiny.LIMITS, run):
            now = model.state_dict()
            changed = {name for name in before if not torch.equal(before[name], now[name])}
            own = {name for name in before if ".fusions.fusion." in name}
            # The key's bias adds the same to every score: it cancels in the softmax, and what moves it is rounding.
            assert {name for name in own if not name.endswith("key.bias")} <= changed <= own
            assert {name for name, w in model.named_parameters() if w.requires_grad} == own
            assert result.trainable == sum(before[name].numel() for name in own)
            assert masks(model) == {((2,), mask) if phase.masked else ((), phase.mode)}
            assert not model.training
            before = {name: weight.clone() for name, weight in now.items()}


@pytest.mark.parametrize("given, left", [
    ({}, {"trainer_state.json", "ended", "trained.safetensors"}),
    ({"carry_optimizer": True}, {"optimizer.pt", "trainer_state.json"}),
])  # fmt: skip
def test_of_an_ended_phase_no_more_stays_than_is_needed(home, given, left):
    p = tiny.fusion_params(home, **given)
    model, tokens = start(p)
    with store.open_run(p.out, stage="fusion", params=p) as run:
        _, first = next(phases.train_phases(model, tokens, p, tiny.LIMITS, run))
        files = {file.name for file in (run.checkpoints / "phase1").glob("checkpoint-*/*")}
        assert left <= files and (files == left or given)
        weights = {name: weight.clone() for name, weight in trainer.trained_weights(model).items()}
        again, _ = start(p)  # a killed run that goes on
        _, second = next(phases.train_phases(again, tokens, p, tiny.LIMITS, run))
    assert first.log == second.log and first.best_step == second.best_step
    assert all(torch.equal(weight, weights[name]) for name, weight in trainer.trained_weights(again).items())


def test_the_optimizers_state_is_published_where_it_is_asked_for(home):
    p = tiny.fusion_params(home, keep_trainer_state=True)
    fuse(p)
    state = torch.load(home / p.out / "phase1/optimizer.pt", weights_only=True)
    assert all(moments["exp_avg"].abs().sum() > 0 for moments in state["state"].values() if "exp_avg" in moments)


def test_phase_1_learns_nothing_from_the_masked_member(home):
    """Under `exclude` the target's adapter has no say in phase 1: another in its place leads to the same weights."""
    p = tiny.fusion_params(home, phase1_data="target")

    def weights(p):
        model, tokens = start(p)
        with store.open_run(p.out, stage="fusion", params=p) as run:
            next(phases.train_phases(model, tokens, p, tiny.LIMITS, run))
        return trainer.trained_weights(model)

    first = weights(p)
    other = {**p.members, "lua": tiny.adapter_run(home, p.base, "lua", seed=7)}
    second = weights(p.model_copy(update={"members": other, "out": "runs/fusion/lua-other-0000000009"}))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_phase_that_only_harms_ends_with_the_weights_it_began_with(home):
    learned = {"method": "adapterfusion", "mask": "none", "steps": 30, "eval_every": 10, "learning_rate": 0.03}
    p = tiny.fusion_params(home, **learned)
    model, tokens = start(p)
    with store.open_run(p.out, stage="fusion", params=p) as run:
        list(phases.train_phases(model, tokens, p, tiny.LIMITS, run))
    before = {name: weight.clone() for name, weight in trainer.trained_weights(model).items()}
    p = tiny.fusion_params(home, mask="zero", learning_rate=1.0, out="runs/fusion/harmful-0000000005")
    with store.open_run(p.out, stage="fusion", params=p) as run:
        for _, result in phases.train_phases(model, tokens, p, tiny.LIMITS, run):
            now = trainer.trained_weights(model)
            assert (result.best_step, result.steps) == (0, 4)
            assert all(torch.equal(now[name], before[name]) for name in before)


@pytest.mark.parametrize("carry, count", [(False, [4.0, 4.0]), (True, [4.0, 8.0])])
def test_phase_2_begins_with_a_new_adam_state_unless_it_is_carried(home, monkeypatch, carry, count):
    seen, real = [], train.train

    def spy(*args, **kwargs):
        result, adam_state = real(*args, **kwargs)
        seen.append(adam_state)
        return result, adam_state

    monkeypatch.setattr(phases, "train", spy)
    p = tiny.fusion_params(home, carry_optimizer=carry)
    model, tokens = start(p)
    with store.open_run(p.out, stage="fusion", params=p) as run:
        found = list(phases.train_phases(model, tokens, p, tiny.LIMITS, run))
    assert [next(iter(adam_state.values()))["step"].item() for adam_state in seen] == count
    for _, result in found:  # a new schedule either way: from the peak down
        rates = [row["learning_rate"] for row in result.log if "loss" in row]
        assert rates[0] == p.learning_rate and rates == sorted(rates, reverse=True)


def files(run_dir) -> dict[str, bytes]:
    """Everything that a figure or a later notebook reads; time and memory left out."""
    found = {}
    for file in sorted(run_dir.rglob("*")):
        if file.suffix in (".safetensors", ".npz"):
            found[str(file.relative_to(run_dir))] = file.read_bytes()
        elif file.name == "training.json":
            made = json.loads(file.read_text())
            found[str(file.relative_to(run_dir))] = {
                k: made[k] for k in made.keys() - {"seconds", "cpu_seconds", "peak_memory_mb"}
            }
        elif file.name in ("texts.json", "members.json"):
            found[str(file.relative_to(run_dir))] = file.read_text()
    return found


@pytest.mark.parametrize("carry", [False, True])
def test_a_killed_fusion_ends_like_another(home, monkeypatch, carry):
    """Killed in phase 1, between the phases, in phase 2 and after it: the same files, bit for bit."""
    p = tiny.fusion_params(home, carry_optimizer=carry, steps=6)
    assert len(fuse(p)) == 2
    whole = files(home / p.out)
    assert {
        "attention/init.npz",
        "attention/phase1-masked.npz",
        "attention/phase1.npz",
        "attention/phase2.npz",
        "phase1/fusion/adapter_model.safetensors",
        "phase2/fusion/adapter_model.safetensors",
    } <= whole.keys()

    cut = p.model_copy(update={"out": "runs/fusion/cut/" + p.out.rpartition("/")[2]})
    step = trainer.StudyTrainer.training_step
    for kill in (3, 0, 5, None):  # steps into this attempt; None: right after phase 2
        taken = 0

        def training_step(self, *args, kill=kill, **kwargs):
            nonlocal taken
            taken += 1
            if kill and taken > kill:
                raise KeyboardInterrupt
            return step(self, *args, **kwargs)

        def after(phase, kill=kill):
            if kill == 0 or kill is None and phase.phase.key == "phase2":
                raise KeyboardInterrupt

        monkeypatch.setattr(trainer.StudyTrainer, "training_step", training_step)
        with pytest.raises(KeyboardInterrupt):
            fuse(cut, after)
    monkeypatch.setattr(trainer.StudyTrainer, "training_step", step)
    fuse(cut)
    assert files(home / cut.out).keys() == whole.keys()
    assert files(home / cut.out) == whole


def test_the_snapshots_of_a_fusion_run(home):
    p = tiny.fusion_params(home, mask="exclude")
    fuse(p)
    records = snapshots.load_snapshots(p.out, p.method)
    assert list(records) == ["initialisation", "phase 1, masked", "phase 1, restored", "phase 2"]
    own = {name: target_weights(record) for name, record in records.items()}
    assert (own["phase 1, masked"] == 0).all()
    assert all((own[name] > 0).all() for name in own if name != "phase 1, masked")
    assert all(check_record(record).ok for record in records.values())
    assert records["phase 1, masked"].masked == ["lua"] and records["phase 1, restored"].masked == []
    model, tokens = start(p)
    fresh = capture(model, tokens, tiny.rows(4, first=8), target="lua", phase="init", limits=(24, 24),
                    progress=False)  # fmt: skip
    assert (mean_weights(fresh) == mean_weights(records["initialisation"])).all()
    texts = json.loads((home / p.out / "texts.json").read_text())
    assert {name: len(said) for name, said in texts.items()} == {"base": 3, "phase1": 3, "phase2": 3}
    headline = recording.snapshot_headline(p.out, p.method)
    assert list(headline)[:3] == ["validation loss, phase 1", "validation loss, phase 2", "own weight, phase 2"]
    assert headline["own weight, phase 1, masked"] == 0


def test_a_finished_run_is_recorded_as_it_was_trained_and_summed_up(home):
    p = tiny.fusion_params(home, mask="zero")
    fuse(p)
    base, tokens = load_base(p.base)
    rows = tiny.rows(4, first=12)
    records = [recording.capture_run(base, tokens, p.out, rows, tiny.LIMITS, batch_size=2, keep=1, progress=False)]
    assert [(key, r.phase, r.mask, r.masked) for key, r in records[0].items()] == [
        ("init", "init", "none", []), ("phase1-masked", "phase 1", "zero", ["lua"]),
        ("phase1", "phase 1", "none", []), ("phase2", "phase 2", "none", [])]  # fmt: skip
    with store.open_run("runs/fusion_attention/a-0000000005", stage="fusion_attention", params={}) as run:
        recording.save_records(records, run)
        run.publish()
    by_phase = recording.load_records(run.dir, "advfusion_zero", [0])
    assert list(by_phase) == ["initialisation", "phase 1, masked", "phase 1, restored", "phase 2"]
    fresh = capture(
        fusions.new_fusion(base, p), tokens, rows, target="lua", phase="init", limits=tiny.LIMITS, progress=False
    )
    assert np.allclose(mean_weights(fresh), mean_weights(by_phase["initialisation"][0]), atol=1e-7), "of the seed"
    attention = summary.AttentionSummary.from_records("advfusion_zero", by_phase, "completion")
    assert attention.members == tiny.MEMBERS and attention.mask == "zero" and attention.samples == 4
    attention.write(home / "summary.json")
    again = summary.AttentionSummary.read(home / "summary.json")
    assert repr(again) == repr(attention)
    for name, phase in again.phases.items():
        record = by_phase[name][0]
        assert phase.own_weight == [pytest.approx(target_weights(record).mean(), abs=1e-7)]
        assert torch.tensor(phase.weights).sum(-1).allclose(torch.ones(1, 2, dtype=torch.float64))
    assert list(again.unmasked) == ["initialisation", "phase 1, restored", "phase 2"]
    assert not again.change("initialisation").any() and not again.first.change_error.any()
    assert again.last.change_error.all() and again.last.own_error > 0
    first = again.phases["phase 1, masked"]
    assert first.own_share == [0] and first.own_weight[0] > 0
    checks = recording.check_rows(by_phase, "completion")
    assert [row["sound"] for row in checks] == [True] * 4 and checks[2]["weight on masked (%)"] is None
    assert checks[1]["weight on masked (%)"] == pytest.approx(100 * first.own_weight[0], abs=1e-5)
    both = recording.check_rows(by_phase, "both")[1]["weight on masked (%)"]
    assert both == pytest.approx(100 * target_weights(by_phase["phase 1, masked"][0], "both").mean())


def test_notebook_05_refuses_runs_of_another_method(home):
    p = tiny.fusion_params(home, mask="zero")
    fuse(p)
    asked = {"base": p.base, "data": p.data, "trained_runs": [p.out], "seeds": [0]}
    assert recording.require_method(FusionAttentionParams(method="advfusion_zero", **asked))["target"] == "lua"
    for change, match in (
        ({"method": "advfusion_exclude"}, "has mask 'zero', not 'exclude'"),
        ({"method": "adapterfusion"}, "has method 'advfusion', not 'adapterfusion'"),
        ({"method": "advfusion_zero", "seeds": [1]}, "has seed 0, not 1"),
        ({"method": "advfusion_zero", "base": "runs/base_model/x"}, "has base"),
        ({"method": "advfusion_zero", "trained_runs": [], "seeds": []}, "trained_runs is empty"),
    ):
        with pytest.raises(UserError, match=match):
            recording.require_method(FusionAttentionParams(**asked | change))


def test_a_found_temperature_is_the_least_that_leaves_no_layer_decided(home, monkeypatch):
    p = tiny.fusion_params(home, temperature="auto")
    fresh = fusions.new_fusion

    def sharp(base, p):
        """A fusion as a large base would have it: its scores are far apart."""
        model = fresh(base, p)
        for layer in fusion_layers(model):
            layer.fusions["fusion"].query.weight.data.mul_(300)
        return model

    monkeypatch.setattr(fusions, "new_fusion", sharp)
    monkeypatch.setattr(recording, "new_fusion", sharp)
    fuse(p)
    found = temperature.trained_temperature(p.out)
    assert found > 1
    base, tokens = load_base(p.base)
    options = {"batch_size": 4, "progress": False}
    records = recording.capture_run(base, tokens, p.out, tiny.rows(8), tiny.LIMITS, **options)
    assert entropy(records["init"], normalised=True).min() >= temperature.LEAST_ENTROPY, "on these, its training rows"
    model = sharp(base, p)
    set_temperature(model, found / 2)
    halved = capture(model, tokens, tiny.rows(8), target="lua", phase="init", limits=tiny.LIMITS, progress=False)
    assert entropy(halved, normalised=True).min() < temperature.LEAST_ENTROPY
    assert fusions.load_trained(load_base(p.base)[0], p.out).peft_config["fusion"].temperature == found


def test_a_temperature_that_is_given_is_taken(home):
    p = tiny.fusion_params(home, method="adapterfusion", mask="none", temperature=3, scores="scaled")
    model, tokens = start(p)
    temperature.settle_temperature(model, tokens, p, tiny.LIMITS)
    assert {layer.fusions["fusion"].divisor for layer in fusion_layers(model)} == {3 * 32**0.5}


def finished_weights(p) -> dict:
    model, tokens = start(p)
    with store.open_run(p.out, stage="fusion", params=p) as run:
        results = [result for _, result in phases.train_phases(model, tokens, p, tiny.LIMITS, run)]
    return results, {name: weight.clone() for name, weight in trainer.trained_weights(model).items()}


def test_phases_have_values_of_their_own(home):
    first = {"steps": 6, "learning_rate": 2e-2, "patience": 1, "masked": "python", "rows": "all"}
    p = tiny.fusion_params(home, phases=[first, {"learning_rate": 1e-3}], patience=3)
    one, two = phases.training_phases(p)
    assert (one.masked, one.mode, one.languages) == (("python",), "exclude", ("python", "ruby", "lua"))
    assert (one.steps, one.learning_rate, one.patience) == (6, 2e-2, 1)
    assert (two.masked, two.languages, two.steps, two.learning_rate, two.patience) == ((), ("lua",), 4, 1e-3, 3)
    results, _ = finished_weights(p)
    rates = [next(row["learning_rate"] for row in result.log if "loss" in row) for result in results]
    assert rates == [2e-2, 1e-3]


def test_phases_that_say_nothing_new_are_those_of_the_method(home):
    plain = tiny.fusion_params(home)
    assert phases.training_phases(plain) == phases.training_phases(plain.model_copy(update={"phases": []}))
    named = tiny.fusion_params(home, phases=[{"masked": "target", "steps": 4}, {"masked": "none", "rows": "target"}])
    assert phases.training_phases(named) == phases.training_phases(plain)


def test_without_steps_in_phase_1_advfusion_is_adapterfusion(home):
    """The dose of phase 1 can be 0: what is left is one phase with all members, bit for bit."""
    p = tiny.fusion_params(home, phases=[{"steps": 0}, {"steps": 6}], same_order=True)
    (measured, _), two_phases = finished_weights(p)
    assert (measured.steps, measured.best_step, len(measured.evaluations)) == (0, 0, 1)
    once = {"method": "adapterfusion", "mask": "none", "phases": [{"steps": 6}], "out": "runs/fusion/a-0000000006"}
    _, one_phase = finished_weights(tiny.fusion_params(home, **once))
    assert all(torch.equal(two_phases[name], one_phase[name]) for name in one_phase)


def test_in_reversed_order_the_finished_fusion_is_evaluated_with_all_members(home):
    p = tiny.fusion_params(home, phases=[{"masked": "none"}, {"masked": "target"}])
    one, two = phases.training_phases(p)
    assert (one.masked, two.masked) == ((), ("lua",))
    fuse(p)
    assert list(snapshots.load_snapshots(p.out, p.method)) == [
        "initialisation", "phase 1", "phase 2, masked", "phase 2"]  # fmt: skip
    evaluated = trained.evaluated_checkpoints(
        EvaluateParams(base=p.base, trained_runs=[p.out], seeds=[0], method="advfusion_exclude")
    )
    assert [(checkpoint.phase, checkpoint.masked) for checkpoint in evaluated] == [("phase1", ()), ("phase2", ())]


def test_phases_read_the_rows_in_other_orders_unless_asked(home):
    one, two = phases.training_phases(tiny.fusion_params(home, seed=3))
    assert one.seed == 3 != two.seed
    assert [phase.seed for phase in phases.training_phases(tiny.fusion_params(home, seed=3, same_order=True))] == [3, 3]


def test_epochs_are_passes_over_the_rows_of_a_phase(home):
    """8 rows of the target and 24 of all members, 4 rows in a step; AdapterFusion's one phase has twice as many."""
    results, _ = finished_weights(tiny.fusion_params(home, epochs=1.5, phase1_data="all"))
    assert [result.steps for result in results] == [9, 3]
    once = {"method": "adapterfusion", "mask": "none", "epochs": 1.5, "out": "runs/fusion/b-0000000007"}
    results, _ = finished_weights(tiny.fusion_params(home, **once))
    assert [result.steps for result in results] == [6]


@pytest.mark.parametrize("given, message", [
    ({"phases": [{}]}, "phases is a list of 1; advfusion takes a list of 2"),
    ({"phases": [{}, {"masked": "perl"}]}, r"phases\[1\].masked is 'perl'; it must be target, none, or one of python"),
    ({"method": "adapterfusion", "mask": "none", "phases": [{"masked": "target"}]}, "masked is 'target', but mask is"),
    ({"method": "average", "mask": "none", "phases": [{}]}, "average takes no phases, since nothing trains"),
])  # fmt: skip
def test_phases_that_do_not_fit_the_method_are_refused(home, given, message):
    with pytest.raises(ValidationError, match=message):
        tiny.fusion_params(home, **given)


def test_held_out_rows_of_the_fusion_are_not_those_of_the_targets_member(home):
    """Together they are all rows of the target; a member that has seen others is refused."""
    p = tiny.fusion_params(home, rows="held_out", phase1_data="all", seed=1)
    half = AdapterParams(base=p.base, data=p.data, language="lua", rows="half", seed=1)
    seen = {row.id for row in adapters.training_rows(half)}
    with pytest.raises(UserError, match="was trained with rows: all and seed 0; a member with rows: half and seed 1"):
        phases.phase_rows(p, ["lua"])
    tiny.finish(home, home / p.members["lua"], half.model_dump() | {"method": "bottleneck"})
    fused = [row.id for row in phases.phase_rows(p, ["python", "lua"])]
    own = {row for row in fused if row.startswith("lua")}
    everything = {row.id for row in DataRun(p.data).rows("lua", "train")}
    assert not own & seen and own | seen == everything and len(own) == len(seen) == 4
    assert len(fused) == 4 + 8, "the rows of other members stay whole"
    other = {row.id for row in adapters.training_rows(half.model_copy(update={"seed": 2}))}
    assert other != seen and len(other) == 4
    results, _ = finished_weights(p)
    assert [result.steps for result in results] == [4, 4]


def test_the_attention_is_read_at_every_look_and_changes_nothing(home):
    p = tiny.fusion_params(home, mask="exclude")
    results = fuse(p)
    looks = [[entry["attention"] for entry in result.evaluations] for result in results.values()]
    assert [len(of_phase) for of_phase in looks] == [3, 3], "at 0, 2 and 4 steps"
    first, second = looks[0][0], looks[1][0]
    assert np.shape(first["weights"]) == (2, 3) and np.allclose(np.sum(first["weights"], 1), 1)
    assert not np.array(first["weights"])[:, -1].any() and np.array(second["weights"])[:, -1].all(), "masked, restored"
    restored = snapshots.load_snapshots(p.out, p.method)["phase 1, restored"]
    np.testing.assert_allclose(second["weights"], mean_weights(restored), atol=1e-5)
    assert all(norm > 0 for norm in (*first["query_gradient"], *first["key_gradient"]))
    untraced = p.model_copy(update={"out": "runs/fusion/lua-advfusion-s0-0000000009"})
    with store.open_run(untraced.out, stage="fusion", params=untraced) as run:
        model, tokens = start(untraced)
        list(phases.train_phases(model, tokens, untraced, tiny.LIMITS, run))
        weights = [load_file(path / "phase2/fusion/adapter_model.safetensors") for path in (run.path(), home / p.out)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_saturated_layer_is_seen_and_has_next_to_no_gradient(home):
    p = tiny.fusion_params(home)
    model, tokens = start(p)
    (look,) = trace.traces(tokens, p, tiny.LIMITS)
    before = look.look(model)
    fusion_layers(model)[1].fusions["fusion"].query.weight.data.mul_(1e6)
    after = look.look(model)
    assert before["saturated"][1] == 0 and after["saturated"][1] > 0.9
    assert after["key_gradient"][1] < 1e6 * before["key_gradient"][1], "the chain rule alone would give this factor"
