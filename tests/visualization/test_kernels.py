"""The kernels of first layers, and the faults that every command has in common."""

import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.runs import TINY
from visualization import command_line, kernels

pytestmark = pytest.mark.quick


def test_one_minimum_and_maximum_or_each_its_own():
    """Towers above one another; the lowest of all is black, the highest white."""
    drawn = np.random.default_rng(0).normal(size=(2, 48, 11, 11, 3)).astype(np.float32)
    drawn[1] *= 0.1
    whole = kernels.picture(drawn)
    assert whole.shape[1] == 16 * 33 + 15 and whole.shape[0] == 2 * (3 * 33 + 2) + 8
    assert whole.min() == 0 and whole.max() == 255
    below, above = whole[109:], whole[:101]
    tile = below[:33, :33].astype(int)
    assert np.ptp(tile) < 80 < np.ptp(above[:33, :33].astype(int))
    by_itself = kernels.picture(drawn, each=True)[109:][:33, :33]
    assert by_itself.min() == 0 and by_itself.max() == 255
    expected = (drawn[1, 0] - drawn.min()) / np.ptp(drawn)
    np.testing.assert_allclose(below[1:33:3, 1:33:3] / 255, expected, atol=0.51 / 255)


def test_of_a_run(look, towers):
    code, printed, err = look("kernels", towers)
    assert (code, printed) == (0, [str(towers / "pictures" / "kernels.png")]), err
    with Image.open(printed[0]) as image:
        assert image.size == (4 * 33 + 3, 2 * 33 + 8)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "RUN_OR_FILE"),
        (["nowhere"], "nowhere: there is no such file"),
        (["EMPTY"], "no run with a checkpoint"),
        (["RUN", "--x=1"], "'--x=1' is not understood"),
        (["RUN", "--config.seed=1"], "--config=FILE is missing"),
        (["RUN", "--checkpoint=9"], "--checkpoint=9: choose latest, best or one of the steps 1"),
        (["setup.cfg", "--checkpoint=9"], "setup.cfg is a file"),
        (["RUN", "--network=resnet51"], "did you mean resnet56 or resnet50"),
        (["RUN", "--batch_size=8"], "'--batch_size=8' is not understood"),
        (["~no_such_user/x"], "no home directory"),
        (["RUN", "--config=nothing.py"], "no file nothing.py"),
    ],
    ids=str,
)
def test_faults_are_named(look, run, tmp_path, arguments, message):
    written = [a.replace("RUN", str(run)).replace("EMPTY", str(tmp_path)) for a in arguments]
    code, _, err = look("kernels", *written)
    assert code == 2 and message in err, err
    assert len(err.splitlines()) <= 2


def test_a_place_that_cannot_be_written(look, run, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = look("kernels", run, f"--out={tmp_path / 'file'}")
    assert code == 1 and "name a place with --out" in err


def test_checkpoints_by_a_config(towers, tmp_path):
    """A run whose config.json is lost: --config opens each checkpoint, not only the last.

    The name of a run's own network changes nothing: its settings are the run's.
    """
    from visualization.opening import open_run_or_file

    shutil.copytree(towers / "checkpoints", tmp_path / "lost" / "checkpoints")
    parser = command_line.make_parser("")

    def states(*arguments):
        parsed, overrides = parser.parse_known_args([str(argument) for argument in arguments])
        parsed.config = command_line.read_config(parsed.config, overrides)
        return [state.trained for state in open_run_or_file(parsed).states()]

    expected = states(towers)
    named = states(towers, "--network=alexnet")
    found = states(tmp_path / "lost", *TINY)
    assert [trained.step for trained in found] == [trained.step for trained in named] == [1, 2]
    for trained, other in zip(found + named, expected + expected, strict=True):
        jax.tree.map(np.testing.assert_array_equal, trained.params, other.params)
        assert trained.preprocessing == other.preprocessing


def test_towers_lie_apart_in_a_row():
    """The first eight kernels of each tower, white between the towers and nowhere else."""
    drawn = np.random.default_rng(0).uniform(size=(2, 9, 5, 5, 3)).astype(np.float32)
    row = kernels.beginning(drawn)
    tile = 35
    assert row.shape == (tile, 16 * (tile + 1) - 1 + 8, 3)
    white = (row == 255).all(axis=(0, 2))
    np.testing.assert_array_equal(np.flatnonzero(white), 8 * (tile + 1) + np.arange(8))
    few = (drawn[:, :8] - drawn[:, :8].min()) / np.ptp(drawn[:, :8])
    after = 8 * (tile + 1) + 8
    np.testing.assert_allclose(row[::7, after : after + tile : 7] / 255, few[1, 0], atol=0.51 / 255)


@pytest.mark.parametrize(
    "maps, columns", [(6, 6), (16, 8), (20, 10), (32, 16), (48, 16), (50, 10), (64, 16), (67, 16)]
)
def test_kernels_fill_their_rows(maps, columns):
    """Sixteen and more in several rows, of which the last one is full where that can be."""
    assert kernels.columns_for(maps) == columns


@pytest.mark.slow
def test_without_a_screen_or_a_home(run, tmp_path):
    """Whatever the environment says of matplotlib, as that of a notebook's shell does."""
    done = subprocess.run(
        [sys.executable, "-m", "visualization.kernels", run, "--history", f"--out={tmp_path}"],
        env={"PATH": os.environ["PATH"], "MPLBACKEND": "module://no_such", "JAX_PLATFORMS": "cpu"},
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "kernels_history.png")]


def test_weights_of_others(look, shared_data, tmp_path):
    """By the network's name, or by a config; without either the message says so."""
    file = shared_data("weights/resnet20-12fca82f.th")
    code, _, err = look("kernels", file, f"--out={tmp_path}")
    assert code == 2 and "--network=NAME" in err
    code, _, err = look("kernels", file, "--network=resnet20", f"--out={tmp_path}")
    assert code == 0, err
    named = (tmp_path / "kernels.png").read_bytes()
    code, _, err = look(
        "kernels", file, "--config=configs/cifar10.py:resnet20",
        "--config.init_preprocessing=torchvision", f"--out={tmp_path}",
    )  # fmt: skip
    assert code == 0, err
    assert (tmp_path / "kernels.png").read_bytes() == named


@pytest.mark.parametrize("channels", [1, 3])
def test_those_of_a_fully_connected_layer_are_images(channels):
    """Each unit's weights lie where the pixels lie that they multiply."""
    rng = np.random.default_rng(0)
    image, weights = rng.normal(size=(6, 6, channels)), rng.normal(size=(36 * channels, 5))
    params = {"fc": {"bias": np.zeros(5), "kernel": weights}}
    found = kernels.first_kernels(params, ("pool1", "fc"))
    assert found.shape == (1, 5, 6, 6, channels)
    weighed = (found[0] * image).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(weighed, image.ravel() @ weights, rtol=1e-5)
