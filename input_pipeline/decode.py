"""From the bytes of an image file to pixels: whole images, or the window that a crop needs.

Formats are found in the bytes, never taken from a file's name. Plain JPEGs go through
TensorFlow, which decodes windows, or through simplejpeg, which has less overhead where most of
the image is needed; everything else through Pillow, and there odd files are repaired where a
person would repair them, or refused with the reason. All three are libjpeg-turbo inside and
give the same pixels.
"""

import io
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import simplejpeg
import tensorflow as tf
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from input_pipeline import kernels

# Pillow warns of large images, odd palettes and damaged EXIF; here these are repaired, or
# refused with a reason. (For all threads at once: Python cannot do it for one.)
warnings.filterwarnings("ignore", module=r"PIL\.")

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF")
# Twice Pillow's own threshold, as there: 179 million pixels.
MAX_PIXELS = 2 * 89_478_485
# Rows or columns that are decoded around a window: the interpolation of colours that are
# stored at half the resolution sees the edge of what is decoded.
_MARGIN = 4
# DCT scaling leaves a JPEG at least so many times larger than it will be. At 2 and the
# triangle filter after it, results are some .5 grey levels off those without.
_SCALED_AT_LEAST = 2.0
# Up to this share of the rows, decoding a window takes less time than the whole image. (What
# lies above a window has to be read in any case, what lies below has not.)
_WINDOW_UP_TO = 0.85
_END = b"\xff\xd9"

Repair = Callable[[str], None]


class UnreadableError(ValueError):
    """An image from which nothing can be made; the message is the reason."""


class View(NamedTuple):
    """Which pixels of an image are wanted.

    Attributes:
      box: row, column, height and width of the part of the image that is rescaled.
      scaled: height and width that this part becomes.
      offset: row and column of the window in it.
      size: rows and columns of the window.
      flip: mirror the window left to right.
    """

    box: tuple[int, int, int, int]
    scaled: tuple[int, int]
    offset: tuple[int, int]
    size: tuple[int, int]
    flip: bool = False


def ignore(reason: str) -> None:
    """For those who do not ask what was repaired."""


def pixels(encoded: bytes, repaired: Repair = ignore) -> np.ndarray:
    """The whole image as uint8 [height, width, 3], RGB and upright.

    What a person would do with odd files: cameras' orientation marks (EXIF) are followed,
    CMYK and YCCK become RGB, 16 bits a channel become 8, what is transparent is put on white,
    of an animation the first picture is taken, a JPEG that breaks off keeps the rows that are
    there if these are at least half (progressive ones keep all rows, coarser).

    Args:
      encoded: a file's content.
      repaired: called with the reason where something was mended.

    Raises:
      UnreadableError: empty, no image, cut short by more than half, damaged, or more than
        MAX_PIXELS pixels.
    """
    image = _open(encoded)
    try:
        image.load()
        return _upright_rgb(image)
    except UnreadableError:
        raise
    except Exception as error:  # Pillow fails on damaged files in many ways
        return _recover(encoded, error, repaired)


