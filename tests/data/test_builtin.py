"""Built-in rows: splits disjoint by structure in all languages together, programs of one's own to train on."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from functools import cache

import pytest

from studykit.data import encoding, prepare
from studykit.data import rows as data_rows
from studykit.data import splits as data_splits
from studykit.data.corpus import builtin_documents
from studykit.data.overview import leakage, overview, shared_groups
from studykit.data.polyglot import LANGUAGES
from studykit.errors import UserError
from studykit.study.parameters import check
from studykit.training.pretraining import train_tokenizer
from tests import made_runs

TASKS = ("generation", "translation", "commit", "summarization")
SIZES = {"source_examples": 60, "target_examples": 12, "valid_examples": 15, "test_examples": 40}


def params(task="generation", **values):
    given = {"task": task, "members": [x for x in LANGUAGES if x != "lua"] + ["lua"], "target": "lua"}
    return check("data", given | SIZES | values)


@cache
def rows_of(task):
    return prepare.prepare(params(task))[0]


def structures(rows, split):
    return {row.group for splits in rows.values() for row in splits[split]}


@pytest.mark.parametrize("task", TASKS)
def test_splits_are_disjoint_by_structure_in_all_languages_together(task):
    rows = rows_of(task)
    train, valid, test = (structures(rows, split) for split in data_splits.SPLITS)
    assert not train & valid and not train & test and not valid & test
    assert shared_groups(rows)["shared"] == {"train and valid": 0, "train and test": 0, "valid and test": 0}


@pytest.mark.parametrize("task", TASKS)
def test_every_language_has_the_rows_that_were_asked_for(task):
    for language, splits in rows_of(task).items():
        train = SIZES["target_examples" if language == "lua" else "source_examples"]
        assert [len(splits[split]) for split in data_splits.SPLITS] == [train, 15, 40]
        for row in splits["train"] + splits["test"]:
            assert row.language == language and row.target.strip()
            start, end = row.body
            assert row.prompt[start:end].strip()
        for split in data_splits.SPLITS:
            assert len({row.id for row in splits[split]}) == len(splits[split])


@pytest.mark.parametrize("task", TASKS)
def test_validation_and_test_are_the_same_programs_in_every_language(task):
    rows = rows_of(task)
    for split in ("valid", "test"):
        assert len({tuple(row.group for row in rows[x][split]) for x in rows}) == 1


def test_each_language_trains_on_programs_of_its_own():
    """Equal descriptions are equal programs."""
    programs = {x: {row.target for row in splits["train"]} for x, splits in rows_of("summarization").items()}
    assert len(set().union(*programs.values())) == sum(len(of) for of in programs.values()) == 5 * 60 + 12


@pytest.mark.parametrize("task", TASKS)
def test_only_written_code_is_checked_and_only_where_it_is_run(task):
    rows = [row for splits in rows_of(task).values() for row in splits["valid"] + splits["test"]]
    assert all(bool(row.check) == (task in ("generation", "translation")) for row in rows)
    assert not any(row.check for splits in rows_of(task).values() for row in splits["train"])


def test_a_translation_comes_from_another_language_of_the_study():
    for language, splits in rows_of("translation").items():
        sources = {row.source_language for row in splits["train"]}
        assert language not in sources and sources < set(LANGUAGES)


@pytest.mark.parametrize("task", TASKS)
def test_the_seed_decides_everything(task):
    assert prepare.prepare(params(task))[0] == rows_of(task) != prepare.prepare(params(task, seed=1))[0]


def test_the_target_is_among_the_languages():
    with pytest.raises(UserError, match="target='lua' is not among members"):
        prepare.prepare(params(members=["python"]))


def test_rows_survive_their_files(tmp_path):
    rows = copy.deepcopy(rows_of("generation"))
    rows["lua"]["train"][0] = replace(rows["lua"]["train"][0], stop=("\u2028 \U0001f600 \r\n",))
    data_rows.write_rows(tmp_path / "rows", rows)
    made_runs.finish(tmp_path, "data", {"target": "lua"})
    assert all(
        data_rows.DataRun(tmp_path).rows(x, split) == rows[x][split] for x in rows for split in data_splits.SPLITS
    )
    with pytest.raises(UserError, match="has no train rows for 'perl'; its languages are"):
        data_rows.DataRun(tmp_path).rows("perl", "train")


def test_the_overview_counts_what_encoding_does():
    p, rows = params(max_prompt_tokens=45, max_target_tokens=30), rows_of("generation")
    tokenizer = train_tokenizer([row.prompt + row.target for row in rows["go"]["train"]], 400)
    found = overview(rows, tokenizer, p)
    for entry in found["cut"]:
        encoded = [encoding.encode_row(row, tokenizer, 45, 30) for row in rows[entry["language"]][entry["split"]]]
        assert entry["prompts cut"] == sum(e.prompt_cut for e in encoded)
        assert entry["targets cut"] == sum(e.target_cut for e in encoded)
    assert found["headline"]["prompts cut"] > 0 < found["headline"]["targets cut"]
    assert found["headline"]["rows"] == 5 * 60 + 12 + 6 * 55 and json.loads(json.dumps(found)) == found


def test_a_planted_leak_is_found():
    rows = rows_of("generation")["lua"]
    leaked = {**rows, "train": [*rows["train"], rows["test"][0], rows["train"][0]]}
    assert leakage(leaked) == {"duplicates in train": 1, "test pairs in train": 1, "test targets in train": 1,
                                     "test groups in train": sum(r.group == rows["test"][0].group for r in rows["test"])}  # fmt: skip
    assert set(leakage(rows).values()) == {0}
    assert shared_groups({"go": rows, "lua": leaked})["shared"]["train and test"] == 1


@pytest.mark.parametrize("seed", [0, 3])
def test_the_base_reads_no_training_program_of_the_adapters(seed):
    """Not one of them stands in the base's text, in any language, be it a structure that both have."""
    data = prepare.prepare(params(seed=seed, source_examples=400))[0]
    trained = {row.target.strip() for splits in data.values() for row in splits["train"]}
    read = {d.text.strip() for d in builtin_documents(list(LANGUAGES), "lua", 4000, 0.1, seed)}
    assert len(trained) > 1500 and len(read) > 3000 and not trained & read
