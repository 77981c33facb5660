"""In whatever order a fusion multiplies its matrices, it is the textbook's function with the textbook's gradients."""

import itertools

import pytest
import torch

from studykit.tuners import fusion as tuners_fusion
from studykit.tuners.bottleneck import Bottleneck
from studykit.tuners.folded import FoldedFusion
from studykit.tuners.fusion import Fusion, MemberStack
from tests.tuners.test_laws import textbook

ORDERS = list(itertools.product(["token", "key", "member"], ["token", "member"]))
SIZES = {"inputs": 12, "outputs": 16}


def made(widths=(3, 3, 3), rank=None, value=True):
    """Members and a fusion in fp64 with random weights."""
    torch.manual_seed(0)
    members = [Bottleneck(**SIZES, width=r, activation="gelu", scaling=1.5).requires_grad_(False) for r in widths]
    fusion = Fusion(**SIZES, value=value, rank=rank)
    for m in (*members, fusion):
        for parameter in m.double().parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    return members, fusion, torch.randn(2, 5, SIZES["inputs"], dtype=torch.float64, requires_grad=True)


def fix(monkeypatch, query: str, value: str) -> None:
    monkeypatch.setattr(tuners_fusion, "cheapest_order", lambda costs: query if "key" in costs else value)


@pytest.mark.parametrize("orders", ORDERS)
@pytest.mark.parametrize("widths", [(3, 3, 3), (1, 4)])
@pytest.mark.parametrize("masked, mode", [((), "zero"), ((1,), "zero"), ((0,), "exclude")])
@pytest.mark.parametrize("rank", [None, 2])
def test_every_order_has_the_textbooks_gradients(monkeypatch, orders, widths, masked, mode, rank):
    fix(monkeypatch, *orders)
    members, fusion, x = made(widths, rank)
    upstream = torch.randn(2, 5, SIZES["outputs"], dtype=torch.float64)
    wanted = [x, *fusion.parameters()]

    expected = textbook(fusion, members, x, masked, mode)
    expected_gradients = torch.autograd.grad((expected * upstream).sum(), wanted)
    context, _, _ = fusion(x, MemberStack.from_members(members), masked, mode)
    gradients = torch.autograd.grad((context * upstream).sum(), wanted)

    torch.testing.assert_close(context, expected, atol=1e-10, rtol=1e-10)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("orders", ORDERS)
def test_every_order_passes_gradcheck(monkeypatch, orders):
    fix(monkeypatch, *orders)
    members, fusion, x = made()
    stack = MemberStack.from_members(members)
    assert torch.autograd.gradcheck(lambda x, *_: fusion(x, stack)[0], (x, *fusion.parameters()))


@pytest.mark.parametrize("widths", [(3, 3, 3), (1, 4)])
@pytest.mark.parametrize("masked, mode", [((), "zero"), ((1,), "zero"), ((0,), "exclude")])
@pytest.mark.parametrize("rank, value", [(None, True), (None, False), (2, True)])
def test_folded_is_the_same_function(widths, masked, mode, rank, value):
    members, fusion, x = made(widths, rank, value)
    stack = MemberStack.from_members(members)
    expected, alpha, _ = fusion(x, stack, masked, mode)
    folded = FoldedFusion.from_fusion(fusion, stack)
    context, attention = folded(x, masked, mode)
    torch.testing.assert_close(context, expected, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(attention, alpha, atol=1e-10, rtol=1e-10)


def test_orders_follow_the_shapes():
    fusion = Fusion(64, 64)
    few = MemberStack.from_members([Bottleneck(64, 64, 4) for _ in range(2)])
    many = MemberStack.from_members([Bottleneck(64, 64, 64) for _ in range(8)])
    assert tuners_fusion.cheapest_order(fusion.query_costs(torch.empty(4, 256, 64), few)) == "member"
    assert tuners_fusion.cheapest_order(fusion.query_costs(torch.empty(1, 1, 64), few)) == "token"
    assert tuners_fusion.cheapest_order(fusion.query_costs(torch.empty(4, 256, 64), many)) == "token"
    assert tuners_fusion.cheapest_order(fusion.value_costs(torch.empty(4, 256, 10), few)) == "member"
    assert tuners_fusion.cheapest_order(fusion.value_costs(torch.empty(1, 1, 10), few)) == "token"
    thin = Fusion(64, 64, rank=2)
    assert tuners_fusion.cheapest_order(thin.query_costs(torch.empty(4, 256, 64), few)) == "key"
