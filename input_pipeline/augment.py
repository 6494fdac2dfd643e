"""The papers' crops and colours: from uniform random numbers to pixels.

`Crops` and `Colours` take their attributes from the fields `data.augment.*` of the same names.
All randomness is the numbers of `order.uniform_draws`, in (0, 1). Each of them has one use, fixed
below, so that switching one augmentation on or off changes no other. Pixels stay uint8: the
device shifts the colours when it subtracts the mean.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from input_pipeline import decode, kernels, order
from input_pipeline.decode import Repair, View
from input_pipeline.errors import DataError

# Positions among the uniform draws of an example. AREA has ten tries at an area and an aspect.
OFFSET, FLIP, COLOUR, SCALE = slice(0, 2), 2, slice(3, 6), 6
AREA, DISTORTION, CAST = slice(8, 28), slice(28, 33), slice(33, 39)


# Number of draws for each example at each presentation (7 and 39 have no use yet). A larger number
# leaves the first ones as they are.
DRAWS = 40
# Draws for a view without randomness: the middle of every range.
MIDDLE = np.full(DRAWS, 0.5)


@dataclasses.dataclass(frozen=True)
class Crops:
    """Where in an image the pixels of a crop come from.

    Attributes:
      resize: pixels of the rescaled image's shorter side.
      crop: pixels of the crop's side.
      kind: the region that crops are taken from.
        `square`: the central square of the rescaled image (Krizhevsky et al. 2012, section
          4.1). The offset is uniform in 0 .. resize - crop on each axis.
        `image`: all of the rescaled image, with offsets likewise (Simonyan and Zisserman
          2015, section 3.1; He et al. 2015, section 3.4).
        `area`: a rectangle, rescaled to the crop (Szegedy et al. 2015, section 6). Its share of
          the image's area is uniform in `area_range`, its aspect (width over height) uniform in
          `aspect_range`, its place uniform. The first of ten tries that fits into the image is
          taken, or the central square if none does.
        `center`: the middle, always.
      scale_range: smallest and largest shorter side for `square` and `image`; each presentation
        draws an integer between them, ends included (Simonyan and Zisserman 2015: 256 to 512).
        Empty: the shorter side is `resize`.
      area_range, aspect_range: for `area`.
      flip: mirror half of the images.
      pad: zeros around the central square, in pixels on each side; crops are taken from the
        padded square (He et al. 2015, section 4.2: 4).
      rotation: largest angle in degrees; uniform, either way.
      stretch: height and width are each multiplied by a factor of 1/stretch to stretch,
        uniform in its logarithm; 1 for none.
      shear: the tangent of the angle by which verticals lean is uniform in +-shear.
      lens: radial distortion uniform in +-lens, from barrel to pincushion: the share by which
        the middle of an edge moves out. (Rotation to lens: Wu et al. 2015, "Deep Image", on data
        augmentation, which gives no formula; `kernels.warp` has ours.)
    """

    resize: int
    crop: int
    kind: str = "center"
    scale_range: tuple[int, ...] = ()
    area_range: tuple[float, float] = (0.08, 1.0)
    aspect_range: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    pad: int = 0
    rotation: float = 0.0
    stretch: float = 1.0
    shear: float = 0.0
    lens: float = 0.0

    @property
    def distorts(self) -> bool:
        """Whether crops are distorted, so that they are no rectangles of the image."""
        return bool(self.rotation or self.shear or self.lens or self.stretch != 1.0)

    @property
    def rescales(self) -> bool:
        """Whether images may be rescaled to another size than `resize`."""
        return bool(self.scale_range) or self.kind == "area"


@dataclasses.dataclass(frozen=True)
class Colours:
    """How the colours of an image are shifted; the shift is the same for all its pixels.

    Attributes:
      colour_noise: `paper`, `original`, `gaussian` or `none`; see `colour_basis`.
      colour_cast: each of red, green and blue is shifted in half of the images, by an integer
        number of grey levels in -colour_cast .. colour_cast (Wu et al. 2015, "Deep Image": 20);
        0 for none.
    """

    colour_noise: str = "none"
    colour_cast: int = 0

    @property
    def need_covariance(self) -> bool:
        """Whether the covariance of RGB over the training set is needed."""
        return self.colour_noise != "none"


def check(crops: Crops) -> None:
    """Checks that the fields of a config that define crops are consistent.

    Raises:
      DataError: a crop larger than the image, scales below the crop, a range whose larger end is
        first, or fields that contradict each other; the message names the field.
    """
    padding = f" padded by data.pad={crops.pad}" if crops.pad else ""
    if crops.crop > crops.resize + 2 * crops.pad:
        raise DataError(
            f"data.crop={crops.crop} does not fit into data.resize={crops.resize} pixels{padding}"
        )
    scales = crops.scale_range
    if scales:
        if crops.kind not in ("square", "image"):
            raise DataError(
                f"data.augment.scale_range has no meaning with data.augment.crop={crops.kind}: "
                "--config.data.augment.scale_range=()"
            )
        if scales[0] > scales[1]:
            raise DataError(
                f"data.augment.scale_range={scales}: smallest and largest shorter side, "
                "such as (256,512)"
            )
        if scales[0] + 2 * crops.pad < crops.crop:
            raise DataError(
                f"data.augment.scale_range={scales}: the smallest is below "
                f"data.crop={crops.crop}{padding}"
            )
    for field in ("area_range", "aspect_range"):
        smaller, larger = getattr(crops, field)
        if smaller > larger:
            raise DataError(f"data.augment.{field}={(smaller, larger)}: the smaller first")
    if crops.pad and crops.kind in ("area", "image"):
        raise DataError(
            f"data.pad={crops.pad} goes with data.augment.crop=square or center; for others "
            "--config.data.pad=0"
        )


def central_square(size: int, pad: int = 0) -> Crops:
    """Crops that are the whole central square at `size` pixels with `pad` zeros around it."""
    return Crops(resize=size, crop=size + 2 * pad, pad=pad)


def rescaled(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width after rescaling the shorter side to `side`, the other one rounded."""
    shorter = min(height, width)
    return max(round(height * side / shorter), side), max(round(width * side / shorter), side)


