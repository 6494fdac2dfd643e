"""What a network's table says: receptive fields, neurons, connections, exchanged bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vision_models
from tests.vision_models.test_models import abstract
from vision_models.analysis import format_table, layer_table


def test_receptive_fields():
    """Of textbooks and papers: GoogLeNet 907, VGG-D 404 before its classifier, ResNet-50 ..."""
    fields = {r.name: r.receptive_field for r in layer_table(abstract("vgg_d"))}
    assert (fields["conv1_2"], fields["conv5_3"], fields["pool5"]) == (5, 196, 212)
    alex = {r.name: r.receptive_field for r in layer_table(abstract("alexnet"))}
    assert (alex["conv1"], alex["conv2"], alex["conv5"], alex["pool5"]) == (11, 51, 163, 195)
    google = {r.name: r.receptive_field for r in layer_table(abstract("googlenet"))}
    assert google["average"] == 907
    resnet = {r.name: r.receptive_field for r in layer_table(abstract("resnet50"))}
    assert resnet["conv5_3_neuron"] == 483


@pytest.mark.parametrize(
    "name, field, splits",
    [
        ("inception_v3", 1311, [1119, 1183, 1247, 1311]),
        pytest.param(
            "inception_v4", 2071, [1751, 1815, 1879, 1943, 2007, 2071], marks=pytest.mark.slow
        ),
    ],
)
def test_receptive_fields_of_branches_with_windows_that_are_no_squares(name, field, splits):
    """As computed by Araujo, Norris and Sim, "Computing Receptive Fields of CNNs", Distill 2019."""
    rows = [r for r in layer_table(abstract(name)) if not r.auxiliary and r.window]
    assert max(row.receptive_field for row in rows if row.kind == "Conv") == field
    found = {row.name: row.receptive_field for row in rows}
    wide, tall = ([f for n, f in found.items() if n.endswith(f"split/{x}/conv")] for x in "ab")
    assert wide == tall == splits  # 1x3 and 3x1 see as far, one to the sides, one up and down


@pytest.mark.slow
def test_a_field_is_what_changes_the_output():
    """The field of one output of a small network, found by changing pixels one by one."""
    model = vision_models.create(
        "convnet", convolutions=1, stages=2, kernels=2, image_size=24, rngs=nnx.Rngs(3)
    )
    field = {r.name: r.receptive_field for r in layer_table(model)}["pool2"]
    image = jnp.asarray(np.random.default_rng(0).normal(0, 1, (1, 24, 24, 3)), jnp.float32)

    def middle(image):
        return vision_models.activations(model, image)["pool2"][0, 3, 3].sum()

    # Through linear neurons every pixel of the field would count; through ReLU and max most
    # do not, so several inputs are tried.
    touched = np.zeros(24, bool)
    for seed in range(40):
        noise = jax.random.normal(jax.random.key(seed), image.shape)
        gradient = np.abs(jax.grad(middle)(noise))[0].sum((1, 2))
        touched |= gradient > 0
    rows = np.flatnonzero(touched)
    assert rows[-1] - rows[0] + 1 == field


def test_the_summary_adds_up():
    text = format_table(abstract("googlenet"))
    assert "parameters        6,998,552" in text
    assert "auxiliary classifiers, in training only: 6,379,728 parameters" in text
    conv1 = next(line for line in text.splitlines() if line.startswith("conv1 "))
    assert "112 x 112 x 64" in conv1 and "7x7/2 pad 3" in conv1
    assert "9,472" in conv1 and "118,013,952" in conv1
    alexnet = format_table(abstract("alexnet"))
    assert "neurons           659,272" in alexnet and "connections       725,066,088" in alexnet
    sent = "exchange_pool2 173,056, exchange_pool5 36,864, exchange_fc6 16,384, fc8 8,000"
    assert f"bytes exchanged   234,304 by all towers ({sent})" in alexnet


@pytest.mark.parametrize(
    "pool_before_norm, norms",
    [(False, (55 * 55 * 96, 27 * 27 * 256)), (True, (27 * 27 * 96, 13 * 13 * 256))],
)
def test_normalisation_across_towers_is_an_exchange(pool_before_norm, norms):
    """Caffe's AlexNet and CaffeNet; in one tower there is nobody to send maps to."""
    across = {
        "image_size": 227,
        "lrn_across_towers": True,
        "pool_before_norm": pool_before_norm,
    }
    for towers in (2, 1):
        model = abstract_with("alexnet", towers=towers, **across)
        sent = {row.name: row.exchanged_bytes for row in layer_table(model)}
        expected = [4 * numbers * (towers - 1) for numbers in norms]
        assert [sent["norm1"], sent["norm2"]] == expected
        assert sum(sent.values()) == sum(expected) + 234_304 * (towers - 1)


def abstract_with(name, **options):
    return nnx.eval_shape(lambda: vision_models.create(name, rngs=nnx.Rngs(0), **options))


def connections(name, **options):
    """Neurons and connections of a whole network."""
    model = abstract_with(name, **options)
    rows = [row for row in layer_table(model) if not row.auxiliary]
    return sum(row.neurons for row in rows), sum(row.connections for row in rows)


def test_neurons_and_connections_are_the_papers():
    """AlexNet's "650,000", LeNet-5's 340,908 with those of its RBFs, OverFeat's Table 4."""
    neurons, alexnet = connections("alexnet")
    assert neurons == 659_272 and alexnet == 724_406_816 + 659_272
    assert connections("lenet5")[1] == 340_908
    assert connections("overfeat_fast")[1] == pytest.approx(2810e6, rel=0.003)
    assert connections("overfeat_accurate")[1] == pytest.approx(5369e6, rel=0.003)


def test_normalisations_do_not_count():
    small = {"image_size": 67, "kernels": (8, 12, 16, 16, 12), "hidden": (24, 20)}
    made = [abstract_with("alexnet", lcn=lcn, **small) for lcn in (False, True)]
    assert len({vision_models.multiply_adds(model) for model in made}) == 1


def test_what_a_layer_would_hold_without_weight_sharing():
    """The lectures' 105,705,600 against 34,944; a fully connected layer shares nothing."""
    rows = {row.name: row for row in layer_table(abstract("alexnet"))}
    assert (rows["conv1"].parameters, rows["conv1"].connections) == (34_944, 105_705_600)
    for name in ("fc6", "fc7", "fc8"):
        assert rows[name].parameters == rows[name].connections
    local = {row.name: row for row in layer_table(abstract("cifar10_11pct"))}["local3"]
    assert local.parameters == local.connections
