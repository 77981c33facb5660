"""Completions scored, run and compared. (notebooks 04, 06 and 07)

May import `training`, `data`, `tuners`, `runs` and `study`.

To read, in this order: `scores` (the content of scores.json), `evaluate` (one method on one test split), `trained`
(which checkpoints are evaluated), `few_shot` (examples before a prompt), `scoring` (scores of completions), `metrics/`
(text and code), `execution/` (programs run in a sandbox), `samples` (one prediction at a time), `references` (a
benchmark's own solutions); `instruments` (scores of meaning: `behaviour`, `identification` by `losses`, `embedding`,
`judge`) and `calibration` (what scores can tell apart, on built-in `edits`); then `results` (the content of
compare.json), `comparison` (methods side by side), `contrasts` (a difference, and where its verdict is decided),
`statistics`, `student` and `effects` (intervals, tests and effect sizes), `power` (seeds and rows that a study needs),
`costs` (time and memory), `arms` (how steadily they trained), `tuning` (trials of values), `worth` (of a fusion's
members), `muted_scores` and `without_members` (the same by scores of completions); `gathered`, `gathering`,
`differences`, `level_interactions`, `covariates` and `pooling` (many studies, one answer), `mechanisms` (candidate
reasons for a slope); `similarity` (of languages) and `kinship` (its ranks against attention and transfer).

Of people: `ratings` (which completions they prefer, in files), `pairing` (which pairs they see) and `preferences` (what
that says of the methods).
"""
