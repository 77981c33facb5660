"""The bases of the published study, by a word each, and the form of a base's name on the hub.

A word stands for a hub id, and for the published quantization and batch of that base where a study file leaves them out
(arXiv 2511.02869; every published base reads four rows per optimizer step).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

HUB_ID = re.compile(r"(?P<repo>[\w.-]{1,96}(?:/[\w.-]{1,96})?)(?:@(?P<revision>[\w.-]{1,96}))?")

TINY_BASE = "./params/tiny_base"  # comes with the kit, see the README there
TINY_BASES = ("scratch", TINY_BASE)  # what the quickstart's values and times were found on


class PublishedBase(NamedTuple):
    """A base of the published study and the values with which it was trained."""

    hub_id: str
    batch_size: int  # rows per forward pass
    gradient_accumulation: int  # forward passes per optimizer step
    quantization: str = "nf4"


PUBLISHED = {
    "codellama-7b": PublishedBase("codellama/CodeLlama-7b-hf", 1, 4),
    "deepseek-coder-1.3b": PublishedBase("deepseek-ai/deepseek-coder-1.3b-base", 1, 4),
    "qwen2.5-coder-1.5b": PublishedBase("Qwen/Qwen2.5-Coder-1.5B", 4, 1),
    "qwen2.5-coder-3b": PublishedBase("Qwen/Qwen2.5-Coder-3B", 4, 1),
}


def with_published_base(values: Any) -> Any:
    """Returns the values of a study file in which a word for a published base is replaced by what it stands for.

    The batch is set in the sections `adapter` and `fusion`, each only if it sets no part of it itself.
    """
    word, _, revision = str(values.get("base")).partition("@") if isinstance(values, dict) else ("", "", "")
    if word not in PUBLISHED:
        return values
    base = PUBLISHED[word]
    batch = {"batch_size": base.batch_size, "gradient_accumulation": base.gradient_accumulation}
    filled = {"quantization": base.quantization} | values
    filled["base"] = f"{base.hub_id}@{revision}" if revision else base.hub_id
    for name in ("adapter", "fusion"):
        section = values.get(name, {})
        if isinstance(section, dict) and not batch.keys() & section.keys():
            filled[name] = section | batch
    return filled
