"""Runs from ImageNet as it is stored: the bits of a run from the folder tree, whatever happens."""

import json
import signal
import time

import pytest

from tests.input_pipeline import layout_files as write
from tests.runs import assert_same_run, finish, start, start_two

RUN = [
    "--config=configs/alexnet.py:digits",
    "--config.model.kernels=(8, 16, 16, 16, 16)",
    "--config.model.hidden=(32, 32)",
    "--config.data.name=imagenet2012",
    "--config.batch_size=8",
    "--config.log_every_steps=2",
    "--config.evaluate_every_steps=10",
    "--config.checkpoint_every_steps=5",
    "--config.total_steps=20",
]
STORED = {"tars": write.original_tars, "shards": write.webdataset, "parquet": write.parquet}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The photographs in each layout."""
    pytest.importorskip("pyarrow")
    place, photos = tmp_path_factory.mktemp("stored"), write.photographs()
    for name, layout in STORED.items():
        layout(place / name, photos)
    write.folders(place / "tree", photos)
    return place


def arguments(place, stored, workdir, *more):
    return [*RUN, f"--config.data.dir={place / stored}", f"--workdir={workdir}", *more]


@pytest.fixture(scope="module")
def whole(place):
    finish(start(*arguments(place, "tree", place / "whole", "--config.mesh.data=1")))
    return place / "whole"


@pytest.mark.slow
@pytest.mark.parametrize("stored", STORED)
def test_a_killed_run_goes_on_in_the_same_bits(place, whole, stored, tmp_path):
    run = arguments(place, stored, tmp_path, "--config.mesh.data=1")
    process, deadline = start(*run), time.monotonic() + 300
    while not (tmp_path / "checkpoints" / "5").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    out, _ = finish(start(*run))
    assert "continuing" in out
    assert_same_run(tmp_path, whole)


@pytest.mark.slow
def test_a_run_goes_on_from_another_layout(place, whole, tmp_path):
    """Tars are the same dataset as the folders that they were made from."""
    mesh = "--config.mesh.data=1"
    for stored, steps in (("tree", 10), ("tars", 20)):
        finish(start(*arguments(place, stored, tmp_path, mesh, f"--config.total_steps={steps}")))
    assert_same_run(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("stored", ["tars", "parquet"])
def test_two_processes_read_their_shares(place, stored, tmp_path):
    for name in ("tree", stored):
        for process in start_two(*arguments(place, name, tmp_path / name), devices=1):
            finish(process)
    assert_same_run(tmp_path / stored, tmp_path / "tree")


@pytest.mark.slow
def test_evaluation_gives_the_same_results(place, whole, tmp_path, call):
    found = []
    for stored in ("tree", *STORED):
        run = arguments(place, stored, whole, "--config.mesh.data=1", "--mode=evaluate")
        code, out, err = call(*run)
        assert code == 0, err
        found.append(json.loads(out.splitlines()[-1]))
    assert found[0]["examples"] == 20
    assert all(result == found[0] for result in found)
