"""How large the images of a split are, and how they are turned, known before they are decoded."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from input_pipeline import augment, decode, formats, sources
from input_pipeline.report import progress_bar
from input_pipeline.sources import Examples

# Images whose headers a thread reads in one go.
_AT_ONCE = 64


def image_sizes(examples: Examples, cache_dir: Path, threads: int, of: str = "") -> np.ndarray:
    """Height and width of each image, upright; 0 where nothing can be made of it.

    Read once, from the headers of the files where these tell it, and kept in `cache_dir`.

    Args:
      examples: a split.
      cache_dir: where they are kept.
      threads: that read.
      of: what the examples are besides their fingerprint.

    Returns:
      int32 [count, 2].

    Raises:
      DataError: the place of an image cannot be read.
    """
    return _headers(examples, cache_dir, threads, of)[0]


def orientation_marks(examples: Examples, cache_dir: Path, threads: int) -> np.ndarray:
    """The EXIF orientation of each image, int32 [count] from 1 (upright) to 8.

    Args, errors: see `image_sizes`, with which they are read.
    """
    return _headers(examples, cache_dir, threads, "")[1]


def _headers(
    examples: Examples, cache_dir: Path, threads: int, of: str
) -> tuple[np.ndarray, np.ndarray]:
    cache = cache_dir / f"sizes-{sources.digest(examples.fingerprint, of)}.npz"
    saved = sources.load_arrays(cache, "sizes", "marks")
    if saved is not None and saved["sizes"].shape == (examples.count, 2):
        return saved["sizes"], saved["marks"]
    sizes = np.zeros((examples.count, 2), np.int32)
    marks = np.ones(examples.count, np.int32)

    def look(first: int) -> int:
        end = min(first + _AT_ONCE, examples.count)
        for index in range(first, end):
            content = examples.read(index)[0]
            sizes[index] = decode.size(content) or (0, 0)
            marks[index] = formats.orientation_of(content)
        return end - first

    title = {"desc": "sizes of images", "unit": " images", "delay": 1.0}
    with (
        ThreadPoolExecutor(threads, "sizes") as pool,
        progress_bar(total=examples.count, **title) as progress,
    ):
        for count in pool.map(look, range(0, examples.count, _AT_ONCE)):
            progress.update(count)
    sources.save_arrays(cache, sizes=sizes, marks=marks)
    return sizes, marks


def rescaled_sizes(sizes: np.ndarray, side: int) -> np.ndarray:
    """int32 [N, 2] once the shorter side is `side`; a square where there is no image."""
    scaled = [augment.rescaled(h, w, side) if h else (side, side) for h, w in sizes.tolist()]
    return np.array(scaled, np.int32).reshape(-1, 2)
