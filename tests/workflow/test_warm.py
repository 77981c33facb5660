"""Notebooks forked from a warm process: the same numbers, the same ends, and cold where there is no such process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import psutil
import pytest

from studykit.workflow import papermill, warm
from tests.project import ROOT, environment

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks")

# Whatever a fork could take over from the process that it comes from.
CELL = """
import gc, json, os, random, sys
import numpy, torch
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
for _ in range(20):
    optimizer.zero_grad()
    model(torch.randn(256, 64)).square().mean().backward()
    optimizer.step()
library = [name for name in sys.modules if name.startswith("studykit")]
about = {
    "weights": [p.double().sum().item() for p in model.parameters()], "threads": torch.get_num_threads(),
    "path": sys.path, "main": sys.modules["__main__"].__name__, "library": library, "directory": os.getcwd(),
    "environment": {k: v for k, v in os.environ.items() if not k.startswith("JPY_")},
}
drawn = {"draws": [random.random(), numpy.random.rand()], "name": open("/proc/self/comm").read().strip()}
drawn["frozen"] = gc.get_freeze_count()
about["collects"] = gc.isenabled()
json.dump(about, open("{LABEL}.about.json", "w"))
json.dump(drawn, open("{LABEL}.drawn.json", "w"))
"""
WAITING = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\nwhile not os.path.exists('go'): time.sleep(0.05)"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty project, whose notebooks start warm if a server runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(warm.SWITCH, "1")
    monkeypatch.setenv(papermill.ADDRESS, "")
    monkeypatch.setattr(warm.process, "gpus", lambda: [])
    for name, value in environment(ROOT).items():
        monkeypatch.setenv(name, value)
    return tmp_path


@contextmanager
def server():
    """A server that ends with the block, as with Snakemake."""
    started = warm.start()
    try:
        yield started
    finally:
        started.stdin.close()
        assert started.wait(10) == 0, Path("logs/warm.txt").read_text()


def begin(home: Path, label: str, *cells: str, threads: int = 1) -> subprocess.Popen:
    """Start papermill on a notebook as the Snakefile does; its text goes to LABEL.txt."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, home / f"{label}.ipynb")
    command = [
        sys.executable,
        "-m",
        "studykit.workflow.papermill",
        "-k",
        "python3",
        f"{label}.ipynb",
        f"{label}.out.ipynb",
    ]
    with open(home / f"{label}.txt", "w") as text:
        return subprocess.Popen(
            command, cwd=home, stdout=text, stderr=text, env=os.environ | {"OMP_NUM_THREADS": str(threads)}
        )


def read(home: Path, label: str, kind: str) -> dict:
    return json.loads((home / f"{label}.{kind}.json").read_text())


def waiting_kernel(home: Path) -> psutil.Process:
    """The kernel of a notebook of WAITING, once it waits."""
    until = time.monotonic() + 60
    while not (home / "pid").is_file() or not (home / "pid").read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    return psutil.Process(int((home / "pid").read_text()))


@linux
def test_a_warm_kernel_is_a_cold_one_that_starts_sooner(home):
    cold = begin(home, "cold", CELL.replace("{LABEL}", "cold"), threads=2)
    assert cold.wait(120) == 0, (home / "cold.txt").read_text()
    with server():
        first = begin(home, "first", CELL.replace("{LABEL}", "first"), threads=2)
        assert first.wait(120) == 0, (home / "first.txt").read_text()
        second = begin(home, "second", CELL.replace("{LABEL}", "second"), threads=1)
        assert second.wait(120) == 0, (home / "second.txt").read_text()
    names = [read(home, label, "drawn")["name"] for label in ("cold", "first", "second")]
    assert names == ["python", "studykit-kernel", "studykit-kernel"]
    frozen = [read(home, label, "drawn")["frozen"] for label in ("cold", "first", "second")]
    assert frozen[0] == 0 and min(frozen[1:]) > 100_000, "no collection in a fork reads the libraries"
    assert read(home, "first", "about") == read(home, "cold", "about"), "bit for bit, and with two threads"
    assert read(home, "first", "about")["collects"]
    assert read(home, "second", "about")["threads"] == 1
    assert "Executing" in (home / "first.txt").read_text(), "what papermill writes goes where the client's would"
    draws = [draw for label in ("cold", "first", "second") for draw in read(home, label, "drawn")["draws"]]
    assert len(set(draws)) == len(draws), "kernels do not share what no seed was set for"


