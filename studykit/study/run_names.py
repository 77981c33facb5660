"""The name of a run: a label for people, and a key that is the hash of what decides its numbers.

Parameters that are None get the values of the published study first, and those without effect their defaults, so that
equal runs have one name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from studykit.study import methods, training_parameters
from studykit.study.fields import kind
from studykit.study.parameters import STAGES

# Parameters that came after the first runs: at its default, such a one is no part of a run's key, so that the runs that
# were made before it keep their names.
LATER = {
    "adapter": {"quantization"},
    "fusion": {
        "quantization",
        "members_quantization",
        "probe_every",
        "float32_matmul_precision",
        "keep_trainer_state",
        "factor",
        "density",
        "heads",
        "top_k",
    },
    "evaluate": {"quantization", "trained_quantization"},
    "fusion_attention": {"quantization", "trained_quantization"},
    "gather": {"interactions"},
}
COMPACTERS = ("compacter", "compacterpp")
FILE_PARAMETERS = {  # of data that come from files
    "format", "diff_context", "split_by", "reference", "shares", "near_duplicates", "bad_rows",
}  # fmt: skip


def published(stage: str, values: dict[str, Any]) -> dict[str, float]:
    """Returns what parameters that are None mean: the values of the published study, where it has one."""
    if stage == "adapter":
        narrow = values["method"] in COMPACTERS
        return {
            "learning_rate": 2e-5 if values["method"] == "full" else 1e-4,
            "reduction_factor": 32.0 if narrow else 16.0,
        }
    if stage == "fusion":
        rate = 1e-4 if _kind_of_members(values["members"]) in COMPACTERS else 1e-5
        return {"learning_rate": 5e-2 if values["method"] in ("scalar_mix", "mhr") else rate}
    return {}


def _kind_of_members(members: dict[str, str] | None) -> str | None:
    """The kind of the fused adapters, by the label in their directories."""
    words = PurePosixPath(next(iter((members or {"": ""}).values()))).name.split("-")
    return next((word for word in words if word in methods.FUSABLE), None)


def directory(stage: str, values: dict[str, Any]) -> str:
    """Returns the content-named directory of a run with these validated parameters."""
    return f"runs/{stage}/{_label(stage, values)}-{key(stage, values)}"


def key(stage: str, values: dict[str, Any]) -> str:
    """Returns ten hex digits of the hash of the parameters that decide what the run computes."""
    model = STAGES[stage].model
    identity: dict[str, Any] = {}
    later = {n for n in LATER.get(stage, ()) if values.get(n) == model.model_fields[n].default}
    for name in sorted(values.keys() - {"out"} - later):
        identity[name] = _keys(values[name]) if kind(model, name) == "path" else values[name]
    text = json.dumps([stage, identity], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def reset_unused(stage: str, values: dict[str, Any]) -> dict[str, Any]:
    """Sets every parameter without effect on this run to its default, so that it does not split equal runs."""
    silent: set[str] = set()
    if stage == "base_model" and values["base"] != "scratch":  # nothing is trained: the recipe has no effect
        silent = set(values) - {"base", "quantization", "dtype", "task", "out"}
    elif stage == "base_model":
        silent = {"task"}
    elif stage == "data":
        silent = (set() if values["path"] else FILE_PARAMETERS) | (set() if values["kinship"] else {"kinship_in"})
        if values["task"] != "commit":
            silent = silent | {"diff_context", "split_by"}
        if values["task"] != "summarization":
            silent = silent | {"reference"}
    elif stage == "adapter":
        width, lora = {"reduction_factor"}, {"lora_rank", "lora_alpha", "lora_dropout"}
        silent = {"lora": width, "full": width | lora | {"init_seed"}}.get(values["method"], lora)
        # With a start it has the shape and the weights of what it starts from.
        silent = silent | (width | lora | {"init_seed"} if values["start"] else set())
        silent |= {"steps"} if values["epochs"] is not None else set()
        silent |= {"train_embeddings"} if values["method"] == "full" else set()
        if values["steps"] == 0:
            silent |= training_parameters.Training.model_fields.keys() - {"batch_size", "quantization"}
    elif stage == "fusion":
        of_two = {"phase1_data", "carry_optimizer", "same_order"}
        silent = of_two if values["method"] != "advfusion" else {"budget"}
        own = [value for phase in values["phases"] for value in phase.values() if value is not None]
        silent |= set() if own else {"phases"}
        silent |= {"rank"} if values["variant"] != "lowrank" else set()
        silent |= {"steps"} if values["epochs"] is not None else set()
        if not methods.has_value_matrix(values["method"], values["variant"]):
            silent |= {"value_regularizer"}
        if not values["value_regularizer"] or "value_regularizer" in silent:
            silent |= {"late_regularizer"}
        if values["method"] not in ("adapterfusion", "advfusion"):
            silent |= {"scores", "temperature"}
        of_one = {"density": ("ties",), "heads": ("mhr",), "top_k": ("arrow",), "factor": methods.MERGES}
        silent |= {name for name, those in of_one.items() if values["method"] not in those}
        if values["method"] in methods.UNTRAINED:
            idle = {"steps", "rows", "budget", "weights", "probe_every", "keep_trainer_state"}
            idle |= training_parameters.Training.model_fields.keys() | {"float32_matmul_precision"}
            silent |= idle - {"batch_size", "validation", "quantization"}
    elif stage == "evaluate":
        silent = {"shots"} if values["method"] != methods.FEW_SHOT else set()
    return values | {n: STAGES[stage].model.model_fields[n].default for n in silent}


def _keys(value: Any) -> Any:
    """A path field with each path reduced to the key of the run it names. A dict becomes pairs: its order counts."""
    if isinstance(value, dict):
        return [[k, _keys(v)] for k, v in value.items()]
    if isinstance(value, list):
        return [_keys(v) for v in value]
    if isinstance(value, str):
        named = re.search(r"-([0-9a-f]{10})/?$", value)
        return named[1] if named else hashlib.sha256(value.encode()).hexdigest()[:10]
    return value


def _label(stage: str, values: dict[str, Any]) -> str:
    seed, target = f"s{values.get('seed')}", values.get("target")
    method = values.get("method", "")
    mask = f"_{values['mask']}" if method == "advfusion" else ""
    stored = [word for word in (values.get("quantization"),) if word and stage != "base_model"]
    kinds = []  # what a fusion is besides its method, where that is not usual
    if stage == "fusion":
        words_of_kind = (_kind_of_members(values["members"]), values["variant"])
        kinds = [word for word in words_of_kind if word not in (None, "bottleneck", "full")]
        kinds += [methods.label(changes).removeprefix("-")] if (changes := methods.changes(values)) else []
        kinds += [f"without-fold-{values['fold']}"] if values["fold"] else []
        kinds += stored
    words = {
        "base_model": [values.get("base"), seed if values.get("base") == "scratch" else values.get("quantization")],
        "data": [values.get("task"), target],
        "adapter": [values.get("language"), method, *_training_label(values), *stored, seed],
        "fusion": [target, f"{method}{mask}", *kinds, seed],
        "evaluate": [values.get("language"), methods.label(method), *stored],
        "fusion_attention": [methods.label(method), *stored],
        "compare": [target],
        "gather": ["over", *(values.get("over") or [])],
    }[stage]
    if stage == "base_model" and words[0] != "scratch":
        words[0] = str(words[0]).rstrip("/").rsplit("/", 1)[-1].partition("@")[0]
    text = "-".join(str(w) for w in words).lower().replace("#", "sharp").replace("+", "p")
    return re.sub(r"[^a-z0-9_.-]+", "-", text).strip(".-") or stage  # papermill formats paths: no braces


def _training_label(values: dict[str, Any]) -> list[str]:
    """What an adapter's training is besides its language and kind, where that is not usual."""
    start = ("continued" if values.get("steps") else "transferred") if values.get("start") else ""
    rows = values.get("rows", "all").replace("_", "-")
    return [word for word in (rows if rows not in ("all", "half") else "", start) if word]


def inputs(stage: str, values: dict[str, Any]) -> Iterator[str]:
    """Yields every run directory that the parameters name, in order."""
    for name, value in values.items():
        if kind(STAGES[stage].model, name) == "path" and name != "out":
            yield from (v for v in _leaves(value) if isinstance(v, str))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _leaves(part)
    else:
        yield value
