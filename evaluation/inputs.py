"""What the network sees: pixels less the mean, on the device.

Images travel as uint8. The mean is kept for the whole square that crops are taken
from; by default each crop subtracts the part of it that lies under the crop.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax


def window(image: Array, y: Array | int, x: Array | int, size: int) -> Array:
    """[height, width, 3] -> the size x size window at (y, x)."""
    return lax.dynamic_slice(image, (y, x, 0), (size, size, 3))


def mirrored(image: Array, flip: Array) -> Array:
    """[..., width, 3], mirrored left to right where the scalar `flip` is true."""
    return jnp.where(flip, image[..., ::-1, :], image)


def central_window(image: Array, size: int) -> Array:
    """[height, width, 3] -> the central size x size window."""
    return window(image, (image.shape[0] - size) // 2, (image.shape[1] - size) // 2, size)


def training_input(batch: dict[str, Array], mean: Array, *, aligned: bool, dtype: str) -> Array:
    """Crops as the network sees them in training: (crop - mean + shift) * scale.

    Args:
      batch: `image` uint8 [B, crop, crop, 3], `crop_offset` int32 [B, 2], `flip` bool
        [B], `colour_shift` float32 [B, 3], `colour_scale` float32 [B].
      mean: float32 [resize, resize, 3].
      aligned: subtract the part of the mean under each crop, flipped with it;
        otherwise its central part.
      dtype: of the result.

    Returns:
      [B, crop, crop, 3].
    """
    size = batch["image"].shape[1]
    if aligned:
        under = jax.vmap(
            lambda offset, flip: mirrored(window(mean, offset[0], offset[1], size), flip)
        )(batch["crop_offset"], batch["flip"])
    else:
        under = central_window(mean, size)
    shift = batch["colour_shift"][:, None, None, :]
    scale = batch["colour_scale"][:, None, None, None]
    return ((batch["image"] - under + shift) * scale).astype(dtype)


def view_input(
    images: Array, mean: Array, view: Array, *, size: int, aligned: bool, dtype: str
) -> Array:
    """One view of each image as the network sees it.

    Args:
      images: uint8 [B, resize, resize, 3].
      mean: float32 [resize, resize, 3].
      view: int32 [3]: y, x, and 1 if mirrored.
      size: pixels of the crop.
      aligned, dtype: as in `training_input`.

    Returns:
      [B, size, size, 3].
    """
    y, x, flip = view
    crops = jax.vmap(lambda image: window(image, y, x, size))(images)
    crops = mirrored(crops, flip).astype(jnp.float32)
    under = mirrored(window(mean, y, x, size), flip) if aligned else central_window(mean, size)
    return (crops - under).astype(dtype)
