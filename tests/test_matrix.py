"""The tuner on the lowest supported transformers and peft; on the highest, those of requirements.txt, all tests run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOWEST = ROOT / "tests/lowest.txt"
PINS = dict(re.findall(r"^([\w-]+)==(\S+)$", LOWEST.read_text(), re.M))


def test_the_lowest_are_those_that_the_package_declares():
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        name, _, bounds = re.match(r"([\w-]+)()(.*)", line).groups()
        if name in ("transformers", "peft"):
            lowest = re.search(r">=([\d.]+)", bounds)[1]
            assert PINS[name].startswith(lowest) and PINS[name].removeprefix(lowest).strip(".0") == ""


@pytest.mark.skipif("CI" not in os.environ, reason="installs other versions of transformers and peft; set CI to run it")
def test_the_tuner_works_on_the_lowest(tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--no-deps", "--no-compile"]  # most modules are never imported
    subprocess.run([*pip, "--target", str(tmp_path), "-r", str(LOWEST)], check=True, timeout=600)
    places = os.pathsep.join([str(tmp_path), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    show = "import peft, transformers; print(transformers.__version__, peft.__version__)"
    environment = os.environ | {"PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    options = {"env": environment, "cwd": ROOT, "capture_output": True, "text": True}
    seen = subprocess.run([sys.executable, "-c", show], **options, timeout=120)
    assert seen.stdout.split() == [PINS["transformers"], PINS["peft"]], seen.stderr
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/tuners", "-p", "no:cacheprovider"], **options, timeout=900
    )
    assert tests.returncode == 0, tests.stdout[-4000:]
