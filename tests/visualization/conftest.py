"""A trained run to look into, and commands run in this process."""

import importlib

import pytest

from tests.conftest import ROOT
from tests.runs import TINY


@pytest.fixture(scope="session")
def run(tmp_path_factory, private_cache):
    """A run of two steps of a small two-tower network on the digits, and two checkpoints."""
    import main

    workdir = tmp_path_factory.mktemp("looking") / "run"
    line = ["main.py", *TINY, "--config.checkpoint_every_steps=1", f"--workdir={workdir}"]
    assert main.main([*line, "--config.total_steps=2"]) == 0
    return workdir


@pytest.fixture
def look(monkeypatch, capsys):
    """Runs a command of visualization: (exit code, printed lines, standard error)."""
    monkeypatch.chdir(ROOT)

    def command(name, *arguments):
        from visualization import command_line

        module = importlib.import_module(f"visualization.{name}")
        parts = module.__doc__, module.add_flags, module.draw, getattr(module, "network", None)
        code = command_line.run([str(argument) for argument in arguments], *parts)
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err

    return command
