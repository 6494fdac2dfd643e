"""Local contrast normalisation: Jarrett, Kavukcuoglu, Ranzato and LeCun, 2009.

"What is the Best Multi-Stage Architecture for Object Recognition?", with which AlexNet's section
3.3 compares its response normalisation.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from vision_models.forward import Activations, Pass, each
from vision_models.layers import widened


@dataclasses.dataclass(frozen=True)
class LocalContrastNorm:
    """Jarrett's normalisation, in each tower; see `local_contrast_normalization`."""

    size: int = 9

    def __call__(self, x: Activations, run: Pass, path: str) -> Activations:
        """Keeps the shape."""

        def normalize(maps: Array) -> Array:
            inside = None if run.valid is None else run.mask(maps)
            return local_contrast_normalization(maps, inside, self.size)

        return each(run.normalization(normalize), x)


def local_contrast_normalization(x: Array, inside: Array | None = None, size: int = 9) -> Array:
    """Subtractive and divisive normalisation: Jarrett et al. 2009, section 2.

    From every value the mean over its neighbourhood in all maps is subtracted, weighted by a
    Gaussian. What remains is divided by its deviation over the same neighbourhood, but at least
    by the mean of the deviations over the image. Neighbourhoods end at the border of the image,
    with their weights rescaled to a sum of 1. Computed in float32 or wider. The paper does not
    give the Gaussian's deviation; here it is a quarter of the window, so that few weights are cut.

    Args:
      x: [batch, height, width, channels].
      inside: bool [batch, height, width, 1], true within the images; None for everywhere.
      size: side of the window in pixels, odd.

    Returns:
      Array of the shape and dtype of `x`, 0 outside the images.
    """
    wide = widened(x)
    present = jnp.ones_like(wide[..., :1]) if inside is None else inside.astype(wide.dtype)
    reach = size // 2
    weights = np.exp(-0.5 * np.square((np.arange(size) - reach) / (size / 4)))

    def blurred(maps: Array) -> Array:
        """The weighted sum of each window: [B, H, W, 1] -> the same."""
        for axis in (1, 2):
            length = maps.shape[axis]
            around = [(reach, reach) if a == axis else (0, 0) for a in range(4)]
            padded = jnp.pad(maps, around)
            parts = [
                float(weight) * lax.slice_in_dim(padded, i, i + length, axis=axis)
                for i, weight in enumerate(weights)
            ]
            maps = sum(parts[1:], parts[0])
        return maps

    whole = jnp.maximum(blurred(present), np.finfo(np.float32).tiny)
    mean = blurred(jnp.mean(wide, -1, keepdims=True) * present) / whole
    centred = (wide - mean) * present
    variance = blurred(jnp.mean(jnp.square(centred), -1, keepdims=True)) / whole
    # The constant keeps the gradient of the root finite where maps are constant.
    deviation = jnp.sqrt(variance + 1e-12) * present
    usual = deviation.sum((1, 2), keepdims=True) / jnp.maximum(
        present.sum((1, 2), keepdims=True), 1
    )
    # The least divisor keeps the rounding errors of constant maps small.
    return (centred / jnp.maximum(jnp.maximum(deviation, usual), 1e-4)).astype(x.dtype)
