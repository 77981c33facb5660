"""Identification: a message that tells its own diff ranks it first, one that fits all ranks it anywhere."""

from __future__ import annotations

import pytest
import torch

from studykit.data.rows import Row
from studykit.evaluation.identification import candidates, chance, identification_score
from studykit.evaluation.losses import reference_losses
from tests import tiny

WORDS = ("alpha", "beta", "gamma", "delta", "omega", "kappa")


def rows(n: int = 6, group: str | None = None) -> list[Row]:
    prompts = [f"diff {word}\n" for word in WORDS[:n]]
    return [Row(f"r{i}", "lua", p, w, (0, len(p)), group) for i, (p, w) in enumerate(zip(prompts, WORDS, strict=False))]


@pytest.fixture(scope="module")
def reader():
    """A base that has learned to repeat the word of the diff."""
    tokens = tiny.tokenizer()
    model = tiny.base_model(tokens).requires_grad_(True)
    examples = tiny.encode_rows(rows(), tokens, *tiny.LIMITS)
    batch = {k: v for k, v in tiny_batch(tokens, examples).items() if k in ("input_ids", "attention_mask", "labels")}
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.requires_grad_(False), tokens


def tiny_batch(tokens, examples):
    from studykit.training.batches import Collator

    return Collator(tokens.pad_token_id)(examples)


def scored(reader, texts: list[str], others: int = 5, samples: int = 1, given: list[Row] | None = None):
    options = {"others": others, "limits": tiny.LIMITS, "batch_size": 4, "name": "b", "samples": samples}
    return identification_score(*reader, given or rows(), texts, **options)


def test_the_own_words_identify_and_one_message_for_all_does_not(reader):
    own = scored(reader, list(WORDS))
    assert own.value == 100 and own.signature.endswith(f"among:6|chance:{chance(6):.1f}|base:b|version:1|n:6")
    for message in ("fix bug", "", "alpha"):  # each diff is first, second ... for exactly one of six rows, or ties
        assert scored(reader, [message] * 6).value == pytest.approx(chance(6), abs=3)
    exchanged = [*WORDS[1:], WORDS[0]]
    assert scored(reader, exchanged).value < chance(6)


def test_the_likelihood_is_that_of_training(reader):
    model, tokens = reader
    a, b, *_ = given = rows(2)
    losses = reference_losses(model, tokens, [a, Row("x", "lua", b.prompt, a.target, b.body)], tiny.LIMITS, 2)
    assert losses[0].nats < losses[1].nats and scored(reader, list(WORDS[:2]), given=given).value == 100


def test_samples_follow_their_row_and_nothing_else_to_compare_with_is_no_score(reader):
    twice = [word for word in WORDS for _ in range(2)]
    assert scored(reader, twice, samples=2).per_example == [100] * 12
    assert scored(reader, list(WORDS), given=rows(group="one")) is None


def test_candidates_are_of_other_groups_and_the_same_each_time():
    given = [*rows(4), Row("again", "lua", "diff alpha\n", "alpha", (0, 11))]
    drawn = candidates(given, 2)
    assert drawn == candidates(given, 2) and all(len(set(indices)) == 3 for indices in drawn)
    assert [indices[0] for indices in drawn] == list(range(5)) and 4 not in candidates(given, 9)[0]
