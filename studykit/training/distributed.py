"""One training on several GPUs.

    accelerate launch --num_processes 2 -m studykit.training.distributed params/x.yaml RUN

RUN is the name of an adapter or a fusion run, as `studykit plan` lists it. The runs that it needs must be finished. The
processes share out each batch, so that a step has the same rows as with one process; the losses agree up to the order
of sums and the dropout. The launch leaves the checkpoints of a training that has ended: `studykit run` finds them,
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

from studykit.errors import UserError
from studykit.runs import files, store
from studykit.study import parameters, plan
from studykit.study.file import load_study


@dataclass
class TrainingDirs:
    """The directories of a training, in the place of an open run."""

    checkpoints: Path  # they outlive the launch
    scratch: Path  # for the files that only the notebook publishes

    def path(self, *parts: str) -> Path:
        """Returns the path of a file in the scratch directory."""
        file = self.scratch.joinpath(*parts)
        file.parent.mkdir(parents=True, exist_ok=True)
        return file


def planned_training(file: str, name: str) -> plan.Run:
    """Returns the run of this name in a study; raises UserError unless it is an adapter or a fusion run."""
    planned = {run.name: run for run in plan.plan(load_study(file))}
    if name not in planned or planned[name].stage not in ("adapter", "fusion"):
        names = [n for n, run in planned.items() if run.stage in ("adapter", "fusion")]
        listed = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        raise UserError(f"{name} is not an adapter or fusion run of {file}; it has {listed}.")
    return planned[name]


def train(run: plan.Run) -> None:
    """Trains a run with all processes of this launch."""
    from accelerate import PartialState  # a late import: it loads torch, and the arguments are checked first

    p = parameters.check(run.stage, run.params)
    state = PartialState(cpu=not _has_gpu())
    first = store.open_run(p.out, stage=run.stage, params=p) if state.is_main_process else nullcontext()
    with first as opened, tempfile.TemporaryDirectory() as scratch:
        if opened and opened.done:
            raise UserError(f"{run.name} is finished; there is nothing to train.")
        checkpoints = files.staging_dir(run.name) / "checkpoints"
        if opened:
            opened.checkpoints  # noqa: B018  makes the directory
        state.wait_for_everyone()
        _train(p, TrainingDirs(checkpoints, Path(scratch)))
        state.wait_for_everyone()
    state.destroy_process_group()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _train(p: parameters.AdapterParams | parameters.FusionParams, dirs: TrainingDirs) -> None:
    from studykit.data.rows import DataRun
    from studykit.training import adapters, batches, fusions, phases
    from studykit.training import train as training_train
    from studykit.training.base import load_base
    from studykit.training.cross_validation import fold_curve
    from studykit.training.temperature import settle_temperature

    data = DataRun(p.data)
    base, tokenizer = load_base(p.base, p.quantization)
    if isinstance(p, parameters.AdapterParams):
        splits = adapters.training_rows(p), adapters.selecting_rows(p)[0]
        train_examples, valid_examples = (batches.encode_rows(rows, tokenizer, *data.limits) for rows in splits)
        training_train.train(
            adapters.new_adapter(base, p),
            tokenizer,
            train_examples,
            valid_examples,
            p,
            steps=training_train.optimizer_steps(p, p.steps, p.epochs, len(train_examples)),
            trainer_state_dir=dirs.checkpoints,
            seed=p.seed,
            curve=fold_curve(p.steps_from),
        )
    else:
        model = fusions.new_fusion(base, p)
        settle_temperature(model, tokenizer, p, data.limits)
        for _ in phases.train_phases(model, tokenizer, p, data.limits, dirs):
            pass


def main() -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="studykit.training.distributed", description=__doc__.split("\n")[0])
    parser.add_argument("study", help="a study file")
    parser.add_argument("run", help="stage/label-key of an adapter or a fusion, as `studykit plan` lists it")
    args = parser.parse_args()
    os.chdir(files.home())
    try:
        train(planned_training(args.study, args.run))
    except UserError as error:
        print(f"studykit: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
