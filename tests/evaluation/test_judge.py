"""An outside judge: blind, asked once, and answered for or refused in one sentence."""

from __future__ import annotations

import json
import shlex
import sys
import time

import pytest
from pydantic import ValidationError

from studykit.data.rows import Row
from studykit.errors import UserError
from studykit.evaluation import judge as judges
from studykit.evaluation.judge import Judge, Question, words_of
from studykit.study.parameters import EvaluateParams

PREFERS_LONGER = """
import json, sys
for line in sys.stdin:
    q = json.loads(line)
    a, b = len(q["A"]), len(q["B"])
    print(json.dumps({"id": q["id"], "verdict": "A" if a > b else "B" if b > a else "tie"}))
"""
ROWS = [Row(f"row-{i}", "lua", f"prompt {i}", f"reference {i}") for i in range(8)]
REFERENCES = [row.target for row in ROWS]


@pytest.fixture
def judge(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))

    def made(script: str) -> Judge:
        file = tmp_path / "judge.py"
        file.write_text(f"import sys; open('calls', 'a').write('x')\n{script}")
        return Judge(f"{shlex.quote(sys.executable)} judge.py", tmp_path / "judge")

    return made


def test_the_judge_prefers_what_it_prefers_whatever_the_order(judge):
    long, short = ["x" * 40] * 4, ["x"] * 4
    score = judge(PREFERS_LONGER).score(ROWS, long + short, REFERENCES)
    assert score.per_example == [100] * 4 + [0] * 4 and score.value == 50
    assert judge(PREFERS_LONGER).score(ROWS, REFERENCES, REFERENCES).value == 50


def test_no_question_is_asked_twice_and_equal_texts_are_not_asked(judge, tmp_path):
    texts = [*REFERENCES[:4], *["other words"] * 4]
    first = judge(PREFERS_LONGER).score(ROWS, texts, REFERENCES)
    assert judge("sys.exit(1)").score(ROWS, texts, REFERENCES) == first
    answers = tmp_path / "judge/answers.jsonl"
    assert (tmp_path / "calls").read_text() == "x" and len(answers.read_text().splitlines()) == 4
    with answers.open("a") as file:
        file.write('{"id": "torn')  # a run that was killed
    assert judge("sys.exit(1)").score(ROWS, texts, REFERENCES) == first


def test_the_judge_cannot_see_which_text_is_whose():
    questions = [Question("c", row.prompt, row.target, f"completion {i}", "s") for i, row in enumerate(ROWS * 8)]
    lines = [json.loads(question.line) for question in questions]
    assert all(set(line) == {"id", "prompt", "A", "B"} for line in lines)
    share = sum(question.completion_is == "A" for question in questions) / len(questions)
    assert 0.3 < share < 0.7 and not any("row-" in question.line for question in questions)
    for question, line in zip(questions, lines, strict=True):
        assert line[question.completion_is] == question.completion and question.score("tie") == 50
        assert {question.score("A"), question.score("B")} == {0, 100}


def test_no_letter_can_be_computed_from_what_the_judge_receives():
    """Under other salts the letter of a question, and its id, are others: the content alone decides neither."""
    for i, row in enumerate(ROWS):
        asked = [Question("c", row.prompt, row.target, f"completion {i}", f"salt {n}") for n in range(64)]
        share = sum(question.completion_is == "A" for question in asked) / len(asked)
        assert 0.2 < share < 0.8 and len({question.id for question in asked}) == len(asked)


