"""Evaluation in three steps that can each be repeated alone: generate -> predictions file -> scores.

`generate` needs torch; `metrics`, `execute`, `scoring` and `statistics` do not import it. `metrics` puts together
`bleu`, `overlap` (chrF, ROUGE-L, edit similarity) and `codebleu`, which sees programs through `grammars`, `dataflow`
and `keywords`. `execute` runs programs through `runtimes` (what a language needs), `sandbox` (where they are isolated)
and `runner` (the process in there).
"""
