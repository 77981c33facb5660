"""Scores without each member: differences by hand, their pairing, and what a real fusion publishes."""

from __future__ import annotations

import json

import pytest

from studykit.data.rows import DataRun
from studykit.evaluation.muted_scores import ALL, compare_muted, read_muted_scores
from studykit.evaluation.scores import Score
from studykit.evaluation.without_members import measure_muted_scores
from studykit.report.fusion_weights import score_caption, score_table
from studykit.runs import files, store
from studykit.study.parameters import FusionAttentionParams
from studykit.training.base import load_base
from tests import tiny


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rate(rows: list[float]) -> dict[str, Score]:
    return {"pass_at_1": Score(label="pass@1", value=sum(rows) / len(rows), n=len(rows), per_example=rows)}


def test_what_is_lost_is_the_score_with_all_members_minus_the_score_without_paired_by_row():
    everything, nothing = [100.0] * 20 + [0.0] * 20, [0.0] * 40
    seed = {ALL: rate(everything), "go": rate(everything), "lua": rate(nothing)}
    one_fails = {**seed, "go": rate([0.0, *everything[1:]])}
    found = compare_muted("adapterfusion", [seed, one_fails], [None] * 40)
    go, lua = found.members
    assert (found.metric, found.label, found.unit, found.with_all, found.samples) == (
        "pass_at_1",
        "pass@1",
        "%",
        50,
        40,
    )
    assert lua.by_seed == [50, 50] and lua.value == 50 and lua.seed_interval.low == lua.seed_interval.high == 50
    assert lua.interval.low < 50 < lua.interval.high
    assert go.by_seed == [0, 2.5] and go.interval.low <= 0 < go.interval.high < 10, "all other rows cancel out"
    assert go.seed_interval.low < 0 < go.seed_interval.high
    assert [row["muted"] for row in score_table(found)] == ["go", "lua"] and "n = 40" in score_caption(found)
    grouped = compare_muted("adapterfusion", [seed], [str(i // 20) for i in range(40)]).members[1]
    assert grouped.seed_interval is None and grouped.interval.high > lua.interval.high, "two groups, not forty rows"


def test_without_execution_it_is_bleu_and_a_member_that_is_muted_is_out_of_the_softmax(home, monkeypatch):
    p = tiny.trained_fusion(home, "exclude")
    asked = FusionAttentionParams(
        base=p.base,
        data=p.data,
        trained_runs=[p.out],
        method="advfusion_exclude",
        seeds=[0],
        mute="score",
        out="runs/x/a-1",
    )
    base, tokens = load_base(p.base)
    rows = DataRun(p.data).rows("lua", "test")
    masks = []
    from studykit.evaluation import without_members

    masking = without_members.fusion_members
    monkeypatch.setattr(
        without_members, "fusion_members", lambda model, *mask: (masks.append(mask), masking(model, *mask))[1]
    )
    with store.open_run(asked.out, stage="fusion_attention", params=asked) as run:
        found = measure_muted_scores(base, tokens, asked, "lua", rows, run)
        assert masks[1:] == [([], "exclude"), *(([member], "exclude") for member in tiny.MEMBERS)]
        written = [path.name for path in sorted(run.checkpoints.glob("muted-*.jsonl"))]
        assert written == [f"muted-s0-{name}.jsonl" for name in sorted(["none", *tiny.MEMBERS])]
        monkeypatch.setattr("studykit.training.generate._try_batch", lambda *_: pytest.fail("it generates again"))
        assert measure_muted_scores(base, tokens, asked, "lua", rows, run) == found
    assert found.metric == "bleu_paper" and found.samples == 4 and [x.member for x in found.members] == tiny.MEMBERS
    files.write_json(home / "runs/x/muted_scores.json", found.model_dump(mode="json"))
    assert read_muted_scores("runs/x/muted_scores.json") == found and read_muted_scores("runs/x/none.json") is None
    assert json.loads((home / "runs/x/muted_scores.json").read_text())["members"]
