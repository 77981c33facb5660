"""What of this machine a study can use: runtimes, sandbox and the libraries of a GPU. Everything is tried.

Model-written programs of a language can be scored where its line ends in seconds.
"""

from __future__ import annotations

import importlib.metadata
import textwrap
import time
from collections.abc import Iterator

from studykit.errors import UserError
from studykit.evaluation.execution import execute, runtimes, sandbox
from studykit.evaluation.execution.executable import Executable, Outputs

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
WITHOUT = """\
programs run only with allow_unsandboxed: true, which limits but does not isolate them; otherwise there is no pass@k"""
JAVATUPLES = "never used: MultiPL-E problems whose tests need it are left out of pass@k and counted"


def report() -> str:
    """Returns plain text: a line per isolation level, runtime and library."""
    parts = {
        "isolation of model-written programs": isolation_lines(),
        "runtimes": [*runtime_lines(), *package_lines()],
        "training": library_lines(),
    }
    return "\n\n".join("\n".join([title, *map(_wrapped, lines)]) for title, lines in parts.items())


def _wrapped(line: str) -> str:
    """A line of 80 columns, continued below its text."""
    return textwrap.fill(line, 80, initial_indent="  ", subsequent_indent=" " * 16)


def isolation_lines() -> Iterator[str]:
    """Yields the levels from the best to the first that works, with what keeps the better ones from it."""
    for box in sandbox.candidates():
        try:
            reason = sandbox.probe(box)
        except UserError as slow:
            reason = str(slow)
        if reason:
            yield f"{box!s:13} does not work: {reason} ({sandbox.ADVICE.get(box.level, 'named')})"
            continue
        yield f"{box!s:13} works, and is used: {execute.isolation()}"
        yield f"{'a program':13} {sandbox.about(box)}"
        return
    yield f"{'none':13} {WITHOUT}"


def runtime_lines() -> Iterator[str]:
    """Yields version, and the seconds that a first program took to build and to run, with those of the sandbox."""
    for language in runtimes.LANGUAGES:
        if (runtime := runtimes.find(language)) is None:
            yield f"{language:13} missing: no working {' or '.join(runtimes.LANGUAGES[language].binaries)} on the PATH"
            continue
        version, started = runtime.version.split(" [")[0], time.monotonic()  # Ruby adds its platform
        try:
            hello = Executable(language, HELLO[language], Outputs((("", ("hello",)),)))
            result = execute.execute([hello], timeout=30)[0]
        except UserError as error:
            yield f"{language:13} {version:50.50} not tried: {str(error)[:60]} ..."
            continue
        seconds = time.monotonic() - started
        ended = f"{seconds:5.1f} s" if result.passed else f"FAILS: {result.status}: {result.stderr_tail[-200:]}"
        yield f"{language:13} {version:50.50} {ended}"


def package_lines() -> Iterator[str]:
    """Yields packages that the tests of benchmarks need and no machine has by itself."""
    yield f"{'javatuples':13} {JAVATUPLES}"


def library_lines() -> Iterator[str]:
    """Yields torch, its CUDA devices, and what quantised bases need."""
    import torch  # slow to import

    yield f"{'torch':13} {torch.__version__}"
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    names = ", ".join(f"{device.name} ({device.total_memory >> 20} MB)" for device in devices)
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    yield f"{'CUDA':13} {names or 'no device'}; torch is {built}"
    try:
        yield f"{'bitsandbytes':13} {importlib.metadata.version('bitsandbytes')}"
    except importlib.metadata.PackageNotFoundError:
        yield f"{'bitsandbytes':13} missing: quantised bases (4 and 8 bits) cannot be loaded"
