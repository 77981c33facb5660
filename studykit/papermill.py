"""papermill as the engine starts it: `python -m studykit.papermill NOTEBOOK LOG ...`, options as papermill's.

It ends when the engine dies (see `engine`), and it starts in a third of the time:
papermill imports jsonschema, which imports `rfc3987_syntax`, which compiles a grammar of URLs for about a second; no
schema of notebooks asks for it. jsonschema does without a package that is absent, so here it is made to look absent.
"""

from __future__ import annotations

import sys

from studykit import engine

if __name__ == "__main__":
    engine.watch()
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    from papermill.__main__ import papermill

    papermill()
