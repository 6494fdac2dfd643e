"""What a test-time protocol is: which images, which views of them, and what is averaged.

A protocol looks at images of one or several sizes. Of each size it takes views: crops, or all
positions of the network that slides over the image. The same is averaged over the views of a look
and over the looks.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

# Pixels of the images that a device slides a network over together: eight of 384 x 512. VGG-D's
# maps of them take .8 GB in float32 (docs/protocols.md).
_TOGETHER = 8 * 384 * 512


@dataclasses.dataclass(frozen=True)
class Images:
    """Which images are asked for.

    Attributes:
      side: pixels of the rescaled image's shorter side.
      pad: zeros around the central square, in pixels on each side.
      whole: all of the rescaled image, whatever its shape; else the central square.
    """

    side: int
    pad: int = 0
    whole: bool = False

    @property
    def square(self) -> int:
        """Pixels of the square with its padding."""
        return self.side + 2 * self.pad


@dataclasses.dataclass(frozen=True, eq=False)
class Crops:
    """Crops of an image, or of a square of it.

    A crop has one of a few places along each axis, of which the first is at the near edge and the
    last at the far one. Place k of n begins at pixel k room / (n - 1), rounded down, where the room
    is how much longer the image is than the crop.

    Attributes:
      size: pixels of a crop's side; crops are rescaled to the network's size if that is another.
      views: int32 [views, 3], in their order: the place down, the place across, 1 if mirrored.
      places: how many there are along each axis, at least 2.
      square: the crops are of a square as large as the image's shorter side: 0 is the left one (or
        the top one), 1 the central one, 2 the right one (or the bottom one). None: of the image.
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
        """Row and column where each view begins in an image.

        Args:
          height, width: of the image in pixels; whole numbers, or int32 arrays [B].

        Returns:
          int32 [views, 2]; of arrays [views, B, 2].
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
    """All positions of a network that slides over the whole image, and over its mirror image.

    Attributes:
      of: what is averaged over the positions: `scores`, or `probabilities`.
      maximum: the largest over the positions of each class, and not the average.
      offsets: the windows of the last pool begin at each pixel below their stride, down and
        across; positions are those of all.
      weight: of each of the two views, where a crop has 1.
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
      images: which.
      views: all of the look, the average is over these together. Of squares one `Crops`, of the
        network's size.
    """

    images: Images
    views: tuple[Crops | Dense, ...]

    def cost(self, crop: int) -> float:
        """Of an image of usual shape (4 to 3), in crops of so many pixels."""
        whole = 4 / 3 * (self.images.side / crop) ** 2
        return sum(v.count * (whole if isinstance(v, Dense) else 1) for v in self.views)

    def batch_size(self, most: int, devices: int) -> int:
        """Images of a batch: `most`, but where the network slides no more than fit into memory.

        And at most 16 on a device: what a short batch lacks is computed as well.

        Args:
          most: that the config asks for.
          devices: that share a batch.
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
      looks: images of one size each.
      average: what is averaged over views and looks: `probabilities`, or `scores` (logits).
      label: with everything that was asked for besides the name; scores are kept under it.
    """

    name: str
    looks: tuple[Look, ...]
    average: str = "probabilities"
    label: str = ""

    @property
    def count(self) -> int:
        """How many views there are of an image."""
        return sum(views.count for look in self.looks for views in look.views)

    def combined(self, of_looks: list[np.ndarray]) -> np.ndarray:
        """The average over the looks.

        Args:
          of_looks: float32 [N, classes] each: the average over the views of a look, the log of it
            for probabilities.

        Returns:
          float32 [N, classes], log-probabilities.
        """
        total: np.ndarray = of_looks[0]
        if len(of_looks) > 1 and self.average == "scores":
            total = np.stack(of_looks).mean(axis=0, dtype=np.float64)
        elif len(of_looks) > 1:
            total = _log_mean(of_looks)
        return log_softmax(total) if self._open else total.astype(np.float32)

    @property
    def _open(self) -> bool:
        """Whether the average over the looks is no distribution yet."""
        views = [views for look in self.looks for views in look.views]
        return self.average == "scores" or any(isinstance(v, Dense) and v.maximum for v in views)


def _log_mean(logs: list[np.ndarray]) -> np.ndarray:
    """The log of the average of what these are logs of."""
    largest = np.maximum.reduce(logs)
    total = np.zeros(largest.shape)
    for log in logs:
        total += np.exp(log.astype(np.float64) - largest)
    return largest + np.log(total / len(logs))


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """float32 [N, classes], of scores [N, classes]."""
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    found = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found.astype(np.float32)
