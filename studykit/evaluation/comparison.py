"""Methods side by side: scores with intervals, and paired differences.

Two uncertainties are kept apart. **Test rows**: they could have been others; a method's interval resamples rows, each
row's score being its mean over the seeds, and a difference resamples rows as pairs. Rows of one group (a problem, a
repository) are resampled together. **Seeds**: the training could have gone otherwise; their spread is a standard
deviation, their differences get a t interval. A difference counts as found when its Holm-corrected p over the rows is
small enough and the interval over the seeds agrees.

It reads what `evaluation.states.evaluate` wrote (`scores.json`) and needs no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from studykit.errors import UserError
from studykit.evaluation import statistics
from studykit.evaluation.metrics.score import corpus_value
from studykit.runs import files
from studykit.runs.manifest import finished_run

ASKED = (("bottleneck", "base"), ("adapterfusion", "bottleneck"),
         ("advfusion_zero", "adapterfusion"), ("advfusion_exclude", "adapterfusion"))  # fmt: skip
# pass@k stands before all of these, and what is not named here before the loss
ORDER = ("exact_match", "codebleu", "codebleu_compat", "codebleu_3", "bleu_paper", "bleu_paper_sentence",
         "bleu_codexglue", "b_norm", "sacrebleu", "chrf", "rouge_l", "edit_similarity", "parse_ok")  # fmt: skip
RATES = {"exact_match", "parse_ok"}  # and pass@k: shares of rows
LESS_IS_BETTER = {"loss"}
POWER = 0.8  # with which a detectable difference would have been found
SAME = ("language", "ids", "groups", "settings", "isolation")  # what compared evaluations must share


def pass_k(metric: str) -> int | None:
    """The k of a metric "pass_at_<k>"; None for any other."""
    found = re.fullmatch(r"pass_at_(\d+)", metric)
    return int(found[1]) if found else None


def is_rate(metric: str) -> bool:
    """Whether the metric is a share of rows: what a row scores is 0 or 100, or a mean of such."""
    return metric in RATES or pass_k(metric) is not None


def place(metric: str) -> tuple:
    """Where a metric stands in tables, to sort by: pass@k by k, then `ORDER`, then others, the loss last."""
    if (k := pass_k(metric)) is not None:
        return 0, k
    return (2, 0) if metric == "loss" else (1, ORDER.index(metric) if metric in ORDER else len(ORDER), metric)


def load(evaluations: Mapping[str, str]) -> dict[str, dict]:
    """`scores.json` by method. UserError unless all are of the same rows, generated and run under the same settings."""
    found = {method: read(run) for method, run in evaluations.items()}
    if not found:
        raise UserError("evaluations is empty; it must name at least one method's evaluate run.")
    first, *others = found
    for method in others:
        for key in SAME:
            if found[method].get(key) != found[first].get(key):
                raise UserError(f"{evaluations[method]} and {evaluations[first]} differ in their {key}; methods are "
                                "compared on the same rows under the same settings.")  # fmt: skip
    return found


def read(run: str) -> dict:
    """The `scores.json` of an evaluate run; UserError if there is none."""
    try:
        scores = files.read_json(Path(run, "scores.json"))
    except OSError:
        raise UserError(f"{run} has no scores.json; a finished run of 04_evaluate is needed.") from None
    finished_run(run).verify("scores.json")
    return scores


def by_state(scores: Mapping[str, Any]) -> dict[str, list[dict]]:
    """The states of a `scores.json` by name, each with an entry per seed; the last name is the method's own score."""
    found: dict[str, list[dict]] = {}
    for state in scores["states"]:
        found.setdefault(state["name"], []).append(state)
    return found


def final(scores: Mapping[str, Any]) -> list[dict]:
    """The last state of every seed: what the method is judged by."""
    return list(by_state(scores).values())[-1]


