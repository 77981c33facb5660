"""Code translation: CodeTransOcean's NicheTrans (arXiv 2310.04951), and the rows that AdvFusion's authors made of it.

- NicheTrans: `id`, `name`, then two keys that are language names; **their order is the direction**. JSON lines despite
  the suffix `.json`.
- Converted rows (ct): id, source_lang, target_lang, source_content, target_content; those of the benchmark also have a
  `prompt`, the beginning of the target, which stands behind the template.

Translation between the solutions of HumanEval-X is in `benchmarks`.
"""

from __future__ import annotations

from collections.abc import Iterator

from studykit.data.rejects import BadRow, NotForThis, text
from studykit.data.request import Asked, At, row
from studykit.data.splits import Example

CT_MARKS = frozenset({"source_lang", "target_lang", "source_content", "target_content"})


def direction(raw: dict) -> tuple[str, str]:
    """The two language keys of a NicheTrans row, source first."""
    keys = [key for key in raw if key not in ("id", "name")]
    if "id" not in raw or len(keys) != 2:
        raise BadRow("a NicheTrans row has id, name and two language keys", f", not {list(raw)}")
    return keys[0], keys[1]


def nichetrans_rows(raw: dict, at: At, asked: Asked) -> Iterator[Example]:
    """The row of the language that is written, if both are the study's."""
    source, target = direction(raw)
    identity = f"{raw['id']}-{source}-{target}".lower()
    yield _pair(raw, at, asked, identity, (source, target), (source, target), str(raw.get("name") or raw["id"]))


def ct_rows(raw: dict, at: At, asked: Asked) -> Iterator[Example]:
    """The same for a converted row, which has no name: its id is its group."""
    if "id" not in raw:
        raise BadRow("the field 'id' is missing or no text")
    named = text(raw, "source_lang"), text(raw, "target_lang")
    identity = f"{raw['id']}-{named[0]}-{named[1]}".lower()
    prompt = text(raw, "prompt", empty=True) if "prompt" in raw else ""
    yield _pair(raw, at, asked, identity, named, ("source_content", "target_content"), str(raw["id"]), prompt)


def _pair(
    raw: dict, at: At, asked: Asked, identity: str, named: tuple[str, str], keys: tuple[str, str], group: str,
    after: str = "",
) -> Example:  # fmt: skip
    code, target = text(raw, keys[0]), text(raw, keys[1])
    if asked.name(named[0]) is None or asked.name(named[1]) is None:
        raise NotForThis("a pair with another language")
    source, language = asked.name(named[0]), asked.language(named[1], at)
    fields = {"code": code, "source_language": source, "language": language}
    prompt = asked.prompt("translation", fields, after=after)
    return Example(row(identity, language, prompt, target, source_language=source), at.place, at.split, (group,))


def to_ct(raw: dict) -> dict:
    """A NicheTrans row in the authors' form; its name is lost."""
    source, target = direction(raw)
    return {"id": raw["id"], "source_lang": source, "target_lang": target, "source_content": raw[source],
            "target_content": raw[target]}  # fmt: skip


def from_ct(raw: dict, name: str = "") -> dict:
    """A converted row as a NicheTrans row again, direction in the order of its keys."""
    if raw["source_lang"] == raw["target_lang"]:
        raise BadRow("source_lang and target_lang are the same", f" ({raw['source_lang']})")
    pair = {raw["source_lang"]: raw["source_content"], raw["target_lang"]: raw["target_content"]}
    return {"id": raw["id"], "name": name} | pair
