"""The work of notebook 00: a base is trained from scratch or adopted, and its completions are probed.

The run holds `base.json` (see `base`) and `probe.json`; a base from scratch also `model/` and `training.json`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from os.path import expanduser
from pathlib import Path
from typing import Any, TypedDict

from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    set_seed,
)

from studykit.data.builtin import rows_by_language
from studykit.data.corpus import Document, builtin_documents, documented, file_documents
from studykit.data.polyglot import LANGUAGES, programs
from studykit.errors import UserError
from studykit.runs.store import OpenRun
from studykit.study.parameters import BaseModelParams
from studykit.study.templates import TEMPLATES
from studykit.training.base import (
    BaseDescription,
    load_base,
    pinned,
    portable_name,
    require_causal_model,
)
from studykit.training.batches import TokenSequence
from studykit.training.decoding import Decoding
from studykit.training.generate import generate
from studykit.training.optimizers import MUON
from studykit.training.result import BaseTrainingResult
from studykit.training.train import TrainingSettings, tokens_per_second, train

EVALUATIONS = 6  # of the validation loss, in one training of a base
ADAM_BETA2 = 0.95  # usual where a model is trained from scratch; adapters keep Adam's default
HELD_OUT = 64  # blocks on which the validation loss is measured, at most
PROBES, FEW_PROBES = 16, 2  # programs per language: of a base from scratch, and of an adopted one, which may be slow
PROBE_TOKENS = 80  # new tokens of a completion, at most; a reference has fewer


class ProbeRow(TypedDict):
    """A completion of a base, beside the reference."""

    number: int  # of the program; it is written in every language
    language: str
    prompt: str
    reference: str
    completion: str
    same: bool  # whether the completion equals the reference, but for space around it
    ended: bool  # whether the base ended it by itself


def corpus(p: BaseModelParams) -> list[Document]:
    """Returns the documents of the corpus that the parameters name, drawn by their seed."""
    if p.corpus == "polyglot":
        return list(builtin_documents(p.languages, p.target, p.samples, p.target_share, p.seed))
    return file_documents(Path(expanduser(p.corpus)), p.languages, p.target, p.target_share, p.seed)


def count_documents(documents: Sequence[Document]) -> list[dict]:
    """Returns a row per language with its documents, those of each kind, and its characters; the largest first."""
    rows: dict[str, dict] = {}
    kinds = sorted({document.kind for document in documents})
    for document in documents:
        empty = {"language": document.language, "documents": 0, **dict.fromkeys(kinds, 0), "characters": 0}
        row = rows.setdefault(document.language, empty)
        row["documents"] += 1
        row[document.kind] += 1
        row["characters"] += len(document.context) + len(document.text)
    return sorted(rows.values(), key=lambda row: -row["characters"])


def split_blocks(
    documents: Sequence[Document], tokenizer, context: int
) -> tuple[list[TokenSequence], list[TokenSequence]]:
    """Returns training blocks and held-out blocks of at most `context` tokens; the last 2 % of the documents, or what
    fills 64 blocks, are held out. Raises UserError for fewer than two documents."""
    if len(documents) < 2:
        raise UserError(f"The corpus has {len(documents)} document; at least 2 are needed, of which one is held out.")
    last = max(1, len(documents) // 50)
    held_out = packed_blocks(documents[-last:], tokenizer, context)[:HELD_OUT]
    return packed_blocks(documents[:-last], tokenizer, context), held_out


def train_base(
    documents: Sequence[Document], tokenizer, p: BaseModelParams, run: OpenRun
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Trains a new decoder on the documents, saves it to the run, and returns it with the headline numbers."""
    blocks, held_out = split_blocks(documents, tokenizer, p.context)
    settings = TrainingSettings.of(p, eval_every=max(1, p.steps // EVALUATIONS), optimizer=MUON, adam_beta2=ADAM_BETA2)
    model = new_model(tokenizer, p)
    result, _ = train(
        model, tokenizer, blocks, held_out, settings, steps=p.steps, trainer_state_dir=run.checkpoints, seed=p.seed
    )
    model.save_pretrained(run.path("model"))
    tokenizer.save_pretrained(run.path("model"))
    base_result = BaseTrainingResult(
        **vars(result),
        blocks=len(blocks) + len(held_out),
        held_out=len(held_out),
        block_tokens=sum(len(block["input_ids"]) for block in blocks) / len(blocks),
        tokens_per_second=tokens_per_second(result, blocks, settings),
        corpus=count_documents(documents),
    )
    base_result.write(run.path("training.json"))
    description = save_description(model, "model", p, run)
    return model, {"validation loss": result.validation_loss(), "parameters": description.parameters}


def adopt_base(p: BaseModelParams, run: OpenRun) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, dict[str, float]]:
    """Loads the base that the parameters name and returns model, tokenizer and the headline numbers.

    `base.json` names a base of the hub with its commit, so that all runs that follow load the same files.

    Raises UserError if it cannot be loaded, lacks a weight, or is no causal language model.
    """
    name = portable_name(pinned(expanduser(p.base)))
    directory = run.path("base.json").parent
    BaseDescription(name, p.quantization, p.dtype).write(run.path("base.json"))
    model, tokenizer = load_base(directory)
    require_causal_model(model, name)
    description = save_description(model, name, p, run)
    return model, tokenizer, {"parameters": description.parameters, "memory (MB)": round(description.memory_mb)}


def save_description(model: PreTrainedModel, weights: str, p: BaseModelParams, run: OpenRun) -> BaseDescription:
    """Writes `base.json` of a loaded base and returns its content."""
    config = model.config.get_text_config()
    description = BaseDescription(
        weights=weights,
        quantization=p.quantization,
        dtype=p.dtype,
        family=config.model_type,
        hidden_size=config.hidden_size,
        layers=config.num_hidden_layers,
        vocabulary=config.vocab_size,
        parameters=model.num_parameters(),
        memory_mb=model.get_memory_footprint() / 2**20,
    )
    description.write(run.path("base.json"))
    return description


def probe(model: PreTrainedModel, tokenizer, p: BaseModelParams) -> list[ProbeRow]:
    """Lets the base complete prompts that are made of programs whose structures no corpus holds.

    A base from scratch completes comments that describe a program, as in its corpus. One from elsewhere gets prompts of
    the study's task. Languages that the kit cannot write are left out.
    """
    languages = [language for language in p.languages or LANGUAGES if language in LANGUAGES]
    rows: list[Any] = _comments(languages) if p.base == "scratch" else _task_prompts(p.task, languages)
    prompts = [row["prompt"] for row in rows]
    completions = generate(model, tokenizer, prompts, Decoding(PROBE_TOKENS), batch_size=32)
    for row, completion in zip(rows, completions, strict=True):
        same = completion.text.strip() == row["reference"].strip()
        row |= {"completion": completion.text, "same": same, "ended": completion.finished}
    return rows


def _comments(languages: list[str], count: int = PROBES) -> list[dict[str, Any]]:
    """The prompts and references of comments that describe programs."""
    return [
        {"number": number, "language": language}
        | dict(zip(("prompt", "reference"), documented(program, language), strict=True))
        for number, program in enumerate(programs(count, seed=0, split="valid"))
        for language in languages
    ]


def _task_prompts(task: str, languages: list[str]) -> list[dict[str, Any]]:
    """Two prompts of a task and their targets in each language; comments where no built-in rows have the task."""
    if task == "naming":
        return _comments(languages, FEW_PROBES)
    sizes = {language: {"train": 0, "valid": FEW_PROBES, "test": 0} for language in LANGUAGES}
    rows = rows_by_language(task, list(LANGUAGES), sizes, TEMPLATES[task], seed=0)
    return [
        {"number": number, "language": language, "prompt": row.prompt, "reference": row.target}
        for number in range(FEW_PROBES)
        for language in languages
        for row in (rows[language]["valid"][number],)
    ]


def probe_counts(probe: Sequence[ProbeRow]) -> list[dict]:
    """Returns a row per language: its programs, the completions that equal the reference, and those that ended."""
    count = Counter(row["language"] for row in probe)
    same = Counter(row["language"] for row in probe if row["same"])
    ended = Counter(row["language"] for row in probe if row["ended"])
    return [{"language": x, "programs": count[x], "same": same[x], "ended": ended[x]} for x in count]


def pieces(tokenizer, text: str) -> str:
    """Returns a text with bars between its tokens."""
    return "|".join(tokenizer.decode([token]) for token in tokenizer(text, add_special_tokens=False)["input_ids"])


def longest_entries(tokenizer, n: int) -> str:
    """Returns the n longest entries of the vocabulary as text, the longest last."""
    entries = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    longest = sorted(entries, key=lambda entry: (len(entry), entry))[-n:]
    return "  ".join(tokenizer.convert_tokens_to_string([entry]).strip() for entry in longest)


END, PAD = "<|endoftext|>", "<|pad|>"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Qwen2Tokenizer:
    """Trains a byte-level BPE on texts that are split as Qwen2 splits them: every digit is a token of its own.

    The class must be Qwen2's own. AutoTokenizer chooses the class by the model's family, so another class would give
    other tokens after a reload than in training.
    """
    return Qwen2Tokenizer(eos_token=END, pad_token=PAD).train_new_from_iterator(texts, vocab_size, show_progress=False)


def new_model(tokenizer: Qwen2Tokenizer, p: BaseModelParams) -> Qwen2ForCausalLM:
    """Returns a new decoder of the Qwen2 family with tied embeddings, of the sizes in the parameters of notebook 00."""
    set_seed(p.seed)
    return Qwen2ForCausalLM(model_config(p, len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id))


def model_config(
    p: BaseModelParams, vocab_size: int, pad_token_id: int | None = None, eos_token_id: int | None = None
) -> Qwen2Config:
    """Returns the configuration of a small base, of the sizes in the parameters of notebook 00."""
    return Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=p.hidden_size,
        num_hidden_layers=p.layers,
        num_attention_heads=p.heads,
        num_key_value_heads=p.heads,
        intermediate_size=p.intermediate_size,
        max_position_embeddings=max(2048, 4 * p.context),
        tie_word_embeddings=True,
        pad_token_id=pad_token_id,
        eos_token_id=eos_token_id,
        bos_token_id=None,
    )


