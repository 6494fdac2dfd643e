"""Members of a tar are where Python's own reader finds them, in every format."""

import io
import os
import tarfile

import pytest

from input_pipeline import DataError
from input_pipeline.layouts import tar_files

LONG = "folder/" * 30 + "name of more than a hundred letters.jpg"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_of_tarfile(form, tmp_path):
    names = ["a.jpg", "folder/b.jpg", "sch\u00f6n.jpg", "p" * 90 + "/" + "n" * 90, "empty"]
    names += [LONG] if form != tarfile.USTAR_FORMAT else []
    path = tmp_path / "some.tar"
    with tarfile.open(path, "w", format=form) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, LONG if form != tarfile.USTAR_FORMAT else "a"
        tar.addfile(link)
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 0 if name == "empty" else 500 + number, 1e9 + 0.5
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    with tarfile.open(path) as tar:
        expected = [(m.name, m.offset_data, m.size) for m in tar if m.isfile()]
    with open(path, "rb") as file:
        found = list(tar_files.members(file.fileno(), path))
    assert [(os.fsdecode(name), offset, size) for name, offset, size in found] == expected


def test_sizes_beyond_8_gb(tmp_path):
    """Written in binary by GNU, and in an extended header by POSIX; the files have holes."""
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        info = tarfile.TarInfo("large.tar")
        info.size = 9 * 2**30
        header = info.tobuf(form)
        path = tmp_path / "large.tar"
        with open(path, "wb") as file:
            file.write(header)
            file.truncate(len(header) + info.size + 1024)
        with open(path, "rb") as file:
            found = list(tar_files.members(file.fileno(), path))
        assert found == [(b"large.tar", len(header), info.size)]
        path.unlink()


@pytest.mark.parametrize(
    "record", [b"x9 path=a.jpg\n", b"99 path=a.jpg\n", b"-5 a=b\n", b"9 path\n\n"]
)
def test_a_damaged_extended_header_is_named(record, tmp_path):
    path = tmp_path / "some.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("sch\u00f6n.jpg")
        tar.addfile(info)
    content = bytearray(path.read_bytes())
    content[512:1024] = record.ljust(512, b"\n")
    path.write_bytes(content)
    with open(path, "rb") as file, pytest.raises(DataError, match=r"some.tar: damaged at byte 512"):
        list(tar_files.members(file.fileno(), path))
