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


def drawn_run(workdir, source, *overrides, steps=(1,)):
    """A run's directory as training leaves it, but its parameters are random numbers.

    Each checkpoint has its own. Nothing is compiled, so that it takes a second.

    Args:
      workdir: of the run.
      source: --config=...
      overrides: of the config.
      steps: of the checkpoints.
    """
    import evaluation
    import input_pipeline
    import training
    from training.checkpoints import Checkpoints
    from training.task import abstract_model
    from training.workdir import save_config
    from visualization.command_line import read_config

    config = read_config(str(ROOT / source.removeprefix("--config=")), overrides)
    data = input_pipeline.open_data(config.data, workdir.parent / "cache", only="train")
    task = training.task_from_config(config, len(data.class_names))
    dataset = {"class_names": list(data.class_names), "fingerprint": data.fingerprint}
    save_config(workdir, json.loads(config.to_json_best_effort()), dataset)
    (look,) = evaluation.protocol_called("center_crop", task.preprocessing).looks
    normalization = data.normalization(look.images)
    rng = np.random.default_rng(0)

    def drawn(leaf):
        scale = (2 / max(np.prod(leaf.shape[-4:-1]), 1)) ** 0.5
        return rng.normal(scale=scale, size=leaf.shape).astype(leaf.dtype)

    checkpoints = Checkpoints(workdir / "checkpoints", keep=len(steps))
    for step in steps:
        model = jax.tree.map(drawn, abstract_model(task))
        state = model | {"step": np.int32(step)}
        checkpoints.save(step, state, model, normalization, {}, dataset, None)
    checkpoints.finish()
    checkpoints.close()
    return workdir


def start(*arguments, devices=1, **variables):
    environment = (
        os.environ
        | variables
        | {
            "XLA_FLAGS": "--xla_backend_optimization_level=1 "
            f"--xla_force_host_platform_device_count={devices}",
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
