"""Cross-validation of the target's steps: what in a study it cannot be combined with."""

from __future__ import annotations

from typing import Any

from studykit.study.methods import parse


def problem(study: Any) -> str:
    """Returns why a `file.Study` cannot choose its steps as its `data.valid` says, in a sentence; "" if it can."""
    if study.data.valid != "k_fold":
        return ""
    rows = [study.fusion.rows, *(own.get("rows", "same") for own in study.fusion.by_method.values())]
    if others := [word for word in rows if word != "same"]:
        return f"data.valid is 'k_fold', but fusion.rows is {others[0]!r}; with cross-validation it must be 'same'"
    if pooled := [word for word in study.methods if parse(word).training == "pooled"]:
        return (
            f"data.valid is 'k_fold', but methods names {pooled[0]!r}, whose first adapter has seen all folds; leave "
            "it out, or set data.valid to rows"
        )
    if study.tune.tries_something:
        return (
            "data.valid is 'k_fold', but tune names values, which must be judged on validation rows that choose no "
            "step; set data.valid to rows"
        )
    return ""
