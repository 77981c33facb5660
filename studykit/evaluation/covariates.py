"""The number of every study on which the differences of a family are regressed: size, rows, similarity."""

from __future__ import annotations

import math
from collections.abc import Mapping

from studykit.errors import UserError, show
from studykit.runs.manifest import finished_run
from studykit.study.gather_parameters import COVARIATES, GatherParams, Level

Covariate = dict[str, float]  # by study


def is_logarithmic(p: GatherParams) -> bool:
    """Returns whether the slope is per tenfold covariate; a similarity, between 0 and 1, is taken as it is."""
    return p.logarithm and (p.values is not None or p.covariate not in COVARIATES)


def covariates(p: GatherParams, languages: Mapping[str, str]) -> Covariate | None:
    """Returns the covariate of every study, on the scale of the slope; None without one.

    Raises UserError for a covariate that a study does not have, or that has no logarithm.
    """
    if p.covariate is None:
        return None
    found: Covariate = {}
    for study in p.compares:
        value: Level
        if p.values is not None:
            unit = str(p.levels[p.over[0]][study])
            value = p.values.get(unit)
            if value is None:
                raise UserError(f"gather.values has no number for {show(unit)}, a value of {p.over[0]}.")
        elif p.covariate == "parameters":
            value = finished_run(p.bases[study]).manifest.headline.get("parameters")
        elif p.covariate == "target_rows":
            value = finished_run(p.data[study]).manifest.headline.get(f"{languages[study]} train rows")
        elif p.covariate in COVARIATES:
            value = _mean_similarity(p, study)
        else:
            value = _number(p.levels.get(p.covariate, {}).get(study))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(
                f"gather.covariate is {show(p.covariate)}, which is no number in the study {show(study)}; it may be "
                f"parameters, target_rows, a similarity ({', '.join(COVARIATES)}), or what varies and is a "
                "number; gather.values gives others."
            )
        if is_logarithmic(p) and value <= 0:
            raise UserError(
                f"gather.covariate is {show(p.covariate)}, which is {value:g} in the study {show(study)} and has no "
                "logarithm; set gather.logarithm to false."
            )
        found[study] = math.log10(value) if is_logarithmic(p) else float(value)
    return found


def _mean_similarity(p: GatherParams, study: str) -> float | None:
    """The mean similarity of the sources of a study to its target; None where one cannot be measured."""
    from studykit.evaluation import similarity  # imports torch

    data = finished_run(p.data[study]).params
    sources = [name for name in data["members"] if name != data["target"]]
    assert p.covariate is not None
    measured = similarity.of_sources([p.covariate], p.data[study], p.bases[study], sources, data["target"])
    found = measured[p.covariate].values()
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known and len(known) == len(found) else None


def _number(level: Level) -> Level:
    """A level that is named by a number, as in a tuned family, as that number."""
    try:
        return float(level) if isinstance(level, str) else level
    except ValueError:
        return level
