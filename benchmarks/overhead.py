"""Seconds that a notebook costs beside its work, and what a second core gives: python benchmarks/overhead.py

A study of made notebooks that do nothing but compute for some seconds runs three times: on one core, on two, and once
more when nothing is to be done. Each adapter's notebook imports torch and transformers, as the real one does.

    overhead of a notebook = (one core - nothing to do - all the work) / notebooks
    speed-up               = one core / two cores

Wall times: on a machine that others use, they tell of the others too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests import project  # noqa: E402  the miniature of the project that the tests use

STUDY = """
study: tiny
task: generation
members: [{members}]
target: lua
methods: [bottleneck, adapterfusion]
seeds: [0]
evaluate: {{sources: []}}
"""
WORK = "import time\nimport torch, transformers\nend = time.process_time() + {work}\n\
while time.process_time() < end: pass\nvalue = 1"


def measured(home: Path, *options: str) -> float:
    began = time.perf_counter()
    done = project.studykit(home, "run", "params/tiny.yaml", *options)
    if done.returncode:
        raise SystemExit(done.stdout)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--members", type=int, default=5, help="sources, each with an adapter of its own")
    parser.add_argument("--work", type=float, default=5.0, help="seconds of computing per adapter")
    args = parser.parse_args()
    sources = ", ".join(("python", "javascript", "go", "ruby", "julia")[: args.members])
    with tempfile.TemporaryDirectory() as folder:
        home = project.make(Path(folder), STUDY.format(members=sources))
        project.notebook(home, "adapter", work=WORK.format(work=args.work))
        wall = {}
        for cores in (1, 2):
            for name in ("runs", "logs", "reports", ".snakemake"):
                shutil.rmtree(home / name, ignore_errors=True)
            wall[cores] = measured(home, "--cores", str(cores))
        nothing = measured(home)
        notebooks = len(list(home.glob("runs/*/*/manifest.json")))
        work = args.work * len(list(home.glob("runs/adapter/*/manifest.json")))
    found = {
        "notebooks": notebooks,
        "work_s": work,
        "one_core_s": round(wall[1], 1),
        "two_cores_s": round(wall[2], 1),
        "nothing_to_do_s": round(nothing, 1),
        "overhead_per_notebook_s": round((wall[1] - nothing - work) / notebooks, 2),
        "speed_up": round(wall[1] / wall[2], 2),
        "load_average": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
