"""Paths that a user may give, and what may lie in the directories that are read back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import main
from tests.conftest import ROOT, write_images
from tests.runs import TINY, finish, start

# A run of two steps on eight images.
RUN = [
    *(a for a in TINY if "validation" not in a and "batch_size" not in a and "every" not in a),
    "--config.batch_size=4",
    "--config.data.name=folder",
]
CLASSES = {"train/a": 4, "train/b": 4, "val/a": 1, "val/b": 1}


@pytest.fixture
def call(monkeypatch, capfd):
    monkeypatch.chdir(ROOT)

    def run(*arguments, code=0):
        assert main.main(["main.py", *RUN, *map(str, arguments)]) == code
        out, err = capfd.readouterr()
        return out + err

    return run


@pytest.mark.slow
def test_homes_spaces_and_accents_in_every_path(tmp_path, call, monkeypatch):
    """Shells leave a ~ behind = as it is."""
    home = tmp_path / "Jos\u00e9's home"
    write_images(home / "my data", CLASSES)
    monkeypatch.setenv("HOME", str(home))
    (home / "mine.py").write_text((ROOT / "configs" / "alexnet.py").read_text())
    before = {path.name for path in ROOT.iterdir()}
    paths = [
        "--config=~/mine.py:digits",
        "--config.data.dir=~/my data",
        "--config.data.cache_dir=~/my cache",
        "--config.total_steps=2",
    ]
    call(*paths, "--workdir=~/my run")
    call(*paths, "--workdir=~/my run", "--mode=evaluate")
    call(*paths, "--workdir=~/my run", "--mode=export")
    call(*paths, "--workdir=~/2", "--config.init_from=~/my run", "--mode=evaluate")
    weights = "--config.init_from=~/my run/weights.safetensors"
    call(*paths, "--workdir=~/3", weights, "--mode=evaluate")
    prepared = "--config.data.prepared_dir=~/my shards"
    call(*paths, prepared, "--mode=prepare_data")
    call(*paths, prepared, "--workdir=~/4")
    made = {path.name for path in home.iterdir() if path.name not in ("__pycache__", ".keras")}
    assert made == {"my data", "my cache", "mine.py", "my run", "my shards", "2", "3", "4"}
    assert {path.name for path in ROOT.iterdir()} == before
    said = call(*paths, "--workdir=~nobody-of-this-name/x", code=2)
    assert "--workdir=~nobody-of-this-name/x: ~nobody-of-this-name is no home directory" in said


@pytest.mark.slow
def test_names_that_are_not_utf8(tmp_path, call):
    """Data, prepared data, cache and weights are taken; where Orbax needs UTF-8 that is said."""
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d \xff\xe9"))
    try:
        write_images(root / "data", CLASSES)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    paths = [
        f"--config.data.dir={root / 'data'}",
        f"--config.data.cache_dir={root / 'cache'}",
        "--config.total_steps=2",
    ]
    call(*paths, f"--workdir={tmp_path / 'run'}")
    call(*paths, f"--workdir={tmp_path / 'run'}", "--mode=export")
    (tmp_path / "run" / "weights.safetensors").rename(root / "w.safetensors")
    given = f"--config.init_from={root / 'w.safetensors'}"
    call(*paths, f"--workdir={tmp_path / 'again'}", given)
    prepared = f"--config.data.prepared_dir={root / 'shards'}"
    call(*paths, prepared, "--mode=prepare_data")
    call(*paths, prepared, f"--workdir={tmp_path / 'more'}")
    said = call(*paths, f"--workdir={root / 'run'}", code=2).strip().splitlines()[-1]
    assert said.startswith("error: ")
    assert "not a path in UTF-8" in said


def lay_strays(root):
    """What file systems, desktops and people leave in every directory below one."""
    for path in [path for path in root.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7")  # macOS, of every file
    for directory in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        for name in (".DS_Store", "._a", ".nfs0001", "Thumbs.db", "desktop.ini", "notes.txt"):
            (directory / name).write_bytes(b"\xff?")
        (directory / "gone").symlink_to("nowhere")


def contents(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_strange_files_in_whatever_is_read_back_change_nothing(tmp_path, call):
    """Checkpoints, the workdir, caches and prepared shards: all are used as before."""
    data = write_images(tmp_path / "data", CLASSES)
    run, shards, cache = tmp_path / "run", tmp_path / "shards", tmp_path / "cache"
    paths = [f"--config.data.dir={data}", f"--config.data.cache_dir={cache}", f"--workdir={run}"]
    prepared = f"--config.data.prepared_dir={shards}"
    call(*paths, prepared, "--mode=prepare_data")
    call(*paths, prepared, "--config.total_steps=2")
    evaluated = call(*paths, prepared, "--mode=evaluate").splitlines()[-1]
    for place in (run, shards, cache):
        lay_strays(place)
    (run / "checkpoints" / "2 copy").mkdir()
    (run / "images.jsonl").write_bytes(b"\xff\n[1]\n")
    before = contents(tmp_path)
    assert call(*paths, prepared, "--mode=evaluate").splitlines()[-1] == evaluated
    call(*paths, prepared, "--mode=prepare_data")
    after = contents(tmp_path)
    changed = {path for path in before if after.get(path) != before[path]}
    assert {path.name for path in changed} <= {"evaluation.json", "evaluations.jsonl"}
    said = call(*paths, prepared, "--config.total_steps=4")
    assert "from step 2" in said
    assert "damaged" not in said
    assert not (run / "damaged").exists()
    assert after.items() - contents(tmp_path).items() <= {
        (path, content) for path, content in after.items() if path.parent == run
    }


@pytest.mark.slow
def test_a_run_without_a_home(tmp_path):
    """As in a container that runs under a number nobody gave a name."""
    nameless = ["unshare", "-U", "--map-user=54321", "env", "-u", "HOME", "-u", "XDG_CACHE_HOME"]
    try:
        subprocess.run([*nameless, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("other user numbers need Linux's user namespaces")
    program = "import os; print(os.path.expanduser('~'))"
    said = subprocess.run([*nameless, sys.executable, "-c", program], capture_output=True)
    assert said.stdout == b"~\n"
    command = [*nameless, sys.executable, ROOT / "main.py", *TINY, "--config.total_steps=1"]
    config = next(argument for argument in command if "--config=" in str(argument))
    command[command.index(config)] = config.replace("=", f"={ROOT}/")
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "Traceback" not in answer.stderr
    assert {path.name for path in tmp_path.iterdir()} == {".cache", "runs"}


@pytest.mark.slow
def test_a_home_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    arguments = [*TINY, "--config.total_steps=1", f"--workdir={tmp_path / 'run'}"]
    _, err = finish(start(*arguments, HOME=str(tmp_path / "file" / "home"), XDG_CACHE_HOME=""))
    assert "Traceback" not in err


def test_the_cache_without_a_home_is_here(monkeypatch):
    from input_pipeline import default_cache_dir

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no entry for this user either
    assert default_cache_dir() == Path(".cache/vision_models")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", "~/c")
    monkeypatch.setenv("HOME", "/somewhere")
    assert default_cache_dir() == Path("/somewhere/c/vision_models")
