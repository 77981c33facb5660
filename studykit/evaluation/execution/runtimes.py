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
from studykit.study.languages import canonical

BUILD_MB = 2048  # memory of a compiler; the largest file that it writes is an eighth
BOX_MB, BOX_FILES = 1024, 50_000  # what one program may leave in each of its directories, which lie in memory
MAX_SECONDS, MAX_MB = 3600.0, 1 << 16  # the highest limits that a study or a row may set


@dataclass(frozen=True)
class Language:
    """How programs of one language are executed.

    `{file}`, `{runtime}` (its path), `{folder}` (where that lies) and `{memory_mb}` in argument lists are filled in by
    `command`, `{cache}` in `env` by the runner.
    """

    file: str
    binaries: tuple[str, ...]
    run: tuple[str, ...]
    memory_error: str  # a pattern of stderr that says that memory ran out
    version: tuple[str, ...] = ("--version",)
    build: tuple[str, ...] = ()
    judged_build: tuple[str, ...] = ()  # under the conditions of ExecEval, the judge of xCodeEval
    judged_run: tuple[str, ...] = ()
    locate: tuple[str, ...] = ()  # makes a proxy on the PATH (rustup's, rbenv's) say where the real binary is
    env: dict[str, str] = field(default_factory=dict)
    prepare: str = ""  # a program that fills {cache}, before it becomes read-only for all others
    address_space: bool = True  # False for runtimes that reserve far more than they use: RLIMIT_DATA limits them
    overhead_mb: int = 0  # what the runtime takes for itself, on top of the program's memory
    build_seconds: float = 30.0  # of processor time
    start_seconds: float = 0.0  # start-up, on top of every time limit
    time_factor: float = 1.0  # on a problem's own time limit, which is meant for C++; ExecEval's
    processes: int = 64  # processes and threads
    output_mb: int = 8  # stdout, and any one file


JVM = (
    "-Xshare:auto",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-Xss8m",
    "-XX:ReservedCodeCacheSize=64m",
    "-XX:CompressedClassSpaceSize=64m",
)
JAVA = ("{folder}/java", *JVM, "-Xmx{memory_mb}m")
CPP = ("{runtime}", "-std=c++17", "-O2", "-w")
C = ("{runtime}", "-std=gnu11", "-O2", "-w")
RUST = ("{runtime}", "--edition", "2021", "-A", "warnings", "-o", "program", "{file}")
EXECEVAL_C = ("-DONLINE_JUDGE", "-include", "limits.h", "-include", "math.h")
LINK_C = ("-o", "program", "{file}", "-lm")
GO_PREPARE = """package main

import (
	_ "bufio"; _ "bytes"; _ "container/heap"; _ "container/list"; _ "crypto/md5"; _ "encoding/hex"; _ "encoding/json"
	_ "errors"; _ "fmt"; _ "math/big"; _ "math/bits"; _ "math/rand"; _ "os"; _ "reflect"; _ "regexp"; _ "sort"
	_ "strconv"; _ "strings"; _ "time"; _ "unicode"; _ "unicode/utf8"
)

func main() {}
"""

LANGUAGES = {
    "python": Language("program.py", (), (), r"^MemoryError", time_factor=3),
    "lua": Language(
        file="program.lua",
        binaries=("lua5.4", "lua", "luajit"),
        run=("{runtime}", "{file}"),
        memory_error=r"not enough memory",
        version=("-v",),
        time_factor=3,
    ),
    "ruby": Language(
        file="program.rb",
        binaries=("ruby",),
        run=("{runtime}", "{file}"),
        memory_error=r"NoMemoryError|failed to allocate memory",
        locate=("-e", "print RbConfig.ruby"),
        time_factor=3,
    ),
    "javascript": Language(
        file="program.js",
        binaries=("node",),
        run=("{runtime}", "--max-old-space-size={memory_mb}", "{file}"),
        memory_error=r"heap out of memory|allocation failed",
        locate=("-p", "process.execPath"),
        address_space=False,
        overhead_mb=256,
        time_factor=3,
    ),
    "julia": Language(
        file="program.jl",
        binaries=("julia",),
        run=("{runtime}", "--startup-file=no", "--history-file=no", "{file}"),
        memory_error=r"OutOfMemoryError",
        locate=("-e", "print(Sys.BINDIR)"),
        address_space=False,
        overhead_mb=256,
        env={"JULIA_DEPOT_PATH": "/tmp/julia", "OPENBLAS_NUM_THREADS": "1"},
        start_seconds=2,
        time_factor=3,
    ),
    "go": Language(
        file="program.go",
        binaries=("go",),
        run=("./program",),
        memory_error=r"out of memory|cannot allocate memory",
        version=("version",),
        build=("{runtime}", "build", "-o", "program", "{file}"),
        build_seconds=60,
        address_space=False,
        overhead_mb=256,
        env={
            "GOCACHE": "{cache}/go",
            "GO111MODULE": "off",
            "GOTOOLCHAIN": "local",
            "CGO_ENABLED": "0",
            "GOMAXPROCS": "2",
        },
        prepare=GO_PREPARE,
    ),
    "rust": Language(
        file="program.rs",
        binaries=("rustc",),
        run=("./program",),
        memory_error=r"memory allocation of \d+ bytes failed",
        build=(*RUST, "-C", "opt-level=1", "-C", "overflow-checks=on"),
        judged_build=(*RUST, "-O"),
        locate=("--print", "sysroot"),
    ),
    "java": Language(
        file="Main.java",
        binaries=("javac",),
        run=(*JAVA, "-ea", "-cp", ".", "StudykitMain"),
        judged_run=(*JAVA, "-DONLINE_JUDGE=true", "-cp", ".", "StudykitMain"),
        memory_error=r"OutOfMemoryError",
        build=(
            "{runtime}",
            *(f"-J{option}" for option in JVM),
            "-proc:none",
            "-nowarn",
            "-encoding",
            "UTF-8",
            "{file}",
        ),
        address_space=False,
        overhead_mb=512,
        start_seconds=1,
        time_factor=3,
    ),
    "c++": Language(
        file="program.cpp",
        binaries=("g++", "clang++"),
        run=("./program",),
        memory_error=r"std::bad_alloc",
        build=(*CPP, *LINK_C),
        judged_build=(*CPP, *EXECEVAL_C, *LINK_C),
    ),
    "c": Language(
        file="program.c",
        binaries=("gcc", "clang"),
        run=("./program",),
        memory_error=r"out of memory",
        build=(*C, *LINK_C),
        judged_build=(*C, *EXECEVAL_C, *LINK_C),
    ),
}
LIBRARIES = {"c++": {"openssl/": "-lcrypto"}}  # linked where a program includes their headers, as CodeGeeX does


