"""Adapters that start from trained ones: of several candidates the best on the validation rows.

With one candidate, a training goes on from it. With no step to take, the best candidate is the result: transfer of a
source adapter without any training on the target (zero-shot).
"""

from __future__ import annotations

from pathlib import Path

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from studykit.errors import UserError
from studykit.study.training_parameters import AdapterParams
from studykit.training.adapters import (
    adapter_directory,
    new_adapter,
    require_base,
    trained_head,
    unfreeze_embeddings,
    use_head,
)
from studykit.training.batches import TokenSequence
from studykit.training.train import train


def start_adapter(
    model: PreTrainedModel, tokenizer, p: AdapterParams, valid: list[TokenSequence], trainer_state_dir: Path
) -> tuple[nn.Module, dict[str, float]]:
    """Returns the base with a trainable adapter, and the validation loss of every candidate that it could start from.

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
    require_base(p.base, p.start)
    losses: dict[str, float] = {}
    if len(p.start) > 1:
        for run in p.start:
            candidate = _load(model, run, p.language)
            result, _ = train(
                candidate, tokenizer, [], valid, p, steps=0, trainer_state_dir=trainer_state_dir, seed=p.seed
            )
            losses[run], model = result.validation_loss(), candidate.unload()
    best = min(p.start, key=lambda run: losses.get(run, 0.0))
    started = _load(model, best, p.language)
    return (unfreeze_embeddings(started) if p.train_embeddings else started), losses


def _load(model: PreTrainedModel, run: str, name: str) -> PeftModel:
    """Returns the base with the adapter of a run, trainable and under another name."""
    if not list(Path(run).glob("adapter/*/adapter_config.json")):
        raise UserError(f"start names {run}, which holds no adapter that a training could go on from.")
    use_head(model, trained_head(run))
    return PeftModel.from_pretrained(model, adapter_directory(run), adapter_name=name, is_trainable=True)
