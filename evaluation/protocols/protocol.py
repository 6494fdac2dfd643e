"""What a test-time protocol is: which images, which views of them, and what is averaged.

A protocol has one look for each image size. A look takes views of its images: crops, or every
position of a network that slides over the whole image. The protocol averages probabilities, or
scores, first over the views of a look and then over the looks.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from evaluation.masks import NONE, Masks

# Pixels per device in a batch of dense evaluation: eight images of 384 x 512. VGG-D's activations
# for them take 0.8 GB in float32 (docs/protocols.md).
_TOGETHER = 8 * 384 * 512


@dataclasses.dataclass(frozen=True)
class Images:
    """The images that a look needs.

    Attributes:
      side: shorter side of the rescaled image, in pixels.
      pad: width of the zero padding on each side of the central square, in pixels.
      whole: the whole rescaled image is used, whatever its shape; otherwise its central square.
    """

    side: int
    pad: int = 0
    whole: bool = False

    @property
    def square(self) -> int:
        """Side of the square in pixels, with its padding."""
        return self.side + 2 * self.pad

    def without_padding(self, image: np.ndarray) -> np.ndarray:
        """[height, width, 3] in this form -> the same without the zeros around it, as a view."""
        height, width, _ = image.shape
        return image[self.pad : height - self.pad, self.pad : width - self.pad]


@dataclasses.dataclass(frozen=True, eq=False)
class Crops:
    """Crops of an image, or of a square of it.

    The possible places of a crop are evenly spaced along each axis, from one edge of the image to
    the other. Place k of n, counted from 0, begins at pixel floor(k * room / (n - 1)), where room
    is the side of the image less that of the crop.

    Attributes:
      size: side of a crop in pixels. Crops are rescaled to the network's input size if it differs.
      views: int32 [views, 3], one row per view: vertical place, horizontal place, 1 if mirrored.
      places: number of places along each axis, at least 2.
      square: which square of the image the crops are of; its side is the image's shorter side. 0
        is the left (or top) one, 1 the central one, 2 the right (or bottom) one. None: the crops
        are of the image itself.
    """

    size: int
    views: np.ndarray
    places: int = 3
    square: int | None = None

    @property
    def count(self) -> int:
        """How many views there are."""
        return len(self.views)

    def offsets(self, height: Any, width: Any) -> Any:
        """Row and column of each view's top left pixel in an image.

        Args:
          height, width: of the image in pixels: integers, or int32 arrays [B].

        Returns:
          int32 [views, 2] for integers, [views, B, 2] for arrays.
        """
        of = np if isinstance(height, int) else jnp
        shorter = of.minimum(height, width)
        along = []
        for axis, length in enumerate((height, width)):
            start, region = 0, length
            if self.square is not None:
                start, region = self.square * (length - shorter) // 2, shorter
            place = self.views[:, axis].reshape(-1, *[1] * np.ndim(length))
            along.append(start + place * (region - self.size) // (self.places - 1))
        return of.stack(along, axis=-1).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Dense:
    """Two views: every position of a network that slides over the image, and over its mirror image.

    Attributes:
      of: what is averaged over positions: `scores` or `probabilities`.
      maximum: each class takes its maximum over positions in place of the average.
      offsets: positions include those at every offset of the last pool's windows; see
        `vision_models.dense.score_maps`.
      weight: weight of each of the two views in the average; a crop's weight is 1.
    """

    of: str = "scores"
    maximum: bool = False
    offsets: bool = False
    weight: int = 1

    @property
    def count(self) -> int:
        """How many views there are."""
        return 2


@dataclasses.dataclass(frozen=True)
class Look:
    """Views of images of one size.

    Attributes:
      images: the images that the views are of.
      views: all views of the look, which are averaged together. A look at squares has exactly one
        `Crops`, of the network's input size.
    """

    images: Images
    views: tuple[Crops | Dense, ...]

    def cost(self, crop: int) -> float:
        """Estimates the cost per image, as a number of square crops with this side in pixels.

        Images are taken to have an aspect ratio of 4:3.
        """
        whole = 4 / 3 * (self.images.side / crop) ** 2
        return sum(v.count * (whole if isinstance(v, Dense) else 1) for v in self.views)

    def batch_size(self, most: int, devices: int) -> int:
        """Number of images in a batch: `most`, or fewer where a network slides over the images.

        Dense evaluation takes only as many as fit into memory, and at most 16 per device because
        the padding of an incomplete batch is computed too.

        Args:
          most: the batch size in the config.
          devices: number of devices that share a batch.
        """
        if not any(isinstance(views, Dense) for views in self.views):
            return most
        usual = self.images.side**2 * 4 / 3
        return min(most, min(max(round(_TOGETHER / usual), 1), 16) * devices)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A test-time protocol.

    Attributes:
      name: as in `evaluation.protocol` of a config.
      looks: one for each image size.
      average: what is averaged over views and looks: `probabilities`, `scores` (logits), or the
        `outputs` of a network that regresses boxes.
      masks: of dropout, over which probabilities are averaged in each view.
      label: the name followed by all options that were given. Scores are saved under it.
    """

    name: str
    looks: tuple[Look, ...]
    average: str = "probabilities"
    masks: Masks = NONE
    label: str = ""

    @property
    def count(self) -> int:
        """Number of views of an image, over all looks."""
        return sum(views.count for look in self.looks for views in look.views)

    def combined(self, of_looks: list[np.ndarray]) -> np.ndarray:
        """Averages over the looks.

        Args:
          of_looks: for each look float32 [N, classes], the average over its views: of the scores,
            or the logarithm of the average probabilities.

        Returns:
          Log-probabilities, float32 [N, classes].
        """
        total: np.ndarray = of_looks[0]
        if len(of_looks) > 1 and self.average == "scores":
            total = np.stack(of_looks).mean(axis=0, dtype=np.float64)
        elif len(of_looks) > 1:
            total = _log_mean(of_looks)
        return log_softmax(total) if self._open else total.astype(np.float32)

    @property
    def of_boxes(self) -> bool:
        """Whether it is for networks that regress boxes."""
        return self.average == "outputs"

    @property
    def merges(self) -> bool:
        """Whether it merges the boxes of many windows; see `localization.windows`."""
        return self.of_boxes and all(look.images.whole for look in self.looks)

    @property
    def by_class(self) -> bool:
        """Whether it needs a classifier."""
        return self.merges and not self.name.endswith("true_class")

    @property
    def _open(self) -> bool:
        """Whether the average over the looks is not a normalised distribution yet."""
        views = [views for look in self.looks for views in look.views]
        return self.average == "scores" or any(isinstance(v, Dense) and v.maximum for v in views)


def _log_mean(logs: list[np.ndarray]) -> np.ndarray:
    """The logarithm of the mean of the exponentials, computed without overflow."""
    largest = np.maximum.reduce(logs)
    total = np.zeros(largest.shape)
    for log in logs:
        total += np.exp(log.astype(np.float64) - largest)
    return largest + np.log(total / len(logs))


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Log-softmax over classes, computed in float64: [N, classes] -> float32 [N, classes]."""
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    found = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found.astype(np.float32)
