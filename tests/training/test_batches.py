"""Packing: fewer padded tokens, the same loss and gradients, and no example that sees another."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given
from hypothesis import strategies as st

from studykit.errors import UserError
from studykit.training.batches import Collator, forward, pack, require_packable, require_steady_positions, token_losses
from studykit.training.train import TrainingSettings, train
from tests import tiny
from tests.tuners import models

LENGTHS = [12, 3, 7, 2, 9, 4, 1]


def examples(lengths: list[int], seed: int = 0) -> list[dict]:
    """Examples of these lengths; the first half of each is its prompt."""
    rows = [models.tokens(1, n, seed + at)[0].tolist() for at, n in enumerate(lengths)]
    return [{"input_ids": ids, "labels": [-100] * (len(ids) // 2) + ids[len(ids) // 2 :]} for ids in rows]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=24))
def test_every_example_lies_once_in_a_row_that_is_not_too_long(lengths):
    given = examples(lengths)
    rows = pack(given)
    assert sorted(map(id, sum(rows, []))) == sorted(map(id, given))
    sizes = sorted(sum(len(e["input_ids"]) for e in row) for row in rows)
    assert sizes[-1] == max(lengths)
    assert len(sizes) < 2 or sizes[0] + sizes[1] > max(lengths)  # else two rows would have been one
    batch = Collator(0, packing=True)(given)
    assert batch["attention_mask"].shape == (len(rows), 1, max(lengths), max(lengths))
    plain = Collator(0)(given)
    for name in ("completion_labels", "sequence_labels"):
        assert sorted(batch[name][batch[name] != -100]) == sorted(plain[name][plain[name] != -100])


@pytest.mark.parametrize("family", models.FAMILIES)
@pytest.mark.parametrize("loss_on", ["completion", "sequence"])
def test_loss_and_gradients_are_those_of_the_padded_batch(family, loss_on):
    model, given, found = models.fused(["python", "lua"], family), examples(LENGTHS), []
    for packing in (False, True):
        batch = Collator(0, loss_on, packing)(given)
        losses = token_losses(model, batch, batch["labels"])
        model.zero_grad()
        losses.sum().backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        found.append((losses.sum().item(), gradients, batch["input_ids"].numel()))
    (loss, gradients, tokens), (packed_loss, packed_gradients, packed_tokens) = found
    assert packed_loss == pytest.approx(loss, rel=1e-5) and gradients.keys() == packed_gradients.keys() != set()
    # A bias of keys moves no attention weight, so its gradient is nothing but rounding.
    rounding = 1e-7 * max(gradient.abs().max().item() for gradient in gradients.values())
    for name, gradient in gradients.items():
        atol = max(1e-4 * gradient.abs().max().item(), rounding)
        torch.testing.assert_close(packed_gradients[name], gradient, rtol=1e-3, atol=atol)
    assert packed_tokens < 0.6 * tokens


@pytest.mark.parametrize("family", [*models.FAMILIES, "Gemma2", "Cohere", "Granite", "GPTNeoX"])
@pytest.mark.parametrize("loss_on, packing", [("completion", False), ("completion", True), ("sequence", False)])
def test_losses_are_those_of_all_logits_though_only_those_of_labels_are_computed(family, loss_on, packing):
    """Also where a model scales or caps its logits."""
    model, batch = scaled(family), Collator(0, loss_on, packing)(examples(LENGTHS))
    labels, rows = batch["labels"], []
    head = model.get_output_embeddings()
    with head.register_forward_hook(lambda *args: rows.append(args[-1].shape[:-1].numel())):
        losses = token_losses(model, batch, labels)
    logits = forward(model, batch).logits[:, :-1].float()
    expected = F.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    assert losses.sum() > 0 and rows == [(labels != -100).sum()]
    gradients = [torch.autograd.grad(loss.sum(), head.weight)[0] for loss in (losses, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def scaled(family: str):
    """A tiny model of a family, with a scale or a cap of its logits where the family has one."""
    if family in models.FAMILIES:
        return models.tiny(family)
    options = {"Gemma2": {"final_logit_softcapping": 2.0}, "Cohere": {"logit_scale": 0.25},
               "Granite": {"logits_scaling": 4.0}}  # fmt: skip
    return models.tiny(family, **options.get(family, {}))


def test_a_model_that_applies_its_output_embedding_in_another_way_has_the_same_losses():
    class Functional(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.whole = models.tiny()

        def get_output_embeddings(self):
            return self.whole.lm_head

        def forward(self, input_ids, **inputs):
            states = self.whole.model(input_ids, **inputs).last_hidden_state
            return SimpleNamespace(logits=F.linear(states, self.whole.lm_head.weight))

    model, batch = Functional(), Collator(0)(examples(LENGTHS))
    losses = token_losses(model, batch, batch["labels"])
    torch.testing.assert_close(losses, token_losses(model.whole, batch, batch["labels"]), rtol=1e-5, atol=1e-5)
    model.get_output_embeddings = lambda: None
    assert torch.equal(token_losses(model, batch, batch["labels"]), losses)


def test_a_batch_without_a_label_has_losses_of_zero():
    batch = Collator(0)(examples([3, 5]))
    losses = token_losses(models.tiny(), batch, torch.full_like(batch["labels"], -100))
    assert losses.shape == (2, 4) and not losses.any()


def test_no_example_sees_another():
    """Whatever stands beside it in its row, an example's logits are the same."""
    model = models.tiny()
    first, second = examples([12, 3, 7]), examples([12, 3, 7], seed=50)
    batches = [Collator(0, packing=True)(rows) for rows in (first, [second[0], second[1], first[2]])]
    at = [(batch["input_ids"] == first[2]["input_ids"][0]).nonzero() for batch in batches]
    assert all(len(found) for found in at)
    logits = [forward(model, batch).logits[1, :7] for batch in batches]  # the row of 7, then 3
    assert [len(row) for row in pack(first)] == [1, 2]
    assert torch.equal(logits[0], logits[1])


