"""The interactive fusion-weight explorer: `explore(record_or_run)` in a notebook, a report or a file of its own.

`payload` makes the data of a page from FusionRecords, `training` from the logs of trainings; `page` makes the page,
which holds its data, one style and one script, and loads nothing from a network. `runs` names runs by their methods.
`live` needs a kernel: it reads texts of one's own, with members muted, in any run and phase.
"""

from studykit.report.explorer.page import Explorer, explore

__all__ = ["Explorer", "explore"]
