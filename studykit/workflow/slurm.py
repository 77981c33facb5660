"""Jobs that a dead command left in Slurm's queue."""

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
    """Returns the beginning of the names of this project's jobs, in a queue that other projects share."""
    return f"studykit-{hashlib.sha256(str(files.home()).encode()).hexdigest()[:10]}"


def _left(wanted: bool) -> dict[str, tuple[int, str]]:
    """Returns this project's jobs in the queue, each with the user's number and name.

    There are none where no Slurm answers; then raises UserError if an answer is `wanted`.
    """
    queue = subprocess.run(["squeue", "--noheader", "--format=%i %U %u %j"], capture_output=True, text=True)
    if queue.returncode and wanted:
        raise UserError(f"Slurm does not answer: {' '.join(queue.stderr.split()) or 'squeue failed'}.")
    rows = [line.split(maxsplit=3) for line in queue.stdout.splitlines()]
    return {job: (int(uid), user) for job, uid, user, name in rows if name.startswith(job_name())}


def cancel_left_jobs(executor: str) -> str:
    """Cancels the jobs that a dead command left in Slurm's queue, waits for their end and says which they were, or "".

    It must be called while no other command can run. A job that still waits holds no lock yet: if a new command started
    another job for the same run, both would write it. Raises UserError if a job is another user's, or does not end.
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
                "command again when squeue no longer lists them."
            )
        time.sleep(0.5)
    return f"cancelled the jobs that a dead command left in Slurm's queue: {' '.join(left)}"
