"""Runs of main.py as processes, and what they leave behind."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np

from tests.conftest import ROOT

# The two-tower network with few kernels, on the digits: a run of seconds.
TINY = [
    "--config=configs/alexnet.py:digits",
    "--config.model.kernels=(8, 16, 16, 16, 16)",
    "--config.model.hidden=(32, 32)",
    "--config.batch_size=16",
    "--config.data.validation_examples=77",
    "--config.log_every_steps=4",
    "--config.evaluate_every_steps=10",
    "--config.checkpoint_every_steps=7",
    "--config.mesh.data=1",
]


def start(*arguments, devices=1, **variables):
    environment = (
        os.environ
        | variables
        | {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            # XLA's CPU kernels split sums by the threads there are: by default as many as cores or
            # devices of a process, whichever are more.
            "PJRT_NPROC": "4",
        }
    )
    return subprocess.Popen(
        [sys.executable, "main.py", *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_two(*arguments, devices=2, told_by="flags"):
    """Two processes of one launch, on loopback; `told_by` flags, variables or Slurm."""
    port = free_port()
    address, processes = f"127.0.0.1:{port}", []
    for i in range(2):
        told = {
            "flags": {},
            "variables": {
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(i),
            },
            # JAX makes a port of the job's number.
            "slurm": {
                "SLURM_JOB_ID": str(port),
                "SLURM_STEP_NODELIST": "localhost",
                "SLURM_NTASKS": "2",
                "SLURM_PROCID": str(i),
                "SLURM_LOCALID": str(i),
                "SLURM_STEP_NUM_NODES": "1",
            },
        }[told_by]
        launch = ["--distributed"]
        if told_by == "flags":
            launch += [f"--coordinator_address={address}", "--num_processes=2", f"--process_id={i}"]
        processes.append(start(*arguments, *launch, devices=devices, **told))
    return processes


def finish(process, code=0):
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, (out, err)
    return out, err


def restored(workdir, step=None):
    """A checkpoint, the newest if not told, as plain arrays: all of the train state."""
    import orbax.checkpoint as ocp

    if step is None:
        step = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    arrays, where = {}, jax.sharding.SingleDeviceSharding(jax.devices()[0])
    for item in ("model", "training"):
        path, reader = workdir / "checkpoints" / str(step) / item, ocp.StandardCheckpointer()
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            dict(reader.metadata(path).item_metadata),
        )
        tree = reader.restore(path, shapes)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            arrays[item + jax.tree_util.keystr(path)] = np.asarray(leaf)
    return step, arrays


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(broken, whole):
    """Every array of the last checkpoint, bit for bit, and every line of the log but times."""
    step, expected = restored(whole)
    again, ours = restored(broken)
    assert step == again
    assert ours.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(ours[name], expected[name], err_msg=name)
    assert without_times(lines(broken)) == without_times(lines(whole))


TIMES = ("images_per_second", "data_wait", "mfu")


def without_times(metrics):
    return [{k: v for k, v in line.items() if k not in TIMES} for line in metrics]
