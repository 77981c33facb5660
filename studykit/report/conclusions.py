"""What a comparison says, in sentences that are computed from its numbers: also when nothing was found.

Every difference ends in a verdict (see `comparison.verdict`): better or worse, either of them on these seeds only, or
undecided. Undecided is no proof of equality, so it comes with the difference that the study could have found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from studykit.evaluation.comparison import LESS_IS_BETTER, is_rate, rounded
from studykit.runs.text import plural
from studykit.study.methods import PHASE_1, PHASE_2

ADVFUSION = ("advfusion_zero", "advfusion_exclude")
OWN = "bottleneck"  # the target's adapter alone
# A smaller lead in a score of text did not tell which model people judge better, with a certainty of 95 %: 5 points on
# CoNaLa; on HearthStone 2 were enough (Evtikhiev et al. 2023, "Out of the BLEU").
SEEN = 5
FUSING, RESTORING = "Does fusing it with others help?", "Does restoring it in phase 2 help?"
# question -> who is compared with whom; asked only of what the study ran
QUESTIONS = {
    "Does an adapter on the target's few rows help?": [(OWN, "base")],
    FUSING: [("adapterfusion", OWN)],
    "Does hiding the own adapter first help?": [(method, "adapterfusion") for method in ADVFUSION],
    RESTORING: [(method, f"{method}, {PHASE_1.title}") for method in ADVFUSION],
}


def measure(compared: Mapping[str, Any]) -> str:
    """The metric's name inside a sentence."""
    return "the completion loss" if compared["metric"] == "loss" else compared["label"]


def signed(value: float, unit: str) -> str:
    """+1.7, or +0.032 for a loss; a true minus sign, and none before what rounds to 0."""
    text = f"{value:+.{digits(unit)}f}"
    return text.replace("-", "\u2212") if float(text) else text[1:]


def digits(unit: str) -> int:
    return 3 if unit.startswith("nats") else 1


def turned(contrast: Mapping[str, Any]) -> dict:
    """The same difference, seen from the other side."""
    def flip(name: str) -> float | None:
        return None if contrast[name] is None else -contrast[name]

    word, _, rest = contrast["verdict"].partition(" ")
    word = {"better": "worse", "worse": "better"}.get(word, word)
    odds = contrast["effect_name"] == "odds ratio"
    return {**contrast, "method": contrast["against"], "against": contrast["method"], "value": flip("value"),
            "low": flip("high"), "high": flip("low"), "by_seed": [-d for d in contrast["by_seed"]],
            "effect": 1 / contrast["effect"] if odds else flip("effect"),
            "discordant": contrast["discordant"] and contrast["discordant"][::-1],
            "seeds_low": flip("seeds_high"), "seeds_high": flip("seeds_low"),
            "verdict": f"{word} {rest}".strip()}  # fmt: skip


def oriented(contrasts: Sequence[Mapping[str, Any]], method: str, against: str) -> Mapping[str, Any] | None:
    """The difference method - against, whichever way round it was computed; None if it was not."""
    for contrast in contrasts:
        if (contrast["method"], contrast["against"]) == (method, against):
            return contrast
        if (contrast["method"], contrast["against"]) == (against, method):
            return turned(contrast)
    return None


def sentence(compared: Mapping[str, Any], contrast: Mapping[str, Any]) -> str:
    """The verdict of one difference, its numbers, what other seeds might say, and what could have been found."""
    unit, places = compared["unit"], digits(compared["unit"])
    a, b = contrast["method"], contrast["against"]
    means = {row["method"]: f"{row['mean']:.{places}f}" for row in compared["rows"]}
    word, _, rest = contrast["verdict"].partition(" ")
    head = f"{a} against {b} is undecided" if word == "undecided" else f"{a} is {word} than {b}{rest and ' ' + rest}"
    interval = f"{compared['confidence']:.0%} interval {ends(contrast, unit)}"
    step = "points" if unit == "%" else unit
    p = f"p {'< 0.001' if contrast['p_holm'] < 0.001 else '= ' + format(contrast['p_holm'], '.3f')}"
    said = [f"**{head}** on {measure(compared)}: {means[a]} against {means[b]} {unit}, a difference of "
            f"{signed(contrast['value'], unit)} {step} ({interval}, {p} after Holm's correction, "
            f"{contrast['effect_name']} {effect(contrast)}, n = {counted(contrast)})."]  # fmt: skip
    if word == "undecided":
        return f"{said[0]} {_undecided(contrast, places, step)}"
    said.append(_seeds(contrast, unit))
    if not is_rate(compared["metric"]) and compared["metric"] != "loss" and abs(contrast["value"]) < SEEN:
        said.append(f"A lead of less than {SEEN} points in such a score need not be one that people see.")
    return " ".join(said)


