"""Images put together, scaled to be seen, and written as PNG; figures without a screen."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from PIL import Image, ImageDraw, ImageFont

import files
from training import RunError

_LETTERS = 14  # pixels: size of names in mosaics

plt.rcParams.update({"font.size": 9, "figure.dpi": 100, "axes.spines.top": False})
plt.rcParams.update({"axes.spines.right": False, "figure.constrained_layout.use": True})


def scaled(images: np.ndarray, *, each: bool = False) -> np.ndarray:
    """Maps values linearly to 0..1, minimum to 0 and maximum to 1.

    Args:
      images: [n, ...].
      each: use every image's own minimum and maximum; otherwise those of all images.
    """
    axes = tuple(range(1, images.ndim)) if each else None
    low = images.min(axis=axes, keepdims=True)
    high = images.max(axis=axes, keepdims=True)
    return (images - low) / np.maximum(high - low, 1e-12)


def around_grey(images: np.ndarray, *, each: bool = True) -> np.ndarray:
    """Maps signed values to 0..1 with zero at .5, by the largest magnitude.

    Args:
      images: [n, ...].
      each: use every image's own largest magnitude; otherwise that of all images.
    """
    axes = tuple(range(1, images.ndim)) if each else None
    largest = np.abs(images).max(axis=axes, keepdims=True)
    return 0.5 + images / np.maximum(2 * largest, 1e-12)


def as_bytes(images: np.ndarray) -> np.ndarray:
    """Converts values in 0..1 to uint8 in 0..255; uint8 is returned unchanged."""
    if images.dtype == np.uint8:
        return images
    return np.round(255 * np.clip(images, 0, 1)).astype(np.uint8)


def enlarged(images: np.ndarray, pixels: int) -> np.ndarray:
    """Repeats each pixel of images [n, h, w, c] until their height is at least `pixels`."""
    times = max(math.ceil(pixels / images.shape[1]), 1)
    return images.repeat(times, axis=1).repeat(times, axis=2)


def grid(
    images: np.ndarray, columns: int | None = None, *, gap: int = 1, ground: int = 255
) -> np.ndarray:
    """Images side by side, row after row.

    Args:
      images: [n, h, w, 3] or [n, h, w, 1], uint8 or in 0..1.
      columns: images in a row; None for about as many as there are rows.
      gap: pixels between images.
      ground: grey level of the gaps.

    Returns:
      uint8 [height, width, 3].
    """
    shown = as_bytes(images)
    if shown.shape[-1] == 1:
        shown = shown.repeat(3, axis=-1)
    count, height, width, _ = shown.shape
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    rows = math.ceil(count / columns)
    whole = np.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, 3), ground, np.uint8
    )
    for number, image in enumerate(shown):
        y, x = divmod(number, columns)
        top, left = y * (height + gap), x * (width + gap)
        whole[top : top + height, left : left + width] = image
    return whole


def stacked(pictures: Sequence[np.ndarray], *, gap: int = 4, ground: int = 255) -> np.ndarray:
    """Stacks pictures, uint8 [h, w, 3] each, from top to bottom, aligned at the left."""
    width = max(picture.shape[1] for picture in pictures)
    rows: list[np.ndarray] = []
    for number, picture in enumerate(pictures):
        if number:
            rows.append(np.full((gap, width, 3), ground, np.uint8))
        fill = ((0, 0), (0, width - picture.shape[1]), (0, 0))
        rows.append(np.pad(picture, fill, constant_values=ground))
    return np.concatenate(rows)


def named(pictures: Sequence[np.ndarray], names: Sequence[str]) -> list[np.ndarray]:
    """Pictures, uint8 [h, w, 3] each, with their names at the left; all become equally wider."""
    font = ImageFont.load_default(_LETTERS)
    width = math.ceil(max(font.getlength(name) for name in names)) + _LETTERS
    found = []
    for picture, name in zip(pictures, names, strict=True):
        strip = Image.new("RGB", (width, len(picture)), "white")
        middle = width - _LETTERS / 2, len(picture) / 2
        ImageDraw.Draw(strip).text(middle, name, "black", font, anchor="rm")
        found.append(np.concatenate([np.asarray(strip), picture], axis=1))
    return found


def place_of(
    out: str | None,
    workdir: Path | None,
    name: str,
    directory: str = "pictures",
    flag: str = "out",
) -> Path:
    """The path of a file to write; creates its directory.

    Args:
      out: the directory; None for `directory` in the run, or else in the current directory.
      workdir: of the run; None for a file.
      name: of the file; "" for the directory.
      directory: see `out`.
      flag: that gives `out`, for messages.

    Raises:
      RunError: the directory cannot be created, or the file not written.
    """
    place = Path(out or (workdir or Path()) / directory)
    try:
        place.mkdir(parents=True, exist_ok=True)
        files.check_writable(place)
    except OSError as error:
        raise RunError(
            f"{place}: cannot be written ({error.strerror}); name a place with --{flag}"
        ) from error
    if name and (place / name).is_dir():
        raise RunError(f"{place / name}: is a directory; name another place with --{flag}")
    return place / name


def save(picture: np.ndarray, path: Path) -> Path:
    """Writes a picture, uint8 [h, w, 3], as PNG and returns its path.

    Raises:
      RunError: it cannot be written.
    """
    try:
        Image.fromarray(picture).save(path, format="PNG", optimize=True)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


def save_figure(figure: Figure, path: Path, *, dpi: int = 100) -> Path:
    """Writes a matplotlib figure in the format of the path's suffix, closes it, returns the path.

    A PNG does not say which version of matplotlib drew it, so that equal figures are equal files.

    Raises:
      RunError: it cannot be written.
    """
    try:
        nameless = {"Software": None} if path.suffix == ".png" else None
        figure.savefig(path, dpi=dpi, metadata=nameless)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        plt.close(figure)
    return path


def pixels_of(figure: Figure) -> np.ndarray:
    """What a figure shows, uint8 [h, w, 3]; closes it."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    plt.close(figure)
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def figure(width: float, height: float) -> Figure:
    """An empty figure; width and height are in inches."""
    return plt.figure(figsize=(width, height))


def whole_numbers() -> MaxNLocator:
    """A locator that puts ticks at integers only."""
    return MaxNLocator(integer=True)


def label_decades(axis: Axis) -> None:
    """Labels a logarithmic axis at 1, 2 and 5 of each decade, with plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def shades(count: int) -> list[tuple[float, ...]]:
    """`count` colours from dark to light, for an ordered series."""
    return [tuple(plt.get_cmap("viridis")(0.85 * n / max(count - 1, 1))) for n in range(count)]
