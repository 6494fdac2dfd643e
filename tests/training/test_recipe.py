"""What one update does, each against an independent computation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import vision_models
from configs import alexnet, resnet
from configs.common import to_steps
from devices import mesh as meshes
from training import TrainingError
from training.checkpoints import Checkpoints
from training.from_config import (
    balancing_weights,
    recipe_from_config,
    schedule_from_config,
    task_from_config,
)
from training.initial import start_from
from training.optimizer import Average, Momentum, Rate
from training.recipe import Recipe, frozen_names
from training.step import (
    abstract_state,
    init_state,
    make_pooling_step,
    make_train_step,
)
from training.trained import Trained
from vision_models.forward import BatchStatistics, Pass
from vision_models.functional import functional, parameter_names, set_variables
from vision_models.modules import BatchNorm

CLASSES, SIZE, BATCH = 5, 32, 8
MEAN, DEVIATION = 100.0, 60.0


MOMENTUM = Momentum(0.9, 0.0005)


@functools.cache
def network_called(name):
    options = {
        "resnet20": {"depth": 8, "image_size": SIZE},
        "alexnet": {
            "kernels": (8, 16, 8, 8, 8),
            "hidden": (32, 32),
            "image_size": 64,
            "init_std": 0.15,
            "init_std_conv3to5": 0.15,
        },
    }[name]
    return functional(
        lambda rngs: vision_models.create(name, num_classes=CLASSES, rngs=rngs, **options)
    )


def batch_at(number, size=SIZE, batch=BATCH):
    rng = np.random.default_rng(number)
    labels = rng.integers(0, CLASSES, batch).astype(np.int32)
    images = rng.integers(0, 60, (batch, size, size, 3)) + 35 * labels[:, None, None, None]
    return {
        "image": images.astype(np.uint8),
        "label": labels,
        "index": np.arange(batch),
        "crop_offset": np.zeros((batch, 2), np.int32),
        "flip": np.zeros(batch, bool),
        "colour_shift": np.zeros((batch, 3), np.float32),
        "colour_scale": np.ones(batch, np.float32),
    }


class Run:
    """A network in training, one step at a time."""

    def __init__(self, name="resnet20", data=1, tower=1, **fields):
        self.network = network_called(name)
        self.size = 64 if name == "alexnet" else SIZE
        self.mesh = meshes.make_mesh(self.network.towers, data=data, tower=tower)
        self.recipe = Recipe(
            **{"rates": (Rate("", 0.05),), "batch_size": BATCH, "momentum": MOMENTUM} | fields
        )
        self.step_function = make_train_step(self.network, self.recipe, self.mesh)
        self.state = init_state(self.network, self.recipe, self.mesh)
        # What the initial deviations of each are made for.
        deviation = 1.0 if name == "alexnet" else DEVIATION
        mean = np.full((self.size, self.size, 3), MEAN, np.float32)
        self.normalization = {
            "mean": meshes.replicate(self.mesh, mean),
            "deviation": meshes.replicate(self.mesh, np.full(3, deviation, np.float32)),
        }
        self.place = meshes.batch_placer(self.mesh)

    def steps(self, count=1, first=0):
        for number in range(first, first + count):
            batch = self.place(batch_at(number, self.size))
            self.state, self.outcome = self.step_function(self.state, batch, self.normalization)
        return jax.device_get(self.state)


def assert_close(ours, expected, **tolerance):
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    leaves = jax.tree_util.tree_leaves_with_path(ours)
    for (path, a), b in zip(leaves, jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, err_msg=jax.tree_util.keystr(path), **tolerance)


@pytest.mark.parametrize(
    "micro_batches, data, tower",
    [*(pytest.param(*case, marks=pytest.mark.slow) for case in [(2, 1, 1), (4, 2, 1)]), (2, 2, 2)],
)
def test_accumulation_equals_the_large_batch(micro_batches, data, tower):
    """Dropout masks included, which go with the place in the whole batch."""
    whole = Run("alexnet", rates=(Rate("", 0.01),))
    accumulated = Run(
        "alexnet", rates=(Rate("", 0.01),), micro_batches=micro_batches, data=data, tower=tower
    )
    before = jax.device_get(whole.state["params"])
    expected, ours = whole.steps(4), accumulated.steps(4)
    assert_close(ours["params"], expected["params"], rtol=1e-3, atol=1e-6)
    assert_close(ours["interval"], expected["interval"], rtol=1e-5)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before, expected["params"])
    assert min(layer["kernel"] for layer in moved.values()) > 1e-3


@pytest.mark.slow
def test_micro_batches_have_statistics_of_their_own():
    """As groups have that are computed at once; or of groups within them."""
    groups = Run(statistics_group=4).steps(3)
    for run in (Run(micro_batches=2), Run(micro_batches=2, statistics_group=4)):
        ours = run.steps(3)
        assert_close(ours["params"], groups["params"], rtol=1e-3, atol=1e-5)
        assert_close(ours["statistics"], groups["statistics"], rtol=1e-3, atol=1e-5)
    split = Run(micro_batches=2, statistics_group=2, data=2).steps(3)
    assert_close(split["params"], Run(statistics_group=2).steps(3)["params"], rtol=2e-3, atol=1e-5)
    whole = Run().steps(3)
    differs = jax.tree.map(lambda a, b: np.abs(a - b).max(), whole["params"], groups["params"])
    assert max(jax.tree.leaves(differs)) > 1e-3


@pytest.mark.parametrize("data, group", [(2, 4), (2, 2), (4, 4), (4, 2), (4, 8)])
@pytest.mark.slow
def test_groups_of_statistics_are_the_same_on_every_mesh(data, group):
    """Held by one device, several to a device, and spread over two and four devices."""
    on_one, ours = Run(statistics_group=group).steps(3), Run(data=data, statistics_group=group)
    assert_close(ours.steps(3), on_one, rtol=2e-3, atol=1e-5)


def test_statistics_of_groups():
    """One BatchNorm against NumPy: each group by its own, the running ones by their mean."""
    norm = BatchNorm(3)
    x = np.random.default_rng(0).normal(2, 3, (6, 4, 5, 3)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 6)
    out = norm(jnp.asarray(x), Pass(keys, BatchStatistics(group=2)), "norm")
    means, variances = [], []
    for first in (0, 2, 4):
        group = x[first : first + 2].astype(np.float64)
        means.append(group.mean((0, 1, 2)))
        variances.append(group.var((0, 1, 2), ddof=1))
        expected = (group - means[-1]) / np.sqrt(group.var((0, 1, 2)) + 1e-5)
        np.testing.assert_allclose(out[first : first + 2], expected, atol=1e-5)
    np.testing.assert_allclose(norm.mean[...], 0.1 * np.mean(means, 0), rtol=1e-5)
    np.testing.assert_allclose(norm.variance[...], 0.9 + 0.1 * np.mean(variances, 0), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("data", [1, 2])
def test_recomputed_statistics_are_those_of_all_batches_together(data):
    """Of every layer's input over three batches, each normalised by its own statistics."""
    run = Run(data=data)
    state = run.steps(2)
    pool = make_pooling_step(run.network, run.recipe, run.mesh)
    statistics, seen = run.state["statistics"], []
    model = vision_models.create(
        "resnet20",
        depth=8,
        image_size=SIZE,
        num_classes=CLASSES,
        rngs=nnx.Rngs(0),
    )
    for number in (1, 2, 3):
        batch = batch_at(40 + number)
        share = meshes.replicate(run.mesh, np.array(1 / number, np.float32))
        statistics = pool(
            run.state["params"], statistics, run.place(batch), run.normalization, share
        )
        set_variables(model, *jax.tree.map(jnp.asarray, (state["params"], state["statistics"])))
        record = {}
        images = (batch["image"].astype(np.float32) - MEAN) / DEVIATION
        keys = jax.random.split(jax.random.key(0), BATCH)
        model(images, dropout_keys=keys, record=record)
        seen.append(jax.device_get(record))

    def check(ours, path):
        if "mean" not in ours:
            return sum(check(ours[name], f"{path}/{name}" if path else name) for name in ours)
        source = path.replace("norm", "conv")
        x = np.concatenate([record[source] for record in seen]).astype(np.float64)
        np.testing.assert_allclose(ours["mean"], x.mean((0, 1, 2)), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(ours["variance"], x.var((0, 1, 2)), rtol=1e-3)
        return 1

    assert check(jax.device_get(statistics), "") == 7


@pytest.mark.slow
@pytest.mark.parametrize("kind, start", [("polyak", 0), ("polyak", 3), ("exponential", 2)])
def test_averages_of_parameters(kind, start):
    run = Run(average=Average(kind, 0.6, start))
    states = [run.steps(1, first=number) for number in range(7)]
    for name in ("params", "statistics"):
        values = [jax.tree.leaves(state[name]) for state in states]
        expected = [v.astype(np.float64) for v in values[max(start - 1, 0)]]
        for updates in range(1, 8):
            now = values[updates - 1]
            count = updates - start
            if count <= 0:
                expected = [v.astype(np.float64) for v in now]
            elif kind == "polyak":
                expected = [
                    np.mean([values[k][i] for k in range(start, updates)], axis=0, dtype=np.float64)
                    for i in range(len(now))
                ]
            else:
                decay = min(0.6, (1 + count) / (10 + count))
                expected = [decay * e + (1 - decay) * v for e, v in zip(expected, now, strict=True)]
            ours = jax.tree.leaves(states[updates - 1]["average"][name])
            for a, b in zip(ours, expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert_close(states[-1]["params"], Run().steps(7)["params"], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_averages_start_from_the_weights_that_training_does():
    run, other = Run(average=Average("exponential")), Run(seed=1)
    given = jax.device_get({k: other.state[k] for k in ("params", "statistics")})
    initial = Trained("resnet20", {}, given["params"], given["statistics"], None, "another seed")
    run.state = start_from(run.state, initial)
    assert_close(jax.device_get(run.state["average"]), given, rtol=0)
    state = run.steps(1)
    near = jax.tree.map(
        lambda a, b: np.abs(a - b).max() < 0.2, state["average"]["params"], given["params"]
    )
    assert all(jax.tree.leaves(near))


def test_frozen_layers_keep_every_bit():
    network = network_called("resnet20")
    names = parameter_names(network.per_tower)
    frozen = frozen_names(names, network.layers, [], 2)
    assert {n.split("/")[0] for n in set(names) - frozen} == {network.layers[-2], "fc"}
    run = Run(frozen=frozen)
    before = jax.device_get(run.state)
    # Some statistics to normalise with, as a trained network has.
    drawn = jax.tree.map(
        lambda v: np.abs(np.random.default_rng(0).normal(1, 0.1, v.shape)).astype(v.dtype),
        before["statistics"],
    )
    run.state["statistics"] = jax.tree.map(lambda v: meshes.replicate(run.mesh, v), drawn)
    after = run.steps(3)
    was = zip(names, *map(jax.tree.leaves, (before["params"], after["params"])), strict=True)
    for name, old, new in was:
        assert np.array_equal(old, new) == (name in frozen), name
    for layer, old in drawn.items():
        still = jax.tree.map(np.array_equal, old, after["statistics"][layer])
        assert all(jax.tree.leaves(still)) == (layer in network.layers[:-2]), layer

    # The gradient of the last layer, with everything before it as in evaluation.
    run = Run(frozen=frozen_names(names, network.layers, [], 1), rates=(Rate("", 1.0),))
    before = jax.device_get(run.state)
    after = run.steps(1)
    batch = batch_at(0)
    images = (batch["image"].astype(np.float32) - MEAN) / DEVIATION

    def loss(params):
        logits = network.apply(params, before["statistics"], images)
        return -jnp.mean(jax.nn.log_softmax(logits)[np.arange(BATCH), batch["label"]])

    kernel = before["params"]["fc"]["kernel"]
    slope = jax.grad(loss)(before["params"])["fc"]["kernel"] + 0.0005 * kernel
    np.testing.assert_allclose(
        after["params"]["fc"]["kernel"], kernel - slope, rtol=1e-4, atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_class_weights_and_smoothing_act_on_the_loss_and_not_on_its_record(smoothing):
    """On two devices in two micro-batches; the network has no statistics of the batch."""
    weights = balancing_weights([4, 0, 1, 2, 5], CLASSES)
    assert weights == pytest.approx((3 / 4, 0, 3, 3 / 2, 3 / 5))
    fields = {"class_weights": weights, "label_smoothing": smoothing}
    run = Run("alexnet", data=2, micro_batches=2, rates=(Rate("", 1.0),), **fields)
    before = jax.device_get(run.state)
    after = run.steps(1)
    batch = batch_at(0, 64)
    images = batch["image"].astype(np.float32) - MEAN
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(run.recipe.seed), 1), 0)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(BATCH))

    @jax.jit
    def loss(last):
        params = before["params"] | {"fc8": last}
        logits, _, _ = run.network.train(
            params, before["statistics"], images, keys, BatchStatistics()
        )
        labels = jax.nn.one_hot(batch["label"], CLASSES)
        smooth = optax.softmax_cross_entropy(logits, optax.smooth_labels(labels, smoothing))
        recorded = jnp.sum(optax.softmax_cross_entropy(logits, labels))
        return jnp.sum(smooth * np.asarray(weights)[batch["label"]]) / BATCH, recorded

    last = before["params"]["fc8"]
    grads, plain = jax.grad(loss, has_aux=True)(last)
    np.testing.assert_allclose(run.outcome["loss"], plain, rtol=1e-5)
    expected = last["kernel"] - (grads["kernel"] + 0.0005 * last["kernel"])
    np.testing.assert_allclose(after["params"]["fc8"]["kernel"], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_averages_of_what_is_frozen_keep_every_bit():
    """On two devices, too."""
    network = network_called("resnet20")
    names = parameter_names(network.per_tower)
    frozen = frozen_names(names, network.layers, ["scale"], 2)
    run = Run(frozen=frozen, average=Average("exponential"), data=2)
    before = jax.device_get(run.state["params"])
    after = run.steps(3)
    for kept in (after["params"], after["average"]["params"]):
        both = zip(names, *map(jax.tree.leaves, (before, kept)), strict=True)
        for name, old, new in both:
            assert np.array_equal(old, new) == (name in frozen), name


@pytest.mark.slow
def test_a_state_with_averages_is_restored_onto_another_mesh(tmp_path):
    """From one device onto four, every bit, and what four compute next is what one does."""
    fields = {"average": Average("polyak"), "statistics_group": 2}
    one, four = Run(**fields), Run(data=4, **fields)
    saved = one.steps(2)
    checkpoints = Checkpoints(tmp_path)
    model, images = one.state["average"], one.normalization
    checkpoints.save(2, one.state, model, images, {}, {}, None)
    checkpoints.finish()
    again = Checkpoints(tmp_path)
    four.state = again.restore_state(2, abstract_state(four.network, four.recipe, four.mesh))
    again.close()
    assert_close(jax.device_get(four.state), saved, rtol=0)
    assert_close(four.steps(2, first=2), one.steps(2, first=2), rtol=2e-3, atol=1e-5)


def test_frozen_names():
    names = ["conv1/bias", "conv1/kernel", "conv2/bias", "conv2/kernel", "fc/bias", "fc/kernel"]
    layers = ("conv1", "conv2", "fc")
    assert frozen_names(names, layers, [""], None) == set()
    assert frozen_names(names, layers, ["bias"], 2) == {
        "conv1/bias", "conv1/kernel", "conv2/bias", "fc/bias",
    }  # fmt: skip
    for matches, last, message in (
        (["conv", "fc"], None, "freeze every layer"),
        (["bias"], 4, "train_last=4: choose 1 to 3 of conv1, conv2, fc"),
        ([], 0, "train_last=0"),
        (["conv9"], None, "'conv9' is in no parameter's name"),
    ):
        with pytest.raises(TrainingError, match=message):
            frozen_names(names, layers, matches, last)


@pytest.mark.parametrize("mesh", [pytest.param((1, 1), marks=pytest.mark.slow), (2, 2)])
def test_an_update_that_is_not_finite_is_left_out_whole(mesh):
    run = Run("alexnet", *mesh, skip_nonfinite=True, average=Average("polyak"))
    before = run.steps(2)
    assert bool(run.outcome["finite"])
    batch = batch_at(2, 64)
    batch["colour_shift"][5, 1] = np.inf
    run.state, outcome = run.step_function(run.state, run.place(batch), run.normalization)
    after = jax.device_get(run.state)
    assert not bool(outcome["finite"])
    assert (after.pop("skipped"), after.pop("skipped_in_row"), after.pop("step")) == (1, 1, 3)
    assert before.pop("skipped_in_row") == 0
    for name in after:
        jax.tree.map(np.testing.assert_array_equal, after[name], before[name])
    later = run.steps(1, first=3)
    assert (later["skipped"], later["skipped_in_row"]) == (1, 0)
    assert np.isfinite(later["params"]["fc8"]["kernel"]).all()


@pytest.mark.parametrize(
    "rate, finite", [pytest.param(0.01, True, marks=pytest.mark.slow), (1e15, False)]
)
def test_an_update_that_overflows_is_seen_though_the_loss_is_finite(rate, finite):
    """A last layer so large that what flows back through it is, but no number too large."""
    run = Run(rates=(Rate("", rate),))
    run.state["params"]["fc"]["kernel"] = meshes.replicate(
        run.mesh, np.full((64, CLASSES), 1e30, np.float32)
    )
    run.state["params"]["fc"]["kernel"] *= np.linspace(0, 1, CLASSES, dtype=np.float32)
    run.steps(1)
    assert np.isfinite(float(run.outcome["loss"]))
    assert bool(run.outcome["finite"]) == finite
    assert int(run.outcome["skipped_in_row"]) == (not finite)


def steps_of(config, examples=1000):
    return functools.partial(
        to_steps, config, batch_size=config.batch_size, examples_per_epoch=examples
    )


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"gradient_accumulation": 3}, r"not a multiple of 3 .*gradient_accumulation=3"),
        ({"batch_norm.group": 48}, "batch_norm.group=48: a device computes 256 examples"),
        (
            {"gradient_accumulation": 16, "batch_norm.group": 32},
            "batch_norm.group=32: with gradient_accumulation=16 a batch of 256 is computed 16",
        ),
        ({"optimizer.frozen": "conv, fc,norm"}, "freeze every layer"),
        ({"optimizer.train_last": 30}, "train_last=30: choose 1 to"),
        ({"evaluate_every_epochs": 0.0}, "plateau_patience=5 needs evaluations"),
        ({"total_steps": 0}, "nothing to train"),
        ({"profile_steps": (5, 2)}, "profile_steps=.*the first and the last step"),
        (
            {"optimizer.average": "polyak", "optimizer.average_from_steps": 600_000},
            "average_from: step 600000 is not before the end",
        ),
    ],
)
def test_recipes_that_contradict_themselves_are_named(fields, message):
    config = resnet.get_config("18")
    config.update_from_flattened_dict(fields)
    config.mesh.data = 1
    task = task_from_config(config, 1000)
    with pytest.raises(TrainingError, match=message):
        recipe_from_config(config, task, steps_of(config))
        schedule_from_config(config, task, steps_of(config))


