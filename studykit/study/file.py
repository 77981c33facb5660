"""A study: one YAML file that says what is compared, on which data, how often; one section per notebook.

The sections are made from the notebooks' models (see `params`) without the fields that the plan decides, plus the few
that only a study has (`adapter.target_steps`, `evaluate.sources`); `by_method` gives methods values of their own. It is
validated as a whole before anything runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, ValidationError, create_model, model_validator

from studykit.errors import UserError, show
from studykit.study import folds, questions, templates
from studykit.study import methods as study_methods
from studykit.study.bases import HUB_ID, PUBLISHED, with_published_base
from studykit.study.fields import POLYGLOT, RESERVED_NAMES, Dtype, Method, Quantization, Section, Task, kind
from studykit.study.languages import canonical
from studykit.study.messages import sentence
from studykit.study.parameters import STAGES, check
from studykit.study.paths import is_local, require_files
from studykit.study.presets import PRESET, Preset, with_preset
from studykit.study.tune_section import TuneSection
from studykit.study.yaml_file import read_yaml

FAMILY = {"vary", "gather"}  # keys with which one file makes many studies
MEMBER_TASKS = ("code", "generation", "translation", "commit", "summarization")  # that members can learn


def _section(stage: str, **own: Any) -> type[Section]:
    """A study's section: the fields of `stage` that are not the plan's to decide, and the study's own."""
    model = STAGES[stage].model
    fields = {n: (f.annotation, f) for n, f in model.model_fields.items() if kind(model, n) in (None, "auto")}
    return create_model(f"{stage}_section", __base__=Section, **(fields | own))


