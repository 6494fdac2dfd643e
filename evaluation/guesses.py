"""The best guesses of a network, in words."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.words import words

GUESSES = 5


def guesses(log_probabilities: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The five most probable classes of an example, best first; all if there are fewer than five.

    Args:
      log_probabilities: float32 [classes].
      class_names: name of each class.

    Returns:
      A dict for each: `class` (its name), `words` and `probability`. Ties rank by class number.
    """
    best = np.argsort(-log_probabilities, kind="stable")[:GUESSES]
    names = [class_names[label] for label in best]
    return [
        {"class": name, "words": said, "probability": float(np.exp(log_probabilities[label]))}
        for label, name, said in zip(best, names, words(names), strict=True)
    ]
