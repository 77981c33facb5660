"""The number of every study on which the differences of a family are regressed: size, rows, similarity."""

from __future__ import annotations

import math
from collections.abc import Mapping

from studykit.errors import UserError, show
from studykit.runs.manifest import finished_run
from studykit.study.gather_parameters import GatherParams, Level

Covariate = dict[str, float]  # by study


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
        else:
            value = _number(p.levels.get(p.covariate, {}).get(study))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(
                f"gather.covariate is {show(p.covariate)}, which is no number in the study {show(study)}; it may be "
                f"parameters, target_rows, or what varies and is a number; gather.values gives others."
            )
        if p.logarithm and value <= 0:
            raise UserError(
                f"gather.covariate is {show(p.covariate)}, which is {value:g} in the study {show(study)} and has no "
                "logarithm; set gather.logarithm to false."
            )
        found[study] = math.log10(value) if p.logarithm else float(value)
    return found


def _number(level: Level) -> Level:
    """A level that is named by a number, as in a tuned family, as that number."""
    try:
        return float(level) if isinstance(level, str) else level
    except ValueError:
        return level
