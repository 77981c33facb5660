"""Templates, and rows as token ids: markers stay, a cut target gets no end, the loss is on the target alone."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from functools import cache, partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studykit.data.encoding import encode_prompt, encode_row
from studykit.data.prompts import render_prompt
from studykit.data.rows import Row
from studykit.errors import UserError
from studykit.study.templates import BODIES, PLACEHOLDERS, TEMPLATES, check_template
from studykit.training.pretraining import train_tokenizer

# Composed (NFC) as the tokenizer has it, so that what it decodes can be compared.
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=120).map(partial(unicodedata.normalize, "NFC"))


@cache
def tokenizer():
    return train_tokenizer(
        ["def solve(a, b):\n    return a + 10", "### Description:\n### Code written in Lua:\n"] * 9, 300
    )


def example(body: str, target: str = "return a", task: str = "generation") -> Row:
    fields = dict.fromkeys(PLACEHOLDERS[task], "") | {BODIES[task][0]: body, "language": "lua", "source_language": "go"}
    prompt, span = render_prompt(task, TEMPLATES[task], fields)
    return Row("1", "lua", prompt, target, span)


def decoded(ids: list[int]) -> str:
    return tokenizer().decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("task", TEMPLATES)
@settings(deadline=None)
@given(body=TEXT)
def test_the_body_is_where_the_span_says(task, body):
    row = example(body, task=task)
    start, end = row.body
    other = example("", task=task)
    rest = other.prompt[slice(*other.body)]  # markers between the holes of a body
    assert row.prompt[start:end] == body + rest
    other = replace(other, prompt=other.prompt.replace(rest, "")) if rest else other
    assert row.prompt[:start] + row.prompt[end:] == other.prompt


def test_the_default_prompt_of_each_task():
    assert example("x", task="generation").prompt == "### Description:\nx\n### Code written in Lua:\n"
    assert example("x", task="translation").prompt == "### Code written in Go:\nx\n### Code written in Lua:\n"
    assert example("x", task="commit").prompt.endswith("### Diff:\nx\n### Commit Message:\n")
    assert example("x", task="summarization").prompt == "x\n### Response:\n"
    assert example("x", task="naming").prompt == "x\n### Name of METHOD_NAME:\n"
    assert example("x", task="benchmark").prompt == "x"
    assert example("x", task="xcodeeval").prompt.startswith("### Description:\nx\n### Input:\n")


def test_every_default_template_is_one_that_may_be_given():
    assert all(check_template(kind, text) == text == check_template(kind, None) for kind, text in TEMPLATES.items())


@pytest.mark.parametrize("task, template, said", [
    ("generation", "{descripton} in", "has the placeholder {descripton}; accepted are ['description', 'language']"),
    ("generation", "{description} {code}", "has the placeholder {code}"),
    ("generation", "{description} from {source_language}", "has the placeholder {source_language}"),
    ("generation", "Write {description!r}", "has the placeholder {descriptionr}"),
    ("generation", "Write {description:>90}", "has the placeholder {description>90}"),
    ("generation", "Write {language.upper}: {description}", "has the placeholder {language.upper}"),
    ("generation", "Write {}", "has the placeholder {}"),
    ("generation", "Write {description", "is unusable (expected '}' before end of string)"),
    ("generation", "Write } {description}", "is unusable (Single '}' encountered in format string)"),
    ("generation", "Write {{description}}", "needs the placeholder {description} once"),
    ("generation", "{description} and {description}", "needs the placeholder {description} once"),
    ("generation", "Write {language}", "needs the placeholder {description} once"),
    ("generation", "{description}\n", "and some text around it"),
    ("commit", "", "needs the placeholder {diff} once"),
])  # fmt: skip
def test_what_a_template_may_not_be(task, template, said):
    with pytest.raises(UserError) as error:
        check_template(task, template)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_template_of_ones_own():
    template = check_template("translation", "{{{language}}} from {source_language}: {code} ->")
    prompt, (start, end) = render_prompt(
        "translation", template, {"language": "c#", "source_language": "go", "code": "{x}"}
    )
    assert prompt == "{C#} from Go: {x} ->" and prompt[start:end] == "{x}"


@settings(deadline=None)
@given(body=TEXT, limit=st.integers(40, 80))
def test_a_prompt_is_cut_in_its_body_alone(body, limit):
    row = example(body)
    start, end = row.body
    ids, cut = encode_prompt(row, tokenizer(), limit)
    assert len(ids) <= limit
    assert cut == (len(tokenizer()(row.prompt)["input_ids"]) > limit)
    text = decoded(ids)
    assert text.startswith(row.prompt[:start]) and text.endswith(row.prompt[end:])
    assert body.startswith(text[start : len(text) - (len(row.prompt) - end)])
    assert cut or text == row.prompt


def test_no_room_for_the_template():
    with pytest.raises(UserError, match="max_prompt_tokens=4 is too small: the template alone of row '1' takes"):
        encode_prompt(example("a long description"), tokenizer(), 4)


def test_a_prompt_without_a_span_is_all_body():
    row = Row("1", "lua", "a b c d e f", "t")
    ids, cut = encode_prompt(row, tokenizer(), 4)
    assert cut and len(ids) <= 4 and "a b c d e f".startswith(decoded(ids))


@settings(deadline=None)
@given(body=TEXT, target=TEXT.filter(bool), limit=st.integers(1, 40))
def test_a_row_in_training(body, target, limit):
    row = example(body, target)
    encoded = encode_row(row, tokenizer(), 60, limit)
    ids, labels, n = encoded.input_ids, encoded.labels, encoded.prompt_length
    whole = tokenizer()(target)["input_ids"]
    assert (ids[:n], encoded.prompt_cut) == encode_prompt(row, tokenizer(), 60)
    assert labels == [-100] * n + ids[n:] and len(ids) - n <= limit
    assert encoded.target_cut == (len(whole) + 1 > limit)
    if encoded.target_cut:  # no false end
        assert ids[n:] == whole[:limit] and tokenizer().eos_token_id not in ids
    else:
        assert ids[n:] == [*whole, tokenizer().eos_token_id]


def test_prompt_and_target_are_tokenized_as_in_generation():
    row = example("x", "\n\nreturn a")
    encoded = encode_row(row, tokenizer(), 60, 40)
    assert encoded.input_ids[: encoded.prompt_length] == tokenizer()(row.prompt)["input_ids"]


@cache
def tokenizer_with_start():
    """One that puts a start token before every text, as Llama's does."""
    from tokenizers.processors import TemplateProcessing

    made = train_tokenizer(["def solve(a, b):\n    return a + 10", "### Description:\n"] * 9, 300)
    made.add_special_tokens({"bos_token": "<s>"})
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", made.bos_token_id)]
    )
    return made


