"""Completions in batches, and a file of predictions that a killed run continues.

Prompts are sorted by length, longest first: that needs little padding, and if a batch does not fit into memory it is
the first one. Padding is on the left with an attention mask, so in fp32 a batch gives the completions of single
prompts. In bf16 on a GPU it may not, since kernels differ by shape. So batch size, dtype and attention implementation
are part of a file's settings, methods are compared under equal ones, and `batch_consistency` compares single prompts.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TypedDict, cast

import torch
from tqdm.auto import tqdm
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from studykit.data.encoding import decode_continuation, encode_prompt, encode_text, start_tokens
from studykit.data.rows import Row
from studykit.errors import UserError
from studykit.training.base import quantization_of
from studykit.training.batches import pad
from studykit.training.decoding import Decoding, GumbelDraw, StopStrings, configured_end_tokens, cut, end_tokens


@dataclass(frozen=True)
class Completion:
    """The completion of one prompt."""

    text: str  # decoded without special tokens, up to the first stop string
    tokens: tuple[int, ...]  # the new token ids, without the end token
    finished: bool  # whether it ended by an end token or a stop string; otherwise it was cut off


@dataclass(frozen=True)
class Request:
    """One completion to be generated."""

    ids: tuple[int, ...]  # the prompt's tokens
    stop: tuple[str, ...] = ()  # strings that end the completion
    seed: int = 0  # of its noise, when it is sampled


class Prediction(TypedDict):
    """One line of a predictions file: a completion of a row."""

    key: str  # hash of row id, prompt tokens, stop strings and sample
    id: str  # of the row
    sample: int  # from 0, counting the completions of one row
    text: str
    tokens: list[int]
    finished: bool
    prompt_cut: bool  # whether the prompt was shortened


class BatchConsistency(TypedDict):
    """How completions generated in batches agree with those of single prompts."""

    rows: int  # compared
    same: int  # rows whose completion alone has the same tokens as in its batch
    prompts_per_second: dict[str, float]  # {alone, batched}


def generate(
    model,
    tokenizer,
    prompts: Sequence[str | Sequence[int] | Request],
    decoding: Decoding,
    *,
    batch_size: int,
    on_batch: Callable[[list[int], list[Completion]], None] | None = None,
) -> list[Completion]:
    """Returns one completion per prompt, in the order given.

    A batch that runs out of memory is halved, and so are those after it.

    Args:
        prompts: texts, their token ids, or requests.
        on_batch: called after each batch with the prompts' indices and completions.
    Raises: UserError for an empty prompt, or if a single prompt does not fit into memory.
    """
    requests = [_request(tokenizer, prompt) for prompt in prompts]
    if empty := [index for index, request in enumerate(requests) if not request.ids]:
        raise UserError(f"prompt {empty[0]} has no tokens; a completion needs at least one to start from.")
    order = sorted(range(len(requests)), key=lambda index: -len(requests[index].ids))
    completions: list[Completion | None] = [None] * len(requests)
    start = 0
    with _generating(model), tqdm(total=len(requests), desc="generate", unit="prompt", leave=False) as bar:
        while start < len(order):
            indices = order[start : start + batch_size]
            batch = _try_batch(model, tokenizer, [requests[index] for index in indices], decoding)
            if batch is None:
                if len(indices) == 1:
                    raise UserError(
                        f"A prompt of {len(requests[indices[0]].ids)} tokens does not fit into memory with "
                        f"max_new_tokens={decoding.max_new_tokens}; shorten prompts or completions."
                    )
                batch_size = max(1, len(indices) // 2)
                continue
            for index, completion in zip(indices, batch, strict=True):
                completions[index] = completion
            if on_batch is not None:
                on_batch(indices, batch)
            start += len(indices)
            bar.update(len(indices))
    return cast(list[Completion], completions)  # each has been completed


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
) -> list[Prediction]:
    """Generates completions of rows' prompts into the JSON lines file `path`; those that it has are not repeated.

    The first line holds the settings, each later line a `Prediction`. Lines are appended and synced batch by batch; a
    last line that a kill cut short is dropped.

    Args:
        settings: what the caller adds to the settings of generation, such as base, trained run and task.
    Returns: the predictions, row by row, `decoding.samples` of each.
    Raises: UserError, with the settings that differ, if the file was written with others.
    """
    path = Path(path)
    requests, keys, prompt_cut = _requests(tokenizer, rows, decoding, max_prompt_tokens)
    header = json.loads(json.dumps({**(settings or {}), **settings_of(model, decoding, batch_size, max_prompt_tokens)}))
    predictions = _open(path, header)
    missing = list({key: index for index, key in enumerate(keys) if key not in predictions}.values())

    def save(indices: list[int], batch: list[Completion]) -> None:
        new: list[Prediction] = []
        for number, completion in zip(indices, batch, strict=True):
            row, sample = divmod(missing[number], decoding.samples)
            new.append(
                {
                    "key": keys[missing[number]],
                    "id": rows[row].id,
                    "sample": sample,
                    "text": completion.text,
                    "tokens": list(completion.tokens),
                    "finished": completion.finished,
                    "prompt_cut": prompt_cut[row],
                }
            )
        _append(path, new)
        predictions.update((prediction["key"], prediction) for prediction in new)

    generate(model, tokenizer, [requests[i] for i in missing], decoding, batch_size=batch_size, on_batch=save)
    return [predictions[key] for key in keys]


def batch_consistency(
    model,
    tokenizer,
    rows: Sequence[Row],
    predictions: Sequence[Prediction],
    decoding: Decoding,
    *,
    batch_size: int,
    max_prompt_tokens: int | None = None,
    n: int,
) -> BatchConsistency | None:
    """Measures whether batches change completions: those of n rows are generated again, alone and in batches.

    Args:
        predictions: those of `predict` for the rows; the first sample of each row is compared.
        n: the number of rows, which are evenly spread; 0: nothing is measured, and None is returned.
    """
    chosen = [round(i * (len(rows) - 1) / max(1, n - 1)) for i in range(min(n, len(rows)))]
    if not chosen:
        return None
    chosen_rows = [rows[i] for i in chosen]
    requests, _, _ = _requests(tokenizer, chosen_rows, decoding, max_prompt_tokens)
    requests = requests[:: decoding.samples]
    rates: dict[str, float] = {}
    single: list[Completion] = []
    for name, size in (("alone", 1), ("batched", batch_size)):
        start = monotonic()
        completions = generate(model, tokenizer, requests, decoding, batch_size=size)
        rates[name] = len(chosen) / (monotonic() - start)
        single = single or completions
    batched = [predictions[i * decoding.samples]["tokens"] for i in chosen]
    same = sum(list(one.tokens) == tokens for one, tokens in zip(single, batched, strict=True))
    return {"rows": len(chosen), "same": same, "prompts_per_second": rates}


def complete(model, tokenizer, rows: Sequence[Row], limits: tuple[int, int]) -> list[str]:
    """Returns greedy completions of a few rows' prompts, cut as in training, in one batch; they are for a reader.

    Args:
        limits: max_prompt_tokens and max_target_tokens of the data; the second limits the new tokens.
    """
    prompts = [encode_prompt(row, tokenizer, limits[0])[0] for row in rows]
    completions = generate(model, tokenizer, prompts, Decoding(limits[1]), batch_size=max(1, len(rows)))
    return [completion.text for completion in completions]


def _request(tokenizer, prompt: str | Sequence[int] | Request) -> Request:
    if isinstance(prompt, Request):
        return prompt
    return Request(
        tuple(start_tokens(tokenizer) + encode_text(tokenizer, prompt) if isinstance(prompt, str) else prompt)
    )


def _requests(tokenizer, rows: Sequence[Row], decoding: Decoding, max_prompt_tokens: int | None):
    """Returns requests and their keys, `decoding.samples` per row, and per row whether its prompt was cut."""
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
    """Sets evaluation mode, no gradients and a KV cache; afterwards everything is as it was.

    Of a checkpoint's `generation_config.json` only the end tokens act: transformers would take from it whatever a call
    does not set, such as `no_repeat_ngram_size`.
    """
    configs = [(m, m.generation_config) for m in model.modules() if "generation_config" in vars(m)]
    training = [module for module in model.modules() if module.training]
    use_cache = model.config.use_cache
    model.eval()
    for module, config in configs:
        module.generation_config = GenerationConfig(eos_token_id=config.eos_token_id)
    model.config.use_cache = True  # gradient checkpointing turns it off, and generation would be quadratic
    try:
        with torch.inference_mode():
            yield
    finally:
        model.config.use_cache = use_cache
        for module, config in configs:
            module.generation_config = config
        for module in training:
            module.training = True


def _try_batch(model, tokenizer, batch: list[Request], decoding: Decoding) -> list[Completion] | None:
    """Returns the completions of a batch of prompts; None if memory ran out."""
    try:
        return _complete(model, tokenizer, batch, decoding)
    except RuntimeError as error:  # torch.OutOfMemoryError on GPUs; a plain RuntimeError on CPU
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # not in the except block, where the traceback still holds the tensors
    return None


def _complete(model, tokenizer, batch: list[Request], decoding: Decoding) -> list[Completion]:
    ends = end_tokens(model, tokenizer)
    pad_token = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    ids = pad([request.ids for request in batch], pad_token, left=True)  # (B, T)
    mask = pad([[1] * len(request.ids) for request in batch], 0, left=True)  # (B, T)
    prompt_length = ids.shape[1]
    config = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=ends,
        pad_token_id=pad_token,
    )
    options: dict = {}
    if any(request.stop for request in batch):
        options["stopping_criteria"] = StoppingCriteriaList(
            [StopStrings(tokenizer, [r.stop for r in batch], [r.ids for r in batch], prompt_length)]
        )
    if decoding.temperature:  # greedy on logits with noise is sampling
        options["logits_processor"] = LogitsProcessorList([GumbelDraw(decoding, [r.seed for r in batch])])
    device = model.get_input_embeddings().weight.device
    output = model.generate(
        input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config, **options
    )
    new = output[:, prompt_length:].tolist()
    return [_completion(tokenizer, request, row, ends) for row, request in zip(new, batch, strict=True)]


def _completion(tokenizer, request: Request, new: list[int], ends: list[int]) -> Completion:
    end = next((position for position, token in enumerate(new) if token in ends), None)
    tokens = new if end is None else new[:end]

    def text_of(count: int) -> tuple[str, bool]:
        return cut(decode_continuation(tokenizer, request.ids, tokens[:count]), request.stop)

    text, stopped = text_of(len(tokens))
    if stopped:  # after the stop string come tokens that only the batch's longest completion needed
        length = bisect_left(range(len(tokens)), True, key=lambda count: text_of(count)[1])
        tokens = tokens[:length]
    return Completion(text, tuple(tokens), end is not None or stopped)


def settings_of(model, decoding: Decoding, batch_size: int, max_prompt_tokens: int | None) -> dict:
    """Returns the settings that decide completions, besides model and prompts."""
    return {
        **decoding.settings(),
        "max_prompt_tokens": max_prompt_tokens,
        "end_tokens": configured_end_tokens(model),
        "batch_size": batch_size,
        "quantization": quantization_of(model),
        "dtype": str(model.get_input_embeddings().weight.dtype).removeprefix("torch."),
        "attention": model.config._attn_implementation,
        "device": model.get_input_embeddings().weight.device.type,
    }


def _open(path: Path, settings: dict) -> dict[str, Prediction]:
    """Returns the predictions of a file by key; writes its first line if it has none, and drops a torn last line."""
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
        raise UserError(f"{path} was generated with other settings: {changes}; set them back or remove the file.")
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    return {prediction["key"]: prediction for prediction in lines[1:]}


def _append(path: Path, lines: Sequence[Mapping]) -> None:
    """Appends JSON lines and waits until they are on the disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
