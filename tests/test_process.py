"""Streams that lead nowhere, signals at any moment: what main.py does about them."""

import json
import os
import select
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT, write_images
from tests.runs import TINY, finish, start

GUARDED = "import os, sys, process; process.guard_streams();"


def child(script, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", GUARDED + script, *map(str, arguments)],
        cwd=ROOT,
        pass_fds=options.pop("pass_fds", ()),
        **options,
    )


def without_reader():
    """A pipe's end to write to, whose other end is closed."""
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.slow
def test_every_mode_ends_as_ever_when_nobody_reads_what_it_prints(tmp_path):
    """Warnings of images, progress bars, tables, results: stdout and stderr are both gone."""
    data = write_images(tmp_path / "data", {"train/a": 3, "train/b": 3, "val/a": 1, "val/b": 1})
    whole = (data / "train" / "a" / "0.jpg").read_bytes()
    (data / "train" / "a" / "0.jpg").write_bytes(whole[: len(whole) // 3])
    script = """
import json, main
results, prepared, *run = sys.argv[1:]
modes = ("train", "evaluate", "export", "summary")
codes = [main.main(["main.py", *run, f"--mode={mode}"]) for mode in modes]
codes.append(main.main(["main.py", *run, "--mode=prepare_data", prepared]))
codes.append(main.main(["main.py", "--help"]))
codes.append(main.main(["main.py", "--config=nowhere.py"]))
print("the last word", flush=True)
os.write(2, b"a library's word, too")
open(results, "w").write(json.dumps(codes))
"""
    gone = without_reader()
    process = child(
        script,
        tmp_path / "codes",
        f"--config.data.prepared_dir={tmp_path / 'prepared'}",
        *(a for a in TINY if "validation" not in a and "batch_size" not in a),
        "--config.batch_size=4",
        "--config.total_steps=2",
        "--config.data.name=folder",
        f"--config.data.dir={data}",
        f"--config.data.cache_dir={tmp_path / 'cache'}",
        f"--workdir={tmp_path / 'run'}",
        stdout=gone,
        stderr=gone,
    )
    os.close(gone)
    assert process.wait(300) == 0
    assert json.loads((tmp_path / "codes").read_text()) == [0, 0, 0, 0, 0, 0, 2]
    assert (tmp_path / "run" / "weights.safetensors").exists()
    assert json.loads((tmp_path / "prepared" / "prepared.json").read_text())["complete"]


@pytest.mark.parametrize("name, number", [("stdout", 1), ("stderr", 2)])
def test_a_reader_that_goes_is_not_missed(tmp_path, name, number):
    """Nor by what libraries print themselves: their file descriptor leads nowhere from then on."""
    read, write = os.pipe()
    script = f"""
print("first", file=sys.{name}, flush=True)
sys.stdin.read(1)
for _ in range(3):
    print("x" * 100_000, file=sys.{name}, flush=True)
open(sys.argv[1], "w").write(os.readlink("/proc/self/fd/{number}"))
"""
    said = tmp_path / "said"
    process = child(script, said, stdin=subprocess.PIPE, **{name: write})
    os.close(write)
    assert os.read(read, 100) == b"first\n"
    os.close(read)
    process.communicate(b"1", timeout=60)
    assert process.returncode == 0
    assert said.read_text() == "/dev/null"


def test_a_log_on_a_full_disk_is_said_to_be_lost_once(tmp_path):
    with open("/dev/full", "w") as full:
        process = child(
            "print('a', flush=True); print('b', flush=True)", stdout=full, stderr=subprocess.PIPE
        )
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err == b"warning: standard output is lost (No space left on device)\n"


@pytest.mark.quick
def test_closed_streams_give_their_numbers_to_no_file(tmp_path):
    script = """
numbers = [os.open(sys.argv[1], os.O_RDONLY) for _ in range(2)]
print("nobody hears"); print("nor this", file=sys.stderr); os.write(2, b"nor that")
open(sys.argv[1], "w").write(str(min(numbers) > 2 and sys.stdout.isatty() is False))
"""
    (tmp_path / "said").write_text("")
    command = f'exec "{sys.executable}" -c "$1" "$2" <&- >&- 2>&-'
    answer = subprocess.run(
        ["sh", "-c", command, "sh", GUARDED + script, str(tmp_path / "said")], cwd=ROOT
    )
    assert answer.returncode == 0
    assert (tmp_path / "said").read_text() == "True"


@pytest.mark.quick
def test_names_that_the_encoding_does_not_have_are_escaped():
    script = r"print('caf\u00e9', 'a\udcffb', flush=True)"
    for encoding, expected in (
        ("ascii", rb"caf\xe9 a\udcffb"),
        ("latin-1", b"caf\xe9 a\\udcffb"),
        ("utf-8", "café a\\udcffb".encode()),
    ):
        environment = os.environ | {"PYTHONIOENCODING": encoding, "LC_ALL": "C"}
        process = child(script, stdout=subprocess.PIPE, env=environment)
        assert process.communicate(timeout=60)[0] == expected + b"\n"


def test_streams_that_are_asked_to_come_later_are_waited_for():
    """Non-blocking, as some terminals and job managers leave them."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    process = child("print('x' * 300_000); print('end')", stdout=write)
    while select.select([], [write], [], 0)[1]:  # until it is full
        assert process.poll() is None
        time.sleep(0.01)
    os.close(write)
    with open(read, "rb") as pipe:
        content = pipe.read()
    assert process.wait(60) == 0
    assert content == b"x" * 300_000 + b"\nend\n"


ENDED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs of the background
process.end_in_words({"SIGTERM": 75, "SIGHUP": 75, "SIGINT": 130})
import time
print("a line in the buffer")
print("ready", file=sys.stderr)
time.sleep(60)
"""


@pytest.mark.quick
@pytest.mark.parametrize("number, code", [("SIGTERM", 75), ("SIGHUP", 75), ("SIGINT", 130)])
def test_a_signal_ends_a_process_in_words(number, code):
    process = child(ENDED, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline() == "ready\n"
    process.send_signal(getattr(signal, number))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "a line in the buffer\n")
    assert err.startswith(f"{number}: stopped; what was saved before is kept")
    assert len(err.splitlines()) == 1


def test_a_hangup_that_is_ignored_stays_so():
    """As under nohup; in the loop as well."""
    script = """
import signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
process.end_in_words({"SIGHUP": 75})
from training.signals import StopRequest
os.kill(os.getpid(), signal.SIGHUP)
with StopRequest() as stop:
    os.kill(os.getpid(), signal.SIGHUP)
    assert not stop.requested
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with StopRequest() as stop:
    os.kill(os.getpid(), signal.SIGHUP)
    assert stop.requested
"""
    assert child(script).wait(120) == 0


STOPPED = "SIGHUP: stopped; what was saved before is kept; give the same command again\n"


@pytest.mark.parametrize("sign", ["| absl.flags\n", " tensorflow\n", "mean image and colours"])
def test_a_run_that_is_stopped_before_its_first_step_says_so(tmp_path, sign):
    """As soon as it has imported a first package, a late one, and begun with its data."""
    run = tmp_path / "run"
    process = start(
        *TINY, "--config.total_steps=10000", f"--config.data.cache_dir={tmp_path / 'cache'}",
        f"--workdir={run}", PYTHONPROFILEIMPORTTIME="1",
    )  # fmt: skip
    assert any(sign in line for line in process.stderr)
    process.send_signal(signal.SIGHUP)
    _, err = finish(process, 75)
    assert err.endswith(STOPPED) and "Traceback" not in err
    assert not (run / "metrics.jsonl").exists()
    assert not list(run.glob("checkpoints/*"))


def test_a_signal_leaves_no_half_written_file(tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path; import files, process;"
        "process.end_in_words({'SIGTERM': 75})\n"
        "with files.replacing(Path(sys.argv[1]), shared=True) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGTERM)\n"
        "    signal.pause()"
    )
    path = tmp_path / "file"
    path.write_text("whole")
    ended = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT)
    assert ended.returncode == 75
    assert list(tmp_path.iterdir()) == [path] and path.read_text() == "whole"
