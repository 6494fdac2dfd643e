from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision_models import response, response_kernel

DTYPES = [jnp.float32, jnp.bfloat16]


def maps(dtype, shape=(128, 1, 17, 16)):
    rng = np.random.default_rng(0)
    x = jnp.maximum(jnp.asarray(rng.normal(0, 60, shape), dtype), 0)
    return x, jnp.asarray(rng.normal(0, 1, shape), dtype)


def assert_near(ours, theirs, dtype):
    """Up to the rounding of `dtype`, of the largest value."""
    ours, theirs = np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
    apart = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    assert apart < (1e-6 if dtype == jnp.float32 else 2**-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "size, beta, shape",
    [(5, 0.75, (128, 1, 17, 16)), (4, 0.5, (128, 1, 17, 16)), (5, 0.75, (384, 1, 3, 256))],
)
def test_kernels_equal_the_formula_by_whole_maps(dtype, size, beta, shape):
    """More pixels than a block has, and a prime number of them; more images than a block has."""
    x, of_result = maps(dtype, shape)
    constants = size, 2.0, 1e-4, beta
    banded = partial(response.banded_window_sum, dtype)
    assert_near(
        response_kernel.normalized(*constants, x, interpret=True),
        response.response_normalized(banded, *constants, x),
        dtype,
    )
    by_input = response.response_gradient(banded, *constants, x, of_result)
    run = partial(response_kernel.gradient, *constants, interpret=True)
    assert_near(run(False, x, of_result)[0], by_input, dtype)
    masked = jnp.where(x > 0, by_input, 0)
    ours, sums = run(True, x, of_result)
    assert_near(ours, masked, dtype)
    assert_near(sums, masked.astype(jnp.float32).sum((0, 1, 2)), dtype)


def test_maps_that_do_not_fill_the_lanes_are_left_to_xla():
    assert response_kernel.fit((256, 27, 27, 48))
    assert not response_kernel.fit((64, 27, 27, 48))
    assert not response_kernel.fit((128, 27, 27, 12))
    assert not response_kernel.fit((128, 96))


@pytest.mark.parametrize("dtype", DTYPES)
def test_bias_and_relu_in_the_normalisation_equal_those_before_it(dtype):
    x, weights = maps(dtype, (2, 3, 4, 8))
    x, bias = x - 30, jnp.linspace(-20, 20, 8, dtype=dtype)
    lrn = partial(
        response.local_response_normalization, size=5, k=2.0, alpha=1e-4, beta=0.75, average=False
    )

    def inside(x, bias):
        return lrn(x, bias=bias)

    def before(x, bias):
        return lrn(jnp.maximum(x + bias, 0))

    out, ours = jax.vjp(inside, x, bias)
    expected, theirs = jax.vjp(before, x, bias)
    np.testing.assert_array_equal(out, expected)
    for found, other in zip(ours(weights), theirs(weights), strict=True):
        assert_near(found, other, dtype)
