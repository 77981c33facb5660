"""papermill as the command starts it: `python -m studykit.workflow.papermill NOTEBOOK LOG ...`, options as papermill's.

It ends when the command dies (see `process`). It holds a lock on the text file that it writes next to LOG, and its
kernel inherits the lock, so `status` can distinguish a notebook at work from one that has ended, however it ended.

It starts in a third of the time: papermill imports jsonschema, which imports `rfc3987_syntax`, which compiles a grammar
of URLs for about a second; no schema of notebooks asks for it. jsonschema does without a package that is absent, so
here it is made to look absent.
"""

from __future__ import annotations

import fcntl
import sys

if __name__ == "__main__":
    fcntl.flock(1, fcntl.LOCK_EX)  # waits for a status check, which holds it for a moment
    from studykit.runs import process

    process.watch()
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    from papermill.__main__ import papermill

    papermill()
