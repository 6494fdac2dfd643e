"""What images are normalised with: (pixel - mean) / deviation."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Normalizer:
    """Which mean is subtracted from images, and what they are divided by.

    Attributes:
      mean: `image`, the mean of every pixel of the training set, of which each crop subtracts
        the part under it; `image_center`, its central part whatever the crop; `channel`, one
        mean per colour; `values`, `mean_values`; `none`.
      mean_values: red, green and blue, in grey levels.
      deviation: red, green and blue, in grey levels; divided by.
    """

    mean: str = "none"
    mean_values: tuple[float, ...] = (0.0, 0.0, 0.0)
    deviation: tuple[float, ...] = (1.0, 1.0, 1.0)

    @property
    def of_training_set(self) -> bool:
        """Whether the mean is computed from the training set."""
        return self.mean in ("image", "image_center", "channel")


def of_any_shape(normalizer: Normalizer, mean_image: np.ndarray | None) -> dict[str, np.ndarray]:
    """What whole images, of any shape, are normalised with: a mean image counts as its mean colour.

    Args:
      normalizer: which mean and deviation.
      mean_image: float32 [side, side, 3], of the training set; None where the mean is not.

    Returns:
      float32 `mean` [3] and `deviation` [3].
    """
    if normalizer.of_training_set:
        assert mean_image is not None
        mean = mean_image.mean(axis=(0, 1), dtype=np.float64)
    else:
        mean = np.array(_colours(normalizer))
    return {
        "mean": mean.astype(np.float32),
        "deviation": np.array(normalizer.deviation, np.float32),
    }


def _colours(normalizer: Normalizer) -> tuple[float, ...]:
    return normalizer.mean_values if normalizer.mean == "values" else (0.0, 0.0, 0.0)


def normalization(
    normalizer: Normalizer, side: int, pad: int, mean_image: np.ndarray | None
) -> dict[str, np.ndarray]:
    """What images are normalised with, as arrays.

    Args:
      normalizer: which mean and deviation.
      side: pixels of the central square.
      pad: zeros around it, in pixels.
      mean_image: float32 [side, side, 3], of the training set; None where the mean is not.

    Returns:
      float32 `mean` [side + 2 pad, side + 2 pad, 3] and `deviation` [3]. Means of the
      training set are zero under the padding, so that padding is the mean, as in He et al.
      2015, section 4.2.
    """
    if normalizer.of_training_set:
        assert mean_image is not None
        mean = mean_image
        if normalizer.mean == "channel":
            mean = np.broadcast_to(mean.mean(axis=(0, 1), dtype=np.float64), mean.shape)
        mean = np.pad(mean, [(pad, pad), (pad, pad), (0, 0)])
    else:
        square = side + 2 * pad
        mean = np.broadcast_to(np.array(_colours(normalizer)), (square, square, 3))
    return {
        "mean": np.ascontiguousarray(mean, np.float32),
        "deviation": np.array(normalizer.deviation, np.float32),
    }
