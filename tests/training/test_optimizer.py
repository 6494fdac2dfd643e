import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import cifar10
from configs.alexnet import get_config
from configs.common import to_steps
from training import TrainingError, recipe_from_config, task_from_config
from training.optimizer import (
    Plateau,
    Rate,
    decay_by_parameter,
    limit_filters,
    limit_gradient,
    papers_momentum,
    rates_by_parameter,
)

pytestmark = pytest.mark.quick


def test_momentum_equals_the_papers_two_lines():
    """Fifty steps with a change of rate, in double precision by hand."""
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(0, 0.1, (5, 4)), "bias": rng.normal(0, 0.1, 4)}
    velocity = {name: np.zeros_like(value) for name, value in params.items()}
    ours = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), params)
    update = papers_momentum(0.9, {"kernel": 0.0005, "bias": 0.0})
    state = update.init(ours)
    for step in range(50):
        rate = 0.01 if step < 30 else 0.001
        gradient = {name: rng.normal(0, 1, value.shape) for name, value in params.items()}
        for name in params:
            decay = 0.0005 * rate * params[name] if name == "kernel" else 0.0
            velocity[name] = 0.9 * velocity[name] - decay - rate * gradient[name]
            params[name] = params[name] + velocity[name]
        grads = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), gradient)
        rates = {"kernel": jnp.float32(rate), "bias": jnp.float32(rate)}
        updates, state = update.update(grads, state, ours, rates=rates)
        ours = optax.apply_updates(ours, updates)
    for name in params:
        np.testing.assert_allclose(ours[name], params[name], rtol=1e-5, atol=1e-6)


def test_optax_sgd_is_another_rule():
    """The reason for writing our own: after a change of rate they differ."""
    params = {"w": jnp.ones(3)}
    ours, theirs = papers_momentum(0.9, {"w": 0.0}), optax.trace(0.9)
    a, b = ours.init(params), theirs.init(params)
    for rate in (1.0, 1.0, 0.1):
        step, a = ours.update(params, a, params, rates={"w": rate})
        direction, b = theirs.update(params, b)
    assert not np.allclose(step["w"], -rate * direction["w"], rtol=0.1)


def steps_of(config, epoch_steps=100):
    return lambda name: to_steps(
        config,
        name,
        batch_size=config.batch_size,
        examples_per_epoch=epoch_steps * config.batch_size,
    )


def recipe_of(config):
    """The recipe of a config, on one device."""
    config.mesh.data = config.mesh.tower = 1
    return recipe_from_config(config, task_from_config(config, 1000), steps_of(config))


NAMES = [f"{layer}/{kind}" for layer in ("conv1", "conv2", "fc8") for kind in ("bias", "kernel")]


def test_rates_of_the_2012_run():
    config = get_config("original")
    rates = recipe_of(config).rates
    rate_of = dict(zip(NAMES, rates_by_parameter(rates, NAMES), strict=True))

    def at(name, epoch):
        return float(rate_of[name].at(epoch * 100, 1.0))

    weights = [at("conv2/kernel", e) for e in (0, 24.99, 25, 50.99, 51, 78.99, 79, 90)]
    assert weights == pytest.approx([0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
    conv1 = [at("conv1/kernel", e) for e in (0, 25, 51, 66.99, 67, 71.99, 72, 90)]
    assert conv1 == pytest.approx([0.01, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5, 0, 0])
    assert [at("fc8/bias", e) for e in (0, 30, 90)] == pytest.approx([0.02] * 3)
    assert [at("conv1/bias", e) for e in (0, 71.99, 72)] == pytest.approx([0.02, 0.02, 0])


def test_the_papers_rates_follow_the_plateau():
    config = get_config()
    rates = recipe_of(config).rates
    assert [float(rates[0].at(10**6, scale)) for scale in (1.0, 0.1)] == pytest.approx([0.01, 1e-3])


def test_groups_without_drops_of_their_own_follow_the_others():
    rate = Rate("conv", 0.02, drops=(10, 20))
    assert [float(rate.at(step, 0.5)) for step in (0, 9, 10, 20)] == pytest.approx(
        [0.01, 0.01, 0.001, 0.0001]
    )


def test_a_group_that_matches_nothing_is_named():
    with pytest.raises(TrainingError, match=r"'fc9' matches no parameter of conv1/bias"):
        rates_by_parameter([Rate("", 0.1), Rate("fc9", 0.1)], NAMES)


def test_plateau():
    plateau = Plateau(factor=0.1, patience=2, drops=2)
    scales = []
    for error in (0.9, 0.8, 0.85, 0.8, 0.79, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8):
        plateau = plateau.after(error)
        scales.append(plateau.scale)
    # An equal error is no improvement. It falls after two evaluations without one,
    # then waits for two more, and never more than twice.
    assert scales == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.01])


