"""The runtimes that model-written programs need, and what is peculiar to each language.

`LANGUAGES` says how a program of a language is built and run. `find(language)` looks the runtime up on this machine;
its version is part of every result, because an old compiler fails modern programs.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field

from studykit.params import UserError


@dataclass(frozen=True)
class Language:
    """How programs of one language are executed; `{file}` and `{runtime}` in argument lists are filled in by
    `command`.

    `address_space`: False for runtimes that reserve far more than they use (V8, Go, Julia); their memory is limited by
    RLIMIT_DATA.
    """

    suffix: str
    binaries: tuple[str, ...]
    run: tuple[str, ...]
    memory_error: str
    version: tuple[str, ...] = ("--version",)
    build: tuple[str, ...] = ()
    address_space: bool = True
    env: dict[str, str] = field(default_factory=dict)


# `{box}/cache` in env is all that the programs of one runner share: a compiler that starts cold takes seconds.
LANGUAGES = {
    "python": Language(".py", (), (), r"^MemoryError"),
    "lua": Language(".lua", ("lua5.4", "lua", "luajit"), ("{runtime}", "{file}"), r"not enough memory", ("-v",)),
    "ruby": Language(".rb", ("ruby",), ("{runtime}", "{file}"), r"NoMemoryError|failed to allocate memory"),
    "javascript": Language(
        ".js", ("node",), ("{runtime}", "--max-old-space-size={memory_mb}", "{file}"),
        r"heap out of memory|allocation failed", address_space=False,
    ),
    "go": Language(
        ".go", ("go",), ("./program",), r"out of memory|cannot allocate memory", ("version",),
        build=("{runtime}", "build", "-o", "program", "{file}"), address_space=False,
        env={
            "GOCACHE": "{box}/cache/go", "GO111MODULE": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0",
            "GOMAXPROCS": "2",
        },
    ),
    "julia": Language(
        ".jl", ("julia",), ("{runtime}", "--startup-file=no", "--history-file=no", "{file}"), r"OutOfMemoryError",
        address_space=False, env={"JULIA_DEPOT_PATH": "{box}/cache/julia", "OPENBLAS_NUM_THREADS": "1"},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Runtime:
    """A runtime of this machine. `path` is the real path of the binary; for lupa the directory of the package."""

    language: str
    name: str
    path: str
    version: str


@functools.cache
def find(language: str) -> Runtime | None:
    """The runtime of `language` on this machine, or None.

    Python is the interpreter that runs studykit (standard library only).
    """
    if language not in LANGUAGES:
        raise UserError(f"language {language!r} cannot be executed; known are {', '.join(LANGUAGES)}")
    if language == "python":
        path = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
        return Runtime(language, "python", path, f"{platform.python_implementation()} {platform.python_version()}")
    for name in LANGUAGES[language].binaries:
        if path := shutil.which(name):
            if version := _version(path, LANGUAGES[language].version):
                return Runtime(language, name, os.path.realpath(path), version)
    if language == "lua" and (spec := _lupa()):
        return Runtime(
            language, "lupa", os.path.dirname(spec.origin), f"Lua 5.4 (lupa {importlib.metadata.version('lupa')})"
        )
    return None


def require(language: str) -> Runtime:
    """`find`, or a UserError that names what is missing."""
    if runtime := find(language):
        return runtime
    wanted = " or ".join(f"`{name}`" for name in LANGUAGES[language].binaries)
    extra = ", or `pip install lupa`" if language == "lua" else ""
    raise UserError(
        f"{language} programs cannot be executed: no working {wanted} on the PATH; install the runtime{extra}"
    )


def command(template: tuple[str, ...], runtime: Runtime, memory_mb: int) -> list[str]:
    """The argument list of a language's `run` or `build` template;

    the program's file lies in the working directory.
    """
    file = f"program{LANGUAGES[runtime.language].suffix}"
    return [part.format(runtime=runtime.path, file=file, memory_mb=memory_mb) for part in template]


def _version(path: str, arguments: tuple[str, ...]) -> str | None:
    """The first version-like line that the binary prints; None when it does not run (a stub, a wrong architecture)."""
    try:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (done.stdout + done.stderr).strip().splitlines()
    return re.sub(r"\s+Copyright.*", "", lines[0]) if done.returncode == 0 and lines else None


def _lupa():
    try:
        return importlib.util.find_spec("lupa.lua54")
    except ModuleNotFoundError:
        return None
