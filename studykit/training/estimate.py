"""What a study needs in memory, before anything is downloaded or trained: per stage, and whether a GPU is large enough.

Nothing but the base's config is read. Weights are counted on the model itself, built without content; what training
and generating take beside them is found by `footprint`. A stage's peak is

    weights + optimizer state + the most that is alive of activations, gradients and temporaries

for rows of the full max_prompt_tokens + max_target_tokens. Sizes are in GB = 10^9 bytes.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace

import psutil
import torch
from peft import PeftConfig
from torch import nn
from transformers import AutoConfig, PretrainedConfig, Qwen2Config

from studykit.errors import UserError
from studykit.runs.text import format_bytes
from studykit.study import methods, plan
from studykit.study.file import Study
from studykit.study.parameters import check
from studykit.training import memory
from studykit.training.adapters import adapter_config
from studykit.training.base import half_precision
from studykit.training.fusions import FUSION, fusion_config

GB = 1e9
CUDA_CONTEXT = 0.6 * GB  # what CUDA and its libraries hold beside tensors; an allowance, as is the next
FRAGMENTS = 1.05  # what the caching allocator holds beyond what is allocated
MIN_8BIT = 4096  # entries: bitsandbytes keeps the moments of smaller tensors in fp32
BLOCK_8BIT = 256  # entries per scale
SMALL_RANK = 64  # of the low-rank fusion that is suggested
DEPTHS = (4, 6)  # layers of the models that stand for deeper ones
PROBE = (2, 80)  # prompts per language of a checkpoint's probe, new tokens: see `pretraining`


@dataclass(frozen=True)
class Need:
    """What one stage takes; bytes but for the two counts."""

    parameters: int
    trainable: int
    base: int  # weights of the base
    adapters: int  # weights of adapters and fusions, and of the members' stacks
    gradients: int
    optimizer: int
    activations: int  # kept for the backward pass; where nothing trains: the most alive in a forward pass
    peak: int


@dataclass(frozen=True)
class Job:
    """One stage of a study as far as memory goes."""

    stage: str
    label: str
    config: PretrainedConfig
    adapters: dict[str, PeftConfig]  # in order; the last is active
    half: bool  # the base in bf16
    batch: int  # rows per forward pass
    length: int  # tokens per row; of a prompt where `new` is given
    new: int = 0  # tokens to generate; 0: it trains
    quantization: str = "none"
    optimizer: str = "adamw"
    checkpointing: bool = False
    accumulation: int = 1
    bf16: bool = False  # autocast
    value_penalty: bool = False
    full: bool = False  # all weights of the base train, in fp32
    scored: int = 0  # tokens per row whose loss is measured beside generation

    @property
    def same(self) -> str:
        """Equal for jobs that take equal memory."""
        return repr(replace(self, label="", config=None, adapters=list(self.adapters.values())))

    def need(self) -> Need:
        """Raises UserError if the adapters do not fit the base."""
        model, base = self._model(self.config)
        added = [p for name, p in model.named_parameters() if ".composition." in name or ".lora_" in name]
        adapters = sum(p.nbytes for p in added) + memory.stack_bytes(model)
        trained = [] if self.new else [p for p in model.parameters() if p.requires_grad]
        state = sum(state_bytes(p.numel(), self.optimizer) for p in trained)
        alive = self._alive()
        most = max(alive["early"], alive["late"], alive["passing"])
        return Need(
            parameters=sum(p.numel() for p in model.parameters()),
            trainable=sum(p.numel() for p in trained),
            base=base,
            adapters=adapters,
            gradients=sum(p.nbytes for p in trained),
            optimizer=state,
            activations=alive["saved"] if trained else most,
            peak=base + adapters + state + most,
        )

    def _model(self, config: PretrainedConfig) -> tuple[nn.Module, int]:
        """The skeleton with its adapters, and the bytes of its base."""
        model = memory.skeleton(config, torch.bfloat16 if self.half and not self.full else torch.float32)
        base = memory.weight_bytes(model, self.quantization)
        if not self.adapters:
            return model.requires_grad_(self.full), base
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PEFT's, of a base that has no content
                return memory.attach(model, self.adapters), base
        except ValueError as error:
            raise UserError(f"{self.stage}, {self.label}: {str(error).splitlines()[0]}") from None

    def _alive(self) -> dict[str, int]:
        """Bytes alive beside weights and optimizer state; of many layers as two shallow models tell, since each layer
        adds the same."""
        layers = self.config.num_hidden_layers
        if layers <= DEPTHS[1]:
            return self._passes(self.config)
        low, high = (self._passes(_cut(self.config, depth)) for depth in DEPTHS)
        steps = (layers - DEPTHS[1]) / (DEPTHS[1] - DEPTHS[0])
        return {name: int(high[name] + steps * (high[name] - low[name])) for name in high}

    def _passes(self, config: PretrainedConfig) -> dict[str, int]:
        model, _ = self._model(config)
        options = {"quantization": self.quantization}
        found = {"saved": 0, "early": 0, "late": 0}
        if self.new:
            found["early"], found["late"] = memory.generation_peaks(
                model, self.batch, self.length, self.new, **options
            )
            scoring = memory.forward_peak(model, self.batch, self.scored, **options) if self.scored else 0
            return found | {"passing": scoring}
        passing = memory.forward_peak(model, 2 * self.batch, self.length, bf16=self.bf16, **options)
        if any(p.requires_grad for p in model.parameters()):
            step = memory.training_step(
                model, self.batch, self.length, bf16=self.bf16, checkpointing=self.checkpointing,
                accumulation=self.accumulation, value_penalty=self.value_penalty, **options,
            )  # fmt: skip
            found = {"saved": step.saved, "early": step.early, "late": step.late}
        return found | {"passing": passing}


def _cut(config: PretrainedConfig, layers: int) -> PretrainedConfig:
    config = copy.deepcopy(config)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    config.num_hidden_layers = layers
    return config


def state_bytes(entries: int, optimizer: str) -> int:
    """Bytes of AdamW's two moments of one tensor: fp32, or 8 bits with an fp32 scale per block of 256."""
    if optimizer == "adamw" or entries < MIN_8BIT:
        return 8 * entries
    return 2 * entries + 8 * -(-entries // BLOCK_8BIT)


def read_config(study: Study) -> PretrainedConfig:
    """The config of a study's base; UserError if it can be read neither from the disk nor from the hub."""
    p = study.base_model
    if study.base == "scratch":
        return Qwen2Config(vocab_size=p.vocab_size, hidden_size=p.hidden_size, num_hidden_layers=p.layers,
                           num_attention_heads=p.heads, num_key_value_heads=p.heads, tie_word_embeddings=True,
                           intermediate_size=p.intermediate_size)  # fmt: skip
    try:
        return AutoConfig.from_pretrained(study.base).get_text_config()
    except (OSError, ValueError) as error:
        raise UserError(
            f"base={study.base!r} has no config.json that can be read here ({str(error).splitlines()[0]}); an estimate "
            "needs that file alone, from a directory, the hub or its cache."
        ) from None


def jobs(study: Study, half: bool) -> tuple[list[Job], list[str]]:
    """(what the study's runs take, each kind once; methods of which nothing is known before their runs)."""
    config, limits = read_config(study), (study.data.max_prompt_tokens, study.data.max_target_tokens)
    runs = plan.plan(study)
    made: dict[str, Job] = {}  # by directory
    unknown: list[str] = []
    on = {"config": config, "half": half, "quantization": study.quantization}
    for run in runs:
        if run.stage not in ("base_model", "adapter", "fusion", "evaluate"):
            continue
        p = check(run.stage, run.params)
        trains = {}
        if run.stage in ("adapter", "fusion"):
            trains = {"batch": p.batch_size, "length": sum(limits), "checkpointing": p.gradient_checkpointing,
                      "accumulation": p.gradient_accumulation, "optimizer": p.optimizer,
                      "bf16": p.precision == "bf16" or (p.precision == "auto" and half)}  # fmt: skip
        if run.stage == "base_model" and study.base == "scratch":
            job = Job(run.stage, "from scratch", config, {}, half, p.batch_size, p.context, full=True, bf16=half)
        elif run.stage == "base_model":
            prompts = min(32, PROBE[0] * len(study.all_languages))
            job = Job(run.stage, "probe", adapters={}, batch=prompts, length=limits[0], new=PROBE[1], **on)
        elif run.stage == "adapter" and p.method == "full":
            job = Job(run.stage, p.method, adapters={}, full=True, **on, **trains)
        elif run.stage == "adapter":
            job = Job(run.stage, p.method, adapters={p.language: adapter_config(p)}, **on, **trains)
        elif run.stage == "fusion" and p.method in methods.PEFT_COMPOSITIONS:
            unknown.append(p.method)
            continue
        elif run.stage == "fusion":
            held = {need.dir: made[need.dir].adapters for need in run.needs if need.stage == "adapter"}
            members = {language: memory.as_member(next(iter(held[directory].values())), config.model_type)
                       for language, directory in p.members.items()}  # fmt: skip
            variant = "" if p.variant == "full" else f"-{p.variant}"
            kinds = sorted({made[directory].label for directory in p.members.values()} - {"bottleneck"})
            label = " ".join([f"{p.method}{variant} of {len(members)}", *kinds])
            job = Job(run.stage, label, adapters=members | {FUSION: fusion_config(p)},
                      value_penalty=p.value_regularizer > 0, **on, **trains)  # fmt: skip
        else:
            trained = [made[directory] for directory in p.trained_runs or [] if directory in made]
            if p.trained_runs and not trained:
                continue
            job = Job(run.stage, p.method, adapters=trained[0].adapters if trained else {}, batch=p.batch_size,
                      length=limits[0], new=p.max_new_tokens, scored=sum(limits), **on)  # fmt: skip
        made[run.dir] = job
    found: dict[str, Job] = {}
    for job in made.values():
        known = found.get(job.same)
        labels = list(dict.fromkeys([*(known.label.split(", ") if known else []), job.label]))
        found[job.same] = replace(job, label=", ".join(labels))
    return list(found.values()), list(dict.fromkeys(unknown))


def remedies(job: Job) -> list[tuple[str, Job]]:
    """Changes that take less memory, each alone, and the last with all of them."""
    found: list[tuple[str, dict]] = []
    if not job.new:
        if not job.checkpointing:
            found.append(("gradient_checkpointing: true", {"checkpointing": True}))
        if job.optimizer == "adamw" and job.stage != "base_model":
            found.append(("optimizer: adamw_8bit", {"optimizer": "adamw_8bit"}))
        if job.batch > 1:
            half = {"batch": job.batch // 2, "accumulation": -(-job.batch * job.accumulation // (job.batch // 2))}
            found.append((f"batch_size: {half['batch']}, gradient_accumulation: {half['accumulation']}", half))
    elif job.batch > 1:
        found.append((f"batch_size: {job.batch // 2}", {"batch": job.batch // 2}))
    if job.quantization == "none" and not job.full:
        found.append(("quantization: nf4", {"quantization": "nf4"}))
    fusion = job.adapters.get(FUSION)
    if fusion is not None and fusion.kind == "attention" and fusion.rank is None:
        small = replace(fusion, rank=min(SMALL_RANK, job.config.hidden_size // 4))
        found.append((f"a fusion of rank {small.rank}", {"adapters": job.adapters | {FUSION: small}}))
    if len(found) > 1:
        found.append(("all of these", {key: value for _, change in found for key, value in change.items()}))
    return [(name, replace(job, **change)) for name, change in found]


def capacity(text: str | None) -> tuple[int, str, bool]:
    """(bytes, whose, whether it is a GPU) of what `--gpu` says, such as 24GB or 24GiB; None: of this machine."""
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
    return need.peak * (FRAGMENTS if gpu else 1) + (CUDA_CONTEXT if gpu else 0) <= room


def report(study: Study, gpu: str | None = None) -> str:
    """The estimate as text: a table, one line per kind of stage, and for what does not fit what would help."""
    room, whose, on_gpu = capacity(gpu)
    half = on_gpu if gpu is not None else half_precision()
    asked, unknown = jobs(study, half)
    needs = [job.need() for job in asked]
    columns = ("stage", "parameters", "trainable", "base", "adapters", "gradients", "optimizer", "activations", "peak",
               "fits")  # fmt: skip
    rows = [[f"{job.stage}: {job.label}", f"{n.parameters:,}", f"{n.trainable:,}",
             *map(format_bytes, (n.base, n.adapters, n.gradients, n.optimizer, n.activations, n.peak)),
             "yes" if fits(n, room, on_gpu) else "no"] for job, n in zip(asked, needs, strict=True)]  # fmt: skip
    config = asked[0].config
    weights = {"none": "bf16" if half else "fp32"}.get(study.quantization, study.quantization)
    lines = [
        f"{study.study}, on {whose} ({format_bytes(room)})",
        f"base {study.base}: {config.model_type}, {config.num_hidden_layers} layers of width {config.hidden_size}, "
        f"vocabulary {config.vocab_size:,}, in {weights}; rows of {study.data.max_prompt_tokens} + "
        f"{study.data.max_target_tokens} tokens",
        "",
        *_aligned([list(columns), *rows]),
        "",
        "activations: what a training step keeps for its backward pass; where nothing trains, the most alive in a pass",
    ]
    beside = f"the peak, {FRAGMENTS - 1:.0%} for fragments and {format_bytes(CUDA_CONTEXT)} for CUDA itself" if on_gpu else \
        "the peak; the interpreter and its libraries take about 1 GB more"  # fmt: skip
    lines.append(f"fits: {beside}")
    if unknown:
        lines.append(f"not estimated, since PEFT builds them from finished adapters: {', '.join(unknown)}")
    for job, need in zip(asked, needs, strict=True):
        if not fits(need, room, on_gpu):
            lines += ["", *_helped(job, need, room, on_gpu)]
    return "\n".join(lines)


def _helped(job: Job, need: Need, room: int, gpu: bool) -> list[str]:
    rows = []
    for name, other in remedies(job):
        if (then := other.need()).peak >= need.peak:
            continue
        rows.append([f"  {name}", format_bytes(then.peak), format_bytes(then.peak - need.peak),
                     "fits" if fits(then, room, gpu) else "too large"])  # fmt: skip
    if not rows:
        return [f"{job.stage}: {job.label} needs {format_bytes(need.peak)}; nothing that is known here would help"]
    return [f"{job.stage}: {job.label} needs {format_bytes(need.peak)}; what would help:", *_aligned(rows)]


def _aligned(rows: Iterable[list[str]]) -> list[str]:
    """Text in columns: the first to the left, the others to the right."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths,
            strict=True))).rstrip() for row in rows]  # fmt: skip


def training(config: PretrainedConfig, adapters: dict[str, PeftConfig], **settings) -> Need:
    """What training the last of the adapters takes; settings are those of a `Job`."""
    settings = {"bf16": settings["half"]} | settings
    return Job("training", list(adapters)[-1], config, adapters, **settings).need()
