"""Few-shot prompts: as many examples as fit, before a prompt that is cut as without them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from studykit.data.encoding import encode_prompt
from studykit.evaluation import evaluate
from studykit.evaluation.few_shot import END, with_examples
from studykit.evaluation.samples import read_samples
from studykit.runs import store
from studykit.study.parameters import EvaluateParams
from tests import tiny


@pytest.mark.parametrize("room, expected", [(400, 3), (80, 1), (20, 0)])
def test_as_many_examples_as_fit_stand_before_the_prompt(room, expected):
    tokens, examples, rows = tiny.tokenizer(), tiny.rows(5), tiny.rows(3, first=12)
    prompted, counts = with_examples(rows, examples, tokens, shots=3, max_prompt_tokens=24, room=room)
    for row, shown, count in zip(rows, prompted, counts, strict=True):
        before = "".join(example.prompt + example.target + END for example in examples[:count])
        assert shown.prompt == before + row.prompt and shown.prompt[slice(*shown.body)] == row.prompt
        assert (shown.target, shown.stop) == (row.target, (*row.stop, END)) and abs(count - expected) <= 1
        ids, is_cut = encode_prompt(shown, tokens, max(room, 24))
        assert not is_cut and len(ids) <= max(room, 24)


def test_a_long_prompt_is_cut_as_for_every_method():
    tokens, (row,) = tiny.tokenizer(), tiny.rows(1)
    long = replace(row, prompt=row.prompt * 9)
    (shown,), _ = with_examples([long], tiny.rows(2), tokens, shots=2, max_prompt_tokens=24, room=400)
    ids, _ = encode_prompt(long, tokens, 24)
    assert encode_prompt(replace(shown, prompt=shown.prompt[slice(*shown.body)], body=None), tokens, 99)[0] == ids


def test_the_method_is_compared_under_the_settings_of_all_others(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    base, data, scores = tiny.base_run(tmp_path), tiny.data_run(tmp_path), {}
    for method in ("base", "fewshot"):
        p = EvaluateParams(base=base, data=data, trained_runs=[], seeds=[], language="lua", method=method, shots=2,
                           max_new_tokens=8, batch_size=2, out=f"runs/evaluate/{method}-0000000010")  # fmt: skip
        with store.open_run(p.out, stage="evaluate", params=p) as run:
            scores[method] = evaluate.evaluate_method(p, run)
            run.publish(headline={})
    (shown,), (bare,) = scores["fewshot"].checkpoints, scores["base"].checkpoints
    assert scores["fewshot"].settings == scores["base"].settings and bare.shots is None
    assert 0 < shown.shots <= 2
    of = {name: read_samples(f"runs/evaluate/{name}-0000000010", one) for name, one in
          (("fewshot", shown), ("base", bare))}  # fmt: skip
    assert [s.id for s in of["fewshot"]] == [s.id for s in of["base"]]
    assert [s.nats for s in of["fewshot"]] != [s.nats for s in of["base"]], "the examples are read"
