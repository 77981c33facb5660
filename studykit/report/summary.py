"""What a study found, at the head of its report: every method's score and its difference from the baseline.

Both with their intervals, as notebook 06 published them in `compare.json`; then the findings in a sentence each.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

esc = html.escape


def read(run: Path) -> dict[str, Any] | None:
    """What a compare run published; None for one that published no such file."""
    file = run / "compare.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def block(found: Mapping[str, Any], target: str) -> str:
    """The HTML of it, from what `read` returns."""
    from studykit.report import conclusions  # numpy comes with it: the other commands do without

    main = found["metrics"][found["main"]]
    loss = found["metrics"].get("loss") if found["main"] != "loss" else None
    said = [sentence for compared in (main, loss) if compared for sentence in conclusions.in_brief(compared, target)]
    items = "".join(f"<li>{_bold(sentence)}</li>" for sentence in said)
    return f"{_table(main, conclusions)}<ul>{items}</ul>"


def _table(main: Mapping[str, Any], findings: Any) -> str:
    named = [row["method"] for row in main["rows"]]
    against = {name: findings.oriented(main["contrasts"], name, main["baseline"]) for name in named}
    rows = []
    for row in (row for row in main["rows"] if row["final"]):
        contrast = against[row["method"]]
        metric = main["metric"]
        score = f"{findings.rounded(row['mean'], metric)} {_interval(row, metric, findings)}"
        difference, verdict = ("", "the baseline") if row["method"] == main["baseline"] else ("–", "")
        if contrast:
            ends = f"<span class='interval'>{esc(findings.ends(contrast, main['unit']))}</span>"
            difference = f"{esc(findings.signed(contrast['value'], main['unit']))} {ends}"
            verdict = contrast["verdict"]
        rows.append(f"<tr><th scope='row'>{esc(row['method'])}</th><td>{score}</td><td>{difference}</td>"
                    f"<td>{esc(verdict)}</td></tr>")  # fmt: skip
    first = main["rows"][0]
    seeds = max(len(row["points"]) for row in main["rows"])
    head = (f"<tr><th>Method</th><th>{esc(main['label'])} ({esc(main['unit'])})</th>"
            f"<th>Against {esc(main['baseline'])}</th><th>Verdict</th></tr>")  # fmt: skip
    caption = (f"Means over {seeds} seed{'s' * (seeds != 1)}, n = {findings.counted(first, 'test row')}; beside "
               f"them intervals of {main['confidence']:.0%} over the rows. Better or worse: p, corrected for all "
               f"differences of this score, is below {1 - main['confidence']:.2g}, and neither the interval over rows "
               "nor the one over seeds includes 0. On these seeds: the rows say so, other seeds might not. "
               "Undecided: not even the rows say so, which is no proof of equality.")  # fmt: skip
    return (f'<div class="scroll" tabindex="0" role="region" aria-label="Scores"><table class="scores"><thead>{head}'
            f'</thead><tbody>{"".join(rows)}</tbody></table></div><p class="meta">{esc(caption)}</p>')  # fmt: skip


def _interval(row: Mapping[str, Any], metric: str, findings: Any) -> str:
    if row["low"] is None:
        return ""
    low, high = (findings.rounded(row[end], metric) for end in ("low", "high"))
    return f"<span class='interval'>{low} to {high}</span>"


def _bold(sentence: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", esc(sentence))