@settings(deadline=None)
@given(body=TEXT, target=TEXT.filter(bool), limits=st.tuples(st.integers(40, 80), st.integers(1, 40)))
def test_a_start_token_stands_once_and_first_whatever_is_cut(body, target, limits):
    tokens = tokenizer_with_start()
    encoded = encode_row(example(body, target), tokens, *limits)
    assert encoded.input_ids.index(tokens.bos_token_id) == 0
    assert encoded.input_ids.count(tokens.bos_token_id) == 1
    assert encoded.labels.count(tokens.bos_token_id) == 0 and encoded.prompt_length <= limits[0]
    assert (encoded.input_ids[-1] == tokens.eos_token_id) != encoded.target_cut


@settings(deadline=None)
@given(body=st.text("\U0001f600é漢a", min_size=30, max_size=60), limit=st.integers(40, 60))
def test_no_character_is_cut_in_two(body, limit):
    """Each of these but the last takes several tokens."""
    ids, _ = encode_prompt(example(body), tokenizer(), limit)
    assert "\ufffd" not in decoded(ids)


def test_a_body_of_several_holes_is_cut_from_its_end():
    fields = dict.fromkeys(PLACEHOLDERS["xcodeeval"], "") | {
        "language": "go",
        "description": "say",
        "samples": "9 " * 90,
    }
    prompt, span = render_prompt("xcodeeval", TEMPLATES["xcodeeval"], fields)
    row = Row("1", "go", prompt, "x", span)
    ids, cut = encode_prompt(row, tokenizer(), 130)
    text = decoded(ids)
    assert cut and text.startswith("### Description:\nsay\n### Input:\n\n### Output:\n\n### Examples:\n9 9")
    assert text.endswith("\n### Code written in Go:\n") and len(ids) <= 130
