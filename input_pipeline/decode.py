"""From the bytes of an image file to pixels: whole images, or the window that a crop needs.

The format is recognised by the bytes, never by a file's name. simplejpeg decodes plain JPEGs; it
reads each to its end and reports any damage (`jpeg`). Pillow decodes everything else. There,
unusual files are repaired where a person would repair them, or refused with the reason. Both use
libjpeg-turbo and give the same pixels.

Whether a file is sound, repaired or unreadable depends on the file alone, not on the window that
is asked for.
"""

import io
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from input_pipeline import formats, jpeg, kernels
from input_pipeline.errors import UnreadableError, first_line

# Pillow warns of large images, odd palettes and damaged EXIF; here these are repaired, or
# refused with a reason. The filter is global because Python has none for a single thread.
warnings.filterwarnings("ignore", module=r"PIL\.")

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF")
_BEGINNINGS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"RIFF": "WebP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
# 179 million: twice Pillow's MAX_IMAGE_PIXELS, beyond which Pillow raises too.
MAX_PIXELS = 2 * 89_478_485
# After DCT scaling an image is at least this many times larger than the result. With 2, the
# triangle filter then gives pixels about .5 grey levels off those without DCT scaling.
_SCALED_AT_LEAST = 2.0
Repair = Callable[[str], None]


class View(NamedTuple):
    """The pixels of an image that are asked for.

    Attributes:
      box: row, column, height and width of the part of the image that is rescaled.
      scaled: height and width of this part after rescaling.
      offset: row and column of the window in the rescaled part.
      size: rows and columns of the window.
      flip: mirror the window left to right.
    """

    box: tuple[int, int, int, int]
    scaled: tuple[int, int]
    offset: tuple[int, int]
    size: tuple[int, int]
    flip: bool = False


def ignore(reason: str) -> None:
    """A `Repair` that does nothing."""


def pixels(encoded: bytes, repaired: Repair = ignore) -> np.ndarray:
    """The whole image as uint8 [height, width, 3], RGB and upright.

    Unusual files are treated as a person would treat them. EXIF orientation is applied. CMYK and
    YCCK become RGB, 16 bits per channel become 8. Transparent pixels are put on white. The first
    frame of an animation is taken. A truncated JPEG keeps the rows that are there if these are at
    least half (a progressive one keeps all rows, coarser; see `jpeg`).

    Args:
      encoded: a file's content.
      repaired: called with the reason if the file was repaired.

    Raises:
      UnreadableError: the file is empty, no image, truncated by more than half, damaged, or has
        more than MAX_PIXELS pixels.
    """
    frame = _plain_jpeg(encoded)
    if frame is not None:
        try:
            return jpeg.decode(encoded, frame, 1)
        except ValueError:
            pass  # damaged in some way
    return _slowly(encoded, repaired)