def shared_metrics(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    """Metrics that every state of every method has a value for, in the order of tables."""
    entries = [state["scores"] for of_method in scores for state in of_method["states"]]
    shared = [m for m in entries[0] if all(e.get(m, {}).get("value") is not None for e in entries)]
    return sorted(shared, key=place)


def main_metric(scores: Sequence[Mapping[str, Any]]) -> str:
    """What methods are judged by, of what all have: pass@k with the smallest k, else BLEU (paper), else the first.

    UserError where they share no metric.
    """
    shared = shared_metrics(scores)
    if not shared:
        raise UserError("The evaluations share no metric that all of their states have a value for, so nothing can be "
                        "compared; evaluate the methods with one code and one configuration.")  # fmt: skip
    return "bleu_paper" if pass_k(shared[0]) is None and "bleu_paper" in shared else shared[0]


def title(scores: Mapping[str, Any], metric: str) -> str:
    return scores["states"][0]["scores"][metric]["label"]


def unit(metric: str) -> str:
    return "nats per token" if metric in LESS_IS_BETTER else "%" if is_rate(metric) else "points"


def rounded(value: float | None, metric: str) -> str:
    """A score or a difference as text: three decimals for a loss, one for everything else; a dash for None."""
    return "–" if value is None else f"{value:.{3 if metric in LESS_IS_BETTER else 1}f}"


def headline(scores: Mapping[str, Any]) -> dict[str, float]:
    """Means over the seeds for the index of a study: the main metric, and exact match and the loss where known."""
    known = shared_metrics([scores])
    shown = dict.fromkeys([main_metric([scores]), *(m for m in ("exact_match", "loss") if m in known)])
    return {title(scores, m).lower(): float(np.mean([s["scores"][m]["value"] for s in final(scores)])) for m in shown}


def material(metric: str, states: Sequence[dict]) -> tuple[np.ndarray, Callable | None]:
    """Rows to resample, and how their sums become the mean score over the seeds (None: by a plain mean).

    (n,) mean scores of the rows, or (n, seeds * k) counts for a corpus metric.
    """
    entries = [state["scores"][metric] for state in states]
    if "per_example" in entries[0]:
        return np.mean([entry["per_example"] for entry in entries], axis=0), None
    counts = np.concatenate([np.asarray(entry["statistics"], float) for entry in entries], axis=1)
    width, score = len(entries[0]["statistics"][0]), corpus_value(metric)
    return counts, lambda sums: score(sums.reshape(*sums.shape[:-1], -1, width)).mean(-1)


def clusters(scores: Mapping[str, Any], metric: str) -> list | None:
    """The groups of the rows that a metric covers, from "groups" beside "ids"; None where rows are independent.

    An entry that covers a part of the rows names them by "rows", their indices; UserError where it does not.
    """
    groups, entry = scores.get("groups"), scores["states"][0]["scores"][metric]
    if groups is None or entry.get("n") in (None, len(groups)):
        return groups
    if len(entry.get("rows", ())) != entry["n"]:
        raise UserError(f"{entry['label']} covers {entry['n']} of {len(groups)} rows and does not say which, so the "
                        "rows cannot be put into their groups; evaluate again.")  # fmt: skip
    return [groups[i] for i in entry["rows"]]


def summary(
    metric: str, states: Sequence[dict], confidence: float = 0.95, resamples: int = 2000, groups: Sequence | None = None
) -> dict:
    """mean and sd over seeds (None for one), points (one per seed), and the interval low..high over n test rows in
    clusters (None: every row is one).

    low and high are None for a single row or cluster. groups: a label per row, see `clusters`. components: the parts
    of the score, means over the seeds, where the metric has any.
    """
    entries = [state["scores"][metric] for state in states]
    points = [entry["value"] for entry in entries]
    rows, aggregate = material(metric, states)
    if is_rate(metric):
        found, scale = statistics.proportion(np.clip(rows / 100, 0, 1), groups, confidence), 100
    else:
        options = {"clusters": groups, "confidence": confidence, "resamples": resamples}
        found, scale = statistics.bootstrap(rows, aggregate, **options), 1
    mean, sd = statistics.mean_sd(points)
    parts = [entry.get("components") or {} for entry in entries]
    shared = [name for name in parts[0] if all(part.get(name) is not None for part in parts)]
    return {"mean": mean, "sd": _known(sd), "points": points, "low": _known(scale * found.low),
            "high": _known(scale * found.high), "n": found.n, "clusters": found.clusters, "interval": found.method,
            "components": {name: float(np.mean([part[name] for part in parts])) for name in shared}}  # fmt: skip


def _known(value: float) -> float | None:
    """nan as None: JSON has no nan, and tables show a dash."""
    return None if math.isnan(value) else value


def of_sources(sources: Mapping[str, str]) -> list[dict]:
    """The source adapters on their own languages: language, method, n, runtime, reason (why nothing was run), and a
    summary per metric that is known."""
    rows = []
    for language, run in sources.items():
        scores = read(run)
        ran = final(scores)[0]["execution"]
        found = {metric: summary(metric, final(scores), groups=clusters(scores, metric))
                 for metric in shared_metrics([scores])}  # fmt: skip
        rows.append({"language": language, "method": scores["method"], "n": len(scores["ids"]), **found,
                     "runtime": ran and ran["runtimes"].get(language), "reason": scores["not_executed"]})  # fmt: skip
    return rows


def pairs(methods: Sequence[str], baseline: str) -> list[tuple[str, str]]:
    """What is compared with what: all methods with the baseline, and those that the study's questions are about."""
    found = [(method, baseline) for method in methods if method != baseline]
    asked = [pair for pair in ASKED if set(pair) <= set(methods)]
    return found + [(a, b) for a, b in asked if (a, b) not in found and (b, a) not in found]


def contrast(
    metric: str, a: Sequence[dict], b: Sequence[dict], confidence: float, resamples: int, groups: Sequence | None = None
) -> dict:
    """Score of a minus score of b over the same n rows: value, low..high, p and its test, effect and effect_name, and
    the difference seed by seed.

    by_seed is empty unless both have the same seeds or one has none (the base); seeds_low..seeds_high is its t
    interval, None below two seeds. detectable: the difference that would have been found with a power of 0.8, without
    correction; None where no row tells the two apart. Where both have one run and rows either pass or fail, p is
    McNemar's and discordant has the rows that a alone and b alone pass; else p is the bootstrap's and discordant None.
    """
    (rows_a, aggregate), (rows_b, _) = material(metric, a), material(metric, b)
    options = {"clusters": groups, "confidence": confidence, "resamples": resamples}
    found = statistics.paired_bootstrap(rows_a, rows_b, aggregate, **options)
    z, width = NormalDist().inv_cdf(0.5 + confidence / 2), (found.high - found.low) / 2
    values = [{state["seed"]: state["scores"][metric]["value"] for state in side} for side in (a, b)]
    seeds = max(values, key=len)
    alike = all(side.keys() in (seeds.keys(), {None}) for side in values)
    by_seed = [values[0].get(s, values[0].get(None)) - values[1].get(s, values[1].get(None)) for s in seeds if alike]
    t = statistics.across_seeds(by_seed, confidence) if len(by_seed) > 1 else None
    return {"value": found.value, "low": _known(found.low), "high": _known(found.high), "n": found.n,
            "clusters": found.clusters, "p": found.p, "test": "paired bootstrap",
            **_effect(metric, rows_a, rows_b, aggregate, exact=len(a) == len(b) == 1 and found.clusters is None),
            "detectable": width * (1 + NormalDist().inv_cdf(POWER) / z) if width > 1e-9 else None,
            "by_seed": by_seed, "seeds_low": t and t.low, "seeds_high": t and t.high}  # fmt: skip


def _effect(metric: str, a: np.ndarray, b: np.ndarray, aggregate: Callable | None, exact: bool) -> dict:
    """The size of a difference; p and test too, where an exact one exists."""
    if not is_rate(metric):
        each = [rows if aggregate is None else aggregate(rows) for rows in (a, b)]  # (n,) the rows' own scores
        return {"effect": statistics.within_rows_delta(*each), "effect_name": "Cliff's delta", "discordant": None}
    found = {"effect": statistics.odds_ratio(a / 100, b / 100), "effect_name": "odds ratio", "discordant": None}
    if exact and np.isin([a, b], (0, 100)).all():
        only = statistics.discordant(a, b)
        found |= {"discordant": list(only), "p": statistics.mcnemar(*only), "test": "McNemar, exact"}
    return found


def compare(scores: Mapping[str, dict], metric: str, baseline: str, confidence: float, resamples: int) -> dict:
    """All about one metric: "rows" (a summary per method and state), "contrasts" (with p_holm and verdict; also of a
    method with its own earlier states), and "family", the tests that p_holm is corrected for: these contrasts."""
    about = scores[baseline]
    options = (confidence, resamples, clusters(about, metric))
    states, earlier = {}, []  # by label: a method's last state bears its name
    for method, of_method in scores.items():
        *before, last = by_state(of_method).items()
        labelled = {f"{method}, {name}": of_name for name, of_name in before}
        states |= {**labelled, method: last[1]}
        earlier += [(method, label) for label in labelled]
    rows = [{"method": label, "final": label in scores, **summary(metric, of_label, *options)}
            for label, of_label in states.items()]  # fmt: skip
    found = [{"method": a, "against": b, **contrast(metric, states[a], states[b], *options)}
             for a, b in pairs(list(scores), baseline) + earlier]  # fmt: skip
    compared = {"metric": metric, "label": title(about, metric), "unit": unit(metric), "baseline": baseline,
                "language": about["language"], "signature": about["states"][0]["scores"][metric]["signature"],
                "confidence": confidence, "rows": rows, "contrasts": found}  # fmt: skip
    correct([compared])
    return compared


def correct(family: Sequence[dict]) -> None:
    """Holm's correction over all contrasts of `family` (results of `compare`: one, or one per language), in place.

    Sets p_holm and verdict of each contrast, and "family" of each result: {tests, said}.
    """
    found = [(compared, one) for compared in family for one in compared["contrasts"]]
    adjusted = statistics.holm([one["p"] for _, one in found])
    for (compared, one), p in zip(found, adjusted, strict=True):
        one["p_holm"] = p
        one["verdict"] = verdict(compared["metric"], one, compared["confidence"])
    labels, languages = (list(dict.fromkeys(c[key] for c in family)) for key in ("label", "language"))
    said = f"all differences in {' and '.join(labels)} on {', '.join(languages)}"
    for compared in family:
        compared["family"] = {"tests": len(found), "said": said}


def verdict(metric: str, found: Mapping[str, Any], confidence: float) -> str:
    """better, worse or undecided: of `method` against `against`, on other rows and with other seeds.

    "better on these seeds" where the rows are sure of it after correction, and the interval over the seeds is not.
    """
    if found["p_holm"] >= 1 - confidence or found["low"] is None or found["low"] <= 0 <= found["high"]:
        return "undecided"
    word = "better" if (found["value"] > 0) != (metric in LESS_IS_BETTER) else "worse"
    certain = found["seeds_low"] is not None and not found["seeds_low"] <= 0 <= found["seeds_high"]
    return word if certain else f"{word} on these seeds"


def headline_of(compared: Mapping[str, Any]) -> dict[str, float]:
    """Mean of every method for the index of a study."""
    return {f"{row['method']} {compared['label']}": row["mean"] for row in compared["rows"] if row["final"]}
