"""Calls a function for every number of a range, in several threads."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from input_pipeline.report import progress_bar

T = TypeVar("T")

# Numbers that a thread takes at a time, so that few futures wait for a long range.
_BLOCK = 256


def of_each(
    work: Callable[[int], T], count: int, threads: int, title: str, unit: str, delay: float = 1.0
) -> Iterator[T]:
    """Yields `work(i)` for i from 0 to count - 1, in order, with a progress bar.

    Args:
      work: the function; it is called from several threads.
      count: length of the range.
      threads: number of threads.
      title, unit: of the bar.
      delay: seconds before the bar is shown.
    """

    def block(start: int) -> list[T]:
        return [work(number) for number in range(start, min(start + _BLOCK, count))]

    with (
        ThreadPoolExecutor(threads, "side_by_side") as pool,
        progress_bar(total=count, desc=title, unit=unit, delay=delay) as bar,
    ):
        for found in pool.map(block, range(0, count, _BLOCK)):
            yield from found
            bar.update(len(found))
