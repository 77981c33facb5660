"""Completions scored, run and compared. (notebooks 04 and 06)

May import `training`, `data`, `tuners`, `runs` and `study`.

To read, in this order: `evaluate` (one method on one test split), `trained` (which checkpoints are evaluated),
`scoring` (scores of completions), `metrics/` (text and code), `execution/` (programs run in a sandbox), `samples` (one
row at a time), `references` (a benchmark's own solutions), `comparison` (methods side by side), `statistics`
(intervals and tests), `costs` (time and memory).
"""
