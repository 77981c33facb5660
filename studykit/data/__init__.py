"""Rows with prompt, target and check, from data sets and from the built-in programs. (notebook 01)

May import `runs` and `study`.

To read, in this order: `rows` and `checks` (what a row is; the rows of a finished run), `prompts` (templates filled),
`encoding` (from a row to token ids), `prepare` (where notebook 01 begins), `diffs` (as git writes them), `builtin`
and `corpus` (the built-in programs as rows and as text), `polyglot/` (the programs themselves), `ingest` (from files
to rows, all steps in order), `request` (what a reader is given and returns), `readers/` (one module for each data
set; `registry` lists them), `rejects`, `files`, `jsonl`, `splits`, `near_duplicates` (the steps), `overview`
(counts and lengths). `study.data_files` says which files are read.
"""
