"""Rescaling of square images on the device, with the same result as Pillow's, bit for bit."""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array

# Weights are fixed-point numbers, 2^22 for 1, as in Pillow's Resample.c.
_BITS = 22


def rescaled(images: Array, size: int) -> Array:
    """uint8 [B, n, n, 3] -> [B, size, size, 3], equal to Pillow's `resize(..., BILINEAR)`."""
    along_rows = _resampled(images.astype(jnp.int32), size, axis=2)
    return _resampled(along_rows, size, axis=1).astype(jnp.uint8)


def _resampled(images: Array, size: int, axis: int) -> Array:
    """Resamples int32 images, 0 to 255, along one axis to length `size`."""
    first, weights = bilinear_weights(images.shape[axis], size)
    shape = [1] * images.ndim
    shape[axis] = size
    total = jnp.full((), 1 << (_BITS - 1), jnp.int32)
    last = images.shape[axis] - 1
    for tap in range(weights.shape[1]):
        pixels = jnp.take(images, np.minimum(first + tap, last), axis=axis)
        total = total + pixels * weights[:, tap].reshape(shape)
    return total >> _BITS


def bilinear_weights(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the antialiased bilinear interpolation of `length` pixels to `size`.

    Returns:
      int32 [size], for each new pixel the first old one that contributes; and int32 [size, taps],
      the weights of this and the following pixels, whose sum is 2^22 up to rounding.
    """
    scale = length / size
    reach = max(scale, 1.0)
    centre = (np.arange(size) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(np.int32), 0)
    end = np.minimum((centre + reach + 0.5).astype(np.int32), length)
    taps = np.arange(math.ceil(reach) * 2 + 1)
    away = (first[:, None] + taps - centre[:, None] + 0.5) / reach
    weights = np.where(taps < (end - first)[:, None], np.maximum(1 - np.abs(away), 0), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return first, np.floor(weights * (1 << _BITS) + 0.5).astype(np.int32)
