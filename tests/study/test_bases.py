"""The words for the published bases, and bases of the hub at a commit."""

from __future__ import annotations

import pytest

from studykit.errors import UserError
from studykit.study import bases, plan
from studykit.study.file import Study, load_study
from tests.project import ROOT

GOOD = {"study": "small", "task": "generation", "members": ["python", "go"], "target": "lua",
        "methods": ["base", "bottleneck"], "seeds": [0]}  # fmt: skip
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def study(**changes) -> Study:
    return Study.model_validate(GOOD | changes)


@pytest.mark.parametrize("word", bases.PUBLISHED)
def test_a_word_stands_for_a_base_as_published(word):
    made = study(base=word)
    published = bases.PUBLISHED[word]
    assert (made.base, made.quantization) == (published.hub_id, "nf4")
    for section in (made.adapter, made.fusion):
        assert (section.batch_size, section.gradient_accumulation) == (published[1], published[2])
        assert section.batch_size * section.gradient_accumulation == 4
    (base,) = (run for run in plan.plan(made) if run.stage == "base_model")
    assert base.params["base"] == published.hub_id and base.label == f"{made.base.split('/')[1].lower()}-nf4"


def test_what_a_study_sets_itself_is_kept():
    own = {"quantization": "none", "adapter": {"batch_size": 8}, "fusion": {"steps": 7}}
    made = study(base=f"codellama-7b@{COMMIT}", **own)
    assert made.base == f"codellama/CodeLlama-7b-hf@{COMMIT}" and made.quantization == "none"
    assert (made.adapter.batch_size, made.adapter.gradient_accumulation) == (8, 1)
    assert (made.fusion.batch_size, made.fusion.gradient_accumulation, made.fusion.steps) == (1, 4, 7)


def test_a_commit_is_part_of_the_key_and_not_of_the_label():
    one, two = (plan.plan(study(base=f"owner/name@{commit}"))[0] for commit in (COMMIT, COMMIT[::-1]))
    assert one.label == two.label == "name-none" and one.key != two.key


@pytest.mark.parametrize("name", ["owner/name@", "owner/name@a/b", "a/b/c", "owner name"])
def test_a_base_that_is_no_name(name):
    with pytest.raises(ValueError, match="it must be 'scratch', a hub id"):
        study(base=name)


def test_another_base_needs_no_other_change(tmp_path):
    text = (ROOT / "params/smollm2_ruby.yaml").read_text()
    (tmp_path / "own.yaml").write_text(text.replace("HuggingFaceTB/SmolLM2-135M@", "./models/mine # "))
    (tmp_path / "models/mine").mkdir(parents=True)
    assert load_study("own.yaml", tmp_path).base == "./models/mine"
    (tmp_path / "models/mine").rmdir()
    with pytest.raises(UserError, match="base is './models/mine', which does not exist"):
        load_study("own.yaml", tmp_path)