@linux
def test_what_earlier_cells_wrote_is_on_the_disk_while_a_cell_runs(home):
    with server():
        client = begin(home, "a", "print('earlier')", WAITING)
        waiting_kernel(home)
        saved = nbformat.read(home / "a.out.ipynb", as_version=4)
        (home / "go").touch()
        assert client.wait(60) == 0
    ended = nbformat.read(home / "a.out.ipynb", as_version=4)
    assert [cell.metadata.papermill.status for cell in saved.cells] == ["completed", "running"]
    assert saved.cells[0].outputs[0].text == "earlier\n"
    assert [cell.metadata.papermill.status for cell in ended.cells] == ["completed"] * 2


@linux
def test_a_failure_is_the_clients(home):
    with server():
        failing = begin(home, "a", "1 / 0")
        assert failing.wait(60) == 1
    assert "ZeroDivisionError" in (home / "a.txt").read_text().strip().split("\n")[-1]
    assert not warm_processes()


@linux
@pytest.mark.parametrize("number, code", [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, papermill.KILLED)])
def test_with_its_client_a_notebook_ends(home, number, code):
    with server():
        client = begin(home, "a", WAITING)
        kernel = waiting_kernel(home)
        forked = kernel.parent()
        assert (forked.name(), kernel.name()) == ("papermill", "studykit-kernel")
        client.send_signal(number)
        assert client.wait(30) == code
        _, alive = psutil.wait_procs([forked, kernel], timeout=10)
        assert not alive


@linux
def test_a_killed_papermill_or_kernel_is_a_failure(home):
    with server():
        for at, word in (("parent", ""), ("kernel", "DeadKernelError")):
            (home / "pid").unlink(missing_ok=True)
            client = begin(home, at, WAITING)
            kernel = waiting_kernel(home)
            (kernel.parent() if at == "parent" else kernel).kill()
            assert client.wait(30) == (papermill.KILLED if at == "parent" else 138)  # papermill's for a dead kernel
            assert word in (home / f"{at}.txt").read_text()
            kernel.wait(10)


@linux
def test_without_its_server_a_notebook_goes_on_and_the_next_starts_cold(home):
    started = warm.start()
    client = begin(home, "a", WAITING)
    kernel = waiting_kernel(home)
    assert kernel.name() == "studykit-kernel"
    started.kill()
    started.wait()
    (home / "go").touch()
    assert client.wait(30) == 0
    (home / "pid").unlink()
    assert begin(home, "b", WAITING, "open('name', 'w').write(open('/proc/self/comm').read())").wait(60) == 0
    assert (home / "name").read_text().strip() != "studykit-kernel"


@linux
def test_where_it_does_not_start(home, monkeypatch):
    monkeypatch.setattr(warm.process, "gpus", lambda: ["0"])
    assert warm.start() is None, "CUDA does not survive a fork"
    monkeypatch.setattr(warm.process, "gpus", lambda: [])
    monkeypatch.setenv(warm.SWITCH, "0")
    assert warm.start() is None
    assert not (home / "logs").exists()


@linux
def test_a_thread_that_a_fork_would_lose_is_seen():
    before, ended = warm.lost_threads(), threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    try:
        assert len(warm.lost_threads()) >= len(before) and warm.lost_threads()
    finally:
        ended.set()
        thread.join()


def test_the_packages_of_a_notebook_are_found_without_a_list():
    found = dict(warm.other_packages(ROOT / "notebooks/02_adapter.ipynb"))
    assert {"torch", "transformers", "peft"} <= {module.partition(".")[0] for module in found}
    assert not {"studykit", "os", "__future__"} & found.keys()


def warm_processes() -> list[psutil.Process]:
    """Kernels and papermills that this process's servers have left."""
    return [p for p in psutil.Process().children(recursive=True) if p.name() in ("papermill", "studykit-kernel")]
