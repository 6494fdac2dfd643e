import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec as P

import vision_models
from devices.mesh import make_mesh, param_specs, shardings
from vision_models import alexnet
from vision_models.analysis import activation_shapes, layer_table
from vision_models.functional import functional, variables

SMALL = {
    "image_size": 67,
    "kernels": (8, 12, 16, 16, 12),
    "hidden": (24, 20),
    # Large enough that the image, not the biases, decides the logits.
    "init_std": 0.15,
    "init_std_conv3to5": 0.15,
}


def small(**options):
    options = {"num_classes": 7, **SMALL, **options}
    return vision_models.create("alexnet", rngs=nnx.Rngs(0), **options)


def abstract(name="alexnet", **options):
    return nnx.eval_shape(lambda: vision_models.create(name, rngs=nnx.Rngs(0), **options))


LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7")


def images(count=3, size=67, seed=0):
    return np.random.default_rng(seed).normal(0, 60, (count, size, size, 3)).astype(np.float32)


def test_shape_of_every_activation():
    assert activation_shapes(abstract(), 224) == {
        "conv1": (55, 55, 96),
        "norm1": (55, 55, 96),
        "pool1": (27, 27, 96),
        "conv2": (27, 27, 256),
        "norm2": (27, 27, 256),
        "pool2": (13, 13, 256),
        "exchange_pool2": (13, 13, 256),
        "conv3": (13, 13, 384),
        "conv4": (13, 13, 384),
        "conv5": (13, 13, 256),
        "pool5": (6, 6, 256),
        "exchange_pool5": (6, 6, 256),
        "fc6": (4096,),
        "drop6": (4096,),
        "exchange_fc6": (4096,),
        "fc7": (4096,),
        "drop7": (4096,),
        "fc8": (1000,),
    }


def test_number_of_neurons():
    """The paper says 650,000."""
    shapes = activation_shapes(abstract(), 224)
    layers = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    assert sum(int(np.prod(shapes[name])) for name in layers) == 659_272


def test_initial_parameters_are_the_papers():
    params = nnx.to_pure_dict(
        nnx.state(small(hidden=(512, 512), init_std=0.05, init_std_conv3to5=0.03))
    )
    for name, layer in params.items():
        std = 0.03 if name in ("conv3", "conv4", "conv5") else 0.05
        kernel = np.asarray(layer["kernel"])
        assert kernel.std() == pytest.approx(std, rel=6 / np.sqrt(2 * kernel.size)), name
        assert abs(kernel.mean()) < 6 * std / np.sqrt(kernel.size), name
        bias = 0.0 if name in ("conv1", "conv3", "fc8") else 1.0
        assert np.all(np.asarray(layer["bias"]) == bias), name
        assert not np.array_equal(kernel[0], kernel[1]), f"{name}: both towers alike"


