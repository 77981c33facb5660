"""A judge from outside: a command that reads pairs of texts as JSON lines and writes one verdict for each.

The judge is blind. Each question is a line `{"id": ..., "prompt": ..., "A": ..., "B": ...}`; one of A and B is the
reference, the other the completion. Ids and letters are keyed hashes of the content, whose key, `judge/salt` of the
evaluate run, is drawn once and not sent: so nothing that the judge receives says which text is whose, of which row, or
by which method. The command answers in any order with lines `{"id": ..., "verdict": "A"}`, or `"B"`, or `"tie"`. The
score of a completion is 100 if it is preferred to the reference, 50 for a tie, 0 otherwise. A completion that equals
the reference is a tie without a question.

Answers are kept by id in `judge/answers.jsonl`, so that none is asked twice; `judge/questions.jsonl` records aside
which text was which. No other part of the kit needs a judge.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from studykit.data.rows import Row
from studykit.errors import UserError, show
from studykit.evaluation.scores import Score
from studykit.runs import files

VERDICTS = ("A", "B", "tie")
LONGEST = 3600  # seconds of one run of the command


@dataclass(frozen=True)
class Question:
    """A completion and a reference under one prompt, in an order that their content and the salt decide."""

    command: str
    prompt: str
    reference: str
    completion: str
    salt: str  # of the evaluate run; the judge does not receive it

    @property
    def id(self) -> str:
        """Returns 16 hexadecimal digits, the same for the same question to the same command with the same salt."""
        return self._hash("id").hex()[:16]

    @property
    def completion_is(self) -> str:
        """Returns the letter of the completion."""
        return "AB"[self._hash("order")[0] % 2]

    @property
    def line(self) -> str:
        """Returns what the judge reads: ASCII, so that no encoding and no line end of Unicode harms it."""
        texts = self.completion, self.reference
        a, b = texts if self.completion_is == "A" else texts[::-1]
        return json.dumps({"id": self.id, "prompt": self.prompt, "A": a, "B": b}) + "\n"

    def score(self, verdict: str) -> float:
        """Returns 100 where the completion is preferred, 50 for a tie, 0 where the reference is preferred."""
        return 50.0 if verdict == "tie" else 100.0 * (verdict == self.completion_is)

    def _hash(self, what: str) -> bytes:
        content = json.dumps([what, self.command, self.prompt, self.reference, self.completion])
        return hmac.digest(self.salt.encode(), content.encode(), "sha256")


def words_of(command: str) -> list[str]:
    """Returns the words of the judge's command.

    Raises: UserError if its first word is no program, neither on the PATH nor as a path from the project's directory.
    """
    words = shlex.split(command)
    program = str(files.project_path(words[0])) if "/" in words[0] else words[0]
    if not shutil.which(program):
        raise UserError(
            f"The judge {show(command)} (evaluate.judge) cannot be started; its first word has to be a program on the "
            "PATH, or the path of one, absolute or from the project's directory."
        )
    return words


@dataclass(frozen=True)
class Judge:
    """A command, and the directory that keeps its answers."""

    command: str
    folder: Path

    def score(self, rows: Sequence[Row], texts: Sequence[str], references: Sequence[str]) -> Score:
        """Asks for what is not known yet and returns the mean score of n completions.

        Args:
            rows: n rows, whose prompts the judge reads. texts, references: n completions and n references.
        Raises: UserError if the command cannot be started, fails, takes more than an hour, or leaves out, repeats or
        invents an answer.
        """
        triples = list(zip(rows, texts, references, strict=True))
        salt = self._salt
        questions = [Question(self.command, row.prompt, reference, text, salt) for row, text, reference in triples]
        open_ones = {q.id: q for q in questions if q.completion.strip() != q.reference.strip()}
        known = dict(self._known())
        missing = sorted(open_ones.keys() - known.keys())  # ids are hashes: their order is as good as drawn
        if missing:
            self._record(zip(rows, questions, strict=True))
            known |= self.ask([open_ones[id] for id in missing])
        values = [q.score(known[q.id]) if q.id in open_ones else 50.0 for q in questions]
        command = hashlib.sha256(self.command.encode()).hexdigest()[:12]
        return Score(
            label="Preferred by the judge",
            value=float(np.mean(values)),
            signature=f"judge|tie:50|order:hidden|level:sentence|command:{command}|version:1|n:{len(values)}",
            per_example=values,
            n=len(values),
            empty=sum(not text.strip() for text in texts),
        )

    def ask(self, questions: Sequence[Question]) -> dict[str, str]:
        """Runs the command on these questions and returns its verdicts by id; those that are valid are kept."""
        named = f"The judge {show(self.command)} (evaluate.judge)"
        words, sent, late = words_of(self.command), "".join(q.line for q in questions).encode(), False
        try:
            done = subprocess.run(words, input=sent, capture_output=True, cwd=files.home(), timeout=LONGEST)
            output = done.stdout
        except (OSError, ValueError) as error:
            raise UserError(f"{named} cannot be started: {error}.") from error
        except subprocess.TimeoutExpired as error:
            output, late = (error.stdout or b"").rpartition(b"\n")[0], True  # the last line may be torn
        if not late and done.returncode:
            last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it wrote nothing to stderr"])[-1]
            raise UserError(f"{named} ended with exit code {done.returncode}: {last}")
        asked = {q.id for q in questions}
        answers: dict[str, str] = {}
        # Ids and verdicts are ASCII and are checked; what else stands there, such as a reason, may be damaged.
        for number, line in enumerate(filter(str.strip, output.decode("utf-8", "replace").split("\n")), 1):
            id, verdict = _answer(line, f"{named}, line {number} of its answers,")
            if id not in asked:
                raise UserError(f"{named} answers a question {show(id)} that was not asked.")
            if answers.setdefault(id, verdict) != verdict:
                raise UserError(f"{named} answers the question {id} twice, with {answers[id]} and with {verdict}.")
        with (self.folder / "answers.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"id": id, "verdict": verdict}) + "\n" for id, verdict in answers.items())
        if left := sorted(asked - answers.keys()):
            what = f"did not end within {LONGEST} seconds and left out" if late else "left out"
            raise UserError(
                f"{named} {what} {len(left)} of {len(asked)} answers, the first with id {left[0]}; "
                "the others are kept, so that only these are asked again."
            )
        return answers

    @cached_property
    def _salt(self) -> str:
        """The secret of the evaluate run, drawn when it is read first. Answers to ids of another one are never used."""
        file = self.folder / "salt"
        if not file.exists():
            files.write_text(file, secrets.token_hex(16))
        return file.read_text(encoding="utf-8")

    def _known(self) -> Iterator[tuple[str, str]]:
        """The answers that are kept; the last line of a killed run may be torn."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "answers.jsonl"
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        if text and not text.endswith("\n"):
            text = text[: text.rfind("\n") + 1]
            file.write_text(text, encoding="utf-8")
        for line in filter(None, text.split("\n")):
            yield _answer(line, f"{file} is damaged: its line")

    def _record(self, asked: Iterator[tuple[Row, Question]] | zip) -> None:
        with (self.folder / "questions.jsonl").open("a", encoding="utf-8") as file:
            for row, question in asked:
                about = {"id": question.id, "row": row.id, "completion": question.completion_is}
                file.write(json.dumps(about) + "\n")


def _answer(line: str, where: str) -> tuple[str, str]:
    """The id and the verdict of a line."""
    try:
        answer = json.loads(line)
        id, verdict = answer["id"], answer["verdict"]
    except (ValueError, TypeError, KeyError):
        id, verdict = None, None
    if not isinstance(id, str) or verdict not in VERDICTS:
        raise UserError(
            f'{where} is {show(line[:80])}; accepted is {{"id": ..., "verdict": ...}} with A, B or tie as the verdict.'
        )
    return id, verdict
