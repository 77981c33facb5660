"""Evaluation in three steps that can each be repeated alone: generate -> predictions file -> scores.

`generate` needs torch; `metrics`, `execute`, `scoring` and `statistics` do not import it. `execute` runs programs
through `runtimes` (what a language needs), `sandbox` (where they are isolated) and `runner` (the process in there).
"""
