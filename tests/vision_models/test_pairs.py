"""Pairs of columns, TPUs' form of large maps, by calling it on this device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision_models import pairs
from vision_models.convolution import convolve
from vision_models.pooling import pool

SAME = ((1, 1), (1, 1))


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("bfloat16", 2**-8)])
@pytest.mark.parametrize("maps", [3, 8], ids=["photographs", "maps"])
def test_convolution_and_its_gradients_equal_those_of_single_columns(maps, dtype, tolerance):
    rng = np.random.default_rng(0)
    x, kernel, bias, gradient = (
        jnp.asarray(rng.normal(size=shape), dtype)
        for shape in ((2, 6, 8, maps), (3, 3, maps, 16), (16,), (2, 6, 8, 16))
    )
    wide = [values.astype(jnp.float32) for values in (x, kernel, bias)]
    expected, back = jax.vjp(lambda *of: convolve(*of, padding=SAME), *wide)
    ours = pairs.convolve(x, kernel, bias), *pairs.gradients(True, x, kernel, gradient)
    for found, exact in zip(ours, (expected, *back(gradient.astype(jnp.float32))), strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(
            found.astype(jnp.float32), exact, atol=2 * tolerance * float(jnp.abs(exact).max())
        )


def test_pool_and_its_gradient_equal_those_of_single_columns():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.permutation(2 * 6 * 8 * 5).reshape(2, 6, 8, 5), jnp.float32)
    gradient = jnp.asarray(rng.normal(size=(2, 3, 4, 5)), jnp.float32)
    expected, back = jax.vjp(lambda x: pool(x, "max", window=2, stride=2), x)
    np.testing.assert_array_equal(pairs.pool(x), expected)
    np.testing.assert_array_equal(pairs.pool_gradient(x, gradient), back(gradient)[0])


def test_one_of_several_maxima_gets_the_gradient():
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (2, 6, 8, 5)), jnp.float32)
    gradient = jnp.arange(1.0, 1 + 2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    found = np.asarray(pairs.pool_gradient(x, gradient))
    windows = found.reshape(2, 3, 2, 4, 2, 5).swapaxes(2, 3).reshape(2, 3, 4, 4, 5)
    np.testing.assert_array_equal(windows.sum(3), gradient)
    assert (np.count_nonzero(windows, axis=3) == 1).all()
    largest = pairs.pool(x).repeat(2, 1).repeat(2, 2)
    assert (x == largest)[found != 0].all()
