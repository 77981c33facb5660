"""The work of notebook 00: a base trained from scratch or a checkpoint adopted, and a probe of what it can write.

The run holds `base.json` (see `base`) and `probe.json`; a base from scratch also `model/` and `training.json`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from transformers import (
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    set_seed,
)

from studykit.data.corpus import Document, documented, embedded_documents, file_documents
from studykit.data.polyglot import LANGUAGES, programs
from studykit.errors import UserError
from studykit.runs.files import write_json
from studykit.runs.store import OpenRun
from studykit.training.base import base_weights, inspect_weights, load_base, portable_name
from studykit.training.decoding import Decoding
from studykit.training.generate import generate
from studykit.training.result import BaseTrainingResult
from studykit.training.train import TrainingSettings, tokens_per_second, train

LOOKS = 6  # at the validation loss, in one training of a base
ADAM_BETA2 = 0.95  # the usual one where a model is trained from scratch; adapters keep Adam's own
HELD_OUT = 64  # blocks, at most
PROBES = 16  # programs per language; 2 for a checkpoint, which may be slow
PROBE_TOKENS = 80  # of a completion, at most; a reference has fewer


def corpus(p) -> list[Document]:
    """The documents that the parameters ask for; seeded."""
    if p.corpus == "polyglot":
        return list(embedded_documents(p.languages, p.target, p.samples, p.target_share, p.seed))
    return file_documents(Path(p.corpus).expanduser(), p.languages, p.target, p.target_share, p.seed)


def composition(documents: Sequence[Document]) -> list[dict]:
    """Per language: documents, how many of them of each kind, characters; the largest first."""
    rows: dict[str, dict] = {}
    kinds = sorted({document.kind for document in documents})
    for document in documents:
        empty = {"language": document.language, "documents": 0, **dict.fromkeys(kinds, 0), "characters": 0}
        row = rows.setdefault(document.language, empty)
        row["documents"] += 1
        row[document.kind] += 1
        row["characters"] += len(document.context) + len(document.text)
    return sorted(rows.values(), key=lambda row: -row["characters"])


def split_blocks(documents: Sequence[Document], tokenizer, context: int) -> tuple[list[dict], list[dict]]:
    """(train, held out) blocks of at most `context` tokens; held out are the last 2 %, 64 at most."""
    packed = packed_blocks(documents, tokenizer, context)
    held_out = min(HELD_OUT, max(1, len(packed) // 50))
    return packed[:-held_out], packed[-held_out:]


def train_base(documents: Sequence[Document], tokenizer, p, run: OpenRun) -> tuple:
    """(model, headline): a fresh decoder trained on the documents, saved to the run with its record."""
    blocks, held_out = split_blocks(documents, tokenizer, p.context)
    settings = TrainingSettings.of(p, eval_every=max(1, p.steps // LOOKS), adam_beta2=ADAM_BETA2)
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
        corpus=composition(documents),
    )
    base_result.write(run.path("training.json"))
    parameters = describe(model, "model", p, run)["parameters"]
    return model, {"validation loss": result.validation_loss(), "parameters": parameters}


def adopt_base(p, run: OpenRun) -> tuple:
    """(model, tokenizer, headline) of the checkpoint that the parameters name, once it has shown that it loads."""
    name = portable_name(p.base)
    directory = run.path("base.json").parent
    write_json(run.path("base.json"), {"weights": name, "quantization": p.quantization})
    inspect_weights(base_weights(directory))
    model, tokenizer = load_base(directory)
    sizes = describe(model, name, p, run)
    return model, tokenizer, {"parameters": sizes["parameters"], "memory (MB)": round(sizes["memory_mb"])}


def describe(model, name: str, p, run: OpenRun) -> dict:
    """Writes `base.json` and returns it."""
    config = model.config.get_text_config()
    about = {
        "weights": name,
        "quantization": p.quantization,
        "family": config.model_type,
        "hidden_size": config.hidden_size,
        "layers": config.num_hidden_layers,
        "vocabulary": config.vocab_size,
        "parameters": model.num_parameters(),
        "memory_mb": model.get_memory_footprint() / 2**20,
    }
    write_json(run.path("base.json"), about)
    return about


def probe(model, tokenizer, p) -> list[dict]:
    """What the base writes under comments that describe programs, of structures that no corpus holds.

    Prompts have the form of the documented code in the embedded corpus. Languages that the kit cannot write are left
    out. Returns rows with number, language, prompt, reference, completion, same (as the reference), ended (by itself).
    """
    count = PROBES if p.base == "scratch" else 2
    rows = []
    for number, program in enumerate(programs(count, seed=0, split="valid")):
        for language in p.languages or LANGUAGES:
            if language in LANGUAGES:
                prompt, reference = documented(program, language)
                rows.append({"number": number, "language": language, "prompt": prompt, "reference": reference})
    prompts = [row["prompt"] for row in rows]
    completions = generate(model, tokenizer, prompts, Decoding(PROBE_TOKENS), batch_size=32)
    for row, said in zip(rows, completions, strict=True):
        row |= {"completion": said.text, "same": said.text.strip() == row["reference"].strip(), "ended": said.finished}
    return rows


def score(probe: Sequence[dict]) -> list[dict]:
    """Per language: programs probed, completions that equal the reference, completions that ended by themselves."""
    count = Counter(row["language"] for row in probe)
    same = Counter(row["language"] for row in probe if row["same"])
    ended = Counter(row["language"] for row in probe if row["ended"])
    return [{"language": x, "programs": count[x], "same": same[x], "ended": ended[x]} for x in count]


def pieces(tokenizer, text: str) -> str:
    """The text with its tokens parted by bars."""
    return "|".join(tokenizer.decode([token]) for token in tokenizer(text, add_special_tokens=False)["input_ids"])


def longest_entries(tokenizer, n: int) -> str:
    """The n longest entries of the vocabulary, as text, the longest last."""
    entries = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    longest = sorted(entries, key=lambda entry: (len(entry), entry))[-n:]
    return "  ".join(tokenizer.convert_tokens_to_string([entry]).strip() for entry in longest)

END, PAD = "<|endoftext|>", "<|pad|>"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Qwen2Tokenizer:
    """Byte-level BPE over the texts, split as Qwen2 splits: every digit is a token of its own.

    It must be Qwen2's own class: AutoTokenizer chooses the class by the model's family, and another way of splitting
    would give other tokens after a reload than in training.
    """
    return Qwen2Tokenizer(eos_token=END, pad_token=PAD).train_new_from_iterator(
        texts, vocab_size, show_progress=False
    )


def new_model(tokenizer: Qwen2Tokenizer, p) -> Qwen2ForCausalLM:
    """A fresh decoder in the Qwen2 configuration, embeddings tied, of the sizes in the parameters of notebook 00."""
    set_seed(p.seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=p.hidden_size,
        num_hidden_layers=p.layers,
        num_attention_heads=p.heads,
        num_key_value_heads=p.heads,
        intermediate_size=p.intermediate_size,
        max_position_embeddings=max(2048, 4 * p.context),
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return Qwen2ForCausalLM(config)


def packed_blocks(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerFast, context: int
) -> list[dict[str, list[int]]]:
    """Ended documents side by side in blocks of at most `context` tokens; no loss on their contexts.

    A document is not cut unless it is longer than a block: half a document would be code without its description.
    """
    documents = list(documents)
    contexts = tokenizer([document.context for document in documents])["input_ids"]
    texts = tokenizer([document.text for document in documents])["input_ids"]
    blocks: list[dict[str, list[int]]] = []
    ids: list[int] = []
    labels: list[int] = []

    def close() -> None:
        blocks.extend(
            {"input_ids": ids[i : i + context], "labels": labels[i : i + context]} for i in range(0, len(ids), context)
        )
        ids.clear()
        labels.clear()

    for before, text in zip(contexts, texts, strict=True):
        text = [*text, tokenizer.eos_token_id]
        if len(ids) + len(before) + len(text) > context:
            close()
        ids.extend(before + text)
        labels.extend([-100] * len(before) + text)
    close()
    if len(blocks) < 2:
        raise UserError(f"The corpus fills {len(blocks)} block of context={context} tokens; at least 2 are needed.")
    return blocks
