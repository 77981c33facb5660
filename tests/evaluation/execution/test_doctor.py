"""The doctor tries what it names, and says why the rest does not work."""

import pytest

from studykit import cli
from studykit.evaluation.execution import doctor, execute, runtimes, sandbox
from studykit.evaluation.execution.executable import ProgramResult


def test_every_language_has_a_hello_world():
    assert doctor.HELLO.keys() == runtimes.LANGUAGES.keys()


def test_the_command_tries_what_is_there(capsys, monkeypatch):
    monkeypatch.setattr(runtimes, "LANGUAGES", {name: runtimes.LANGUAGES[name] for name in ("python", "lua")})
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert printed.err == "" and max(map(len, lines)) <= 80, "no progress bars, no line that a terminal breaks"
    assert next(line for line in lines if line.startswith("  python ")).endswith(" s")
    titles = [line for line in lines if line and not line.startswith(" ")]
    assert titles == ["isolation of model-written programs", "runtimes", "training"]
    assert [line.split()[0] for line in lines[-3:]] == ["torch", "CUDA", "bitsandbytes"]


def test_what_does_not_work_is_said_with_its_reason(monkeypatch):
    monkeypatch.setattr(sandbox, "probe", lambda box: "" if box.level == "unshare" else f"{box.level} is broken")
    monkeypatch.setattr(execute, "isolation", lambda: "unshare")
    lines = list(doctor.isolation_lines())
    assert [line.split()[0] for line in lines] == ["bwrap", "unshare", "a"]
    assert "does not work: bwrap is broken (install bubblewrap)" in lines[0] and "is used: unshare" in lines[1]
    assert "no network" in lines[2] and "system calls are closed" in lines[2]
    monkeypatch.setattr(sandbox, "probe", lambda box: "broken")
    assert "allow_unsandboxed" in list(doctor.isolation_lines())[-1]


@pytest.mark.parametrize("there", [True, False])
def test_a_runtime_that_is_missing_or_broken_is_named(monkeypatch, there):
    runtime = runtimes.Runtime("lua", "lua", "/bin/lua", "Lua 9")
    monkeypatch.setattr(runtimes, "LANGUAGES", {"lua": runtimes.LANGUAGES["lua"]})
    monkeypatch.setattr(runtimes, "find", lambda language: runtime if there else None)
    monkeypatch.setattr(execute, "execute", lambda *_, **__: [ProgramResult("error", 0.1, "no lib\n")])
    [line] = doctor.runtime_lines()
    assert ("Lua 9" in line and "FAILS: error: no lib" in line) if there else "missing: no working lua5.4" in line
