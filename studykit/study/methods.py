"""The methods of a study, by one word each.

    base                                    the model as it is
    fewshot                                 the same, with training rows of the target before each prompt
    bottleneck | houlsby | parallel | compacter | compacterpp | lora | full
                                            one adapter on the target's rows, or all weights of the base
    bottleneck_long, lora_long ...          one adapter with as many steps as all members and a fusion together
    pooled | transfer | transfer_tuned      one adapter on the rows of all members, then on the target's; the source
                                            adapter that is best on the target's validation rows, as it is or trained on
    adapterfusion | advfusion_none | advfusion_zero | advfusion_exclude | average | scalar_mix
                                            a composition of one adapter per member
    mhr                                     the same of LoRAs alone: weights per member and block of the input
    task_arithmetic | ties | merge | arrow | xlora
                                            LoRAs merged into one, or routed, by PEFT

The adapter of `pooled` and `transfer` is a bottleneck, or of the kind after a hyphen: `pooled-lora`.

A composition's word may go on, after hyphens, with the kind of its members (bottleneck by default) and with a variant:
`static` has no value matrix, `lowrank` has queries and keys of few dimensions. So `advfusion_zero-houlsby`,
`adapterfusion-lora-lowrank`, `average-compacterpp`.

Last come the changes that make a composition a control of another one:

    @member     phase 1 of AdvFusion hides this member instead of the target's: a placebo of the mask
    ~member     this member is left out; `~target` and `~sources` name the target's and all others; several may follow
    ^random     every tensor of the source members is drawn again with its own norm: members that know nothing
    ^shuffled   the layers of each source member change places: the same tensors, each where it was not trained

So `advfusion_exclude@python`, `adapterfusion~target`, `adapterfusion-lora~go~ruby`, `advfusion_exclude^random`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from studykit.study.languages import display_name

ADAPTERS = ("bottleneck", "houlsby", "parallel", "compacter", "compacterpp", "lora", "full")
FUSABLE = ADAPTERS[:-1]
FEW_SHOT = "fewshot"
UNTRAINED_BASES = ("base", FEW_SHOT)  # methods without any training
LONG = "_long"  # after the word of an adapter
ON_OTHER_ROWS = ("pooled", "transfer", "transfer_tuned")  # one adapter that learns from other members' rows, too
# Compositions by attention: the word -> the method's name and the mask of its phase 1.
ATTENTIVE = {
    "adapterfusion": ("adapterfusion", "none"),
    "advfusion_none": ("advfusion", "none"),
    "advfusion_zero": ("advfusion", "zero"),
    "advfusion_exclude": ("advfusion", "exclude"),
}
COMPOSITIONS = (*ATTENTIVE, "average", "scalar_mix", "mhr")
MERGES = ("task_arithmetic", "ties", "merge")  # the members' weights become those of one LoRA, times a factor
PEFT_COMPOSITIONS = (*MERGES, "xlora", "arrow")
OF_LORAS = ("mhr", *PEFT_COMPOSITIONS)  # compositions whose members are always LoRAs
UNTRAINED = ("average", *MERGES, "arrow")  # compositions that learn nothing
VARIANTS = ("static", "lowrank")
PLACEBOS = ("random", "shuffled")
ADVFUSION = {  # its titles, by the mask of phase 1
    "zero": "AdvFusion, mask zero",
    "exclude": "AdvFusion, mask exclude",
    "none": "AdvFusion, two phases without a mask",
}
TARGET, SOURCES = "target", "sources"  # what `~` may name besides members


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
    "mhr": (Phase("fusion", "multi-head routing", "adapterfusion"),),
    "task_arithmetic": (Phase("fusion", "task arithmetic", "adapterfusion"),),
    "ties": (Phase("fusion", "TIES", "adapterfusion"),),
    "merge": (Phase("fusion", "merge", "adapterfusion"),),
    "xlora": (Phase("fusion", "X-LoRA", "adapterfusion"),),
    "arrow": (Phase("fusion", "Arrow", "adapterfusion"),),
}
RESTORED = f"{PHASE_1.title}, restored"  # the weights of phase 1 with no member masked: what phase 2 starts from
BEFORE_TRAINING = Phase("init", "initialisation", "init")  # the state that the first phase starts from
WORDS = (*UNTRAINED_BASES, *ADAPTERS, *ON_OTHER_ROWS, *COMPOSITIONS, *PEFT_COMPOSITIONS)


class Method(NamedTuple):
    """What a word asks for."""

    word: str
    name: str  # the word without mask, members and variant: adapterfusion, advfusion, lora ...
    mask: str = "none"  # of AdvFusion's phase 1
    members: str | None = None  # kind of the fused adapters; None: nothing is fused
    variant: str = "full"
    masked_member: str = ""  # the member that phase 1 hides; empty: the target's
    left_out: tuple[str, ...] = ()  # members that the composition is not given
    placebo: str = "none"  # none | random | shuffled: what the source members' weights are replaced by
    training: str = "own"  # of one adapter: own (on the target's rows), long, or one of ON_OTHER_ROWS

    @property
    def is_adapter(self) -> bool:
        return self.name in ADAPTERS

    @property
    def learns(self) -> bool:
        """Returns whether the method is a composition that is trained."""
        return self.members is not None and self.name not in UNTRAINED

    @property
    def has_weights(self) -> bool:
        """Returns whether the method gives every member a weight that can be recorded."""
        return self.members is not None and self.name not in PEFT_COMPOSITIONS

    def remaining(self, members: Sequence[str]) -> list[str]:
        """Returns those of the members that are not left out, in their order."""
        return [member for member in members if member not in self.left_out]

    def among(self, sources: Sequence[str], target: str) -> Method:
        """Returns the method in a study with these sources and this target, where `target` and `sources` have names.

        Raises ValueError, in a sentence about `methods`, for a member that the study does not have and for a
        combination that leaves nothing to fuse or nothing to hide.
        """
        everyone = [*sources, target]
        groups = {TARGET: [target], SOURCES: list(sources)}
        named = [name for word in self.left_out for name in groups.get(word, [word])]
        hidden = target if self.masked_member == TARGET else self.masked_member
        if foreign := [name for name in (*named, hidden) if name and name not in everyone]:
            raise ValueError(
                f"methods names {self.word!r}, but {foreign[0]} is no member; the members are {', '.join(everyone)}"
            )
        if repeated := [name for name in named if named.count(name) > 1]:
            raise ValueError(f"methods names {self.word!r}, which leaves {repeated[0]} out twice; once is enough")
        present = [name for name in everyone if name not in named]
        if not present:
            raise ValueError(f"methods names {self.word!r}, which leaves every member out; one at least must remain")
        if self.mask != "none" and (hidden or target) not in present:
            raise ValueError(
                f"methods names {self.word!r}, whose phase 1 hides {hidden or target}, which is left out; name a "
                "member that remains after @, or use adapterfusion"
            )
        if self.mask != "none" and len(present) == 1:
            raise ValueError(
                f"methods names {self.word!r}, whose phase 1 hides its only member; leave another one in, or use "
                "adapterfusion"
            )
        if self.placebo != "none" and present == [target]:
            raise ValueError(
                f"methods names {self.word!r}, which has no source member that ^{self.placebo} could change"
            )
        left_out = tuple(name for name in everyone if name not in present)
        return self._replace(left_out=left_out, masked_member="" if hidden == target else hidden)


def has_value_matrix(name: str, variant: str) -> bool:
    """Returns whether a composition of this name and variant learns a value matrix; only attention does."""
    return name in ("adapterfusion", "advfusion") and variant != "static"


def parse(word: str) -> Method:
    """Returns the method of a word; raises ValueError, with the nearest known one, for a word that names none."""
    plain, *changes = re.split(r"(?=[@~^])", word)
    method = _parse_plain(plain, word)
    for change in changes:
        method = _changed(method, change[0], change[1:])
    return method


def _changed(method: Method, sign: str, name: str) -> Method:
    """Returns a method with one of the changes after its word; raises ValueError for one that does not fit."""
    problem = f"the method {method.word!r} is unknown: "
    if sign == "~" and method.members is None:
        raise ValueError(f"{problem}~ leaves a member out, so it may follow only a composition")
    if sign == "@" and method.mask == "none":
        raise ValueError(f"{problem}@ names the member that phase 1 hides, so it may follow only a word with a mask")
    if sign == "@" and method.masked_member:
        raise ValueError(f"{problem}phase 1 hides one member, so @ may stand once")
    if sign == "^" and (not method.has_weights or method.placebo != "none"):
        raise ValueError(f"{problem}^ changes the source members, so it may follow {', '.join(COMPOSITIONS)}, once")
    if sign == "^" and name not in PLACEBOS:
        raise ValueError(f"{problem}after ^ may come {' or '.join(PLACEBOS)}, not {name!r}")
    if not name:
        raise ValueError(f"{problem}after {sign} must come a member's name")
    if sign == "~":
        return method._replace(left_out=(*method.left_out, name))
    return method._replace(masked_member=name) if sign == "@" else method._replace(placebo=name)


def _parse_plain(plain: str, word: str) -> Method:
    """Returns the method of a word up to its changes."""
    head, *rest = plain.split("-")
    if head in (*UNTRAINED_BASES, *ADAPTERS) and not rest:
        return Method(word, head)
    if (kind := head.removesuffix(LONG)) in FUSABLE and not rest:
        return Method(word, kind, training="long")
    if head in ON_OTHER_ROWS and (not rest or len(rest) == 1 and rest[0] in FUSABLE):
        return Method(word, rest[0] if rest else "bottleneck", training=head)
    if head in ON_OTHER_ROWS:
        accepted = f"a kind of adapter ({', '.join(FUSABLE)})"
        raise ValueError(f"the method {word!r} is unknown: after {head} may come {accepted}, not {'-'.join(rest)!r}")
    if head in OF_LORAS and not rest:
        return Method(word, head, members="lora")
    if head in COMPOSITIONS and head not in OF_LORAS:
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


def changes(params: Mapping[str, Any]) -> str:
    """Returns the changes that make a fusion run a control, as "@python~lua^random"; "" for one without.

    Args:
        params: the parameters of a fusion run.
    """
    hidden, placebo = params["masked_member"], params["placebo"]
    left_out = "".join(f"~{name}" for name in params["left_out"])
    return f"@{hidden}" * bool(hidden) + left_out + f"^{placebo}" * (placebo != "none")


def title(word: str) -> str:
    """Returns what a word names, in a reader's words: "AdvFusion, mask exclude, Python hidden first"."""
    method = parse(word)
    if method.members is None:
        kind = {
            "base": "the base alone",
            FEW_SHOT: "the base with examples before the prompt",
            "full": "all weights of the base",
            "lora": "LoRA adapter",
        }.get(method.name, f"{method.name} adapter")
        return {
            "long": f"{kind}, trained for as many steps as members and fusion together",
            "pooled": f"{kind}, trained on all members' rows, then on the target's",
            "transfer": f"{kind} of the best source, as it is",
            "transfer_tuned": f"{kind} of the best source, trained on with the target's rows",
        }.get(method.training, kind)
    parts = [PHASES[method.name][0].title if method.name != "advfusion" else ADVFUSION[method.mask]]
    parts += [f"{method.members} members"] * (method.members != "bottleneck" and method.name not in OF_LORAS)
    parts += [{"static": "without a value matrix", "lowrank": "low rank", "full": ""}[method.variant]]
    parts += [f"{_member_title(method.masked_member)} hidden first"] * bool(method.masked_member)
    parts += [f"without {_member_title(name)}" for name in method.left_out]
    parts += [{"random": "random sources", "shuffled": "sources with shuffled layers", "none": ""}[method.placebo]]
    return ", ".join(part for part in parts if part)


def titled(label: str) -> str:
    """Returns the label of a method, or of one of its phases, behind its title, for figures and tables.

    "advfusion_none, phase 1" is "AdvFusion, two phases without a mask, phase 1 (advfusion_none)". A label that names no
    method stays as it is.
    """
    word, comma, phase = label.partition(", ")
    try:
        named = title(word)
    except ValueError:
        return label
    return f"{named[0].upper()}{named[1:]}{comma}{phase} ({word})"


def _member_title(name: str) -> str:
    return {TARGET: "the target's adapter", SOURCES: "the sources"}.get(name) or display_name(name)


def label(word: str) -> str:
    """Returns a word as it stands in the name of a run: without the signs @, ~ and ^."""
    return word.replace("@", "-hides-").replace("~", "-without-").replace("^", "-")


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
