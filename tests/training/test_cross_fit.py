"""Laws of cross-fitting: equal folds change nothing, other folds do, and a row never meets a member that has seen it."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from studykit.data.rows import DataRun
from studykit.errors import UserError
from studykit.runs import store
from studykit.runs.manifest import finished_run
from studykit.study.training_parameters import WITHOUT_FOLD, AdapterParams
from studykit.training import adapters, fusions, phases, trainer
from studykit.training.base import load_base
from studykit.tuners.model import active_fusions
from tests import tiny


def fold_members(home, p, kind="bottleneck", seeds=(0, 0, 0)) -> list[str]:
    """Adapters of the target that stand for those without a fold; of seed 0 they have the weights of the member."""
    made = []
    for rows, seed in zip(WITHOUT_FOLD, seeds, strict=True):
        run = home / tiny.adapter_run(home, p.base, "lua", kind, seed)
        place = run.with_name(f"lua-{rows}-{seed:010d}")
        run.rename(place)
        made.append(tiny.finish(home, place, {"rows": rows, "seed": p.seed, "language": "lua"}))
    tiny.adapter_run(home, p.base, "lua", kind)  # the member itself, again
    return made


def cross_fitted(home, p, out: str, **given):
    return p.model_copy(update={"rows": "cross_fit", "out": f"runs/fusion/{out}-0000000009", **given})


def trained(p):
    """The weights after all phases, the losses of each, and the members that the fusion then has."""
    base, tokens = load_base(p.base)
    model = fusions.new_fusion(base, p)
    with store.open_run(p.out, stage="fusion", params=p) as run:
        results = [result for _, result in phases.train_phases(model, tokens, p, tiny.LIMITS, run)]
    log = [[entry.get("loss", entry.get("eval_loss")) for entry in result.log] for result in results]
    return trainer.trained_weights(model), log, [layer.members[name] for layer, name in active_fusions(model)]


@pytest.mark.parametrize("kind", ["bottleneck", "lora", "compacterpp"])
def test_with_equal_adapters_it_is_the_training_on_the_same_rows_bit_for_bit(home, kind):
    """Two phases, rows of all members in the first; with one row in a batch no sum has another order."""
    p = tiny.fusion_params(home, batch_size=1, gradient_accumulation=3, phase1_data="all")
    p = p.model_copy(update={"members": {x: tiny.adapter_run(home, p.base, x, kind) for x in p.members}})
    same, log, _ = trained(p)
    folds, folds_log, members = trained(cross_fitted(home, p, "equal", fold_members=fold_members(home, p, kind)))
    assert log == folds_log and all(torch.equal(same[name], folds[name]) for name in same)
    assert all(names == tiny.MEMBERS for names in members), "the adapter of all rows stands in its place afterwards"


def test_with_equal_adapters_batches_of_several_folds_sum_to_the_same_gradients(home):
    p = tiny.fusion_params(home, batch_size=8, steps=2, value_regularizer=0.5)
    same, log, _ = trained(p)
    folds, folds_log, _ = trained(cross_fitted(home, p, "equal", fold_members=fold_members(home, p)))
    for one, other in zip(log, folds_log, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    biases = ".key.bias"  # what moves it is rounding: it cancels in the softmax
    assert all(torch.allclose(same[n], folds[n], atol=1e-4) for n in same if not n.endswith(biases))


def test_other_adapters_of_the_folds_change_what_is_learned(home):
    p = tiny.fusion_params(home, method="adapterfusion", mask="none")
    same, *_ = trained(p)
    folds, *_ = trained(cross_fitted(home, p, "others", fold_members=fold_members(home, p, seeds=(4, 5, 6))))
    assert not all(torch.allclose(same[name], folds[name], atol=1e-3) for name in same)


def test_each_row_is_read_through_the_adapter_that_has_not_seen_it(home, monkeypatch):
    p = tiny.fusion_params(home, seed=3, phase1_data="all", batch_size=5)
    members = fold_members(home, p, seeds=(4, 5, 6))
    p = cross_fitted(home, p, "rows", fold_members=members)
    _, tokens = load_base(p.base)
    read: dict[str, set[str]] = {}
    compute = trainer.StudyTrainer.compute_loss

    def watched(self, model, inputs, *args, **kwargs):
        stands = active_fusions(model)[0][0].members["fusion"][-1]
        read.setdefault(stands, set()).update(tokens.batch_decode(inputs["input_ids"], skip_special_tokens=True))
        return compute(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(trainer.StudyTrainer, "compute_loss", watched)
    trained(p.model_copy(update={"epochs": 1.0}))
    everything = {row.prompt + row.target for row in DataRun(p.data).rows("lua", "train")}
    assert read.keys() == {"lua", *(f"lua_{rows}" for rows in WITHOUT_FOLD)}
    unseen = [read[f"lua_{rows}"] for rows in WITHOUT_FOLD]
    assert sum(map(len, unseen)) == len(everything) and set().union(*unseen) == everything
    for run, rows, texts in zip(members, WITHOUT_FOLD, unseen, strict=True):
        assert finished_run(run).params["rows"] == rows
        own = AdapterParams(base=p.base, data=p.data, language="lua", rows=rows, seed=p.seed)
        assert {row.prompt + row.target for row in adapters.training_rows(own)} == everything - texts
    assert not read["lua"] & everything and read["lua"], "the rows of other languages have the adapter of all rows"


def test_members_of_another_division_and_packed_rows_are_refused(home):
    p = tiny.fusion_params(home)
    members = fold_members(home, p)
    for wrong in (members[:2], members[::-1], []):
        with pytest.raises(UserError, match="one run with each of the rows without_fold_1, without_fold_2"):
            trained(cross_fitted(home, p, "wrong", fold_members=wrong))
    for given, said in (({"packing": True}, "packing is true"), ({"method": "xlora", "mask": "none"}, "xlora")):
        with pytest.raises(ValidationError, match=f"rows is 'cross_fit', but .*{said}"):
            tiny.fusion_params(home, rows="cross_fit", **given)
