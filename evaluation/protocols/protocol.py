"""What a test-time protocol is."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Images:
    """Which images a protocol asks for: central squares.

    Attributes:
      side: pixels of the shorter side, of which the central square is taken.
      pad: zeros around that, in pixels on each side.
    """

    side: int
    pad: int = 0

    @property
    def square(self) -> int:
        """Pixels of the square with its padding."""
        return self.side + 2 * self.pad


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A test-time protocol: which views of which images, whose probabilities are averaged.

    Attributes:
      name: as in `evaluation.protocol` of a config.
      images: which it asks for.
      views: int32 [views, 3]: y, x, and 1 if mirrored.
    """

    name: str
    images: Images
    views: np.ndarray
