"""Whole images that share a padded batch are scored as each of them alone."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

import vision_models
from devices.mesh import make_mesh, param_specs, shardings
from tests.networks import drawn
from vision_models import dense, googlenet, modules, vgg
from vision_models.functional import functional, variables
from vision_models.network import Builder

NAMES = ("alexnet", "vgg_a_lrn", "vgg_d", "googlenet", "resnet18")
# Compiles three times as fast; convolutions and products are not its.
QUICKLY = {"xla_backend_optimization_level": 0}


@functools.cache
def slim(name, size=64):
    """A network of the same layers (GoogLeNet: of three modules), with few maps."""
    with pytest.MonkeyPatch.context() as patch:
        for configuration, row in vgg.CONFIGURATIONS.items():
            narrow = re.sub(r"\d{2,}", lambda maps: str(int(maps[0]) // 16), row)
            patch.setitem(vgg.CONFIGURATIONS, configuration, narrow)
        few = {
            module: tuple(maps // 8 for maps in googlenet.INCEPTION[module])
            for module in ("inception_3b", "inception_4e", "inception_5b")
        }
        patch.setattr(googlenet, "INCEPTION", few)
        options = {"image_size": size, "num_classes": 5}
        if name in ("alexnet", "vgg_a_lrn", "vgg_d", "zfnet"):
            options |= {"hidden": (32, 24)}
        if name in ("alexnet", "zfnet"):
            options |= {"kernels": (8, 16, 16, 16, 16)}
        return drawn(lambda rngs: vision_models.create(name, rngs=rngs, **options))


def noise(height, width, seed=0):
    return np.random.default_rng(seed).normal(0, 50, (height, width, 3)).astype(np.float32)


def together(images, height, width):
    """[B, height, width, 3] of images of several sizes, and their sizes."""
    batch = np.zeros((len(images), height, width, 3), np.float32)
    for row, image in zip(batch, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    return batch, np.array([image.shape[:2] for image in images], np.int32)


def scored(model, images, valid):
    """`score_map`, compiled."""
    graph, state = nnx.split(model)
    score = jax.jit(
        lambda state, *arguments: dense.score_map(nnx.merge(graph, state), *arguments),
        compiler_options=QUICKLY,
    )
    return tuple(np.asarray(array) for array in score(state, images, valid))


def alone(model, image):
    """Scores [h, w, classes] of one image, by other forms of the network that know no padding."""
    if not any(isinstance(getattr(model, n), modules.GlobalAveragePool) for n in model.names):
        model = vision_models.fully_convolutional(model)
    graph, state = nnx.split(model)
    forward = jax.jit(lambda state, x: nnx.merge(graph, state)(x), compiler_options=QUICKLY)
    scores = np.asarray(forward(state, image[None]))
    return scores[0] if scores.ndim == 4 else scores[None]


def check(model, images, height, width):
    """The map of each image among the others is that of the image alone, and zeros around it."""
    scores, cells = scored(model, *together(images, height, width))
    assert np.isfinite(scores).all()
    for image, found, (h, w) in zip(images, scores, cells, strict=True):
        expected = alone(model, image)
        assert expected.shape[:2] == (h, w)
        largest = np.abs(expected).max()
        np.testing.assert_allclose(found[:h, :w] / largest, expected / largest, atol=1e-5)
        assert not found[h:].any() and not found[:, w:].any()


@pytest.mark.parametrize("name", NAMES)
def test_padded_images_are_scored_as_alone(name):
    """AlexNet's at two scales, of two residues of the stride; one lies, one stands."""
    images = [noise(69, 105), noise(114, 95, 1)]
    check(slim(name), images if name == "alexnet" else images[:1], 134, 154)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side, lies", [(256, True), (288, False)])
def test_every_residue_of_the_stride(name, side, lies):
    """Networks as they are, at two scales."""
    model = whole(name)
    for first in range(side, side + 32, 8):
        sizes = [(side, long) if lies else (long, side) for long in range(first, first + 8)]
        shape = (side, side + 48) if lies else (side + 48, side)
        check(model, [noise(*size, seed) for seed, size in enumerate(sizes)], *shape)


@functools.lru_cache(1)
def whole(name):
    return drawn(lambda rngs: vision_models.create(name, rngs=rngs))


def small_network(kind, neuron, ceil):
    """Layers that others lack: pools of every kind that reach past the maps, a norm inside them."""

    def create(rngs):
        net = Builder(24, rngs=rngs, neuron=neuron)
        net.dropout("drop", 0.2, inverted=False)
        net.conv("conv1", 6, 5, padding=((1, 2), (1, 2)))
        net.pool("pool1", 3, 2, kind=kind, ceil=ceil)
        net.add("norm1", modules.SpatialResponseNorm(size=3))
        net.conv("conv2", 6, 4, stride=2, padding=2, neuron="identity")
        net.batch_norm("norm2")
        net.pool("pool2", 3, 2, kind=kind, padding=1, ceil=ceil)
        net.pad_channels("pad", 8, stride=2)
        net.conv("conv3", 5, 1)
        net.conv("conv4", 5, (1, 3), padding=((0, 0), (1, 1)))
        net.dense("fc1", 7)
        net.head("fc2", 4)
        return net.network()

    return drawn(create)


