"""The methods of a study, by one word each.

    base                                    the model as it is
    bottleneck | houlsby | parallel | compacter | compacterpp | lora | full
                                            one adapter on the target's rows, or all weights of the base
    adapterfusion | advfusion_zero | advfusion_exclude | average | scalar_mix
                                            a composition of one adapter per member
    merge | xlora | arrow                   PEFT's own compositions of LoRAs

A composition's word may go on, after hyphens, with the kind of its members (bottleneck by default) and with a variant:
`static` has no value matrix, `lowrank` has queries and keys of few dimensions. So `advfusion_zero-houlsby`,
`adapterfusion-lora-lowrank`, `average-compacterpp`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import NamedTuple

ADAPTERS = ("bottleneck", "houlsby", "parallel", "compacter", "compacterpp", "lora", "full")
FUSABLE = ADAPTERS[:-1]
# Compositions by attention: the word -> the method's name and the mask of its phase 1.
ATTENTIVE = {
    "adapterfusion": ("adapterfusion", "none"),
    "advfusion_zero": ("advfusion", "zero"),
    "advfusion_exclude": ("advfusion", "exclude"),
}
COMPOSITIONS = (*ATTENTIVE, "average", "scalar_mix")
PEFT_COMPOSITIONS = ("merge", "xlora", "arrow")
UNTRAINED = ("average", "merge", "arrow")  # compositions that learn nothing
VARIANTS = ("static", "lowrank")


@dataclass(frozen=True)
class Phase:
    """One phase in which a composition is trained, from its directory to its name in figures."""

    key: str  # name of its directory in a fusion run and of its file of fusion weights
    title: str  # name in figures, tables and summaries; a method that has one phase gives it the method's name
    recorded_as: str  # `FusionRecord.phase` of the weights recorded at its end


PHASE_1 = Phase("phase1", "phase 1", "phase 1")
PHASE_2 = Phase("phase2", "phase 2", "phase 2")
# The one table of phases, by the name of the composition. Every phase of every fusion run is one of these.
PHASES: dict[str, tuple[Phase, ...]] = {
    "advfusion": (PHASE_1, PHASE_2),
    "adapterfusion": (Phase("fusion", "AdapterFusion", "adapterfusion"),),
    "average": (Phase("fusion", "average", "adapterfusion"),),
    "scalar_mix": (Phase("fusion", "scalar mix", "adapterfusion"),),
    "merge": (Phase("fusion", "merge", "adapterfusion"),),
    "xlora": (Phase("fusion", "X-LoRA", "adapterfusion"),),
    "arrow": (Phase("fusion", "Arrow", "adapterfusion"),),
}
BEFORE_TRAINING = Phase("init", "initialisation", "init")  # the state that the first phase starts from
WORDS = ("base", *ADAPTERS, *COMPOSITIONS, *PEFT_COMPOSITIONS)


class Method(NamedTuple):
    """What a word asks for."""

    word: str
    name: str  # the word without mask, members and variant: adapterfusion, advfusion, lora ...
    mask: str = "none"  # of AdvFusion's phase 1
    members: str | None = None  # kind of the fused adapters; None: nothing is fused
    variant: str = "full"

    @property
    def is_adapter(self) -> bool:
        return self.name in ADAPTERS

    @property
    def has_weights(self) -> bool:
        """Whether the method gives every member a weight that can be recorded."""
        return self.members is not None and self.name not in PEFT_COMPOSITIONS


def parse(word: str) -> Method:
    """Returns the method of a word; raises ValueError, with the nearest known one, for a word that names none."""
    head, *rest = word.split("-")
    if head in ("base", *ADAPTERS) and not rest:
        return Method(word, head)
    if head in PEFT_COMPOSITIONS and not rest:
        return Method(word, head, members="lora")
    if head in COMPOSITIONS:
        members = rest.pop(0) if rest and rest[0] in FUSABLE else "bottleneck"
        variant = rest.pop(0) if rest and rest[0] in VARIANTS and head in ATTENTIVE else "full"
        if not rest:
            name, mask = ATTENTIVE.get(head, (head, "none"))
            return Method(word, name, mask, members, variant)
        accepted = f"members ({', '.join(FUSABLE)})" + f", then a variant ({', '.join(VARIANTS)})" * (head in ATTENTIVE)
        raise ValueError(f"the method {word!r} is unknown: after {head} may come {accepted}, not {rest[0]!r}")
    if head == "weights":
        raise ValueError(
            f"the method {word!r} is unknown; it is now called {word.replace('weights', 'scalar_mix', 1)!r}"
        )
    near = difflib.get_close_matches(head, WORDS, n=1, cutoff=0.6)
    hint = f"the nearest known is {near[0]}" if near else f"known are {', '.join(WORDS)}"
    raise ValueError(f"the method {word!r} is unknown; {hint}")


def check_word(word: str) -> str:
    """Returns the word if it names a method; raises ValueError otherwise."""
    return parse(word).word


def check_weighted_word(word: str) -> str:
    """Returns the word if it names a method with weights per member; raises ValueError otherwise."""
    if not parse(word).has_weights:
        raise ValueError(
            f"the method {word!r} has no weights per member; those that have them begin with {', '.join(COMPOSITIONS)}"
        )
    return word