def size(content: bytes | np.ndarray) -> tuple[int, int] | None:
    """Height and width of the result of `pixels`; None where that raises UnreadableError.

    They are read from the header of a plain JPEG. Any other file is decoded.

    Args:
      content: a file's bytes, or uint8 [height, width, 3].
    """
    if isinstance(content, bytes):
        frame = _plain_jpeg(content)
        if frame is not None and jpeg.is_marked(content):
            return frame.height, frame.width
        try:
            content = pixels(content)
        except UnreadableError:
            return None
    return content.shape[0], content.shape[1]


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
      choose: height and width of the upright image -> the view that is wanted.
      exact: the pixels equal bit for bit those of decoding and rescaling the whole image. If
        False, JPEGs of at least four times the needed size are decoded at a half, a quarter or
        an eighth of their size (DCT scaling); all other images are the same either way.
      repaired: as in `pixels`.
      out: uint8 [rows, columns, 3], contiguous, of the view's size; overwritten. None allocates it.

    Returns:
      The view, and its pixels, uint8 [rows, columns, 3]: `out` if it was given.

    Raises:
      UnreadableError: see `pixels`.
    """
    if isinstance(content, bytes):
        frame = _plain_jpeg(content)
        if frame is not None:
            view = choose(frame.height, frame.width)
            ratio = 1 if exact else _coarser(view)
            try:
                return view, _shown(jpeg.decode(content, frame, ratio), ratio, view, out)
            except ValueError:
                pass  # damaged in some way
        content = _slowly(content, repaired)
    view = choose(*content.shape[:2])
    return view, _shown(np.ascontiguousarray(content), 1, view, out)


def _open(encoded: bytes) -> Image.Image:
    """Opens an image and reads its header only.

    Raises:
      UnreadableError: the file is empty, no image, or has too many pixels.
    """
    if not encoded:
        raise UnreadableError("the file is empty")
    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except Image.DecompressionBombError:
        raise UnreadableError(f"more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        for beginning, kind in _BEGINNINGS.items():
            if encoded.startswith(beginning):
                reason = f"begins as a {kind}; damaged, or of a form that is not read"
                raise UnreadableError(f"not an image ({reason})") from None
        raise UnreadableError(f"not an image (none of {', '.join(FORMATS)})") from None
    except Exception as error:
        raise UnreadableError(f"not an image ({first_line(error)})") from None
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableError(f"{image.width} x {image.height}, more than {MAX_PIXELS:,} pixels")
    if not image.width * image.height:
        raise UnreadableError("no pixels")
    return image


def _plain_jpeg(encoded: bytes) -> jpeg.Frame | None:
    """The frame of a JPEG of one or three components of 8 bits, upright and of plausible size.

    Returns:
      None for any other file. (Pillow could tell as well, at twenty times the cost.)
    """
    if not encoded.startswith(b"\xff\xd8"):
        return None
    at, frame = 2, None
    while at + 10 <= len(encoded) and encoded[at] == 0xFF:
        marker, length = encoded[at + 1], int.from_bytes(encoded[at + 2 : at + 4])
        if marker in (0xC0, 0xC1, 0xC2):  # baseline, extended or progressive
            if encoded[at + 4] != 8 or encoded[at + 9] not in (1, 3):
                return None
            frame = jpeg.frame_at(encoded, at)
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
            if frame is None or not 0 < frame.height * frame.width <= MAX_PIXELS:
                return None
            sensible = frame.may_be_in(len(encoded)) and not jpeg.too_many_scans(encoded, frame)
            return frame if sensible else None
        at += 2 + length
    return None


def _slowly(encoded: bytes, repaired: Repair) -> np.ndarray:
    """`pixels` for any image, through Pillow."""
    image = _open(encoded)
    rows = None
    try:
        if image.format in ("JPEG", "MPO"):  # MPO: several JPEGs, as telephones write them
            encoded, rows, mended = jpeg.sound(encoded)
            image = _open(encoded)
        else:
            mended = formats.check(image, encoded)
        image.load()
        if rows is not None:
            about = image.info
            image = image.crop((0, 0, image.width, rows))
            image.info.update(about)
        pixels = formats.rgb(image, encoded)
    except UnreadableError:
        raise
    except Exception as error:  # Pillow fails on damaged files in many ways
        raise UnreadableError(f"damaged ({first_line(error)})") from None
    if mended is not None:
        repaired(mended)
    return pixels


def _coarser(view: View) -> int:
    """The factor by which decoding may reduce a JPEG: 1, 2, 4 or 8."""
    ratio = 1
    while ratio < 8 and all(
        length >= 2 * ratio * _SCALED_AT_LEAST * scaled
        for length, scaled in zip(view.box[2:], view.scaled, strict=True)
    ):
        ratio *= 2
    return ratio


def _shown(image: np.ndarray, ratio: int, view: View, out: np.ndarray | None) -> np.ndarray:
    """The pixels of a view.

    Args:
      image: uint8 [height / ratio, width / ratio, 3], contiguous.
      ratio: by which `image` is smaller than the image that the view refers to.
      view: what is wanted.
      out: as in `window`.
    """
    if out is None:
        out = np.empty((*view.size, 3), np.uint8)
    # The box may begin inside a pixel of the coarser image.
    (y, x), (height, width) = (
        [length / ratio for length in lengths] for lengths in (view.box[:2], view.box[2:])
    )
    top, left = int(y), int(x)
    if view.box[2:] == view.scaled:
        kernels.crop(image, (view.offset[0] + top, view.offset[1] + left), view.flip, out)
    else:
        kernels.resample(
            image,
            (-top, -left),
            (y - top, x - left),
            (height, width),
            view.scaled,
            view.offset,
            view.flip,
            out,
        )
    return out
