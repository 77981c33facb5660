"""Adapters on a base: a new one to train, one that starts from a trained one, and those of finished adapter runs.

An adapter run holds `adapter/<language>/` in PEFT's format; with the method `full` the directory holds all weights of
the trained base instead.
"""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, set_seed

from studykit.data.rows import DataRun, Row, folds, halves, validation_rows
from studykit.errors import UserError
from studykit.runs.manifest import finished_run
from studykit.study.training_parameters import WITHOUT_FOLD, AdapterParams
from studykit.training.base import kept_in
from studykit.training.batches import TokenSequence
from studykit.training.train import train
from studykit.tuners import PRESETS, BottleneckConfig, load_lora

# PEFT still uses the name that transformers gave to gradient checkpointing before version 5.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
HEAD_FILE = "head.safetensors"  # beside an adapter: the head that was trained with it
ORIGINAL_HEAD = "original_head"  # attribute of a base whose head is an adapter's: its own weights
FULL_WEIGHTS_FILE = "model.safetensors"  # all weights of a base that the method `full` trained


def adapter_config(p: AdapterParams) -> BottleneckConfig | LoraConfig:
    """Returns the configuration that the parameters of notebook 02 describe.

    LoRA adapts the projections that PEFT chooses for the model's family.
    """
    if p.method == "lora":
        return LoraConfig(
            r=p.lora_rank,
            lora_alpha=p.lora_alpha,  # type: ignore[arg-type]  # PEFT takes any number
            lora_dropout=p.lora_dropout,
            bias="none",
            task_type="CAUSAL_LM",
        )
    fields = PRESETS[p.method] | {"reduction_factor": p.reduction_factor}
    return BottleneckConfig(**fields, task_type="CAUSAL_LM")


def training_rows(p: AdapterParams) -> list[Row]:
    """Returns the rows that train an adapter.

    They are those of its language, the first of their `halves`, all but one of their `folds`, or those of all members.
    """
    data = DataRun(p.data)
    members = data.params["members"] if p.rows == "pooled" else [p.language]
    rows = [row for member in members for row in data.rows(member, "train", p.trained_on)]
    if p.rows in WITHOUT_FOLD:
        unseen = {row.id for row in _left_out(rows, p)}
        return [row for row in rows if row.id not in unseen]
    return halves(rows, p.seed)[0] if p.rows == "half" else rows


def selecting_rows(p: AdapterParams) -> tuple[list[Row], list[Row]]:
    """Returns the rows that choose an adapter's step, and those that judge a trial (see `validation_rows`).

    They are validation rows, or the fold that is left out, if the language has no validation rows of its own.
    """
    data = DataRun(p.data)
    if p.rows in WITHOUT_FOLD and data.is_cross_validated(p.language):
        return _left_out(data.rows(p.language, "train", p.trained_on), p), []
    return validation_rows(data.rows(p.language, "valid", p.trained_on), p.validation)


def _left_out(rows: list[Row], p: AdapterParams) -> list[Row]:
    return folds(rows, len(WITHOUT_FOLD), p.seed)[WITHOUT_FOLD.index(p.rows)]


def new_adapter(model: PreTrainedModel, p: AdapterParams) -> nn.Module:
    """Returns the base with one new, trainable adapter that is named after its language and drawn from the seed.

    With the method `full` it returns the base itself, with all of its weights trainable in fp32. Raises UserError if
    the parameters make no adapter of this base, or if a quantized base would have to be trained whole.
    """
    set_seed(p.seed if p.init_seed == "shared" else (p.seed + zlib.crc32(p.language.encode())) % 2**32)
    if p.method != "full":
        try:
            adapted: Any = get_peft_model(model, adapter_config(p), adapter_name=p.language)
            return unfreeze_embeddings(adapted) if p.train_embeddings else adapted
        except ValueError as error:  # a name that is not accepted, or widths that PHM layers cannot divide
            raise UserError(
                f"method={p.method}, language={p.language}, reduction_factor={p.reduction_factor} cannot make "
                f"an adapter of this base: {error}"
            ) from None
    if getattr(model, "quantization_method", None):
        raise UserError("method full cannot train a quantized base; set quantization to none, or choose an adapter.")
    return model.float().requires_grad_(True)


def start_adapter(
    model: PreTrainedModel, tokenizer, p: AdapterParams, valid: list[TokenSequence], trainer_state_dir: Path
) -> tuple[nn.Module, dict[str, float]]:
    """Returns the base with a trainable adapter, and the validation loss of every candidate that it could start from.

    The best candidate is taken. With no step to take it is the result: transfer without training on the target.

    Args:
        p: `start` names the candidates, which are finished adapter runs of the same kind on the same base; without any,
            the adapter is a new one.
        valid: rows of the target, from `encode_rows`.
        trainer_state_dir: as for `train`.

    Returns: the model, and losses in nats per completion token by run; none where there was nothing to choose.
    Raises: UserError for a candidate of another base.
    """
    if not p.start:
        return new_adapter(model, p), {}
    require_base(p.base, p.start, p.quantization)
    losses: dict[str, float] = {}
    if len(p.start) > 1:
        for run in p.start:
            candidate = _load_start(model, run, p.language)
            result, _ = train(
                candidate, tokenizer, [], valid, p, steps=0, trainer_state_dir=trainer_state_dir, seed=p.seed
            )
            losses[run], model = result.validation_loss(), candidate.unload()
    best = min(p.start, key=lambda run: losses.get(run, 0.0))
    started = _load_start(model, best, p.language)
    return (unfreeze_embeddings(started) if p.train_embeddings else started), losses