def view(crops: Crops, uniform: Sequence[float], height: int, width: int) -> View:
    """The pixels of an image that its crop shows, before padding and distortion.

    Args:
      crops: how crops are taken.
      uniform: [DRAWS], in (0, 1).
      height, width: of the image, at least 1.

    Returns:
      A view that may extend beyond the rescaled image by crops.pad on each side.
    """
    flip = bool(crops.flip and uniform[FLIP] < 0.5)
    window = (crops.crop, crops.crop)
    if crops.kind == "area":
        return View(_area_box(crops, uniform, height, width), window, (0, 0), window, flip)
    side = crops.resize
    if crops.scale_range:
        low, high = crops.scale_range
        side = low + int(uniform[SCALE] * (high - low + 1))
    scaled = rescaled(height, width, side)
    region = scaled if crops.kind == "image" else (side, side)
    margins = [length + 2 * crops.pad - crops.crop for length in region]
    if crops.kind == "center":
        places = [margin // 2 for margin in margins]
    else:
        places = [int(u * (m + 1)) for u, m in zip(uniform[OFFSET], margins, strict=True)]
    offset = (
        (scaled[0] - region[0]) // 2 + places[0] - crops.pad,
        (scaled[1] - region[1]) // 2 + places[1] - crops.pad,
    )
    return View((0, 0, height, width), scaled, offset, window, flip)


def _area_box(
    crops: Crops, uniform: Sequence[float], height: int, width: int
) -> tuple[int, int, int, int]:
    tries = uniform[AREA]
    for area, aspect in zip(tries[::2], tries[1::2], strict=True):
        pixels = height * width * _between(crops.area_range, area)
        ratio = _between(crops.aspect_range, aspect)
        box_height, box_width = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
        if 0 < box_height <= height and 0 < box_width <= width:
            top, left = (
                int(u * (length - box + 1))
                for u, length, box in zip(
                    uniform[OFFSET], (height, width), (box_height, box_width), strict=True
                )
            )
            return top, left, box_height, box_width
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def _between(bounds: Sequence[float], u: float) -> float:
    low, high = bounds
    return low + (high - low) * u


def take(
    content: bytes | np.ndarray,
    crops: Crops,
    uniform: np.ndarray,
    out: np.ndarray,
    *,
    exact: bool,
    repaired: Repair = decode.ignore,
    sized: Callable[[int, int], None] = lambda height, width: None,
) -> tuple[tuple[int, int], bool]:
    """Writes the crop of an image to `out`.

    Args:
      content: a file's bytes, or uint8 [height, width, 3].
      crops: how crops are taken.
      uniform: [DRAWS], in (0, 1).
      out: uint8 [crop, crop, 3], contiguous.
      exact: as in `decode.window`.
      repaired: called with the reason where a damaged file was mended.
      sized: called with the height and the width of the upright image.

    Returns:
      Row and column of the crop, in the padded central square for `square` and `center`, in
      the rescaled image for `image`, zero for `area`; and whether it was mirrored.

    Raises:
      UnreadableError: the bytes cannot be decoded.
    """
    draws = uniform.tolist()
    wanted = View((0, 0, 1, 1), (1, 1), (0, 0), (1, 1))

    def choose(height: int, width: int) -> View:
        nonlocal wanted
        sized(height, width)
        wanted = view(crops, draws, height, width)
        return _around(wanted, crops) if crops.pad or crops.distorts else wanted

    direct = None if crops.pad or crops.distorts else out
    read, pixels = decode.window(content, choose, exact=exact, repaired=repaired, out=direct)
    row, column = (w - r for w, r in zip(wanted.offset, read.offset, strict=True))
    if crops.distorts:
        if crops.pad:  # also where the window is inside the image: what is added is not read then
            pixels = np.pad(pixels, ((crops.pad, crops.pad), (crops.pad, crops.pad), (0, 0)))
        half = crops.pad + crops.crop / 2
        middle = (row + half, column + half)
        matrix, lens = distortion(crops, draws[DISTORTION])
        kernels.warp(pixels, matrix, middle, lens, wanted.flip, out)
    elif crops.pad:
        kernels.crop(pixels, (row, column), wanted.flip, out)
    top, left, _, _ = region(wanted, crops)
    return (wanted.offset[0] - top + crops.pad, wanted.offset[1] - left + crops.pad), wanted.flip


def take_whole(
    content: bytes | np.ndarray,
    side: int,
    out: np.ndarray,
    *,
    exact: bool,
    repaired: Repair = decode.ignore,
) -> tuple[int, int]:
    """Writes a whole rescaled image to the top left of `out`, zeros to the rest.

    Args:
      content: a file's bytes, or uint8 [height, width, 3].
      side: pixels of the shorter side after rescaling.
      out: uint8 [rows, columns, 3].
      exact, repaired: as in `take`.

    Returns:
      Height and width after rescaling. If these exceed those of `out`, nothing is written.

    Raises:
      UnreadableError: the bytes cannot be decoded.
    """

    def choose(height: int, width: int) -> View:
        scaled = rescaled(height, width, side)
        return View((0, 0, height, width), scaled, (0, 0), scaled)

    _, pixels = decode.window(content, choose, exact=exact, repaired=repaired)
    height, width = pixels.shape[:2]
    if height <= out.shape[0] and width <= out.shape[1]:
        out[:height, :width] = pixels
        out[height:] = 0
        out[:height, width:] = 0
    return height, width


def region(view: View, crops: Crops) -> tuple[int, int, int, int]:
    """The region that crops are taken from: row, column, height, width in the rescaled image."""
    if crops.kind in ("image", "area"):
        return 0, 0, *view.scaled
    side = min(view.scaled)
    return (view.scaled[0] - side) // 2, (view.scaled[1] - side) // 2, side, side


def _around(view: View, crops: Crops) -> View:
    """The part of the region that a padded or distorted window can read."""
    more = _reach(crops) if crops.distorts else 0
    top, left, height, width = region(view, crops)
    lows, highs = [], []
    for axis, (begin, length) in enumerate(((top, height), (left, width))):
        lows.append(min(max(view.offset[axis] - more, begin), begin + length - 1))
        end = view.offset[axis] + crops.crop + more
        highs.append(max(min(end, begin + length), lows[axis] + 1))
    size = (highs[0] - lows[0], highs[1] - lows[1])
    return view._replace(offset=(lows[0], lows[1]), size=size, flip=False)


def _reach(crops: Crops) -> int:
    """How many pixels beyond its window a distorted crop can read, at most."""
    half = crops.crop / 2
    far = math.sqrt(2) * half * crops.stretch * (1 + crops.shear)  # of a corner, at any angle
    return math.ceil(far * (1 + crops.lens * (far / half) ** 2) - half) + 1


def distortion(crops: Crops, draws: Sequence[float]) -> tuple[np.ndarray, float]:
    """The matrix and the lens of `kernels.warp`, from the draws at `DISTORTION`."""
    signed = [2.0 * u - 1.0 for u in draws]
    angle = math.radians(crops.rotation * signed[0])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    lean = np.array([[1.0, 0.0], [crops.shear * signed[1], 1.0]])
    stretch = np.diag([crops.stretch ** signed[2], crops.stretch ** signed[3]])
    return turn @ lean @ np.linalg.inv(stretch), crops.lens * signed[4]


def colour_drawer(
    colours: Colours, covariance: np.ndarray, noise_steps: int | None
) -> Callable[[np.ndarray, int], dict[str, np.ndarray]]:
    """A function that draws the colour shifts of a batch.

    Args:
      colours: how colours are shifted.
      covariance: [3, 3] of RGB in grey levels.
      noise_steps: there is no colour noise from this step on; None for noise at every step.

    Returns:
      (uniform draws [B, DRAWS], step) -> the arrays of `draw_colours`.
    """
    basis, scale = colour_basis(colours.colour_noise, covariance)

    def draw(uniform: np.ndarray, step: int) -> dict[str, np.ndarray]:
        noisy = noise_steps is None or step < noise_steps
        return draw_colours(
            uniform, basis=basis if noisy else None, scale=scale, cast=colours.colour_cast
        )

    return draw


def draw_colours(
    uniform: np.ndarray, *, basis: np.ndarray | None, scale: float, cast: int
) -> dict[str, np.ndarray]:
    """The shift and the scale of each image's colours at one presentation.

    Args:
      uniform: [B, DRAWS] in (0, 1).
      basis, scale: from `colour_basis`; basis None for no noise.
      cast: `Colours.colour_cast`.

    Returns:
      colour_shift float32 [B, 3] in grey levels and colour_scale float32 [B]: the network
      sees (crop - mean + colour_shift) * colour_scale.
    """
    shift = np.zeros((len(uniform), 3))
    if basis is not None:
        shift = order.standard_normal(uniform[:, COLOUR]) @ basis.T
    if cast:
        altered, amount = uniform[:, CAST][:, :3] < 0.5, uniform[:, CAST][:, 3:]
        shift = shift + altered * (np.floor(amount * (2 * cast + 1)) - cast)
    return {
        "colour_shift": shift.astype(np.float32),
        "colour_scale": np.full(len(uniform), scale if basis is not None else 1.0, np.float32),
    }


def colour_basis(kind: str, covariance: np.ndarray) -> tuple[np.ndarray | None, float]:
    """The matrix that turns three standard Gaussians into a shift of RGB in grey levels.

    Krizhevsky et al. 2012, section 4.1, adds multiples of the principal components
    of RGB over the training set, once per image and presentation. With V and L the
    eigenvectors and eigenvalues of the covariance, and a ~ N(0, I):

      paper     255 V (.1 a L), L of pixels in 0..1 (in grey levels the paper's
                formula would add hundreds).
      original  V (.1 a sqrt(L)), and the shifted image divided by 1.1, as in the 2012 code.
      gaussian  a draw from N(0, .01 covariance).
      none      nothing.

    Args:
      kind: paper, original, gaussian or none.
      covariance: [3, 3] of RGB in grey levels.

    Returns:
      (B, scale): the shift is B a, and the shifted image is multiplied by `scale`. B is None for
      `none`.
    """
    if kind == "none":
        return None, 1.0
    eigenvalues, eigenvectors = np.linalg.eigh(covariance)
    eigenvalues = np.maximum(eigenvalues, 0.0)  # of grey images, rounding can make some negative
    if kind == "paper":
        return eigenvectors * (0.1 * eigenvalues / 255.0), 1.0
    return eigenvectors * (0.1 * np.sqrt(eigenvalues)), 1.0 / 1.1 if kind == "original" else 1.0
