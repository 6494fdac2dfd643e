"""The scores of a protocol for each example. Metrics, guesses and files are functions of them."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of a split, or of this process's share of it.

    Attributes:
      index: int32 [N], position of each example in its split, strictly ascending.
      scores: float32 [N, classes], log-probabilities after the protocol's averaging.
      label: int32 [N]; -1 for an example without a label.
    """

    index: np.ndarray
    scores: np.ndarray
    label: np.ndarray
