"""What a study's `preset` stands for: how the published comparisons were made, as one value of a key each.

Every value is that of a key, so a study file can give any of them another value, and so turn it off alone.
docs/reproduction.md says where the reference implementation has each.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

Preset = Literal["none", "as_published", "as_published_2023"]
PRESET: Any = Field(
    "none",
    description=(
        "Keys that the file does not give have the kit's defaults (none), or where there is one the value with which a "
        "published comparison was made: that of decoders (as_published) or of encoders (as_published_2023)."
    ),
)
Values = dict[str, dict[str, Any]]  # by section and key

LENGTHS = {"epochs", "steps", "target_steps"}  # keys of a section that say how long its trainings are
TRAINED_AS_PUBLISHED = {"epochs": 2.0, "loss_on": "sequence", "keep": "best_after_start"}
PRESETS: dict[str, Values] = {
    "as_published": {  # arXiv 2511.02869, decoders
        "data": {"truncation": "end", "end_of_target": "newline_eos", "end_cut_targets": True},
        "adapter": TRAINED_AS_PUBLISHED
        | {"train_embeddings": True, "by_method": {"lora": {"train_embeddings": False}}},
        "fusion": TRAINED_AS_PUBLISHED
        | {
            "budget": "single",
            "weights": "bf16",
            "late_regularizer": True,
            "carry_optimizer": True,
            "head": "source",
            "by_method": {"advfusion": {"head": "restored"}},
        },
    },
    "as_published_2023": {  # arXiv 2307.07854, encoders; phase 1 is multilingual
        # The recipe of the released code has 20,000 steps for Ruby and 50,000 for the languages with most rows.
        "adapter": {
            "steps": 50_000,
            "target_steps": 20_000,
            "learning_rate": 5e-5,
            "warmup_ratio": 0.0,
            "keep": "best_after_start",
        },
        "fusion": {
            "learning_rate": 5e-5,
            "warmup_ratio": 0.0,
            "keep": "best_after_start",
            "by_method": {"advfusion": {"phases": [{"steps": 20_000, "rows": "all"}, {"steps": 5_000}]}},
        },
    },
}
SAMPLED = {"samples": 10, "temperature": 0.3, "top_p": 0.9, "top_k": 50}  # completions of a separate benchmark


def with_preset(values: Any) -> Any:
    """Returns the values of a study file with those of its preset where it gives none; a benchmark is sampled.

    `by_method` is filled word by word: what the file says of a word takes the place of what the preset says of it. A
    section with steps or epochs of its own keeps them: the preset's epochs would go before its steps.
    """
    preset = PRESETS.get(str(values.get("preset"))) if isinstance(values, dict) else None
    if preset is None:
        return values
    data = values.get("data")
    if preset is PRESETS["as_published"] and isinstance(data, dict) and data.get("test_path"):
        preset = preset | {"evaluate": SAMPLED}
    filled = dict(values)
    for name, keys in preset.items():
        section = values.get(name) or {}
        if isinstance(section, dict):
            if LENGTHS & section.keys():
                keys = {key: value for key, value in keys.items() if key != "epochs"}
            own = section.get("by_method") or {}
            words = {"by_method": keys["by_method"] | own} if "by_method" in keys and isinstance(own, dict) else {}
            filled[name] = keys | section | words
    return filled