def ends(contrast: Mapping[str, Any], unit: str, of: str = "") -> str:
    """The two bounds of a difference over the rows, or over the seeds (`of` is "seeds_"); a dash for none."""
    low, high = contrast[f"{of}low"], contrast[f"{of}high"]
    return "–" if low is None else f"{signed(low, unit)} to {signed(high, unit)}"


def brief(compared: Mapping[str, Any], contrast: Mapping[str, Any]) -> str:
    """The verdict of one difference with its two intervals, and no more."""
    unit = compared["unit"]
    bounds = {"rows": ends(contrast, unit), "seeds": ends(contrast, unit, "seeds_")}
    said = ", ".join(f"{of} {interval}" for of, interval in bounds.items() if interval != "–")
    step = "points" if unit == "%" else unit
    return f"{contrast['verdict']}, {signed(contrast['value'], unit)} {step}" + (f" ({said})" if said else "")


def effect(contrast: Mapping[str, Any]) -> str:
    """The size of a difference: an odds ratio as 1.53, a delta as +0.12."""
    value = contrast["effect"]
    return f"{value:.2f}" if contrast["effect_name"] == "odds ratio" else f"{value:+.2f}".replace("-", "\u2212")


def counted(found: Mapping[str, Any], row: str = "row") -> str:
    """The rows behind a number, and their clusters where several rows share one."""
    clusters = f" in {plural(found['clusters'], 'cluster')}" if found["clusters"] else ""
    return f"{plural(found['n'], row)}{clusters}"


def _undecided(contrast: Mapping[str, Any], places: int, step: str) -> str:
    if contrast["low"] is None:
        return f"What other rows would say cannot be told from {'one cluster' if contrast['clusters'] else 'one row'}."
    if contrast["detectable"] is None:
        return "No test row tells the two apart."
    why = "The interval includes 0" if contrast["low"] <= 0 <= contrast["high"] else "The corrected p is too large"
    return (f"{why}; by its rows alone, the study would have found a difference of about "
            f"{contrast['detectable']:.{places}f} {step} in four of five cases.")  # fmt: skip


def _seeds(contrast: Mapping[str, Any], unit: str) -> str:
    differences = contrast["by_seed"]
    if len(differences) < 2:
        return "One seed says nothing of other trainings." if differences else "The two have no seeds in common."
    alike = sum((d > 0) == (contrast["value"] > 0) for d in differences)
    span = ends(contrast, unit, "seeds_")
    certain = contrast["seeds_low"] > 0 or contrast["seeds_high"] < 0
    outlook = "excludes 0" if certain else "includes 0, so other seeds could say otherwise"
    return f"{alike} of {len(differences)} seeds have this sign; the interval over seeds, {span}, {outlook}."


def answers(compared: Mapping[str, Any]) -> list[dict]:
    """[{question, sentences}] for every question that the study can answer; the last one is about what is left."""
    left = {frozenset((c["method"], c["against"])): c for c in compared["contrasts"]}
    found = []
    for question, asked in QUESTIONS.items():
        known = [oriented(compared["contrasts"], *pair) for pair in asked]
        for pair in asked:
            left.pop(frozenset(pair), None)
        if any(known):
            found.append({"question": question, "sentences": [sentence(compared, c) for c in known if c]})
    if left:
        rest = [sentence(compared, c) for c in left.values()]
        found.append({"question": "And the others?", "sentences": rest})
    return found


def hypothesis(compared: Mapping[str, Any], target: str) -> str:
    """Whether AdvFusion beats AdapterFusion on this metric; "" where the study did not run both."""
    found = {method: contrast for method in ADVFUSION
             if (contrast := oriented(compared["contrasts"], method, "adapterfusion"))}  # fmt: skip
    if not found:
        return ""
    verdicts = {contrast["verdict"] for contrast in found.values()}
    words = {verdict.partition(" ")[0] for verdict in verdicts}
    if words == {"better"}:
        stance = "supported" if verdicts == {"better"} else "supported on these seeds"
    elif "better" in words:
        stance = "a matter of the mask" if "worse" in words else "supported in part"
    else:
        stance = "contradicted" if "worse" in words else "undecided"
    said = "; ".join(f"{method} is {brief(compared, contrast)}" for method, contrast in found.items())
    return f"That AdvFusion beats AdapterFusion on {target} is **{stance}** by {measure(compared)}: {said}."


def in_brief(compared: Mapping[str, Any], target: str) -> list[str]:
    """What a reader is told first: the hypothesis, then what fusing and restoring do, a sentence each."""
    said = [sentence] if (sentence := hypothesis(compared, target)) else []
    for question in (FUSING, RESTORING):
        known = [contrast for pair in QUESTIONS[question] if (contrast := oriented(compared["contrasts"], *pair))]
        if known:
            answers = "; ".join(f"{c['method']} against {c['against']} is {brief(compared, c)}" for c in known)
            said.append(f"{question} By {measure(compared)}, {answers}.")
    return said


