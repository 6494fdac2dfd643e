"""From the bytes of an image file to pixels: whole images, or the window that a crop needs.

Formats are found in the bytes, never taken from a file's name. Plain JPEGs go through
simplejpeg, which reads each to its end and says what is wrong with it (`jpeg`); everything else
goes through Pillow, and there odd files are repaired where a person would repair them, or
refused with the reason. Both are libjpeg-turbo inside and give the same pixels.

Whether a file is fine, repaired or unreadable depends on the file alone, not on what is wanted
of it.
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
# refused with a reason. (For all threads at once: Python cannot do it for one.)
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
# Twice Pillow's own threshold, as there: 179 million pixels.
MAX_PIXELS = 2 * 89_478_485
# DCT scaling leaves a JPEG at least so many times larger than it will be. At 2 and the
# triangle filter after it, results are some .5 grey levels off those without.
_SCALED_AT_LEAST = 2.0
Repair = Callable[[str], None]


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
    there if these are at least half (progressive ones keep all rows, coarser; see `jpeg`).

    Args:
      encoded: a file's content.
      repaired: called with the reason where something was mended.

    Raises:
      UnreadableError: empty, no image, cut short by more than half, damaged, or more than
        MAX_PIXELS pixels.
    """
    frame = _plain_jpeg(encoded)
    if frame is not None:
        try:
            return jpeg.decode(encoded, frame, 1)
        except ValueError:
            pass  # damaged in some way
    return _slowly(encoded, repaired)


def size(content: bytes | np.ndarray) -> tuple[int, int] | None:
    """Height and width of what `pixels` gives; None where it gives nothing.

    The header of a plain JPEG says them. Everything else is decoded.

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
    """The frame of a JPEG that is gray or three colours, 8 bits, upright and of sensible size.

    None for everything else. (Pillow would tell, too, at twenty times the cost.)
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
    """The whole of any image, as `pixels` gives it."""
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
    """By which factor a JPEG may be made smaller while it is decoded: 1, 2, 4 or 8."""
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
      ratio: of the image that the view speaks of to this one.
      view: what is wanted.
      out: where it is written to; None makes it.
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
