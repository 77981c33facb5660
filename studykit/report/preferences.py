"""What people preferred, in words and tables; `evaluation.preferences` computes all of it."""

from __future__ import annotations

from studykit.evaluation.preferences import Preferences
from studykit.evaluation.results import Direction, Interval
from studykit.report.verdicts import p_text
from studykit.runs.text import plural

SIGNS: dict[Direction, str] = {
    "better": "\u25b3 preferred",
    "worse": "\u25bd not preferred",
    "undecided": "\u25cb undecided",
}
RATERS = (
    "Consistent: the same choice when a pair came a second time with the sides exchanged. Left: share of the text that "
    "stood on the left, or above, among the choices that are no ties; 50 % shows no habit."
)


def verdict_sign(verdict: Direction) -> str:
    """Returns a verdict in a word with a sign, which is hollow, since other seeds could reverse it."""
    return SIGNS[verdict]


def interval_text(interval: Interval | None) -> str:
    """Returns the bounds of a share; a dash for None."""
    return "–" if interval is None else f"{interval.low:.0f} to {interval.high:.0f} %"


def sample(found: Preferences) -> str:
    """Returns what was drawn: rows or groups of rows, and raters where there are several."""
    rows = f"{plural(found.clusters, 'row')} or groups of dependent rows"
    return f"{rows} and {len(found.raters)} raters" if len(found.raters) > 1 else rows


def sentences(found: Preferences) -> list[str]:
    """Returns what the ratings say, as sentences in Markdown. No rater is named."""
    best = max(found.methods, key=lambda row: row.share)
    lines = [
        f"{plural(len(found.raters), 'rater')} compared {plural(found.shown, 'pair')} of completions without knowing "
        f"the methods. **{best.method}** is preferred to another method most often: in {best.share:.0f} % of "
        f"comparisons ({found.confidence:.0%} interval {interval_text(best.interval)})."
    ]
    decided = [row for row in found.contrasts if row.verdict != "undecided"]
    for row in decided:
        lines.append(
            f"On these seeds, **{row.method} is {'preferred' if row.verdict == 'better' else 'not preferred'}** to "
            f"{found.baseline}: in {row.share:.0f} % of comparisons ({interval_text(row.interval)}; p "
            f"{p_text(row.p_holm)} after Holm's correction)."
        )
    if rest := [row.method for row in found.contrasts if row.verdict == "undecided"]:
        lines.append(f"These ratings do not decide between {found.baseline} and {', '.join(rest)}.")
    if not found.connected:
        lines.append(
            "**Not all methods were compared**, even through others: shares of methods that no chain of pairs "
            "connects do not show which one is better."
        )
    lines.append(agreement(found))
    if found.outdated:
        lines.append(
            f"{plural(found.outdated, 'rated pair')} {'does' if found.outdated == 1 else 'do'} not count: a method "
            "writes another text today, or is not compared here."
        )
    return lines


def agreement(found: Preferences) -> str:
    """Returns a sentence on the agreement between raters and of each rater with himself or herself."""
    repeated, same = (sum(getattr(rater, name) for rater in found.raters) for name in ("repeated", "consistent"))
    again = f"A second look at a pair gave the same choice in {same} of {repeated} cases." if repeated else ""
    if found.alpha is None:
        alone = "One rater cannot show whether people agree." if len(found.raters) == 1 else ""
        return f"{alone} {again}".strip() or "No pair shows whether raters agree."
    return (
        f"Krippendorff's alpha between raters is **{found.alpha:.2f}** over {plural(found.shared, 'pair')} (1: they "
        f"always agree; 0: as by chance). {again}".strip()
    )


def tally_table(found: Preferences) -> list[dict]:
    """Returns wins, ties and losses for `tables.table`: a line per method, a column per opponent."""
    cells: dict[tuple[str, str], str] = {}
    for one in found.tallies:
        cells[one.method, one.against] = f"{one.wins} / {one.ties} / {one.losses}"
        cells[one.against, one.method] = f"{one.losses} / {one.ties} / {one.wins}"
    names = [row.method for row in found.methods]
    return [{"method": name, **{other: cells.get((name, other)) for other in names}} for name in names]


def tally_caption(found: Preferences) -> str:
    """Returns the caption of the table of wins, ties and losses."""
    alike = sum(one.alike for one in found.tallies)
    return (
        "Wins / ties / losses of the method of the line against that of the column, of all raters. "
        f"{plural(alike, 'tie')} of equal texts {'is' if alike == 1 else 'are'} among them, which nobody was shown."
    )


def rater_table(found: Preferences) -> list[dict]:
    """Returns the answers of each rater in numbers for `tables.table`."""
    return [
        {
            "rater": one.rater,
            "pairs": one.pairs,
            "ties": one.ties,
            "consistent": f"{one.consistent} of {one.repeated}",
            "left (%)": None if one.left is None else round(one.left),
            "median time (s)": round(one.seconds, 1),
        }
        for one in found.raters
    ]


def limits(found: Preferences) -> list[str]:
    """Returns how shares and intervals were computed, and what they do not hold."""
    lines = [
        "The share of a method is its mean probability of being preferred to another method, in the model of Bradley "
        "and Terry (1952). Each method has one tie more, with an imagined method in the middle, so that a method that "
        "always wins has a finite strength.",
        "Pairs were drawn at random from all rows and seeds. Equal texts were not shown and count as ties.",
        "The intervals resample the rows, but not the trainings: other seeds could give other shares.",
    ]
    if len(found.raters) > 1:
        lines.append("They resample the raters too. A handful of raters says little of other people.")
    else:
        lines.append("They are those of one rater: nothing here says whether other people would choose alike.")
    return lines
