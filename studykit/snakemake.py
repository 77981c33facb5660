"""Snakemake as the engine starts it: `python -m studykit.snakemake ...`, options as Snakemake's.

It ends when the engine dies (see `engine`), and it can be interrupted: what a shell starts in the background has Ctrl-C
ignored, and notebooks would inherit that.
"""

from __future__ import annotations

import signal

from studykit import engine

if __name__ == "__main__":
    engine.watch()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from snakemake.cli import main

    main()
