"""Images in one folder whose labels lie elsewhere, as the challenge gives its validation images."""

import os
from pathlib import Path

from input_pipeline import folders, names
from input_pipeline.layouts.members import Members, Stored, members
from input_pipeline.names import shown


def find(directory: Path) -> Stored | None:
    """The folder, if images lie in it and no folders of classes do."""
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
    images, other = [], []
    with os.scandir(os.fsencode(directory)) as entries:
        for entry in entries:
            name = shown(entry.name)
            if names.is_clutter(name):
                continue
            if folders.named_as_image(name):
                images.append((entry.name, entry.stat().st_size))
            else:
                other.append(name)
    listed, sizes = zip(*images, strict=True)
    count = len(images)
    notes = [f"{shown(directory)}: not used: {names.listed(sorted(other))}"] if other else []
    return members([(listed, [-1] * count, sizes, 0, [0] * count)], notes=notes)
