"""The base: a tokenizer that writes any text, blocks with the loss where it belongs, checkpoints in 4 bits."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from functools import cache
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from studykit.data.corpus import Document, builtin_documents, file_documents
from studykit.errors import UserError
from studykit.study.parameters import check
from studykit.training import adapters, base, pretraining
from studykit.training.decoding import Decoding
from studykit.training.generate import generate
from studykit.training.train import TrainingSettings
from tests.tuners.models import tiny

CODE = ["def solve(a, b):\n    return a + 1234567890", "local function solve(a)\n  return a * 10\nend"]


@cache
def tokenizer():
    return pretraining.train_tokenizer(CODE * 20, 320)


def decoded(ids):
    return tokenizer().decode(ids, clean_up_tokenization_spaces=False)


# The tokenizer


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_survives_the_tokenizer(text):
    text = unicodedata.normalize("NFC", text)  # Qwen2's tokenizer composes characters first
    assert decoded(tokenizer()(text)["input_ids"]) == text


@pytest.mark.parametrize(
    "text", ["naïve café — λ", "日本語 🙂\u200d🙂", "\t\r\n  \x00", "a  b", " leading", "<|endoftext"]
)
def test_odd_texts_survive_it_too(text):
    assert decoded(tokenizer()(text)["input_ids"]) == text


@settings(deadline=None)
@given(st.integers(0, 10**12))
def test_every_digit_is_a_token(number):
    pieces = [decoded([token]).strip() for token in tokenizer()(f"x = {number}")["input_ids"]]
    assert "".join(pieces) == f"x={number}"
    assert all(len(piece) == 1 for piece in pieces if any(c.isdigit() for c in piece))


def test_end_and_padding_are_two_tokens_that_text_does_not_hold():
    t = tokenizer()
    assert t.eos_token_id != t.pad_token_id and len(t) <= 320
    assert not {t.eos_token_id, t.pad_token_id} & set(t("".join(CODE))["input_ids"])


@pytest.mark.parametrize("text", ["\n".join(CODE), "λ e\u0301", "a=1\n\n  b=22 'll don't\t#x\r\n", "    return  a"])
def test_the_tokenizer_is_the_same_after_saving(tmp_path, text):
    """AutoTokenizer takes the class that belongs to the model's family, whatever class was saved."""
    run_of(tmp_path)
    loaded = base.open_tokenizer(str(tmp_path / "model"))
    assert loaded(text)["input_ids"] == tokenizer()(text)["input_ids"]
    assert (loaded.eos_token_id, loaded.pad_token_id) == (tokenizer().eos_token_id, tokenizer().pad_token_id)


# Blocks


DOCUMENTS = st.lists(st.tuples(st.text("ab# \n", max_size=9), st.text("ab12 \n", max_size=30)), min_size=4, max_size=30)


@settings(max_examples=40, deadline=None)
@given(DOCUMENTS, st.integers(64, 90))
def test_blocks_hold_every_document_whole_with_no_loss_on_contexts(texts, context):
    documents = [Document(before, text + "ab" * 8, "lua", "code") for before, text in texts]
    blocks = pretraining.packed_blocks(documents, tokenizer(), context)
    assert all(0 < len(block["input_ids"]) == len(block["labels"]) <= context for block in blocks)
    held = Counter(pair for block in blocks for pair in cut_at_ends(block))
    wanted: Counter = Counter()
    for document in documents:
        before, text = (tokenizer()(part)["input_ids"] for part in (document.context, document.text))
        text = [*text, tokenizer().eos_token_id]
        wanted[tuple(before + text), (-100,) * len(before) + tuple(text)] += 1
    assert held == wanted


def test_a_document_longer_than_a_block_is_cut():
    document = Document("# ab", "1" * 20, "lua", "code")
    before, text = (tokenizer()(part)["input_ids"] for part in (document.context, document.text))
    blocks = pretraining.packed_blocks([document], tokenizer(), 8)
    ids = [*before, *text, tokenizer().eos_token_id]
    assert [block["input_ids"] for block in blocks] == [ids[i : i + 8] for i in range(0, len(ids), 8)]
    assert [label for block in blocks for label in block["labels"]] == [-100] * len(before) + ids[len(before) :]


def cut_at_ends(block):
    """A block's pieces, each up to its end token."""
    ids, labels, start = block["input_ids"], block["labels"], 0
    for at, token in enumerate(ids, 1):
        if token == tokenizer().eos_token_id or at == len(ids):
            yield tuple(ids[start:at]), tuple(labels[start:at])
            start = at


def test_blocks_are_filled():
    """Documents of 39 tokens go into the blocks of 100 in which those of 59 lie."""
    documents = [Document("", "ab" * n, "lua", "code") for n in [29, 29, 29, 19, 19, 19]]
    lengths = [len(block["input_ids"]) for block in pretraining.packed_blocks(documents, tokenizer(), 100)]
    sizes = [len(tokenizer()(document.text)["input_ids"]) + 1 for document in documents]
    assert len(lengths) == 3 and set(lengths) == {sizes[0] + sizes[-1]}


