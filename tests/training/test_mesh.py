import functools

import jax
import jax.monitoring as monitoring
import numpy as np
import pytest
from flax import nnx

import vision_models
from devices import mesh as meshes
from devices.programs import collectives
from training import TrainingError
from training.optimizer import Momentum, Rate
from training.recipe import Recipe, check_batch_size
from training.step import abstract_state, init_state, make_train_step
from vision_models.forward import WHOLE_BATCH
from vision_models.functional import functional, parameter_names
from vision_models.network import Builder

CLASSES, SIZE, BATCH = 10, 64, 8


MOMENTUM = Momentum(0.9, 0.0005)


def build(mesh_shape, full=False, dropout=0.5):
    small = {} if full else {"kernels": (16, 32, 24, 24, 16), "hidden": (64, 64)}
    network = functional(
        lambda rngs: vision_models.create(
            "alexnet",
            num_classes=CLASSES,
            image_size=SIZE,
            init_std_conv3to5=0.03,
            init_std=0.03,
            dropout=dropout,
            rngs=rngs,
            **small,
        )
    )
    data, tower = mesh_shape
    mesh = meshes.make_mesh(network.towers, data=data, tower=tower)
    recipe = Recipe((Rate("", 0.01),), BATCH, MOMENTUM)
    step = make_train_step(network, recipe, mesh)
    state = init_state(network, recipe, mesh)
    normalization = {
        "mean": meshes.replicate(mesh, np.full((SIZE + 4, SIZE + 4, 3), 100, np.float32)),
        "deviation": meshes.replicate(mesh, np.ones(3, np.float32)),
    }
    return network, mesh, step, state, normalization


def batch_at(number):
    rng = np.random.default_rng(number)
    labels = rng.integers(0, CLASSES, BATCH).astype(np.int32)
    images = rng.integers(0, 60, (BATCH, SIZE, SIZE, 3)) + 19 * labels[:, None, None, None]
    return {
        "image": images.astype(np.uint8),
        "label": labels,
        "index": np.arange(BATCH),
        "crop_offset": rng.integers(0, 5, (BATCH, 2)).astype(np.int32),
        "flip": rng.integers(0, 2, BATCH).astype(bool),
        "colour_shift": rng.normal(0, 6, (BATCH, 3)).astype(np.float32),
        "colour_scale": np.ones(BATCH, np.float32),
    }


@functools.cache
def losses(mesh_shape, steps=20):
    _, mesh, step, state, mean = build(mesh_shape)
    place = meshes.batch_placer(mesh)
    values = []
    for number in range(steps):
        state, sums = step(state, place(batch_at(number)), mean)
        values.append(float(sums["loss"]) / BATCH)
    return np.array(values), jax.device_get(state)


@pytest.mark.parametrize(
    "mesh_shape",
    [(2, 2), *(pytest.param(m, marks=pytest.mark.slow) for m in [(1, 2), (2, 1), (4, 1)])],
    ids=str,
)
def test_every_mesh_trains_alike(mesh_shape):
    """Twenty steps, dropout included: the same losses, and the same parameters after them."""
    ours, state = losses(mesh_shape)
    reference, expected = losses((1, 1))
    assert np.ptp(reference) > 0.05  # something happens
    np.testing.assert_allclose(ours, reference, rtol=1e-4)
    for name, a, b in zip(
        parameter_names(expected["params"]),
        jax.tree.leaves(state["params"]),
        jax.tree.leaves(expected["params"]),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5, err_msg=name)


SMALL = {
    "resnet20": {"depth": 8},
    "cifar10_four_layer": {"init_std_conv1": 0.05, "init_std": 0.05},
}


