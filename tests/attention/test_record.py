"""Fusion records: which tokens count, means exact however batched, masks, files without pickle or torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from studykit.attention.capture import capture
from studykit.attention.record import (
    COMPLETION,
    LAST,
    POOLS,
    PROMPT,
    SUM_TOLERANCE,
    FusionRecord,
    Origin,
    check_record,
    entropy,
    mean_weights,
    norm_shares,
    require_comparable,
    target_weights,
    token_marks,
)
from studykit.attention.token_kinds import KINDS, OTHER
from studykit.data.encoding import encode_row
from studykit.data.rows import Row
from studykit.errors import UserError
from studykit.tuners import fusion_members, record_fusion
from tests.made_records import sample_means
from tests.tuners.models import fused

MEMBERS = ["python", "ruby", "lua"]
LIMITS = (40, 12)  # tokens of a prompt and of a target


@pytest.fixture(scope="module")
def tokenizer():
    """Byte level, so every text has tokens: 256 bytes and an end of text."""
    vocabulary = {piece: i for i, piece in enumerate(["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokens = Tokenizer(models.BPE(vocabulary, []))
    tokens.pre_tokenizer, tokens.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="<end>", pad_token="<end>")


@pytest.fixture
def model():
    return fused(MEMBERS, vocab_size=257)


def row(i: int) -> Row:
    prompt, target = "write é " + "x" * (3 * i % 7) + "\n", "return " + "<b>"[: 1 + i % 3]
    return Row(f"r{i}", "lua", prompt, target)


ROWS = [row(i) for i in range(7)]


def recorded(model, tokenizer, rows=ROWS, **options) -> FusionRecord:
    options = {"target": "lua", "phase": "phase 2", "progress": False, "limits": LIMITS, **options}
    return capture(model, tokenizer, rows, **options)


def made(weights: list[np.ndarray], phase: str = "phase 2", norms=None, **fields) -> FusionRecord:
    """A record of made-up weights, one (L, T, A) array per sample, with a prompt of 2 tokens."""
    depth, _, members = weights[0].shape
    layers, ids = [f"L{i + 1}" for i in range(depth)], [f"r{i}" for i in range(len(weights))]
    record = FusionRecord.empty(MEMBERS[-members:], "lua", phase, layers, ids)
    for i, w in enumerate(weights):
        shares = norm_shares(w, np.ones_like(w) if norms is None else norms[i])
        kinds = np.arange(w.shape[1], dtype=np.uint8) % 3
        record.add(i, w, shares, token_marks(2, w.shape[1]), kinds)
    for name, value in fields.items():
        setattr(record, name, value)
    return record


@st.composite
def weight_lists(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    concentration = draw(st.sampled_from([0.05, 1.0, 50.0]))
    lengths = draw(st.lists(st.integers(3, 9), min_size=1, max_size=4))
    return [rng.dirichlet(np.full(3, concentration), size=(2, length)) for length in lengths]


def test_completion_positions_are_those_whose_next_token_has_a_label(tokenizer):
    for item in ROWS:
        encoded = encode_row(item, tokenizer, *LIMITS)
        marks = token_marks(encoded.prompt_length, len(encoded.input_ids))
        labelled = [label != -100 for label in encoded.labels[1:]]
        assert (marks[:-1] == COMPLETION).tolist() == labelled
        assert marks[-1] == LAST
    assert token_marks(3, 6).tolist() == [PROMPT, PROMPT, COMPLETION, COMPLETION, COMPLETION, LAST]
    assert token_marks(0, 2).tolist() == [COMPLETION, LAST]


def test_means_are_those_of_samples_run_alone(model, tokenizer):
    record = recorded(model, tokenizer, batch_size=3, keep=2)
    sums, tokens = 0, 0
    for i, item in enumerate(ROWS):
        encoded = encode_row(item, tokenizer, *LIMITS)
        with torch.no_grad(), record_fusion(model) as last_pass:
            model(input_ids=torch.tensor([encoded.input_ids]))
        alone = np.stack([last_pass.weights[layer, "output"][0].numpy() for layer in (0, 1)])  # (L, T, A)
        part = alone[:, encoded.prompt_length - 1 : -1]
        np.testing.assert_allclose(sample_means(record)[i], part.mean(1), atol=1e-5)
        sums, tokens = sums + part.sum(1), tokens + part.shape[1]
    np.testing.assert_allclose(mean_weights(record), sums / tokens, atol=1e-5)
    assert record.ids == [item.id for item in ROWS]
    assert record.layers == ["L1", "L2"] and record.members == MEMBERS


@pytest.mark.parametrize("tokens", ["prompt", "completion", "both"])
def test_batching_changes_nothing(model, tokenizer, tokens):
    one, many = (recorded(model, tokenizer, batch_size=size) for size in (1, 7))
    for weighted in (False, True):
        a, b = (mean_weights(record, tokens, weighted) for record in (one, many))
        np.testing.assert_allclose(a, b, atol=1e-5)
        np.testing.assert_allclose(a.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(one.counts, many.counts)


def test_kept_samples_are_the_first_rows_in_full(model, tokenizer):
    record = recorded(model, tokenizer, batch_size=2, keep=3)
    assert [sample.id for sample in record.samples] == ["r0", "r1", "r2"]
    for sample, means in zip(record.samples, sample_means(record), strict=False):
        assert sample.weights.dtype == np.float16
        assert sample.weights.shape == (2, len(sample.tokens), 3) == (2, len(sample.marks), 3)
        np.testing.assert_allclose(sample.weights.astype(float).sum(-1), 1, atol=SUM_TOLERANCE)
        kept = sample.weights[:, sample.marks == COMPLETION].astype(float).mean(1)
        np.testing.assert_allclose(kept, means, atol=1e-3)
    text = "".join(record.samples[0].tokens)
    assert text.startswith("write ") and text.endswith("return <<end>")


def test_a_kept_token_has_the_loss_of_the_next_one(model, tokenizer):
    kept = {sample.id: sample for sample in recorded(model, tokenizer, batch_size=4, keep=["r5", "r2"]).samples}
    for item in (ROWS[2], ROWS[5]):
        ids = torch.tensor(encode_row(item, tokenizer, *LIMITS).input_ids)
        with torch.no_grad():
            expected = torch.nn.functional.cross_entropy(model(ids[None]).logits[0, :-1], ids[1:], reduction="none")
        np.testing.assert_allclose(kept[item.id].losses, [*expected, 0], rtol=2e-3)


def test_chosen_samples_are_kept_by_their_ids(model, tokenizer):
    record = recorded(model, tokenizer, batch_size=2, keep=["r5", "r2"], origin=Origin(base="tiny-0"))
    assert [sample.id for sample in record.samples] == ["r2", "r5"] and record.base == "tiny-0"
    assert recorded(model, tokenizer, keep=0).samples == []
    with pytest.raises(UserError, match="'r9', which is not among the 7 rows"):
        recorded(model, tokenizer, keep=["r9"])


def test_sums_by_kind_of_token_add_up_and_are_those_of_the_tokens(model, tokenizer):
    record = recorded(model, tokenizer, keep=len(ROWS))
    for name in ("counts", "weight_sums", "share_sums", "entropy_sums"):
        by_kind, by_sample = getattr(record, f"kind_{name}").sum(1), getattr(record, name).sum(0)
        np.testing.assert_allclose(by_kind, by_sample, rtol=1e-12)
    for kind in ("keyword", "punctuation"):
        here = [(s.weights.astype(float), (s.marks == COMPLETION) & (s.kinds == KINDS.index(kind)))
                for s in record.samples]  # fmt: skip
        tokens = np.concatenate([weights[:, mine] for weights, mine in here], axis=1)
        np.testing.assert_allclose(mean_weights(record, kinds=[kind]), tokens.mean(1), atol=1e-3)
    np.testing.assert_allclose(mean_weights(record, kinds=KINDS), mean_weights(record), rtol=1e-12)
    assert np.isnan(mean_weights(record, "prompt", kinds=["comment"])).all()
    with pytest.raises(UserError, match="'noun' is none of them"):
        mean_weights(record, kinds=["noun"])
    ends = [sample.kinds[-1] for sample in record.samples]
    assert set(ends) == {OTHER}, "the end of text is no code"


def test_excluded_member_is_exactly_zero_and_a_zeroed_one_adds_nothing(model, tokenizer):
    fusion_members(model, masked=["lua"], mode="exclude")
    excluded = recorded(model, tokenizer, phase="phase 1")
    assert (excluded.mask, excluded.masked) == ("exclude", ["lua"])
    assert not target_weights(excluded, "both").any()
    check = check_record(excluded)
    assert check.ok and check.excluded_is_zero

    fusion_members(model, masked=["lua"], mode="zero")
    zeroed = recorded(model, tokenizer, phase="phase 1")
    assert (zeroed.mask, zeroed.masked) == ("zero", ["lua"])
    assert (target_weights(zeroed) > 0).all()
    assert not target_weights(zeroed, weighted=True).any()
    check = check_record(zeroed)
    assert check.excluded_is_zero is None

    fusion_members(model, masked=[])
    assert (recorded(model, tokenizer).mask, recorded(model, tokenizer).masked) == ("none", [])


def test_the_model_is_left_as_it_was_and_can_train(model, tokenizer):
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recorded(model, tokenizer)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()  # the stack cached by the pass is usable


def test_a_checks_failure_is_seen():
    weights = np.full((1, 5, 3), 1 / 3)
    assert check_record(made([weights])).ok
    assert not check_record(made([weights * 1.01])).ok
    broken = weights.copy()
    broken[0, -1] = np.nan  # even where no mean looks
    assert not check_record(made([broken])).ok
    assert not check_record(made([weights], mask="exclude", masked=["lua"])).ok


def test_the_file_holds_everything_and_needs_neither_pickle_nor_torch(model, tokenizer, tmp_path):
    record = recorded(model, tokenizer, keep=2, origin=Origin("advfusion", "lua-s0-abc", "tiny-0", 4))
    path = record.save(tmp_path / "deep/record.npz")
    assert [file.name for file in path.parent.iterdir()] == ["record.npz"]
    again = FusionRecord.load(path)
    for name, value in vars(record).items():
        if name != "samples":
            np.testing.assert_array_equal(getattr(again, name), value)
    for old, new in zip(record.samples, again.samples, strict=True):
        for name, value in vars(old).items():
            np.testing.assert_array_equal(getattr(new, name), value)
    code = (
        "import sys; from studykit.attention.record import FusionRecord, mean_weights;"
        "mean_weights(FusionRecord.load(sys.argv[1]));"
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_a_record_without_kept_samples_is_a_record(tmp_path):
    record = made([np.full((2, 5, 3), 1 / 3)])
    assert FusionRecord.load(record.save(tmp_path / "r.npz")).samples == []


def test_foreign_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="no fusion record at"):
        FusionRecord.load(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", meta=np.array([{"a": 1}], dtype=object))
    np.savez(tmp_path / "newer.npz", meta=np.frombuffer(b'{"format": 99}', np.uint8))
    made([np.full((2, 5, 3), 1 / 3)]).save(tmp_path / "cut.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:300])
    for name in ("text", "other", "pickled", "newer", "cut"):
        with pytest.raises(UserError, match=f"{name}.npz"):
            FusionRecord.load(tmp_path / f"{name}.npz")


def test_capture_refuses_what_it_cannot_record(model, tokenizer):
    with pytest.raises(UserError, match="no samples"):
        recorded(model, tokenizer, rows=[])
    with pytest.raises(UserError, match="phase 'phase 3'.*phase 1, phase 2"):
        recorded(model, tokenizer, phase="phase 3")
    with pytest.raises(UserError, match="no fusion"):
        recorded(model.get_base_model().lm_head, tokenizer)


@settings(deadline=None, max_examples=40)
@given(weight_lists())
def test_entropy_laws(weights):
    record = made(weights)
    for tokens in ("completion", "both"):
        of_tokens, of_mean = (entropy(record, tokens, of=of) for of in ("tokens", "mean"))
        assert (of_tokens >= -1e-9).all() and (of_tokens <= of_mean + 1e-9).all()
        assert (of_mean <= np.log2(3) + 1e-9).all()
        normalised = entropy(record, tokens, normalised=True)
        np.testing.assert_allclose(normalised * np.log2(3), of_tokens, atol=1e-12)


def test_entropy_at_the_ends():
    uniform, decided = np.full((1, 5, 3), 1 / 3), np.zeros((1, 5, 3))
    decided[..., 1] = 1
    for of in ("tokens", "mean"):
        np.testing.assert_allclose(entropy(made([uniform]), of=of, normalised=True), 1)
        np.testing.assert_allclose(entropy(made([decided]), of=of, normalised=True), 0)
    halves = np.array([[[0.5, 0.5, 0.0]] * 5])  # uniform over those that take part
    masked = {"mask": "exclude", "masked": ["lua"]}
    np.testing.assert_allclose(entropy(made([halves], **masked), normalised=True), 1)
    assert [made([halves], **mask).active_member_count for mask in ({}, masked, masked | {"mask": "zero"})] == [3, 2, 3]
    with pytest.raises(UserError, match="accepted"):
        entropy(made([uniform]), of="layers")


@settings(deadline=None, max_examples=40)
@given(weight_lists())
def test_the_mean_is_the_token_weighted_mean_of_samples(weights):
    record = made(weights)
    for tokens in ("prompt", "completion", "both"):
        count = record.counts[:, POOLS[tokens]].sum(1)
        pooled = np.average(sample_means(record, tokens), axis=0, weights=count)
        np.testing.assert_allclose(mean_weights(record, tokens), pooled, atol=1e-12)
    np.testing.assert_allclose(target_weights(record), mean_weights(record)[:, -1])
    prompt, completion = record.counts.sum(0)
    parts = prompt * mean_weights(record, "prompt") + completion * mean_weights(record, "completion")
    np.testing.assert_allclose(parts / (prompt + completion), mean_weights(record, "both"), atol=1e-12)


def test_equal_norms_leave_weights_alone_and_a_tiny_output_takes_its_share():
    rng = np.random.default_rng(0)
    weights, norms = rng.dirichlet(np.ones(3), size=(2, 6)), np.ones((2, 6, 3))
    np.testing.assert_allclose(norm_shares(weights, 7 * norms), weights)
    norms[..., 0] = 1e-9
    assert norm_shares(weights, norms)[..., 0].max() < 1e-6
    assert not norm_shares(weights, 0 * norms).any()


def test_a_sample_without_completion_tokens_is_nan_and_not_zero():
    record = made([np.full((1, 5, 3), 1 / 3), np.full((1, 2, 3), 1 / 3)])
    assert record.counts.tolist() == [[1, 3], [1, 0]]
    assert np.isnan(sample_means(record)[1]).all()
    assert np.isfinite(mean_weights(record)).all()
    with pytest.raises(UserError, match="accepted are prompt, completion, both"):
        mean_weights(record, "generated")


def test_records_are_compared_only_on_the_same_samples_and_tokens():
    one = made([np.full((1, 5, 3), 1 / 3)])
    require_comparable(one, made([np.full((1, 5, 3), 1 / 3)], seed=1, phase="phase 1"))
    with pytest.raises(UserError, match="differ in ids"):
        require_comparable(one, made([np.full((1, 5, 3), 1 / 3)], ids=["else"]))
    with pytest.raises(UserError, match="differ in counts"):
        require_comparable(one, made([np.full((1, 6, 3), 1 / 3)]))
    with pytest.raises(UserError, match="at least one"):
        require_comparable()