def _load_start(model: PreTrainedModel, run: str, name: str) -> PeftModel:
    """Returns the base with the adapter of a run, trainable and under another name."""
    if not list(Path(run).glob("adapter/*/adapter_config.json")):
        raise UserError(f"start names {run}, which holds no adapter that a training could go on from.")
    use_head(model, trained_head(run))
    return PeftModel.from_pretrained(model, adapter_directory(run), adapter_name=name, is_trainable=True)


def unfreeze_embeddings(model: Any) -> Any:
    """Makes the embeddings and the head of a model trainable, which may be one matrix, and returns the model."""
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        module.weight.requires_grad_(True)
    return model


@torch.no_grad()
def use_head(model: Any, file: Path | None) -> None:
    """Gives a base the head that was trained with an adapter, or its own again.

    As in the reference implementation only the head is saved and loaded. Where it is tied to the embeddings they change
    with it; where it is not, the embeddings that were trained with it are lost.

    Args:
        model: a base, bare or with adapters.
        file: of an adapter run, see `trained_head`; None: the base's own head.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    original: Any = getattr(base, ORIGINAL_HEAD, None)
    if file is None and original is None:
        return
    weight = base.get_output_embeddings().weight
    if original is None:
        setattr(base, ORIGINAL_HEAD, weight.detach().cpu().clone())
    weight.copy_(original if file is None else load_file(file)["weight"])


def trained_head(run: str | Path) -> Path | None:
    """Returns the file of the head that an adapter run trained; None if it trained none."""
    return next(iter(Path(run).glob(f"adapter/*/{HEAD_FILE}")), None)


def adapter_directory(run: str | Path) -> Path:
    """Returns the directory that holds the adapter of a finished adapter run; raises UserError if there is none."""
    configs = sorted(Path(run).glob("adapter/*/adapter_config.json"))
    if len(configs) != 1:
        raise UserError(f"{run} holds no adapter; a finished run of notebook 02_adapter is needed.")
    return configs[0].parent


def require_base(base: str | Path, trained_runs: Iterable[str | Path], quantization: str | None = None) -> None:
    """Raises UserError unless finished runs were trained on this base run, kept in memory as is said.

    On another base their weights mean nothing. On the same base in other numbers they mean something else, which may be
    the question of a study, but must not happen unnoticed.

    Args:
        quantization: none, nf4 or int8, in which the base was kept in memory in these trainings; None: as in its run.
    """
    for run in trained_runs:
        params = finished_run(run).params
        run_base, found = params.get("base"), params.get("quantization")
        if run_base is None or Path(run_base).name != Path(base).name:
            raise UserError(f"{run} was trained on {run_base}, not on {base}; give runs of one base.")
        if found != quantization and kept_in(base, found) != kept_in(base, quantization):
            raise UserError(
                f"{run} was trained on its base in {kept_in(base, found)}, not in {kept_in(base, quantization)}; to "
                "mix them, a study names them in adapter.quantization, fusion.quantization and evaluate.quantization, "
                "a notebook in members_quantization or trained_quantization."
            )


def load_members(model: PreTrainedModel | PeftModel, members: Mapping[str, str]) -> PeftModel:
    """Returns the base with the adapters of runs, frozen and in order, as a fusion needs them.

    Args:
        model: the base, or one that has adapters, which then stay.
        members: adapter runs by the names that the adapters get.
    Raises: UserError for a run that has no adapter, or that trained the whole base.
    """
    peft_model = model if isinstance(model, PeftModel) else None
    for name, run in members.items():
        if full_weights(run):
            raise UserError(f"{run} cannot be fused: it trained the whole base and has no adapter.")
        directory = adapter_directory(run)
        config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
        if config.get("peft_type") == "LORA":
            peft_model = load_lora(model if peft_model is None else peft_model, directory, name)
        elif peft_model is None:
            peft_model = PeftModel.from_pretrained(model, directory, adapter_name=name)
        else:
            peft_model.load_adapter(directory, adapter_name=name)
    assert peft_model is not None  # there are members
    return peft_model


def save_adapter(model: nn.Module, directory: Path, name: str) -> None:
    """Writes an adapter's weights and configuration to `directory/name`, with its head if that was trained.

    Of a base trained whole all weights are written.
    """
    if isinstance(model, PeftModel):
        model.save_pretrained(str(directory), selected_adapters=[name])
        head: Any = model.get_output_embeddings()
        if head.weight.requires_grad:
            save_parameters([("weight", head.weight)], directory / name / HEAD_FILE)
    else:
        save_parameters(model.named_parameters(), directory / name / FULL_WEIGHTS_FILE)


def save_parameters(parameters: Iterable[tuple[str, nn.Parameter]], file: Path) -> None:
    """Writes named parameters to a safetensors file, whose directory is made if it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: parameter.detach().contiguous() for name, parameter in parameters}, file)


@torch.no_grad()
def copy_parameters(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copies weights by name into the parameters of a model; every name must be a parameter's."""
    parameters = dict(model.named_parameters())
    for name, weight in weights.items():
        parameters[name].copy_(weight)


class FullWeights:
    """A base whose weights are those of a fully trained run until `unload`, which restores the original ones."""

    def __init__(self, base: nn.Module, file: Path):
        self.base = base
        self.original = {name: p.detach().cpu().clone() for name, p in base.named_parameters()}
        copy_parameters(base, load_file(file))

    def unload(self) -> nn.Module:
        """Restores the weights of the base and returns it."""
        copy_parameters(self.base, self.original)
        return self.base

    def __call__(self, *args, **kwargs):
        return self.base(*args, **kwargs)

    def __getattr__(self, name: str):
        return getattr(self.base, name)


def full_weights(run: str | Path) -> Path | None:
    """Returns the file of weights of a run that trained the whole base; None for a run of another method."""
    return next(iter(Path(run).glob(f"adapter/*/{FULL_WEIGHTS_FILE}")), None)
