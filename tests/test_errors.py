"""Errors for the user are shown by IPython in one sentence, and values as the user would write them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from studykit.errors import Interrupted, UserError, printable, show


@pytest.mark.parametrize("error, line", [
    (UserError("steps is 0; it must be at least 1."), "UserError: steps is 0; it must be at least 1."),
    (Interrupted("Stopped at step 120; run this cell again to go on."),
     "Stopped at step 120; run this cell again to go on."),
])  # fmt: skip
def test_a_notebook_shows_the_sentence_alone(capsys, error, line):
    shell = InteractiveShell.instance()
    shell.user_ns["fail"] = lambda: (_ for _ in ()).throw(error)
    shell.run_cell("def work():\n    next(fail())\n\nwork()")
    assert capsys.readouterr().out.strip() == line
    InteractiveShell.clear_instance()


@pytest.mark.parametrize("foreign", ["\x1b]0;owned\x07\x1b[2J", "a\nstudykit: all is well", "\r", "\u2028", "\u202egpj.exe",
                                     "\x9b2J", "\ud800", "\x00"])  # fmt: skip
def test_foreign_text_gives_no_orders_to_a_terminal_and_no_second_line(foreign):
    sentence = str(UserError(f"rows/{foreign}.jsonl, line 1: no row."))
    assert sentence.isprintable() and sentence.encode() and sentence.endswith(".jsonl, line 1: no row.")
    assert printable("Zeile 1: größer, 漢字 😀") == "Zeile 1: größer, 漢字 😀"


def test_an_interruption_is_one():
    assert issubclass(Interrupted, KeyboardInterrupt) and not issubclass(Interrupted, Exception)


@pytest.mark.parametrize(
    "value, text", [(True, "true"), (None, "null"), ("x", "'x'"), (3, "3"), ("y" * 99, "'" + "y" * 56 + "...")]
)
def test_values_are_shown_as_they_are_written(value, text):
    assert show(value) == text


def test_a_reader_of_the_output_may_end_early():
    """`studykit plan ... | head -1` ends without a traceback."""
    command = [sys.executable, "-m", "studykit.cli", "plan", "params/quickstart.yaml"]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as plan:
        plan.stdout.close()
        assert plan.stderr.read() == b"" and plan.wait() == 141
