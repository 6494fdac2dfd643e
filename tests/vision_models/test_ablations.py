"""Networks with a part taken out or put in, against the same computed otherwise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import vision_models
from tests.networks import drawn
from vision_models.functional import set_variables, variables


def made(name, **options):
    return drawn(functools.partial(_create, name, options))


def _create(name, options, rngs):
    return vision_models.create(name, num_classes=5, rngs=rngs, **options)


def images(side, count=3):
    return jnp.asarray(np.random.default_rng(1).normal(size=(count, side, side, 3)), jnp.float32)


def conv(x, layer, stride=1, padding="SAME"):
    window = layer["kernel"].shape[0]
    pads = ((window // 2, window // 2),) * 2 if padding == "SAME" else padding
    out = lax.conv_general_dilated(
        x, layer["kernel"], (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return out + layer["bias"]


def test_a_plain_network_without_batch_norm_is_convolutions_and_relus():
    model = made("plain8", batch_norm=False)
    params, statistics = variables(model)
    assert not jax.tree.leaves(statistics)
    x = jax.nn.relu(conv(images(32), params["conv1"]))
    for stage in (2, 3, 4):
        block = params[f"conv{stage}_1"]["residual"]
        x = jax.nn.relu(conv(x, block["conv1"], stride=1 if stage == 2 else 2))
        x = jax.nn.relu(conv(x, block["conv2"]))
    expected = x.mean((1, 2)) @ params["fc"]["kernel"] + params["fc"]["bias"]
    np.testing.assert_allclose(model(images(32)), expected, rtol=1e-4, atol=1e-4)


def test_the_lectures_network_with_batch_norm_normalises_before_the_neuron():
    model = made("convnet", batch_norm=True, stages=1, kernels=4, hidden_layers=0, pool="")
    (params, statistics), x = variables(model), images(32)
    for number in (1, 2):
        kernel = {"kernel": params[f"conv1_{number}"]["kernel"], "bias": 0.0}
        assert "bias" not in params[f"conv1_{number}"]
        norm, moments = params[f"norm1_{number}"], statistics[f"norm1_{number}"]
        x = (conv(x, kernel) - moments["mean"]) / jnp.sqrt(moments["variance"] + 1e-5)
        x = jax.nn.relu(x * norm["scale"] + norm["bias"])
    kernel = params["fc"]["kernel"].reshape(-1, 5)
    expected = x.reshape(len(x), -1) @ kernel + params["fc"]["bias"]
    np.testing.assert_allclose(model(images(32)), expected, rtol=1e-4, atol=1e-4)


def test_shared_kernels_are_those_of_a_locally_connected_layer_that_are_all_alike():
    shared, local = made("cifar10_13pct", shared=True), made("cifar10_13pct")
    params = variables(shared)[0]
    repeated = dict(params)
    for name in ("local3", "local4"):
        like = variables(local)[0][name]
        kernel = params[name]["kernel"].reshape(like["kernel"].shape[-2:])
        repeated[name] = {
            "kernel": jnp.broadcast_to(kernel, like["kernel"].shape),
            "bias": jnp.broadcast_to(params[name]["bias"], like["bias"].shape),
        }
    set_variables(local, repeated, {})
    np.testing.assert_allclose(shared(images(24)), local(images(24)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["base_cnn_b", "strided_cnn_b", "convpool_cnn_b"])
def test_variants_of_the_all_convolutional_networks_are_their_tables(name):
    """Table 2's rows, for base B: 5x5 and 1x1 convolutions before each halving."""
    model = made(name)
    params, x = variables(model)[0], images(32)
    number, strided = 0, name.startswith("strided")
    for _ in range(2):
        for step in (1, 2) if strided else (1, 1):
            number += 1
            x = jax.nn.relu(conv(x, params[f"conv{number}"], stride=step))
        if name.startswith("convpool"):
            number += 1
            x = jax.nn.relu(conv(x, params[f"conv{number}"]))
        if not strided:
            padded = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=-jnp.inf)
            x = lax.reduce_window(padded, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
    for window in (3, 1, 1):
        number += 1
        assert params[f"conv{number}"]["kernel"].shape[:2] == (window, window)
        x = jax.nn.relu(conv(x, params[f"conv{number}"], padding="VALID"))
    assert f"conv{number + 1}" not in params
    np.testing.assert_allclose(model(images(32)), x.mean((1, 2)), rtol=1e-4, atol=1e-4)


def test_dropout_follows_what_halves_the_maps():
    for name, places in (("base_cnn_a", "pool"), ("strided_cnn_a", "conv"), ("all_cnn_a", "conv")):
        names = nnx.eval_shape(lambda name=name: _create(name, {}, nnx.Rngs(0))).names
        drops = [place for place, layer in enumerate(names) if layer.startswith("drop")]
        assert len(drops) == 3 and drops[0] == 0
        assert all(names[place - 1].startswith(places) for place in drops[1:]), names