def test_training_learns_the_same(tmp_path):
    tokens = tiny.tokenizer()
    losses = []
    for packing in (False, True):
        model = tiny.base_model(tokens).requires_grad_(True)
        p = TrainingSettings(learning_rate=1e-2, batch_size=6, eval_every=4, precision="fp32", packing=packing)
        rows = tiny.examples(tokens, 12), tiny.examples(tokens, 5, first=12)
        result, _ = train(model, tokens, *rows, p, steps=8, trainer_state_dir=tmp_path / str(packing), seed=0)
        losses.append([row["eval_loss"] for row in result.log if "eval_loss" in row])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3) and losses[0][-1] < losses[0][0]


def test_another_attention_is_refused(tmp_path):
    tokens = tiny.tokenizer()
    model = tiny.base_model(tokens)
    model.set_attn_implementation("eager")
    rows = tiny.examples(tokens, 4)
    with pytest.raises(UserError, match="'eager'; packed rows need 'sdpa'"):
        train(model, tokens, rows, rows, TrainingSettings(learning_rate=1e-2, packing=True), steps=1,
              trainer_state_dir=tmp_path, seed=0)  # fmt: skip


WINDOWS = {"Mistral": {}, "Mixtral": {}, "Starcoder2": {}, "Phi3": {}, "Gemma3": {}, "Cohere2": {},
           "Qwen2": {"use_sliding_window": True, "max_window_layers": 0}}  # fmt: skip


def windowed(family: str, window: int, **options):
    """A tiny model of a family whose tokens look back `window` tokens at most, in some layers or all."""
    config = getattr(transformers, f"{family}{'Text' if family == 'Gemma3' else ''}Config")
    fields = {**models.SIZES, "num_hidden_layers": 3, "sliding_window": window, **options}
    torch.manual_seed(0)
    return getattr(transformers, f"{family}ForCausalLM")(config(**fields)).eval()


@pytest.mark.parametrize("family, options", WINDOWS.items())
def test_packing_within_a_sliding_window_only(family, options):
    longest = max(LENGTHS)
    with pytest.raises(UserError, match=f"looks back 8 tokens only and the longest example has {longest}"):
        require_packable(windowed(family, 8, **options), longest)
    model, losses = windowed(family, longest, **options), []
    require_packable(model, longest)
    for packing in (False, True):
        batch = Collator(0, packing=packing)(examples(LENGTHS))
        losses.append(token_losses(model, batch, batch["labels"]).sum().item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_packing_without_a_window():
    require_packable(windowed("Mistral", None), 9999)
    require_packable(windowed("Qwen2", 8, use_sliding_window=False), 9999)
    config = transformers.Qwen3NextConfig(**models.SIZES, num_experts=2, num_experts_per_tok=1)
    with pytest.raises(UserError, match="layers of .'linear_attention'.*packing: false is accepted"):
        require_packable(transformers.Qwen3NextForCausalLM(config), 3)


def test_a_training_with_packing_looks_at_its_longest_example(tmp_path):
    tokens = tiny.tokenizer()
    model = tiny.base_model(tokens)
    model.config.sliding_window, model.config.use_sliding_window = 3, True
    rows = tiny.examples(tokens, 4)
    p = TrainingSettings(learning_rate=1e-2, packing=True)
    with pytest.raises(UserError, match="looks back 3 tokens only"):
        train(model, tokens, rows, rows, p, steps=1, trainer_state_dir=tmp_path, seed=0)


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "yarn"])
def test_positions_that_stretch_with_the_longest_row_are_refused(kind):
    model = models.tiny("Llama", max_position_embeddings=16)
    model.config.rope_parameters = {"rope_type": kind, "factor": 4.0, "rope_theta": 10000.0}
    require_steady_positions(model, 16)
    if kind == "yarn":
        return require_steady_positions(model, 17)
    with pytest.raises(UserError, match=rf"has 17 tokens, but this llama stretches its positions \({kind}\) beyond 16"):
        require_steady_positions(model, 17)
