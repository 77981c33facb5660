"""A study run by Snakemake: started, watched, stopped, cleaned up. (the command `studykit`)

May import `report`, `runs` and `study`.

To read, in this order: `names` and `new_study` (how a user names studies and runs), `guard` (how a command ends), `run`
(from the command to the report), `lock` (one command per project), `snakemake` and `papermill` (how they are started),
`tune` (trials of values, and a study with the best), `warm` (a process that notebooks are forked from), `steps`,
`time_left`, `progress` and `display` (what the terminal shows), `slurm`, `studies` and `clean` (runs that no study
needs), `working_copies` (notebooks to explore in).
"""
