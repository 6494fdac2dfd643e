"""Whether a JPEG is intact, and the rows that can be used of one that is not.

JPEG has no checksum. Damage is what libjpeg complains of: an invalid code, data that ends too
soon, or data left over at the end. To find it, every decoding here reads the whole file, whatever
part of the image is wanted, and stops at the first complaint. The verdict is then a function of
the file:

* intact: libjpeg has no complaint. Bytes after the end mark are ignored. A flipped bit whose data
  still decodes to the right number of blocks cannot be noticed.
* truncated: there is no end mark, and the data before it is sound. The rows that the data
  determines are used, if they are at least half. Filling at the end (one repeated byte, as left by
  an interrupted download) is not data. Of a progressive file all rows are used, coarser, once
  every component has its first scan (libjpeg interpolates between the means of blocks that are
  known then); before that, none.
* damaged: anything else. libjpeg notices an invalid code, or an end mark that comes too soon, only
  some way after the fault, and the pixels decoded in between are wrong. Since nobody knows how
  many these are, no row is used.
"""

import io
import re
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from input_pipeline.errors import UnreadableError

END = b"\xff\xd9"
# libjpeg's message for data that ends too soon; the only complaint after which rows are used.
_ENDS = "premature end of data segment"
# A byte repeated at least this often at the end is filling, not data.
_FILLING = 4
# A block of 64 pixels takes at least one bit, except in arithmetic coding.
_PIXELS_A_BYTE = 8 * 64
# Each scan of a progressive file costs a pass over all blocks. Encoders write about ten; more than
# this limit are an attack.
_MAX_SCANS = 500
_SEQUENTIAL, _PROGRESSIVE, _ARITHMETIC = (0xC0, 0xC1, 0xC9), (0xC2, 0xCA), (0xC9, 0xCA)
# In the data of a scan, FF begins a marker unless 0 (an escaped FF) or a restart code follows.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")


class Frame(NamedTuple):
    """The content of a JPEG's frame header.

    Attributes:
      marker: kind of coding: 0xC0 (baseline), 0xC2 (progressive) and so on.
      height, width: in pixels as stored, before EXIF orientation is applied.
      components: identifiers of the components, 1 to 4 of them.
      rows: number of pixel rows in a row of MCUs, which have blocks of all components.
    """

    marker: int
    height: int
    width: int
    components: tuple[int, ...]
    rows: int

    def may_be_in(self, size: int) -> bool:
        """Whether a file of `size` bytes can contain all pixels."""
        return self.marker in _ARITHMETIC or self.height * self.width <= size * _PIXELS_A_BYTE


class _Scan(NamedTuple):
    """A scan: coefficients `first` to `last` of components, without their `low` lowest bits."""

    components: tuple[int, ...]
    first: int
    last: int
    low: int
    refines: bool


class _Layout(NamedTuple):
    """The parts of a file.

    Attributes:
      frame: None if there is none.
      scans: in their order; the data of the last may be truncated.
      end: offset in bytes where the data ends: at the end mark, before a truncated segment, or at
        the end of the file.
      marked: whether there is an end mark.
    """

    frame: Frame | None
    scans: list[_Scan]
    end: int
    marked: bool


def frame_at(encoded: bytes, at: int) -> Frame:
    """Reads the frame header whose marker is at offset `at`, with at least ten bytes from there."""
    count = encoded[at + 9]
    components = encoded[at + 10 : at + 10 + 3 * count]
    return Frame(
        encoded[at + 1],
        int.from_bytes(encoded[at + 5 : at + 7]),
        int.from_bytes(encoded[at + 7 : at + 9]),
        tuple(components[::3]),
        8 * max([sampling & 15 for sampling in components[1::3]], default=1),
    )


