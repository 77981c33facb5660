"""Everything that a reader sees: figures, tables, the explorer, pages and the index. (all notebooks use it)

May import every package but `workflow`. Nothing here decides a number, so no change here makes a run out of date.

To read, in this order: `verdicts` (a difference in words), `conclusions` (the answers to a study's questions),
`side_by_side` (all scores of a family), `pooled` (its differences), `kinship` (similarity against attention),
`reproduction` (published statements beside ours), `fusion_weights` (what training changed in attention), `diagnostics`
(signs of a fusion that failed), `calibration` (what scores can tell apart), `agreement` (whether they order methods
alike), `stability` (how steadily a fusion trained), `tables` and `figures/`, `explorer/` (fusion weights as one
interactive page), `exports` (CSV, Markdown, LaTeX), `glossary` (terms in tooltips), `html` (a notebook as clean HTML),
`sections` (the order of its sections), `documents` (templates and content policy), `sealed` (the explorer's and the
rating page's document), `summary` (the findings), `index` (the first page) and `pages` (the report of a study, with the
templates in `templates/`).

Of people: `rating/` (the page on which they compare completions) and `preferences` (what they prefer, in words).
"""