def test_a_corpus_of_one_document():
    with pytest.raises(UserError, match="The corpus has 1 document; at least 2 are needed"):
        pretraining.split_blocks([Document("", "ab", "lua", "code")], tokenizer(), 99)


# The corpus


def test_the_target_is_never_described_in_the_corpus():
    documents = list(builtin_documents(["python", "go", "lua"], "lua", 400, 0.1, seed=0))
    assert documents == list(builtin_documents(["python", "go", "lua"], "lua", 400, 0.1, seed=0))
    own = [document for document in documents if document.language == "lua"]
    assert 20 < len(own) < 70 and all(d.kind == "code" and not d.context for d in own)
    assert all(d.context.endswith("\n") for d in documents if d.kind == "documented")
    assert not [d for d in builtin_documents(["python", "lua"], "lua", 200, 0.0, seed=0) if d.language == "lua"]


@pytest.mark.parametrize("share, kept", [(1.0, 20), (0.1, 2), (0.001, 1), (0.0, 0)])
def test_of_the_target_only_a_share_of_the_files(tmp_path, share, kept):
    for language in ("go", "lua"):
        lines = [json.dumps({"content": f"{language} {n}"}) for n in range(20)]
        (tmp_path / f"{language}.jsonl").write_text("\n".join(lines))
    documents = file_documents(tmp_path, ["go", "lua"], "lua", share, seed=0)
    assert sum(document.language == "lua" for document in documents) == kept
    assert sum(document.language == "go" for document in documents) == 20
    assert [d.language for d in documents] != sorted(d.language for d in documents) or kept < 2


def test_a_file_without_content_is_named_with_its_line(tmp_path):
    (tmp_path / "go.jsonl").write_text('{"content": "a"}\n{"text": "b"}\n')
    with pytest.raises(UserError, match=r"go.jsonl, line 2: 'content' is missing"):
        file_documents(tmp_path, ["go"], "lua", 0.5, seed=0)


# Checkpoints


def run_of(directory, quantization="none", **kind):
    """A base run around a random decoder on disk."""
    model = tiny(hidden_size=64, intermediate_size=128, head_dim=16, vocab_size=len(tokenizer()), **kind)
    model.generation_config.eos_token_id = model.config.eos_token_id = tokenizer().eos_token_id
    model.save_pretrained(directory / "model")
    tokenizer().save_pretrained(directory / "model")
    (directory / "base.json").write_text(json.dumps({"weights": "model", "quantization": quantization}))
    return directory


ADAPTER = {"method": "bottleneck", "reduction_factor": 4.0, "language": "lua", "seed": 0, "init_seed": "shared",
           "train_embeddings": False}  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes in bf16 or not, whatever the CPU does")
@pytest.mark.parametrize("flags, width, precision", [
    ("sse2 amx_bf16", 576, "bf16"), ("avx512_bf16 avx512f", 576, "bf16"), ("avx512_bf16 avx512f", 96, "fp32"),
    ("sse2 avx512f", 576, "fp32")])  # fmt: skip
def test_auto_is_bf16_for_wide_bases_on_cpus_that_multiply_it(tmp_path, monkeypatch, flags, width, precision):
    cpus = tmp_path / "cpuinfo"
    cpus.write_text(f"model name\t: made\nflags\t\t: {flags}\n")
    monkeypatch.setattr(base, "CPUS", cpus)
    described = {"weights": "./models/mine", "quantization": "none", "hidden_size": width}
    (tmp_path / "base.json").write_text(json.dumps(described))
    p = check("adapter", {"base": str(tmp_path)})
    settings = TrainingSettings.of(p)
    assert settings.precision == TrainingSettings.of(settings).precision == precision
    assert TrainingSettings.of(p.model_copy(update={"precision": "fp32"})).precision == "fp32"


@pytest.mark.skipif(torch.cuda.is_available(), reason="4 bits on a GPU are tested where models are trained")
@pytest.mark.parametrize("quantization, kind", [("nf4", "Linear4bit"), ("int8", "Linear8bitLt"), ("none", "Linear")])
def test_an_adapter_trains_on_a_quantised_base_on_the_cpu(tmp_path, quantization, kind):
    model, own = base.load_base(run_of(tmp_path, quantization))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert type(model.model.layers[0].mlp.up_proj).__name__ == kind
    assert type(model.lm_head).__name__ == "Linear"
    model = adapters.new_adapter(model, SimpleNamespace(**ADAPTER))
    batch = own(CODE[:1], return_tensors="pt", return_token_type_ids=False)
    loss = model(**batch, labels=batch["input_ids"]).loss
    loss.backward()
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert loss.isfinite() and trained and all("adapters.lua" in name for name in trained)
    assert all(grad is not None and grad.isfinite().all() for grad in trained.values())
    assert all(grad.abs().sum() > 0 for name, grad in trained.items() if "up" in name)
    (said,) = generate(model, own, ["def solve"], Decoding(5), batch_size=1)
    assert said.tokens or said.finished


