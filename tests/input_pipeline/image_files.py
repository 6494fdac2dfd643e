"""Image files of given values, written byte by byte where Pillow does not write their form."""

import struct
import zlib

import numpy as np

MINISBLACK, RGB, PALETTE, SEPARATED, YCBCR = 1, 2, 3, 5, 6
MINISWHITE = 0


def png(
    values: np.ndarray, colour: int, bits: int, before: tuple[tuple[bytes, bytes], ...] = ()
) -> bytes:
    """A PNG.

    Args:
      values: [height, width, channels].
      colour: PNG's colour type: 0 gray, 2 RGB, 3 palette, 4 gray with alpha, 6 RGBA.
      bits: of a value, 1 to 16.
      before: chunks before the pixels: kind, content.
    """
    height, width, _ = values.shape
    rows = b"".join(b"\0" + packed(row.reshape(-1), bits, ">") for row in values)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
        + b"".join(png_chunk(*chunk) for chunk in before)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Length, kind, content and checksum."""
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def packed(values: np.ndarray, bits: int, order: str) -> bytes:
    """A row of values; below 8 bits several in a byte, the first in the highest bits."""
    if values.dtype.kind == "f" or bits > 16:
        return values.astype(values.dtype.newbyteorder(order)).tobytes()
    if bits == 16:
        kind = "i2" if values.dtype.kind == "i" and values.min(initial=0) < 0 else "u2"
        return values.astype(order + kind).tobytes()
    if bits == 8:
        return values.astype(np.uint8).tobytes()
    each = (values[:, None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(each.astype(np.uint8).reshape(-1)).tobytes()


def tiff(
    values: np.ndarray,
    photometric: int,
    bits: int,
    *,
    order: str = "<",
    planar: bool = False,
    tile: int = 0,
    rows_per_strip: int = 0,
    deflate: bool = False,
    predictor: bool = False,
    sample_format: int = 1,
    extra: tuple[int, ...] = (),
    more: tuple[tuple[int, int, tuple[int, ...]], ...] = (),
) -> bytes:
    """A TIFF.

    Args:
      values: [height, width, channels].
      photometric: how values are meant: MINISWHITE, MINISBLACK, RGB, PALETTE, SEPARATED (CMYK).
      bits: of a value.
      order: `<` for little endian, `>` for big.
      planar: each channel by itself.
      tile: side of tiles, a multiple of 16; 0 for strips.
      rows_per_strip: 0 for all.
      deflate: compressed so.
      predictor: values are differences along a row; of 8 or 16 bits.
      sample_format: 1 unsigned, 2 signed, 3 real.
      extra: meaning of further channels: 1 alpha that colours are multiplied by, 2 alpha.
      more: tags: number, type (3 short, 4 long), values.
    """
    height, width, channels = values.shape
    planes = [values[..., c : c + 1] for c in range(channels)] if planar else [values]
    step = rows_per_strip or height
    chunks = []
    for plane in planes:
        if tile:
            parts = []
            for y in range(0, height, tile):
                for x in range(0, width, tile):
                    part = plane[y : y + tile, x : x + tile]
                    room = [(0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0)]
                    parts.append(np.pad(part, room))
        else:
            parts = [plane[y : y + step] for y in range(0, height, step)]
        for part in parts:
            if predictor:
                first = np.zeros_like(part[:, :1])
                part = np.diff(part.astype(np.int64), axis=1, prepend=first) % (1 << bits)
            chunk = b"".join(packed(row.reshape(-1), bits, order) for row in part)
            chunks.append(zlib.compress(chunk) if deflate else chunk)
    data = b"".join(chunks)
    offsets = tuple(8 + sum(len(chunk) for chunk in chunks[:n]) for n in range(len(chunks)))
    sizes = tuple(len(chunk) for chunk in chunks)
    tags = [
        (256, 4, (width,)),
        (257, 4, (height,)),
        (258, 3, (bits,) * channels),
        (259, 3, (8 if deflate else 1,)),
        (262, 3, (photometric,)),
        (277, 3, (channels,)),
        (284, 3, (2 if planar else 1,)),
        (339, 3, (sample_format,) * channels),
    ]
    if tile:
        tags += [(322, 4, (tile,)), (323, 4, (tile,)), (324, 4, offsets), (325, 4, sizes)]
    else:
        tags += [(273, 4, offsets), (278, 4, (step,)), (279, 4, sizes)]
    if predictor:
        tags.append((317, 3, (2,)))
    if extra:
        tags.append((338, 3, extra))
    return tiff_of(data, sorted(tags + list(more)), order)


def tiff_of(data: bytes, tags: list[tuple[int, int, tuple[int, ...]]], order: str) -> bytes:
    """Header, data from byte 8 on, and a directory of these tags."""
    data += b"\0" * (len(data) % 2)
    start = 8 + len(data)
    beyond = start + 2 + 12 * len(tags) + 4
    entries, tail = b"", b""
    for number, kind, values in tags:
        content = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'L'}", *values)
        if len(content) > 4:
            place = struct.pack(f"{order}L", beyond + len(tail))
            tail += content
        else:
            place = content.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHL", number, kind, len(values)) + place
    mark = b"II" if order == "<" else b"MM"
    return (
        mark
        + struct.pack(f"{order}HL", 42, start)
        + data
        + struct.pack(f"{order}H", len(tags))
        + entries
        + bytes(4)
        + tail
    )
