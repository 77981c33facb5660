"""The rule of xCodeEval's judge: space and notation do not count, values do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studykit.evaluation.execution.output import same_output

TOKENS = st.lists(st.one_of(st.integers().map(str), st.floats().map(repr), st.text("abyesno", min_size=1)), max_size=6)


@given(TOKENS)
def test_every_output_is_its_own_in_any_layout(tokens):
    text = " ".join(tokens)
    assert same_output(text, text) and same_output("\n".join(tokens) + "\n", f"  {text} ")


@given(TOKENS, TOKENS)
def test_the_rule_is_symmetric(left, right):
    assert same_output(" ".join(left), " ".join(right)) == same_output(" ".join(right), " ".join(left))


@pytest.mark.parametrize("got, expected, same", [
    ("1 2\n3\n", "1 2\n3", True),
    ("1 2 \r\n3", "1 2\n3", True),
    ("1 2 3", "1\n2\n3", True),  # by tokens
    ("1 2", "1 2 3", False),
    ("", "", True),
    ("", "0", False),
    ("YES\nno", "Yes\nNO", True),
    ("TRUE", "true", True),
    ("Maybe", "maybe", False),
    ("yes", "no", False),
    ("0.5", ".50", True),
    ("1e3", "1000", True),
    ("1.0000000000001", "1", True),
    ("1.00000000001", "1", False),  # 1e-11
    ("1000000.0000001", "1000000", False),  # the tolerance is absolute
    ("12345678901234567890123456789012", "12345678901234567890123456789013", False),  # more digits than a float has
    ("-0", "0", True),
    ("inf", "Infinity", False),  # words
    ("nan", "nan", True),
    ("1_000", "1000", False),
    ("1e999999999999999999", "2e999999999999999999", False),
    ("abc", "1", False),
])  # fmt: skip
def test_table(got, expected, same):
    assert same_output(got, expected) is same