def packed_blocks(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerFast, context: int
) -> list[TokenSequence]:
    """Returns documents side by side in blocks of at most `context` tokens, each with the end token behind it.

    No loss is counted on the documents' contexts. A document goes into the block that it fills best, in which it is
    whole, unless it is longer than a block: half a document would be code without its description.
    """
    documents = list(documents)
    contexts = tokenizer([document.context for document in documents], split_special_tokens=True)["input_ids"]
    texts = tokenizer([document.text for document in documents], split_special_tokens=True)["input_ids"]
    blocks: list[TokenSequence] = []
    with_room: list[list[TokenSequence]] = [[] for _ in range(context)]  # blocks by the tokens that they can still take
    for before, text in zip(contexts, texts, strict=True):
        ids = [*before, *text, tokenizer.eos_token_id]
        labels = [-100] * len(before) + ids[len(before) :]
        for start in range(0, len(ids), context):
            piece = ids[start : start + context]
            room = next((room for room in range(len(piece), context) if with_room[room]), context)
            if room == context:
                block: TokenSequence = {"input_ids": [], "labels": []}
                blocks.append(block)
            else:
                block = with_room[room].pop()
            block["input_ids"] += piece
            block["labels"] += labels[start : start + context]
            with_room[room - len(piece)].append(block)
    return blocks