@pytest.mark.skipif(torch.cuda.is_available(), reason="4 bits on a GPU are tested where models are trained")
@pytest.mark.parametrize("family", ["Qwen2", "Llama"])
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_an_evaluation_leaves_the_gradients_as_they_were(tmp_path, quantization, family):
    model, own = base.load_base(run_of(tmp_path, quantization, family=family))
    model = adapters.new_adapter(model, SimpleNamespace(**ADAPTER))
    batch = own(CODE[:1], return_tensors="pt", return_token_type_ids=False)

    def gradients() -> torch.Tensor:
        model.train().zero_grad()
        model(**batch, labels=batch["input_ids"]).loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])

    before = gradients()
    with torch.no_grad():
        model.eval()(**batch)
    torch.testing.assert_close(gradients(), before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="4 bits on a GPU are tested where models are trained")
def test_four_bits_say_nearly_what_all_bits_say(tmp_path):
    run_of(tmp_path)
    batch = tokenizer()(CODE[:1], return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        full, four = (base.load_base(tmp_path, bits)[0](**batch).logits.flatten() for bits in ("none", "nf4"))
    assert not torch.equal(full, four) and torch.cosine_similarity(full, four, dim=0) > 0.8


@pytest.mark.skipif(torch.cuda.is_available(), reason="8 bits on a GPU round inputs in both")
def test_int8_gives_a_row_the_same_alone_and_among_others(tmp_path):
    """And what is evaluated is what was trained: bitsandbytes rounds the inputs in evaluation only."""
    model, _ = base.load_base(run_of(tmp_path, "int8"))
    ids = torch.randint(5, 200, (4, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, trained = model(ids).logits, model.train()(ids).logits
        alone = torch.cat([model.eval()(row[None]).logits for row in ids])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together, trained, atol=1e-4, rtol=1e-4)


def test_gpt_neox_is_causal_whatever_its_configuration_says():
    model = tiny("GPTNeoX").eval()
    assert model.config.is_decoder is False
    base.require_causal_model(model, "pythia")


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernel for GPUs reads all widths rightly")
def test_widths_that_a_cpu_reads_wrongly_in_four_bits_are_refused(tmp_path, monkeypatch):
    run_of(tmp_path)
    assert base.four_bit_error(64) < 0.1 and base.four_bit_error(576) < 0.1
    monkeypatch.setattr(base, "four_bit_error", {64: 0.09, 128: 0.25}.get)
    with pytest.raises(
        UserError, match="has layers with 128 inputs, whose weights bitsandbytes reads wrongly in 4 bits"
    ):
        base.load_base(tmp_path, "nf4")
    assert base.load_base(tmp_path, "int8")[0] and base.load_base(tmp_path, "none")[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernel for GPUs reads all widths rightly")
@pytest.mark.parametrize("width", [64, 96, 100, 128])
def test_the_error_of_four_bits_is_told_from_wrongly_read_ones(width):
    from bitsandbytes.functional import dequantize_4bit, get_4bit_type, quantize_4bit

    weights = torch.randn(64, width, generator=torch.Generator().manual_seed(1))
    packed, state = quantize_4bit(weights, quant_type="nf4")
    codes = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], dim=1).flatten().long()
    right = (get_4bit_type("nf4", device="cpu")[codes].view(-1, 64) * state.absmax[:, None]).view_as(weights)
    assert float((right - weights).norm() / weights.norm()) < 0.1, "it is reading that goes wrong, not rounding"
    read = dequantize_4bit(packed, state)
    assert (base.four_bit_error(width) < 0.12) == torch.allclose(read, right, atol=1e-5)


def test_a_checkpoint_is_found_again_from_anywhere(tmp_path, monkeypatch):
    home, other = tmp_path / "home", tmp_path / "other"
    for place in (home / "model", other, home / "elsewhere", home / "runs"):
        place.mkdir(parents=True)
    monkeypatch.setenv("STUDYKIT_HOME", str(home))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    names = {"./model": "./model", "model": "./model", "~/model": "./model", str(other): str(other), "gpt2": "gpt2"}
    for given_name, kept in names.items():
        assert base.portable_name(given_name) == kept
        (home / "runs/base.json").write_text(json.dumps({"weights": kept, "quantization": "none"}))
        monkeypatch.chdir(home / "elsewhere")
        expected = kept if kept in ("gpt2", str(other)) else str(home / "model")
        assert base.base_weights(home / "runs") == expected
        monkeypatch.chdir(home)


@pytest.mark.parametrize("look", [base.pinned, base.open_model, base.open_tokenizer])
@pytest.mark.parametrize("name", ["./absent", "/absent/model", "nobody/nothing", "no such name"])
def test_a_missing_checkpoint_is_one_sentence(look, name, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as error:
        look(name)
    assert f"base={name!r}" in str(error.value) and "\n" not in str(error.value)


def test_a_directory_without_a_checkpoint(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        base.pinned(str(tmp_path))
    with pytest.raises(UserError, match="holds no base model; a finished run of notebook 00_base_model is needed"):
        base.load_base(tmp_path)
