"""The soak, shortened: three stops of a small real study at random points; `make soak` has all kinds, more often."""

from __future__ import annotations

import random
import time

import pytest

from tests import soak
from tests.notebooks.conftest import copy_project

pytestmark = pytest.mark.notebooks
STUDY = (
    soak.STUDY.replace("bottleneck, advfusion_zero", "bottleneck").replace("target_steps: 800", "target_steps: 400")
)


def test_stopped_at_random_points_the_same_command_comes_to_the_same_end(tmp_path):
    with soak.small_disk(tmp_path / "disk") as mounted:
        home = copy_project(tmp_path / "disk/project", STUDY)
        kinds = ["SIGKILL of a kernel", "disk full" if mounted else "SIGTERM", "out of memory"]
        assert soak.soak(home, kinds, random.Random(3), time.monotonic() + 600) == []


def test_of_records_only_what_a_clock_measured_is_left_out(tmp_path):
    home = tmp_path / "runs/adapter/a"
    home.mkdir(parents=True)
    file = home / "training.json"
    seen = []
    for text in ('{"loss": 1, "seconds": 2}', '{"loss": 1, "seconds": 3}', '{"loss": 2, "seconds": 3}'):
        file.write_text(text)
        seen.append(soak.numbers(tmp_path))
    assert seen[0] == seen[1] != seen[2]
