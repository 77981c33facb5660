"""Probes of a fusion in training: a known angle, a known noise, and a training that they leave as it is."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import TrainerCallback

from studykit.errors import UserError
from studykit.runs import store
from studykit.training import fusions, phases, probes, stability, trainer
from studykit.training.base import load_base
from studykit.training.result import read_phase_results
from tests import tiny

on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="4 bits on a GPU are tested where models are trained")


class Broken(TrainerCallback):
    """Makes the weights not finite after the third step."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == 3:
            for parameter in trainer.trained_weights(model).values():
                parameter.data.fill_(math.nan)


def fuse(p, *callbacks) -> tuple[dict, dict]:
    """Results by phase, and the weights at the end."""
    base, tokens = load_base(p.base, p.quantization)
    model = fusions.new_fusion(base, p)
    with store.open_run(p.out, stage="fusion", params=p) as run:
        list(phases.train_phases(model, tokens, p, tiny.LIMITS, run, callbacks))
        run.publish(headline={})
    return read_phase_results(p.out, p.method), trainer.trained_weights(model)


def test_noise_and_signal_of_a_quadratic_are_those_of_its_formula():
    """The gradient of |w - x|^2 / 2 over rows x ~ N(mu, s^2 I) is w - mean(x): |G|^2 = |w - mu|^2, tr(S) = d s^2."""
    drawn, d, rows, s = torch.Generator().manual_seed(0), 50, 8, 0.7
    w, mu = torch.linspace(-1, 1, d), torch.linspace(0, 0.5, d)
    found = []
    for _ in range(4000):
        halves = (w - (mu + s * torch.randn(rows, d, generator=drawn)).mean(0) for _ in range(2))
        first, second = ([half[:20], half[20:]] for half in halves)
        found.append(probes.noise_and_signal(first, second, rows))
    noise, signal = torch.tensor(found).mean(0).tolist()
    assert noise == pytest.approx(d * s**2, rel=0.01) and signal == pytest.approx(
        float((w - mu).square().sum()), rel=0.01
    )
    looks = [{"noise": a, "signal": b} for a, b in found]
    assert stability.noise_scale(looks) == pytest.approx(noise / signal)
    assert stability.noise_scale([{"noise": 1.0, "signal": -0.1}]) is None


def test_cosines_are_those_of_the_angle():
    one, other = [torch.tensor([1.0, 0.0]), torch.tensor([[0.0]])], [torch.tensor([1.0, 1.0]), torch.tensor([[0.0]])]
    assert probes.cosine(one, other) == pytest.approx(math.sqrt(0.5))
    assert (
        probes.cosine(one, [-2 * x for x in one]) == pytest.approx(-1)
        and probes.cosine(one, [0 * x for x in one]) is None
    )


def probe_of(p, twin) -> tuple:
    base, tokens = load_base(p.base, p.quantization)
    model = fusions.new_fusion(base, p)
    collate = phases.Collator(tokens.pad_token_id)
    sequences = tiny.examples(tokens, 8)
    return probes.GradientProbe(sequences, collate, every=1, rows=6, batch_size=2, seed=0, twin=twin), model


def test_the_cosine_is_1_where_both_bases_are_the_same(home):
    p = tiny.fusion_params(home, method="adapterfusion", mask="none", probe_every=1)
    assert probes.full_precision_twin(fusions.new_fusion(load_base(p.base)[0], p), p) is None
    probe, model = probe_of(p, fusions.new_fusion(load_base(p.base)[0], p))
    with torch.no_grad():  # the twin follows the weights as they are
        for parameter in trainer.trained_weights(model).values():
            parameter.add_(0.05)
    look = probe.look(model, 0)
    assert look["cosine"] == pytest.approx(1, abs=1e-6) and look["changed"] is None and look["rows"] == 6
    assert probe.look(model, 0)["changed"] == 0
    with torch.no_grad():
        trainer.trained_weights(model)[next(iter(trainer.trained_weights(model)))].add_(1)
    assert 0 < probe.look(model, 0)["changed"] < 1


def test_a_probe_measures_the_gradient_that_trains(home):
    """Its norm is that of a backward pass over the same rows in one batch."""
    p = tiny.fusion_params(home, method="adapterfusion", mask="none", value_regularizer=0.0)
    probe, model = probe_of(p, None)
    drawn = torch.randperm(8, generator=torch.Generator().manual_seed(0))[:6]
    batch = probe.collate([probe.sequences[i] for i in drawn])
    losses = probes.token_losses(model, batch, batch["labels"])
    (losses.sum() / (batch["labels"][:, 1:] != -100).sum()).backward()
    squares = [float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None]
    assert probe.look(model, 0)["norm"] == pytest.approx(math.sqrt(sum(squares)), rel=1e-4)


@on_cpu
@pytest.mark.parametrize("quantization, least", [("nf4", -1.0), ("int8", 0.5)])
def test_a_probed_training_takes_the_same_steps_and_says_what_fewer_bits_change(home, wide_base, quantization, least):
    given = {"quantization": quantization, "members_quantization": "none"}
    plain, weights = fuse(tiny.fusion_params(home, **given))
    p = tiny.fusion_params(home, **given, probe_every=2, out="runs/fusion/lua-probed-s0-0000000005")
    probed, same = fuse(p)
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    for title, result in probed.items():
        looks = stability.probes_of(result.log)
        assert [entry["step"] for entry in result.log if "probe" in entry] == [0, 2, 4]
        assert looks[0]["cosine"] > 0.4 and all(least < look["cosine"] < 1 - 1e-6 for look in looks)
        assert looks[1]["changed"] > 0.5 and looks[0]["changed"] is None
        norms = stability.gradient_norms(result.log)
        assert len(norms) == 4 and norms == stability.gradient_norms(plain[title].log)
        assert norms[-1] == pytest.approx(next(e for e in reversed(result.log) if "grad_norm" in e)["grad_norm"])
    steady = stability.Stability.of(list(probed.values()))
    assert steady.steps == 8 and not steady.not_finite and steady.least_cosine <= steady.cosine < 1


def test_a_probed_training_that_is_not_finite_ends_and_says_so(home):
    given = {"method": "adapterfusion", "mask": "none", "steps": 10, "eval_every": 2}
    p = tiny.fusion_params(home, **given)
    with pytest.raises(UserError, match="loss is nan after step 4"):
        fuse(p, Broken())
    p = tiny.fusion_params(home, **given, probe_every=1, out="runs/fusion/lua-probed-s0-0000000005")
    results, weights = fuse(p, Broken())
    (result,) = results.values()
    assert result.steps == 4 and stability.Stability.of([result]).not_finite
    assert result.best_step in (0, 2) and all(torch.isfinite(weight).all() for weight in weights.values())


def test_spikes_stand_out_of_the_steps_before_them():
    calm = [1.0 + 0.01 * (i % 5) for i in range(40)]
    assert stability.spikes(calm) == [] and stability.spikes(calm[:3] + [9.0]) == []
    assert stability.spikes([*calm[:20], 1.5, *calm[20:]]) == [21]
    assert stability.spikes([2 * x for x in [*calm[:20], 1.5, *calm[20:]]]) == [21], "the scale does not matter"
