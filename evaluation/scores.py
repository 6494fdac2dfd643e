"""What a protocol gave for each example. Metrics, guesses and files are functions of it."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of a split, or of this process's share of it.

    Attributes:
      index: int32 [N], of each example in its split, ascending, each once.
      scores: float32 [N, classes], log-probabilities after the protocol's averaging.
      label: int32 [N]; -1 where there is none.
    """

    index: np.ndarray
    scores: np.ndarray
    label: np.ndarray
