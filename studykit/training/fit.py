"""Whether a study fits a GPU: a table of its stages, and for those that do not fit, the settings that would help."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import psutil
import torch

from studykit.errors import UserError
from studykit.runs.text import aligned, format_bytes
from studykit.study.file import Study
from studykit.training.base import cpu_computes_bf16, half_precision
from studykit.training.estimate import Job, Need, jobs
from studykit.training.fusions import FUSION

GB = 1e9
CUDA_CONTEXT = 0.6 * GB  # an allowance for CUDA and its libraries
FRAGMENTS = 1.05  # an allowance: memory that the caching allocator holds, relative to what is allocated
Say = Callable[[str], None]
SMALL_RANK = 64  # rank of the low-rank fusion that is suggested


def remedies(job: Job) -> list[tuple[str, Job]]:
    """Returns the job with each setting that saves memory, and last with all of them, by the settings' text."""
    changes: list[tuple[str, dict]] = []
    if not job.new:
        if not job.checkpointing:
            changes.append(("gradient_checkpointing: true", {"checkpointing": True}))
        if job.optimizer == "adamw" and job.stage != "base_model":
            changes.append(("optimizer: adamw_8bit", {"optimizer": "adamw_8bit"}))
        if job.batch > 1:
            half = {"batch": job.batch // 2, "accumulation": -(-job.batch * job.accumulation // (job.batch // 2))}
            changes.append((f"batch_size: {half['batch']}, gradient_accumulation: {half['accumulation']}", half))
    elif job.batch > 1:
        changes.append((f"batch_size: {job.batch // 2}", {"batch": job.batch // 2}))
    if job.quantization == "none" and not job.full:
        changes.append(("quantization: nf4", {"quantization": "nf4"}))
    fusion = job.adapters.get(FUSION)
    if fusion is not None and fusion.kind == "attention" and fusion.rank is None:
        small = replace(fusion, rank=min(SMALL_RANK, job.config.hidden_size // 4))
        changes.append((f"a fusion of rank {small.rank}", {"adapters": job.adapters | {FUSION: small}}))
    if len(changes) > 1:
        changes.append(("all of these", {key: value for _, change in changes for key, value in change.items()}))
    return [(name, replace(job, **change)) for name, change in changes]


def capacity(text: str | None) -> tuple[int, str, bool]:
    """Returns the bytes of a memory, its name, and whether it is a GPU's.

    Args:
        text: the value of `--gpu`, such as 24GB or 24GiB; None: this machine's GPU, or its memory without one.
    """
    if text is None:
        if torch.cuda.is_available():
            device = torch.cuda.get_device_properties(0)
            return device.total_memory, f"this machine's {device.name}", True
        return psutil.virtual_memory().total, "this machine's memory, without a GPU", False
    size = re.fullmatch(r"(\d+(?:\.\d+)?) ?(GB|GiB|MB|MiB)", text.strip(), re.IGNORECASE)
    if not size:
        raise UserError(f"--gpu is {text!r}; it must be a size such as 24GB or 24GiB.")
    unit = {"gb": 10**9, "gib": 2**30, "mb": 10**6, "mib": 2**20}[size[2].lower()]
    return int(float(size[1]) * unit), f"a GPU of {text.strip()}", True


def fits(need: Need, room: int, gpu: bool) -> bool:
    """Returns whether a stage fits into a memory of `room` bytes, with the allowances for a GPU."""
    return need.peak * (FRAGMENTS if gpu else 1) + (CUDA_CONTEXT if gpu else 0) <= room


def as_data(study: Study, gpu: str | None = None, say: Say = lambda text: None) -> dict[str, Any]:
    """Returns the estimate for programs that read it: bytes per kind of stage, and whether it fits."""
    room, whose, on_gpu = capacity(gpu)
    planned, unknown = jobs(study, on_gpu if gpu is not None else half_precision())
    needs = list(zip(planned, _needs(planned, say), strict=True))
    stages = [
        {"stage": job.stage, "label": job.label, **asdict(need), "fits": fits(need, room, on_gpu)}
        for job, need in needs
    ]
    return {"study": study.study, "memory": room, "memory_of": whose, "stages": stages, "not_estimated": unknown}


def _needs(planned: list[Job], say: Say) -> list[Need]:
    """The memory of each job; `say` is told of each before it is measured, which takes seconds."""
    needs = []
    for number, job in enumerate(planned, 1):
        say(f"{number} of {len(planned)}: {job.stage}, {job.label}")
        needs.append(job.need())
    return needs


def report(study: Study, gpu: str | None = None, say: Say = lambda text: None) -> str:
    """Returns the estimate as text of 80 columns: two tables with a line per kind of stage, and for those that do not
    fit the settings that would help.

    Args:
        say: is called with what is being measured.
    """
    room, whose, on_gpu = capacity(gpu)
    half = on_gpu if gpu is not None else half_precision()
    planned, unknown = jobs(study, half, gpu is None and cpu_computes_bf16())
    needs = _needs(planned, say)
    weights = [["stage", "parameters", "trainable", "disk", "checkpoint"]]
    memory = [["memory", "base", "adapters", "gradients", "optimizer", "activations", "peak", "fits"]]
    for number, (job, need) in enumerate(zip(planned, needs, strict=True), start=1):
        state = need.gradients + need.optimizer
        sizes = (state if job.keeps_state else need.gradients, state)
        disk = [format_bytes(size) if need.trainable else "-" for size in sizes]
        weights.append([f"{number} {job.stage}: {job.label}", f"{need.parameters:,}", f"{need.trainable:,}", *disk])
        parts = (need.base, need.adapters, need.gradients, need.optimizer, need.activations, need.peak)
        memory.append([f"{number}", *map(format_bytes, parts), "yes" if fits(need, room, on_gpu) else "no"])
    config = planned[0].config
    dtype = {"none": "bf16" if planned[0].half else "fp32"}.get(study.quantization, study.quantization)
    counted = "the peak; the interpreter and its libraries take about 1 GB more"
    if on_gpu:
        counted = f"the peak, {FRAGMENTS - 1:.0%} for fragments and {format_bytes(CUDA_CONTEXT)} for CUDA itself"
    notes = [
        "disk: what a run publishes, a fusion once per phase: trained weights, with the optimizer's state if "
        "keep_trainer_state is true",
        "checkpoint: weights and optimizer state; up to two lie on disk while a training runs, and of a phase that has "
        "ended only its weights, unless carry_optimizer or keep_trainer_state is true",
        "activations: memory that a step keeps for its backward pass; where nothing trains, the peak of a pass",
        f"fits: {counted}",
    ]
    if unknown:
        notes.append(f"not estimated, since PEFT builds them from finished adapters: {', '.join(unknown)}")
    lines = [
        f"{study.study}, on {whose} ({format_bytes(room)})",
        f"base {study.base}: {config.model_type}, {config.num_hidden_layers} layers of width {config.hidden_size}, "
        f"vocabulary {config.vocab_size:,}, in {dtype}; rows of {study.data.max_prompt_tokens} + "
        f"{study.data.max_target_tokens} tokens",
    ]
    wrapped = [[textwrap.fill(line, 80, subsequent_indent="  ") for line in part] for part in (lines, notes)]
    lines = [*wrapped[0], "", *aligned(weights), "", *aligned(memory), "", *wrapped[1]]
    for job, need in zip(planned, needs, strict=True):
        if not fits(need, room, on_gpu):
            say(f"what would help {job.stage}, {job.label}")
            lines += ["", *_remedy_lines(job, need, room, on_gpu)]
    return "\n".join(lines)


def _remedy_lines(job: Job, need: Need, room: int, gpu: bool) -> list[str]:
    """Returns the lines that show what would help a stage that does not fit."""
    rows = []
    for name, other in remedies(job):
        changed = other.need()
        if changed.peak >= need.peak:
            continue
        answer = "fits" if fits(changed, room, gpu) else "too large"
        rows.append([f"  {name}", format_bytes(changed.peak), format_bytes(changed.peak - need.peak), answer])
    if not rows:
        return [f"{job.stage}: {job.label} needs {format_bytes(need.peak)}; no known change of settings would help"]
    return [f"{job.stage}: {job.label} needs {format_bytes(need.peak)}; what would help:", *aligned(rows)]
