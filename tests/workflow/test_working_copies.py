"""Working copies: made where they lack, replaced while nobody has edited them, kept once somebody has."""

from __future__ import annotations

import pytest

from studykit.workflow.working_copies import update_working_copies


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/02_adapter.ipynb").write_text("one")
    return tmp_path


def test_a_copy_is_made_once_and_follows_its_original_until_it_is_edited(home):
    original, copy = home / "notebooks/02_adapter.ipynb", home / "work/02_adapter.ipynb"
    assert update_working_copies() == [] and copy.read_text() == "one"
    original.write_text("two")
    assert update_working_copies() == [] and copy.read_text() == "two", "nobody has edited it"
    copy.write_text("mine")
    assert update_working_copies() == [] and copy.read_text() == "mine" and original.read_text() == "two"
    original.write_text("three")
    (note,) = update_working_copies()
    assert "work/02_adapter.ipynb was copied from an older notebooks/02_adapter.ipynb" in note
    assert copy.read_text() == "mine", "an edited copy is never replaced"
    copy.unlink()
    assert update_working_copies() == [] and copy.read_text() == "three"
