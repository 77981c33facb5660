"""Tokenizers that people have: prompt and target read back as they were written, whatever the family."""

from __future__ import annotations

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from studykit.data.encoding import decode_continuation, encode_prompt, encode_row
from studykit.data.rows import Row
from studykit.training.decoding import Decoding, StopStrings
from studykit.training.generate import Request, _completion, generate
from tests.tuners.models import tiny

CODE = ["def f(x):\n    y = x + 1\n    return y\n", "local function g(a)\n\tif a then\n\t\treturn 10\n\tend\nend\n"]
TARGETS = [
    "    y = x + 1\n    return y\n",
    "return y",
    "\n\n  end",
    " x",
    "  x",
    "\treturn 10",
    "é λ 日本 🙂 = 1",
    "x = x.replace('<|endoftext|>', '<s>').strip('</s><|pad|>')\nprint(x)",
    "",
]
PROMPTS = ["def f(x):\n", "x =", "# λ\n", "é", "<s>[INST] a </s>\n"]
SPECIAL = ["<unk>", "<s>", "</s>", "<|endoftext|>", "<|pad|>"]
BYTES = [f"<0x{i:02X}>" for i in range(256)]
SENTENCEPIECE = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]


def byte_level():
    """The family of GPT-2, StarCoder, Qwen and DeepSeek-Coder."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(CODE * 9, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet))
    return backend


def byte_level_with_prefix():
    """A byte-level BPE that puts a space before a text, as RoBERTa's can."""
    backend = byte_level()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return backend


def fallback_bpe():
    """The merges of Llama 2 and Mistral in small: runs of spaces are entries, and a newline is a byte."""
    vocab = {token: number for number, token in enumerate([*SPECIAL[:3], *BYTES])}
    for piece in ["▁", *map(chr, range(33, 127)), "▁▁", "▁▁▁▁", "▁▁▁▁▁▁▁▁", "▁r", "re"]:
        vocab.setdefault(piece, len(vocab))
    merges = [("▁", "▁"), ("▁▁", "▁▁"), ("▁▁▁▁", "▁▁▁▁"), ("r", "e"), ("▁", "r")]
    return Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))


def sentencepiece_bpe():
    """Llama 2 as its file is published: the space is put before a text by the normalizer."""
    backend = fallback_bpe()
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(SENTENCEPIECE)
    return backend


def metaspace_bpe():
    """CodeLlama as transformers 5 makes it: the space is put before a text's first word."""
    backend = fallback_bpe()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(SENTENCEPIECE)
    return backend


def unigram():
    """The family of T5 and XGLM, with bytes for what is in no entry."""
    pieces = [*SPECIAL[:3], *BYTES, "▁", *map(chr, range(33, 127)), "▁▁", "▁▁▁▁", "▁return", "▁x", "▁=", "de", "def"]
    backend = Tokenizer(models.Unigram([(piece, -float(1 + n / 99)) for n, piece in enumerate(pieces)], 0, True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    strip = decoders.Strip(" ", 1, 0)
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Replace("▁", " "), decoders.Fuse(), strip])
    return backend


FAMILIES = [byte_level, byte_level_with_prefix, sentencepiece_bpe, metaspace_bpe, unigram]


@pytest.fixture(params=FAMILIES, ids=lambda family: family.__name__)
def tokenizer(request, tmp_path):
    """A tokenizer as it is read from the files of a checkpoint."""
    return saved(request.param(), tmp_path)


def saved(backend: Tokenizer, directory, start: bool = True, end: bool = False):
    """Writes a backend, with control tokens and a frame around every text, to files and reads them."""
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    frame = [*["<s>"][: int(start)], "$A", *["</s>"][: int(end)]]
    ids = [(token, backend.token_to_id(token)) for token in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(single=" ".join(frame), special_tokens=ids)
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<|pad|>"
    ).save_pretrained(directory)
    return AutoTokenizer.from_pretrained(directory, trust_remote_code=False)


def row(prompt: str, target: str) -> Row:
    return Row("r", "python", prompt, target)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_target_reads_back_behind_its_prompt(tokenizer, prompt, target):
    encoded = encode_row(row(prompt, target), tokenizer, 999, 999)
    ids, labels = encoded.input_ids, encoded.labels[encoded.prompt_length :]
    assert labels[-1] == tokenizer.eos_token_id
    completion = _completion(tokenizer, Request(tuple(ids[: encoded.prompt_length])), labels, [tokenizer.eos_token_id])
    assert completion.text == target and completion.finished


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("target", TARGETS)
def test_text_is_never_a_control_token(tokenizer, prompt, target):
    encoded = encode_row(row(prompt, target), tokenizer, 999, 999)
    control = set(tokenizer.all_special_ids)
    at = [position for position, token in enumerate(encoded.input_ids) if token in control]
    assert at == [0, len(encoded.input_ids) - 1], "the start token and the end token of the frame"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("start", [False, True])
def test_an_appended_end_token_is_cut(family, start, tmp_path):
    framed = saved(family(), tmp_path / "end", start, end=True)
    plain = saved(family(), tmp_path / "plain", start)
    for prompt in [*PROMPTS, "x" * 40]:
        ids = encode_prompt(row(prompt, ""), framed, 30)
        assert ids == encode_prompt(row(prompt, ""), plain, 30)
        assert framed.eos_token_id not in ids[0]
    model = tiny(vocab_size=len(framed), eos_token_id=framed.eos_token_id)
    same = [generate(model, t, ["def f"], Decoding(3), batch_size=1) for t in (framed, plain)]
    assert same[0] == same[1]


def test_bytes_that_are_no_character_leave_the_prompt_alone(tmp_path):
    tokenizer = saved(sentencepiece_bpe(), tmp_path)
    prompt, _ = encode_prompt(row("é", ""), tokenizer, 99)
    lone = tokenizer.convert_tokens_to_ids(["<0xC3>", "x"])
    assert decode_continuation(tokenizer, prompt, lone) == "\ufffdx"


def test_a_stop_string_may_begin_with_the_completion(tokenizer):
    stop = " y"
    prompt, _ = encode_prompt(row("x =", ""), tokenizer, 99)
    target = encode_row(row("x =", " y + 1"), tokenizer, 99, 99)
    new = target.input_ids[target.prompt_length :]
    ids = torch.tensor([[*prompt, *new]])
    ended = StopStrings(tokenizer, [(stop,)], [prompt], len(prompt))(ids, torch.zeros(1))
    assert ended.tolist() == [True]
    completion = _completion(tokenizer, Request(tuple(prompt), (stop,)), new, [tokenizer.eos_token_id])
    assert completion.text == "" and completion.finished
