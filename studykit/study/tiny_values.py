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
    """Returns a sentence for every value that does not fit the base.

    Those are values of the quickstart's tiny base in a study of a pretrained one, and widths that a CPU reads wrongly
    in 4 bits, see `training.base.require_true_4_bits`.
    """
    if study.base in TINY_BASES:
        sizes = {"hidden_size": study.base_model.hidden_size, "intermediate_size": study.base_model.intermediate_size}
        return [
            f"base_model.{key} is {size}, no multiple of 64; on a CPU, runs in nf4 will be refused"
            for key, size in sizes.items()
            if study.base == "scratch" and "nf4" in _kept_in(study) and size % 64
        ]
    return [
        f"base is {study.base}, which is pretrained, but {section}.{key} is {value:g}, as for the quickstart's tiny "
        f"base; the published value is {published}"
        for section, key, is_tiny, published in TINY_VALUES
        if (value := getattr(getattr(study, section), key)) is not None and is_tiny(value)
    ]


def _kept_in(study: Study) -> set[str | None]:
    stages = (study.adapter, study.fusion, study.evaluate)
    return {study.quantization, *(stage.quantization for stage in stages)}