def window(
    content: bytes | np.ndarray,
    choose: Callable[[int, int], View],
    *,
    exact: bool,
    repaired: Repair = ignore,
    out: np.ndarray | None = None,
) -> tuple[View, np.ndarray]:
    """A window of the rescaled image.

    Args:
      content: a file's bytes, or uint8 [height, width, 3].
      choose: height and width of the upright image -> which pixels are wanted.
      exact: the pixels that decoding and rescaling the whole image would give, bit for bit.
        If False, JPEGs of four and more times the size that is needed are decoded at a half,
        a quarter or an eighth of theirs (DCT scaling); for all others it makes no difference.
      repaired: as in `pixels`.
      out: uint8 [rows, columns, 3], contiguous, of the view's size, to write to; None makes it.

    Returns:
      The view, and its pixels: `out`, if given.

    Raises:
      UnreadableError: see `pixels`.
    """

    def room(view: View) -> np.ndarray:
        return np.empty((*view.size, 3), np.uint8) if out is None else out

    if isinstance(content, bytes):
        size = _plain_jpeg(content)
        if size is not None:
            view = choose(*size)
            target = room(view)
            try:
                _jpeg_window(content, size, view, target, exact)
                return view, target
            except (tf.errors.InvalidArgumentError, ValueError):
                pass  # damaged in some way; Pillow may know better
        content = pixels(content, repaired)
    view = choose(*content.shape[:2])
    target = room(view)
    top, left, height, width = view.box
    if view.box[2:] == view.scaled:
        place = (top + view.offset[0], left + view.offset[1])
        kernels.crop(np.ascontiguousarray(content), place, view.flip, target)
    else:
        part = np.ascontiguousarray(content[top : top + height, left : left + width])
        lengths = (float(height), float(width))
        kernels.resample(
            part, (0, 0), (0.0, 0.0), lengths, view.scaled, view.offset, view.flip, target
        )
    return view, target


