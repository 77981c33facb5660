"""What most tests of trainings need."""

from __future__ import annotations

from functools import partial

import pytest

from tests import tiny


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project of its own, in which the test stands."""
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def wide_base(monkeypatch):
    """Makes the bases of tests.tiny as wide as 4 bits need on a CPU."""
    monkeypatch.setattr(tiny, "tiny", partial(tiny.tiny, hidden_size=64, intermediate_size=64, head_dim=16))
