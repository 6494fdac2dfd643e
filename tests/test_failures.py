"""Full disks, damaged checkpoints, losses that are no number: real runs, and what they say."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT, write_images
from tests.runs import (
    TINY,
    assert_same_run,
    finish,
    free_port,
    lines,
    restored,
    start,
    start_two,
)

RUN = [
    *(a for a in TINY if "every" not in a),
    "--config.log_every_steps=4",
    "--config.evaluate_every_steps=10",
    "--config.checkpoint_every_steps=5",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 40 steps that nothing happened to."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    finish(start(*RUN, "--config.total_steps=40", f"--workdir={workdir}"))
    return workdir


@pytest.mark.slow
def test_a_disk_that_fills_up(small_disk, whole):
    """The run stops, its last checkpoint is sound; with more room it goes on from there."""
    place, remount = small_disk
    run = [*RUN, "--config.checkpoint_keep=100", "--config.total_steps=40"]
    _, err = finish(start(*run, f"--workdir={place / 'run'}"), code=1)
    message = err.splitlines()[-1]
    assert "could not be written (the disk is full)" in message
    assert "Traceback" not in err
    intact = int(message.split("that of step ")[1].split()[0])
    assert intact == max(int(p.name) for p in (place / "run" / "checkpoints").iterdir())
    remount("size=20m")
    out, _ = finish(start(*run, f"--workdir={place / 'run'}"))
    assert f"from step {intact}" in out
    assert_same_run(place / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["disk", "file"])
def test_a_first_checkpoint_that_has_no_room_is_one_line(small_disk, limit):
    """Nothing was there to foresee it by: its writes fail, one after another."""
    place, remount = small_disk
    remount("size=200k" if limit == "disk" else "size=20m")
    run = [*RUN, "--config.model.hidden=(256, 256)", "--config.total_steps=12"]
    blocks = "unlimited" if limit == "disk" else "200"  # of 512 bytes
    script = f'ulimit -f {blocks}; exec "$0" main.py "$@"'
    answer = subprocess.run(
        ["sh", "-c", script, sys.executable, *run, f"--workdir={place / 'run'}"],
        cwd=ROOT,
        text=True,
        capture_output=True,
    )
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    line = answer.stderr.splitlines()[-1]
    reason = {"disk": "the disk is full", "file": "see ulimit -f"}[limit]
    assert line.startswith("error: ")
    assert "the checkpoint of step 5 could not be written" in line
    assert reason in line
    assert not list((place / "run" / "checkpoints").iterdir())


@pytest.mark.slow
def test_a_disk_that_becomes_read_only(small_disk):
    place, remount = small_disk
    remount("size=20m")
    run = [*RUN, f"--workdir={place / 'run'}"]
    finish(start(*run, "--config.total_steps=5"))
    remount("ro")
    _, err = finish(start(*run, "--config.total_steps=10"), code=2)
    assert err.splitlines()[-1].startswith("error: ")
    assert "Read-only file system" in err
    assert "Traceback" not in err


def test_a_damaged_newest_checkpoint_costs_the_steps_after_the_one_before(call, tmp_path):
    whole, workdir = tmp_path / "whole", tmp_path / "run"
    assert call(*RUN, "--config.total_steps=40", f"--workdir={whole}")[0] == 0
    shutil.copytree(whole, workdir)
    newest = workdir / "checkpoints" / "40" / "training"
    values = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(values.read_bytes())
    content[len(content) // 2] ^= 1
    values.write_bytes(content)
    code, out, _ = call(*RUN, "--config.total_steps=40", f"--workdir={workdir}")
    assert code == 0
    assert "damaged: checkpoint 40" in out
    assert f"continuing {workdir} from step 35" in out
    assert_same_run(workdir, whole)


# A rate that is fine for eleven steps and then overflows everything.
EXPLODING = [
    "--config.optimizer.learning_rate=1e15",
    "--config.optimizer.warmup_steps=11",
    "--config.optimizer.warmup_factor=1e-18",
]


def test_a_loss_that_is_no_number_stops_the_run(call, tmp_path):
    workdir = tmp_path / "run"
    run = [*RUN, *EXPLODING, "--config.total_steps=100", f"--workdir={workdir}"]
    code, _, err = call(*run)
    assert code == 1
    message = err.splitlines()[-1]
    assert "error: step 13: the loss is nan. Its batch: digits example" in message
    assert "Last good checkpoint: step 10" in message
    assert "--config.nonfinite=skip" in message
    listed = json.loads((workdir / "nonfinite.json").read_text())
    assert (listed["step"], len(listed["examples"])) == (13, 16)
    # The batch of that step, by the order that the seed makes.
    from input_pipeline import order

    stream = np.arange(12 * 16, 13 * 16)
    np.testing.assert_array_equal(listed["index"], order.examples_at(0, stream, 1720)[0])
    assert restored(workdir)[0] == 10
    code, _, err = call(*run)
    assert (code, err.splitlines()[-1]) == (1, message)


@pytest.mark.slow
def test_such_updates_are_left_out_by_choice(tmp_path):
    workdir = tmp_path / "run"
    run = [*RUN, *EXPLODING, "--config.nonfinite=skip", f"--workdir={workdir}"]
    out, _ = finish(start(*run, "--config.total_steps=20"))
    assert "step 13: the loss is nan; this update is left out" in out
    assert [line["skipped"] for line in lines(workdir) if line["split"] == "train"] == [0, 0, 0]
    assert restored(workdir)[1]["training['skipped']"] == 8
    _, err = finish(start(*run, "--config.total_steps=200"), code=1)
    assert "and so it was 99 times before" in err


@pytest.mark.slow
def test_updates_that_are_left_out_push_no_checkpoint_away(tmp_path):
    """What was broken by the last good update is not worth keeping."""
    workdir = tmp_path / "run"
    run = [*RUN, *EXPLODING, "--config.nonfinite=skip", "--config.checkpoint_keep=2"]
    finish(start(*run, "--config.total_steps=200", f"--workdir={workdir}"), code=1)
    kept = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert max(kept) == 10
    assert len(kept) >= 2


def test_two_runs_do_not_share_a_workdir(call, tmp_path):
    import fcntl

    workdir = tmp_path / "run"
    workdir.mkdir()
    with open(workdir / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, _, err = call(*RUN, "--config.total_steps=5", f"--workdir={workdir}")
    assert code == 2
    assert "another process is training there" in err.splitlines()[-1]
    assert not (workdir / "config.json").exists()


@pytest.mark.slow
def test_one_process_that_fails_alone_ends_the_others(tmp_path):
    """The first cannot write its log; the second knows nothing of that."""
    run = [*(a for a in RUN if "mesh" not in a), "--config.total_steps=5000"]
    (tmp_path / "metrics.jsonl").mkdir()
    first, second = start_two(*run, f"--workdir={tmp_path}", devices=1)
    _, err = finish(first, code=1)
    assert err.splitlines()[-1].startswith("error: ")
    assert "metrics.jsonl: cannot be written" in err.splitlines()[-1]
    _, err = finish(second, code=1)
    assert "lost the others (process 0 has ended with code 1" in err.splitlines()[-1], err


@pytest.mark.slow
def test_a_process_whose_data_is_gone_ends_the_others(tmp_path):
    """The second cannot read what it needs, before anything is computed."""
    data = write_images(tmp_path / "data", {f"{s}/{c}": 8 for s in ("train", "val") for c in "ab"})
    run = [a for a in TINY if "mesh" not in a and "validation_examples" not in a]
    run += ["--config.data.name=folder", "--config.total_steps=5000"]
    address = f"127.0.0.1:{free_port()}"
    launch = ["--distributed", f"--coordinator_address={address}", "--num_processes=2"]
    first, second = (
        start(
            *run,
            f"--config.data.dir={place}",
            f"--workdir={tmp_path / 'run'}",
            *launch,
            f"--process_id={number}",
        )
        for number, place in enumerate((data, tmp_path / "nowhere"))
    )
    _, err = finish(second, code=2)
    assert "nowhere: there is no such directory" in err.splitlines()[-1]
    _, err = finish(first, code=1)
    assert "lost the others (process 1 has ended with code 2" in err.splitlines()[-1], err
    assert not (tmp_path / "run").exists()
