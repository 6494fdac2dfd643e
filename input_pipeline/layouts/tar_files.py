"""Locates the members of a tar by reading its headers only, not its content."""

import itertools
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from input_pipeline.errors import DataError
from input_pipeline.names import shown

_BLOCK = 512
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_COMPRESSED = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}  # fmt: skip


class Member(NamedTuple):
    """A regular file in a tar: its path in the tar, and where its content lies."""

    name: bytes
    offset: int
    size: int


def members(
    file: int,
    path: Path,
    begin: int = 0,
    end: int | None = None,
    inside: str = "",
    advance: Callable[[int], object] = lambda position: None,
) -> Iterator[Member]:
    """Iterates over the regular files in a tar, or in a tar inside a tar.

    Args:
      file: descriptor of the open file.
      path: its path, for messages.
      begin, end: offset of the tar's first byte, and of the byte after its last; None for the end
        of the file.
      inside: name of the inner tar; empty for the whole file.
      advance: called now and then with the current offset in bytes.

    Raises:
      DataError: the file is no tar, is compressed, or is cut short.
    """
    where = f"{shown(path)}: {shown(inside)} in it" if inside else shown(path)
    end = os.fstat(file).st_size if end is None else end
    position, long_name, long_size = begin, b"", -1
    for number in itertools.count():
        header = os.pread(file, min(_BLOCK, max(0, end - position)), position)
        if len(header) == _BLOCK and not any(header):
            return
        if not number:
            _refuse_other(header, where)
        if len(header) < _BLOCK:
            break
        try:
            name, size, kind = _header(header)
        except ValueError:
            raise DataError(
                f"{where}: damaged at byte {position} (no header of a member); get it again, and "
                "compare its size or checksum with the source's"
            ) from None
        offset, size = position + _BLOCK, size if long_size < 0 else long_size
        if offset + size > end:
            where += f", in {shown(long_name or name)}"
            break
        if kind == tarfile.GNUTYPE_LONGNAME:
            long_name = os.pread(file, size, offset).rstrip(b"\0")
        elif kind == tarfile.XHDTYPE:
            try:
                said = _pax(os.pread(file, size, offset))
                long_name = said.get(b"path", long_name)
                long_size = _whole_number(said[b"size"]) if b"size" in said else -1
            except ValueError:
                raise DataError(
                    f"{where}: damaged at byte {offset} (an extended header of another form); get "
                    "it again, and compare its size or checksum with the source's"
                ) from None
        elif kind not in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            if kind in _REGULAR and not name.endswith(b"/"):
                yield Member(long_name or name, offset, size)
            long_name, long_size = b"", -1
        position = offset + -(-size // _BLOCK) * _BLOCK
        if not number % 1024:
            advance(position)
    raise DataError(
        f"{where}: cut short at byte {min(position, end)} (no end mark); get it again, and compare "
        "its size or checksum with the source's"
    )


def _header(block: bytes) -> tuple[bytes, int, bytes]:
    """Name, size in bytes and type flag of a member. tarfile takes four times as long to read it.

    Raises:
      ValueError: the checksum is wrong, or a numeric field holds no number.
    """
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if total != _octal(block[148:156]):
        raise ValueError("checksum")
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0]
    if prefix and block[257:263] == b"ustar\0":  # GNU tar stores times in this field
        name = prefix + b"/" + name
    # GNU tar writes sizes of more than 11 octal digits in binary.
    large = block[124] == 0x80
    size = int.from_bytes(block[125:136], "big") if large else _octal(block[124:136])
    if size < 0:
        raise ValueError("size")
    return name, size, block[156:157]


def _octal(field: bytes) -> int:
    return int(field.partition(b"\0")[0].strip() or b"0", 8)


def _refuse_other(header: bytes, where: str) -> None:
    for beginning, kind in _COMPRESSED.items():
        if header.startswith(beginning):
            raise DataError(
                f"{where}: compressed ({kind}); images are read from it at random, so that it has "
                "to be plain: decompress it first"
            )
    if header[257:262] != b"ustar" and not any(header[148:156]):
        raise DataError(f"{where}: not a tar file; get it again")


def _pax(content: bytes) -> dict[bytes, bytes]:
    """The records of an extended header, each `LENGTH KEY=VALUE` with a newline.

    Raises:
      ValueError: a record has another form.
    """
    found = {}
    while content.strip(b"\0"):
        length = _whole_number(content.partition(b" ")[0])
        record = content[:length].partition(b" ")[2]
        key, equals, value = record.partition(b"=")
        if len(content) < length or not equals or not value.endswith(b"\n"):
            raise ValueError("no record")
        found[key], content = value[:-1], content[length:]
    return found


def _whole_number(digits: bytes) -> int:
    if not digits.isdigit():
        raise ValueError("no number")
    return int(digits)
