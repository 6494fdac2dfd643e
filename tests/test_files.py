"""Files that appear whole, and locks."""

import subprocess
import sys
import threading

import pytest

import files
from tests.conftest import ROOT

pytestmark = pytest.mark.quick


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_file_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "a.json"
    for content in ("first", "second"):
        with files.replacing(path) as temporary:
            temporary.write_text(content)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == content
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_what_fails_leaves_the_old_file_and_nothing_else(error, tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(error), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_a_file_that_was_not_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), files.replacing(tmp_path / "a"):
        pass
    with pytest.raises(OSError), files.replacing(tmp_path / "none" / "a") as temporary:
        temporary.write_text("x")


def test_leftovers_of_a_process_that_was_killed_are_in_nobodys_way(tmp_path):
    path = tmp_path / "a"
    with files.replacing(path) as temporary:
        left = temporary
        temporary.write_text("x")
    left.write_text("half, and longer than the whole")
    with files.replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and names(tmp_path) == ["a"]


def test_processes_that_write_one_file_at_once_do_not_share_a_name(tmp_path):
    """Whichever is last, the file is whole."""
    script = (
        "import sys, pathlib, files\n"
        "for _ in range(50):\n"
        "    with files.replacing(pathlib.Path(sys.argv[1]), shared=True) as temporary:\n"
        "        temporary.write_text(sys.argv[2] * 10_000)\n"
    )
    path = tmp_path / "cache"
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(path), letter], cwd=ROOT)
        for letter in "ab"
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert path.read_text() in ("a" * 10_000, "b" * 10_000)
    assert names(tmp_path) == ["cache"]


def test_a_lock_is_held_by_one_and_free_after(tmp_path):
    path = tmp_path / "lock"
    with files.locked(path):
        with pytest.raises(BlockingIOError), files.locked(path):
            pytest.fail("held twice")
        with pytest.raises(BlockingIOError), files.locked(path):  # failing has freed nothing
            pytest.fail("held twice")
    with pytest.raises(ValueError), files.locked(path):
        raise ValueError
    with files.locked(path):
        pass


def test_a_lock_is_free_when_its_process_is_killed(tmp_path):
    path = tmp_path / "lock"
    script = (
        "import sys, pathlib, files\n"
        "with files.locked(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError), files.locked(path):
            pytest.fail("held by another process")
        holder.kill()
    with files.locked(path):
        pass


def test_a_lock_that_cannot_be_made_says_why(tmp_path):
    with pytest.raises(FileNotFoundError), files.locked(tmp_path / "none" / "lock"):
        pytest.fail("no directory")


def test_a_look_at_a_lock_does_not_refuse_who_takes_it(tmp_path):
    """`is_locked` shares the lock for an instant, here drawn out."""
    fcntl = pytest.importorskip("fcntl")
    path = tmp_path / "lock"
    path.touch()
    with open(path, "rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        with pytest.raises(BlockingIOError), files.locked(path):
            pytest.fail("without patience")
        assert not files.is_locked(path)  # two may look at once
        end = threading.Timer(0.1, fcntl.flock, (looking, fcntl.LOCK_UN))
        end.start()
        with files.locked(path, patience=60):
            assert files.is_locked(path)
        end.join()
