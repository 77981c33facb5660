"""What most tests of trainings need."""

from __future__ import annotations

import pytest


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project of its own, in which the test stands."""
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path
