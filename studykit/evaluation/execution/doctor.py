"""What of this machine a study can use: runtimes, sandbox and the libraries of a GPU. Everything is tried.

Model-written programs of a language can be scored where its line ends in seconds.
"""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Iterator

from studykit.evaluation.execution import execute, isolation, runtimes, sandbox
from studykit.evaluation.execution.execute import Executable

HELLO = {
    "python": "print('hello')",
    "lua": "print('hello')",
    "ruby": "puts 'hello'",
    "javascript": "console.log('hello')",
    "julia": 'println("hello")',
    "go": 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("hello") }\n',
    "rust": 'fn main() { println!("hello"); }\n',
    "java": 'class StudykitMain { public static void main(String[] a) { System.out.println("hello"); } }\n',
    "c++": '#include <iostream>\nint main() { std::cout << "hello"; }\n',
    "c": '#include <stdio.h>\nint main() { puts("hello"); }\n',
}
ADVICE = {
    "bwrap": "install bubblewrap",
    "unshare": "allow unprivileged user namespaces",
    "apptainer": "install apptainer",
    "podman": "install podman",
}


def report() -> str:
    """Plain text: a line per isolation level, runtime and library."""
    parts = {"isolation of model-written programs": isolation_lines(), "runtimes": runtime_lines(),
             "training": library_lines()}  # fmt: skip
    return "\n\n".join("\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in parts.items())


def isolation_lines() -> Iterator[str]:
    """The levels from the best to the first that works, with what keeps the better ones from it."""
    for level in isolation.LEVELS[:-1]:
        reason = ""
        for drop in (True, False) if os.getuid() == 0 else (False,):
            if not (reason := sandbox.probe(sandbox.Sandbox(level, drop))):
                yield f"{level:12} works, and is used: {execute.isolation()}"
                return
        yield f"{level:12} does not work: {reason} ({ADVICE[level]})"
    yield f"{'none':12} programs run only with allow_unsandboxed: true, with limits and without isolation"


def runtime_lines() -> Iterator[str]:
    """Version, and the seconds that a first program took to build and to run, with those of the sandbox."""
    for language in runtimes.LANGUAGES:
        if (runtime := runtimes.find(language)) is None:
            yield f"{language:12} missing: no working {' or '.join(runtimes.LANGUAGES[language].binaries)} on the PATH"
            continue
        started = time.monotonic()
        program = Executable(language, HELLO[language], "hello")
        verdict = execute.execute([program], timeout=30, allow_unsandboxed=True)[0]
        seconds = time.monotonic() - started
        ended = f"{seconds:5.1f} s" if verdict.passed else f"FAILS: {verdict.status}: {verdict.stderr_tail[-200:]}"
        yield f"{language:12} {runtime.version:60.60} {ended}"


def library_lines() -> Iterator[str]:
    """torch, its CUDA devices, and what quantised bases need."""
    import torch  # slow to import

    yield f"{'torch':12} {torch.__version__}"
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    found = ", ".join(f"{device.name} ({device.total_memory >> 20} MB)" for device in devices)
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    yield f"{'CUDA':12} {found or 'no device'}; torch is {built}"
    try:
        yield f"{'bitsandbytes':12} {importlib.metadata.version('bitsandbytes')}"
    except importlib.metadata.PackageNotFoundError:
        yield f"{'bitsandbytes':12} missing: quantised bases (4 and 8 bits) cannot be loaded"
