"""Formats other than JPEG: whether a file is intact, and its pixels as RGB of 8 bits.

PNG has checksums. In the other formats only truncated data can be noticed. A file whose end was
replaced by zeros is noticed if its pixels are compressed; in uncompressed BMP, PPM and TIFF files
zeros are black pixels.
"""

import io
import zlib
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from input_pipeline import jpeg
from input_pipeline.errors import UnreadableError

# Compressed data does not end in this many zeros.
_ZEROS = 16
_BITS, _COMPRESSION, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 259, 262, 284, 339
_OFFSETS, _SIZES, _JPEG_TABLES = (273, 324), (279, 325), 347
_UNCOMPRESSED, _PACKBITS, _JPEG = 1, 32773, 7
_WHITE_IS_ZERO = 0
_CLASSIC, _FIRST_TAG = 42, 254


def check(image: Image.Image, encoded: bytes) -> str | None:
    """Looks for damage that decoders ignore.

    Args:
      image: opened, not loaded yet.
      encoded: the file's content.

    Returns:
      A fault that leaves all pixels intact, None for no fault.

    Raises:
      UnreadableError: pixels are missing or wrong, or stored in a way that decoders misread.
    """
    if image.format == "PNG":
        return _check_png(encoded)
    if image.format == "WEBP":
        _check_end(encoded[: 8 + int.from_bytes(encoded[4:8], "little")])
    elif image.format == "AVIF":
        _check_end(encoded[: _end_of_boxes(encoded)])
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_tiff(image.tag_v2, encoded)
    return None


def rgb(image: Image.Image, encoded: bytes) -> np.ndarray:
    """The pixels of a loaded image as uint8 [height, width, 3], upright.

    Args:
      image: loaded.
      encoded: the file's content.

    Raises:
      UnreadableError: the range of the values is unknown, or a 16-bit colour is transparent.
    """
    turned = orientation(image)
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise UnreadableError("pixels are numbers of unknown range")
    transparent = image.info.get("transparency")
    if image.format == "PNG" and transparent is not None:
        bits, colour = encoded[24:26]
        if bits == 16 and colour == 2:
            raise UnreadableError("a colour of 16 bits that is transparent")
        if bits in (2, 4) and colour == 0:  # Pillow scales the pixels to 8 bits, not this
            image.info["transparency"] = transparent * 255 // ((1 << bits) - 1)
    if image.mode.startswith("I"):  # more than 8 bits, in one of Pillow's modes
        image = _eight_bits(image, transparent)
    elif image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        if image.mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    if turned != 1:
        mark = Image.Exif()
        mark[ExifTags.Base.Orientation] = turned
        image.info["exif"] = mark.tobytes()
        image = ImageOps.exif_transpose(image)
    return np.asarray(image)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; 1 if it is missing or invalid."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow's reader fails on damaged EXIF in many ways
        return 1
    return value if value in range(1, 9) else 1


def orientation_of(content: bytes | np.ndarray) -> int:
    """`orientation` of a file's bytes, or of pixels (1); 1 of bytes that are no image."""
    if isinstance(content, np.ndarray):
        return 1
    try:
        with Image.open(io.BytesIO(content)) as image:
            return orientation(image)
    except Exception:  # Pillow fails on damage in many ways
        return 1


