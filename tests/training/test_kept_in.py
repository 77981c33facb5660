"""Weights that were trained on a base in some numbers and are used on the same base in others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from studykit.attention.recording import require_method
from studykit.data.rows import DataRun
from studykit.errors import UserError
from studykit.evaluation import trained
from studykit.runs.files import read_json, write_json
from studykit.study.parameters import EvaluateParams, FusionAttentionParams
from studykit.training import adapters
from studykit.training.base import load_base, quantization_of
from studykit.training.fusions import load_trained
from studykit.training.generate import complete
from tests import tiny

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="4 bits on a GPU are tested where models are trained")


def say_trained_in(run: str, quantization: str) -> None:
    """Rewrites the manifest of a made run as that of a training on a base in these numbers."""
    file = Path(run, "manifest.json")
    manifest = read_json(file)
    manifest["params"]["quantization"] = quantization
    write_json(file, manifest)


def evaluation(p, **given) -> EvaluateParams:
    values = {"base": p.base, "data": p.data, "trained_runs": [p.out], "method": "advfusion_exclude", "language": "lua"}
    return EvaluateParams(**values, seeds=[0], **given)


def test_what_was_trained_in_other_numbers_is_refused_unless_it_is_named(home):
    p = tiny.trained_fusion(home, "exclude")
    say_trained_in(p.out, "nf4")
    message = r"was trained on its base in nf4, not in none; to mix them, a study names them in adapter\.quantization"
    with pytest.raises(UserError, match=message):
        trained.evaluated_checkpoints(evaluation(p))
    with pytest.raises(UserError, match="in nf4, not in none"):
        trained.evaluated_checkpoints(evaluation(p, quantization="nf4", trained_quantization="none"))
    assert trained.evaluated_checkpoints(evaluation(p, quantization="nf4"))
    assert trained.evaluated_checkpoints(evaluation(p, trained_quantization="nf4"))
    read = {"base": p.base, "data": p.data, "trained_runs": [p.out], "method": "advfusion_exclude", "seeds": [0]}
    with pytest.raises(UserError, match="in nf4, not in none"):
        require_method(FusionAttentionParams(**read))
    assert require_method(FusionAttentionParams(**read, quantization="nf4"))


def test_a_run_that_names_the_storage_of_its_base_is_not_another(home):
    p = tiny.trained_fusion(home, "exclude")
    say_trained_in(p.out, "none")
    adapters.require_base(p.base, [p.out])
    adapters.require_base(p.base, [p.out], "none")


def test_an_evaluation_across_precisions_writes_what_a_load_by_hand_writes(home, wide_base):
    p = tiny.trained_fusion(home, "exclude")
    rows = DataRun(p.data).rows("lua", "test")
    base, tokenizer = load_base(p.base, "nf4")
    assert (quantization_of(base), quantization_of(load_base(p.base)[0])) == ("nf4", "none")
    (*_, last) = trained.evaluated_checkpoints(evaluation(p, quantization="nf4", trained_quantization="none"))
    with trained.loaded(base, last) as model:
        assert quantization_of(model) == "nf4"
        across = complete(model, tokenizer, rows, tiny.LIMITS)
    by_hand = load_trained(load_base(p.base, "nf4")[0], p.out)
    assert across == complete(by_hand, tokenizer, rows, tiny.LIMITS)
    ids = {"input_ids": torch.arange(6)[None]}
    whole = load_trained(load_base(p.base)[0], p.out)
    with torch.no_grad():
        assert not torch.equal(by_hand(**ids).logits, whole(**ids).logits), "4 bits are other numbers"
