"""Projections to pixels against derivatives, switches, and loops written from the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vision_models
from tests.networks import drawn
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


SMALL = {"hidden": (32, 24)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, size, options",
    [
        ("alexnet", 64, SMALL),
        ("zfnet", 64, SMALL),
        ("vgg_a_lrn", 32, SMALL),
        ("googlenet", 64, {"auxiliary": False}),
        ("resnet18", 32, {}),
    ],
)
def test_every_layer_that_makes_maps(name, size, options):
    """It runs, and something arrives at the pixels; all layers in one compilation."""
    options = {"num_classes": 3, "image_size": size, **options}
    model = drawn(lambda rngs: vision_models.create(name, rngs=rngs, **options))
    x = jnp.asarray(DRAW.normal(size=(1, size, size, 3)), jnp.float32)
    graph, state = nnx.split(model)
    recorded = jax.jit(lambda state, x: vision_models.activations(nnx.merge(graph, state), x))
    maps = {name: found for name, found in recorded(state, x).items() if found.ndim == 4}
    units = [np.unravel_index(np.asarray(m[0]).argmax(), m.shape[1:]) for m in maps.values()]
    images = jnp.repeat(x, len(maps), axis=0)
    found = projector(model, tuple(maps))(images, jnp.array(units, jnp.int32))
    assert found.shape == images.shape and np.isfinite(found).all()
    for layer, projected in zip(maps, found, strict=True):
        assert np.abs(projected).max() > 0, layer


def test_layers_together_equal_each_alone():
    """Each image's unit is of its own layer, in any order; the same layer may come again."""
    net = _builder(12)
    net.conv("a", 4, 3)
    net.pool("pool", 2, 2)
    net.conv("b", 5, 3)
    net.head("fc", 2)
    model = net.network()
    x = jnp.asarray(DRAW.normal(size=(3, 12, 12, 3)), jnp.float32)
    layers, units = np.array(["b", "a", "b"]), jnp.array([[1, 2, 3], [9, 0, 1], [0, 1, 4]])
    together = projector(model, layers.tolist())(x, units)
    for layer in ("a", "b"):
        alone = projector(model, layer)(x, units)
        here = layers == layer
        np.testing.assert_allclose(together[here], alone[here], rtol=1e-5, atol=1e-6)
