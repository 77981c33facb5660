"""Programs that the sandbox builds and runs in a second, and their processor time, by language and kind of check.

`hello` is a program whose output is compared; `tests` one of a benchmark, whose tests run beside the completion.
Processor time hardly depends on what else the machine does; programs per second do.
"""

from __future__ import annotations

import argparse
import resource
import time

from studykit.data.checks import BenchmarkCheck
from studykit.evaluation.execution import execute, runtimes
from studykit.evaluation.execution.doctor import HELLO
from studykit.evaluation.execution.executable import Executable, Outputs
from studykit.evaluation.execution.programs import executable

PYTHON = BenchmarkCheck("humaneval", "def f(x):\n", "def check(f):\n    assert f(2) == 4\n", "f")
RUBY = BenchmarkCheck(
    "multipl-e",
    "def f(x)\n",
    "require 'test/unit'\nclass T < Test::Unit::TestCase\n  def test_f\n    assert_equal(4, method(:f).call(2))\n"
    "  end\nend\n",
)


def cpu_seconds() -> float:
    """Returns the processor time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each language")
    parser.add_argument("--languages", nargs="+", default=[*HELLO], choices=[*HELLO])
    options = parser.parse_args()
    programs = {
        f"{language}, hello": Executable(language, source, Outputs((("", ("hello",)),)))
        for language, source in HELLO.items()
        if language in options.languages and runtimes.find(language)
    }
    for language, completion, check in (("python", "    return 2 * x\n", PYTHON), ("ruby", "  2 * x\nend\n", RUBY)):
        if f"{language}, hello" in programs:
            programs[f"{language}, tests"] = executable(language, completion, check)
    print(f"{execute.isolation()}\n\n{'':20} {'programs/s':>10} {'CPU ms each':>12}")
    for name, program in programs.items():
        count, elapsed = 4, 0.0
        while (
            elapsed < options.seconds
        ):  # doubled until it takes long enough, so that the start of a sandbox hardly counts
            began, used = time.perf_counter(), cpu_seconds()
            ended = execute.execute([program] * count, timeout=30)
            elapsed, used = time.perf_counter() - began, cpu_seconds() - used
            assert all(result.passed for result in ended), ended[0]
            speed, count = count / elapsed, 2 * count
        print(f"{name:20} {speed:10.1f} {2000 * used / count:12.1f}", flush=True)


if __name__ == "__main__":
    main()
