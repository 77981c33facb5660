"""The interactive fusion-weight explorer: `explore(record_or_run)` in a notebook, a report or a file of its own.

`payload` makes the data of a page from FusionRecords, `page` the page: data, one style and one script, nothing from any
network. `live` adds what needs a kernel: own texts, muted members, another checkpoint or phase.
"""

from studykit.report.explorer.page import Explorer, explore

__all__ = ["Explorer", "explore"]
