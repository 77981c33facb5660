"""Code translation: CodeTransOcean's NicheTrans (arXiv 2310.04951), and the rows that AdvFusion's authors made of it.

- NicheTrans: `id`, `name`, then two keys that are language names; **their order is the direction**. As published, it is
  JSON lines despite the suffix `.json`.
- Converted rows (ct): id, source_lang, target_lang, source_content, target_content; those of the benchmark also have a
  `prompt`, the beginning of the target, which stands behind the template.

Translation between the solutions of HumanEval-X is in `humaneval`.
"""

from __future__ import annotations

from collections.abc import Iterator

from studykit.data.rejects import BadRow, NotRequested, text
from studykit.data.request import Example, Location, ReadRequest
from studykit.data.rows import Row

MARKS = frozenset({"id", "name"})  # of NicheTrans, whose two other keys are languages
CT_MARKS = frozenset({"source_lang", "target_lang", "source_content", "target_content"})


def direction(raw: dict) -> tuple[str, str]:
    """Returns the two language keys of a NicheTrans row, source first. Raises: BadRow if there are not two."""
    keys = [key for key in raw if key not in ("id", "name")]
    if raw.get("id") is None or len(keys) != 2:
        raise BadRow("a NicheTrans row has id, name and two language keys", f", not {list(raw)}")
    return keys[0], keys[1]


def nichetrans_rows(raw: dict, location: Location, request: ReadRequest) -> Iterator[Example]:
    """Reads a pair as a row of the language that is written, if both languages are the study's."""
    source, target = direction(raw)
    group = str(raw.get("name") or raw["id"])
    yield _translation(raw, location, request, (source, target), (source, target), group)


def ct_rows(raw: dict, location: Location, request: ReadRequest) -> Iterator[Example]:
    """Reads a converted row, which has no name: its id is its group."""
    if raw.get("id") is None:
        raise BadRow("the field 'id' is missing or not text")
    languages = text(raw, "source_lang"), text(raw, "target_lang")
    prompt = text(raw, "prompt", empty=True) if "prompt" in raw else ""
    yield _translation(
        raw, location, request, languages, ("source_content", "target_content"), str(raw["id"]), after=prompt
    )


def _translation(
    raw: dict,
    location: Location,
    request: ReadRequest,
    languages: tuple[str, str],
    keys: tuple[str, str],
    group: str,
    after: str = "",
) -> Example:
    """The example of a pair; `languages` and the `keys` of the contents are those of the source, then of the target."""
    code, target = text(raw, keys[0]), text(raw, keys[1])
    source = request.known_language(languages[0])
    if source is None or request.known_language(languages[1]) is None:
        raise NotRequested("a pair with another language")
    language = request.language(languages[1], location)
    fields = {"code": code, "source_language": source, "language": language}
    prompt = request.prompt("translation", fields, after=after)
    id = f"{raw['id']}-{languages[0]}-{languages[1]}".lower()
    row = Row(id, language, prompt.text, target, prompt.body, source_language=source)
    return Example(row, location.line, location.split, (group,))
