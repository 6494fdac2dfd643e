"""Sizes and orientation marks of files, read from their headers and kept."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from input_pipeline import image_sizes, orientation_marks, sources
from input_pipeline.sources import Examples


def stored(mark, kind):
    """A file of 30 x 20 pixels."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[ExifTags.Base.Orientation] = mark
    Image.new("RGB", (30, 20)).save(file, kind, exif=exif)
    return file.getvalue()


@pytest.mark.quick
def test_sizes_are_upright_and_marks_are_kept_beside_them(tmp_path):
    contents = [stored(mark, kind) for kind in ("JPEG", "PNG") for mark in range(1, 9)]
    contents += [b"no image", np.zeros((7, 9, 3), np.uint8)]
    reads = []

    def read(index):
        reads.append(index)
        return contents[index], 0

    examples = Examples(len(contents), read, str, "some files")
    # As an earlier version kept them.
    old = tmp_path / f"sizes-{sources.digest(examples.fingerprint, '')}.npz"
    sources.save_arrays(old, sizes=np.zeros((len(contents), 2), np.int32))
    sizes, marks = image_sizes(examples, tmp_path, 2), orientation_marks(examples, tmp_path, 2)
    assert sizes.tolist() == ([[20, 30]] * 4 + [[30, 20]] * 4) * 2 + [[0, 0], [7, 9]]
    assert marks.tolist() == [*range(1, 9)] * 2 + [1, 1]
    assert sorted(reads) == list(range(len(contents)))