def _with_by_method(stage: str, known: Callable[[str], Any], **own: Any) -> type[Section]:
    """Returns a section in which `by_method` may give methods other values of its keys, and of `phases`."""
    model, section = STAGES[stage].model, _section(stage, **own)
    extra = {n: (f.annotation, f) for n, f in model.model_fields.items() if n == "phases"}
    values_of_method = create_model(f"{stage}_by_method", __base__=section, **extra)  # type: ignore[call-overload]

    def checked(by_method: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for word, values in by_method.items():
            known(word)
            try:
                values_of_method.model_validate(values)
            except ValidationError as error:
                raise ValueError(f"{word}.{sentence(error, values_of_method)}") from None
        return by_method

    by_method = Annotated[dict[str, dict[str, Any]], AfterValidator(checked)]
    about = "These methods, and those whose words begin with one of these words, have values of their own."
    return create_model(f"{stage}_section", __base__=section, by_method=(by_method, Field({}, description=about)))


def _adapter(word: str) -> None:
    if word not in study_methods.ADAPTERS:
        raise ValueError(f"adapter.by_method names {show(word)}; it may name {', '.join(study_methods.ADAPTERS)}")


def _fusion(word: str) -> None:
    if word != "advfusion" and study_methods.parse(word).members is None:
        raise ValueError(f"fusion.by_method names {show(word)}; it may name advfusion and the words of compositions")


BaseModelSection = _section("base_model")
DataSection = _section("data")
AdapterSection = _with_by_method(
    "adapter",
    _adapter,
    steps=(
        int,
        Field(200, ge=1, description="The adapter of a source language is trained for this many optimizer steps."),
    ),
    target_steps=(
        int,
        Field(60, ge=1, description="The adapter of the target is trained for this many optimizer steps."),
    ),
    target_learning_rate=(
        float | None,
        Field(
            None,
            gt=0,
            le=1,
            description="The learning rate of the target's adapter starts at this peak; null means learning_rate.",
        ),
    ),
    reduction_factor=(
        float | None,
        Field(
            None,
            ge=1,
            description=(
                "The bottleneck of all kinds but lora is this many times narrower than the hidden size; null means the "
                "published 16, or 32 for Compacter."
            ),
        ),
    ),
)
FusionSection = _with_by_method("fusion", _fusion)
EvaluateSection = _section(
    "evaluate",
    sources=(
        list[str] | None,
        Field(
            None,
            description=("The adapters of these members are evaluated too, each on its own test rows; null means all."),
        ),
    ),
)
FusionAttentionSection = _section("fusion_attention")
CompareSection = _section("compare")


class Study(Section):
    """A study file: what is compared, on which data, how often; one section per notebook."""

    study: str = Field(
        pattern=r"^[a-z0-9_]{1,60}$",
        description="This is the name of the study and of its reports: a-z, 0-9 and _, at most 60.",
    )
    question: str = Field("", description="The report begins with this question.")
    task: Task = Field(
        description=(
            "The model is asked for a program (generation), the same program in another "
            "language (translation), a commit message (commit), a summary (summarization) or a method's name (naming)."
        )
    )
    base: str = Field(
        "scratch",
        description=(
            "The base model is 'scratch' (trained here), a hub id such as owner/name@commit, a word for a published "
            f"base ({', '.join(PUBLISHED)}), or a local directory."
        ),
    )
    preset: Preset = PRESET
    quantization: Quantization = Field(
        "none",
        description="The base's weights are kept in memory as they are (none), in 4 bits (nf4) or in 8 bits (int8).",
    )
    base_dtype: Dtype = Field(
        "auto", description="The base's weights are in fp32, in bf16, or as the GPU likes (auto)."
    )
    members_are: Literal["languages", "tasks"] = Field(
        "languages", description="The members are languages of one task, or tasks of one language."
    )
    members: list[str] = Field(
        min_length=1, description="These members have many examples; they stand in the order of the fusion."
    )
    target: str = Field(description="This member has few examples and is not among members.")
    language: str | None = Field(None, description="If the members are tasks, this is the language of all of them.")
    members_on: Literal["task", "code"] = Field(
        "task", description="Fused adapters learn the task, or its targets as plain code (code)."
    )
    methods: list[Method] = Field(min_length=1, description="These methods are compared.")
    seeds: list[int] = Field(min_length=1, description="Every adapter and fusion is trained once per seed.")
    base_model: BaseModelSection = BaseModelSection()
    data: DataSection = DataSection()
    adapter: AdapterSection = AdapterSection()
    fusion: FusionSection = FusionSection()
    evaluate: EvaluateSection = EvaluateSection()
    fusion_attention: FusionAttentionSection = FusionAttentionSection()
    compare: CompareSection = CompareSection()
    tune: TuneSection = Field(TuneSection(), description="These values are tried by `studykit tune`.")

    @property
    def all_members(self) -> list[str]:
        """Returns the members in the order of the fusion: the target last."""
        return [*self.members, self.target]

    @property
    def baseline(self) -> str:
        """Returns the method that the others are compared with."""
        return self.compare.baseline or ("adapterfusion" if "adapterfusion" in self.methods else self.methods[0])

    @property
    def compared(self) -> list[questions.Pair]:
        """Returns the pairs of methods, or of phases of them, whose differences are tested."""
        pairs = self.compare.contrasts or questions.method_pairs(self.methods, self.baseline, self.target)
        return [(a, b) for a, b in pairs]

    @property
    def evaluated_sources(self) -> list[str]:
        """Returns the members besides the target whose adapters are evaluated too, each on its own rows."""
        return [x for x in self.members if self.evaluate.sources is None or x in self.evaluate.sources]

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:
        return with_preset(with_published_base(values))

    @model_validator(mode="before")
    @classmethod
    def _target_is_the_task(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("members_are") == "tasks" and values.get("target") in get_args(Task):
            return {"task": values["target"]} | values
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        for key in ("members", "methods", "seeds"):
            values = getattr(self, key)
            if repeated := [v for v in values if values.count(v) > 1]:
                raise ValueError(f"{key} names {show(repeated[0])} twice; each may be named once")
        one: dict[str, str] = {}
        for name in self.all_members if self.members_are == "languages" else ():
            if (first := one.setdefault(canonical(name), name)) != name:
                raise ValueError(
                    f"{self._key_of(name)} names {name!r}, which is {first!r} by another name; each may be named once"
                )
        named: dict[tuple, str] = {}
        for word in self.methods:
            method = study_methods.parse(word).among(self.members, self.target)
            if (first := named.setdefault(method[1:], word)) != word:
                raise ValueError(f"methods names {first!r} and {word!r}, which are one method; it may be named once")
        check("base_model", self.base_model.model_dump(), place="base_model")
        check("data", self.data.model_dump(), place="data")
        self._template_fits()
        check("evaluate", self.evaluate.model_dump(exclude={"sources"}), place="evaluate")
        for name in self.all_members:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_+#-]{0,39}", name):
                raise ValueError(
                    f"{self._key_of(name)} names {show(name)}; a member must start with a letter and "
                    "hold no spaces or dots, 40 characters at most"
                )
            if name in RESERVED_NAMES:
                raise ValueError(
                    f"{self._key_of(name)} names {name!r}, which is the name of a module of the tuner; a member "
                    "must have another name"
                )
        if self.target in self.members:
            raise ValueError(f"target is {self.target!r}, which is also among members; name only the others there")
        if foreign := [x for x in self.evaluate.sources or [] if x not in self.members]:
            raise ValueError(f"evaluate.sources names {show(foreign[0])}; it may name {', '.join(self.members)}")
        if wrong := [seed for seed in self.seeds if not 0 <= seed < 2**32]:
            raise ValueError(f"seeds holds {show(wrong[0])}; a seed must be at least 0 and less than 2**32")
        if self.members_are == "tasks":
            self._of_tasks()
        elif self.language is not None:
            raise ValueError(f"language is {show(self.language)}; it may be given only with members_are: tasks")
        if study_methods.FEW_SHOT in self.methods and self.base == "scratch":
            raise ValueError(
                "methods names 'fewshot', but the base is trained from scratch and has never read examples before a "
                "prompt; set base to a pretrained one"
            )
        if self.members_on == "code" and self.task not in ("generation", "translation"):
            raise ValueError(f"members_on is 'code', but the targets of {self.task} are not code; leave it at 'task'")
        if self.task == "naming" and self.data.path is None:
            raise ValueError("task is 'naming', which has no built-in rows; set data.path")
        self._full_is_whole()
        built_in = self.data.path is None or (self.base == "scratch" and self.base_model.corpus == "polyglot")
        native = self.language is None and self.data.kinship is None
        if native and built_in and (foreign := [x for x in self.all_members if x not in POLYGLOT]):
            raise ValueError(
                f"{self._key_of(foreign[0])} names {foreign[0]!r}, but the built-in corpus can write only "
                f"{', '.join(POLYGLOT)}; for other languages set data.path, and base_model.corpus for a "
                "base from scratch"
            )
        if problem := folds.problem(self):
            raise ValueError(problem)
        if self.compare.baseline is not None and self.compare.baseline not in self.methods:
            raise ValueError(
                f"compare.baseline is {show(self.compare.baseline)}; it must be among methods "
                f"({', '.join(self.methods)})"
            )
        labels = questions.labels(self.methods)
        for key in ("contrasts", "interactions"):
            compared = [name for several in getattr(self.compare, key) or [] for name in several]
            if foreign := [name for name in compared if name not in labels]:
                raise ValueError(f"compare.{key} names {show(foreign[0])}; it may name {', '.join(labels)}")
        check("compare", self.compare.model_dump(), place="compare")
        tests = len(self.compared) + len(self.compare.interactions)
        if problem := questions.too_few_resamples(self.compare.resamples, tests, self.compare.confidence):
            raise ValueError(problem)
        if not (self.base == "scratch" or is_local(self.base) or HUB_ID.fullmatch(self.base)):
            raise ValueError(
                f"base is {show(self.base)}; it must be 'scratch', a hub id (owner/name or owner/name@commit) or a "
                "directory"
            )
        return self

    def _key_of(self, member: str) -> str:
        return "target" if member == self.target else "members"

    def _full_is_whole(self) -> None:
        """Raises ValueError for the method full where its base would be quantized."""
        own = self.adapter.by_method.get("full", {}).get("quantization", self.adapter.quantization)
        sections = {"adapter.quantization": own, "evaluate.quantization": self.evaluate.quantization}
        kept = {key: value for key, value in sections.items() if value is not None}
        if len(kept) < len(sections):
            kept = {"quantization": self.quantization} | kept
        if "full" in self.methods and (wrong := [key for key, value in kept.items() if value != "none"]):
            raise ValueError(f"{wrong[0]} is {kept[wrong[0]]!r}; the method full trains every weight and needs 'none'")

    def _template_fits(self) -> None:
        """Rows of files may be of a benchmark, whose template has other fields than the task's."""
        if (template := self.data.template) is None:
            return
        kinds = [self.task, *(k for k in templates.TEMPLATES if self.data.path is not None and k not in get_args(Task))]

        def fits(of: str) -> bool:
            try:
                return bool(templates.check_template(of, template))
            except UserError:
                return False

        if not any(fits(of) for of in kinds):
            body = " or ".join(f"{{{templates.BODIES[of][0]}}}" for of in kinds)
            names = dict.fromkeys(name for of in kinds for name in templates.PLACEHOLDERS[of])
            allowed = ", ".join(f"{{{name}}}" for name in names)
            raise ValueError(
                f"data.template is {show(template)}; it must have {body} once, some text around it, "
                f"only the placeholders {allowed}, and other braces doubled"
            )

    def _of_tasks(self) -> None:
        """Checks a study whose members are tasks of one language."""
        if self.language not in POLYGLOT or self.data.path is not None:
            raise ValueError(
                f"language is {show(self.language)}; with members_are: tasks it must be a built-in language "
                f"({', '.join(POLYGLOT)}), and data.path must be left out"
            )
        for name in self.all_members:
            if name not in MEMBER_TASKS:
                raise ValueError(
                    f"{self._key_of(name)} names {name!r}; "
                    f"with members_are: tasks it may name {', '.join(MEMBER_TASKS)}"
                )
        if self.task != self.target:
            place = f"task is {self.task!r}, target is {self.target!r}"
            raise ValueError(f"{place}; with members_are: tasks the target is the task")
        if self.members_on != "task":
            raise ValueError(
                f"members_on is {self.members_on!r}; with members_are: tasks, name code among the members instead"
            )


PLANNED = {stage: of.model.model_fields.keys() for stage, of in STAGES.items()}  # what a section might be given by hand


def load_study(file: str | os.PathLike, home: Path | None = None, check_paths: bool = True) -> Study:
    """Loads the study in a YAML file. Relative paths in it are seen from `home` (default: the working directory).

    A family (see `family`) gives the study without what varies. Raises UserError with the file and the key for anything
    that cannot be run.
    """
    return check_study(read_study(file, home), file, home, check_paths)


def read_study(file: str | os.PathLike, home: Path | None = None) -> dict[str, Any]:
    """Reads a study file, of which nothing is checked but that it is a mapping.

    A key `like` names another study file, seen from `home`, whose keys hold where this one is silent: the keys of a
    section one by one, what `vary` varies as a whole. That file may not have the key itself. `like` is not returned.
    """
    raw = _read_mapping(file, home)
    if (like := raw.pop("like", None)) is None:
        return raw
    if not isinstance(like, str) or "study" not in raw:
        raise UserError(
            f"{file}: `like` names a study file, such as params/quickstart.yaml, beside a `study` of its own."
        )
    other = _read_mapping(like, home)
    if "like" in other:
        raise UserError(f"{file} is like {like}, which is like {other['like']}; name that file, or write the keys out.")
    return other | {
        key: other[key] | value
        if key != "vary" and isinstance(value, dict) and isinstance(other.get(key), dict)
        else value
        for key, value in raw.items()
    }


def _read_mapping(file: str | os.PathLike, home: Path | None) -> dict[str, Any]:
    raw = read_yaml(file, Path(home or "."))
    if not isinstance(raw, dict):
        raise UserError(f"{file} holds {show(raw)}; a study file has the keys {', '.join(Study.model_fields)}.")
    return {key: {} if value is None and key in STAGES else value for key, value in raw.items()}  # all commented out


def check_study(raw: dict, file: str | os.PathLike, home: Path | None = None, check_paths: bool = True) -> Study:
    """Returns the study of a mapping that was read from a file, which errors name."""
    home = Path(home or ".")
    try:
        study = Study.model_validate({key: value for key, value in raw.items() if key not in FAMILY})
    except ValidationError as error:
        raise UserError(f"{file}: {sentence(error, Study, PLANNED)}") from None
    if check_paths:
        named = {"data.path": study.data.path, "data.test_path": study.data.test_path, "base": study.base}
        if study.base == "scratch" and study.base_model.corpus != "polyglot":
            named["base_model.corpus"] = study.base_model.corpus
        require_files(named, file, home)
    return study
