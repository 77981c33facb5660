"""Values as text: three or four digits that never lose the size of a number, and units that a reader knows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studykit.runs.text import aligned, format_bytes, format_duration, format_value, plural

UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


@given(st.floats(0, 9e14))
def test_bytes_are_within_half_a_percent(count):
    number, unit = format_bytes(count).split()
    assert float(number) * UNITS[unit] == pytest.approx(count, rel=0.0051, abs=0.5)
    assert len(number) <= 4 and "e" not in number


def test_bytes():
    counts = (0, 999, 1500, 999_600, 2e6, 3.25e9, 24e9, 5e12, -601e6)
    assert [format_bytes(count) for count in counts] == [
        "0 B", "999 B", "1.50 kB", "1.00 MB", "2.00 MB", "3.25 GB", "24.0 GB", "5.00 TB", "-601 MB"]  # fmt: skip


@pytest.mark.parametrize("seconds, exact, rounded", [
    (0.04, "0.0 s", "0 s"), (59.94, "59.9 s", "60 s"), (59.96, "1 min 0 s", "60 s"), (138, "2 min 18 s", "2 min"),
    (7384, "2 h 3 min", "2.1 h"),
])  # fmt: skip
def test_durations(seconds, exact, rounded):
    assert (format_duration(seconds), format_duration(seconds, rounded=True)) == (exact, rounded)


@pytest.mark.parametrize("value, text", [
    (None, "–"), (True, "yes"), (False, "no"), (0, "0"), (1234567, "1,234,567"), (0.5, "0.5"), (0.0, "0"),
    (0.00001234, "1.234e-05"), (999.6, "999.6"), (999.96, "1,000"), (12345.678, "12,346"), (-1500.0, "-1,500"),
    ([1, "a", None], "1, a, –"), ({"a": 1500}, "a: 1,500"), ("x\ny", "x\ny"),
])  # fmt: skip
def test_values(value, text):
    assert format_value(value) == text


def test_values_of_three_digits():
    numbers = (0.123456, 12.3456, 999.6, -5.0, 1e-7)
    assert [format_value(number, 3) for number in numbers] == ["0.123", "12.3", "1,000", "-5", "1e-07"]


def test_a_noun_has_an_s_unless_there_is_one():
    assert [plural(count, "seed") for count in (0, 1, 2, 1200)] == ["0 seeds", "1 seed", "2 seeds", "1,200 seeds"]


def test_lines_of_a_table_fit_a_terminal():
    rows = [
        ["name", "n"],
        ["  one two three", "1"],
        ["advfusion_exclude-houlsby@python - adapterfusion-houlsby", "1,200"],
    ]
    assert aligned(rows[:2]) == ["name             n", "  one two three  1"]
    lines = aligned(rows, width=36)
    assert max(map(len, lines)) <= 36 and lines[1].endswith("    1")
    assert lines[2:] == ["advfusion_exclude-houlsby@pyt  1,200", "  hon - adapterfusion-houlsby"]