def _eight_bits(image: Image.Image, transparent: Any) -> Image.Image:
    """Converts a gray image of more than 8 bits to 8; the transparent value, if any, to white."""
    values = np.asarray(image).astype(np.int64)
    tags = getattr(image, "tag_v2", {})
    top = (1 << tags.get(_BITS, (16,))[0]) - 1
    gray = (np.clip(values, 0, top) * 255 + top // 2) // top
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts 8 bits, but not 16
        gray = 255 - gray
    if isinstance(transparent, int):
        gray[values == transparent] = 255
    return Image.fromarray(gray.astype(np.uint8))


def _check_png(encoded: bytes) -> str | None:
    """Verifies the checksums of the chunks that define pixels, and that the data is complete."""
    at, parts = 8, []
    while at + 12 <= len(encoded):
        length, kind = int.from_bytes(encoded[at : at + 4]), encoded[at + 4 : at + 8]
        end = at + 12 + length
        if kind == b"IEND":
            return None
        if end > len(encoded) or not kind.isalpha():
            break
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"tRNS"):
            checksum = int.from_bytes(encoded[end - 4 : end])
            if zlib.crc32(memoryview(encoded)[at + 4 : end - 4]) != checksum:
                raise UnreadableError(f"damaged (checksum of {kind.decode()})")
            if kind == b"IDAT":
                parts.append((at + 8, end - 4))
        at = end
    stream = zlib.decompressobj()
    data = b"".join(encoded[begin:end] for begin, end in parts)
    try:
        while data and not stream.eof:
            stream.decompress(data, 1 << 20)
            data = stream.unconsumed_tail
    except zlib.error as error:
        raise UnreadableError(f"damaged ({error})") from None
    if not stream.eof:
        raise UnreadableError("damaged (cut short)")
    return "no end mark; all pixels are there"


def _check_end(data: bytes) -> None:
    if not data[-_ZEROS:].strip(b"\0"):
        raise UnreadableError("damaged (its end is zeros)")


def _end_of_boxes(encoded: bytes) -> int:
    """Offset in bytes where the last box of an AVIF file ends; padding may follow."""
    at = 0
    while at + 8 <= len(encoded) and any(encoded[at : at + 8]):
        length = int.from_bytes(encoded[at : at + 4])
        if length == 1:
            length = int.from_bytes(encoded[at + 8 : at + 16])
        if length < 8:  # 0: to the end of the file
            return len(encoded)
        at += length
    return min(at, len(encoded))


def _check_tiff(tags: Any, encoded: bytes) -> None:
    """Checks that no strip or tile is missing, and that Pillow and libtiff read the file correctly.

    Raises:
      UnreadableError: otherwise.
    """
    order: Any = "little" if encoded.startswith(b"II") else "big"
    start = int.from_bytes(encoded[4:8], order)
    end = start + 6 + 12 * int.from_bytes(encoded[start : start + 2], order)
    if int.from_bytes(encoded[2:4], order) == _CLASSIC and end > len(encoded):
        raise UnreadableError("damaged (its directory is cut short)")
    if any(number < _FIRST_TAG for number in tags):
        raise UnreadableError("damaged (its directory has tags that do not exist)")
    bits, compression = tags.get(_BITS, (1,)), tags.get(_COMPRESSION, _UNCOMPRESSED)
    if set(tags.get(_SAMPLE_FORMAT, (1,))) & {2, 3}:
        raise UnreadableError("pixels are numbers of unknown range (signed or real)")
    deep = max(bits) > 8 and compression == _UNCOMPRESSED
    if tags.get(_PLANES) == 2 and (len(bits) == 2 or (len(bits) > 1 and deep)):
        raise UnreadableError(f"a TIFF of {len(bits)} separate planes of {bits[0]} bits")
    offsets, sizes = (
        next((_numbers(tags[number]) for number in numbers if number in tags), ())
        for numbers in (_OFFSETS, _SIZES)
    )
    for offset, size in zip(offsets, sizes, strict=False):
        if offset + size > len(encoded):
            raise UnreadableError("damaged (cut short)")
        piece = encoded[offset : offset + size]
        if compression not in (_UNCOMPRESSED, _PACKBITS) and piece:
            _check_end(piece)
        if compression == _JPEG:
            tables = tags.get(_JPEG_TABLES, b"")
            complaint = jpeg.complaint_of(tables[:-2] + piece[2:] if tables else piece)
            if complaint is not None:
                raise UnreadableError(f"damaged ({complaint})")


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)
