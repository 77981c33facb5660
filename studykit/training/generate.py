"""Completions in batches, and a file of predictions that a killed run continues.

Prompts are sorted by length, longest first: little padding, and if a batch does not fit into memory it is the first
one. Padding is on the left with an attention mask, so in fp32 a batch says what single prompts say. In bf16 on a GPU
it need not: kernels differ by shape. So batch size, dtype and attention implementation are part of a predictions
file's settings, methods are compared under equal ones, and `alone` says how much of a batch a single prompt repeats.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import torch
from tqdm.auto import tqdm
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from studykit.data.prompts import encode_prompt
from studykit.data.rows import Row
from studykit.errors import UserError
from studykit.training.decoding import Decoding, Draw, Stops, cut


@dataclass(frozen=True)
class Completion:
    """text: decoded without special tokens, up to the first stop string;

    tokens: the new ids, without the end token; finished: it ended itself or met a stop string, was not cut off.
    """

    text: str
    tokens: tuple[int, ...]
    finished: bool


@dataclass(frozen=True)
class Request:
    """One completion to be written: a prompt as token ids, its stop strings, and what seeds its draws."""

    ids: tuple[int, ...]
    stop: tuple[str, ...] = ()
    seed: int = 0


def generate(
    model,
    tokenizer,
    prompts: Sequence[str | Sequence[int] | Request],
    decoding: Decoding,
    *,
    batch_size: int,
    on_batch: Callable[[list[int], list[Completion]], None] | None = None,
) -> list[Completion]:
    """One completion per prompt, in the order given. A prompt is text, its token ids, or a `Request`.

    on_batch: called after each batch with the prompts' indices and completions. A batch that runs out of memory is
    halved, and so are those after it. UserError for an empty prompt, or when a single prompt does not fit into memory.
    """
    asked = [_request(tokenizer, prompt) for prompt in prompts]
    if empty := [index for index, request in enumerate(asked) if not request.ids]:
        raise UserError(f"prompt {empty[0]} has no tokens; a completion needs at least one to start from")
    order = sorted(range(len(asked)), key=lambda index: -len(asked[index].ids))
    completions: list[Completion | None] = [None] * len(asked)
    start = 0
    with _generating(model), tqdm(total=len(asked), desc="generate", unit="prompt", leave=False) as bar:
        while start < len(order):
            indices = order[start : start + batch_size]
            batch = _try_batch(model, tokenizer, [asked[index] for index in indices], decoding)
            if batch is None:
                if len(indices) == 1:
                    raise UserError(
                        f"a prompt of {len(asked[indices[0]].ids)} tokens does not fit into memory with "
                        f"max_new_tokens={decoding.max_new_tokens}; shorten prompts or completions"
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
    rows: Sequence[Row],
    path: str | Path,
    decoding: Decoding,
    *,
    batch_size: int,
    max_prompt_tokens: int | None = None,
    settings: dict | None = None,
) -> list[dict]:
    """Complete rows' prompts into the JSON lines file `path`; what is in it already is not generated again.

    The first line holds the settings: `settings` (what the caller knows: base, checkpoint, task, ...) and those of
    generation. Each later line is {"key", "id", "sample", "text", "tokens", "finished", "prompt_cut"}; the key is a
    hash of row id, prompt tokens, stop strings and sample. Lines are appended and synced batch by batch; a torn last
    line is dropped.

    Returns: these records, row by row, `decoding.samples` of each.
    Raises: UserError that names the differing settings if the file was made with others.
    """
    path = Path(path)
    requests, keys, prompt_cut = _requests(tokenizer, rows, decoding, max_prompt_tokens)
    header = json.loads(json.dumps({**(settings or {}), **settings_of(model, decoding, batch_size, max_prompt_tokens)}))
    found = _open(path, header)
    missing = list({key: index for index, key in enumerate(keys) if key not in found}.values())

    def save(indices: list[int], batch: list[Completion]) -> None:
        records = []
        for number, completion in zip(indices, batch, strict=True):
            row, sample = divmod(missing[number], decoding.samples)
            said = {"text": completion.text, "tokens": list(completion.tokens), "finished": completion.finished}
            records.append({"key": keys[missing[number]], "id": rows[row].id, "sample": sample, **said,
                            "prompt_cut": prompt_cut[row]})  # fmt: skip
        _append(path, records)
        found.update((record["key"], record) for record in records)

    generate(model, tokenizer, [requests[i] for i in missing], decoding, batch_size=batch_size, on_batch=save)
    return [found[key] for key in keys]


def alone(
    model,
    tokenizer,
    rows: Sequence[Row],
    records: Sequence[dict],
    decoding: Decoding,
    *,
    batch_size: int,
    max_prompt_tokens: int | None = None,
    n: int,
) -> dict | None:
    """Whether a batch changes what is written: n rows evenly spread, first sample, one at a time and in a batch.

    Returns: rows, same (those whose tokens equal their records' of `predict`), and prompts per second: alone, and in
    batches of `batch_size`; None for n = 0.
    """
    chosen = [round(i * (len(rows) - 1) / max(1, n - 1)) for i in range(min(n, len(rows)))]
    if not chosen:
        return None
    picked = [rows[i] for i in chosen]
    requests, _, _ = _requests(tokenizer, picked, decoding, max_prompt_tokens)
    requests = requests[:: decoding.samples]
    rates, single = {}, []
    for name, size in (("alone", 1), ("batched", batch_size)):
        began = monotonic()
        said = generate(model, tokenizer, requests, decoding, batch_size=size)
        rates[name] = len(picked) / (monotonic() - began)
        single = single or said
    before = [records[i * decoding.samples]["tokens"] for i in chosen]
    same = sum(list(one.tokens) == tokens for one, tokens in zip(single, before, strict=True))
    return {"rows": len(picked), "same": same, "prompts_per_second": rates}


def complete(model, tokenizer, rows: Sequence[Row], limits: tuple[int, int]) -> list[str]:
    """What the model writes under a few rows' prompts, cut as in training; for looking at, in one batch.

    limits: max_prompt_tokens, and as many new tokens as a target may have.
    """
    prompts = [encode_prompt(row, tokenizer, limits[0])[0] for row in rows]
    said = generate(model, tokenizer, prompts, Decoding(limits[1]), batch_size=max(1, len(rows)))
    return [completion.text for completion in said]


def _request(tokenizer, prompt: str | Sequence[int] | Request) -> Request:
    if isinstance(prompt, Request):
        return prompt
    return Request(tuple(tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt))


def _requests(tokenizer, rows: Sequence[Row], decoding: Decoding, max_prompt_tokens: int | None):
    """Requests and their keys, `decoding.samples` per row, and per row whether its prompt was cut."""
    requests, keys, prompt_cut = [], [], []
    for row in rows:
        ids, is_cut = encode_prompt(row, tokenizer, max_prompt_tokens or 1 << 30)
        prompt_cut.append(is_cut)
        stop = row.stop if decoding.stop is None else decoding.stop
        for sample in range(decoding.samples):
            digest = hashlib.sha256(json.dumps([row.id, ids, stop, sample]).encode()).hexdigest()
            keys.append(digest[:16])
            requests.append(Request(tuple(ids), stop, int(digest[:15], 16) ^ decoding.seed))
    return requests, keys, prompt_cut


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


def _try_batch(model, tokenizer, batch: list[Request], decoding: Decoding) -> list[Completion] | None:
    """`_complete`, or None when memory ran out."""
    try:
        return _complete(model, tokenizer, batch, decoding)
    except RuntimeError as error:  # torch.OutOfMemoryError on GPUs; a plain RuntimeError on CPU
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # after the except block: the traceback holds the tensors
    return None


def _complete(model, tokenizer, batch: list[Request], decoding: Decoding) -> list[Completion]:
    """Completions of one batch of prompts."""
    ends = _end_tokens(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    width = max(len(request.ids) for request in batch)
    ids = torch.tensor([[pad] * (width - len(r.ids)) + list(r.ids) for r in batch])  # (B, T)
    mask = torch.tensor([[0] * (width - len(r.ids)) + [1] * len(r.ids) for r in batch])  # (B, T)
    config = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens, use_cache=True, eos_token_id=ends, pad_token_id=pad
    )
    # What is not set here would be taken from the model's own configuration.
    config.update(do_sample=False, num_beams=1, temperature=1.0, top_p=1.0, top_k=50, repetition_penalty=1.0)
    own: dict = {}
    if any(request.stop for request in batch):
        own["stopping_criteria"] = StoppingCriteriaList([Stops(tokenizer, [r.stop for r in batch], width)])
    if decoding.temperature:  # greedy on logits with noise is sampling
        own["logits_processor"] = LogitsProcessorList([Draw(decoding, [r.seed for r in batch])])
    device = model.get_input_embeddings().weight.device
    output = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config, **own)
    new = output[:, width:].tolist()
    return [_completion(tokenizer, row, ends, request.stop) for row, request in zip(new, batch, strict=True)]


def _completion(tokenizer, new: list[int], ends: list[int], stop: Sequence[str]) -> Completion:
    end = next((position for position, token in enumerate(new) if token in ends), None)
    tokens = new if end is None else new[:end]
    text, stopped = cut(tokenizer.decode(tokens, skip_special_tokens=True), stop)
    if stopped:  # what follows is padding, as much as the batch's longest completion needed
        met = bisect_left(range(len(tokens)), True, key=lambda n: cut(tokenizer.decode(tokens[:n]), stop)[1])
        tokens = tokens[:met]
    return Completion(text, tuple(tokens), end is not None or stopped)


def _end_tokens(model, tokenizer) -> list[int]:
    """The tokenizer's end token, which training taught, and those that the model's own configuration adds."""
    own = model.generation_config.eos_token_id
    ends = [tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])]
    return list(dict.fromkeys(token for token in ends if token is not None))


def settings_of(model, decoding: Decoding, batch_size: int, max_prompt_tokens: int | None) -> dict:
    """What decides completions beside model and prompts."""
    return {
        **decoding.settings(),
        "max_prompt_tokens": max_prompt_tokens,
        "batch_size": batch_size,
        "dtype": str(model.get_input_embeddings().weight.dtype).removeprefix("torch."),
        "attention": model.config._attn_implementation,
        "device": model.get_input_embeddings().weight.device.type,
    }


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
