"""Run directories: one writer at a time, published whole, traceable.

Used by every notebook (its parameters cell, `open_run`, `publish`) and by the command. May import `study`.

To read, in this order: `store` (a run is opened, published, taken up), `manifest` (what a run records of itself),
`files` (atomic writes), `locks` (one writer), `code_digest` (which code decides a run's numbers), `provenance` (what a
manifest says of the machine), `status` (the state of a run), `process` (the watchdog of notebooks, and GPUs),
`notebook` (parameters by hand), `hub` (files of the hub, and their copies below `data/`), `text` (numbers, sizes and
durations as text).
"""