def decode(encoded: bytes, frame: Frame, ratio: int) -> np.ndarray:
    """Decodes a whole JPEG of one or three components.

    Args:
      encoded: the file's content.
      frame: its frame.
      ratio: 1, 2, 4 or 8, by which DCT scaling divides height and width.

    Returns:
      uint8 [ceil(height / ratio), ceil(width / ratio), 3], RGB.

    Raises:
      ValueError: libjpeg has a complaint.
    """
    if ratio == 1:
        return simplejpeg.decode_jpeg(encoded)
    height, width = -(-frame.height // ratio), -(-frame.width // ratio)
    return simplejpeg.decode_jpeg(encoded, min_height=height, min_width=width)


def too_many_scans(encoded: bytes, frame: Frame) -> bool:
    """Whether a progressive file has more scans than any encoder writes."""
    return frame.marker in _PROGRESSIVE and encoded.count(b"\xff\xda") > _MAX_SCANS


def is_marked(encoded: bytes) -> bool:
    """Whether a file has an end mark; one that has it is used with all its rows or not at all."""
    return _layout(encoded).marked


def sound(encoded: bytes) -> tuple[bytes, int | None, str | None]:
    """The sound part of a JPEG.

    Args:
      encoded: a file's content that begins as a JPEG.

    Returns:
      Bytes that libjpeg decodes to an image; how many of its first rows come from the file (None
      for all); and what was repaired, None for nothing.

    Raises:
      UnreadableError: the file is damaged, or has less than half of its rows.
    """
    layout = _layout(encoded)
    frame = layout.frame
    if frame is None or not layout.scans:
        raise UnreadableError("cut short: 0 rows are there" if not layout.marked else "damaged")
    if not frame.may_be_in(2 * len(encoded)):
        raise UnreadableError(
            f"cut short: {len(encoded):,} bytes cannot hold half of "
            f"{frame.width} x {frame.height} pixels"
        )
    if too_many_scans(encoded, frame):
        raise UnreadableError(f"more than {_MAX_SCANS} scans")
    encoded = _with_usual_header(encoded)
    complaint = complaint_of(encoded)
    if complaint is None:
        return encoded, None, None
    data = _without_filling(encoded[: layout.end])
    if END in encoded[layout.end :]:
        filling = layout.end - len(data)
        if layout.marked and filling and complaint_of(data + END) is None:
            return data + END, None, f"{filling} bytes too many before the end mark; all rows used"
        raise UnreadableError(f"damaged ({complaint})")
    layout = _layout(data)
    data = data[: layout.end]
    complaint = complaint_of(data + END)
    if complaint is not None and _ENDS not in complaint:
        raise UnreadableError(f"damaged ({complaint})")
    rows = _rows_of(data, frame, layout.scans, broken=complaint is not None)
    if 2 * rows < frame.height:
        raise UnreadableError(f"cut short: {rows} of {frame.height} rows are there")
    if rows < frame.height:
        note = f"cut short: the {rows} of {frame.height} rows that are there are used"
        return data + END, rows, note
    if frame.marker in _PROGRESSIVE and (complaint or not _all_bits(frame, layout.scans)):
        return data + END, None, "cut short: coarser than it was"
    return data + END, None, f"no end mark; all {frame.height} rows are there"


def _layout(encoded: bytes) -> _Layout:
    frame: Frame | None = None
    scans: list[_Scan] = []
    at = 2
    while at + 4 <= len(encoded) and encoded[at] == 0xFF:
        marker, length = encoded[at + 1], int.from_bytes(encoded[at + 2 : at + 4])
        if marker == 0xFF:  # fill bytes, of which any number may precede a marker
            at += 1
            continue
        if marker == END[1]:
            return _Layout(frame, scans, at, True)
        after = at + 2 + length
        if after > len(encoded):
            break
        if marker in _SEQUENTIAL + _PROGRESSIVE and length >= 8 and frame is None:
            frame = frame_at(encoded, at)
        if marker == 0xDA and length >= 6:
            first, last, bits = encoded[after - 3 : after]
            components = tuple(encoded[at + 5 : after - 3 : 2])
            scans.append(_Scan(components, first, last, bits & 15, bits > 15))
            found = _MARKER.search(encoded, after)
            if found is None:
                return _Layout(frame, scans, len(encoded), False)
            after = found.end() - 2
        at = after
    marked = encoded[at : at + 2] == END
    return _Layout(frame, scans, at, marked)


def complaint_of(encoded: bytes) -> str | None:
    """The first complaint that libjpeg has of a file; None for none.

    Decoding in gray at an eighth of the size costs little more than reading the codes.
    """
    try:
        simplejpeg.decode_jpeg(encoded, "GRAY", min_height=1, min_width=1)
        return None
    except ValueError as error:
        message = str(error)
    if "subsampling" not in message:
        return message.removeprefix("Corrupt JPEG data: ")
    # simplejpeg does not decode unusual subsampling, and other decoders hide libjpeg's complaints.
    # But if data is missing, then bytes appended to it change the pixels.
    layout = _layout(encoded)
    if layout.frame is None or not layout.marked:
        return "no end mark"
    if len(layout.frame.components) == 2:
        return None  # occurs inside TIFFs only; no decoder here reads it alone
    rows = _rows_determined(encoded[: layout.end], layout.frame)
    return None if rows == layout.frame.height else _ENDS


def _with_usual_header(encoded: bytes) -> bytes:
    """Replaces header fields that libjpeg complains of although they change no pixel.

    These are the version of JFIF, and the fields of a sequential scan that only progressive files
    need, which some cameras leave empty.
    """
    header = bytearray(encoded)
    at = 2
    while at + 4 <= len(encoded) and encoded[at] == 0xFF and encoded[at + 1] != 0xDA:
        marker, length = encoded[at + 1], int.from_bytes(encoded[at + 2 : at + 4])
        if marker in _PROGRESSIVE:
            break
        if marker == 0xE0 and encoded[at + 4 : at + 9] == b"JFIF\0":
            header[at + 9 : at + 11] = b"\1\1"
        at += 2 + length
    else:
        after = at + 2 + int.from_bytes(encoded[at + 2 : at + 4])
        if encoded[at : at + 2] == b"\xff\xda" and after <= len(encoded):
            header[after - 3 : after] = b"\0\x3f\0"
    return bytes(header)


def _without_filling(encoded: bytes) -> bytes:
    data = encoded.rstrip(encoded[-1:])
    return data if len(encoded) - len(data) >= _FILLING else encoded


def _rows_of(data: bytes, frame: Frame, scans: list[_Scan], *, broken: bool) -> int:
    """How many rows are in data without an end mark; `broken` if it ends inside the last scan."""
    begun = [scan for scan in scans if scan.first == 0 and not scan.refines]
    if {component for scan in begun for component in scan.components} < set(frame.components):
        return 0  # a component is missing
    if not broken or scans[-1] not in begun:
        return frame.height
    if frame.marker in _PROGRESSIVE:
        return 0  # not even the means of all blocks are there
    return _rows_determined(data, frame)


def _rows_determined(data: bytes, frame: Frame) -> int:
    """How many rows the data determines: those that no continuation of it changes."""
    data = data.rstrip(b"\xff")
    pictures = (_lenient(data + rest + END) for rest in (b"", *_continuations(data)))
    first = next(pictures)
    differing = np.zeros(len(first), bool)
    for picture in pictures:
        differing |= (picture != first).reshape(len(first), -1).any(axis=1)
    if not differing.any():
        return frame.height
    row = int(differing.argmax())
    # `above` is where the first incomplete row of blocks begins. If colours are interpolated
    # between rows, they change the last pixel row above it too.
    above = (row + 1) // frame.rows * frame.rows
    return max(above - (frame.rows > 8), 0)


def _continuations(data: bytes) -> list[bytes]:
    """Three random continuations of the data, with the restart markers that are due."""
    restarts = _RESTART.findall(data)
    number = restarts[-1][1] - 0xD0 + 1 if restarts else 0
    marks = [bytes([0xFF, 0xD0 + (number + step) % 8]) for step in range(8)]
    rng = np.random.default_rng(0)
    noises = rng.integers(0, 255, (3, 9, 64), np.uint8)  # never 255, which would need a 0 after it
    return [
        noise[0].tobytes()
        + b"".join(mark + more.tobytes() for mark, more in zip(marks, noise[1:], strict=True))
        for noise in noises
    ]


def _lenient(encoded: bytes) -> np.ndarray:
    """The image that libjpeg decodes despite damage, uint8 [height, width, components].

    Raises:
      UnreadableError: Pillow cannot decode it at all.
    """
    try:
        image = Image.open(io.BytesIO(encoded), formats=("JPEG",))
        image.load()
    except Exception as error:  # Pillow fails on damaged files in many ways
        raise UnreadableError(f"damaged ({error})") from None
    return np.asarray(image).reshape(image.height, image.width, -1)


def _all_bits(frame: Frame, scans: list[_Scan]) -> bool:
    """Whether a progressive file's scans hold every bit of every coefficient."""
    missing = {component: np.full(64, True) for component in frame.components}
    for scan in scans:
        for component in scan.components:
            missing[component][scan.first : scan.last + 1] = scan.low > 0
    return not any(coefficients.any() for coefficients in missing.values())
