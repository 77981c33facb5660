"""Metrics of text and of code: `score` computes all that fit a pair, `properties` holds what a metric's name decides.

`bleu`, `overlap`, `codebleu` and `messages` (what a commit message says of its diff) hold the metrics; `codebleu`
depends on `syntax_trees`, `dataflow` and `keywords`.
"""
