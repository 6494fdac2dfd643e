import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision_models import response
from vision_models.alexnet import PAPER_LRN


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
    ours = response.local_response_normalization(
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
        lambda v: jnp.sum(response.local_response_normalization(v, **constants) * weights)
    )(jnp.asarray(x, jnp.float32))
    assert float((np.asarray(gradient, np.float64) * direction).sum()) == pytest.approx(
        numeric, rel=1e-4
    )


def test_lrn_keeps_bfloat16_but_sums_in_float32():
    x = np.random.default_rng(0).normal(0, 60, (4, 48)).astype(np.float32)
    half = response.local_response_normalization(jnp.asarray(x, jnp.bfloat16), **PAPER_LRN)
    assert half.dtype == jnp.bfloat16
    exact = lrn_by_hand(
        np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64), 5, 2.0, 1e-4, 0.75, False
    )
    np.testing.assert_allclose(np.asarray(half, np.float64), exact, rtol=2**-8)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 1.75 * 2**-8)])
@pytest.mark.parametrize("size, alpha", [(5, 1e-4), (4, 1e-2)], ids=["paper", "even and strong"])
def test_banded_lrn_of_tpus_equals_sums_in_float64(size, alpha, dtype, tolerance):
    """Output and gradient; in bfloat16 to the rounding of results and, to the power, squares."""
    rng = np.random.default_rng(0)
    x, gradient = (jnp.asarray(rng.normal(0, 60, (2, 3, 3, 48)), dtype) for _ in range(2))
    banded = functools.partial(response.banded_window_sum, x.dtype)
    constants = size, 2.0, alpha, 0.75
    out = response.response_normalized(banded, *constants, x)
    back = response.response_gradient(banded, *constants, x, gradient)
    assert out.dtype == back.dtype == dtype
    exact, by_input = (np.asarray(values, np.float64) for values in (x, gradient))
    sums = np.zeros_like(exact)
    for c, j in itertools.product(range(48), range(48)):
        if -(size // 2) <= j - c <= size - 1 - size // 2:
            sums[..., c] += exact[..., j] ** 2
    scale = 2 + alpha * sums
    np.testing.assert_allclose(
        np.asarray(out, np.float64), exact * scale**-0.75, rtol=tolerance, atol=1e-6
    )
    inner = np.zeros_like(exact)
    for c, j in itertools.product(range(48), range(48)):
        if -(size // 2) <= c - j <= size - 1 - size // 2:
            inner[..., c] += (by_input * exact * scale**-1.75)[..., j]
    expected = by_input * scale**-0.75 - 1.5 * alpha * exact * inner
    np.testing.assert_allclose(
        np.asarray(back, np.float64), expected, rtol=tolerance, atol=tolerance * np.ptp(expected)
    )


@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-6), ("bfloat16", 2**-7)])
@pytest.mark.parametrize("size, beta", [(5, 0.75), (4, 0.6), (1, 0.75)])
def test_lrns_gradient_of_gpus_equals_that_of_cpus(size, beta, dtype, tolerance):
    """Windows are clipped at both ends, and may be even."""
    rng = np.random.default_rng(0)
    x, gradient = (jnp.asarray(rng.normal(0, 20, (2, 3, 3, 11)), dtype) for _ in range(2))
    constants = size, 2.0, 1e-2, beta, x, gradient
    found = response.response_gradient_in_one_pass(*constants)
    assert found.dtype == dtype
    expected = response.response_gradient(response.channel_window_sum, *constants)
    found, expected = (np.asarray(out, np.float32) for out in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_spatial_normalization_equals_a_loop():
    x = np.random.default_rng(0).normal(0, 20, (2, 6, 7, 3)).astype(np.float32)
    by_hand = np.empty(x.shape)
    for b, i, j, c in np.ndindex(x.shape):
        part = x[b, max(0, i - 2) : i + 3, max(0, j - 2) : j + 3, c].astype(np.float64)
        by_hand[b, i, j, c] = x[b, i, j, c] / (1 + 1e-3 / 25 * (part**2).sum()) ** 0.75
    ours = response.spatial_response_normalization(x, size=5, k=1.0, alpha=1e-3, beta=0.75)
    np.testing.assert_allclose(ours, by_hand, rtol=1e-5)