@pytest.mark.parametrize(
    "kind, neuron, ceil",
    [
        ("max", "tanh", True),
        ("average", "sigmoid", True),
        ("padded_average", "tanh", False),
        ("l2", "tanh", False),
    ],
)
def test_every_layer_ends_at_the_image(kind, neuron, ceil):
    images = [noise(24, 31) / 50, noise(45, 26, 1) / 50]
    check(small_network(kind, neuron, ceil), images, 47, 46)


@pytest.mark.parametrize("name, size", [("lenet5", 32), ("lenet_caffe", 28), ("all_cnn_a", 32)])
def test_small_networks(name, size):
    model = drawn(lambda rngs: vision_models.create(name, rngs=rngs))
    check(model, [noise(size + 3, size + 8) / 50], size + 20, size + 19)


def test_the_average_of_a_map_is_that_of_its_image():
    """ResNet's score is its classifier's of the mean of the last maps."""
    model = slim("resnet18")
    images = [noise(69, 105), noise(99, 95, 1)]
    scores, cells = scored(model, *together(images, 110, 120))
    assert scores.shape == (2, 1, 1, 5) and (cells == 1).all()
    kernel, bias = (np.asarray(value, np.float64) for value in (model.fc.kernel, model.fc.bias))
    graph, state = nnx.split(model)
    maps = jax.jit(
        lambda state, x: vision_models.activations(nnx.merge(graph, state), x)["conv5_2_neuron"],
        compiler_options=QUICKLY,
    )(state, images[0][None])[0]
    assert maps.shape[:2] == (3, 4)
    expected = np.asarray(maps, np.float64).mean(axis=(0, 1)) @ kernel + bias
    np.testing.assert_allclose(scores[0, 0, 0], expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_towers_and_batches_on_a_mesh(dtype):
    """Both towers on devices of their own, images split over the others: the same maps."""
    model = slim("alexnet")
    images = [noise(69, 105 + 9 * n, n) for n in range(4)]
    batch, valid = together(images, 70, 140)
    options = {"kernels": (8, 16, 16, 16, 16), "hidden": (32, 24), "image_size": 64}
    network = functional(
        lambda r: vision_models.create("alexnet", num_classes=5, rngs=r, **options)
    )
    params, statistics = variables(model)
    mesh = make_mesh(2, data=2, tower=2)
    specs = param_specs(network.per_tower, mesh)
    score = jax.jit(
        jax.shard_map(
            lambda params, images, valid: network.score_map(
                params, statistics, images.astype(dtype), valid
            ),
            mesh=mesh,
            in_specs=(specs, P("data"), P("data")),
            out_specs=P("data"),
        ),
        compiler_options=QUICKLY,
    )
    scores, cells = score(jax.device_put(params, shardings(mesh, specs)), batch, valid)
    expected, counts = scored(model, batch, valid)
    np.testing.assert_array_equal(cells, counts)
    assert scores.dtype == jnp.float32 and counts[0, 1] < counts[3, 1]
    largest = np.abs(expected).max()
    tolerance = 1e-5 if dtype == "float32" else 3e-2
    np.testing.assert_allclose(scores / largest, expected / largest, atol=tolerance)
    np.testing.assert_array_equal(np.asarray(scores) != 0, expected != 0)


@pytest.mark.quick
def test_images_that_are_too_small():
    """One among others has no scores; none at all are refused."""
    model = slim("alexnet")
    scores, cells = scored(model, *together([noise(50, 80), noise(64, 96, 1)], 64, 96))
    assert cells.tolist() == [[0, 1], [1, 2]]
    assert not scores[0].any() and scores[1].all()
    with pytest.raises(ValueError, match="too small"):
        scored(model, *together([noise(50, 80)], 50, 80))


@pytest.mark.quick
@pytest.mark.parametrize(
    "name, message",
    [
        ("cifar10_13pct", r"local3 \(LocallyConnected\) has kernels of its own at every place, "
         "so that the network takes images of 24 pixels alone"),
        ("cifar10_18pct", ""),
        ("googlenet_bn", ""),  # an adaptive pool, but on the side
    ],
)  # fmt: skip
def test_networks_that_cannot_be_dense_say_why(name, message):
    model = nnx.eval_shape(lambda: vision_models.create(name, rngs=nnx.Rngs(0)))
    if not message:
        dense.check_dense(model)
        return
    for refused in (dense.check_dense, lambda model: dense.score_map(model, None, None)):
        with pytest.raises(ValueError, match=message):
            refused(model)


def test_a_tied_layer_inside_a_block_has_its_path():
    net = Builder(32, rngs=nnx.Rngs(0))
    net.block("stage", lambda inner: inner.adaptive_average_pool("pool", 4))
    net.head("fc", 3)
    with pytest.raises(ValueError, match=r"stage/pool \(AdaptiveAveragePool\)"):
        dense.check_dense(net.network())
