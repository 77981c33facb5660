"""What pydantic finds wrong with parameters, in one sentence that names the key, the value and what is accepted."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping

from pydantic import BaseModel, ValidationError

from studykit.errors import show

RENAMED = {
    "weights_learning_rate": "by_method.scalar_mix.learning_rate",
    "scalar_mix_learning_rate": "by_method.scalar_mix.learning_rate",
    "full_learning_rate": "by_method.full.learning_rate",
    "compacter_reduction_factor": "by_method.compacter.reduction_factor",
    "checkpoints": "trained_runs",
    "languages": "members",
}  # keys of earlier studies -> what they are called now
MUST = {
    "int_type": "an integer", "int_from_float": "an integer", "float_type": "a number", "bool_type": "true or false",
    "string_type": "text", "list_type": "a list", "dict_type": "a mapping", "model_type": "a mapping of parameters",
    "model_attributes_type": "a mapping of parameters", "finite_number": "a finite number",
    "greater_than": "greater than {gt}", "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}", "less_than_equal": "at most {le}",
    "literal_error": "one of {expected}", "string_pattern_mismatch": "of lower-case letters, digits and _, 60 at most",
    "invalid_key": "a name", "too_short": "a list that is not empty", "string_too_short": "text that is not empty",
    "string_too_long": "text of at most {max_length} characters",
}  # fmt: skip


def sentence(
    error: ValidationError, model: type[BaseModel], planned: Mapping[str, Collection[str]] | None = None
) -> str:
    """Returns the first of pydantic's complaints about `model`, in one sentence that begins with the key."""
    errors = error.errors()
    # An unknown key explains a missing one (a typo makes both), so it is reported first.
    first = min(errors, key=lambda e: e["type"] != "extra_forbidden")
    loc, more = first["loc"], f" ({len(errors) - 1} more of its values are wrong.)" if len(errors) > 1 else ""
    words = (p if isinstance(p, int) or re.fullmatch(r"[\w+#-]{1,40}", p) else show(p) for p in loc)
    place = "".join(f"[{word}]" if isinstance(word, int) else f".{word}" for word in words).removeprefix(".")
    owner = _owner(model, loc[:-1])
    if first["type"] == "extra_forbidden":
        name = str(loc[-1])
        if len(loc) > 1 and name in (planned or {}).get(str(loc[0]), ()):
            return f"{place} is decided by the plan; leave it out.{more}"
        if name in RENAMED:
            return f"{place} is unknown; it is now called {RENAMED[name]}.{more}"
        near = difflib.get_close_matches(name, owner.model_fields, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(owner.model_fields)}."
        return f"{place} is unknown; {hint}{more}"
    if first["type"] == "value_error":
        said = str(first["ctx"]["error"])
        prefix = "" if not place or said.startswith(place) else f"{place}: " if said.startswith("the ") else f"{place}."
        return f"{prefix}{said.rstrip('.')}{'' if said.endswith('?') else '.'}{more}"
    if first["type"] == "missing":
        about = owner.model_fields[str(loc[-1])].description
        return f"{place} is missing; it must be given{_in_brackets(about)}.{more}"
    must = MUST.get(first["type"], first["msg"].removeprefix("Input should be ")).format(**first.get("ctx", {}))
    field = owner.model_fields.get(str(loc[-1]))
    about = _in_brackets(field.description if field is not None else None)
    return f"{place} is {show(first['input'])}; it must be {must}{about}.{more}"


def _in_brackets(description: str | None) -> str:
    """A field's description as an addition to another sentence."""
    return f" ({description[0].lower()}{description[1:].rstrip('.')})" if description else ""


def _owner(model: type[BaseModel], loc: tuple) -> type[BaseModel]:
    for part in loc:
        field = model.model_fields.get(str(part))
        if field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
    return model