def forward_by_grouped_convolutions(params, x, *, code_order=False, average=False):
    """The network written the other way: grouped convolutions, and LRN over reshaped groups."""

    def grouped(layer, groups):
        kernel = params[layer]["kernel"]  # [2, h, w, in, out]
        if groups == 1:
            return jnp.concatenate(list(kernel), axis=-1), 1
        return jnp.concatenate(list(kernel), axis=-1), groups

    def conv(x, layer, groups, stride, padding):
        kernel, groups = grouped(layer, groups)
        out = lax.conv_general_dilated(
            x, kernel, (stride, stride), padding,
            feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        return out + params[layer]["bias"].reshape(-1)

    def lrn(x):
        b, h, w, c = x.shape
        halves = np.asarray(x, np.float64).reshape(b, h, w, 2, c // 2)
        padded = np.pad(halves**2, [(0, 0)] * 4 + [(2, 2)])
        total = sum(padded[..., i : i + c // 2] for i in range(5))
        alpha = 1e-4 / 5 if average else 1e-4
        return jnp.asarray((halves / (2 + alpha * total) ** 0.75).reshape(x.shape), jnp.float32)

    def pool(x):
        return nnx.max_pool(x, (3, 3), (2, 2), "VALID")

    def dense(x, layer):
        kernel = params[layer]["kernel"]
        bias = params[layer]["bias"].reshape(-1)
        return x.reshape(len(x), -1) @ jnp.concatenate(list(kernel), axis=-1) + bias

    x = conv(x, "conv1", 1, 4, ((0, 3), (0, 3)))
    x = jax.nn.relu(pool(lrn(x))) if code_order else pool(lrn(jax.nn.relu(x)))
    x = pool(lrn(jax.nn.relu(conv(x, "conv2", 2, 1, ((2, 2), (2, 2))))))
    x = jax.nn.relu(conv(x, "conv3", 1, 1, ((1, 1), (1, 1))))
    x = jax.nn.relu(conv(x, "conv4", 2, 1, ((1, 1), (1, 1))))
    x = pool(jax.nn.relu(conv(x, "conv5", 2, 1, ((1, 1), (1, 1)))))
    x = 0.5 * jax.nn.relu(dense(x, "fc6"))
    x = 0.5 * jax.nn.relu(dense(x, "fc7"))
    return x @ params["fc8"]["kernel"].reshape(x.shape[1], -1) + params["fc8"]["bias"]


@pytest.mark.parametrize("code", [False, True], ids=["paper", "code"])
def test_logits_equal_the_grouped_form(code):
    """Fails if a convolution loses its grouping or a window of LRN crosses the towers."""
    constants = {"size": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75, "average": code}
    model = small(lrn_constants=constants, norm1_before_neuron=code)
    params = nnx.to_pure_dict(nnx.state(model))
    x = images()
    expected = forward_by_grouped_convolutions(params, x, code_order=code, average=code)
    logits = np.asarray(model(x))
    assert logits.std(axis=0).mean() > 0.01  # the images matter
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_towers_meet_only_at_the_exchanges():
    """What the second tower's kernels change, layer by layer."""
    x = images()
    before = vision_models.activations(small(), x)

    def changed_in_first_tower(layer):
        model = small()
        module = getattr(model, layer)
        module.kernel[...] = module.kernel[...].at[1].multiply(1.5)
        after = vision_models.activations(model, x)
        return {
            name
            for name in after
            if name in LAYERS
            and not np.array_equal(
                np.split(np.asarray(after[name]), 2, -1)[0],
                np.split(np.asarray(before[name]), 2, -1)[0],
            )
        }

    assert changed_in_first_tower("conv1") == {"conv3", "conv4", "conv5", "pool5", "fc6", "fc7"}
    assert changed_in_first_tower("conv3") == {"fc6", "fc7"}
    assert changed_in_first_tower("conv4") == {"fc6", "fc7"}
    assert changed_in_first_tower("fc6") == {"fc7"}
    assert changed_in_first_tower("fc7") == set()


@pytest.mark.parametrize(
    "options, activations",
    [
        ({"without": "conv3"}, {"conv3"}),
        ({"without": "conv4"}, {"conv4"}),
        ({"without": "conv5"}, {"conv5"}),
        ({"without": "fc6"}, {"fc6"}),
        ({"without": "fc7"}, {"fc7"}),
        ({"without": "conv3, conv4,conv5,fc6,fc7"}, {"conv3", "conv4", "conv5", "fc6", "fc7"}),
    ],
)
def test_layers_can_be_left_out(options, activations):
    whole, less = small(), small(**options)
    names = set(vision_models.activations(whole, images()))
    left = set(vision_models.activations(less, images()))
    assert (names - left) & {"conv3", "conv4", "conv5", "fc6", "fc7"} == activations
    assert less(images()).shape == (3, 7)
    assert vision_models.count_parameters(less) != vision_models.count_parameters(whole)


@pytest.mark.parametrize(
    "options",
    [
        {"lrn": False},
        {"neuron": "tanh"},
        {"pool_window": 2},
        {"connected": False},
        {"exchanges": "fc6,fc7"},
        {"lcn": True},
        {"pool": "sum"},
        {"spatial_norm2": True},
        {"norm1_before_neuron": True},
    ],
    ids=str,
)
def test_ablations_change_the_function_but_not_its_shape(options):
    x = images()
    whole, other = small(), small(**options)
    assert other(x).shape == (3, 7)
    assert not np.allclose(other(x), whole(x), rtol=1e-4)


def reached(model):
    """Layers of which the first half changes with the kernels of conv1 in tower 1."""
    before = vision_models.activations(model, images())
    model.conv1.kernel[...] = model.conv1.kernel[...].at[1].multiply(2)
    after = vision_models.activations(model, images())
    halves = {name: (before[name], after[name]) for name in ("conv2", "conv3", "fc6", "fc7", "fc8")}
    return [
        name
        for name, (one, other) in halves.items()
        if np.any(np.not_equal(*(a[..., : a.shape[-1] // 2] for a in (one, other))))
    ]


@pytest.mark.parametrize(
    "exchanges, mixed",
    [
        ("pool2,pool5,fc6,fc7", ["conv3", "fc6", "fc7"]),
        ("pool5,fc7", ["fc6", "fc7"]),
        ("fc6", ["fc7"]),
        (" fc7 ,", []),
        ("", []),
    ],
)
def test_towers_read_each_other_only_after_an_exchange(exchanges, mixed):
    model = small(exchanges=exchanges, num_classes=8)
    # Without fc7 the first half of the classes has the scores of tower 0.
    scores = ["fc8"] if mixed or "fc7" in exchanges else []
    assert reached(model) == [*mixed, *scores]
    sent = [row.name for row in layer_table(model) if row.exchanged_bytes]
    named = [name.strip() for name in exchanges.split(",") if name.strip()]
    assert sent == [f"exchange_{name}" for name in named if name != "fc7"] + ["fc8"]


@pytest.mark.parametrize(
    "without, exchanges, exchanged",
    [
        ("fc6", "fc6", ["exchange_pool5"]),
        ("fc7", "fc6", ["fc8"]),
        ("fc6,fc7", "pool5", ["fc8"]),
        ("conv3,conv4,conv5", "pool2", ["exchange_pool5"]),
        ("fc7", "pool5", ["exchange_pool5"]),
    ],
)
def test_places_of_exchanges_stay_where_layers_are_left_out(without, exchanges, exchanged):
    """fc8 counts where it reads the features of both towers."""
    options = {**SMALL, "num_classes": 8, "without": without, "exchanges": exchanges}
    model = nnx.eval_shape(lambda: vision_models.create("alexnet", rngs=nnx.Rngs(0), **options))
    found = [name for name in model.names if name.startswith("exchange_")]
    assert found + ["fc8"] * (not model.fc8.apart) == exchanged


@pytest.mark.parametrize("exchanges", ["", pytest.param("pool5", marks=pytest.mark.slow)])
def test_scores_apart_are_the_same_on_two_devices(exchanges):
    """Logits and gradients of towers that score half of the classes each."""
    options = {**SMALL, "num_classes": 8, "exchanges": exchanges}
    network = functional(lambda rngs: vision_models.create("alexnet", rngs=rngs, **options))
    params, statistics = variables(small(**options))
    mesh = make_mesh(2, data=1, tower=2)
    specs = param_specs(network.per_tower, mesh)

    def logits(params, x):
        return network.apply(params, statistics, x)

    mapped = jax.shard_map(logits, mesh=mesh, in_specs=(specs, P()), out_specs=P())

    def with_gradients(apply, params):
        weights = jnp.arange(24.0).reshape(3, 8)
        total = jax.jit(
            jax.grad(lambda params: (lambda y: ((y * weights).sum(), y))(apply(params, images())),
                     has_aux=True),
            compiler_options={"xla_backend_optimization_level": 0},
        )  # fmt: skip
        return total(params)

    found = with_gradients(mapped, jax.device_put(params, shardings(mesh, specs)))
    for one, other in zip(
        *map(jax.tree.leaves, (found, with_gradients(logits, params))), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


def test_without_connections_only_scores_are_summed():
    for option in ({"exchanges": "fc7"}, {"connected": False}):
        other = small(**option)
        assert [name for name in other.names if name.startswith("exchange")] == []
        np.testing.assert_array_equal(other(images()), small(connected=False)(images()))


def test_non_overlapping_pools_have_the_same_sizes():
    overlapping = activation_shapes(abstract(), 224)
    assert activation_shapes(abstract(pool_window=2), 224) == overlapping


def test_dropout_in_training_only():
    model, x = small(), images()
    keys = jax.random.split(jax.random.key(0), 3)
    np.testing.assert_array_equal(model(x), model(x))
    assert not np.allclose(model(x, dropout_keys=keys), model(x))
    other = jax.random.split(jax.random.key(1), 3)
    assert not np.allclose(model(x, dropout_keys=keys), model(x, dropout_keys=other))
    without = small(dropout=0.0)
    np.testing.assert_array_equal(without(x, dropout_keys=keys), without(x))


def test_bfloat16_computes_in_bfloat16_and_answers_in_float32():
    model, x = small(), images()
    logits = model(jnp.asarray(x, jnp.bfloat16))
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, model(x), rtol=0.1, atol=0.02)


@pytest.mark.parametrize("pool_window, least", [(3, 64), (2, 36)])
def test_the_least_size_is_the_docstrings(pool_window, least):
    said = inspect.getdoc(alexnet.alexnet)
    assert re.search(r"image_size: .* at least 64; with `pool_window=2` 36\.", said)
    model = abstract(pool_window=pool_window, image_size=least)
    assert activation_shapes(model)["pool5"] == (1, 1, 256)
    with pytest.raises(ValueError, match=f"{least - 1} pixels are too small: .* left at pool5"):
        abstract(pool_window=pool_window, image_size=least - 1)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"without": "conv1"}, "cannot leave out conv1; choose from conv3"),
        ({"exchanges": "pool1,fc9"}, "towers cannot exchange fc9, pool1; choose from pool2, pool5"),
        ({"exchanges": ""}, "2 towers do not divide the 7 classes of fc8"),
        ({"towers": 5}, "5 towers do not divide"),
        ({"image_size": 40}, "40 pixels are too small"),
        ({"kernels": (1, 2)}, "kernels takes 5 numbers"),
        ({"dropout": 1.0}, r"dropout is a probability in \[0, 1\)"),
        ({"droput": 0.1}, "'alexnet' has no option droput"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_unknown_model_names_the_nearest():
    with pytest.raises(ValueError, match="no model 'alexnt'; did you mean 'alexnet'"):
        vision_models.create("alexnt", rngs=nnx.Rngs(0))
