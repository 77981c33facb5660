"""The worth of members: differences of losses with their intervals, and rank correlations with attention."""

from __future__ import annotations

import numpy as np
import pytest

from studykit.evaluation.worth import LEAST_TOKENS, MutedState, Worth, method_worth, rank_correlation, read_worth
from studykit.runs.files import write_json

SEEDS, MEMBERS, ROWS, KINDS, LAYERS = 3, ["go", "lua"], 12, 2, 2


def state(**changes) -> MutedState:
    """A state in which lua is worth half a nat per token, exactly, and go nothing."""
    rng = np.random.default_rng(0)
    tokens = np.full((ROWS, KINDS), LEAST_TOKENS)
    nats = rng.uniform(1, 2, (SEEDS, ROWS, KINDS)) * tokens
    muted = np.stack([nats, nats + 0.5 * tokens], axis=1)  # (R, A, S, K)
    weights = np.broadcast_to([0.3, 0.7], (SEEDS, KINDS, LAYERS, 2))
    usual = {"state": "phase 2", "members": MEMBERS, "tokens": tokens, "nats": nats, "weights": weights,
             "muted": {"exclude": muted, "zero": muted}, "by_layer": np.zeros((SEEDS, 0, 2, ROWS, KINDS)),
             "shares": 1 - weights}  # fmt: skip
    return MutedState(**usual | changes)


def test_worth_is_the_loss_without_minus_the_loss_with():
    worth = method_worth("adapterfusion", "lua", [state()])
    go, lua = worth.members[:2]
    assert (go.member, go.mode, lua.mode) == ("go", "exclude", "exclude") and len(worth.members) == 4
    assert go.value == 0 and lua.value == pytest.approx(0.5)
    assert lua.interval.low == pytest.approx(0.5) == lua.seed_interval.high
    assert (lua.weight, lua.share) == (pytest.approx(0.7), pytest.approx(0.3))


def test_attention_that_ranks_as_worth_does_correlates_fully_and_the_reverse_not():
    weight, share = method_worth("x", "lua", [state()]).correlations
    assert (weight.measure, weight.points, weight.over) == ("weight", 4, "members x kinds of token")
    assert weight.mean == pytest.approx(1) and share.mean == pytest.approx(-1) and len(weight.by_seed) == SEEDS
    by_layer = np.repeat(state().muted["exclude"][:, None], LAYERS, axis=1)
    found = method_worth("x", "lua", [state(by_layer=by_layer)]).correlations
    assert [row.over for row in found][1] == "members x layers x kinds of token" and found[1].points == 8
    assert found[1].mean == pytest.approx(1)


def test_a_kind_with_few_tokens_is_left_out_and_equal_values_have_no_rank():
    tokens = np.full((ROWS, KINDS), LEAST_TOKENS)
    tokens[:, 1] = 0
    usual = state()
    rare = state(tokens=tokens, nats=usual.nats * [1, 0], muted={k: v * [1, 0] for k, v in usual.muted.items()})
    assert method_worth("x", "lua", [rare]).correlations[0].points == 2
    equal = method_worth("x", "lua", [state(weights=np.full((SEEDS, KINDS, LAYERS, 2), 0.5))]).correlations[0]
    assert equal.mean is None and equal.by_seed == []


def test_the_only_member_cannot_leave_the_softmax():
    usual = state()
    one = {mode: losses[:, :1] for mode, losses in usual.muted.items()}
    one["exclude"] = np.full_like(one["exclude"], np.nan)
    alone = state(members=["go"], muted=one, weights=usual.weights[..., :1], shares=usual.shares[..., :1])
    worth = method_worth("x", "lua", [alone])
    assert [row.mode for row in worth.members] == ["zero"]
    assert all(row.mean is None for row in worth.correlations)


def test_one_seed_has_no_interval_over_seeds_and_rows_of_a_group_count_once():
    usual = state()
    first = state(nats=usual.nats[:1], muted={k: v[:1] for k, v in usual.muted.items()}, weights=usual.weights[:1],
                  shares=usual.shares[:1], by_layer=usual.by_layer[:1])  # fmt: skip
    alone = method_worth("x", "lua", [first], groups=["a"] * ROWS).members[1]
    assert alone.seed_interval is None and alone.interval is None and alone.value == pytest.approx(0.5)


def test_ranks_of_equal_values_are_their_mean():
    assert rank_correlation([1, 2, 3], [10, 20, 15]) == pytest.approx(0.5)
    assert rank_correlation([1, 1, 2], [5, 5, 9]) == pytest.approx(1)
    assert np.isnan(rank_correlation([1, 1], [1, 2]))


def test_the_file_of_a_run(tmp_path):
    worth = method_worth("adapterfusion", "lua", [state()])
    write_json(tmp_path / "worth.json", worth.model_dump(mode="json"))
    assert read_worth(tmp_path / "worth.json") == worth == Worth.model_validate(worth.model_dump())
    assert read_worth(tmp_path / "none.json") is None
