"""Methods side by side: scores with intervals, and paired differences.

Two uncertainties are kept apart. **Test rows**: they could have been others; a method's interval resamples rows, each
row's score being its mean over the seeds, and a difference resamples rows as pairs. **Seeds**: the training could have
gone otherwise; their spread is a standard deviation, their differences get a t interval. A difference counts as found
when its Holm-corrected p over the rows is small enough and the interval over the seeds agrees.

It reads what `evaluation.states.evaluate` wrote (`scores.json`) and needs no torch.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from studykit import runs
from studykit.evaluation import statistics
from studykit.evaluation.metrics import corpus_value
from studykit.params import UserError

MAIN = ("pass_at_1", "bleu_paper")
ASKED = (("bottleneck", "base"), ("adapterfusion", "bottleneck"),
         ("advfusion_zero", "adapterfusion"), ("advfusion_exclude", "adapterfusion"))  # fmt: skip
ORDER = ("pass_at_1", "exact_match", "bleu_paper", "bleu_paper_sentence", "sacrebleu", "chrf", "rouge_l", "loss")
BINARY = {"pass_at_1", "exact_match"}
LESS_IS_BETTER = {"loss"}
POWER = 0.8  # with which a detectable difference would have been found
SAME = ("language", "ids", "settings", "isolation")  # what compared evaluations must share


def load(evaluations: Mapping[str, str]) -> dict[str, dict]:
    """`scores.json` by method. UserError unless all are of the same rows, generated and run under the same settings."""
    found = {method: runs.read_json(Path(place, "scores.json")) for method, place in evaluations.items()}
    if not found:
        raise UserError("evaluations is empty; it must name at least one method's evaluate run.")
    first, *others = found
    for method in others:
        for key in SAME:
            if found[method][key] != found[first][key]:
                raise UserError(f"{evaluations[method]} and {evaluations[first]} differ in their {key}; methods are "
                                "compared on the same rows under the same settings.")  # fmt: skip
    return found


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
    return [m for m in ORDER if all(e.get(m, {}).get("value") is not None for e in entries)]


def main_metric(scores: Sequence[Mapping[str, Any]]) -> str:
    """What methods are judged by: pass@1 where all have it, else BLEU (paper)."""
    return next(metric for metric in MAIN if metric in shared_metrics(scores))


def title(scores: Mapping[str, Any], metric: str) -> str:
    return scores["states"][0]["scores"][metric]["label"]


def unit(metric: str) -> str:
    return "nats per token" if metric in LESS_IS_BETTER else "%" if metric in BINARY else "points"


def rounded(value: float | None, metric: str) -> str:
    """A score or a difference as text: three decimals for a loss, one for everything else; a dash for None."""
    return "–" if value is None else f"{value:.{3 if metric in LESS_IS_BETTER else 1}f}"


def headline(scores: Mapping[str, Any]) -> dict[str, float]:
    """Means over the seeds for the index of a study: the main metric, exact match and the loss."""
    shown = dict.fromkeys((main_metric([scores]), "exact_match", "loss"))
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


def summary(metric: str, states: Sequence[dict], confidence: float = 0.95, resamples: int = 2000) -> dict:
    """mean and sd over seeds (None for one), points (one per seed), and the interval low..high over n test rows."""
    points = [state["scores"][metric]["value"] for state in states]
    rows, aggregate = material(metric, states)
    # One score per row is a proportion; and where all rows score the same a bootstrap has nothing to vary.
    if metric in BINARY and (len(states) == 1 or np.ptp(rows) == 0):
        found, scale = statistics.wilson(round(rows.sum() / 100), len(rows), confidence), 100
    else:
        found, scale = statistics.bootstrap(rows, aggregate, confidence=confidence, resamples=resamples), 1
    mean, sd = statistics.mean_sd(points)
    return {"mean": mean, "sd": None if math.isnan(sd) else sd, "points": points, "low": scale * found.low,
            "high": scale * found.high, "n": len(rows), "interval": found.method}  # fmt: skip


def of_sources(sources: Mapping[str, str]) -> list[dict]:
    """The source adapters on their own languages: language, method, n, runtime, reason (why nothing was run), and a
    summary per metric, None where there is none."""
    rows = []
    for language, place in sources.items():
        scores = runs.read_json(Path(place, "scores.json"))
        ran, known = final(scores)[0]["execution"], shared_metrics([scores])
        found = {metric: summary(metric, final(scores)) if metric in known else None for metric in ORDER}
        rows.append({"language": language, "method": scores["method"], "n": len(scores["ids"]), **found,
                     "runtime": ran and ran["runtimes"].get(language), "reason": scores["not_executed"]})  # fmt: skip
    return rows


def pairs(methods: Sequence[str], baseline: str) -> list[tuple[str, str]]:
    """What is compared with what: all methods with the baseline, and those that the study's questions are about."""
    found = [(method, baseline) for method in methods if method != baseline]
    asked = [pair for pair in ASKED if set(pair) <= set(methods)]
    return found + [(a, b) for a, b in asked if (a, b) not in found and (b, a) not in found]


