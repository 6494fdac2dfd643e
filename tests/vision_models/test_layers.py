import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_models import layers


def lrn_by_hand(x, size, k, alpha, beta, average):
    """The paper's formula, one value at a time, in double precision."""
    x = np.asarray(x, np.float64)
    channels = x.shape[-1]
    out = np.empty_like(x)
    for place in np.ndindex(x.shape[:-1]):
        for i in range(channels):
            low, high = max(0, i - size // 2), min(channels - 1, i + (size - 1) // 2)
            total = sum(x[place][j] ** 2 for j in range(low, high + 1))
            scale = k + (alpha / size if average else alpha) * total
            out[(*place, i)] = x[(*place, i)] / scale**beta
    return out


@pytest.mark.parametrize("average", [False, True], ids=["paper", "code"])
@pytest.mark.parametrize("size, k, beta", [(5, 2.0, 0.75), (3, 1.0, 0.5), (4, 2.0, 0.75)])
def test_lrn_equals_a_loop(average, size, k, beta):
    x = np.random.default_rng(0).normal(0, 60, (2, 3, 3, 7)).astype(np.float32)
    ours = layers.local_response_normalization(
        x, size=size, k=k, alpha=1e-4, beta=beta, average=average
    )
    by_hand = lrn_by_hand(x, size, k, 1e-4, beta, average)
    np.testing.assert_allclose(ours, by_hand, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [3, 4, 5])
def test_lrn_gradient_equals_finite_differences(size):
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, (1, 2, 2, 6))
    direction = rng.normal(0, 1, x.shape)
    weights = rng.normal(0, 1, x.shape)
    constants = {"size": size, "k": 2.0, "alpha": 0.5, "beta": 0.75, "average": False}

    def total(value):
        return (lrn_by_hand(value, **constants) * weights).sum()

    step = 1e-5
    numeric = (total(x + step * direction) - total(x - step * direction)) / (2 * step)
    gradient = jax.grad(
        lambda v: jnp.sum(layers.local_response_normalization(v, **constants) * weights)
    )(jnp.asarray(x, jnp.float32))
    assert float((np.asarray(gradient, np.float64) * direction).sum()) == pytest.approx(
        numeric, rel=1e-4
    )


def test_lrn_keeps_bfloat16_but_sums_in_float32():
    x = np.random.default_rng(0).normal(0, 60, (4, 48)).astype(np.float32)
    half = layers.local_response_normalization(jnp.asarray(x, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    exact = lrn_by_hand(
        np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64), 5, 2.0, 1e-4, 0.75, False
    )
    np.testing.assert_allclose(np.asarray(half, np.float64), exact, rtol=2**-8)


def test_spatial_normalization_equals_a_loop():
    x = np.random.default_rng(0).normal(0, 20, (2, 6, 7, 3)).astype(np.float32)
    by_hand = np.empty(x.shape)
    for b, i, j, c in np.ndindex(x.shape):
        part = x[b, max(0, i - 2) : i + 3, max(0, j - 2) : j + 3, c].astype(np.float64)
        by_hand[b, i, j, c] = x[b, i, j, c] / (1 + 1e-3 / 25 * (part**2).sum()) ** 0.75
    ours = layers.spatial_response_normalization(x, size=5, k=1.0, alpha=1e-3, beta=0.75)
    np.testing.assert_allclose(ours, by_hand, rtol=1e-5)


@settings(deadline=None, max_examples=20)
@given(height=st.integers(3, 20), width=st.integers(3, 20), window=st.integers(2, 3))
def test_max_pool_equals_a_loop_and_drops_what_does_not_fit(height, width, window):
    x = np.random.default_rng(height * 31 + width).normal(size=(1, height, width, 2))
    x = x.astype(np.float32)
    rows, columns = (height - window) // 2 + 1, (width - window) // 2 + 1
    by_hand = np.array(
        [
            [
                x[0, 2 * i : 2 * i + window, 2 * j : 2 * j + window].max((0, 1))
                for j in range(columns)
            ]
            for i in range(rows)
        ]
    )
    np.testing.assert_array_equal(layers.max_pool(x, window=window)[0], by_hand)


def test_dropout_is_the_papers():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 1000)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 64)
    dropped = np.asarray(layers.dropout(x, 0.3, keys))
    kept = dropped != 0
    np.testing.assert_array_equal(dropped[kept], np.asarray(x)[kept])  # not rescaled
    assert kept.mean() == pytest.approx(0.7, abs=5 * np.sqrt(0.21 / x.size))
    np.testing.assert_allclose(layers.dropout(x, 0.3, None), x * 0.7, rtol=1e-6)
    np.testing.assert_array_equal(layers.dropout(x, 0.0, keys), x)


def test_dropout_mask_of_an_example_depends_on_its_key_alone():
    x = jnp.ones((6, 50))
    keys = jax.random.split(jax.random.key(0), 6)
    whole = layers.dropout(x, 0.5, keys)
    np.testing.assert_array_equal(layers.dropout(x[2:4], 0.5, keys[2:4]), whole[2:4])
    assert not np.array_equal(whole[0], whole[1])


def test_unknown_neuron_lists_the_known():
    with pytest.raises(ValueError, match=r"unknown neuron 'rleu'.*relu, tanh"):
        layers.neuron("rleu")
