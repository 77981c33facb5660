"""The memory that a study needs, stage by stage, before anything is downloaded or trained, and whether a GPU has it.

Only the configuration of the base is read. Weights are counted on the model itself, built without content; `memory`
measures what training and generation take besides them. A stage's peak is

    weights + optimizer state + the most that is alive of activations, gradients and temporaries

for rows of the full max_prompt_tokens + max_target_tokens. Sizes are in GB = 10^9 bytes.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, replace

import torch
from peft import PeftConfig
from torch import nn
from transformers import AutoConfig, PretrainedConfig

from studykit.errors import UserError
from studykit.study import methods, plan
from studykit.study.file import Study
from studykit.study.parameters import BaseModelParams, check
from studykit.study.training_parameters import WITHOUT_FOLD
from studykit.training import memory
from studykit.training.adapters import adapter_config, unfreeze_embeddings
from studykit.training.base import WIDE, at_revision
from studykit.training.fusions import FUSION, fusion_config
from studykit.training.pretraining import model_config

MIN_8BIT = 4096  # entries; bitsandbytes keeps the state of smaller tensors in fp32
BLOCK_8BIT = 256  # entries per scale
DEPTHS = (4, 6)  # layers of the two models from which deeper ones are extrapolated
PROBED = 5  # copies of what trains that a probe keeps beside: the last weights, and the gradients that it compares
PROBE = (2, 80)  # prompts per language of a checkpoint's probe, new tokens: see `pretraining`


@dataclass(frozen=True)
class Need:
    """The memory that one stage takes, in bytes, and its numbers of parameters."""

    parameters: int
    trainable: int
    base: int  # weights of the base
    adapters: int  # weights of adapters and fusions, and of the members' stacks
    gradients: int
    optimizer: int
    activations: int  # kept for the backward pass; where nothing trains, the peak of a forward pass
    peak: int


@dataclass(frozen=True)
class Job:
    """A stage of a study, with the settings on which its memory depends."""

    stage: str
    label: str
    config: PretrainedConfig
    adapters: dict[str, PeftConfig]  # by name, in order; the last is active
    half: bool  # whether the base is in bf16
    batch: int  # rows per forward pass
    length: int  # tokens per row; of a prompt where `new` is given
    new: int = 0  # tokens to generate; 0: it trains
    quantization: str = "none"
    optimizer: str = "adamw"
    checkpointing: bool = False
    accumulation: int = 1
    bf16: bool = False  # whether the forward pass runs under autocast
    value_penalty: bool = False
    embeddings: bool = False  # the base's embeddings and head train with the adapter
    full: bool = False  # all weights of the base train, in fp32
    counted: int = 0  # tokens per row that count in the loss of a step, or of an evaluation; 0: all
    scored: int = 0  # tokens per row whose loss is measured besides generation
    keeps_state: bool = False  # the optimizer's state is published with the run
    probed: bool = False  # probes keep gradients and weights beside, and the base in full precision if it is quantized

    @property
    def memory_key(self) -> str:
        """Returns a text that is equal for jobs that take equal memory."""
        return repr(replace(self, label="", config=None, adapters=list(self.adapters.values())))

    def need(self) -> Need:
        """Returns the memory that the stage takes; raises UserError if the adapters do not fit the base."""
        model, base = self._model(self.config)
        added = [p for name, p in model.named_parameters() if ".composition." in name or ".lora_" in name]
        adapters = sum(p.nbytes for p in added) + memory.stack_bytes(model)
        trained = [] if self.new else [p for p in model.parameters() if p.requires_grad]
        state = sum(state_bytes(p.numel(), self.optimizer) for p in trained)
        # A probe evaluates the model, which recomputes no activations.
        alive = (replace(self, checkpointing=False) if self.probed else self)._alive()
        peak = max(alive["early"], alive["late"], alive["passing"])
        if self.probed:
            peak += PROBED * sum(p.nbytes for p in trained)
            if self.quantization != "none":
                base, adapters = base + memory.weight_bytes(memory.skeleton(self.config, model.dtype)), 2 * adapters
        return Need(
            parameters=sum(p.numel() for p in model.parameters()),
            trainable=sum(p.numel() for p in trained),
            base=base,
            adapters=adapters,
            gradients=sum(p.nbytes for p in trained),
            optimizer=state,
            activations=alive["saved"] if trained else peak,
            peak=base + adapters + state + peak,
        )

    def _model(self, config: PretrainedConfig) -> tuple[nn.Module, int]:
        """Returns the skeleton with its adapters, and the bytes of its base."""
        model = memory.skeleton(config, torch.bfloat16 if self.half and not self.full else torch.float32)
        base = memory.weight_bytes(model, self.quantization)
        if not self.adapters:
            return model.requires_grad_(self.full), base
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PEFT warns of a base that has no content
                attached = memory.attach(model, self.adapters)
                return unfreeze_embeddings(attached) if self.embeddings else attached, base
        except ValueError as error:
            raise UserError(f"{self.stage}, {self.label}: {str(error).splitlines()[0]}") from None

    def _alive(self) -> dict[str, int]:
        """Returns the bytes that are alive besides weights and optimizer state, by kind.

        For many layers they are extrapolated from two shallow models, since each layer adds the same.
        """
        layers = self.config.num_hidden_layers
        if layers <= DEPTHS[1]:
            return self._passes(self.config)
        low, high = (self._passes(_cut(self.config, depth)) for depth in DEPTHS)
        steps = (layers - DEPTHS[1]) / (DEPTHS[1] - DEPTHS[0])
        return {name: int(high[name] + steps * (high[name] - low[name])) for name in high}

    def _passes(self, config: PretrainedConfig) -> dict[str, int]:
        model, _ = self._model(config)
        options = {"quantization": self.quantization}
        alive = {"saved": 0, "early": 0, "late": 0}
        if self.new:
            alive["early"], alive["late"] = memory.generation_peaks(model, self.batch, self.length, self.new, **options)
            measured = options | {"counted": self.counted}
            scoring = memory.forward_peak(model, self.batch, self.scored, **measured) if self.scored else 0
            return alive | {"passing": scoring}
        passing = memory.forward_peak(model, self.batch, self.length, bf16=self.bf16, **options)
        if any(p.requires_grad for p in model.parameters()):
            step = memory.training_step(
                model,
                self.batch,
                self.length,
                bf16=self.bf16,
                checkpointing=self.checkpointing,
                accumulation=self.accumulation,
                value_penalty=self.value_penalty,
                counted=self.counted,
                **options,
            )
            alive = {"saved": step.saved, "early": step.early, "late": step.late}
        return alive | {"passing": passing}


def _cut(config: PretrainedConfig, layers: int) -> PretrainedConfig:
    config = copy.deepcopy(config)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    config.num_hidden_layers = layers
    return config


def state_bytes(entries: int, optimizer: str) -> int:
    """Returns the bytes of AdamW's state of one tensor: two moments in fp32, or in 8 bits with a scale per block."""
    if optimizer in ("adamw", "paged_adamw_32bit") or entries < MIN_8BIT:
        return 8 * entries
    return 2 * entries + 8 * -(-entries // BLOCK_8BIT)


def read_config(study: Study) -> PretrainedConfig:
    """Returns the configuration of a study's base; raises UserError if neither disk nor hub has it."""
    if study.base == "scratch":
        p = BaseModelParams.model_validate(study.base_model.model_dump())
        return model_config(p, p.vocab_size)
    try:
        return AutoConfig.from_pretrained(**at_revision(study.base), trust_remote_code=False).get_text_config()
    except (OSError, ValueError) as error:
        raise UserError(
            f"base={study.base!r} has no config.json that can be read here ({str(error).splitlines()[0]}); an estimate "
            "needs only that file, from a directory, the hub or its cache."
        ) from None


def jobs(study: Study, half: bool, fast_cpu: bool = False) -> tuple[list[Job], list[str]]:
    """Returns the jobs of a study, each kind once, and the methods whose memory is unknown before their runs.

    Args:
        half: whether the base is in bf16, as on a GPU.
        fast_cpu: whether trainings of a wide base run on a CPU that is fast with bf16.
    """
    config, limits = read_config(study), (study.data.max_prompt_tokens, study.data.max_target_tokens)
    runs = plan.plan(study)
    by_directory: dict[str, Job] = {}
    unknown: list[str] = []
    half_base = half if study.base_dtype == "auto" else study.base_dtype == "bf16"
    for run in runs:
        if run.stage not in ("base_model", "adapter", "fusion", "evaluate"):
            continue
        p = check(run.stage, run.params)
        on = {"config": config, "half": half_base, "quantization": p.quantization or study.quantization}
        trains = {}
        if run.stage in ("adapter", "fusion"):
            trains = {
                "batch": p.batch_size,
                "length": sum(limits),
                "counted": limits[1] if p.loss_on == "completion" and not p.packing else 0,
                "checkpointing": p.gradient_checkpointing,
                "accumulation": p.gradient_accumulation,
                "optimizer": p.optimizer,
                "embeddings": run.stage == "adapter" and p.train_embeddings,
                "bf16": p.precision == "bf16"
                or (p.precision == "auto" and (half or fast_cpu and config.hidden_size >= WIDE)),
            }
        if run.stage == "base_model" and study.base == "scratch":
            job = Job(run.stage, "from scratch", config, {}, half, p.batch_size, p.context, full=True, bf16=half)
        elif run.stage == "base_model":
            prompts = min(32, PROBE[0] * len(study.all_members))
            job = Job(run.stage, "probe", adapters={}, batch=prompts, length=limits[0], new=PROBE[1], **on)
        elif run.stage == "adapter" and p.method == "full":
            job = Job(run.stage, p.method, adapters={}, full=True, **on, **trains)
        elif run.stage == "adapter":
            job = Job(run.stage, p.method, adapters={p.language: adapter_config(p)}, **on, **trains)
        elif run.stage == "fusion" and p.method in methods.PEFT_COMPOSITIONS:
            unknown.append(p.method)
            continue
        elif run.stage == "fusion":
            adapters = {need.dir: by_directory[need.dir].adapters for need in run.needs if need.stage == "adapter"}
            loaded = p.members | dict(zip(WITHOUT_FOLD, p.fold_members or [], strict=False))
            members = {
                name: memory.as_member(next(iter(adapters[directory].values())), config.model_type)
                for name, directory in loaded.items()
            }
            variant = "" if p.variant == "full" else f"-{p.variant}"
            kinds = sorted({by_directory[directory].label for directory in p.members.values()} - {"bottleneck"})
            label = " ".join([f"{p.method}{variant} of {len(p.members)}", *kinds])
            composed = members | {FUSION: fusion_config(p)}
            more = {"value_penalty": p.value_regularizer > 0, "probed": p.probe_every > 0}
            more["keeps_state"] = p.keep_trainer_state
            job = Job(run.stage, label, adapters=composed, **more, **on, **trains)
        else:
            trained = [by_directory[directory] for directory in p.trained_runs or [] if directory in by_directory]
            if p.trained_runs and not trained:
                continue
            adapters = trained[0].adapters if trained else {}
            job = Job(
                run.stage,
                p.method,
                adapters=adapters,
                batch=p.batch_size,
                length=limits[0],
                new=p.max_new_tokens,
                counted=limits[1],
                scored=sum(limits),
                **on,
            )
        by_directory[run.dir] = job
    kinds_of_jobs: dict[str, Job] = {}
    for job in by_directory.values():
        known = kinds_of_jobs.get(job.memory_key)
        own = job.stage == "base_model" or job.quantization == study.quantization
        label = job.label if own else f"{job.label} in {job.quantization}"
        labels = list(dict.fromkeys([*(known.label.split(", ") if known else []), label]))
        kinds_of_jobs[job.memory_key] = replace(job, label=", ".join(labels))
    return list(kinds_of_jobs.values()), list(dict.fromkeys(unknown))


def training(config: PretrainedConfig, adapters: dict[str, PeftConfig], **settings) -> Need:
    """Returns the memory that training the last of the adapters takes; settings are those of a `Job`."""
    settings = {"bf16": settings["half"]} | settings
    return Job("training", list(adapters)[-1], config, adapters, **settings).need()