def test_statistics_anew_need_batch_norm():
    config = alexnet.get_config()
    config.batch_norm.recompute_examples = 100
    with pytest.raises(TrainingError, match="recompute_examples=100: this network has no"):
        schedule_from_config(config, task_from_config(config, 1000), steps_of(config))


def test_a_group_of_more_than_the_batch_is_the_batch():
    config = resnet.get_config("18")
    config.batch_size = 16
    config.mesh.data = 1
    task = task_from_config(config, 1000)
    assert recipe_from_config(config, task, steps_of(config)).statistics_group == 0
    config.batch_size = 64
    assert recipe_from_config(config, task, steps_of(config)).statistics_group == 32


@pytest.mark.slow
def test_a_limited_gradient_is_of_all_parameters_on_every_device():
    """The first velocity is the rate times the gradient; towers on two devices count together."""
    plain = Run("alexnet", tower=2, momentum=Momentum(0.9, 0.0))
    limited = Run("alexnet", tower=2, momentum=Momentum(0.9, 0.0), max_gradient_norm=0.01)
    whole, scaled = (jax.tree.leaves(run.steps()["optimizer"]) for run in (plain, limited))
    norm = np.sqrt(sum((leaf.astype(np.float64) ** 2).sum() for leaf in whole)) / 0.05
    assert norm > 0.02
    for leaf, expected in zip(scaled, whole, strict=True):
        np.testing.assert_allclose(leaf, expected * 0.01 / norm, rtol=1e-4, atol=1e-9)
