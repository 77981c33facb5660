"""Terms of the field that a report explains in a tooltip, where each of them stands first on a page."""

from __future__ import annotations

import re

from bs4 import BeautifulSoup, NavigableString

TERMS = {
    "AdapterFusion": "One adapter per language, joined by an attention that is trained in one phase.",
    "AdvFusion": "AdapterFusion in two phases: phase 1 hides the target's own adapter, phase 2 restores it.",
    "adapter": "A small set of trained weights inside a frozen language model, here for one programming language.",
    "bottleneck adapter": "A pair of small matrices behind each layer, trained on the target's rows; no fusion.",
    "LoRA adapter": "A low-rank change of the layers' weights, trained on the target's rows; no fusion.",
    "phase 1": "The first training of AdvFusion: the target's own adapter is hidden, so the others must do the work.",
    "phase 2": "The second training of AdvFusion: all members take part.",
    "seeds": "Each training is repeated from several seeds, which fix its first weights and the order of its rows.",
    "weight": "The part of its attention that a fusion gives to a member; the weights of all members sum to 1.",
    "odds ratio": "The odds of passing with one method over those with the other; 1 means no difference.",
    "member": "A finished adapter that a fusion combines with others; its weights are frozen.",
    "composition": "Several adapters in one model: a fusion by attention, or a simpler way to combine them.",
    "mask": "What phase 1 of AdvFusion does to a member: 'zero' keeps its place in the softmax but lets it add "
    "nothing; 'exclude' takes it out of the softmax.",
    "cluster": "Test rows that are not independent, such as those of one problem; they count as one draw.",
    "paired": "Both methods are compared on the same test rows and seeds: hard rows affect both alike.",
    "completion loss": "Cross entropy of the reference completion in nats per token; less is better.",
    "pass@1": "Share of the test rows whose first completion passes the tests of its row.",
    "Holm": "A correction of p values: the more differences are tested, the smaller p must be.",
    "nats": "Unit of the cross entropy with the natural logarithm; 1 nat is 1.44 bits.",
    "entropy": "How evenly the weight is spread over the members: 0 if one has all of it.",
    "norm-weighted": "A member's share of what all members add to a token's state: weight times norm of its output.",
    "value matrix": "The matrix V of a fusion, through which the weighted outputs of its members pass.",
}
PROSE = ("p", "li", "figcaption")
NOT_INSIDE = ("a", "abbr", "code", "pre", "summary")


def explain(soup: BeautifulSoup) -> None:
    """Wraps the first occurrence of each term in the prose of a page into an `<abbr>` that holds its meaning."""
    patterns = {term: re.compile(rf"(?<![\w@-]){re.escape(term)}(?![\w@-])") for term in TERMS}
    for text in soup.find_all(string=True):
        if not patterns:
            return
        if text.find_parent(NOT_INSIDE) is None and text.find_parent(PROSE) is not None:
            _explain_in(text, patterns, soup)


def _explain_in(text: NavigableString, patterns: dict[str, re.Pattern[str]], soup: BeautifulSoup) -> None:
    """Explains the first term of `patterns` that a piece of text holds, and those behind it; removes them there."""
    found = [(match.start(), term) for term, pattern in patterns.items() if (match := pattern.search(text))]
    if not found:
        return
    at, term = min(found)
    del patterns[term]
    explained = soup.new_tag("abbr", attrs={"title": TERMS[term]})
    explained.string = term
    rest = NavigableString(text[at + len(term) :])
    text.replace_with(NavigableString(text[:at]), explained, rest)
    _explain_in(rest, patterns, soup)
