"""The commands in the documents run what the sentences around them say."""

import re

import pytest

from tests.conftest import ROOT

DOCUMENTS = [*ROOT.glob("*.md"), *sorted(ROOT.glob("docs/**/*.md"))]


@pytest.mark.quick
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_leave_out_no_slow_test(path):
    """Without -m pytest leaves the slow ones out, which may be those that show what is said."""
    for command in re.findall(r"`python -m pytest([^`]*)`", path.read_text(encoding="utf-8")):
        for name in re.findall(r"\btests/[\w/.]*\w", command):
            place = ROOT / name
            assert place.exists(), command
            files = place.rglob("test_*.py") if place.is_dir() else [place]
            slow = [file.name for file in files if "pytest.mark.slow" in file.read_text()]
            assert not slow or " -m " in command, command
