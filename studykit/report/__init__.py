"""What a reader sees: figures, tables, the explorer, pages and the index. (every notebook's "look" cells)

May import everything but `workflow`. Nothing here decides a number, so a word mended here makes no run again.

To read, in this order: `conclusions` (the sentences and the verdicts), `diagnostics` (signs of a fusion that failed),
`tables` and `figures/`, `explorer/` (fusion weights as one interactive page), `exports` (CSV, Markdown, LaTeX), `html`
(a notebook as a page), `pages` and `summary` (the index of a study).
"""