def test_a_plateau_of_patience_zero_never_falls():
    plateau = Plateau(factor=0.1, patience=0, drops=3)
    for _ in range(5):
        plateau = plateau.after(0.5)
    assert (plateau.best, plateau.waited, plateau.scale) == (0.5, 4, 1)


def test_decay_by_parameter():
    """The 18% network: .004, 1 on fc10; kernels only, unless biases decay too."""
    config = cifar10.get_config("18pct")
    names = ["conv1/bias", "conv1/kernel", "fc10/bias", "fc10/kernel", "norm1/scale"]
    assert decay_by_parameter(recipe_of(config).momentum, names) == [0.0, 0.004, 0.0, 1.0, 0.0]
    config.optimizer.decay_biases = True
    decays = decay_by_parameter(recipe_of(config).momentum, names)
    assert decays == [0.004, 0.004, 0.004, 1.0, 0.004]


def test_warm_up():
    config = cifar10.get_config("resnet110")
    (rate,) = recipe_of(config).rates
    rates = [float(rate.at(step, 1.0)) for step in (0, 399, 400, 31_999, 32_000, 48_000)]
    assert rates == pytest.approx([0.01, 0.01, 0.1, 0.1, 0.01, 0.001])


@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (2, 3, 3, 4, 5)], ids=["one tower", "two"])
def test_filters_are_limited_one_by_one(shape):
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 1, shape) * np.linspace(0.01, 0.3, 5)
    params = {
        "conv": {"bias": np.full(5, 9.0), "kernel": kernel},
        "fc": {"kernel": np.ones((4, 4))},
    }
    names = ["conv/bias", "conv/kernel", "fc/kernel"]
    limited = limit_filters(jax.tree.map(jnp.asarray, params), names, 0.1)
    rms = np.sqrt((kernel**2).mean(axis=(-4, -3, -2)))
    after = np.sqrt((np.asarray(limited["conv"]["kernel"]) ** 2).mean(axis=(-4, -3, -2)))
    np.testing.assert_allclose(after, np.minimum(rms, 0.1), rtol=1e-5)
    assert (rms < 0.1).any() and (rms > 0.1).any()
    direction = limited["conv"]["kernel"] / after[..., None, None, None, :]
    expected = kernel / rms[..., None, None, None, :]
    np.testing.assert_allclose(direction, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(limited["conv"]["bias"], params["conv"]["bias"])
    np.testing.assert_array_equal(limited["fc"]["kernel"], params["fc"]["kernel"])


@pytest.mark.parametrize("scale", [1e-30, 0.1, 1.0, 1e30])
def test_a_gradient_is_limited_by_its_norm(scale):
    rng = np.random.default_rng(0)
    gradient = {name: scale * rng.normal(0, 1, shape) for name, shape in (("a", (3, 4)), ("b", 5))}
    norm = np.sqrt(sum((leaf**2).sum() for leaf in gradient.values()))
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), gradient)
    limited = limit_gradient(single, 2.0)
    for name, leaf in gradient.items():
        np.testing.assert_allclose(limited[name], leaf * min(1.0, 2.0 / norm), rtol=1e-5)


def test_a_limited_gradient_does_not_hide_what_is_not_finite():
    for bad in (np.nan, np.inf):
        limited = limit_gradient({"a": jnp.array([1.0, bad]), "b": jnp.zeros(2)}, 2.0)
        assert not np.isfinite(np.concatenate(list(limited.values()))).all()
    zeros = limit_gradient({"a": jnp.zeros(3)}, 2.0)
    np.testing.assert_array_equal(zeros["a"], np.zeros(3))
