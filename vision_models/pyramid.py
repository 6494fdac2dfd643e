"""Pyramid pooling: He, Zhang, Ren and Sun, 2014 (arXiv 1406.4729).

"Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition": as many features
for images of any size.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import Array

from vision_models.forward import NO_PADDING, Pass
from vision_models.pooling import Padding


@dataclasses.dataclass(frozen=True)
class PyramidPool:
    """Pyramid pooling: as many features for images of any size; see `pyramid_pool`.

    `window` is the nominal size of the maps, which analyses read.
    """

    levels: tuple[int, ...]
    window: int
    stride: int = 1
    padding: Padding = NO_PADDING

    def __call__(self, x: Array, run: Pass, path: str) -> Array:
        """[B, H, W, C] -> [B, features]; in dense evaluation [B, 1, 1, features]."""
        features = pyramid_pool(x, self.levels, run.valid)
        if run.valid is None:
            return features
        run.valid = jnp.minimum(run.valid, 1)
        return run.cut(features[:, None, None])


def pyramid_pool(x: Array, levels: tuple[int, ...], valid: Array | None = None) -> Array:
    """Maxima over a pyramid of windows that divide the image: He et al. 2014, section 2.2.

    A level of n divides an image of h rows and w columns into n x n windows; that of row i and
    column j reaches from i h / n to (i + 1) h / n and from j w / n to (j + 1) w / n, rounded
    outwards (appendix A). A map of 13 x 13 is so divided as by windows of 13 / n, rounded up, at
    strides of 13 / n, rounded down (section 2.3).

    Args:
      x: [batch, H, W, channels], of any size from 1 x 1.
      levels: windows a side of each level.
      valid: int32 [batch, 2], height and width of the image within each map; None for H, W.

    Returns:
      [batch, windows of all levels * channels]: level by level, row by row, channels last.
    """
    pooled = []
    for level in levels:
        out = x
        for axis in (1, 2):  # the maximum over rows, then over columns
            size = x.shape[axis]
            places = jnp.arange(level)
            length = size if valid is None else valid[:, axis - 1, None]  # [B, 1]
            first, end = places * length // level, -(-(places + 1) * length // level)
            at = jnp.arange(size)
            within = (at >= first[..., None]) & (at < end[..., None])  # [(B,) level, size]
            moved = jnp.moveaxis(out, axis, -1)[..., None, :]
            shape = (-1, *(1,) * (moved.ndim - 3), level, size)
            masked = jnp.where(within.reshape(shape), moved, -np.inf)
            out = jnp.moveaxis(masked.max(-1), -1, axis)
        pooled.append(out.reshape(len(x), -1, x.shape[-1]))
    return jnp.concatenate(pooled, 1).reshape(len(x), -1)
