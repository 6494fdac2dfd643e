"""Runs to look into, with parameters drawn by NumPy, and commands run in this process."""

import importlib

import pytest

from tests.conftest import ROOT
from tests.runs import TINY, drawn_run


@pytest.fixture(scope="session")
def towers(tmp_path_factory, private_cache):
    """Two checkpoints of a small two-tower network on the digits."""
    return drawn_run(tmp_path_factory.mktemp("towers") / "run", *TINY, steps=(1, 2))


@pytest.fixture(scope="session")
def run(tmp_path_factory, private_cache):
    """A checkpoint of Caffe's LeNet, which compiles quickly, on the digits."""
    return drawn_run(
        tmp_path_factory.mktemp("lenet") / "run",
        "--config=configs/lenet5.py:caffe",
        "--config.data.name=digits",
        "--config.data.validation_examples=77",
    )


@pytest.fixture
def look(monkeypatch, capsys):
    """Runs a command of visualization: (exit code, printed lines, standard error)."""
    monkeypatch.chdir(ROOT)

    def command(name, *arguments):
        from visualization import command_line

        module = importlib.import_module(f"visualization.{name}")
        opener = getattr(module, "opener", getattr(module, "network", None))
        shared = getattr(module, "SHARED", command_line.SHARED)
        parts = module.__doc__, module.add_flags, module.draw, opener, shared
        code = command_line.run([str(argument) for argument in arguments], *parts)
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err

    return command
