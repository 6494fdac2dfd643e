"""The papers' preprocessing and augmentation.

Randomness comes as uniform numbers drawn by `order.uniform_draws`; the functions
here turn them into crops, flips and colours. Pixels stay uint8: colours are shifted
on the device, together with the subtraction of the mean.
"""

import numpy as np
import tensorflow as tf

from input_pipeline import order

COLOUR_NOISE = ("paper", "original", "gaussian", "none")


def resize_and_center(image: tf.Tensor, size: int) -> tf.Tensor:
    """Shorter side to `size`, then the central square (Krizhevsky et al. 2012, section 2).

    The paper does not say how it resamples; this is antialiased bilinear.

    Args:
      image: uint8 [height, width, 3].
      size: pixels.

    Returns:
      uint8 [size, size, 3].
    """
    shape = tf.shape(image)
    shorter = tf.minimum(shape[0], shape[1])
    scaled = tf.cast(tf.round(shape[:2] * size / shorter), tf.int32)
    resized = tf.image.resize(image, scaled, antialias=True)
    top, left = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    square = resized[top : top + size, left : left + size]
    square = tf.cast(tf.clip_by_value(tf.round(square), 0, 255), tf.uint8)
    return tf.ensure_shape(square, [size, size, 3])


def pad(image: tf.Tensor, pixels: int) -> tf.Tensor:
    """Zeros on all four sides: uint8 [H, W, 3] -> [H + 2 pixels, W + 2 pixels, 3]."""
    return tf.pad(image, [[pixels, pixels], [pixels, pixels], [0, 0]]) if pixels else image


def crop_and_flip(image: tf.Tensor, offset: tf.Tensor, flip: tf.Tensor, size: int) -> tf.Tensor:
    """The window of `size` pixels at `offset` (y, x), mirrored left to right if `flip`."""
    window = image[offset[0] : offset[0] + size, offset[1] : offset[1] + size]
    window = tf.cond(flip, lambda: tf.reverse(window, [1]), lambda: window)
    return tf.ensure_shape(window, [size, size, 3])


def draw_augmentation(
    uniform: np.ndarray,
    *,
    margin: int,
    random_crop: bool,
    flip: bool,
    colours: np.ndarray | None,
    colour_scale: float,
) -> dict[str, np.ndarray]:
    """Turns uniform numbers into what happens to each example.

    Args:
      uniform: [B, order.DRAWS] in (0, 1).
      margin: pixels by which the image is larger than the crop; an offset is one of
        0 .. margin, each as likely (33 values for 256 and 224).
      random_crop: False takes the centre.
      flip: mirror one image in two.
      colours: [3, 3] from `colour_basis`, or None for no colour noise.
      colour_scale: factor that goes with it.

    Returns:
      crop_offset int32 [B, 2] (y, x), flip bool [B], colour_shift float32 [B, 3]
      in grey levels, colour_scale float32 [B]: the network sees
      (crop - mean + colour_shift) * colour_scale.
    """
    batch = len(uniform)
    if random_crop:
        offset = (uniform[:, 0:2] * (margin + 1)).astype(np.int32)
    else:
        offset = np.full((batch, 2), margin // 2, np.int32)
    shift = np.zeros((batch, 3), np.float32)
    if colours is not None:
        shift = (order.standard_normal(uniform[:, 3:6]) @ colours.T).astype(np.float32)
    return {
        "crop_offset": offset,
        "flip": (uniform[:, 2] < 0.5) & flip,
        "colour_shift": shift,
        "colour_scale": np.full(batch, colour_scale if colours is not None else 1.0, np.float32),
    }


def colour_basis(kind: str, covariance: np.ndarray) -> tuple[np.ndarray | None, float]:
    """What turns three standard Gaussians into a shift of an image's RGB, in grey levels.

    Krizhevsky et al. 2012, section 4.1, adds multiples of the principal components
    of RGB over the training set, once per image and presentation. With V and L the
    eigenvectors and eigenvalues of the covariance, and a ~ N(0, I):

      paper     255 V (.1 a L), L of pixels in 0..1 (in grey levels the paper's
                formula would add hundreds).
      original  V (.1 a sqrt(L)), and the result divided by 1.1: the 2012 code.
      gaussian  a draw from N(0, .01 covariance).
      none      nothing.

    Args:
      kind: one of COLOUR_NOISE.
      covariance: [3, 3] of RGB in grey levels.

    Returns:
      (B, scale): the shift is B a, the sum is multiplied by `scale`; B is None for `none`.
    """
    if kind == "none":
        return None, 1.0
    eigenvalues, eigenvectors = np.linalg.eigh(covariance)
    eigenvalues = np.maximum(eigenvalues, 0.0)  # grey images: rounding may leave -1e-12
    if kind == "paper":
        return eigenvectors * (0.1 * eigenvalues / 255.0), 1.0
    return eigenvectors * (0.1 * np.sqrt(eigenvalues)), 1.0 / 1.1 if kind == "original" else 1.0
