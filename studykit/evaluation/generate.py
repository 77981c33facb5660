"""Greedy completions in batches, and a file of predictions that a killed run continues.

Prompts are sorted by length, longest first: little padding, and if a batch does not fit into memory it is the first
one. Padding is on the left with an attention mask, so in fp32 a batch says what single prompts say. In bf16 on a GPU
it need not: kernels differ by shape. So batch size, dtype and attention implementation are part of a predictions
file's settings, and methods are compared under equal ones.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import GenerationConfig

from studykit.params import UserError
from studykit.tasks.prompts import encode_prompt


@dataclass(frozen=True)
class Completion:
    """text: decoded without special tokens;

    tokens: the new ids, without the end token; finished: it ended itself, was not cut off.
    """

    text: str
    tokens: tuple[int, ...]
    finished: bool


def generate(
    model,
    tokenizer,
    prompts: Sequence[str | Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    on_batch: Callable[[list[int], list[Completion]], None] | None = None,
) -> list[Completion]:
    """One greedy completion per prompt, in the order given. A prompt is text or its token ids.

    on_batch: called after each batch with the prompts' indices and completions. A batch that runs out of memory is
    halved, and so are those after it. UserError for an empty prompt, or when a single prompt does not fit into memory.
    """
    encoded = [list(tokenizer(p)["input_ids"]) if isinstance(p, str) else list(p) for p in prompts]
    if empty := [index for index, ids in enumerate(encoded) if not ids]:
        raise UserError(f"prompt {empty[0]} has no tokens; a completion needs at least one to start from")
    order = sorted(range(len(encoded)), key=lambda index: -len(encoded[index]))
    completions: list[Completion | None] = [None] * len(encoded)
    start = 0
    with _generating(model), tqdm(total=len(encoded), desc="generate", unit="prompt", leave=False) as bar:
        while start < len(order):
            indices = order[start : start + batch_size]
            batch = _try_batch(model, tokenizer, [encoded[index] for index in indices], max_new_tokens)
            if batch is None:
                if len(indices) == 1:
                    raise UserError(
                        f"a prompt of {len(encoded[indices[0]])} tokens does not fit into memory with "
                        f"max_new_tokens={max_new_tokens}; shorten prompts or completions"
                    )
                batch_size = max(1, len(indices) // 2)
                continue
            for index, completion in zip(indices, batch, strict=True):
                completions[index] = completion
            if on_batch is not None:
                on_batch(indices, batch)
            start += len(indices)
            bar.update(len(indices))
    return completions


def predict(
    model,
    tokenizer,
    rows: Sequence[dict],
    path: str | Path,
    *,
    max_new_tokens: int,
    batch_size: int,
    max_prompt_tokens: int | None = None,
    settings: dict | None = None,
) -> list[dict]:
    """Complete rows' prompts into the JSON lines file `path`; what is in it already is not generated again.

    The first line holds the settings: `settings` (what the caller knows: base, checkpoint, task, ...) and those of
    generation. Each later line is {"key", "id", "text", "tokens", "finished", "prompt_cut"}; the key is a hash of row
    id and prompt tokens. Lines are appended and synced batch by batch; a torn last line is dropped. Returns these
    records in the order of `rows`. UserError that names the differing settings if the file was made with others.
    """
    path = Path(path)
    limit = max_prompt_tokens or 1 << 30
    encoded = [encode_prompt(row, tokenizer, limit) for row in rows]
    keys = [_key(row["id"], ids) for row, (ids, _) in zip(rows, encoded, strict=True)]
    header = json.loads(
        json.dumps({**(settings or {}), **_settings(model, max_new_tokens, batch_size, max_prompt_tokens)})
    )
    found = _open(path, header)
    missing = list({key: index for index, key in enumerate(keys) if key not in found}.values())

    def save(indices: list[int], batch: list[Completion]) -> None:
        records = []
        for number, completion in zip(indices, batch, strict=True):
            index = missing[number]
            records.append(
                {
                    "key": keys[index],
                    "id": rows[index]["id"],
                    "text": completion.text,
                    "tokens": list(completion.tokens),
                }
            )
            records[-1] |= {"finished": completion.finished, "prompt_cut": encoded[index][1]}
        _append(path, records)
        found.update((record["key"], record) for record in records)

    prompts = [encoded[index][0] for index in missing]
    generate(model, tokenizer, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, on_batch=save)
    return [found[key] for key in keys]


def complete(model, tokenizer, rows: Sequence[dict], limits: tuple[int, int]) -> list[str]:
    """What the model writes under a few rows' prompts, cut as in training; for looking at, in one batch.

    limits: max_prompt_tokens, and as many new tokens as a target may have.
    """
    prompts = [encode_prompt(row, tokenizer, limits[0])[0] for row in rows]
    said = generate(model, tokenizer, prompts, max_new_tokens=limits[1], batch_size=max(1, len(rows)))
    return [completion.text for completion in said]


@contextmanager
def _generating(model) -> Iterator[None]:
    """Evaluation mode, no gradients and a KV cache; afterwards everything is as training left it."""
    training = [module for module in model.modules() if module.training]
    use_cache = model.config.use_cache
    model.eval()
    model.config.use_cache = True  # gradient checkpointing turns it off, and generation would be quadratic
    try:
        with torch.inference_mode():
            yield
    finally:
        model.config.use_cache = use_cache
        for module in training:
            module.training = True


def _try_batch(model, tokenizer, batch: list[list[int]], max_new_tokens: int) -> list[Completion] | None:
    """`_complete`, or None when memory ran out."""
    try:
        return _complete(model, tokenizer, batch, max_new_tokens)
    except RuntimeError as error:  # torch.OutOfMemoryError on GPUs; a plain RuntimeError on CPU
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # after the except block: the traceback holds the tensors
    return None


def _complete(model, tokenizer, batch: list[list[int]], max_new_tokens: int) -> list[Completion]:
    """Greedy completions of one batch of prompts."""
    ends = _end_tokens(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    width = max(map(len, batch))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in batch])  # (B, T)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])  # (B, T)
    config = GenerationConfig(max_new_tokens=max_new_tokens, use_cache=True, eos_token_id=ends, pad_token_id=pad)
    # What is not set here would be taken from the model's own configuration.
    config.update(do_sample=False, num_beams=1, temperature=1.0, top_p=1.0, top_k=50, repetition_penalty=1.0)
    device = model.get_input_embeddings().weight.device
    output = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config)
    return [_completion(tokenizer, row, ends) for row in output[:, width:].tolist()]


def _completion(tokenizer, new: list[int], ends: list[int]) -> Completion:
    stop = next((position for position, token in enumerate(new) if token in ends), None)
    tokens = new if stop is None else new[:stop]
    return Completion(tokenizer.decode(tokens, skip_special_tokens=True), tuple(tokens), stop is not None)


def _end_tokens(model, tokenizer) -> list[int]:
    """The tokenizer's end token, which training taught, and those that the model's own configuration adds."""
    own = model.generation_config.eos_token_id
    ends = [tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])]
    return list(dict.fromkeys(token for token in ends if token is not None))


def _settings(model, max_new_tokens: int, batch_size: int, max_prompt_tokens: int | None) -> dict:
    return {
        "decoding": "greedy",
        "max_new_tokens": max_new_tokens,
        "max_prompt_tokens": max_prompt_tokens,
        "batch_size": batch_size,
        "dtype": str(model.get_input_embeddings().weight.dtype).removeprefix("torch."),
        "attention": model.config._attn_implementation,
        "device": model.get_input_embeddings().weight.device.type,
    }


def _key(row_id: str, ids: list[int]) -> str:
    return hashlib.sha256(json.dumps([row_id, ids]).encode()).hexdigest()[:16]


def _open(path: Path, settings: dict) -> dict[str, dict]:
    """The records of a predictions file by key;

    writes the first line if there is none, and cuts off a torn last one.
    """
    data = path.read_bytes() if path.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    lines = [json.loads(line) for line in whole.splitlines()]
    if not lines:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        _append(path, [{"settings": settings}])
        return {}
    before = lines[0].get("settings", {})
    if before != settings:
        names = sorted(name for name in before.keys() | settings.keys() if before.get(name) != settings.get(name))
        changes = ", ".join(f"{name} {before.get(name)!r} (now {settings.get(name)!r})" for name in names)
        raise UserError(f"{path} was generated with other settings: {changes}; set them back or remove the file")
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    return {record["key"]: record for record in lines[1:]}


def _append(path: Path, records: list[dict]) -> None:
    """Append JSON lines and wait until they are on the disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
        file.flush()
        os.fsync(file.fileno())
