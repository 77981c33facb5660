"""papermill as the engine starts it: `python -m studykit.workflow.papermill NOTEBOOK LOG ...`, options as papermill's.

It ends when the engine dies (see `engine`). It holds the text that it writes beside LOG locked, and its kernel inherits
that: so a notebook at work can be told from one that has ended, however it ended (see `standing`).

It starts in a third of the time: papermill imports jsonschema, which imports `rfc3987_syntax`, which compiles a grammar
of URLs for about a second; no schema of notebooks asks for it. jsonschema does without a package that is absent, so
here it is made to look absent.
"""

from __future__ import annotations

import fcntl
import sys

if __name__ == "__main__":
    fcntl.flock(1, fcntl.LOCK_EX)  # waits for one who only looks
    from studykit.runs import process

    process.watch()
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    from papermill.__main__ import papermill

    papermill()