def _open(encoded: bytes) -> Image.Image:
    """Reads the header.

    Raises:
      UnreadableError: empty, no image, or too many pixels.
    """
    if not encoded:
        raise UnreadableError("the file is empty")
    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except Image.DecompressionBombError:
        raise UnreadableError(f"more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise UnreadableError(f"not an image (none of {', '.join(FORMATS)})") from None
    except Exception as error:
        raise UnreadableError(f"not an image ({_first_line(error)})") from None
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableError(f"{image.width} x {image.height}, more than {MAX_PIXELS:,} pixels")
    if not image.width * image.height:
        raise UnreadableError("no pixels")
    return image


def _plain_jpeg(encoded: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG that is whole, gray or three colours, 8 bits and upright.

    None for everything else. (Pillow would tell, too, at twenty times the cost.)
    """
    if not (encoded.startswith(b"\xff\xd8") and encoded.endswith(_END)):
        return None
    at, size = 2, None
    while at + 10 <= len(encoded) and encoded[at] == 0xFF:
        marker, length = encoded[at + 1], int.from_bytes(encoded[at + 2 : at + 4])
        if marker in (0xC0, 0xC1, 0xC2):  # a frame: baseline, extended or progressive
            height = int.from_bytes(encoded[at + 5 : at + 7])
            width = int.from_bytes(encoded[at + 7 : at + 9])
            if encoded[at + 4] != 8 or encoded[at + 9] not in (1, 3):
                return None
            size = (height, width)
        elif marker == 0xE1 and encoded[at + 4 : at + 10] == b"Exif\0\0":
            exif = Image.Exif()
            try:
                exif.load(encoded[at + 4 : at + 2 + length])
                if exif.get(ExifTags.Base.Orientation, 1) != 1:
                    return None
            except Exception:  # damaged; Pillow's own reading of the file has the last word
                return None
        elif marker == 0xE1 and b"tiff:Orientation" in encoded[at : at + 2 + length]:
            return None  # in XMP
        elif marker == 0xDA:  # pixels
            return size if size and 0 < size[0] * size[1] <= MAX_PIXELS else None
        at += 2 + length
    return None


def _orientation(image: Image.Image) -> int:
    """The camera's orientation mark, 1 (upright) to 8; 1 if there is none that makes sense."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow's reader fails on damaged EXIF in many ways
        return 1
    return value if value in range(1, 9) else 1


def _jpeg_window(
    encoded: bytes, size: tuple[int, int], view: View, out: np.ndarray, exact: bool
) -> None:
    """Decodes only what the window needs: its rows and columns, at a coarser scale if allowed."""
    ratio = 1
    if not exact:
        while ratio < 8 and all(
            length >= 2 * ratio * _SCALED_AT_LEAST * scaled
            for length, scaled in zip(view.box[2:], view.scaled, strict=True)
        ):
            ratio *= 2
    # From here on in pixels of the coarser image. The box may begin inside one of them.
    starts = [begin / ratio for begin in view.box[:2]]
    lengths = [length / ratio for length in view.box[2:]]
    bases = [int(start) for start in starts]
    parts = [start - base for start, base in zip(starts, bases, strict=True)]
    lows, highs = [], []
    for axis in (0, 1):
        low, high = kernels.needed(
            parts[axis], lengths[axis], view.scaled[axis], view.offset[axis], view.size[axis]
        )
        lows.append(max(bases[axis] + low - _MARGIN, 0))
        highs.append(min(bases[axis] + high + _MARGIN, -(-size[axis] // ratio)))
    if ratio == 1 and highs[0] > _WINDOW_UP_TO * size[0]:
        lows = [0, 0]
        decoded = simplejpeg.decode_jpeg(encoded)
    else:
        crop = (lows[0], lows[1], highs[0] - lows[0], highs[1] - lows[1])
        tensor = tf.io.decode_and_crop_jpeg(
            tf.constant(encoded),  # half the overhead of letting the operation convert them
            tf.constant(crop, tf.int32),
            channels=3,
            ratio=ratio,
            dct_method="INTEGER_ACCURATE",
        )
        decoded = np.asarray(memoryview(tensor))
    corner = (lows[0] - bases[0], lows[1] - bases[1])
    if view.box[2:] == view.scaled:
        place = (view.offset[0] - corner[0], view.offset[1] - corner[1])
        kernels.crop(decoded, place, view.flip, out)
    else:
        kernels.resample(
            decoded,
            corner,
            (parts[0], parts[1]),
            (lengths[0], lengths[1]),
            view.scaled,
            view.offset,
            view.flip,
            out,
        )


def _upright_rgb(image: Image.Image) -> np.ndarray:
    """Pixels of an image that is loaded, as uint8 [height, width, 3]."""
    orientation = _orientation(image)
    if image.mode.startswith("I"):  # 16 bits, in one of Pillow's modes
        values = np.asarray(image).astype(np.int64)
        if image.mode != "I" or values.max(initial=0) > 255:  # I may hold 8 bits as well
            values = (np.clip(values, 0, 65535) + 128) // 257
        image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    elif image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    if image.mode == "F":
        raise UnreadableError("pixels are real numbers of unknown range")
    rgb = image.convert("RGB")
    if orientation != 1:
        turned = Image.Exif()
        turned[ExifTags.Base.Orientation] = orientation
        rgb.info["exif"] = turned.tobytes()
        rgb = ImageOps.exif_transpose(rgb)
    return np.asarray(rgb)


def _recover(encoded: bytes, error: Exception, repaired: Repair) -> np.ndarray:
    """What is left of a JPEG that breaks off.

    Raises:
      UnreadableError: not a JPEG, or less than half of its rows are there.
    """
    refused = UnreadableError(f"damaged ({_first_line(error)})")
    image = _open(encoded + _END)  # told that this is all, libjpeg fills the rest with one colour
    if image.format not in ("JPEG", "MPO"):  # MPO: several JPEGs, as telephones write them
        raise refused
    try:
        image.load()
    except Exception:
        raise refused from None
    rows = np.asarray(image).reshape(image.height, image.width, -1)
    there = np.flatnonzero((rows != rows[-1, -1]).any(axis=(1, 2)))
    count = int(there[-1]) + 1 if len(there) else 0
    if count == image.height and image.info.get("progressive"):
        repaired("cut short: coarser than it was")
        return _upright_rgb(image)
    count = max(count - 16, 0)  # of the last row of blocks only the left may be there
    if 2 * count < image.height:
        raise UnreadableError(f"cut short: {count} of {image.height} rows are there")
    repaired(f"cut short: the {count} of {image.height} rows that are there are used")
    kept = image.crop((0, 0, image.width, count))
    kept.info.update(image.info)
    return _upright_rgb(kept)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
