"""Where a fusion looks: recorded, saved, summarised. (notebooks 03 and 05)

May import `training`, `data`, `tuners`, `runs` and `study`.

To read, in this order: `record` (weights of a set of samples), `capture` (a record is made), `token_kinds` (keyword,
identifier ...), `snapshots` (a fusion while it trains), `summary` (one method over its seeds).
"""