def test_each_directory_has_a_salt_of_its_own_that_stays_and_is_not_sent(judge, tmp_path):
    script = PREFERS_LONGER.replace("    q =", "    open('read', 'a').write(line)\n    q =")
    first = judge(script)
    first.score(ROWS, ["other words"] * 8, REFERENCES)
    salt = (first.folder / "salt").read_text()
    other = Judge(first.command, tmp_path / "again")
    other.score(ROWS, ["other words"] * 8, REFERENCES)
    assert len(salt) == 32 and salt not in (tmp_path / "read").read_text()
    assert (other.folder / "salt").read_text() != salt and (judge("").folder / "salt").read_text() == salt
    letters = {}
    for line in (first.folder / "questions.jsonl").read_text().splitlines():
        letters[json.loads(line)["id"]] = json.loads(line)["completion"]
    sent = [json.loads(line) for line in (tmp_path / "read").read_text().splitlines()[:8]]
    assert all(line[letters[line["id"]]] == "other words" for line in sent)


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("sys.exit('no key')", "ended with exit code 1: no key"),
        ("pass", "left out 8 of 8 answers"),
        (PREFERS_LONGER.replace('q["id"]', '"zz"'), "answers a question 'zz' that was not asked"),
        (PREFERS_LONGER.replace('"tie"', '"C"').replace("a > b", "a > 99").replace("b > a", "b > 99"), "accepted is"),
        ("print('hello')", "line 1 of its answers, is 'hello'; accepted is"),
        (PREFERS_LONGER + "    for v in 'AB': print(json.dumps({'id': q['id'], 'verdict': v}))", "twice, with"),
    ],
)
def test_each_failure_is_one_sentence(judge, script, sentence):
    with pytest.raises(UserError, match=sentence) as failure:
        judge(script).score(ROWS, ["other words"] * 8, REFERENCES)
    assert "evaluate.judge" in str(failure.value) and "\n" not in str(failure.value)


def test_answers_that_came_are_kept_when_others_are_missing(judge, tmp_path):
    with pytest.raises(UserError, match="left out 7 of 8 answers.*only these are asked again"):
        judge(PREFERS_LONGER + "    break").score(ROWS, ["other words"] * 8, REFERENCES)
    assert len((tmp_path / "judge/answers.jsonl").read_text().splitlines()) == 1
    assert judge(PREFERS_LONGER).score(ROWS, ["other words"] * 8, REFERENCES).n == 8


REASONS = """
import json, sys
for line in sys.stdin.buffer:
    assert line.isascii()
    q = json.loads(line)
    longer = "A" if len(q["A"]) > len(q["B"]) else "B"
    answer = '{"id": "%s", "verdict": "%s", "reason": "REASON"}' % (q["id"], longer)
    sys.stdout.buffer.write(answer.encode("CODEC") + b"\\n")
"""


@pytest.mark.parametrize("reason, codec", [("one\u2028two", "utf-8"), ("für", "latin-1"), ("für", "utf-8")])
def test_a_reason_may_hold_any_character_in_any_encoding(judge, reason, codec):
    script = REASONS.replace("REASON", reason.encode("unicode_escape").decode()).replace("CODEC", codec)
    texts = ["long \u2028 words \ud800 and more"] * 8
    assert judge(script).score(ROWS, texts, REFERENCES).value == 100


def test_a_judge_that_takes_too_long_is_stopped_and_its_answers_are_kept(judge, tmp_path, monkeypatch):
    monkeypatch.setattr(judges, "LONGEST", 3)
    slow = PREFERS_LONGER + "    sys.stdout.write('{'); sys.stdout.flush(); import time; time.sleep(60)"
    began = time.monotonic()
    with pytest.raises(
        UserError, match="did not end within 3 seconds and left out 7 of 8 answers.*are kept"
    ) as failure:
        judge(slow).score(ROWS, ["other words"] * 8, REFERENCES)
    assert time.monotonic() - began < 30 and "evaluate.judge" in str(failure.value)
    assert len((tmp_path / "judge/answers.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("command, why", [("judge 'open", "No closing quotation"), (" ", "has no words")])
def test_what_is_no_command_is_refused_with_the_study(command, why):
    with pytest.raises(ValidationError, match=why):
        EvaluateParams(judge=command)


@pytest.mark.parametrize("command", ["no-such-judge", "./judge.sh --x", "/nowhere/judge"])
def test_a_command_that_does_not_exist_is_named(tmp_path, monkeypatch, command):
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    with pytest.raises(UserError, match="evaluate.judge. cannot be started; its first word"):
        Judge(command, tmp_path).score(ROWS, ["x"] * 8, REFERENCES)
    (tmp_path / "judge.sh").write_text("#!/bin/sh")
    (tmp_path / "judge.sh").chmod(0o755)
    assert words_of("./judge.sh --x") == ["./judge.sh", "--x"]
