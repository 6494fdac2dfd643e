import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vision_models import layers, modules, together
from vision_models.forward import Pass
from vision_models.network import Builder


def build(towers=1):
    """Every pair of layers that are computed together, and branches with equal windows."""
    net = Builder(24, rngs=nnx.Rngs(params=0), bias=0.1, towers=towers)
    net.conv("conv1", 8, 3)
    net.pool("pool1", 3, 2, ceil=True)
    net.conv("conv2", 16, 3, padding=1)
    net.add("norm2", modules.LocalResponseNorm())
    net.conv("conv3", 8, 3, neuron="tanh")
    net.pool("pool3", 2, 2)
    if towers == 1:
        net.branches(
            "join",
            "concatenate",
            branch1=lambda b: b.conv("1x1", 4, 1),
            branch2=lambda b: (b.conv("reduce", 6, 1), b.conv("3x3", 8, 3, padding=1)),
            branch3=lambda b: (b.pool("pool", 3, 1, padding=1), b.conv("project", 4, 1)),
        )
        net.branches(
            "block",
            "add",
            left=lambda b: (b.conv("a", 16, 1), b.pool("pool", 3, 1, padding=1)),
            right=lambda b: None,
        )
    net.exchange("exchange")
    net.head("fc", 10)
    return net.network()


@pytest.mark.slow
@pytest.mark.parametrize("towers", [1, 2])
def test_layers_together_compute_what_each_computes_alone(towers):
    net = build(towers)
    images = jnp.asarray(np.random.default_rng(0).normal(0, 1, (4, 24, 24, 3)), jnp.float32)
    weights = jnp.asarray(np.random.default_rng(1).normal(0, 1, (4, 10)), jnp.float32)
    graph, params = nnx.split(net)

    def loss(params, alone):
        # Layers are computed one by one where activations are recorded.
        logits = nnx.merge(graph, params)(images, record={} if alone else None)
        return (logits * weights).sum(), logits

    run = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    (_, logits), grads = run(params, False)
    (_, expected), expected_grads = run(params, True)
    np.testing.assert_array_equal(logits, expected)
    for ours, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_what_is_taken_together():
    run = Pass()
    conv, tanh = build().conv1, build().conv3
    largest, mean = modules.Pool("max", 3, 2), modules.Pool("average", 3, 2)
    norm = modules.LocalResponseNorm()
    assert set(together.with_next(conv, largest, run)) == {"pool"}
    assert set(together.with_next(conv, norm, run)) == {"norm"}
    assert together.with_next(conv, mean, run) == {}
    assert together.with_next(conv, modules.LocalResponseNorm(across=2), run) == {}
    assert together.with_next(tanh, norm, run) == {}
    assert together.with_next(conv, largest, Pass(record={})) == {}


def test_parts_written_in_place_are_a_concatenation():
    rng = np.random.default_rng(0)
    parts = [jnp.asarray(rng.normal(0, 1, (2, 3, n)), jnp.float32) for n in (4, 1, 7)]
    weights = jnp.asarray(rng.normal(0, 1, (2, 3, 12)), jnp.float32)
    whole = jnp.concatenate(parts, -1)
    np.testing.assert_array_equal(jax.jit(layers.written_in_place)(parts), whole)
    np.testing.assert_array_equal(layers.concatenated(parts), whole)
    grads = jax.grad(lambda parts: (layers.concatenated(parts) * weights).sum())(parts)
    np.testing.assert_array_equal(jnp.concatenate(grads, -1), weights)
