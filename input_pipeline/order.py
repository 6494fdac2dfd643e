"""Order and randomness of the training stream: pure functions of the seed and the position.

Everything is drawn from Philox, a counter-based generator, so that any step can be computed
without the steps before it. Only its raw 64-bit output is used, which NumPy promises never to
change; it makes no such promise for its distributions.
"""

import functools
import threading
from collections.abc import Callable

import numpy as np
from scipy import special

from input_pipeline import kernels

# How many numbers of an example are contiguous in the generator's output; further numbers are in
# another part of it.
BLOCK = 40
# The stream of random numbers for choices among examples; no epoch uses it.
_CHOICE = 2**64 - 1
_one_at_a_time = threading.Lock()


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """A uniformly random permutation of range(count), int64 [count].

    Args:
      seed: seed of the run, 0 or greater.
      epoch: number of passes over the training set before this one.
      count: number of training examples.
    """
    with _one_at_a_time:  # else all threads would sort the next epoch at once
        return _epoch_order(seed, epoch, count)


@functools.lru_cache(maxsize=2)  # a batch touches two epochs at most
def _epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.argsort(_philox(seed, 2 * epoch).random_raw(count), kind="stable")


# (seed, epoch, count) -> the keys of an epoch; see `examples_at`.
EpochOrder = Callable[[int, int, int], np.ndarray]


def balanced_order(labels: np.ndarray) -> EpochOrder:
    """Epochs in which the classes have equal numbers of places, up to one.

    An epoch has as many places as there are examples. A class with more examples than places is
    represented by a random part of them, drawn anew for each epoch. A class with fewer repeats its
    examples; their numbers of repetitions differ by one at most.

    Args:
      labels: int32 [count]; classes without examples have no places.
    """
    _, classes = np.unique(labels, return_inverse=True)
    sizes = np.bincount(classes)
    begins = np.cumsum(sizes) - sizes

    @functools.lru_cache(maxsize=2)
    def keys(seed: int, epoch: int, count: int) -> np.ndarray:
        random = _philox(seed, 2 * epoch).random_raw(2 * count + len(sizes))
        in_class, places, lucky = np.split(random, [count, 2 * count])
        grouped = np.lexsort((in_class, classes))  # class by class, at random inside each
        quotas = count // len(sizes) + (_ranks(lucky) < count % len(sizes))
        owner = np.repeat(np.arange(len(sizes)), quotas)
        number = np.arange(count) - np.repeat(np.cumsum(quotas) - quotas, quotas)
        repeat, inside = np.divmod(number, sizes[owner])
        drawn = grouped[begins[owner] + inside] + repeat * count
        return drawn[np.argsort(places, kind="stable")]

    def one_at_a_time(seed: int, epoch: int, count: int) -> np.ndarray:
        with _one_at_a_time:
            return keys(seed, epoch, count)

    return one_at_a_time


def fixed_order(count: int) -> np.ndarray:
    """The permutation by which validation examples are held out; the same in every run."""
    return np.argsort(_philox(2012, 0).random_raw(count), kind="stable")


def fixed_ranks(seed: int, labels: np.ndarray) -> np.ndarray:
    """Which place each example has in its class, in a random order: int64 [count], from 0 on.

    Args:
      seed: of the order; the same in every run.
      labels: int32 [count].
    """
    classes = np.unique(labels, return_inverse=True)[1]
    order = np.lexsort((_philox(seed, _CHOICE).random_raw(len(labels)), classes))
    sizes = np.bincount(classes)
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return ranks


def _ranks(values: np.ndarray) -> np.ndarray:
    """The place of each value among all of them in ascending order."""
    return np.argsort(np.argsort(values, kind="stable"), kind="stable")


def examples_at(
    seed: int, positions: np.ndarray, count: int, epoch_of: EpochOrder = epoch_order
) -> tuple[np.ndarray, np.ndarray]:
    """The examples at given positions of the endless training stream.

    Position p belongs to epoch p // count. By default every epoch contains each example once. A
    batch may extend over the end of an epoch, so no example is dropped.

    Args:
      seed: of the run.
      positions: int64.
      count: number of training examples.
      epoch_of: the order of each epoch.

    Returns:
      Keys and epochs, both int64 of the shape of `positions`. key % count is the index of the
      example; key // count is the number of its earlier occurrences in the same epoch (0 by
      default).
    """
    epochs = positions // count
    keys = np.empty_like(positions)
    for epoch in np.unique(epochs):
        inside = epochs == epoch
        keys[inside] = epoch_of(seed, int(epoch), count)[positions[inside] % count]
    return keys, epochs


def uniform_draws(
    seed: int, epochs: np.ndarray, indices: np.ndarray, count: int = BLOCK
) -> np.ndarray:
    """The random numbers of each example at one presentation.

    Args:
      seed: seed of the run.
      epochs, indices: int64, of the same length; indices, or keys of `examples_at`, below 2^52.
      count: how many for each. A smaller count gives the first of the same numbers.

    Returns:
      float64 [len(indices), count], uniform in the open interval (0, 1), a
      function of (seed, epoch, index) alone.
    """
    # The generator gives four numbers at a time; those beyond `count` are not used.
    drawn = -(-count // 4) * 4
    raw = np.empty((len(indices), drawn), np.uint64)
    for row, (epoch, index) in enumerate(zip(epochs, indices, strict=True)):
        for block, first in enumerate(range(0, drawn, BLOCK)):
            counter = (block << 56) + int(index) * (BLOCK // 4)
            kernels.philox(seed, 2 * int(epoch) + 1, counter, raw[row, first : first + BLOCK])
    return ((raw[:, :count] >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def standard_normal(uniform: np.ndarray) -> np.ndarray:
    """Standard Gaussian numbers from uniform ones in (0, 1), by the inverse distribution."""
    return special.ndtri(uniform)


def _philox(seed: int, stream: int) -> np.random.Philox:
    return np.random.Philox(key=np.array([seed, stream], np.uint64))
