"""Pictures of a run for TensorBoard: the network's input images and first kernels."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from devices import mesh as meshes
from evaluation.preprocessing import training_input
from training.recipe import Recipe

# Number of images of a batch that are shown.
_SHOWN = 16


def first_kernels(params: Any, layers: Sequence[str]) -> Any:
    """The kernels of the first layer.

    Args:
      params: of the network, nested dicts.
      layers: names of the layers that have parameters, in order; a block counts as one.

    Returns:
      [h, w, channels, maps], or [towers, h, w, channels, maps]; of a fully connected layer
      [inputs, units].
    """
    found = params[layers[0]]
    while "kernel" not in found:
        found = next(iter(found.values()))
    return found["kernel"]


def as_images(kernels: np.ndarray) -> np.ndarray:
    """A first layer's kernels; those of a fully connected one as the images that they weigh.

    What a first layer reads is an image, pooled or not, in three colours or in grey. The number of
    its inputs tells which, for 3 s^2 is never a square.

    Args:
      kernels: see `first_kernels`.

    Returns:
      [h, w, channels, maps], or [towers, h, w, channels, maps].
    """
    if kernels.ndim != 2:
        return kernels
    inputs = len(kernels)
    channels = 3 if 3 * math.isqrt(inputs // 3) ** 2 == inputs else 1
    side = math.isqrt(inputs // channels)
    return kernels.reshape(side, side, channels, -1)


def training_images(
    batch: dict[str, np.ndarray], normalization: dict[str, Array], recipe: Recipe
) -> np.ndarray:
    """The first images of a batch as the network sees them, float32 [n, h, w, 3]."""
    few = {name: jnp.asarray(value[:_SHOWN]) for name, value in batch.items()}
    images = jax.tree.map(meshes.fetch, normalization)
    see = jax.jit(training_input, static_argnames=("aligned", "dtype"))
    return np.asarray(see(few, images, aligned=recipe.aligned_mean, dtype="float32"))


def picture_of_kernels(kernels: np.ndarray) -> np.ndarray:
    """A layer's kernels side by side, each on its own scale; see `picture`.

    Args:
      kernels: see `first_kernels`; the maps of one tower come after those of the other.
    """
    kernels = as_images(kernels)
    if kernels.ndim == 5:
        kernels = np.moveaxis(kernels, 0, -2).reshape(*kernels.shape[1:4], -1)
    return picture(np.moveaxis(kernels, -1, 0), each=True)


def picture(images: np.ndarray, *, each: bool = False) -> np.ndarray:
    """Images side by side, scaled so that the lowest value is black and the highest white.

    Args:
      images: [n, h, w, channels]; grey unless they have three channels.
      each: whether each has its own scale, not all the same.

    Returns:
      uint8 [height, width, 3]; small images are enlarged.
    """
    axes = (1, 2, 3) if each else None
    low = images.min(axis=axes, keepdims=True)
    high = images.max(axis=axes, keepdims=True)
    shown = (images - low) / np.maximum(high - low, 1e-12)
    if shown.shape[-1] != 3:
        shown = np.repeat(shown.mean(axis=-1, keepdims=True), 3, axis=-1)
    enlarged = max(48 // shown.shape[1], 1)
    shown = shown.repeat(enlarged, axis=1).repeat(enlarged, axis=2)
    count, height, width, _ = shown.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.ones((rows * (height + 2) - 2, columns * (width + 2) - 2, 3))
    for number, image in enumerate(shown):
        y, x = divmod(number, columns)
        top, left = y * (height + 2), x * (width + 2)
        grid[top : top + height, left : left + width] = image
    return np.round(255 * grid).astype(np.uint8)
