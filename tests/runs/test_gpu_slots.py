"""Several GPUs on one host: each run gets one that no other has. The devices are made up; the processes are real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid

import pytest

from studykit.runs import process as runs_process
from tests import project

CLAIM = """
import os, sys
from studykit.runs import process
process.claim_gpu(sys.argv[1])
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def devices(tmp_path, monkeypatch):
    """Two devices of names that no other test has, and what starts a run that claims one of them."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    names = [f"GPU-{uuid.uuid4()}" for _ in range(2)]
    started: list[subprocess.Popen] = []

    def claim(stage: str = "adapter", under: str | None = None) -> subprocess.Popen:
        variables = {"CUDA_VISIBLE_DEVICES": ",".join(names), "STUDYKIT_COMMAND": under or runs_process.name()}
        started.append(subprocess.Popen([sys.executable, "-c", CLAIM, stage], env=os.environ | variables, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE))  # fmt: skip
        return started[-1]

    yield names, claim
    for process in started:
        process.kill()
        process.wait()


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


def test_a_file_that_is_not_the_users_hangs_no_run(devices, tmp_path):
    names, claim = devices
    first, second = (tmp_path / f"studykit-gpu-{os.getuid()}-{name}.lock" for name in names)
    os.mkfifo(first)
    second.symlink_to(tmp_path / "elsewhere")
    assert sorted(claim().stdout.readline().strip() for _ in names) == sorted(names)
    third = claim()
    with pytest.raises(subprocess.TimeoutExpired):
        third.wait(1.5)
    assert not (tmp_path / "elsewhere").exists()


def test_a_stage_without_a_model_claims_nothing(devices):
    names, claim = devices
    assert claim("compare").stdout.readline().strip() == ",".join(names)
    assert sorted(claim().stdout.readline().strip() for _ in names) == sorted(names)


def test_one_device_is_shared_by_nobody_to_claim(devices, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setenv("STUDYKIT_COMMAND", runs_process.name())
    runs_process.claim_gpu("adapter")  # the command starts one such job at a time
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7" and runs_process.gpus() == ["7"]


# An adapter's notebook of a second: when its process began and when its work ended, in seconds since the host started
# (which no setting of the clock moves), and the device that it got.
TIMED = """import os, time
from pathlib import Path
time.sleep(1)
began = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
value = [began, time.clock_gettime(time.CLOCK_BOOTTIME), os.environ["CUDA_VISIBLE_DEVICES"]]"""


def test_a_study_uses_all_devices_and_runs_one_notebook_on_each(tmp_path, devices, monkeypatch):
    names, _ = devices
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(names))
    study = project.STUDY.replace("methods: [base, bottleneck]", "methods: [bottleneck, houlsby, parallel, lora]")
    home = project.make(tmp_path / "project", study)
    project.notebook(home, "adapter", work=TIMED)
    done = project.studykit(home, "run", "params/tiny.yaml", "--cores", "8", "--until", "adapter",
                            "--resources", "mem_mb=100000")  # fmt: skip
    assert done.returncode == 0, done.stdout
    ran = sorted(json.loads(file.read_text()) for file in home.glob("runs/adapter/*/value.json"))
    assert len(ran) == 4 and {device for *_, device in ran} == set(names)
    for i, (began, _, device) in enumerate(ran):
        at_work = [other for _, ended, other in ran[:i] if ended > began]
        assert len(at_work) < 2, "no kernel was started to wait for a device"
        assert device not in at_work
