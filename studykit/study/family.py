"""Families of studies: one study file that says what varies, and the studies that it stands for.

    vary:
      base_model.hidden_size: [48, 96]              # a key and its values
      dose:                                         # or a name, with what changes in the study at each level
        none: {fusion: {steps: 200}}
        half: {fusion: {steps: 100}}
      data.seed: [0, 1, 2]
    gather: {over: [base_model.hidden_size, data.seed], covariate: parameters}

A family has a study for each combination. Their runs are planned together, each once, and one run of notebook 07
gathers their comparisons. A file without `vary` is one study.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from studykit.errors import UserError, show
from studykit.study import parameters, plan, questions
from studykit.study.fields import Section
from studykit.study.file import FAMILY, Study, check_study, read_study
from studykit.study.gather_parameters import GatherSection, Level
from studykit.study.messages import sentence
from studykit.study.parameters import STAGES
from studykit.study.yaml_file import write_yaml

MOST = 300  # studies of a family
Factor = list[Any] | dict[str, Any]  # values, or what changes in the study by named level


class Family(Section):
    """The two keys that make a study file a family."""

    vary: dict[str, Any] = Field(
        min_length=1,
        description="A study is made for each combination of these values, by key, or of these named levels.",
    )
    gather: GatherSection = Field(
        default_factory=lambda: GatherSection.model_validate({}),
        description="This says how notebook 07 gathers the studies.",
    )


@dataclass(frozen=True)
class Member:
    """One study of a family."""

    label: str  # as "base_model.hidden_size 48, data.seed 0"
    levels: dict[str, Level]  # by the family's factors
    study: Study


@dataclass(frozen=True)
class StudyPlan:
    """A study file, loaded and planned once for a command."""

    file: str  # as the user named it, from the project's directory
    study: Study  # of a family: its first
    runs: list[plan.Run]  # in an order in which they can be made
    members: tuple[Member, ...] = ()  # of a family
    family: Family | None = None

    @property
    def result(self) -> plan.Run:
        """Returns the run that answers the question: the last one, which compares or gathers."""
        return self.runs[-1]

    def dump(self) -> str:
        """Returns the study file with every key and its value."""
        return write_yaml(self.study.model_dump() | (self.family.model_dump() if self.family else {}))


def load_plan(file: str | os.PathLike, home: Path | None = None, check_paths: bool = True) -> StudyPlan:
    """Loads a study file, which may be a family, and plans its runs.

    Raises UserError for anything that cannot be run.
    """
    raw = read_study(file, home)
    if not FAMILY & raw.keys():
        study = check_study(raw, file, home, check_paths)
        return StudyPlan(str(file), study, plan.plan(study))
    try:
        family = Family.model_validate({key: raw[key] for key in FAMILY & raw.keys()})
    except ValidationError as error:
        raise UserError(f"{file}: {sentence(error, Family)}") from None
    members = _members(raw, family.vary, str(file), home, check_paths)
    runs: dict[str, plan.Run] = {}
    results: dict[str, plan.Run] = {}
    for member in members:
        of_member = plan.plan(member.study)
        runs |= {run.dir: runs.get(run.dir, run) for run in of_member}
        results[member.label] = runs[of_member[-1].dir]
    gathering = _gathering(family, members, results, list(runs.values()), str(file))
    return StudyPlan(str(file), members[0].study, [*runs.values(), gathering], tuple(members), family)


def _members(
    raw: dict[str, Any], vary: Mapping[str, Factor], file: str, home: Path | None, check_paths: bool
) -> list[Member]:
    for factor, levels in vary.items():
        has_names = isinstance(levels, dict) and all(isinstance(changes, dict) for changes in levels.values())
        if not levels or not (has_names or isinstance(levels, list)):
            raise UserError(
                f"{file}: vary.{factor} is {show(levels)}; it must be a list of values, not empty, or names with "
                "what changes in the study at each."
            )
    combinations = list(product(*vary.values()))
    if len(combinations) > MOST:
        raise UserError(f"{file}: vary makes {len(combinations)} studies; it may make {MOST}.")
    found = []
    for combination in combinations:
        changed, of_member = dict(raw), {}
        for factor, level in zip(vary, combination, strict=True):
            named = vary[factor]
            changed = _with_changes(changed, named[level] if isinstance(named, dict) else _of_key(factor, level))
            of_member[factor] = level if isinstance(level, Level) else show(level)
        label = ", ".join(f"{factor} {level}" for factor, level in of_member.items())
        found.append(Member(label, of_member, check_study(changed, f"{file}, {label}", home, check_paths)))
    return found


def _of_key(key: str, value: Any) -> dict[str, Any]:
    """What changes in a study when a key, such as data.seed, has this value."""
    section, _, name = key.rpartition(".")
    return {section: {name: value}} if section else {name: value}


def _with_changes(raw: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A study with some keys changed. A source that becomes the target changes places with it."""
    changed = dict(raw)
    for key, value in changes.items():
        is_section = key in STAGES and isinstance(value, dict)
        changed[key] = {**(changed.get(key) or {}), **value} if is_section else value
    if "target" in changes and "members" not in changes and isinstance(raw.get("members"), list):
        changed["members"] = [raw.get("target") if x == changes["target"] else x for x in raw["members"]]
    return changed


