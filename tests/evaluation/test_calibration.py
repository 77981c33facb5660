"""Calibration: the AUC of each score on built-in edits whose meaning is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from studykit.data.polyglot import programs
from studykit.data.polyglot.commits import commit
from studykit.evaluation.calibration import auc, calibrate, row_values
from studykit.evaluation.edits import edits, other_words, others, rewritten, variants
from studykit.evaluation.execution import execute
from studykit.evaluation.instruments import Instruments
from studykit.evaluation.metrics.score import score_texts
from studykit.evaluation.scores import ANOTHER, CHANGED, OPPOSITE
from studykit.report.calibration import auc_of, calibration_caption, calibration_table
from studykit.study.parameters import EvaluateParams
from studykit.study.templates import TEMPLATES


def instruments(tmp_path, task: str, **given) -> Instruments:
    usual = {"base": "runs/base_model/x-0000000000", "data": "d", "trained_runs": [], "language": "lua", "seeds": []}
    data = {"path": None, "seed": 0, "template": None, "task": task}
    code = task != "commit"
    return Instruments(EvaluateParams(**usual, **given), data, (64, 40), task, code, not code, tmp_path, lambda: None)


def test_the_auc_is_a_half_for_equal_scores_one_for_ordered_ones_and_turns_round():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 30), rng.normal(0, 1, 30)
    value, low, high = auc(a, b)
    assert 0.5 < low < value < high <= 1 and auc(b, a)[0] == pytest.approx(1 - value)
    assert auc([2, 2], [2, 2]) == (0.5, 0.5, 0.5) and auc([3, 2], [1, 0]) == (1, 1, 1)
    assert auc([3, 2], [1, 2])[0] == 0.875


def test_other_words_exist_for_every_built_in_message_and_turn_round():
    for i, program in enumerate(programs(200, 1, "test")):
        message = commit(program, i).message
        for same_verb in (True, False):
            same, opposite = other_words(message, same_verb)
            assert len({message, same, opposite}) == 3
            assert not same_verb or same.split()[0] == message.split()[0]


def test_an_edit_against_another_one_and_a_program_against_a_mutant():
    made = edits("lua", 12, TEMPLATES["commit"])
    assert made == edits("lua", 12, TEMPLATES["commit"])
    assert all(edit.reference != other.reference for edit, other in zip(made, others(made), strict=True))
    assert all(edit.row.body_text.startswith("--- a/") for edit in made)
    for variant in variants("python", 8):
        space: dict = {}
        outputs = []
        for code in (variant.row.target, variant.rewritten, variant.mutated):
            exec(code, space)  # our own programs
            outputs.append([space["solve"](*test.args) for test in variant.row.check.tests])
        assert outputs[0] == outputs[1] != outputs[2] and variant.row.target != variant.rewritten


def test_rewritten_programs_behave_alike():
    for program in programs(100, 5, "test"):
        assert all(rewritten(program).evaluate(test.args) == test.expected for test in program.tests)


def test_overlap_cannot_tell_the_opposite_edit_and_the_direction_can(tmp_path):
    found = {(one.metric, one.against): one for one in calibrate(instruments(tmp_path, "commit"), "lua", 24)}
    assert found["direction", OPPOSITE].low > 0.9 and found["b_norm", OPPOSITE].high < 0.8
    assert found["names_touched", ANOTHER].auc > 0.9 and found["names_touched", OPPOSITE].auc < 0.6
    assert {one.language for one in found.values()} == {"lua"}
    fewer = found["direction", OPPOSITE].n
    assert 0 < fewer < 24 and all(one.n == 24 for (metric, _), one in found.items() if metric != "direction")
    shown = calibration_table(list(found.values()))
    assert len(shown) == len(found) / 2 and {len(line) for line in shown} == {4}
    caption = calibration_caption(list(found.values()))
    assert caption.endswith(f"24 built-in edits in lua. Direction of the change covers {fewer} of them.")
    assert calibration_caption([]) == ""
    assert auc_of(list(found.values()), "b_norm") == f"{found['b_norm', ANOTHER].auc:.2f}" and auc_of([], "x") == "–"


def test_programs_are_calibrated_in_python_where_the_target_is_not_built_in(tmp_path, monkeypatch):
    """No program is run: those that are changed are chosen by a failing test, so running them would tell nothing."""
    monkeypatch.setattr(execute, "execute", lambda *_, **__: pytest.fail("executed"))
    found = {one.metric: one for one in calibrate(instruments(tmp_path, "generation"), "rust", 10)}
    assert not {"pass_at_1", "tests_passed", "behaviour"} & found.keys()
    assert auc_of(list(found.values()), "pass_at_1") == "–"
    assert "Scores that run programs have no AUC" in calibration_caption(list(found.values()))
    assert {(one.against, one.language) for one in found.values()} == {(CHANGED, "python")}
    assert found["parse_ok"].mean_same == 100 and found["exact_match"].auc == 0.5
    assert found["codebleu.dataflow"].label == "CodeBLEU, dataflow" and found["codebleu"].auc < 0.5
    assert calibrate(replace(instruments(tmp_path, "summarization"), programs=False), "lua", 4) == []


def test_a_row_has_a_value_of_its_own_in_every_metric():
    scores = score_texts(["a = b + 1", "x = 2"], ["a = b + 1", "y = 3 * z"], "python")
    for metric, score in scores.items():
        for values in row_values(metric, score).values():
            assert values.shape == (2,) and np.isfinite(values).all() and values[0] >= values[1]
