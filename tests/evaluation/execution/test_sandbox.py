"""Command lines of the sandboxes: whatever the program, they show the same, and nothing of the user's."""

import os
from pathlib import Path

import pytest

from studykit.errors import UserError
from studykit.evaluation.execution import isolation, runtimes, sandbox

PROGRAMS = ("bwrap", "apptainer", "podman")


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

    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    return place


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("level", PROGRAMS)
def test_the_same_paths_are_shown_where_they_are_and_read_only(level, drop, tmp_path):
    words = isolation.command(level, drop, str(tmp_path))
    if level == "bwrap":
        mounts = [words[i + 1 : i + 3] for i, word in enumerate(words) if word in ("--ro-bind", "--ro-bind-try")]
        assert not {"--bind", "--bind-try", "--dev-bind"} & set(words)
    else:
        volumes = [words[i + 1].split(":") for i, word in enumerate(words) if word in ("--volume", "--bind")]
        mounts = [volume[:2] for volume in volumes if volume[2:] == ["ro"]]
        writable = [volume for volume in volumes if volume[2:] != ["ro"]]
        assert writable == ([[f"{tmp_path}/tmp", "/tmp"]] if level == "apptainer" else [])
    assert words[0] == level and all(source == target for source, target in mounts)
    assert {source for source, _ in mounts if os.path.exists(source)} == set(isolation.visible())
    assert str(Path.home()) not in dict(mounts)


@pytest.mark.parametrize("level", PROGRAMS)
def test_there_is_no_network_and_only_what_root_needs_to_become_nobody(level, tmp_path):
    line = " ".join(isolation.command(level, False, str(tmp_path)))
    assert ("--unshare-all" if level == "bwrap" else "--network none") in line
    assert "--cap-add" not in line and "--keep-privs" not in line
    dropped = " ".join(isolation.command(level, True, str(tmp_path)))
    assert ("--keep-privs" if level == "apptainer" else "--cap-add") in dropped


def test_levels_without_a_program_have_no_command_line(tmp_path):
    assert [isolation.command(level, False, str(tmp_path)) for level in ("unshare", "rlimits")] == [[], []]


def test_the_root_of_a_container_is_empty_but_for_links(tmp_path):
    root = Path(isolation.root(str(tmp_path)))
    assert all(path.is_symlink() or path.name == "tmp" for path in root.iterdir())
    assert isolation.root(str(tmp_path)) == str(root)  # again


@pytest.mark.parametrize("path, shown", [
    ("home/.toolchains/stable/bin/ruby", "home/.toolchains/stable"),
    ("home/bin/ruby", "home/bin"),  # never the home
    ("home/ruby", None),
    ("opt/ruby-3/bin/ruby", "opt/ruby-3"),
    ("opt/ruby", "opt"),
])  # fmt: skip
def test_a_runtime_is_shown_without_the_home(runtimes_at, tmp_path, path, shown):
    runtimes_at("ruby", path)
    found = [str(p.relative_to(tmp_path)) for p in isolation.runtime_directories() if p.is_relative_to(tmp_path)]
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
    reasons = {"bwrap": "broken", "unshare": "denied", "apptainer": "not installed", "podman": ""}
    monkeypatch.setattr(sandbox, "probe", lambda box: reasons.get(box.level, "broken"))
    assert sandbox.choose().level == "podman"
    reasons["podman"] = "no cgroups"
    with pytest.raises(UserError, match="bwrap: broken; unshare: denied; apptainer: not installed; podman: no cgroups"):
        sandbox.choose()


@pytest.mark.parametrize("level", ["apptainer", "podman"])
def test_a_container_that_is_missing_or_fails_is_skipped_with_its_reason(level, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sandbox.probe.__wrapped__(sandbox.Sandbox(level)) == "not installed"
    fake = tmp_path / level
    fake.write_text("#!/bin/sh\necho 'a warning' >&2\necho 'no subordinate ids' >&2\nexit 125\n")
    fake.chmod(0o755)
    assert sandbox.probe.__wrapped__(sandbox.Sandbox(level)) == "no subordinate ids"


def test_a_container_that_hides_nothing_is_not_used(monkeypatch, tmp_path):
    """A stand-in that only runs the command it is given."""
    fake = tmp_path / "podman"
    fake.write_text('#!/bin/sh\nwhile [ "$1" != --rootfs ]; do shift; done\nshift 2\nexec "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(isolation, "podman", lambda drop, folder: [str(fake), "--rootfs", isolation.root(folder)])
    assert sandbox.probe.__wrapped__(sandbox.Sandbox("podman")) == "the container shows the files of its host"
