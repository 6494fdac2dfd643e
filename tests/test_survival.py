"""Runs that are killed at any moment end in the bits of those that are not."""

import os
import random
import signal
import time

import pytest

from tests.runs import TINY, assert_same_run, finish, start, start_two

# BatchNorm in groups, averaged parameters, statistics anew at the end and a plateau, so that
# all that a run remembers is there; a checkpoint is being written most of the time.
RUN = [
    "--config=configs/cifar10.py:resnet20",
    "--config.data.name=digits",
    "--config.data.validation_examples=77",
    "--config.data.resize=8",
    "--config.data.crop=8",
    "--config.data.pad=1",
    "--config.batch_size=16",
    "--config.batch_norm.group=8",
    "--config.batch_norm.recompute_examples=64",
    "--config.optimizer.average=exponential",
    "--config.optimizer.average_decay=0.9",
    "--config.optimizer.plateau_patience=1",
    "--config.log_every_steps=4",
    "--config.evaluate_every_steps=10",
    "--config.checkpoint_every_steps=3",
]


def seeded():
    """Other moments with VISION_MODELS_SEED=n; what the machine does between is never the same."""
    seed = int(os.environ.get("VISION_MODELS_SEED", "0"))
    print(f"seed {seed}", flush=True)
    return random.Random(seed)


def steps_seen(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def being_written(workdir):
    return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def interrupt(processes, workdir, rng, number):
    """Sends a signal at a random moment of the work, every second time during a write."""
    if rng.random() < 0.2:  # while it starts, restores and clears up
        time.sleep(rng.uniform(0, 15))
        rng.choice(processes).send_signal(number)
        return
    begun = steps_seen(workdir)
    deadline = time.monotonic() + 300
    while steps_seen(workdir) <= begun and time.monotonic() < deadline:
        if any(process.poll() is not None for process in processes):
            return
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.4))
    writing = rng.random() < 0.5
    while writing and not being_written(workdir) and processes[0].poll() is None:
        time.sleep(0.0005)
    time.sleep(rng.uniform(0, 0.02))
    rng.choice(processes).send_signal(number)


@pytest.mark.slow
@pytest.mark.parametrize("rounds, steps", [(2, 150), (50, 1000)])
def test_killed_at_random_moments(tmp_path, rounds, steps):
    """SIGKILL, during writes of checkpoints too."""
    rng = seeded()
    run = [*RUN, f"--config.total_steps={steps}"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(*run, f"--workdir={whole}"))
    kills = writing = resumed = 0
    while kills < rounds:
        process = start(*run, f"--workdir={broken}")
        interrupt([process], broken, rng, signal.SIGKILL)
        out, err = process.communicate(timeout=300)
        assert process.returncode in (0, -signal.SIGKILL), err
        resumed += "continuing" in out
        if process.returncode == 0:
            break  # the run ended before it could be killed
        kills += 1
        writing += being_written(broken)
    out, _ = finish(start(*run, f"--workdir={broken}"))
    print(f"{kills} kills, {writing} of them while a checkpoint was written; {resumed} resumed")
    assert "continuing" in out
    assert kills == rounds
    assert writing >= rounds // 10
    assert_same_run(broken, whole)


@pytest.mark.slow
def test_stopped_by_sigterm_many_times(tmp_path):
    rng = seeded()
    run = [*RUN, "--config.total_steps=500"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(*run, f"--workdir={whole}"))
    stops = 0
    for _ in range(15):
        process = start(*run, f"--workdir={broken}")
        interrupt([process], broken, rng, signal.SIGTERM)
        _, err = process.communicate(timeout=300)
        assert process.returncode in (0, 75), err
        stops += process.returncode == 75
    finish(start(*run, f"--workdir={broken}"))
    print(f"{stops} stops")
    assert stops >= 10
    assert_same_run(broken, whole)


@pytest.mark.slow
def test_stopped_after_the_last_update(tmp_path):
    """While statistics are recomputed, during the last evaluation, or the last write."""
    rng = seeded()
    run = [*RUN, "--config.total_steps=60", "--config.batch_norm.recompute_examples=960"]
    whole = tmp_path / "whole"
    finish(start(*run, f"--workdir={whole}"))
    stopped = 0
    for number in (signal.SIGKILL, signal.SIGTERM) * 5:
        broken = tmp_path / f"{number.name}-{rng.random()}"
        process = start(*run, f"--workdir={broken}")
        log = broken / "metrics.jsonl"
        while process.poll() is None and not (log.exists() and '"step": 60' in log.read_text()):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 1.5))
        process.send_signal(number)
        _, err = process.communicate(timeout=300)
        assert process.returncode in (0, 75, -signal.SIGKILL), err
        stopped += process.returncode != 0
        finish(start(*run, f"--workdir={broken}"))
        assert_same_run(broken, whole)
    print(f"{stopped} of 10 stopped")
    assert stopped >= 3


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [1, 10])
def test_one_of_two_processes_is_killed(tmp_path, rounds):
    """The other ends with a word of why; started again, both go on.

    Two processes of two devices, AlexNet's towers inside each, data over both; against one
    process of four devices that is left alone: the same bits, for sums over two devices have
    one order.
    """
    rng = seeded()
    run = [
        *(a for a in TINY if "mesh" not in a and "_every_" not in a),
        "--config.log_every_steps=5",
        "--config.checkpoint_every_steps=5",
        "--config.evaluate_every_steps=20",
        f"--config.total_steps={rounds * 40 + 80}",
    ]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(*run, f"--workdir={whole}", devices=4))
    kills = 0
    for _ in range(rounds):
        together = start_two(*run, f"--workdir={broken}")
        interrupt(together, broken, rng, signal.SIGKILL)
        for process in together:
            _, err = process.communicate(timeout=90)
            if process.returncode == -signal.SIGKILL:
                kills += 1
            else:
                assert process.returncode in (0, 1), err
                last = err.splitlines()[-1] if process.returncode else ""
                # The second and third are of one that was killed while it started.
                known = ("lost the others", "did not come within", "no process 0 answers")
                assert process.returncode == 0 or any(said in last for said in known), err
    for process in start_two(*run, f"--workdir={broken}"):
        finish(process)
    print(f"{kills} kills")
    assert kills >= (rounds + 1) // 2
    assert_same_run(broken, whole)
