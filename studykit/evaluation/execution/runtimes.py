"""The runtimes that model-written programs need, and what is peculiar to each language.

`LANGUAGES` says how a program of a language is built and run, and within which limits. `find(language)` looks the
runtime up on this machine; its version is part of every result, because an old compiler fails modern programs.
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

from studykit.errors import UserError

BUILD_SECONDS = 120
BUILD_MB = 2048  # memory of a compiler; the largest file that it writes is an eighth
BOX_MB, BOX_FILES = 1024, 50_000  # what one program may leave in its directory, which mostly lies in memory


@dataclass(frozen=True)
class Language:
    """How programs of one language are executed. `{file}`, `{runtime}` (its path), `{folder}` (where that lies) and
    `{memory_mb}` in argument lists are filled in by `command`.

    locate: arguments with which a binary outside the system's directories tells where the real one is: rustup, juliaup
    and rbenv put proxies on the PATH that read the home directory. address_space: False for runtimes that reserve far
    more than they use (V8, Go, Julia, the JVM); their memory is limited by RLIMIT_DATA. overhead_mb: what the runtime
    takes for itself, on top of the program's memory. start_seconds: start-up on a busy machine, on top of every time
    limit. time_factor: on a problem's own time limit, which is meant for C++; those of ExecEval, the judge of
    xCodeEval, which gives interpreters and virtual machines three times as much. processes: processes and threads.
    output_mb: stdout, and any one file.
    """

    file: str
    binaries: tuple[str, ...]
    run: tuple[str, ...]
    memory_error: str
    version: tuple[str, ...] = ("--version",)
    build: tuple[str, ...] = ()
    locate: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    address_space: bool = True
    overhead_mb: int = 0
    start_seconds: float = 0.0
    time_factor: float = 1.0
    processes: int = 64
    output_mb: int = 8


JVM = (
    "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xss8m",
    "-XX:ReservedCodeCacheSize=64m", "-XX:CompressedClassSpaceSize=64m",
)  # fmt: skip

# `{box}/cache` in env is all that the programs of one runner share: a compiler that starts cold takes seconds.
LANGUAGES = {
    "python": Language("program.py", (), (), r"^MemoryError", time_factor=3),
    "lua": Language(
        "program.lua", ("lua5.4", "lua", "luajit"), ("{runtime}", "{file}"), r"not enough memory", ("-v",),
        time_factor=3,
    ),
    "ruby": Language(
        "program.rb", ("ruby",), ("{runtime}", "{file}"), r"NoMemoryError|failed to allocate memory",
        locate=("-e", "print RbConfig.ruby"), time_factor=3,
    ),
    "javascript": Language(
        "program.js", ("node",), ("{runtime}", "--max-old-space-size={memory_mb}", "{file}"),
        r"heap out of memory|allocation failed", locate=("-p", "process.execPath"), address_space=False,
        overhead_mb=256, time_factor=3,
    ),
    "julia": Language(
        "program.jl", ("julia",), ("{runtime}", "--startup-file=no", "--history-file=no", "{file}"),
        r"OutOfMemoryError", locate=("-e", "print(Sys.BINDIR)"), address_space=False, overhead_mb=256,
        env={"JULIA_DEPOT_PATH": "{box}/cache/julia", "OPENBLAS_NUM_THREADS": "1"}, start_seconds=2, time_factor=3,
    ),
    "go": Language(
        "program.go", ("go",), ("./program",), r"out of memory|cannot allocate memory", ("version",),
        build=("{runtime}", "build", "-o", "program", "{file}"), address_space=False, overhead_mb=256,
        env={
            "GOCACHE": "{box}/cache/go", "GO111MODULE": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0",
            "GOMAXPROCS": "2",
        },
    ),
    "rust": Language(
        "program.rs", ("rustc",), ("./program",), r"memory allocation of \d+ bytes failed",
        build=(
            "{runtime}", "--edition", "2021", "-C", "opt-level=1", "-C", "overflow-checks=on", "-A", "warnings",
            "-o", "program", "{file}",
        ),
        locate=("--print", "sysroot"),
    ),
    "java": Language(
        "Main.java", ("javac",),
        ("{folder}/java", *JVM, "-Xmx{memory_mb}m", "-ea", "-cp", ".", "StudykitMain"), r"OutOfMemoryError",
        build=(
            "{runtime}", *(f"-J{option}" for option in JVM), "-proc:none", "-nowarn", "-encoding", "UTF-8", "{file}",
        ),
        address_space=False, overhead_mb=512, start_seconds=1, time_factor=3,
    ),
    "c++": Language(
        "program.cpp", ("g++", "clang++"), ("./program",), r"std::bad_alloc",
        build=("{runtime}", "-std=c++17", "-O2", "-w", "-o", "program", "{file}"),
    ),
    "c": Language(
        "program.c", ("gcc", "clang"), ("./program",), r"out of memory",
        build=("{runtime}", "-std=gnu11", "-O2", "-w", "-o", "program", "{file}", "-lm"),
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
            if version := _said(path, LANGUAGES[language].version):
                version = re.sub(r"\s+Copyright.*", "", version)
                return Runtime(language, name, _real(path, name, LANGUAGES[language].locate), version)
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
    values = {"runtime": runtime.path, "folder": os.path.dirname(runtime.path), "memory_mb": memory_mb}
    return [part.format(file=LANGUAGES[runtime.language].file, **values) for part in template]


def _said(path: str, arguments: tuple[str, ...]) -> str | None:
    """The first line that the binary prints; None when it does not run (a stub, a wrong architecture)."""
    try:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else None


def _real(path: str, name: str, locate: tuple[str, ...]) -> str:
    """The binary itself, where `path` may be a proxy: `locate` makes it say its path, its folder or its prefix."""
    if locate and not path.startswith("/usr/") and (said := _said(path, locate)):
        for place in (said, os.path.join(said, name), os.path.join(said, "bin", name)):
            if os.path.isfile(place):
                return os.path.realpath(place)
    return os.path.realpath(path)


def _lupa():
    try:
        return importlib.util.find_spec("lupa.lua54")
    except ModuleNotFoundError:
        return None
