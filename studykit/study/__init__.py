"""The study file and the runs that it needs. Pure: no torch, and no file but the study's.

Used by every notebook's parameters cell and by the command. May import only `errors`.

To read, in this order: `methods` (one word for each method, one table of phases), `questions` (which differences answer
which question), `fields`, `data_parameters`, `training_parameters`, `fusion_parameters` and `parameters` (what each
notebook accepts), `messages` (what is wrong with a value, in one sentence), `languages` (their names), `bases` (the
published ones, by a word), `presets` (how published studies trained), `templates` (prompts), `data_files` (which files
a run reads), `paths` (that a study names), `yaml_file`, `tune_section`, `folds` (what cross-validation excludes) and
`file` (the study file), `trials` (trainings that try values), `run_names` (a name by the content of a run), `plan`
(from a study to its runs), `tiny_values` (those of the quickstart), `family` and `gather_parameters` (one file that
makes many studies).
"""
