"""Whether a JPEG is whole, and what is left of one that is not.

JPEG has no checksum. What there is to notice is noticed by libjpeg, in data that has an invalid
code, breaks off, or is not used up at the end; that needs the whole file, so every decoding here
reads all of it, whatever part of the image is wanted, and stops at the first complaint. The
verdict is then a function of the file:

* whole: libjpeg has no complaint. Bytes after the end mark are nobody's concern. A flipped bit
  whose data still decodes to the right number of blocks passes for whole: nothing tells.
* breaks off: there is no end mark and the data before is in order. The rows that the data
  determines are kept, if they are at least half. Filling after the break (a byte repeated to the
  end, as of an interrupted download) is no data.
  Of a progressive file all rows are kept, coarser, once every component has its first scan
  (libjpeg smooths what is then known as means of blocks); before that nothing is.
* damaged: anything else. An invalid code, or data that ends before its end mark says so, comes
  some way after the fault, and what was decoded in between is not in the picture; how much that
  is cannot be known. So no row is used.
"""

import io
import re
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from input_pipeline.errors import UnreadableError

END = b"\xff\xd9"
# libjpeg's words for data that ends too soon; the only complaint that rows survive.
_ENDS = "premature end of data segment"
# A byte repeated so often at the end is filling, not data.
_FILLING = 4
# A block of 64 pixels takes at least a bit, except in arithmetic code.
_PIXELS_A_BYTE = 8 * 64
# So many scans of a progressive file, each over all blocks, are an attack; encoders write ten.
_MAX_SCANS = 500
_SEQUENTIAL, _PROGRESSIVE, _ARITHMETIC = (0xC0, 0xC1, 0xC9), (0xC2, 0xCA), (0xC9, 0xCA)
# In the data of a scan a marker is FF and neither 0 (FF itself) nor a restart.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")


class Frame(NamedTuple):
    """How a JPEG's picture is stored.

    Attributes:
      marker: of the frame, 0xC0 and so on: the kind of coding.
      height, width: as stored, before a camera's orientation is followed.
      components: identifiers of its components, 1 to 4 of them.
      rows: pixel rows of a row of blocks, all components together.
    """

    marker: int
    height: int
    width: int
    components: tuple[int, ...]
    rows: int

    def may_be_in(self, size: int) -> bool:
        """Whether so many bytes can hold all its pixels."""
        return self.marker in _ARITHMETIC or self.height * self.width <= size * _PIXELS_A_BYTE


class _Scan(NamedTuple):
    """A pass over some components: coefficients first to last, without the `low` lowest bits."""

    components: tuple[int, ...]
    first: int
    last: int
    low: int
    refines: bool


class _Layout(NamedTuple):
    """The parts of a file.

    Attributes:
      frame: None if there is none.
      scans: in their order; data of the last may be cut short.
      end: where the data ends: at the end mark, before a segment that is cut short, or with
        the file.
      marked: whether there is an end mark.
    """

    frame: Frame | None
    scans: list[_Scan]
    end: int
    marked: bool


def frame_at(encoded: bytes, at: int) -> Frame:
    """Reads the frame header whose marker is at `at`; there are at least ten bytes from there."""
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
    """A whole JPEG of one or three components as uint8 RGB, a `ratio`-th of its height and width.

    Args:
      encoded: the file's content.
      frame: its frame.
      ratio: 1, 2, 4 or 8; above 1, coarser by DCT scaling.

    Raises:
      ValueError: libjpeg has a complaint.
    """
    if ratio == 1:
        return simplejpeg.decode_jpeg(encoded)
    height, width = -(-frame.height // ratio), -(-frame.width // ratio)
    return simplejpeg.decode_jpeg(encoded, min_height=height, min_width=width)


def too_many_scans(encoded: bytes, frame: Frame) -> bool:
    """Whether a file asks for more work than a picture of its size can."""
    return frame.marker in _PROGRESSIVE and encoded.count(b"\xff\xda") > _MAX_SCANS


def is_marked(encoded: bytes) -> bool:
    """Whether there is an end mark: if so, all rows are there or none is used."""
    return _layout(encoded).marked


def sound(encoded: bytes) -> tuple[bytes, int | None, str | None]:
    """The part of a JPEG that is sound.

    Args:
      encoded: a file's content that begins as a JPEG.

    Returns:
      Bytes that libjpeg decodes to an image; how many of its first rows come from the file (None
      for all); and what was mended, None if nothing had to be.

    Raises:
      UnreadableError: damaged, or less than half of its rows are there.
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
        if marker == 0xFF:  # before a marker there may be any number
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
    """What libjpeg has to say against a file, None for nothing.

    An eighth of the size, in gray, costs little more than reading the codes.
    """
    try:
        simplejpeg.decode_jpeg(encoded, "GRAY", min_height=1, min_width=1)
        return None
    except ValueError as error:
        message = str(error)
    if "subsampling" not in message:
        return message.removeprefix("Corrupt JPEG data: ")
    # Components of unusual sizes, which simplejpeg does not take. Other decoders keep libjpeg's
    # complaints to themselves; but where data breaks off, what follows it changes the picture.
    layout = _layout(encoded)
    if layout.frame is None or not layout.marked:
        return "no end mark"
    if len(layout.frame.components) == 2:
        return None  # inside a TIFF; nobody else decodes it
    rows = _rows_determined(encoded[: layout.end], layout.frame)
    return None if rows == layout.frame.height else _ENDS


def _with_usual_header(encoded: bytes) -> bytes:
    """Without what libjpeg complains of in headers though it changes no pixel.

    These are JFIF's version, and the fields of a sequential scan that only progressive ones need,
    which some cameras leave empty.
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
    """How many rows come from data that has no end mark; `broken`: inside the last scan."""
    begun = [scan for scan in scans if scan.first == 0 and not scan.refines]
    if {component for scan in begun for component in scan.components} < set(frame.components):
        return 0  # colours are missing
    if not broken or scans[-1] not in begun:
        return frame.height
    if frame.marker in _PROGRESSIVE:
        return 0  # means of blocks, and not even all
    return _rows_determined(data, frame)


def _rows_determined(data: bytes, frame: Frame) -> int:
    """How many rows are the same whatever follows after the data."""
    data = data.rstrip(b"\xff")
    pictures = (_lenient(data + rest + END) for rest in (b"", *_continuations(data)))
    first = next(pictures)
    differing = np.zeros(len(first), bool)
    for picture in pictures:
        differing |= (picture != first).reshape(len(first), -1).any(axis=1)
    if not differing.any():
        return frame.height
    row = int(differing.argmax())
    # The row of blocks that breaks off. If colours are interpolated between rows, they reach into
    # the last pixel row above it.
    above = (row + 1) // frame.rows * frame.rows
    return max(above - (frame.rows > 8), 0)


def _continuations(data: bytes) -> list[bytes]:
    """Three ways in which data may go on, with the restarts that are due."""
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
    """The picture that libjpeg makes of anything, [height, width, components]."""
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