@dataclass(frozen=True)
class Runtime:
    """A runtime of this machine. `path` is the real path of the binary; for lupa the directory of the package."""

    language: str
    name: str
    path: str
    version: str


@functools.cache
def find(language: str) -> Runtime | None:
    """Returns the runtime of `language` on this machine, or None; UserError for a language that cannot be executed.

    The language may have any of its names, so "cpp" is c++. Python is the interpreter that runs studykit, with the
    standard library only.
    """
    if (language := canonical(language)) not in LANGUAGES:
        raise UserError(f"language {language!r} cannot be executed; known are {', '.join(LANGUAGES)}")
    if language == "python":
        path = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
        return Runtime(language, "python", path, f"{platform.python_implementation()} {platform.python_version()}")
    for name in LANGUAGES[language].binaries:
        if binary := shutil.which(name):
            if version := _first_line(binary, LANGUAGES[language].version):
                version = re.sub(r"\s+Copyright.*", "", version)
                return Runtime(language, name, _real(binary, name, LANGUAGES[language].locate), version)
    if language == "lua" and (spec := _lupa()):
        return Runtime(
            language, "lupa", os.path.dirname(spec.origin), f"Lua 5.4 (lupa {importlib.metadata.version('lupa')})"
        )
    return None


def require(language: str) -> Runtime:
    """Returns the runtime of `language`, or raises a UserError that names what is missing."""
    if runtime := find(language):
        return runtime
    language = canonical(language)
    wanted = " or ".join(f"`{name}`" for name in LANGUAGES[language].binaries)
    extra = ", or `pip install lupa`" if language == "lua" else ""
    raise UserError(
        f"{language} programs cannot be executed: no working {wanted} on the PATH; install the runtime{extra}"
    )


def command(template: tuple[str, ...], runtime: Runtime, memory_mb: int, source: str) -> list[str]:
    """Returns the argument list of a language's `run` or `build` template for a program's source.

    The program's file lies in the working directory.
    """
    if "-o" in template:
        libraries = LIBRARIES.get(runtime.language, {})
        template += tuple(option for header, option in libraries.items() if f"<{header}" in source)
    values = {"runtime": runtime.path, "folder": os.path.dirname(runtime.path), "memory_mb": memory_mb}
    return [part.format(file=LANGUAGES[runtime.language].file, **values) for part in template]


def _first_line(path: str, arguments: tuple[str, ...]) -> str | None:
    """The first line that the binary prints; None when it does not run (a stub, a wrong architecture)."""
    try:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else None


def _real(path: str, name: str, locate: tuple[str, ...]) -> str:
    """The binary itself where `path` may be a proxy: `locate` makes it print its path, its folder or its prefix."""
    if locate and not path.startswith("/usr/") and (answer := _first_line(path, locate)):
        for file in (answer, os.path.join(answer, name), os.path.join(answer, "bin", name)):
            if os.path.isfile(file):
                return os.path.realpath(file)
    return os.path.realpath(path)


def _lupa():
    try:
        return importlib.util.find_spec("lupa.lua54")
    except ModuleNotFoundError:
        return None
