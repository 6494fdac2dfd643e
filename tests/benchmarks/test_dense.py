"""The peer of dense evaluation computes the same, and all that is to be measured is measured."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import dense
from tests.conftest import ROOT


def test_batches_of_equal_size_hold_every_image():
    sizes = [[4, 6], [6, 4], [4, 6], [4, 7], [4, 6]]
    assert dense.equal_batches(sizes, 2) == [((4, 6), 2), ((4, 6), 1), ((4, 7), 1), ((6, 4), 1)]
    assert sorted(dense.equal_batches(sizes, 1)) == sorted((tuple(size), 1) for size in sizes)


def test_sizes_are_those_of_photographs_evenly_taken(tmp_path):
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "imagenet_sample" / "val" / "n01440764"
    folder.mkdir(parents=True)
    for number, size in enumerate([(50, 30), (30, 60), (31, 31), (90, 30)]):
        image.new("RGB", size).save(folder / f"{number}.JPEG")
    assert dense.image_sizes(tmp_path, 60, 2) == [[60, 100], [60, 60]]
    assert len(dense.image_sizes(tmp_path, 60, 9)) == 4
    with pytest.raises(SystemExit, match=r"no photographs in .*VISION_MODELS_DATA"):
        dense.image_sizes(tmp_path / "elsewhere", 60, 2)


@pytest.mark.parametrize("window", [6, 7])
def test_linear_layers_that_slide_equal_crops_of_the_last_maps(window, monkeypatch):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_networks

    def small(name, classes):
        nn = torch.nn
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(),
            nn.Linear(4 * window**2, 8), nn.ReLU(), nn.Linear(8, classes),
        )  # fmt: skip

    monkeypatch.setattr(torch_networks, "make", small)
    torch.manual_seed(0)
    slides = dense.convolutional("any")
    torch.manual_seed(0)
    plain = small("any", 1000)
    images = torch.randn(2, 3, window + 2, window + 3)
    with torch.inference_mode():
        scores, maps = slides(images), plain[:2](images)
        assert scores.shape == (2, 1000, 3, 4)
        for row, column in np.ndindex(3, 4):
            crop = maps[:, :, row : row + window, column : column + window]
            expected = plain[2:](crop)
            torch.testing.assert_close(scores[..., row, column], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_it_is_measured(shared_data):
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.dense", "--quick", "--networks", "alexnet", "--side=224",
         "--photographs=6", "--batch=2"],
        cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"VISION_MODELS_DATA": str(shared_data("", "imagenet_sample"))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert row["name"] == "dense/alexnet" and row["photographs"] == 6 and row["side"] == 224
    assert row["ours"] > 0 and row["peer"] == max(row["pytorch_single"], row["pytorch_equal"])
    assert 1 <= row["compilations"] <= 6 and row["padded_area"] >= 1
