"""Values that fit the quickstart's tiny base, and warnings of them in a study of a pretrained one."""

from __future__ import annotations

from collections.abc import Callable

from studykit.study.bases import TINY_BASES
from studykit.study.file import Study

TINY_VALUES: tuple[tuple[str, str, Callable[[float], bool], str], ...] = (
    ("adapter", "learning_rate", lambda value: value >= 1e-3, "1e-4"),
    ("adapter", "reduction_factor", lambda value: value < 8, "16"),
    ("fusion", "learning_rate", lambda value: value >= 1e-3, "1e-5, or 1e-4 over Compacter"),
)  # section, key, whether a value was found for the quickstart's base, and what was published


def warnings(study: Study) -> list[str]:
    """Returns a sentence for every value that fits the quickstart's tiny base, in a study of a pretrained one."""
    if study.base in TINY_BASES:
        return []
    return [
        f"base is {study.base}, which is pretrained, but {section}.{key} is {value:g}, as for the quickstart's tiny "
        f"base; the published value is {published}"
        for section, key, is_tiny, published in TINY_VALUES
        if (value := getattr(getattr(study, section), key)) is not None and is_tiny(value)
    ]
