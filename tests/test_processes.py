"""Processes of one run that were not started alike: what each says, and that nothing is written."""

import signal
import time

import numpy as np
import pytest

import vision_models
from tests.conftest import write_images
from tests.runs import TINY, finish, free_port, start, start_two
from vision_models import weights

# Longer than any test takes: nothing here may train to the end.
RUN = [*(a for a in TINY if "mesh" not in a), "--config.total_steps=100000"]


def start_each(*own, common=RUN, devices=1, **variables):
    """Processes of one launch, each with arguments of its own."""
    launch = [f"--coordinator_address=127.0.0.1:{free_port()}", f"--num_processes={len(own)}"]
    return [
        start(
            *common,
            "--distributed",
            *launch,
            f"--process_id={number}",
            *more,
            devices=devices,
            **variables,
        )
        for number, more in enumerate(own)
    ]


def last_lines(processes, *codes):
    """What each says last; no tracebacks, and nothing of JAX's below it."""
    said = []
    for process, code in zip(processes, codes, strict=True):
        _, err = finish(process, code)
        assert "Traceback" not in err
        said.append(err.splitlines()[-1])
        assert said[-1].startswith("error: "), err
    return said


def files(root):
    return sorted(str(path) for path in root.rglob("*"))


def test_processes_that_do_not_agree_say_so(tmp_path):
    """Several fields at once; the sweep over the kinds is below."""
    (tmp_path / "runs").mkdir()
    other = ["--config.seed=1", "--config.model.lrn=False", "--config.data.threads=1"]
    said = last_lines(start_each([], other, common=[*RUN, f"--workdir={tmp_path / 'runs'}"]), 2, 2)
    assert "model.lrn: True here, False at process 1; seed: 0 here, 1 at process 1" in said[0]
    assert "model.lrn: False here, True at process 0; seed: 1 here, 0 at process 0" in said[1]
    assert not any("threads" in line for line in said)
    assert files(tmp_path) == [str(tmp_path / "runs")]


def test_a_usage_error_of_one_ends_the_others(tmp_path):
    common = [*RUN, f"--workdir={tmp_path / 'run'}"]
    said = last_lines(start_each([], ["--config.sed=1"], common=common), 1, 2)
    assert "process 1 has ended with code 2" in said[0]
    assert said[1] == "error: --config.sed: no such field; did you mean --config.seed?"
    assert files(tmp_path) == []


@pytest.mark.slow
def test_one_that_is_killed_before_it_comes(tmp_path):
    """With a word of who is waited for."""
    first = start_each([], [], common=[*RUN, f"--workdir={tmp_path / 'run'}"])
    first[1].kill()
    first[1].communicate()
    out, err = finish(first[0], code=1)
    assert "waiting for process 1 of 2" in out
    assert "process 1 of 2 did not come within 40 s" in err.splitlines()[-1]
    assert files(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_one_that_is_killed_in_training(tmp_path, killed):
    """The other says so, last of all, and nothing ends with SIGABRT."""
    workdir = tmp_path / "run"
    processes = start_two(*RUN, f"--workdir={workdir}", devices=1)
    log, deadline = workdir / "metrics.jsonl", time.monotonic() + 300
    while not (log.exists() and log.stat().st_size):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.1)
    processes[killed].send_signal(signal.SIGKILL)
    (said,) = last_lines([processes[1 - killed]], 1)
    assert f"process {1 - killed} of 2 lost the others (process {killed} is gone)" in said
    processes[killed].communicate()


def test_launches_that_cannot_be_are_named(tmp_path):
    """Before anything is started; tests/devices/test_meeting.py has all of them."""
    own = ["--coordinator_address=host0", "--num_processes=2", "--process_id=0"]
    common = [*RUN, f"--workdir={tmp_path / 'run'}"]
    for arguments, expected in (
        (own[1:2], "--num_processes=2 is for one of several processes: add --distributed"),
        (["--process_id=0"], "--process_id=0 is for one of several processes"),
        (["--distributed", *own], "--coordinator_address=host0: no port"),
    ):
        (said,) = last_lines([start(*common, *arguments)], 2)
        assert expected in said
    assert files(tmp_path) == []


KINDS = {
    "rate": ("--config.optimizer.learning_rate=0.5", "optimizer.learning_rate: "),
    "seed": ("--config.seed=5", "seed: 0 here, 5 at process 1"),
    "dropout": ("--config.model.dropout=0", "model.dropout: 0.5 here, 0.0 at process 1"),
    "normalisation": ("--config.model.lrn=False", "model.lrn: True here, False at process 1"),
    "type": ("--config.compute_dtype=bfloat16", "compute_dtype: float32 here, bfloat16"),
    "flips": ("--config.data.augment.flip=True", "data.augment.flip: False here, True"),
    "mean": ("--config.data.mean=none", "data.mean: "),
    "batch": ("--config.batch_size=32", "batch_size: 16 here, 32 at process 1"),
    "total": ("--config.total_steps=7", "total_steps: 100000 here, 7 at process 1"),
    "network": ("--config.model.hidden=(8, 8)", "model.hidden: [32, 32] here, [8, 8]"),
    "mode": ("--mode=evaluate", "--mode: train here, evaluate at process 1"),
    "workdir": ("--workdir={root}/other", "/other at process 1: not one directory that all"),
    "count": ("--num_processes=3", "num_processes: 2 at process 0, 3 at process 1"),
    "data": ("--config.data.dir={root}/more", "the dataset's files, labels or splits: "),
    "weights": ("--config.init_from={root}/b.safetensors", "the weights of init_from: "),
    "variable": ("JAX_ENABLE_X64=1", "JAX_ENABLE_X64: False here, True at process 1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_disagreement(tmp_path, kind):
    """Both processes end with 2, each names it, and nothing is written."""
    import jax
    from flax import nnx

    small = {"kernels": (8, 16, 16, 16, 16), "hidden": (32, 32), "num_classes": 2}
    for name in ("data", "more"):
        counts = {f"{s}/{c}": 8 + (name == "more") for s in ("train", "val") for c in "ab"}
        write_images(tmp_path / name, counts, size=(40, 40))
    common = [*(a for a in RUN if "validation" not in a), f"--workdir={tmp_path / 'runs' / 'a'}"]
    common += ["--config.data.name=folder", f"--config.data.dir={tmp_path / 'data'}"]
    if kind == "weights":
        options = small | {"image_size": 64}
        for seed, name in enumerate("ab"):
            model = vision_models.create("alexnet", rngs=nnx.Rngs(seed), **options)
            params = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
            weights.save(tmp_path / f"{name}.safetensors", "alexnet", options, params, {}, None)
        common += [f"--config.init_from={tmp_path / 'a.safetensors'}"]
        common += ["--config.init_preprocessing=config"]
    before = files(tmp_path)
    argument, expected = KINDS[kind]
    argument = argument.format(root=tmp_path)
    if argument.startswith("-"):
        processes = start_each([], [argument], common=common)
    else:
        name, value = argument.split("=")
        launch = [f"--coordinator_address=127.0.0.1:{free_port()}", "--num_processes=2"]
        launch += ["--distributed"]
        processes = [
            start(*common, *launch, "--process_id=0"),
            start(*common, *launch, "--process_id=1", **{name: value}),
        ]
    said = last_lines(processes, 2, 2)
    assert expected in said[0]
    assert expected.split(": ")[0] in said[1]
    assert files(tmp_path) == before
