"""Jobs that a dead engine left in Slurm's queue."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time

from studykit.errors import UserError
from studykit.runs import files

ENDS = 60.0  # seconds that Slurm gets to end cancelled jobs: it kills after 30 what does not end when asked


# Slurm


def job_name() -> str:
    """How the names of this project's jobs begin, in a queue that other projects share."""
    return f"studykit-{hashlib.sha256(str(files.home()).encode()).hexdigest()[:10]}"


def _left(wanted: bool) -> dict[str, tuple[int, str]]:
    """This project's jobs in the queue, each with the user's number and name. Where no Slurm answers there are none;
    UserError if one is `wanted`."""
    said = subprocess.run(["squeue", "--noheader", "--format=%i %U %u %j"], capture_output=True, text=True)
    if said.returncode and wanted:
        raise UserError(f"Slurm does not answer: {' '.join(said.stderr.split()) or 'squeue failed'}.")
    rows = [line.split(maxsplit=3) for line in said.stdout.splitlines()]
    return {job: (int(uid), user) for job, uid, user, name in rows if name.startswith(job_name())}


def cancel_left_jobs(executor: str) -> str:
    """Cancel the jobs that a dead engine left in Slurm's queue, and wait for their end; says which, or "".

    To be called while no other engine can run. A job that still waits holds no lock yet: beside a new engine's job for
    the same run, the two would run each other over. UserError if some are another user's, or do not end.
    """
    wanted = executor == "slurm"
    if not shutil.which("squeue") or not (wanted or (files.home() / ".snakemake" / "slurm_logs").is_dir()):
        return ""  # without Slurm's tools Snakemake itself says what is missing
    left = _left(wanted)
    if foreign := [job for job, (uid, _) in left.items() if uid != os.getuid()]:
        raise UserError(
            f"{left[foreign[0]][1]} has jobs of this project in Slurm's queue: {' '.join(foreign)}; have "
            "them cancelled (scancel), then give the same command again."
        )
    if not left:
        return ""
    subprocess.run(["scancel", *left], check=True)
    until = time.monotonic() + ENDS
    while late := [job for job in _left(wanted) if job in left]:
        if time.monotonic() > until:
            raise UserError(
                f"Slurm has not ended the cancelled jobs {' '.join(late)} in {ENDS:.0f} s; give the same "
                "command again when squeue lists them no more."
            )
        time.sleep(0.5)
    return f"cancelled what a dead engine left in Slurm's queue: {' '.join(left)}"
