"""Rows with prompt, target and check, from data sets and from the built-in programs. (notebook 01)

May import `runs` and `study`.

To read, in this order: `rows` (what a row is; rows of a finished run), `prompts` (from a row to token ids), `prepare`
(where notebook 01 begins), `builtin` and `corpus` (the built-in programs as rows and as text), `polyglot/` (the
programs themselves), `ingest` (from files to rows, in order), `request`, `rejects`, `files`, `jsonl`, `splits`,
`near_duplicates` (its steps), `readers/` (one module for each data set; `registry` lists them), `overview` (counts and
lengths), `languages` (their names).
"""
