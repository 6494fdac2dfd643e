"""Order and randomness of the training stream: pure functions of the seed and the position.

Everything is drawn from Philox, a counter-based generator, so that any step can
be computed without the steps before it. (Only its raw 64-bit output is used:
NumPy promises that it will never change, which it does not of its distributions.)
"""

import functools
import threading

import numpy as np
from scipy import special

from input_pipeline import kernels

# Numbers of an example that lie together in the generator's output; further ones lie elsewhere.
BLOCK = 40
_one_at_a_time = threading.Lock()


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """A uniformly random permutation of range(count), int64 [count].

    Args:
      seed: seed of the run, 0 or greater.
      epoch: passes over the training set before this one.
      count: number of training examples.
    """
    with _one_at_a_time:  # or every thread would sort at the end of an epoch
        return _epoch_order(seed, epoch, count)


@functools.lru_cache(maxsize=2)  # a batch touches two epochs at most
def _epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.argsort(_philox(seed, 2 * epoch).random_raw(count), kind="stable")


def fixed_order(count: int) -> np.ndarray:
    """The permutation by which validation examples are held out; the same in every run."""
    return np.argsort(_philox(2012, 0).random_raw(count), kind="stable")


def examples_at(seed: int, positions: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """What stands at these positions of the endless training stream.

    Position p belongs to epoch p // count; every epoch holds each example once,
    so a batch may reach over the end of an epoch and nothing is dropped.

    Returns:
      The example indices and their epochs, both int64 of the shape of `positions`.
    """
    epochs = positions // count
    indices = np.empty_like(positions)
    for epoch in np.unique(epochs):
        inside = epochs == epoch
        indices[inside] = epoch_order(seed, int(epoch), count)[positions[inside] % count]
    return indices, epochs


def uniform_draws(
    seed: int, epochs: np.ndarray, indices: np.ndarray, count: int = BLOCK
) -> np.ndarray:
    """Random numbers of each example at each presentation.

    Args:
      seed: seed of the run.
      epochs, indices: int64, of the same length; indices below 2^52.
      count: how many for each, a multiple of 4. Those of a smaller count are the first of these.

    Returns:
      float64 [len(indices), count], uniform in the open interval (0, 1), a
      function of (seed, epoch, index) alone.
    """
    raw = np.empty((len(indices), count), np.uint64)
    for row, (epoch, index) in enumerate(zip(epochs, indices, strict=True)):
        for block, first in enumerate(range(0, count, BLOCK)):
            counter = (block << 56) + int(index) * (BLOCK // 4)
            kernels.philox(seed, 2 * int(epoch) + 1, counter, raw[row, first : first + BLOCK])
    return ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def standard_normal(uniform: np.ndarray) -> np.ndarray:
    """Standard Gaussian numbers from uniform ones in (0, 1), by the inverse distribution."""
    return special.ndtri(uniform)


def _philox(seed: int, stream: int) -> np.random.Philox:
    return np.random.Philox(key=np.array([seed, stream], np.uint64))