def contrast(metric: str, a: Sequence[dict], b: Sequence[dict], confidence: float, resamples: int) -> dict:
    """Score of a minus score of b over the same n rows: value, low..high, p, and the difference seed by seed.

    by_seed is empty unless both have the same seeds or one has none (the base); seeds_low..seeds_high is its t
    interval, None below two seeds. detectable: the difference that would have been found with a power of 0.8, without
    correction; None where no row tells the two apart.
    """
    (rows_a, aggregate), (rows_b, _) = material(metric, a), material(metric, b)
    found = statistics.paired_bootstrap(rows_a, rows_b, aggregate, confidence=confidence, resamples=resamples)
    z, width = NormalDist().inv_cdf(0.5 + confidence / 2), (found.high - found.low) / 2
    values = [{state["seed"]: state["scores"][metric]["value"] for state in side} for side in (a, b)]
    seeds = max(values, key=len)
    alike = all(side.keys() in (seeds.keys(), {None}) for side in values)
    by_seed = [values[0].get(s, values[0].get(None)) - values[1].get(s, values[1].get(None)) for s in seeds if alike]
    t = statistics.across_seeds(by_seed, confidence) if len(by_seed) > 1 else None
    return {"value": found.value, "low": found.low, "high": found.high, "p": found.p, "n": found.n,
            "detectable": width * (1 + NormalDist().inv_cdf(POWER) / z) if width > 1e-9 else None,
            "by_seed": by_seed, "seeds_low": t and t.low, "seeds_high": t and t.high}  # fmt: skip


def compare(scores: Mapping[str, dict], metric: str, baseline: str, confidence: float, resamples: int) -> dict:
    """All about one metric: "rows" (a summary per method and state), "contrasts" (with p_holm and verdict)."""
    options, ends = (confidence, resamples), {method: final(of_method) for method, of_method in scores.items()}
    rows = []
    for method, of_method in scores.items():
        for name, states in by_state(of_method).items():
            last = states[0] is ends[method][0]
            label = method if last else f"{method}, {name}"
            rows.append({"method": label, "final": last, **summary(metric, states, *options)})
    found = [{"method": a, "against": b, **contrast(metric, ends[a], ends[b], *options)}
             for a, b in pairs(list(scores), baseline)]  # fmt: skip
    for one, p in zip(found, statistics.holm([one["p"] for one in found]), strict=True):
        one["p_holm"] = p
        one["verdict"] = verdict(metric, one, confidence)
    about = scores[baseline]
    return {"metric": metric, "label": title(about, metric), "unit": unit(metric), "baseline": baseline,
            "signature": about["states"][0]["scores"][metric]["signature"],
            "confidence": confidence, "rows": rows, "contrasts": found}  # fmt: skip


def verdict(metric: str, found: Mapping[str, Any], confidence: float) -> str:
    """better, worse or undecided: of `method` against `against`, on other rows and with other seeds.

    "better on these seeds" where the rows are sure of it after correction, and the interval over the seeds is not.
    """
    if found["p_holm"] >= 1 - confidence or found["low"] <= 0 <= found["high"]:
        return "undecided"
    word = "better" if (found["value"] > 0) != (metric in LESS_IS_BETTER) else "worse"
    certain = found["seeds_low"] is not None and not found["seeds_low"] <= 0 <= found["seeds_high"]
    return word if certain else f"{word} on these seeds"


def headline_of(compared: Mapping[str, Any]) -> dict[str, float]:
    """Mean of every method for the index of a study."""
    return {f"{row['method']} {compared['label']}": row["mean"] for row in compared["rows"] if row["final"]}


def flat(metrics: Mapping[str, Mapping[str, Any]]) -> list[dict]:
    """All metrics as one table, a line per metric and method, with the difference to the baseline beside it."""
    lines = []
    for metric, compared in metrics.items():
        against = {c["method"]: c for c in compared["contrasts"] if c["against"] == compared["baseline"]}
        for row in compared["rows"]:
            line = {"metric": metric, **{name: row[name] for name in ("method", "mean", "sd", "low", "high", "n")}}
            line["seeds"] = len(row["points"])
            found = against.get(row["method"], {})
            line |= {f"difference {name}".replace(" value", ""): found.get(name) for name in ("value", "low", "high")}
            lines.append(line | {name: found.get(name) for name in ("p", "p_holm", "verdict")})
    return lines


def write_tables(lines: Sequence[Mapping[str, Any]], stem: Path) -> None:
    """`<stem>.csv` in full precision, for further work, and `<stem>.md` rounded, for a page."""
    with stem.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(lines[0]))
        table.writeheader()
        table.writerows(lines)
    cells = [[v if isinstance(v, str) else "" if v is None else f"{v:.4g}" for v in line.values()] for line in lines]
    rows = [list(lines[0]), ["---"] * len(lines[0]), *cells]
    text = "".join(f"| {' | '.join(str(cell) for cell in row)} |\n" for row in rows)
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
