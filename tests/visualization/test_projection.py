"""Projections to pixels against derivatives, switches, and loops written from the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vision_models
from vision_models.network import Builder
from visualization.projection import RULES, projector

DRAW = np.random.default_rng(0)


def _builder(size, channels=3, **options):
    return Builder(size, rngs=nnx.Rngs(0), channels=channels, **options)


@pytest.mark.parametrize("method", RULES)
def test_the_gradient_without_relu_pool_and_normalisation(method):
    """All methods agree where there is nothing for which they have rules."""
    net = _builder(9, neuron="identity")
    net.conv("a", 4, 3, padding=1, stride=2)
    net.conv("b", 5, 3)
    net.head("fc", 2)
    model = net.network()
    x = jnp.asarray(DRAW.normal(size=(1, 9, 9, 3)), jnp.float32)

    def unit(x):
        record = {}
        model(x, record=record)
        return record["b"][0, 1, 2, 3]

    found = projector(model, "b", method)(x, jnp.array([[1, 2, 3]]))
    np.testing.assert_allclose(found, jax.grad(unit)(x), rtol=1e-5, atol=1e-7)
    assert np.abs(found).max() > 0


@pytest.mark.quick
def test_a_pool_sends_its_value_to_the_maximum():
    """One pooling layer: the value lands on the argmax and nowhere else."""
    net = _builder(6)
    net.pool("pool", 3, 3)
    net.head("fc", 2)
    x = DRAW.normal(size=(1, 6, 6, 3)).astype(np.float32)
    found = projector(net.network(), "pool")(jnp.asarray(x), jnp.array([[1, 0, 2]]))
    expected = np.zeros_like(x)
    y, z = np.unravel_index(x[0, 3:, :3, 2].argmax(), (3, 3))
    expected[0, 3 + y, z, 2] = 1
    np.testing.assert_array_equal(found, expected)


def _paper(x, first, second, unit):
    """conv 3x3, ReLU, pool 2/2, conv 3x3, ReLU; and back: unpool, rectify, transposed filters."""

    def convolve(x, kernel):
        size = x.shape[0] - 2
        out = np.zeros((size, size, kernel.shape[3]))
        for i, j in np.ndindex(size, size):
            out[i, j] = np.tensordot(x[i : i + 3, j : j + 3], kernel, 3)
        return out

    def transposed(maps, kernel):
        out = np.zeros((maps.shape[0] + 2, maps.shape[1] + 2, kernel.shape[2]))
        for i, j in np.ndindex(maps.shape[:2]):
            out[i : i + 3, j : j + 3] += kernel @ maps[i, j]
        return out

    one = np.maximum(convolve(x, first[0]) + first[1], 0)
    half = one.shape[0] // 2
    pooled = one.reshape(half, 2, half, 2, -1).max((1, 3))
    two = np.zeros((half - 2, half - 2, second[0].shape[3]))
    two[unit] = 1
    down = transposed(np.maximum(two, 0), second[0])
    unpooled = np.zeros_like(one)
    for i, j, c in np.ndindex(pooled.shape):
        window = one[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
        y, z = np.unravel_index(window.argmax(), (2, 2))
        unpooled[2 * i + y, 2 * j + z, c] = down[i, j, c]
    return transposed(np.maximum(unpooled, 0), first[0])


def test_a_small_network_equals_a_loop_written_from_the_paper():
    """Biases are ignored, negative inputs do not mask, switches are those of the forward pass."""
    net = _builder(12, bias=3.0)  # every window has a maximum above zero
    net.conv("a", 4, 3)
    net.pool("pool", 2, 2)
    net.conv("b", 5, 3)
    net.head("fc", 2)
    model = net.network()
    x = DRAW.normal(size=(12, 12, 3)).astype(np.float32)
    parameters = [
        [np.asarray(part[...], np.float64) for part in (layer.kernel, layer.bias)]
        for layer in (model.a, model.b)
    ]
    found = projector(model, "b")(jnp.asarray(x[None]), jnp.array([[1, 2, 3]]))
    np.testing.assert_allclose(found[0], _paper(x, *parameters, (1, 2, 3)), rtol=1e-4, atol=1e-5)


def test_normalisation_passes_unless_its_derivative_is_asked_for():
    """Both rules, on a network of one normalisation."""
    from vision_models.modules import LocalResponseNorm

    net = _builder(4)
    net.add("norm", LocalResponseNorm(alpha=1.0))
    net.head("fc", 2)
    model, x = net.network(), jnp.asarray(DRAW.normal(size=(1, 4, 4, 3)), jnp.float32)
    unit = jnp.array([[1, 2, 0]])
    passed = projector(model, "norm")(x, unit)
    np.testing.assert_array_equal(passed, jnp.zeros_like(x).at[0, 1, 2, 0].set(1))
    derived = projector(model, "norm", normalization_derivative=True)(x, unit)
    np.testing.assert_array_equal(derived, projector(model, "norm", "gradient")(x, unit))
    assert derived[0, 1, 2, 1] != 0


@pytest.mark.slow
@pytest.mark.parametrize("name, size", [("alexnet", 64), ("googlenet", 64), ("resnet18", 32)])
def test_every_layer_that_makes_maps(name, size):
    """It runs, and something arrives at the pixels."""
    options = {"auxiliary": False} if name == "googlenet" else {}
    model = vision_models.create(name, num_classes=3, image_size=size, rngs=nnx.Rngs(0), **options)
    x = jnp.asarray(DRAW.normal(size=(1, size, size, 3)), jnp.float32)
    record = {}
    model(x, record=record)
    for layer, maps in record.items():
        if maps.ndim == 4:
            unit = np.unravel_index(np.asarray(maps[0]).argmax(), maps.shape[1:])
            found = projector(model, layer)(x, jnp.array([unit], jnp.int32))
            assert found.shape == x.shape and np.isfinite(found).all(), layer
            assert np.abs(found).max() > 0, layer
