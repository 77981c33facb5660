"""One training on several GPUs: `accelerate launch --num_processes 2 -m studykit.training.distributed params/x.yaml RUN`.

RUN is the name of an adapter or a fusion run, as `studykit plan` lists it. What it stands on must be finished. The
processes share out each batch, so that a step sees the same rows as one process would; the losses agree up to the order
of sums and the dropout. What is left are the checkpoints of a training that has ended: `studykit run` finds them,
trains no further, and does the rest of the notebook on one GPU.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studykit.errors import UserError
from studykit.runs import files, store
from studykit.study import parameters, plan
from studykit.study.file import load_study


@dataclass
class Place:
    """What a training needs of an open run: where checkpoints are, and a folder for what only the notebook keeps."""

    checkpoints: Path
    scratch: Path

    def path(self, *parts: str) -> Path:
        at = self.scratch.joinpath(*parts)
        at.parent.mkdir(parents=True, exist_ok=True)
        return at


def chosen(file: str, name: str) -> plan.Run:
    """The planned run of this name; UserError unless it is one that can be trained so."""
    planned = {run.name: run for run in plan.plan(load_study(file))}
    if name not in planned or planned[name].stage not in ("adapter", "fusion"):
        names = [n for n, run in planned.items() if run.stage in ("adapter", "fusion")]
        raise UserError(f"{name} is no adapter or fusion run of {file}; it has {', '.join(names[:6])}"
                        f"{', ...' if len(names) > 6 else ''}.")  # fmt: skip
    return planned[name]


def train(run: plan.Run) -> None:
    """Train a run with all processes of this launch."""
    from accelerate import PartialState  # torch comes with it: a mistake in the arguments is told before

    p = parameters.check(run.stage, run.params)
    state = PartialState(cpu=not _has_gpu())
    first = store.open_run(p.out, stage=run.stage, params=p) if state.is_main_process else nullcontext()
    with first as opened, tempfile.TemporaryDirectory() as scratch:
        if opened and opened.done:
            raise UserError(f"{run.name} is finished; there is nothing to train.")
        checkpoints = files.home() / "runs" / ".staging" / run.name / "checkpoints"
        if opened:
            opened.checkpoints  # noqa: B018  makes the directory
        state.wait_for_everyone()
        _train(run.stage, p, Place(checkpoints, Path(scratch)))
        state.wait_for_everyone()
    state.destroy_process_group()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _train(stage: str, p: Any, place: Place) -> None:
    from studykit.data import rows as data_rows
    from studykit.training import adapters, batches, fusions, phases
    from studykit.training import train as training_train
    from studykit.training.base import load_base

    limits = data_rows.limits(p.data)
    model, tokenizer = load_base(p.base)
    if stage == "adapter":
        splits = [data_rows.read_rows(p.data, p.language, split, p.trained_on) for split in ("train", "valid")]
        examples = [batches.encode_rows(rows, tokenizer, *limits) for rows in splits]
        training_train.train(adapters.new_adapter(model, p), tokenizer, *examples, p, steps=p.steps,
                       trainer_state_dir=place.checkpoints, seed=p.seed)  # fmt: skip
    else:
        model = fusions.new_fusion(model, p)
        for _ in phases.train_phases(model, tokenizer, p, limits, place):
            pass


def main() -> int:
    parser = argparse.ArgumentParser(prog="studykit.training.distributed", description=__doc__.split("\n")[0])
    parser.add_argument("study", help="a study file")
    parser.add_argument("run", help="stage/label-key of an adapter or a fusion, as `studykit plan` lists it")
    args = parser.parse_args()
    os.chdir(files.home())
    try:
        train(chosen(args.study, args.run))
    except UserError as error:
        print(f"studykit: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
