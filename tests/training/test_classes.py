"""Classes by name: of runs, of our own files, and of weights that have no names."""

import hashlib

import numpy as np
import pytest
from flax import nnx

import vision_models
from training.classes import Start, check_classes, imagenet_classes, known_classes, other_classes
from training.errors import TrainingError
from training.initial import _about_classes
from training.trained import Trained
from vision_models import weights
from vision_models.functional import variables

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def synsets():
    from input_pipeline.datasets.imagenet import imagenet_synsets

    return list(imagenet_synsets())


def test_imagenets_order_is_known_by_its_digest(synsets):
    assert imagenet_classes(synsets) is None
    swapped = [*synsets[:5], synsets[6], synsets[5], *synsets[7:]]
    found = imagenet_classes(swapped)
    assert found.certain
    assert f"label 5 is {synsets[5]!r} there and {synsets[6]!r} in this dataset" in found.text
    others = [f"n{number:08}" for number in range(1000)]
    assert imagenet_classes(others).certain
    few = imagenet_classes(synsets[:10])
    assert not few.certain and "data.name=imagenet2012" in few.text
    own = imagenet_classes(["cat", *synsets[1:]])
    assert not own.certain and "here with 'cat'" in own.text


@pytest.mark.parametrize(
    "names, fresh, said",
    [
        ([str(n) for n in range(11)], (), ["without names of classes; labels here follow"]),
        ([str(n) for n in range(11)], ("fc",), []),
        ([str(n) for n in range(10)], (), []),  # either way
        (["a", "c", "b"], (), []),
    ],
)
def test_weights_without_names_on_folders_that_are_numbers(names, fresh, said):
    initial = Trained("lenet5", {}, {}, {}, None, "w.pth", fresh=fresh)
    found = _about_classes(initial, names)
    assert [text[:44] for text in found] == said


def test_spellings_of_one_name_are_one():
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert other_classes(["a", composed], ["a", decomposed]) is None
    with pytest.raises(TrainingError, match="label 0 was 'a' and is 'b' in this dataset"):
        check_classes(["a", "b"], ["b", "a"], "run")
    assert "1 are not here, such as 'b'" in other_classes(["a", "b"], ["a", "c"])


def test_a_weights_file_says_its_classes_as_a_run_does(tmp_path, monkeypatch):
    made = variables(vision_models.create("lenet_caffe", rngs=nnx.Rngs(0), num_classes=2))
    images = {"mean": np.zeros(3, np.float32), "deviation": np.ones(3, np.float32)}
    path = tmp_path / "w.safetensors"
    weights.save(path, "lenet_caffe", {"num_classes": 2}, *made, images, ["b", "a"])
    assert known_classes(Start(str(path)), tmp_path / "run", False) == ("b", "a")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert known_classes(Start("~/w.safetensors"), tmp_path / "run", False) == ("b", "a")
    start = Start("~/w.safetensors", new_head=True)
    assert known_classes(start, tmp_path / "run", False) is None
    with pytest.raises(TrainingError, match=r"init_from=~nobody.*write the path in full"):
        known_classes(Start("~nobody-of-this-name/w.pth"), tmp_path / "run", False)
    for name in (hashlib.sha256().hexdigest() * 8, "\udcff", "nothing"):
        assert known_classes(Start(name), tmp_path / "run", False) is None
