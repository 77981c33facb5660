"""The questions that a study answers: which differences between its methods are made, and what each one is about.

This is the one table for the comparison, which tests the differences, and for the report, which puts them under their
questions. A difference identifies a cause where its two sides differ in one thing only. So two fusions by attention are
set against each other where their words differ in exactly one factor: the schedule with its mask, the kind of the
members, the variant, the member that is hidden, those that are left out, or the placebo. AdapterFusion is set against
every other composition of the same members.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from studykit.study.methods import PHASE_1, RESTORED, TARGET, Method, parse

Pair = tuple[str, str]  # a method, and the one that it is set against; either may be a phase, "<method>, phase 1"

ADAPTER = "Does an adapter trained on the target's few rows help?"
FUSING = "Does fusing the target's adapter with others help?"
STRONGER = "Does fusing help more than one adapter that trained for as long, or on the other members' rows too?"
SOURCES = "Is it what the sources learned that helps, or only weights of their number and size?"
OWN = "Does the target's own adapter help in the fusion?"
MEMBERS = "Does each other member help in the fusion?"
SCHEDULE = "Do two phases help if no member is hidden?"
MASK = "Does hiding the target's adapter in phase 1 help, beyond the schedule?"
PLACEBO_MASK = "Does it have to be the target's adapter that phase 1 hides?"
ADVFUSION = "Does AdvFusion beat AdapterFusion, schedule and mask together?"
RESTORING = "Does restoring the hidden adapter help, before phase 2 takes a step?"
PHASE_2 = "Do the steps of phase 2 help?"
KIND = "Does another kind of members help?"
VARIANT = "Is a fusion with fewer parameters as good?"
RIVALS = "Does attention over the members' outputs beat mixing, merging or routing the same members?"
# In the order of the report.
QUESTIONS = (
    ADAPTER, FUSING, STRONGER, SOURCES, OWN, MEMBERS, SCHEDULE, MASK, PLACEBO_MASK, ADVFUSION, RESTORING, PHASE_2,
    KIND, VARIANT, RIVALS,
)  # fmt: skip
DRAWS_BEYOND = 10  # resamples that a p at Holm's first step must leave beyond the observed difference
FACTORS = ("name", "mask", "members", "variant", "masked_member", "left_out", "placebo")


def questions(words: Sequence[str], target: str) -> dict[str, list[Pair]]:
    """Returns the pairs of methods that answer each question, for the questions that a study of these words answers.

    questions(["base", "bottleneck", "adapterfusion"], "lua")
    # {ADAPTER: [("bottleneck", "base")], FUSING: [("adapterfusion", "bottleneck")]}
    """
    methods = [_named(word, target) for word in words]
    found: dict[str, list[Pair]] = {question: [] for question in QUESTIONS}
    for a in methods:
        for b in methods:
            if question := _question(a, b, methods):
                found[question].append((a.word, b.word))
        if a.name == "advfusion" and not a.masked_member:
            after, restored = f"{a.word}, {PHASE_1.title}", f"{a.word}, {RESTORED}"
            if a.mask != "none":
                found[RESTORING].append((restored, after))
            found[PHASE_2].append((a.word, after if a.mask == "none" else restored))
    return {question: pairs for question, pairs in found.items() if pairs}


def method_pairs(words: Sequence[str], baseline: str, target: str) -> list[Pair]:
    """Returns all pairs that are compared, each once: every method with the baseline, and those of the questions."""
    pairs = [(word, baseline) for word in words if word != baseline]
    for of_question in questions(words, target).values():
        pairs += [(a, b) for a, b in of_question if (a, b) not in pairs and (b, a) not in pairs]
    return pairs


def too_few_resamples(resamples: int, tests: int, confidence: float) -> str:
    """Returns why so many resamples are too few for so many tests, as a part of a sentence; "" where they suffice.

    Holm's first step needs a p below (1 - confidence) / tests, and ten resamples beyond it.
    """
    least = math.ceil(DRAWS_BEYOND * tests / (1 - confidence) - 1e-6)
    if resamples >= least:
        return ""
    comparisons = "comparison needs" if tests == 1 else "comparisons need"
    return f"compare.resamples is {resamples}; {tests} {comparisons} at least {least} at a confidence of {confidence:g}"


def labels(words: Sequence[str]) -> list[str]:
    """Returns everything that a contrast of a study may name: its methods, and the phases before their last."""
    phases = [f"{m.word}, {PHASE_1.title}" for m in map(parse, words) if m.name == "advfusion"]
    restored = [f"{m.word}, {RESTORED}" for m in map(parse, words) if m.mask != "none"]
    return [*words, *phases, *restored]


def _named(word: str, target: str) -> Method:
    """The method of a word, in which the target's member is called `target`, and not at all where it is masked."""
    method = parse(word)
    left_out = tuple(sorted(TARGET if name == target else name for name in method.left_out))
    hidden = "" if method.masked_member in (TARGET, target) else method.masked_member
    return method._replace(left_out=left_out, masked_member=hidden)


def _question(a: Method, b: Method, methods: Sequence[Method]) -> str | None:
    """The question that the difference between two methods answers, if any."""
    if b.word == "base":
        fused = {method.members for method in methods}
        is_own = a.is_adapter and a.training == "own"
        return ADAPTER if is_own and (a.name in fused or a.name == "bottleneck") else None
    if not _by_attention(a):
        return None
    if b.is_adapter:
        changed = a.left_out or a.placebo != "none" or a.variant != "full"
        question = FUSING if b.training == "own" else STRONGER
        return question if a.name == "adapterfusion" and b.name == a.members and not changed else None
    if not _by_attention(b):
        alike = a.variant == "full" and all(
            getattr(a, of) == getattr(b, of) for of in ("members", "left_out", "placebo")
        )
        return RIVALS if a.name == "adapterfusion" and b.members and alike else None
    differing = {factor for factor in FACTORS if getattr(a, factor) != getattr(b, factor)}
    if differing <= {"name", "mask"} and differing:
        return _question_of_schedules(a, b)
    if len(differing) > 1:
        return None
    first_kind = next(method.members for method in methods if _by_attention(method))
    asked: Mapping[str, tuple[bool, str]] = {
        "masked_member": (not a.masked_member, PLACEBO_MASK),
        "left_out": (not a.left_out, OWN if b.left_out == (TARGET,) else MEMBERS),
        "placebo": (a.placebo == "none", SOURCES),
        "members": (b.members == first_kind, KIND),
        "variant": (b.variant == "full", VARIANT),
    }
    return next((question for factor, (holds, question) in asked.items() if factor in differing and holds), None)


def _question_of_schedules(a: Method, b: Method) -> str | None:
    if b.name == "adapterfusion":
        return SCHEDULE if a.mask == "none" else ADVFUSION
    return MASK if b.mask == "none" and b.name == "advfusion" and a.mask != "none" else None


def _by_attention(method: Method) -> bool:
    return method.name in ("adapterfusion", "advfusion")