def with_named_levels(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a study file in which each level of what varies is a name, as text, with what changes in the study."""
    levels = {
        factor: {str(level): changes for level, changes in of.items()}
        if isinstance(of, dict)
        else {str(level): _of_key(factor, level) for level in of}
        for factor, of in (raw.get("vary") or {}).items()
    }
    return {**raw, **({"vary": levels} if levels else {})}


def _gathering(
    family: Family, members: list[Member], results: Mapping[str, plan.Run], runs: Iterable[plan.Run], file: str
) -> plan.Run:
    """The run that gathers the comparisons of a family."""
    section = family.gather.model_dump()
    over = section["over"] or list(family.vary)
    by_dir = {run.dir: run for run in runs}
    evaluations = {label: by_dir[next(iter(run.params["evaluations"].values()))] for label, run in results.items()}
    values = section | {
        "compares": {label: run.dir for label, run in results.items()},
        "bases": {label: run.params["base"] for label, run in evaluations.items()},
        "data": {label: run.params["data"] for label, run in evaluations.items()},
        "over": over,
        "levels": {
            factor: {member.label: _level(member, factor, file) for member in members}
            for factor in dict.fromkeys([*over, *family.vary])
        },
    }
    if foreign := [key for key in section["interactions"] if key not in family.vary]:
        raise UserError(
            f"{file}: gather.interactions names {show(foreign[0])}; it may name what the studies vary "
            f"({', '.join(family.vary)})."
        )
    values = parameters.check("gather", values, f"{file}, gather").model_dump()
    for member in members if "cross_entropy" in (values["similarity"] or []) else []:
        if not any(method.startswith("transfer") for method in member.study.methods):  # which reads with every source
            raise UserError(
                f"{file}: gather.similarity names cross_entropy, which {member.label} does not measure; add transfer "
                "to its methods."
            )
    for pair in values["contrasts"] or []:
        for name in pair:
            if lacking := [member.label for member in members if name not in questions.labels(member.study.methods)]:
                raise UserError(f"{file}: gather.contrasts names {show(name)}, which {lacking[0]} does not run.")
            if section["interactions"] and name not in members[0].study.methods:
                raise UserError(
                    f"{file}: gather.contrasts names {show(name)}, which is a phase; with gather.interactions it may "
                    "name finished methods alone."
                )
        for member in members:
            if not _compares(member.study, *pair):
                raise UserError(
                    f"{file}: gather.contrasts names {show(pair)}, which {member.label} does not compare; add the pair "
                    "to compare.contrasts, or make one of the two the compare.baseline."
                )
    return plan.named("gather", values, by_dir)


def _compares(study: Study, a: str, b: str) -> bool:
    """Whether the comparison of a study holds the difference between two methods, in either direction."""
    return any({a, b} == set(pair) for pair in study.compared)


def _level(member: Member, factor: str, file: str) -> Level:
    """The value that a study has of a factor: one that the family varies, or any key of a study."""
    if factor in member.levels:
        return member.levels[factor]
    section, _, name = factor.rpartition(".")
    study = member.study.model_dump()
    places = [study.get(section, {})] if section else [study, study["data"]]
    for place in places:
        if isinstance(place, dict) and name in place and isinstance(place[name], Level):
            return place[name]
    raise UserError(
        f"{file}: gather.over names {show(factor)}; it may name what the studies vary ({', '.join(member.levels)}) or "
        "a key of a study with one value, such as base, target, target_examples or data.seed."
    )


def combine(files: Sequence[str], over: Sequence[str], covariate: str | None = None, home: Path | None = None) -> str:
    """Returns a family, as the text of a study file, of the studies in these files; a family's are all its own.

    Raises UserError for a file that cannot be run, or for two studies of one name.
    """
    levels: dict[str, dict[str, Any]] = {}
    for file in files:
        planned = load_plan(file, home)
        for label, study in [(m.label, m.study) for m in planned.members] or [("", planned.study)]:
            name = f"{study.study} {label}".strip()
            if name in levels:
                raise UserError(f"{file} and another file both have study: {study.study}; give one another name.")
            levels[name] = study.model_dump(exclude={"study", "question"})
            compared = levels[name]["compare"]
            compared["ratings"] = compared["ratings"] or f"ratings/{study.study}"
    names = "_".join(dict.fromkeys(name.split()[0] for name in levels))
    first = next(iter(levels.values()))
    gather = {"over": [*over], "covariate": covariate}
    question = f"What do {', '.join(levels)} say together?" if len(levels) <= 4 else ""
    head = {"study": f"gather_{names}"[:60], "question": question}
    return write_yaml(head | first | {"vary": {"study": levels}, "gather": gather})
