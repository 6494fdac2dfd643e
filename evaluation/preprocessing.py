"""The network's input, computed on the device: (pixels - mean) / deviation.

Images reach the device as uint8. A normalisation is a dict of float32 arrays. `mean` is
[square, square, 3] for the square that crops are taken from; a crop subtracts either the part of
it that lies under the crop, or always its central part. For whole images, whose shapes vary,
`mean` is one colour, [3]. `deviation` is [3], by which the colours are divided.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from evaluation.resizing import rescaled

Normalization = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a network's input.

    Attributes:
      resize: pixels of the shorter side after rescaling; the central square is cut from that.
      crop: pixels of a crop's side.
      pad: width of the zeros around the square, in pixels on each side.
      aligned_mean: whether a crop subtracts the part of the mean under it; else the central part.
    """

    resize: int
    crop: int
    pad: int = 0
    aligned_mean: bool = False

    @property
    def square(self) -> int:
        """Side in pixels of the padded square that crops are taken from."""
        return self.resize + 2 * self.pad


def window(image: Array, y: Array | int, x: Array | int, size: int) -> Array:
    """[height, width, 3] -> the size x size window at (y, x)."""
    return lax.dynamic_slice(image, (y, x, jnp.zeros_like(y)), (size, size, 3))


def mirrored(image: Array, flip: Array) -> Array:
    """[..., width, 3], mirrored left to right where the scalar `flip` is true."""
    return jnp.where(flip, image[..., ::-1, :], image)


def central_window(image: Array, size: int) -> Array:
    """[height, width, 3] -> the central size x size window."""
    return window(image, (image.shape[0] - size) // 2, (image.shape[1] - size) // 2, size)


def training_input(
    batch: dict[str, Array], normalization: Normalization, *, aligned: bool, dtype: str
) -> Array:
    """The network's input in training: (crop - mean + shift) * scale / deviation.

    Args:
      batch: `image` uint8 [B, crop, crop, 3], `crop_offset` int32 [B, 2], `flip` bool
        [B], `colour_shift` float32 [B, 3], `colour_scale` float32 [B].
      normalization: `mean` and `deviation`.
      aligned: subtract the part of the mean under each crop, flipped with it;
        otherwise its central part.
      dtype: of the result.

    Returns:
      [B, crop, crop, 3].
    """
    size, mean = batch["image"].shape[1], normalization["mean"]
    if aligned:
        under = jax.vmap(partial(_under, mean, size))(batch["crop_offset"], batch["flip"])
    else:
        under = central_window(mean, size)
    shift = batch["colour_shift"][:, None, None, :]
    scale = batch["colour_scale"][:, None, None, None]
    return ((batch["image"] - under + shift) * (scale / normalization["deviation"])).astype(dtype)


def _under(mean: Array, size: int, offset: Array, flip: Array) -> Array:
    """`mirrored(window(mean, *offset, size), flip)`, of a mean image that is mirrored only once.

    Crops as large as the mean image are all at its corner.
    """
    both = jnp.stack([mean, mirrored(mean, jnp.array(True))])
    if mean.shape[0] == mean.shape[1] == size:
        return jnp.where(flip, both[1], both[0])
    y, x = offset
    left = jnp.where(flip, mean.shape[1] - size - x, x)
    at = (flip.astype(y.dtype), y, left, jnp.zeros_like(y))
    return lax.dynamic_slice(both, at, (1, size, size, 3))[0]


def view_input(
    images: Array,
    normalization: Normalization,
    view: Array,
    *,
    size: int,
    aligned: bool,
    dtype: str,
) -> Array:
    """The network's input for one view of each image.

    Args:
      images: uint8 [B, square, square, 3].
      normalization: `mean` and `deviation`.
      view: int32 [3]: y, x, and 1 if mirrored.
      size: pixels of the crop.
      aligned, dtype: as in `training_input`.

    Returns:
      [B, size, size, 3].
    """
    y, x, flip = view
    mean = normalization["mean"]
    crops = jax.vmap(lambda image: window(image, y, x, size))(images)
    crops = mirrored(crops, flip).astype(jnp.float32)
    under = mirrored(window(mean, y, x, size), flip) if aligned else central_window(mean, size)
    return ((crops - under) / normalization["deviation"]).astype(dtype)


def crop_input(
    images: Array,
    normalization: Normalization,
    offsets: Array,
    flip: Array,
    *,
    cut: int,
    size: int,
    dtype: str,
) -> Array:
    """The network's input for one crop of each whole image.

    Args:
      images: uint8 [B, height, width, 3], padded.
      normalization: `mean` [3] and `deviation`.
      offsets: int32 [B, 2], row and column of each crop.
      flip: bool scalar, whether the crops are mirrored.
      cut: pixels of a crop's side in the image.
      size: pixels of the side that the network sees; crops are rescaled to it if `cut` differs.
      dtype: of the result.

    Returns:
      [B, size, size, 3].
    """
    crops = jax.vmap(lambda image, at: window(image, at[0], at[1], cut))(images, offsets)
    if cut != size:
        crops = rescaled(crops, size)
    crops = mirrored(crops, flip).astype(jnp.float32)
    return ((crops - normalization["mean"]) / normalization["deviation"]).astype(dtype)


def whole_input(
    images: Array, valid: Array, normalization: Normalization, flip: Array, *, dtype: str
) -> Array:
    """The network's input for whole images, zero in their padding.

    Args:
      images: uint8 [B, height, width, 3], padded at the right and below.
      valid: int32 [B, 2], height and width of each without its padding.
      normalization: `mean` [3] and `deviation`.
      flip: bool scalar, whether the images are mirrored, each within its own width.
      dtype: of the result.

    Returns:
      [B, height, width, 3].
    """
    rows, columns = jnp.arange(images.shape[1]), jnp.arange(images.shape[2])
    there = (rows < valid[:, :1])[:, :, None] & (columns < valid[:, 1:])[:, None, :]
    source = jnp.where(flip, jnp.maximum(valid[:, 1:] - 1 - columns, 0), columns)
    pixels = jnp.take_along_axis(images, source[:, None, :, None], axis=2).astype(jnp.float32)
    seen = (pixels - normalization["mean"]) / normalization["deviation"]
    return jnp.where(there[..., None], seen, 0).astype(dtype)
