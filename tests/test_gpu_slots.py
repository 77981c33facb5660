"""Several GPUs on one host: each run gets one that no other has. The devices are made up; the processes are real."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid

import pytest

from studykit import engine

CLAIM = """
import os, sys
from studykit import engine
engine.claim_gpu(sys.argv[1])
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def devices():
    """Two devices of names that no other test has, and what starts a run that claims one of them."""
    names = [f"GPU-{uuid.uuid4()}" for _ in range(2)]
    started: list[subprocess.Popen] = []

    def claim(stage: str = "adapter", under: str | None = None) -> subprocess.Popen:
        variables = {"CUDA_VISIBLE_DEVICES": ",".join(names), "STUDYKIT_ENGINE": under or engine.name()}
        started.append(subprocess.Popen([sys.executable, "-c", CLAIM, stage], env=os.environ | variables, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE))  # fmt: skip
        return started[-1]

    yield names, claim
    for process in started:
        process.kill()
        process.wait()
    for name in names:
        lock = f"/tmp/studykit-gpu-{os.getuid()}-{name}.lock"
        if os.path.exists(lock):
            os.unlink(lock)


def test_runs_get_distinct_devices_and_a_third_waits_for_one(devices):
    names, claim = devices
    first, second = claim(), claim("evaluate")
    got = [process.stdout.readline().strip() for process in (first, second)]
    assert sorted(got) == sorted(names)
    third = claim("fusion")
    with pytest.raises(subprocess.TimeoutExpired):
        third.wait(2.5)
    first.kill()  # a claim ends with its process, however that ends
    assert third.stdout.readline().strip() == got[0]


def test_a_stage_without_a_model_claims_nothing(devices):
    names, claim = devices
    assert claim("compare").stdout.readline().strip() == ",".join(names)
    assert sorted(claim().stdout.readline().strip() for _ in names) == sorted(names)


def test_one_device_is_shared_by_nobody_to_claim(devices, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setenv("STUDYKIT_ENGINE", engine.name())
    engine.claim_gpu("adapter")  # the engine starts one such job at a time
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7" and engine.gpus() == ["7"]
