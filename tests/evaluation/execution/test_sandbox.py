"""What a sandbox shows: the system and the runtimes, and nothing of the user's."""

import os
from pathlib import Path

import pytest

from studykit.errors import UserError
from studykit.evaluation.execution import mounts, runtimes, sandbox


@pytest.fixture
def runtimes_at(monkeypatch, tmp_path):
    """A function of language and path: that runtime is the only one, beside Python's."""
    python = runtimes.find("python")

    def place(language: str, path: str) -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True)
        file.touch()
        there = {language: runtimes.Runtime(language, file.name, str(file), "1"), "python": python}
        monkeypatch.setattr(runtimes, "find", there.get)
        return file

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return place


@pytest.mark.parametrize("drop", [False, True])
def test_bubblewrap_shows_the_same_paths_as_the_supervisor_and_read_only(drop):
    words = mounts.bwrap(drop)
    shown = [words[i + 1 : i + 3] for i, word in enumerate(words) if word in ("--ro-bind", "--ro-bind-try")]
    links = {words[i + 2] for i, word in enumerate(words) if word == "--symlink"}
    devices = [words[i + 1] for i, word in enumerate(words) if word == "--dev-bind"]
    assert not {"--bind", "--bind-try"} & set(words) and all(source == target for source, target in shown)
    assert devices == [f"/dev/{name}" for name in mounts.DEVICES]
    assert {path for path, _ in shown if os.path.exists(path)} | links - {f"/dev/{n}" for n in mounts.LINKS} == set(
        mounts.visible()
    )
    assert str(Path.home()) not in dict(shown)


def test_there_is_no_network_and_only_what_root_needs_to_become_nobody():
    assert "--unshare-all" in mounts.bwrap(False) and "CAP_SETUID" not in mounts.bwrap(False)
    assert "--unshare-net" in mounts.bwrap(True) and "CAP_SETUID" in mounts.bwrap(True)


def test_bubblewrap_is_found_on_the_users_path_by_all(tmp_path, monkeypatch):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert mounts.bubblewrap() == mounts.bwrap(False)[0] == str(fake)


@pytest.mark.parametrize("path, shown", [
    ("home/.toolchains/stable/bin/ruby", "home/.toolchains/stable"),
    ("home/bin/ruby", "home/bin"),  # never the home
    ("home/ruby", None),
    ("opt/ruby-3/bin/ruby", "opt/ruby-3"),
    ("opt/ruby", "opt"),
])  # fmt: skip
def test_a_runtime_is_shown_without_the_home(runtimes_at, tmp_path, path, shown):
    runtimes_at("ruby", path)
    found = [str(p.relative_to(tmp_path)) for p in mounts.runtime_directories() if p.is_relative_to(tmp_path)]
    assert found == ([shown] if shown else [])


def test_a_proxy_is_asked_for_the_real_binary(tmp_path, monkeypatch):
    real = tmp_path / "toolchains" / "stable" / "bin" / "rustc"
    real.parent.mkdir(parents=True)
    real.touch()
    proxy = tmp_path / "bin" / "rustc"
    proxy.parent.mkdir()
    proxy.write_text(f'#!/bin/sh\n[ "$1" = --print ] && echo {real.parent.parent} || echo rustc 1.2.3\n')
    proxy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{proxy.parent}:{os.environ['PATH']}")
    found = runtimes.find.__wrapped__("rust")
    assert (found.path, found.version) == (str(real), "rustc 1.2.3")


def test_the_next_level_is_taken_and_what_fails_is_named(monkeypatch):
    reasons = {"bwrap": "broken", "unshare": ""}
    monkeypatch.setattr(sandbox, "probe", lambda box: reasons.get(box.level, "too old"))
    assert sandbox.choose().level == "unshare"
    reasons["unshare"] = "denied"
    with pytest.raises(UserError, match="bwrap: broken; unshare: denied; bwrap-renewed: too old"):
        sandbox.choose()


def test_a_missing_program_is_a_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sandbox.probe.__wrapped__(sandbox.Sandbox("bwrap")) == "not installed"
