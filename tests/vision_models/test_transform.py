"""Networks made from networks: fully connected layers as convolutions, another head."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vision_models
from vision_models.functional import variables
from vision_models.transform import take_layers

GRID, STRIDE = 7, 32
LARGE = 224 + (GRID - 1) * STRIDE


def random_image(size=LARGE, seed=0):
    image = np.random.default_rng(seed).normal(0, 50, (1, size, size, 3))
    return jnp.asarray(image, jnp.float32)


@functools.cache
def narrow(name):
    """The network with its convolutions whole and few hidden units, images at 224 pixels."""
    return vision_models.create(name, num_classes=5, hidden=(32, 24), init="he", rngs=nnx.Rngs(0))


@functools.cache
def activations(name):
    """Those of the fully convolutional form on a large image."""
    return nnx.jit(lambda model, x: vision_models.activations(model, x))(
        vision_models.fully_convolutional(narrow(name)), random_image()
    )


# Network; side of the maps that reach fc6; the cell of them whose field lies inside a crop of
# 224 pixels. The fields of all other cells reach over the crop's borders, where the crop has
# zeros (padding) and the larger image its pixels: the scores of crops differ by that.
CASES = [("alexnet", 6, 2), ("vgg_d", 7, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("name, side, inside", CASES)
def test_the_dense_form_slides_over_the_maps(name, side, inside):
    """Every score is that of the fully connected layers on a window of pool5."""
    model = narrow(name)
    dense = activations(name)
    assert dense["fc8"].shape == (1, GRID, GRID, 5)
    pool5 = dense["pool5"]
    assert pool5.shape[1:3] == (side + GRID - 1, side + GRID - 1)

    def classify(maps):
        """The layers after pool5 of the network as it was."""
        names = model.names[model.names.index("pool5") + 1 :]
        x = jnp.split(maps, 2, axis=-1) if name == "alexnet" else maps
        for layer in names:
            x = getattr(model, layer)(x, vision_models.network.Pass(), layer)
        return x

    for i, j in np.ndindex(GRID, GRID):
        window = pool5[:, i : i + side, j : j + side]
        scores = np.asarray(classify(window))[0]
        scale = np.abs(scores).max()
        np.testing.assert_allclose(dense["fc8"][0, i, j] / scale, scores / scale, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name, side, inside", CASES)
def test_the_dense_form_equals_a_sliding_window(name, side, inside):
    """A 7 x 7 grid of crops of 224 pixels, 32 apart, where the crops' borders do not count."""
    graph, state = nnx.split(narrow(name))
    model = nnx.merge(graph, jax.tree.map(jnp.copy, state))
    kernel = model.fc6.kernel[...]
    maps = kernel.shape[-2] // side**2
    by_cell = kernel.reshape(*kernel.shape[:-2], side, side, maps, kernel.shape[-1])
    kept = (
        jnp.zeros_like(by_cell)
        .at[..., inside, inside, :, :]
        .set(6 * by_cell[..., inside, inside, :, :])
    )
    model.fc6.kernel[...] = kept.reshape(kernel.shape)

    image = random_image()
    forward = nnx.jit(lambda model, x: model(x))
    dense = forward(vision_models.fully_convolutional(model), image)
    assert dense.shape == (1, GRID, GRID, 5)
    for i in range(GRID):
        crops = jnp.concatenate(
            [image[:, i * 32 : i * 32 + 224, j * 32 : j * 32 + 224] for j in range(GRID)]
        )
        scores = np.asarray(forward(model, crops))
        scale = np.abs(scores).max()
        np.testing.assert_allclose(dense[0, i] / scale, scores / scale, atol=1e-4)
    assert np.std(dense, axis=(1, 2)).max() > 1e-2 * np.abs(dense).max()  # places differ


@pytest.mark.slow
def test_without_padding_every_cell_counts():
    """The lectures' network without padding: crops and dense scores agree everywhere."""
    from vision_models.network import Builder

    def network(size):
        net = Builder(size, rngs=nnx.Rngs(0))
        net.conv("conv1", 8, 3)
        net.pool("pool1", 2, 2)
        net.conv("conv2", 8, 3, stride=2)
        net.dense("fc1", 16)
        net.dropout("drop", 0.5)
        net.head("fc2", 4)
        return net.network()

    model = network(24)
    image = random_image(24 + 3 * 4)
    dense = vision_models.fully_convolutional(model)(image)
    assert dense.shape == (1, 4, 4, 4)
    for i, j in np.ndindex(4, 4):
        crop = image[:, 4 * i : 4 * i + 24, 4 * j : 4 * j + 24]
        np.testing.assert_allclose(dense[0, i, j], model(crop)[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "name", ["resnet20", pytest.param("vgg_d_no_fc", marks=pytest.mark.slow), "lenet_caffe"]
)
def test_the_dense_form_of_the_native_size_is_the_network(name):
    options = {"image_size": 64} if name == "vgg_d_no_fc" else {}
    model = vision_models.create(name, rngs=nnx.Rngs(0), **options)
    size = model.image_size
    x = random_image(size)
    logits = model(x)
    dense = vision_models.fully_convolutional(model)
    scale = np.abs(logits).max()
    np.testing.assert_allclose(dense(x)[:, 0, 0] / scale, logits / scale, atol=1e-5)
    assert dense(random_image(2 * size)).shape[1] > 1
    np.testing.assert_array_equal(model(x), logits)  # the original has not changed
    before, after = (variables(m)[0] for m in (model, dense))
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_a_network_without_anything_to_turn_is_named():
    from vision_models.network import Builder

    net = Builder(8, rngs=nnx.Rngs(0))
    net.conv("conv", 4, 3)
    with pytest.raises(ValueError, match="nothing to turn into convolutions"):
        vision_models.fully_convolutional(net.network())


def test_a_replaced_head():
    def create(classes, seed):
        return vision_models.create("lenet_caffe", num_classes=classes, rngs=nnx.Rngs(seed))

    trained = create(10, 0)
    fresh = vision_models.replace_head(
        trained, lambda rngs: vision_models.create("lenet_caffe", num_classes=3, rngs=rngs),
        nnx.Rngs(7),
    )  # fmt: skip
    x = random_image(28)
    ours, theirs = (vision_models.activations(m, x) for m in (fresh, trained))
    np.testing.assert_array_equal(ours["ip1"], theirs["ip1"])
    assert ours["ip2"].shape == (1, 3)
    np.testing.assert_array_equal(fresh.ip2.kernel[...], create(3, 7).ip2.kernel[...])
    other = vision_models.create("lenet5", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"conv1/bias: \(20,\) is needed, the other network has n"):
        vision_models.replace_head(
            other, lambda rngs: vision_models.create("lenet_caffe", rngs=rngs), nnx.Rngs(0)
        )


def test_taking_layers():
    into = {"a": {"kernel": np.zeros(2)}, "b": {"kernel": np.zeros(3)}}
    source = {"a": {"kernel": np.ones(2)}, "b": {"kernel": np.ones(4)}}
    taken = take_layers(into, source, lambda path: path.startswith("a/"))
    np.testing.assert_array_equal(taken["a"]["kernel"], np.ones(2))
    np.testing.assert_array_equal(taken["b"]["kernel"], np.zeros(3))
    with pytest.raises(ValueError, match=r"b/kernel: \(3,\) is needed, the other network has \(4,"):
        take_layers(into, source, lambda path: True)
