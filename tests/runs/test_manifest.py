"""Damage is noticed: a run whose manifest or files are not as they were published is not done, and is run again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from studykit.errors import UserError
from studykit.runs import manifest, status, store
from studykit.runs.manifest import finished_run

OUT = "runs/adapter/lua-bottleneck-s0-0123456789"
PARAMS = {"steps": 60, "out": OUT}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A project with one finished run of two files."""
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    monkeypatch.delenv("STUDYKIT_COMMAND", raising=False)
    publish()
    return tmp_path


def publish() -> bool:
    """Makes the run unless it is finished; returns whether it was."""
    with store.open_run(OUT, stage="adapter", params=PARAMS) as run:
        if run.done:
            return True
        run.path("adapter", "weights").write_bytes(bytes(1000))
        run.path("training.json").write_text("{}")
        run.publish(headline={"loss": 1.5})
        return False


def without_copy(home: Path) -> Path:
    (home / OUT / store.COPY).unlink()
    return home / OUT / "manifest.json"


def test_a_finished_run_is_read_with_its_types(home):
    run = finished_run(OUT)
    assert (run.stage, run.params, run.inputs) == ("adapter", PARAMS, []) and run.read_json("training.json") == {}
    assert run.manifest.published["adapter/weights"].size == 1000 and len(run.manifest.published) == 2


def test_a_manifest_is_read_once(home, monkeypatch):
    manifest._parse.cache_clear()
    read = []
    real = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda self, **options: (read.append(self.name), real(self, **options))[1])
    for _ in range(5):
        finished_run(OUT)
        status.run_status(OUT)
    assert read.count("manifest.json") == 1


WHOLE = "whole"
BROKEN = {
    "empty": "",
    "blank": " \n",
    "cut": '{"stage": "adapter", "params"',
    "null": "null",
    "list": "[]",
    "number": "3",
    "text": '"manifest"',
    "no keys": "{}",
    "deep": "[" * 100_000,
    "not UTF-8": b"\xff\xfe{}",
    "zeros": bytes(400),
}
FIELDS = {
    "params": [None, [], "x"],
    "inputs": [None, [], {"runs/x": None}, {"runs/x": {"key": 3}}],
    "published": [None, {"a": 3}, {"a": {}}, {"\0": {"size": 1, "sha256": ""}}],
    "seconds": [None, "long"],
    "headline": [None, 3],
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("copied", [False, True])
def test_a_manifest_that_is_not_whole_is_a_damaged_run(home, content, copied):
    file = home / OUT / "manifest.json"
    if not copied:
        without_copy(home)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = status.run_status(OUT)
    assert found.state == "damaged" and "manifest.json is damaged" in found.error
    with pytest.raises(UserError, match="is damaged .*; run its notebook") as error:
        finished_run(OUT)
    assert "\n" not in str(error.value)
    assert publish() == copied, "an intact copy of the manifest makes the run whole again"
    assert status.run_status(OUT).state == "done"


@pytest.mark.parametrize("field, value", [(field, value) for field, values in FIELDS.items() for value in values])
def test_a_manifest_with_a_wrong_value_is_a_damaged_run(home, field, value):
    file = without_copy(home)
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    assert status.run_status(OUT).state == "damaged"
    assert not publish() and status.run_status(OUT).state == "done"


@pytest.mark.parametrize("name", ["attempt.json", "log", "text"])
@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_damaged_attempts_and_logs_end_no_command(home, name, content):
    shutil.rmtree(home / OUT)
    logs = home / "logs/adapter"
    logs.mkdir(parents=True)
    stem = Path(OUT).name
    file = {
        "attempt.json": home / "runs/.staging/adapter" / stem / "attempt.json",
        "log": logs / f"{stem}.ipynb",
        "text": logs / f"{stem}.txt",
    }[name]
    (file.parent / "checkpoints").mkdir(exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.utime(file, (0, 0))
    assert status.run_status(OUT).state in ("missing", "stopped", "failed")
    assert not publish() and status.run_status(OUT).state == "done"


@pytest.mark.parametrize("change, problem", [
    ("missing", "adapter/weights is missing"), ("short", "adapter/weights has 10 bytes, not 1,000"),
])  # fmt: skip
def test_a_file_that_is_missing_or_short_is_found_when_the_status_is_asked(home, capsys, change, problem):
    weights = home / OUT / "adapter/weights"
    weights.unlink()
    if change == "short":
        weights.write_bytes(bytes(10))
    assert (status.run_status(OUT).state, status.run_status(OUT).error) == ("damaged", problem)
    with pytest.raises(UserError, match=f"{OUT} is damaged .{problem}"):
        finished_run(OUT)
    assert not publish() and weights.stat().st_size == 1000
    assert f"it is damaged ({problem}) and is run again." in capsys.readouterr().out


def test_a_flipped_bit_is_found_when_the_weights_are_loaded(home):
    weights = home / OUT / "adapter/weights"
    finished_run(OUT).verify("adapter")
    weights.write_bytes(bytes(999) + b"\x01")
    assert status.run_status(OUT).state == "done", "digests are not computed for a status"
    finished_run(OUT).verify("training.json")
    with pytest.raises(UserError, match="is damaged .adapter/weights is not as it was published"):
        finished_run(OUT).verify("adapter")
    assert status.run_status(OUT).state == "damaged", "once it is known, it is known to all"
    (home / OUT / "manifest.json").unlink()
    assert not publish(), "Snakemake removes the manifest; the run is not used as it is"
    assert status.run_status(OUT).state == "done"
    finished_run(OUT).verify()


def test_a_run_that_needs_a_damaged_one_is_out_of_date(home):
    from types import SimpleNamespace as Run

    need = Run(stage="adapter", label="lua", dir=OUT, needs=(), params=PARAMS)
    out = "runs/evaluate/lua-0123456789"
    with store.open_run(out, stage="evaluate", params={"checkpoints": [OUT]}) as run:
        run.publish()
    runs = [need, Run(stage="evaluate", label="lua", dir=out, needs=(need,), params={"checkpoints": [OUT]})]
    (home / OUT / "training.json").unlink()

    class Hashable(Run):
        __hash__ = object.__hash__

    need, user = (Hashable(**vars(run)) for run in runs)
    user.needs = (need,)
    found = list(status.study_status([need, user]).values())
    assert [one.state for one in found] == ["damaged", "outdated"] and found[1].error == "adapter lua is damaged"