@functools.cache
def float64_run(name, data):
    """Five steps of a network of `SMALL` on `data` devices, in float64.

    In float32 five steps show less: a ReLU whose input is nearer to 0 than rounding takes the
    other branch, and moves a gradient by a hundredth.
    """
    with jax.enable_x64(True):
        network = functional(lambda rngs: vision_models.create(name, **SMALL[name], rngs=rngs))
        mesh = meshes.make_mesh(1, data=data)
        recipe = Recipe((Rate("", 0.05),), BATCH, dtype="float64", momentum=MOMENTUM)
        step = make_train_step(network, recipe, mesh)
        state = jax.tree.map(
            lambda leaf: leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf,
            init_state(network, recipe, mesh),
        )
        mean = np.full((SIZE // 2 + 4, SIZE // 2 + 4, 3), 100.0)
        normalization = {
            "mean": meshes.replicate(mesh, mean),
            "deviation": meshes.replicate(mesh, np.full(3, 60.0)),
        }
        values = []
        for number in range(5):
            batch = batch_at(number) | {"image": batch_at(number)["image"][:, ::2, ::2]}
            state, sums = step(state, meshes.batch_placer(mesh)(batch), normalization)
            values.append(float(sums["loss"]) / BATCH)
        return values, jax.device_get(state)


@pytest.mark.slow
@pytest.mark.parametrize("data", [2, 4])
@pytest.mark.parametrize("name", ["resnet20", "cifar10_four_layer"])
def test_batches_are_shared_out_exactly(name, data):
    """The same losses, parameters and statistics: no device has statistics of its own."""
    ours, state = float64_run(name, data)
    reference, expected = float64_run(name, 1)
    assert np.ptp(reference) > 0.01
    np.testing.assert_allclose(ours, reference, rtol=1e-9)
    for name in ("statistics", "params"):
        for a, b in zip(jax.tree.leaves(state[name]), jax.tree.leaves(expected[name]), strict=True):
            assert b.dtype == np.float64
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9 * np.abs(b).max())
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(state["statistics"]))


@pytest.mark.parametrize(
    "name",
    [
        "lenet5", "alexnet_owt", "alexnet_six_conv", "zfnet", "vgg_a_lrn", "googlenet",
        "preact_resnet18", "all_cnn_c", "cifar10_11pct", "cifar10_13pct", "cifar10_18pct",
    ],
)  # fmt: skip
def test_every_kind_of_layer_can_be_spread_over_devices(name):
    """The step's program for two devices can be written; nothing is compiled."""
    network = functional(lambda rngs: vision_models.create(name, num_classes=CLASSES, rngs=rngs))
    abstract = nnx.eval_shape(
        lambda: vision_models.create(name, num_classes=CLASSES, rngs=nnx.Rngs(0))
    )
    size, mesh = abstract.image_size, meshes.make_mesh(network.towers, data=2, tower=1)
    recipe = Recipe((Rate("", 0.01),), BATCH, MOMENTUM)
    batch = batch_at(0) | {"image": np.zeros((BATCH, size, size, 3), np.uint8)}
    normalization = {
        "mean": np.zeros((size + 4, size + 4, 3), np.float32),
        "deviation": np.ones(3, np.float32),
    }
    state = abstract_state(network, recipe, mesh)
    step = make_train_step(network, recipe, mesh)
    after, _ = jax.eval_shape(step, state, batch, normalization)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )


def with_a_side(rngs):
    """A convolution, an auxiliary classifier on it, another convolution, the main one."""
    net = Builder(SIZE, rngs=rngs)
    net.conv("conv1", 4, 3, stride=4)

    def side(inner):
        inner.dense("hidden", 8)
        inner.head("classifier", CLASSES)

    net.auxiliary("aux", side)
    net.conv("conv2", 4, 3, stride=4)
    net.head("fc", CLASSES)
    return net.network()


@pytest.mark.slow
def test_the_loss_of_auxiliary_classifiers_is_weighted():
    """One step's gradients: those of the main loss plus .3 of the side's, taken by hand."""
    network, mesh = functional(with_a_side), meshes.make_mesh(1, data=2)
    assert network.heads == ("fc", "aux/classifier")
    normalization = {
        "mean": meshes.replicate(mesh, np.full((SIZE + 4, SIZE + 4, 3), 100, np.float32)),
        "deviation": meshes.replicate(mesh, np.full(3, 60, np.float32)),
    }
    recipe = Recipe((Rate("", 0.1),), BATCH, MOMENTUM, auxiliary_weight=0.3)
    step = make_train_step(network, recipe, mesh)
    state = init_state(network, recipe, mesh)
    params = jax.device_get(state["params"])
    batch = batch_at(0)

    def loss(params):
        x = (batch["image"].astype(np.float32) - 100 + batch["colour_shift"][:, None, None]) / 60
        keys = jax.random.split(jax.random.key(0), BATCH)
        main, sides, _ = network.train(params, {}, x, keys, WHOLE_BATCH)
        log_p = [
            jax.nn.log_softmax(v)[np.arange(BATCH), batch["label"]] for v in (main, sides["aux"])
        ]
        return -log_p[0].mean() - 0.3 * log_p[1].mean()

    gradients = jax.grad(loss)(params)
    state, _ = step(state, meshes.batch_placer(mesh)(batch), normalization)
    for name, before, after, gradient in zip(
        parameter_names(params),
        *map(jax.tree.leaves, (params, jax.device_get(state["params"]), gradients)),
        strict=True,
    ):
        decay = MOMENTUM.weight_decay if name.endswith("kernel") else 0.0
        expected = before - 0.1 * (gradient + decay * before)
        np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-6, err_msg=name)
        assert np.any(gradient != 0), name


