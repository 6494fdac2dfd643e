"""Local contrast normalisation against loops, and what it must not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision_models import contrast

local_contrast_normalization = jax.jit(
    contrast.local_contrast_normalization, static_argnames="size"
)


def images(height=12, width=10, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 3, (2, height, width, channels)).astype(np.float32)


def by_loops(image, size):
    """[h, w, c]: the paper's two steps, a window at a time."""
    height, width, channels = image.shape
    reach = size // 2

    def windows():
        for row in range(height):
            for column in range(width):
                rows = np.arange(max(row - reach, 0), min(row + reach + 1, height))
                columns = np.arange(max(column - reach, 0), min(column + reach + 1, width))
                apart = (rows[:, None] - row) ** 2 + (columns[None] - column) ** 2
                weights = np.exp(-apart / (2 * (size / 4) ** 2))
                yield (row, column), np.ix_(rows, columns), weights / weights.sum() / channels

    centred, deviation = np.zeros_like(image, np.float64), np.zeros((height, width))
    for at, window, weights in windows():
        centred[at] = image[at] - (image[window] * weights[..., None]).sum()
    for at, window, weights in windows():
        deviation[at] = np.sqrt((centred[window] ** 2 * weights[..., None]).sum())
    return centred / np.maximum(deviation, deviation.mean())[..., None]


@pytest.mark.quick
@pytest.mark.parametrize("size", [9, 5])
def test_equals_loops(size):
    x = images()
    expected = np.stack([by_loops(image.astype(np.float64), size) for image in x])
    found = local_contrast_normalization(jnp.asarray(x), size=size)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_brightness_and_contrast_do_not_matter():
    x = images()
    np.testing.assert_allclose(
        local_contrast_normalization(jnp.asarray(7 * x + 50)),
        local_contrast_normalization(jnp.asarray(x)),
        atol=2e-4,
    )


def test_constant_maps_become_zero_and_their_gradient_is_finite():
    flat = jnp.full((1, 8, 8, 2), 5.0)
    assert np.abs(local_contrast_normalization(flat)).max() < 0.02
    gradient = jax.jit(jax.grad(lambda x: local_contrast_normalization(x).sum()))(flat)
    assert np.all(np.isfinite(gradient))


def test_what_lies_beyond_an_image_does_not_matter():
    x = images()
    larger = np.full((2, 17, 15, 3), 100.0, np.float32)
    larger[:, :12, :10] = x
    inside = np.zeros((2, 17, 15, 1), bool)
    inside[:, :12, :10] = True
    found = local_contrast_normalization(jnp.asarray(larger), jnp.asarray(inside))
    np.testing.assert_allclose(
        found[:, :12, :10], local_contrast_normalization(jnp.asarray(x)), atol=1e-4
    )
    assert not found[:, 12:].any() and not found[:, :, 10:].any()


def test_bfloat16_is_computed_in_float32():
    x = jnp.asarray(images(), jnp.bfloat16)
    out = local_contrast_normalization(x)
    assert out.dtype == jnp.bfloat16
    wide = local_contrast_normalization(x.astype(jnp.float32))
    np.testing.assert_array_equal(out, wide.astype(jnp.bfloat16))
