"""What notebooks and study files accept, and the sentences for what they do not."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from studykit.errors import UserError
from studykit.evaluation.execution import runtimes
from studykit.study import fields
from studykit.study.family import load_plan
from studykit.study.fields import kind
from studykit.study.file import Study, load_study, read_study
from studykit.study.parameters import STAGES, check
from studykit.study.yaml_file import read_yaml

ROOT = Path(__file__).parents[2]
GOOD = """
study: small
task: generation
members: [python, go]
target: lua
methods: [base, bottleneck]
seeds: [0, 1]
"""


def load(tmp_path: Path, text: str, **options) -> Study:
    (tmp_path / "x.yaml").write_text(text)
    return load_study("x.yaml", tmp_path, **options)


def with_line(line: str, of: str = GOOD) -> str:
    """GOOD with one top-level line replaced or added."""
    key = line.split(":")[0]
    kept = [old for old in of.strip().split("\n") if old.split(":")[0] != key]
    return "\n".join([*kept, line]) + "\n"


BAD_STUDIES = {
    "adapter: {learning_rat: 1}": "adapter.learning_rat is unknown; did you mean learning_rate?",
    "fusion: {weights_learning_rate: 0.1}": "fusion.weights_learning_rate is unknown; it is now called by_method.scalar_mix.learning_rate.",
    "adapter: {full_learning_rate: 1}": "adapter.full_learning_rate is unknown; it is now called by_method.full.learning_rate.",
    "fusion: {by_method: {advfusio: {}}}": "fusion.by_method: the method 'advfusio' is unknown; the nearest known is advfusion_zero",
    "fusion: {by_method: {lora: {steps: 4}}}": "fusion.by_method names 'lora'; it may name advfusion and the words",
    "fusion: {by_method: {advfusion: {learning_rat: 1}}}": "by_method.advfusion.learning_rat is unknown; did you mean learning_rate?",
    "adapter: {by_method: {lora: {learning_rate: 3.0}}}": "adapter.by_method.lora.learning_rate is 3.0; it must be at most 1",
    "adapter: {by_method: {lora: {language: x}}}": "adapter.by_method.lora.language is unknown",
    "adapter: {by_method: {adapterfusion: {}}}": "adapter.by_method names 'adapterfusion'; it may name bottleneck",
    "methods: [weights-lora]": "methods[0]: the method 'weights-lora' is unknown; it is now called 'scalar_mix-lora'.",
    "membrs: [c]": "membrs is unknown; did you mean members?",
    "languages: [c]": "languages is unknown; it is now called members.",
    "zzz: 1": "zzz is unknown; known are study, question, task",
    "adapter: {base: runs/x}": "adapter.base is decided by the plan; leave it out",
    "adapter: {target_stps: 3}": "did you mean target_steps?",
    "evaluate: {sources: [rust]}": "evaluate.sources names 'rust'; it may name python",
    "evaluate: {sources: 3}": "evaluate.sources is 3; it must be a list",
    "evaluate: {source: true}": "evaluate.source is unknown; did you mean sources?",
    "adapter: 3": "adapter is 3; it must be a mapping of parameters",
    "adapter: [1]": "adapter is [1]; it must be a mapping of parameters",
    "adapter: {steps: 0}": "adapter.steps is 0; it must be at least 1",
    "adapter: {steps: many}": "adapter.steps is 'many'; it must be an integer",
    "adapter: {steps: true}": "adapter.steps is true; it must be an integer",
    "adapter: {steps: 3.5}": "adapter.steps is 3.5; it must be an integer",
    "adapter: {steps: null}": "adapter.steps is null; it must be an integer",
    "adapter: {learning_rate: '1e-3'}": "adapter.learning_rate is '1e-3'; it must be a number",
    "adapter: {learning_rate: .nan}": "adapter.learning_rate is nan; it must be a finite number",
    "adapter: {learning_rate: 0}": "adapter.learning_rate is 0; it must be greater than 0",
    "adapter: {learning_rate: 2.5}": "adapter.learning_rate is 2.5; it must be at most 1",
    "adapter: {lora_dropout: 1.0}": "adapter.lora_dropout is 1.0; it must be less than 1",
    "adapter: {loss_on: all}": "adapter.loss_on is 'all'; it must be one of 'completion' or 'sequence'",
    "base_model: {heads: 5}": "base_model: hidden_size is 96; it must be a multiple of 2 * heads",
    "study: Big Study": "study is 'Big Study'; it must be of lower-case letters, digits and _",
    "study: 3": "study is 3; it must be text",
    "task: poetry": "task is 'poetry'; it must be one of 'generation'",
    "target: python": "target is 'python', which is also among members",
    "target: cobol": "target names 'cobol', but the built-in corpus can write only python",
    "target: [lua]": "target is ['lua']; it must be text",
    "members: []": "members is []; it must be a list that is not empty",
    "members: python": "members is 'python'; it must be a list",
    "members: [python, python]": "members names 'python' twice",
    "members: ['py thon']": "members names 'py thon'; a member must start with a letter",
    "members: [no]": "members names 'no', but the built-in corpus",
    "methods: [bas]": "methods[0]: the method 'bas' is unknown; the nearest known is base.",
    "methods: [base, advfusion]": "methods[1]: the method 'advfusion' is unknown; the nearest known is",
    "methods: base": "methods is 'base'; it must be a list",
    "methods: {base: 1}": "methods is {'base': 1}; it must be a list",
    "methods: []": "methods is []; it must be a list that is not empty",
    "target:": "target is null; it must be text",
    "members: [Python]": "members names 'Python', but the built-in corpus can write only python",
    "members: [python, {a: b}]": "members[1] is {'a': 'b'}; it must be text",
    "language: lua": "language is 'lua'; it may be given only with members_are: tasks",
    "members_are: task": "members_are is 'task'; it must be one of 'languages' or 'tasks'",
    "members_are: tasks": "language is null; with members_are: tasks it must be a built-in language (python",
    "members_are: tasks\nlanguage: lua": "members names 'python'; with members_are: tasks it may name code, gen",
    "seeds: 1, 2": "seeds is '1, 2'; it must be a list",
    "seeds: [0, 0.5]": "seeds[1] is 0.5; it must be an integer",
    "seeds: [99999999999]": "seeds holds 99999999999; a seed must be at least 0 and less than 2**32",
    "base: 3": "base is 3; it must be text",
    "question: 3": "question is 3; it must be text",
    "members_on: nothing": "members_on is 'nothing'; it must be one of 'task' or 'code'",
    "data: {level: 1}": "data.level is unknown; known are path, test_path",
    "data: {path: [a]}": "data.path is ['a']; it must be text",
    "base_model: {steps: 1e3}": "base_model.steps is 1000.0; it must be an integer",
    "compare: {confidence: 95}": "compare.confidence is 95; it must be less than 1",
    "evaluate: {timeout: fast}": "evaluate.timeout is 'fast'; it must be a number",
    "evaluate: {pass_k: [2]}": "evaluate: pass_k holds 2; it may hold numbers from 1 to samples (1)",
    "fusion: {value_regularizer: -1}": "fusion.value_regularizer is -1; it must be at least 0",
    "fusion: {mask: zero}": "fusion.mask is decided by the plan; leave it out",
    "\tx: 1": "line 7: this is not YAML: found character '\\t'",
    "adapter:\n  steps: 1\n steps: 2": "line 9: this is not YAML",
    "methods: [base, base]": "methods names 'base' twice",
    "seeds: [0, 0]": "seeds names 0 twice",
    "seeds: [-1]": "seeds holds -1; a seed must be at least 0",
    "seeds: ['1']": "seeds[0] is '1'; it must be an integer",
    "members: [weight]": "members names 'weight', which is the name of a module of the tuner; a member must have another",
    "target: fusion": "target names 'fusion', which is the name of a module of the tuner",
    "members: [python, py]": "members names 'py', which is 'python' by another name; each may be named once",
    "seeds: 3": "seeds is 3; it must be a list",
    "compare: {baseline: lora}": "compare.baseline is 'lora'; it must be among methods (base, bottleneck)",
    "quantization: int4": "quantization is 'int4'; it must be one of 'none'",
    "base: a b": "base is 'a b'; it must be 'scratch', a hub id",
    "base: ./absent": "base is './absent', which does not exist",
    "task: naming": "task is 'naming', which has no built-in rows; set data.path",
    "data: {test_path: absent.json}": "data: test_path is 'absent.json', without a path to train on",
    "data: {shares: [1]}": "data: shares is [1.0]; it must be three numbers with the sum 1",
    "data: {shares: [a, b, c]}": "data.shares[0] is 'a'; it must be a number",
    "data: {path: absent.json}": "data.path is 'absent.json', which does not exist",
    "base_model: {corpus: absent}": "base_model.corpus is 'absent', which does not exist",
    "study: [": "this is not YAML",
    "seeds: [0]\nseeds: [1]": "the key 'seeds' is given twice",
    "3: 4": "3 is unknown; known are",
    "data: {path: {{DATA}}}": "line 7 is 'data: {path: {{DATA}}}': the key '{DATA}' is not a name",
    "? [a]": "line 7 is '? [a]': the key '[a]' is not a name",
    "seeds: [2024-13-45]": "seeds[0] is '2024-13-45'; it must be an integer",
    "seeds: [2024-12-24]": "seeds[0] is '2024-12-24'; it must be an integer",
    "seeds: [0b_]": "seeds[0] is '0b_'; it must be an integer",
    "seeds: [=]": "seeds[0] is '='; it must be an integer",
    "seeds: [!!bool x]": "seeds[0] is 'x'; it must be an integer",
    f"seeds: [{'9' * 5000}]": "seeds[0] is '99999",
    "question: !x y": "line 7 is 'question: !x y': it has a tag",
    "question: *a": "line 7 is 'question: *a': found undefined alias 'a'",
    "question: a\n---\nb: c": "line 8 is '---': found another document",
    "question: 'a\x07b'": "line 7: this is not YAML: it holds the control character '\\x07'",
    f"question: {'[' * 5000}": "x.yaml: it nests lists or mappings too deeply",
    "data: {path: ~nouser/x}": "data.path is '~nouser/x', which does not exist",
    f"data: {{path: {'x' * 5000}}}": "data.path is 'xxxxx",
    "data: {path: ''}": "data.path is ''; it must be text that is not empty",
    "data: {template: '{nope'}": "data.template is '{nope'; it must have {description} once",
    "data: {template: '{nope}'}": "only the placeholders {description}, {language}, and other braces doubled",
    'data: {template: "{a\\nb} {description}"}': "data.template is '{a\\nb} {description}'; it must have",
    "base_model: {corpus: ''}": "base_model.corpus is ''; it must be text that is not empty",
    "evaluate: {execute: [cobol]}": "evaluate.execute[0] is 'cobol'; it must be one of 'python', 'lua'",
    "methods: [average, average-bottleneck]": "methods names 'average' and 'average-bottleneck', which are one method",
    f"methods: [{'a' * 5000}]": "methods[0] is 'aaaaa",
    f"base: {'a ' * 5000}b": "base is 'a a a a",
    f"target: {'a' * 5000}": "target names 'aaaaa",
    f"{'a' * 300}: 1": "aaaaa",
    '"a\\nb": 1': "'a\\nb' is unknown; known are study",
    "adapter: {'': 1}": "adapter.'' is unknown; known are",
}


ACCEPTED = ("must", "may ", "did you mean", "now called", "known are", "leave it out", "nearest known", "can write only",
            "set data.path", "name only", "not YAML")  # fmt: skip


@pytest.mark.parametrize("line, said", BAD_STUDIES.items(), ids=[line[:60] for line in BAD_STUDIES])
def test_bad_study(tmp_path, line, said):
    """One sentence: the file, the key, the value, and what would be accepted."""
    with pytest.raises(UserError) as error:
        load(tmp_path, with_line(line))
    sentence = str(error.value)
    assert sentence.startswith("x.yaml:") and said in sentence
    assert "\n" not in sentence and len(sentence) < 450 and sentence[-1] in ".?)"
    assert any(word in sentence for word in ACCEPTED)


def test_values_may_be_shared_by_anchors_and_merge_keys(tmp_path):
    text = "adapter: &shared {batch_size: 3, steps: 7}\nfusion: {<<: *shared, steps: 9}\n"
    study = load(tmp_path, GOOD + text)
    assert (study.adapter.steps, study.fusion.steps, study.fusion.batch_size) == (7, 9, 3)


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: *a{i - 1}, y: *a{i - 1}, z: *a{i - 1}}}\n" for i in range(1, 30)
)


@pytest.mark.parametrize("text", [BOMB, MERGES, "question: &a [*a]", "question: &a {<<: *a}"], ids=range(4))
def test_values_that_multiply_are_refused_in_a_sentence(tmp_path, text):
    with pytest.raises(UserError, match="nests lists or mappings too deeply|undefined alias"):
        load(tmp_path, GOOD + text)


def test_merge_keys_may_name_several_mappings(tmp_path):
    text = "adapter: &a {batch_size: 3, steps: 7}\nfusion: {<<: [{steps: 9}, *a]}\n"
    study = load(tmp_path, GOOD + text)
    assert (study.fusion.steps, study.fusion.batch_size) == (9, 3)


@pytest.mark.parametrize("escape", ["\\e[2J", "\\0", "\\a", "\\x9b"])
def test_control_characters_are_refused_in_a_sentence(tmp_path, escape):
    with pytest.raises(UserError, match="x.yaml: line 7 holds a control character; text may hold line ends and tabs"):
        load(tmp_path, with_line(f'question: "a{escape}b"'))


def test_what_is_no_text_file_is_refused_in_a_sentence(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for name, said in (
        ("pipe.yaml", "^pipe.yaml is not a file"),
        (".", "^. is not a file"),
        ("a\0b", "cannot be read"),
    ):
        with pytest.raises(UserError, match=said):
            load_study(name, tmp_path)
    with pytest.raises(UserError, match="half of a surrogate pair"):
        load(tmp_path, with_line('question: "\\ud800"'))


@pytest.mark.parametrize(
    "more", ["", "\nvary: {size: {a: {data: {seed: 1}}}, data.seed: [1, 2]}\ngather: {over: [size]}"]
)
def test_a_dumped_study_is_read_back(tmp_path, more):
    (tmp_path / "x.yaml").write_text(with_line("question: 'one: \"two\" {three} # é'" + more))
    planned = load_plan("x.yaml", tmp_path)
    (tmp_path / "x.yaml").write_text(planned.dump())
    again = load_plan("x.yaml", tmp_path)
    assert again.study == planned.study and [run.name for run in again.runs] == [run.name for run in planned.runs]


@pytest.mark.parametrize("text", ["2024-12-24", "2024-13-45", "0b_", "=", "<<", "yes", "no", "1_000", "0x1f", "1:30"])
def test_text_that_yaml_might_take_for_something_else_is_text(tmp_path, text):
    assert load(tmp_path, with_line(f"question: {text}")).question == text


def test_a_template_may_have_the_placeholders_of_its_rows(tmp_path):
    (tmp_path / "rows.json").write_text("")
    rows = "data: {path: rows.json, template: 'Solve {description} as {input_spec}'}"
    assert load(tmp_path, with_line(rows)).data.template
    with pytest.raises(UserError, match=r"only the placeholders \{description\}, \{language\}, "):
        load(tmp_path, with_line(rows.replace("path: rows.json, ", "")))


def test_the_languages_that_can_be_run_are_those_with_a_runtime():
    assert set(get_args(fields.Runnable)) == set(runtimes.LANGUAGES)


@pytest.mark.parametrize("key", ["study", "task", "members", "target", "methods", "seeds"])
def test_missing_key(tmp_path, key):
    text = "\n".join(line for line in GOOD.split("\n") if not line.startswith(key))
    with pytest.raises(UserError, match=rf"x.yaml: {key} is missing; it must be given \("):
        load(tmp_path, text)


@pytest.mark.parametrize("content", [b"", b"- 1", b"word", b"\xff\xfe\x00"])
def test_no_mapping_at_all(tmp_path, content):
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(UserError, match="^x.yaml"):
        load_study("x.yaml", tmp_path)


def test_absent_file(tmp_path):
    with pytest.raises(UserError, match="absent.yaml cannot be read .*; name a file like"):
        load_study("absent.yaml", tmp_path)


def test_several_mistakes_are_counted(tmp_path):
    with pytest.raises(UserError, match=r"\(1 more of its values are wrong.\)"):
        load(tmp_path, with_line("adapter: {steps: x, patience: y}"))


def test_numbers_as_people_write_them(tmp_path):
    study = load(tmp_path, with_line("adapter: {learning_rate: 5e-3, reduction_factor: 4, weight_decay: 1.e-2}"))
    assert (study.adapter.learning_rate, study.adapter.reduction_factor, study.adapter.weight_decay) == (
        0.005,
        4.0,
        0.01,
    )
    assert isinstance(study.adapter.reduction_factor, float)


def test_a_section_that_is_all_comments_is_the_default(tmp_path):
    assert load(tmp_path, GOOD + "adapter:\n  # steps: 3\n").adapter == load(tmp_path, GOOD).adapter


def test_an_address_of_the_hub_is_no_path(tmp_path):
    rows = "data: {path: 'hf://datasets/o/n/x', test_path: 'hf://datasets/o/m@main'}"
    assert load(tmp_path, with_line(rows)).data.test_path == "hf://datasets/o/m@main"


def test_paths_are_seen_from_the_project(tmp_path):
    (tmp_path / "rows.json").write_text("")
    assert load(tmp_path, with_line("data: {path: rows.json}")).data.path == "rows.json"
    assert load(tmp_path, with_line("data: {path: absent.json}"), check_paths=False).data.path == "absent.json"


BAD_NOTEBOOKS = [
    ("adapter", {"stps": 3}, "02_adapter: stps is unknown; did you mean steps?"),
    ("adapter", {"steps": True}, "steps is true; it must be an integer"),
    ("adapter", {"steps": "60"}, "steps is '60'; it must be an integer"),
    ("adapter", {"steps": 60.0}, "steps is 60.0; it must be an integer"),
    ("adapter", {"learning_rate": "5e-3"}, "learning_rate is '5e-3'; it must be a number"),
    ("adapter", {"learning_rate": True}, "learning_rate is true; it must be a number"),
    ("adapter", {"learning_rate": float("inf")}, "learning_rate is inf; it must be a finite number"),
    ("adapter", {"method": "prefix"}, "method is 'prefix'; it must be one of 'bottleneck'"),
    ("adapter", {"language": None}, "language is null; it must be text"),
    ("adapter", {"seed": -1}, "seed is -1; it must be at least 0"),
    (
        "adapter",
        {"optimizer": "sgd"},
        "optimizer is 'sgd'; it must be one of 'adamw', 'adamw_8bit', 'paged_adamw_32bit' or 'paged_",
    ),
    ("fusion", {"carry_optimizer": True, "optimizer": "paged_adamw_8bit"}, "moments carry_optimizer cannot carry"),
    ("adapter", {"gradient_checkpointing": 1}, "gradient_checkpointing is 1; it must be true or false"),
    ("adapter", {"target_steps": 3}, "target_steps is unknown"),
    ("base_model", {"vocab_size": 10}, "vocab_size is 10; it must be at least 257"),
    ("base_model", {"hidden_size": 90}, "hidden_size is 90; it must be a multiple of 2 * heads"),
    ("base_model", {"languages": "lua"}, "languages is 'lua'; it must be a list"),
    ("data", {"task": "x"}, "task is 'x'; it must be one of"),
    ("data", {"path": 3}, "path is 3; it must be text"),
    ("data", {"members": [1]}, "members[0] is 1; it must be text"),
    ("fusion", {"mask": "zero"}, "mask is 'zero'; adapterfusion takes 'none'"),
    (
        "fusion",
        {"method": "advfusion", "masked_member": "go"},
        "masked_member is 'go'; without a mask it must be empty",
    ),
    ("fusion", {"members": ["a"]}, "members is ['a']; it must be a mapping"),
    ("fusion", {"members": {"lua": 3}}, "members.lua is 3; it must be text"),
    (
        "evaluate",
        {"trained_runs": ["runs/a"], "seeds": [0, 1]},
        "seeds is [0, 1]; it must name one seed per trained run (1)",
    ),
    ("evaluate", {"stop": ["a", ""]}, "stop[1] is ''; it must be text that is not empty"),
    ("evaluate", {"timeout": 0}, "timeout is 0; it must be greater than 0"),
    ("evaluate", {"limit": 0}, "limit is 0; it must be at least 1"),
    ("fusion_attention", {"method": "lora"}, "the method 'lora' has no weights per member"),
    ("fusion_attention", {"tokens": "all"}, "tokens is 'all'; it must be one of 'completion', 'prompt' or 'both'"),
    ("compare", {"confidence": 95}, "confidence is 95; it must be less than 1"),
    ("compare", {"adapters": {"lora": "runs/a"}}, "adapters.lora is 'runs/a'; it must be a list"),
]


@pytest.mark.parametrize("stage, values, said", BAD_NOTEBOOKS, ids=[f"{s}-{v}" for s, v, _ in BAD_NOTEBOOKS])
def test_bad_notebook_value(stage, values, said):
    with pytest.raises(UserError) as error:
        check(stage, values)
    assert str(error.value).startswith(STAGES[stage].notebook) and said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("stage", STAGES)
def test_every_parameter_says_what_it_is(stage):
    model = STAGES[stage].model
    assert all(field.description for field in model.model_fields.values())
    assert kind(model, "out") == "path"
    check(stage, {})  # every parameter has a default that is valid


def test_the_sentence_stands_alone_in_a_notebook():
    assert UserError("steps is 0.")._render_traceback_() == ["UserError: steps is 0."]
    assert isinstance(UserError("x"), ValueError)


def test_the_reserved_names_are_the_tuners_and_that_of_a_fusion():
    from studykit.training import fusions
    from studykit.tuners.config import RESERVED

    assert RESERVED | {fusions.FUSION} == fields.RESERVED_NAMES


def test_the_built_in_languages_are_the_corpus_own():
    polyglot = pytest.importorskip("studykit.data.polyglot")
    assert set(fields.POLYGLOT) == set(polyglot.LANGUAGES)


STUDIES = sorted((ROOT / "params").glob("**/*.yaml"))
SECTIONS = [stage for stage in STAGES if stage in Study.model_fields]  # all but that of families


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.name)
def test_studies_of_the_repository(file):
    name = "_".join(file.relative_to(ROOT / "params").with_suffix("").parts)
    assert load_plan(file, ROOT, check_paths=False).study.study == name
    assert "../" not in file.read_text(), "a path that no reader has"


def test_a_study_like_another_has_its_keys_but_for_its_own(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "study: mine\nmethods: [base, lora]\ntask: generation\nmembers: [go]\ntarget: lua\n"
        "seeds: [0]\nvary: {seeds: [[0], [1]]}\ngather: {covariate: parameters, contrasts: [[lora, base]]}\n"
        "adapter: {steps: 7, batch_size: 3}\n"
    )
    (tmp_path / "other.yaml").write_text(
        "study: other\nlike: mine.yaml\nmembers: [python]\nvary: {data.seed: [3, 4]}\n"
        "gather: {covariate: null}\nadapter: {steps: 9}\n"
    )
    assert read_study("other.yaml", tmp_path) == {
        "study": "other", "methods": ["base", "lora"], "task": "generation", "members": ["python"], "target": "lua",
        "seeds": [0],
        "vary": {"data.seed": [3, 4]}, "gather": {"covariate": None, "contrasts": [["lora", "base"]]},
        "adapter": {"steps": 9, "batch_size": 3},
    }  # fmt: skip
    family = load_plan("other.yaml", tmp_path)
    assert [member.study.data.seed for member in family.members] == [3, 4]
    assert family.study.adapter.steps == 9


@pytest.mark.parametrize(
    "text, said",
    [
        ("study: x\nlike: nowhere.yaml", "nowhere.yaml cannot be read"),
        ("study: x\nlike: [mine.yaml]", "`like` names a study file"),
        ("like: mine.yaml", "beside a `study` of its own"),
        ("study: x\nlike: y.yaml", "y.yaml, which is like mine.yaml"),
    ],
)
def test_what_a_study_cannot_be_like_is_said(tmp_path, text, said):
    (tmp_path / "mine.yaml").write_text("study: mine\n")
    (tmp_path / "y.yaml").write_text("study: y\nlike: mine.yaml\n")
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        read_study("x.yaml", tmp_path)


def test_the_quickstart_has_every_key_under_a_comment():
    file = ROOT / "params/quickstart.yaml"
    study, lines, written = load_study(file, ROOT), file.read_text().split("\n"), read_yaml(file, ROOT)
    assert set(written) == set(Study.model_fields)
    for stage in SECTIONS:
        assert set(written[stage]) == set(type(getattr(study, stage)).model_fields)
    keys = [i for i, line in enumerate(lines) if re.match(r"\s*\w+:", line) and line.rstrip(":") not in STAGES]
    for i in keys:
        first = next(n for n in range(i - 1, -1, -1) if not re.match(r"\s*# (?!\(type: )", lines[n]))
        assert re.match(r"\s*# \(type: .+\) \S", lines[first]), f"line {i + 1} has no comment with its type"


@pytest.mark.parametrize("file", [file for file in STUDIES if file.stem != "quickstart"], ids=lambda file: file.name)
def test_another_study_holds_only_what_differs(file):
    written = read_yaml(file, ROOT)
    like = read_yaml(written["like"], ROOT) if "like" in written else {}
    for stage in SECTIONS:
        other = {k: field.default for k, field in Study.model_fields[stage].annotation.model_fields.items()}
        other |= like.get(stage, {})
        assert not [key for key, value in written.get(stage, {}).items() if value == other[key]]
    assert len(file.read_text().splitlines()) <= 75


@pytest.mark.parametrize(
    "model", [*(stage.model for stage in STAGES.values()), Study], ids=lambda model: model.__name__
)
def test_a_description_is_a_sentence_that_lists_the_words(model):
    for name, field in model.model_fields.items():
        if name in STAGES:
            continue
        assert re.match(r"[A-Z'p].+[.]$", field.description), f"{name}: {field.description}"
        words = [word for word in get_args(field.annotation) if isinstance(word, str)]
        if name not in ("format", "split_by"):
            assert all(word in field.description for word in words), f"{name} does not list {words}"


def test_comments_of_the_quickstart_tell_the_true_defaults():
    lines = (ROOT / "params/quickstart.yaml").read_text().split("\n")
    study, section = load_study("params/quickstart.yaml", ROOT), None
    for above, line in zip(lines, lines[1:], strict=False):
        if line.rstrip(":") in STAGES:
            section = type(getattr(study, line.rstrip(":")))
        told = re.search(r"default: ([^)]*)\)", above)
        key = line.strip().split(":")[0]
        if told and section and line.startswith("  ") and key in section.model_fields:
            assert yaml.safe_load(re.sub(r"^(\d)e-", r"\1.0e-", told[1])) == section.model_fields[key].default, key


@pytest.mark.parametrize("value", [0, -1.0, "warm", True, None])
def test_a_temperature_is_a_number_above_0_or_auto(value):
    with pytest.raises(UserError, match="temperature is .*; it must be a number above 0, or auto"):
        check("fusion", {"temperature": value})
    assert check("fusion", {"temperature": 24}).temperature == 24.0
    assert check("fusion", {"temperature": "auto"}).temperature == "auto"
