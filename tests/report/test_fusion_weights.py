"""Sentences on fusion weights: changes from the start, with their spread over seeds and rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from studykit.attention.summary import AttentionSummary, standard_error
from studykit.errors import UserError
from studykit.evaluation.results import Interval, OwnAttention
from studykit.evaluation.worth import MemberWorth, Worth, WorthCorrelation
from studykit.report import fusion_weights
from tests.made_records import made_record, made_summary


def test_shares_of_attention_say_what_they_are_means_of():
    row = OwnAttention(method="a", phase="phase 2", own_weight=0.15, own_share=0.2, by_seed=[0.1, 0.2], change=0.1,
                       change_sd=0.07, change_interval=None, samples=64, tokens="completion", empty_slot=False)  # fmt: skip
    assert fusion_weights.caption([row, row]) == "n = 64 samples, completion tokens, 2 seeds"
    assert fusion_weights.caption([]) == "nothing was recorded"


def test_the_table_of_changes_holds_the_largest_with_their_spread():
    summary = made_summary()
    rows = fusion_weights.change_table(summary, "initialisation", "phase 2")
    change = summary.change("phase 2")
    layer, member = np.unravel_index(np.abs(change.mean(0)).argmax(), change.shape[1:])
    assert (rows[0]["layer"], rows[0]["member"]) == (summary.layers[layer], summary.members[member])
    assert rows[0]["change (points)"].startswith(f"{100 * change.mean(0)[layer, member]:+.1f} (sd over seeds ")
    low, high = map(float, rows[0]["interval over rows"].split(" to "))
    assert low < 100 * change.mean(0)[layer, member] < high
    assert "interval over rows" not in fusion_weights.change_table(summary, "phase 1, restored", "phase 2")[0]


def test_phase_2_is_set_against_phase_1_restored_and_never_against_its_mask():
    sentences = fusion_weights.change_sentences(made_summary())
    assert [part for part in ("from initialisation", "from phase 1, restored") if any(part in s for s in sentences)] == [
        "from initialisation", "from phase 1, restored"]  # fmt: skip
    assert not any("masked" in sentence for sentence in sentences)


def test_rows_of_one_group_are_one_draw():
    rng = np.random.default_rng(0)
    sums, counts = rng.normal(size=(40, 2)), np.full(40, 5)
    usual = standard_error(sums, counts)
    np.testing.assert_allclose(usual, sums.std(0, ddof=1) / 40**0.5 / 5, atol=1e-7)
    twice = standard_error(np.repeat(sums, 2, 0), np.repeat(counts, 2), [i // 2 or None for i in range(2, 82)])
    np.testing.assert_allclose(twice, usual, atol=1e-7)
    assert (
        np.isnan(standard_error(sums[:1], counts[:1])).all()
        and np.isnan(standard_error(sums, counts, ["a"] * 40)).all()
    )
    assert made_summary(groups=["a", "a", "b"]).clusters == 2 and made_summary(groups=[None] * 3).clusters == 3


def test_an_error_of_a_single_group_survives_the_file(tmp_path):
    summary = made_summary(seeds=1, groups=["a", "a", "a"])
    summary.write(tmp_path / "summary.json")
    assert repr(AttentionSummary.read(tmp_path / "summary.json")) == repr(summary)
    assert fusion_weights.change_table(summary, "initialisation", "phase 2")[0]["interval over rows"] == "–"


def test_a_summary_needs_the_initialisation():
    with pytest.raises(UserError, match="lack the initialisation"):
        AttentionSummary.from_records("adapterfusion", {"AdapterFusion": [made_record()]}, "completion")


def row(member, value, weight, low, high) -> MemberWorth:
    bounds = Interval(low=low, high=high)
    return MemberWorth(member=member, state="phase 2", mode="exclude", value=value, interval=bounds, weight=weight,
                       by_seed=[value, value], seed_interval=None, share=weight)  # fmt: skip


def test_the_answer_names_the_heaviest_member_its_way_through_the_phases_and_what_muting_costs():
    summary = made_summary(seeds=3)
    mean = {title: state.weights.mean((0, 1)) for title, state in summary.phases.items()}
    heaviest = summary.members[mean["phase 2"].argmax()]
    assert heaviest == "lua", "the made weights of the target are the largest"
    wins = (summary.last.weights.mean(1).argmax(1) == 2).sum()
    others = [row("python", 0.2, 0.3, 0.1, 0.3), row("ruby", -0.1, 0.1, -0.2, -0.05)]
    worth = Worth(method="x", target="lua", samples=4, seeds=3, members=[*others, row("lua", 0.01, 0.4, -0.1, 0.1)],
                  correlations=[])  # fmt: skip
    attends, way, muting = fusion_weights.answer(summary, worth)
    assert attends.startswith(
        f"**advfusion_exclude attends most to Lua's own adapter: {mean['phase 2'][2]:.0%} of the weight**, the most in "
        f"{wins} of 3 seeds. Ruby gets {mean['phase 2'][1]:.0%}."
    )
    assert way == (
        f"The weight of Lua's own adapter went from {mean['initialisation'][2]:.0%} before training, to "
        f"{mean['phase 1, restored'][2]:.0%} after phase 1 (hidden there, then restored), to {mean['phase 2'][2]:.0%} after phase 2."
    )
    assert muting == (
        "Muting Python costs most: +0.200 nats per token (95 % interval +0.100 to +0.300 over test rows); muting Lua's own "
        "adapter, which gets most weight, costs +0.010 (95 % interval -0.100 to +0.100 over test rows)."
    )
    wide = Interval(low=-0.5, high=0.9)
    spread = [one.model_copy(update={"seed_interval": wide, "by_seed": [one.value - 0.2, one.value + 0.2 * sign]})
              for one, sign in zip(worth.members, (1, -1, -1), strict=True)]  # fmt: skip
    assert fusion_weights.answer(summary, worth.model_copy(update={"members": spread}))[2] == (
        "Other seeds could need another member most: muting Python costs +0.200 nats per token (95 % interval "
        "-0.500 to +0.900 over seeds); muting Lua's own adapter, which gets most weight, costs +0.010 (95 % interval "
        "-0.500 to +0.900 over seeds)."
    )
    hidden = replace(summary, method="advfusion_exclude@python")
    assert "after phase 1, to" in fusion_weights.answer(hidden, None)[1], "Python was hidden, not Lua's own adapter"
    assert fusion_weights.answer(summary, None) == [attends, way], "nothing is said of what was not measured"
    none = worth.model_copy(update={"members": [row("python", -0.1, 0.3, -0.2, 0.0), row("lua", 0.0, 0.4, 0.0, 0.0)]})
    assert fusion_weights.answer(summary, none)[2].startswith("Muting a single member does not raise the loss")
    sources = replace(summary, members=["python", "ruby", "go"])
    attends, way = fusion_weights.answer(sources, None)
    assert "attends most to Go" in attends and way.startswith("The weight of Go went from"), "no own adapter, no claim"


def test_a_member_that_leads_on_average_alone_is_said_so():
    summary = made_summary(seeds=3)
    weights = np.full(summary.last.weights.shape, 0.0)
    weights[0, :, 2], weights[1, :, 0], weights[2, :, 1] = 1.0, 0.6, 0.6
    weights[1, :, 2] = weights[2, :, 2] = 0.4
    last = replace(summary.last, weights=weights)
    changed = replace(summary, phases={**summary.phases, "phase 2": last})
    assert fusion_weights.answer(changed, None)[0].startswith(
        "**On average advfusion_exclude gives Lua's own adapter most weight (60%)**, but only 1 of 3 seeds does."
    )


def test_the_sentences_on_worth_name_who_is_needed_who_harms_and_what_attention_tells():
    found = WorthCorrelation(state="phase 2", measure="weight", over="members x kinds of token", points=9,
                             by_seed=[0.1], mean=0.1, sd=None)  # fmt: skip
    members = [row("go", 0.2, 0.3, 0.1, 0.3), row("ruby", -0.1, 0.1, -0.2, -0.05), row("lua", 0.0, 0.6, -0.1, 0.1)]
    worth = Worth(method="x", target="lua", samples=4, seeds=2, members=members, correlations=[found])
    assert fusion_weights.worth_sentences(worth) == [
        "x needs **go** most, while lua has the largest weight: without it the loss changes by +0.2000 nats per token, "
        "clear over the test rows and above 0 in 2 of 2 seeds.",
        "Without **ruby** its loss is lower, by 0.1000 nats per token.",
        "The rank correlation of the weight with the worth is +0.10, over 9 members x kinds of token.",
    ]
    assert fusion_weights.worth_table(members)[0]["over rows"] == "+0.1000\u00a0to\u00a0+0.3000"
    assert fusion_weights.correlation_table([found])[0]["rank correlation"] == "+0.10"


def test_finished_weights_are_set_against_uniform_and_against_the_initialisation():
    one = made_summary()
    fewer = replace(one, members=one.members[1:], phases={
        title: replace(phase, weights=phase.weights[..., 1:]) for title, phase in one.phases.items()
    })  # fmt: skip
    changes = fusion_weights.changes({"all": one, "fewer": fewer})
    np.testing.assert_allclose(changes["minus uniform"]["all"], one.last.weights - 1 / len(one.members))
    np.testing.assert_allclose(changes["minus initialisation"]["all"], one.change("phase 2"))
    left_out = fusion_weights.about({"all": one, "fewer": fewer})["members"].index(one.members[0])
    assert np.isnan(changes["minus uniform"]["fewer"][..., left_out]).all()
    assert np.isfinite(np.delete(changes["minus uniform"]["fewer"], left_out, axis=-1)).all()
