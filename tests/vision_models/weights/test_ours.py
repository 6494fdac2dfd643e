"""Our own files, there and back; what starts from them."""

import jax
import numpy as np
import pytest
from flax import nnx

import vision_models
from tests.vision_models.weights.making import images, saved, torch_vgg11
from vision_models import weights
from vision_models.functional import variables
from vision_models.weights import WeightsError


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("alexnet", marks=pytest.mark.slow),
        "resnet20",
        "lenet5",
        pytest.param("cifar10_11pct", marks=pytest.mark.slow),
    ],
)
def test_safetensors_there_and_back(name, tmp_path):
    options = {"num_classes": 10}
    if name == "alexnet":
        options |= {"kernels": (8, 8, 8, 8, 8), "hidden": (16, 16)}
    model = vision_models.create(name, rngs=nnx.Rngs(0), **options)
    params, statistics = variables(model)
    images_of = {"mean": np.arange(3.0, dtype=np.float32), "deviation": np.ones(3, np.float32)}
    path = tmp_path / "w.safetensors"
    weights.save(path, name, options, params, statistics, images_of)
    loaded = weights.load(path, name, options)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    jax.tree.map(np.testing.assert_array_equal, loaded.statistics, statistics)
    assert loaded.fresh == ()
    np.testing.assert_array_equal(loaded.normalization["mean"], [0, 1, 2])

    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        assert file.metadata()["model"] == name
        assert any(key.endswith("/kernel") for key in file.keys())  # noqa: SIM118

    other = vision_models.create(name, rngs=nnx.Rngs(1), **options)
    weights.set_weights(other, loaded)
    x = images(1, other.image_size)
    np.testing.assert_array_equal(other(x), model(x))


def test_a_deeper_vgg_starts_from_a(tmp_path):
    """Section 3.1: the first four convolutions and the fully connected layers."""
    small = {"hidden": (8, 8), "num_classes": 5, "image_size": 32}
    shallow = vision_models.create("vgg_a", rngs=nnx.Rngs(0), **small)
    path = tmp_path / "a.safetensors"
    weights.save(path, "vgg_a", small, *variables(shallow))
    for name in ("vgg_b", "vgg16", "vgg_e"):
        loaded = weights.load(path, name, small)
        deep = vision_models.create(name, rngs=nnx.Rngs(1), **small)
        untouched = np.asarray(deep.conv5_1.kernel[...])
        weights.set_weights(deep, loaded)
        for layer in ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8"):
            np.testing.assert_array_equal(
                getattr(deep, layer).kernel[...], getattr(shallow, layer).kernel[...]
            )
        np.testing.assert_array_equal(deep.conv5_1.kernel[...], untouched)
        assert {"conv1_2", "conv4_1", "conv5_1"} <= set(loaded.fresh)
        assert not {"conv1_1", "fc8"} & set(loaded.fresh)
    with pytest.raises(WeightsError, match="holds a vgg_a, the config's network is resnet18"):
        weights.load(path, "resnet18")


def test_a_file_of_pytorch_grows_too_with_a_new_head(tmp_path):
    peer, options = torch_vgg11(classes=10)
    path = saved(peer, tmp_path / "vgg11.pth")
    loaded = weights.load(path, "vgg_b", options | {"num_classes": 4}, new_head=True)
    assert {"fc8", "conv1_2"} <= set(loaded.fresh)
    theirs = weights.load(path, "vgg_a", options)
    np.testing.assert_array_equal(loaded.params["fc6"]["kernel"], theirs.params["fc6"]["kernel"])


def test_settings_of_our_own_files_are_compared(tmp_path):
    """What the tensors do not show, but what is free to differ: initialisation, dropout."""
    path = tmp_path / "w.safetensors"
    model = vision_models.create("lenet_caffe", neuron="tanh", pool="average", rngs=nnx.Rngs(0))
    weights.save(path, "lenet_caffe", {"neuron": "tanh", "pool": "average"}, *variables(model))
    with pytest.raises(WeightsError, match=r"--config.model.neuron=tanh --config.model.pool=av"):
        weights.load(path, "lenet_caffe")
    weights.load(path, "lenet_caffe", {"neuron": "tanh", "pool": "average", "init": "he"})
    small = {"kernels": (8, 8, 8, 8, 8), "hidden": (16, 16), "num_classes": 3, "image_size": 67}
    for inverted, free in ((True, True), (False, False)):
        made = {**small, "inverted_dropout": inverted}
        net = vision_models.create("alexnet", rngs=nnx.Rngs(0), **made)
        weights.save(path, "alexnet", made, *variables(net))
        if free:
            weights.load(path, "alexnet", {**made, "dropout": 0.3})
        else:
            with pytest.raises(WeightsError, match=r"--config.model.dropout=0.5"):
                weights.load(path, "alexnet", {**made, "dropout": 0.3})


def test_vgg_a_and_a_lrn_are_told_apart(tmp_path):
    small = {"hidden": (8, 8), "num_classes": 5, "image_size": 32}
    path = tmp_path / "a.safetensors"
    model = vision_models.create("vgg_a", rngs=nnx.Rngs(0), **small)
    weights.save(path, "vgg_a", small, *variables(model))
    with pytest.raises(WeightsError, match=r"--config.model.lrn=False"):
        weights.load(path, "vgg_a_lrn", small)
    with pytest.raises(WeightsError, match=r"--config.model.batch_norm=False"):
        weights.load(path, "vgg_d", {**small, "batch_norm": True})
    # A deeper network for other classes.
    loaded = weights.load(path, "vgg_d", {**small, "num_classes": 9}, new_head=True)
    assert "fc8" in loaded.fresh and "fc7" not in loaded.fresh