def test_initial_parameters_do_not_depend_on_the_mesh():
    params = [jax.device_get(build(shape)[3]["params"]) for shape in [(1, 1), (2, 2)]]
    jax.tree.map(np.testing.assert_array_equal, *params)


def test_each_of_two_devices_holds_half():
    """Of the whole network at its full width, but for the bias of fc8; of the velocity too."""
    _, mesh, _, state, _ = build((1, 2), full=True)
    for tree in (state["params"], state["optimizer"]):
        leaves = [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim]
        total = sum(leaf.nbytes for leaf in leaves)
        for device in mesh.devices.flat:
            held = sum(
                shard.data.nbytes
                for leaf in leaves
                for shard in leaf.addressable_shards
                if shard.device == device
            )
            assert held == (total + 4 * CLASSES) // 2


def test_the_compiled_step_talks_only_where_the_paper_does():
    """On 2 x 2 devices, at full width: exchanges, gradient sums, scalar metrics."""
    network, mesh, step, state, mean = build((2, 2), full=True)
    batch = meshes.batch_placer(mesh)(batch_at(0))
    program = step.lower(state, batch, mean).compile().as_text()
    across_towers = {frozenset({0, 1}), frozenset({2, 3})}
    across_data = {frozenset({0, 2}), frozenset({1, 3})}
    local = BATCH // 2
    # What each exchange moves, per device: the maps of both towers of pool2, pool5 and
    # fc6, and the scores; backward the same shapes, of which a tower keeps its own.
    pool2, pool5, fc6 = local * 3 * 3 * 256, local * 1 * 1 * 256, local * 4096
    exchanges = {"all-gather": [pool2, pool5, fc6], "scores": local * CLASSES}
    gradients = [
        leaf.size // (2 if split else 1)
        for leaf, split in zip(
            jax.tree.leaves(state["params"]), jax.tree.leaves(network.per_tower), strict=True
        )
    ]
    gathered, scattered, scores, summed, scalars = [], [], 0, [], 0
    for exchange in collectives(program, 4):
        operation, elements, where = exchange.operation, exchange.elements, exchange.groups
        if where == across_towers and operation == "all-gather":
            gathered += elements
        elif where == across_towers and operation == "reduce-scatter":
            scattered += [count * 2 for count in elements]
        elif where == across_towers and operation == "all-reduce":
            for count in elements:
                if count == exchanges["scores"]:
                    scores += 1
                elif count == 1:  # whether the gradients of both towers are finite
                    scalars += 1
                else:  # a reduce-scatter that this backend does as a sum and a slice
                    scattered.append(count)
        elif where == across_data and operation == "all-reduce":
            summed += [count for count in elements if count > 1]
            scalars += sum(count == 1 for count in elements)
        else:
            raise AssertionError(exchange)
    assert sorted(gathered) == sorted(exchanges["all-gather"])
    assert sorted(scattered) == sorted(exchanges["all-gather"])
    assert scores == 1
    assert sorted(summed) == sorted(gradients)
    assert scalars == 5  # examples, loss, two errors


def test_the_step_is_compiled_once():
    _, mesh, step, state, mean = build((2, 2))
    place = meshes.batch_placer(mesh)
    compiled = []

    def count(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    monitoring.register_event_duration_secs_listener(count)
    for number in range(3):
        before = len(compiled)
        state, _ = step(state, place(batch_at(number)), mean)
        assert len(compiled) - before == (1 if number == 0 else 0)
        state["interval"] = {
            name: meshes.replicate(mesh, np.zeros((), np.float32)) for name in state["interval"]
        }
        state["plateau_scale"] = meshes.replicate(mesh, np.array(0.1, np.float32))


def test_one_device_needs_no_collectives():
    _, mesh, step, state, mean = build((1, 1))
    batch = meshes.batch_placer(mesh)(batch_at(0))
    assert collectives(step.lower(state, batch, mean).compile().as_text(), 1) == []


def test_a_batch_that_does_not_divide_is_named():
    mesh = meshes.make_mesh(1)
    check_batch_size(8, mesh, 2)
    with pytest.raises(TrainingError, match=r"batch_size=6 is not a multiple of 4.*choose 8"):
        check_batch_size(6, mesh, 1)
    with pytest.raises(TrainingError, match=r"not a multiple of 12 .* x gradient_accumulation=3"):
        check_batch_size(8, mesh, 3)
