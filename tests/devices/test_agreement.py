"""Differences between processes, in words."""

import pytest

from devices import agreement

pytestmark = pytest.mark.quick


def test_values_are_shown_with_their_processes():
    brought = [{"seed": 0}, {"seed": 1}, {"seed": 0}, {"seed": 1}, {"seed": None}]
    (line,) = agreement.differences(brought, own=1)
    assert line == "seed: 1 here, 0 at processes 0, 2, None at process 4"
