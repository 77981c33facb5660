"""Muon and AdamW as one optimizer: the same steps as both apart, and a state that a checkpoint carries."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from studykit.training.optimizers import Muon, MuonWithAdamW, orthogonalize
from tests.tuners.models import tiny

BETAS = (0.9, 0.95)


def trained(model: nn.Module, optimizers, steps: int) -> nn.Module:
    """The model after steps on the same few sequences of tokens."""
    tokens = torch.arange(24).reshape(2, 12)
    for _ in range(steps):
        model(input_ids=tokens, labels=tokens).loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return model


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("shape", [(24, 24), (40, 16), (16, 40)])
def test_muon_moves_as_torchs_does_up_to_its_rounding_to_bf16(shape):
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(shape, generator=generator) for _ in range(4)]
    ours, theirs = (nn.Parameter(torch.zeros(shape)) for _ in range(2))
    optimizers = [
        Muon([ours], 0.01),
        torch.optim.Muon([theirs], lr=0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
    ]
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert (ours - theirs).norm() < 0.02 * theirs.norm()


def test_singular_values_become_alike():
    matrices = torch.randn(3, 20, 50, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert ((values > 0.6) & (values < 1.3)).all() and torch.linalg.cond(matrices).min() > 2


def test_matrices_move_by_muon_and_all_else_by_adamw():
    together, apart = tiny(), tiny()
    embedded = apart.get_input_embeddings().weight
    matrices = [p for p in apart.parameters() if p.ndim == 2 and p is not embedded and p.shape != embedded.shape]
    others = [p for p in apart.parameters() if not any(p is matrix for matrix in matrices)]
    if not apart.config.tie_word_embeddings:
        head = apart.get_output_embeddings().weight
        matrices, others = [*matrices, head], [p for p in others if p is not head]
    muon = Muon(matrices, 0.01)
    adamw = torch.optim.AdamW(others, lr=0.01, betas=BETAS, weight_decay=0.0, fused=True)
    start = copy.deepcopy(together)
    trained(together, [MuonWithAdamW(together, 0.01, BETAS)], 3)
    trained(apart, [muon, adamw], 3)
    assert same(together, apart) and not same(together, start)


def test_a_training_goes_on_from_a_saved_state(tmp_path):
    whole, stopped = tiny(), tiny()
    trained(whole, [MuonWithAdamW(whole, 0.01, BETAS)], 4)
    optimizer = MuonWithAdamW(stopped, 0.01, BETAS)
    trained(stopped, [optimizer], 2)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    again = MuonWithAdamW(stopped, 0.01, BETAS)
    again.load_state_dict(torch.load(tmp_path / "optimizer.pt"))
    assert same(trained(stopped, [again], 2), whole)
