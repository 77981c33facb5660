"""The trials of a study: trainings with other values, of which the study takes the best for each method.

Every kind of adapter, every composition that trains, and every other one with values of its own has the same number of
trials, each trained with the same few seeds, none of the study's. Half of the validation rows select the steps of a
trial and of its members; the loss on the other half judges it. So no row chooses both a step and a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from studykit.errors import UserError, show
from studykit.study import methods
from studykit.study.file import Study
from studykit.study.tune_section import TuneSection

SECTIONS = ("adapter", "fusion")  # in the order in which they are tuned: a fusion needs its members


@dataclass(frozen=True)
class Trial:
    """Values that are tried for a method: one training for each of the trials' seeds."""

    section: str  # adapter | fusion
    method: str  # kind of adapter, or word of a composition
    study: Study  # of this method, these values and the trials' seeds


def trials(study: Study) -> list[Trial]:
    """Returns the trials of a study, those of a method in the order of `TuneSection.combinations`.

    Raises: UserError for a key that its section lacks, for values of a method that the study cannot tune, and for a
        seed that is also one of the study.
    """
    if not study.tune.tries_something:
        return []
    if both := [seed for seed in study.tune.seeds if seed in study.seeds]:
        raise UserError(f"tune.seeds names {both[0]}, which is also among seeds; trials must have others.")
    tunable = [method for section in SECTIONS for method in tuned_methods(study, section)]
    if foreign := [word for word in study.tune.by_method if word not in tunable]:
        raise UserError(f"tune.by_method names {show(foreign[0])}; it may name {', '.join(tunable)}.")
    found = []
    for section in SECTIONS:
        known = type(getattr(study, section)).model_fields.keys() - {"by_method"}
        named = {f"tune.{section}": getattr(study.tune, section)}
        named |= {f"tune.by_method.{m}": study.tune.by_method.get(m, {}) for m in tuned_methods(study, section)}
        for place, keys in named.items():
            if foreign := [key for key in keys if key not in known]:
                raise UserError(f"{place} names {show(foreign[0])}; it may name {', '.join(sorted(known))}.")
        for method in tuned_methods(study, section):
            for values in study.tune.combinations(section, method):
                changes = {"methods": [method], "seeds": study.tune.seeds, "tune": TuneSection()}
                tried = with_values(study, section, {method: values}).model_copy(update=changes)
                found.append(Trial(section, method, tried))
    return found


def tuned_methods(study: Study, section: str) -> list[str]:
    """Returns the kinds of adapter of a study, alone or fused, or the words of its compositions that try values."""
    asked = [methods.parse(word) for word in study.methods]
    if section == "adapter":
        return list(dict.fromkeys(kind for m in asked if (kind := m.name if m.is_adapter else m.members)))
    return [m.word for m in asked if m.learns or m.members and m.word in study.tune.by_method]


def with_values(study: Study, section: str, values: dict[str, dict[str, Any]]) -> Study:
    """Returns a study whose methods have other values of a section, by method."""
    part = getattr(study, section)
    by_method = part.by_method | {m: part.by_method.get(m, {}) | own for m, own in values.items()}
    return study.model_copy(update={section: part.model_copy(update={"by_method": by_method})})
