"""Fixtures of the tests of claims."""

import pytest

from claims.jobs import Place


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "runs", None)
