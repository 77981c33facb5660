"""The weights that a fusion gives its members: recorded, saved and summarised. (notebooks 03 and 05)

The package may import `training`, `data`, `tuners`, `runs` and `study`.

To read, in this order: `record` (the weights on a set of samples), `capture` (the pass that records them),
`token_kinds` (keyword, identifier ...), `snapshots` and `trace` (a fusion while it is trained), `recording` (the
records of finished fusions), `summary` (one method over its seeds), `muting` (losses without a member).
"""
