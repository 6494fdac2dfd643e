"""The average over networks that dropout samples, against all of them one by one."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vision_models
from devices import mesh as meshes
from evaluation import EvaluationError, Masks, make_steps, masks, protocol_called
from evaluation.preprocessing import Preprocessing
from vision_models import layers
from vision_models.functional import functional
from vision_models.network import Builder

PLAIN = Preprocessing(10, 8, aligned_mean=False)


def small(rngs, rate=0.5, inverted=False):
    """Six hidden units that dropout may drop, after statistics that training would move."""
    net = Builder(8, rngs=rngs, init=layers.initializer("gaussian", 0.3), towers=1)
    net.conv("conv", 2, 3, padding=1)
    net.batch_norm("norm")
    net.dense("hidden", 6)
    net.dropout("drop", rate, inverted=inverted)
    net.head("fc", 3)
    return net.network()


@functools.cache
def network():
    return functional(small)


@functools.cache
def variables():
    return network().init(jax.random.key(3))


def images(count):
    return jnp.asarray(np.random.default_rng(0).normal(size=(count, 8, 8, 3)), jnp.float32)


def average(count, seed=0, at=slice(None)):
    scored = jax.jit(masks.scores(network(), Masks(count, seed)))
    return np.asarray(scored(*variables(), images(5)[at]))


def test_many_masks_approach_the_mean_over_all_64_networks():
    model = small(nnx.Rngs(0))
    record = {}
    params, statistics = variables()
    vision_models.functional.set_variables(model, params, statistics)
    model(images(5), record=record)
    hidden = np.asarray(record["hidden"]).reshape(5, 6)
    kernel = np.asarray(params["fc"]["kernel"]).reshape(6, 3)
    total = np.zeros((5, 3))
    for mask in itertools.product((0, 1), repeat=6):
        logits = hidden * mask @ kernel + np.asarray(params["fc"]["bias"])
        total += np.asarray(jax.nn.softmax(logits)) / 64
    found = np.exp(average(2000))
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found, total, atol=0.03)
    assert np.abs(np.exp(average(3)) - total).max() > 0.03  # and few do not


def test_two_masks_are_the_mean_of_one_and_the_other():
    """One network sampled: evaluation but for the units that are dropped."""
    params, statistics = variables()
    each = []
    for number in range(2):
        key = jax.random.fold_in(jax.random.key(7), number)
        keys = jnp.broadcast_to(key, (5,))
        each.append(jax.nn.softmax(network().sampled(params, statistics, images(5), keys)))
    np.testing.assert_allclose(np.exp(average(2, seed=7)), sum(each) / 2, rtol=1e-5)


def test_masks_depend_on_the_seed_alone():
    whole = average(5)
    np.testing.assert_array_equal(average(5), whole)
    np.testing.assert_allclose(average(5, at=slice(2, 4)), whole[2:4], rtol=1e-5)
    assert not np.allclose(average(5, seed=1), whole)


def test_without_masks_the_network_is_itself():
    assert masks.scores(network(), Masks()) is network().apply


@functools.cache
def towers():
    return functional(
        lambda rngs: vision_models.create(
            "alexnet", num_classes=4, image_size=64, kernels=(4, 4, 4, 4, 4), hidden=(8, 8),
            init_std=0.2, init_std_conv3to5=0.2, rngs=rngs,
        )
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("data, tower", [(2, 1), (1, 2)])
def test_every_mesh_samples_the_same_networks(data, tower):
    preprocessing = Preprocessing(68, 64, aligned_mean=False)
    protocol = protocol_called("ten_view", preprocessing, masks=Masks(3, 1))
    pixels = np.random.default_rng(2).integers(0, 256, (2, 68, 68, 3), np.uint8)
    params, statistics = towers().init(jax.random.key(0))
    scores = []
    for shape in ((1, 1), (data, tower)):
        mesh = meshes.make_mesh(2, data=shape[0], tower=shape[1])
        specs = meshes.param_specs(towers().per_tower, mesh)
        (step,) = make_steps(protocol, towers(), mesh, specs, preprocessing, "float32")
        normalization = {"mean": np.full((68, 68, 3), 99, np.float32), "deviation": np.ones(3)}
        placed = jax.device_put(params, meshes.shardings(mesh, specs))
        placer = meshes.batch_placer(mesh)
        arguments = {k: meshes.replicate(mesh, np.float32(v)) for k, v in normalization.items()}
        scores.append(step(placed, statistics, arguments, placer({"image": pixels})["image"]))
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.exp(scores[0]).sum(axis=1), 1, rtol=1e-5)


def test_the_protocol_says_how_many_there_were():
    assert protocol_called("center_crop", PLAIN, masks=Masks(9)).label == "center_crop-9_masks"
    label = protocol_called("ten_view", PLAIN, masks=Masks(9, 4)).label
    assert label == "ten_view-9_masks_seed_4"


@pytest.mark.parametrize("name", ["dense", "ten_view_logits", "center_crop_true_class"])
def test_protocols_of_other_averages_take_no_masks(name):
    with pytest.raises(EvaluationError, match=rf"dropout_masks=9: {name} does not average"):
        protocol_called(name, PLAIN, masks=Masks(9))