def summary(compared: Mapping[str, Any]) -> str:
    """The ranking in one sentence, best first; it says nothing of certainty."""
    rows = [row for row in compared["rows"] if row["final"]]
    rows.sort(key=lambda row: row["mean"], reverse=compared["metric"] not in LESS_IS_BETTER)
    places = digits(compared["unit"])
    said = ", ".join(f"{row['method']} {row['mean']:.{places}f}" for row in rows)
    return f"{compared['label']} ({compared['unit']}), best first: {said}."


def tight(low: str, high: str) -> str:
    """An interval that no table breaks in two."""
    return f"{low}\u00a0to\u00a0{high}"


def spread(summary: Mapping[str, Any] | None, metric: str) -> str:
    """mean ± sd over seeds; the mean alone for one seed, a dash for None."""
    if summary is None:
        return "–"
    mean, sd = (rounded(summary[name], metric) for name in ("mean", "sd"))
    return mean if summary["sd"] is None else f"{mean}\u00a0±\u00a0{sd}"


def score_rows(compared: Mapping[str, Any]) -> list[dict]:
    """A metric's scores as a table to show: one line per method and state."""
    metric, interval = compared["metric"], f"{compared['confidence']:.0%} interval over rows"
    clustered = any(row["clusters"] for row in compared["rows"])
    return [
        {"method": row["method"], f"mean ({compared['unit']})": rounded(row["mean"], metric),
         "sd over seeds": rounded(row["sd"], metric), "seeds": len(row["points"]),
         interval: "–" if row["low"] is None else tight(rounded(row["low"], metric), rounded(row["high"], metric)),
         "rows": row["n"], **({"clusters": row["clusters"]} if clustered else {})}
        for row in compared["rows"]
    ]  # fmt: skip


def difference_rows(compared: Mapping[str, Any]) -> list[dict]:
    """A metric's differences as a table to show: one line per pair."""
    unit, over = compared["unit"], f"{compared['confidence']:.0%}, over"
    several = any(len(c["by_seed"]) > 1 for c in compared["contrasts"])
    bounds = {f"{over} rows": "", **({f"{over} seeds": "seeds_"} if several else {})}
    return [
        {"method": c["method"], "against": c["against"], "difference": signed(c["value"], unit),
         "verdict": c["verdict"],
         **{name: ends(c, unit, of).replace(" ", "\u00a0") for name, of in bounds.items()},
         "p (Holm)": f"{c['p_holm']:.3f}", c["effect_name"]: effect(c)}
        for c in compared["contrasts"]
    ]  # fmt: skip


def how_tested(compared: Mapping[str, Any]) -> str:
    """Rows, clusters, tests and their family behind a table of differences: its caption."""
    if not compared["contrasts"]:
        return ""
    count, first = compared["family"]["tests"], compared["contrasts"][0]
    tests = " and ".join(dict.fromkeys(c["test"] for c in compared["contrasts"]))
    return (f"Differences in {compared['label']}, paired over {counted(first)}. p: {tests}; Holm's correction over "
            f"{plural(count, 'test')}, {compared['family']['said']}.")  # fmt: skip


def component_rows(compared: Mapping[str, Any]) -> list[dict]:
    """The parts of a composed score (CodeBLEU's four) beside it, means over the seeds; [] for a score of one piece."""
    metric = compared["metric"]
    return [
        {"method": row["method"], compared["label"]: rounded(row["mean"], metric),
         **{name.replace("_", " "): rounded(value, metric) for name, value in row["components"].items()}}
        for row in compared["rows"] if row["components"]
    ]  # fmt: skip


def attention(rows: Sequence[Mapping[str, Any]], target: str) -> list[str]:
    """How much each fusion relies on the target's own adapter, from `ledger.own_attention`."""
    said = []
    for method in dict.fromkeys(row["method"] for row in rows):
        parts = [f"{row['own']:.0%}" + (f" after {row['phase']}" if row["phase"] in (PHASE_1.title, PHASE_2.title) else "")
                 + (" (an empty slot)" if row["empty slot"] else "")
                 for row in rows if row["method"] == method]  # fmt: skip
        said.append(f"{method} puts {', '.join(parts)} of its fusion weight on the adapter of {target} itself.")
    return said


def looked_at(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the shares of `ledger.own_attention` are means of: samples, tokens, seeds."""
    told = {f"n = {row['samples']} samples, {row['tokens']} tokens, {plural(len(row['by_seed']), 'seed')}" for row in rows}
    return "; ".join(sorted(told)) or "nothing was recorded"
