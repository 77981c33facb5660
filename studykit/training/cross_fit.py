"""Cross-fitting: while a fusion trains, it reads each row of the target through a member that has not seen that row.

The rows of the target are divided into folds by the seed (`data.rows.folds`). For each fold one more adapter of the
target is trained on the other folds. While the fusion trains, that adapter stands in the place of the target's member
for the rows of its fold. In validation, and in the finished fusion, the member that was trained on all rows stands
there. So no combination is learned from predictions for rows that were already known (Wolpert 1992, "Stacked
generalization"; the split is that of Chernozhukov et al. 2018, "Double/debiased machine learning"), and yet every row
trains both the member and the fusion.

A batch has the rows that it would have without folds; the rows of each fold have a pass of their own, and the gradients
are summed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from peft import PeftModel

from studykit.data.rows import DataRun, folds
from studykit.errors import UserError
from studykit.runs.manifest import finished_run
from studykit.study.fusion_parameters import FusionParams
from studykit.study.training_parameters import WITHOUT_FOLD
from studykit.training.adapters import load_members
from studykit.training.batches import TokenSequence
from studykit.tuners.model import active_fusions


def with_folds(examples: list[TokenSequence], p: FusionParams, languages: Sequence[str]) -> list[TokenSequence]:
    """Returns examples with the fold of each, from 1, and 0 for rows of other languages.

    Args:
        examples: those of all training rows of these languages, in order.
    """
    numbers: list[int] = []
    for language in languages:
        rows = DataRun(p.data).rows(language, "train")
        parts = folds(rows, len(WITHOUT_FOLD), p.seed) if language == p.target else []
        fold_of = {row.id: number for number, part in enumerate(parts, 1) for row in part}
        numbers += [fold_of.get(row.id, 0) for row in rows]
    return [{**example, "fold": fold} for example, fold in zip(examples, numbers, strict=True)]


def fold_switch(model: PeftModel, p: FusionParams) -> Callable[[int], None] | None:
    """Loads the members of the folds, frozen, beside the others; returns a function that changes the target's member.

    The function takes the number of a fold, whose member then stands in the place of the target's, or 0, which restores
    the target's own. None without cross-fitting.

    Raises: UserError unless each fold has a member that was trained on the other folds of the same division.
    """
    if p.rows != "cross_fit" or p.target not in p.members:
        return None
    found = [(params["rows"], params["seed"]) for params in (finished_run(run).params for run in p.fold_members or [])]
    if found != [(rows, p.seed) for rows in WITHOUT_FOLD]:
        raise UserError(
            f"rows is 'cross_fit', but fold_members names adapter runs with (rows, seed) {found}; one run with each of "
            f"the rows {', '.join(WITHOUT_FOLD)} and seed {p.seed} is needed."
        )
    names = [p.target, *(f"{p.target}_{rows}" for rows in WITHOUT_FOLD)]
    if names[1] not in model.peft_config:  # an earlier phase has loaded them
        load_members(model, dict(zip(names[1:], p.fold_members or [], strict=True)))
    at = list(p.members).index(p.target)

    def use_fold(fold: int) -> None:
        for layer, fusion in active_fusions(model):
            layer.members[fusion][at] = names[fold]

    return use_fold
