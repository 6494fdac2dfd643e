"""Images in one folder whose labels lie elsewhere, as the challenge gives its validation images."""

import os
from pathlib import Path

from input_pipeline import folders, listing
from input_pipeline.layouts.members import Members, Stored, members
from input_pipeline.names import shown


def find(directory: Path) -> Stored | None:
    """The folder as a split, if it holds images and no class folders; otherwise None."""
    if not folders.holds_images(directory) or folders.class_folders(directory):
        return None
    return Stored(
        f"the flat folder {shown(directory.name)}/",
        (directory,),
        lambda: _list(directory),
        lambda path, place, size, name: folders.read_file(os.fsencode(path) + b"/" + name),
        labelled=False,
    )


def _list(directory: Path) -> Members:
    images, notes = listing.images_in(directory)
    names, sizes = [name for name, _ in images], [size for _, size in images]
    return members([(names, [-1] * len(names), sizes, 0, [0] * len(names))], notes=notes)
