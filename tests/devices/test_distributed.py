"""How a process ends that fails, or that others have left: what it says last."""

import os
import subprocess
import sys
import threading

import jax
import pytest

from devices import distributed, ending_with_the_others, leave
from devices.meeting import Meeting
from tests.conftest import ROOT
from tests.runs import free_port


@pytest.fixture
def one_of_two(monkeypatch):
    """This process is one of a launch; its end is a SystemExit, and waits for nothing."""
    meeting = Meeting("127.0.0.1:1", 2, 1, lambda _: None)
    monkeypatch.setattr(distributed, "_meeting", meeting)
    for name, value in {
        "_lost": threading.Event(),
        "_lost_because": "",
        "_leaving_with": None,
        "_last_word": threading.Lock(),
        "_GRACE": 0,
        "_silence": lambda: None,
    }.items():
        monkeypatch.setattr(distributed, name, value)
    monkeypatch.setattr(os, "_exit", sys.exit)


def lose(monkeypatch):
    monkeypatch.setattr(distributed, "_lost_because", "process 0 is gone")
    distributed._lost.set()


OWN = [
    "FAILED_PRECONDITION: DNN library initialization failed",
    "NOT_FOUND: No valid config found!",
    "INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered",
    "RESOURCE_EXHAUSTED: Out of memory",
    "INVALID_ARGUMENT: shapes differ",
    "UNIMPLEMENTED: this operation",
    "",
]
OF_OTHERS = [
    "UNKNOWN: Gloo all-reduce failed: Connection closed by peer [127.0.0.1]:1",
    "INTERNAL: NCCL operation ncclGroupEnd() failed: remote process exited",
    "INTERNAL: Coordination service has stopped",
    "FAILED_PRECONDITION: CoordinationServiceAgent is in error",
    "INTERNAL: /job:jax_worker/replica:0/task:1 heartbeat timeout",
    "UNAVAILABLE: failed to connect to all addresses",
    "ABORTED: a task has been restarted",
    "CANCELLED: RPC cancelled",
    "DEADLINE_EXCEEDED: Barrier timed out",
]


@pytest.mark.parametrize("text", OWN)
@pytest.mark.parametrize("kind", [jax.errors.JaxRuntimeError, ValueError])
def test_an_error_of_its_own_is_raised(one_of_two, capsys, kind, text):
    with pytest.raises(kind), ending_with_the_others():
        raise kind(text)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text", OF_OTHERS)
def test_an_error_of_others_ends_it(one_of_two, capsys, text):
    with pytest.raises(SystemExit) as ended, ending_with_the_others():
        raise jax.errors.JaxRuntimeError(f"{text}\nmore")
    assert ended.value.code == 1
    assert f"error: process 1 of 2 lost the others ({text})" in capsys.readouterr().err


@pytest.mark.parametrize("text", [*OWN, *OF_OTHERS])
def test_whatever_fails_when_others_are_lost_is_their_loss(one_of_two, capsys, monkeypatch, text):
    lose(monkeypatch)
    with pytest.raises(SystemExit) as ended, ending_with_the_others():
        raise jax.errors.JaxRuntimeError(text)
    assert ended.value.code == 1
    assert "process 1 of 2 lost the others (process 0 is gone)" in capsys.readouterr().err


@pytest.mark.parametrize("lost", [False, True])
def test_what_it_has_reported_stays_its_last_word(one_of_two, capsys, monkeypatch, lost):
    """A loss of NaN ends all of them: each says so, and the first of them is soon gone."""
    if lost:
        lose(monkeypatch)
    with pytest.raises(SystemExit) as ended:
        leave(1)
    assert ended.value.code == 1
    assert capsys.readouterr().err == ""


JOIN = """
import pathlib, sys, jax, devices
launch = devices.launch_from(None, None, None)
devices.join_processes(launch, {}, pathlib.Path(sys.argv[1]))
print(jax.config.values["jax_cuda_visible_devices"])
"""


@pytest.mark.parametrize("tasks, visible", [("1", "all"), ("2", "0,1")])
def test_jax_takes_the_devices_of_a_launch(tmp_path, tasks, visible):
    """All that a task sees, if it is its host's only one; JAX would look for them again."""
    told = {
        "JAX_COORDINATOR_PORT": str(free_port()),
        "JAX_PLATFORMS": "cpu",
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "1",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_STEP_TASKS_PER_NODE": tasks,
        "CUDA_VISIBLE_DEVICES": "0,1,2,3",
    }
    answer = subprocess.run(
        [sys.executable, "-c", JOIN, tmp_path],
        cwd=ROOT,
        env=os.environ | told,
        text=True,
        capture_output=True,
    )
    assert answer.stdout.splitlines()[-1:] == [visible], answer.stderr
