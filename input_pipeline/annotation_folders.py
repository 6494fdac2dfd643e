"""Folders of annotations beside those of classes or splits."""

import os
from pathlib import Path

from input_pipeline import coco, names
from input_pipeline.listing import named_as_image
from input_pipeline.names import shown

NAMES = ("Annotations", "annotations")


def is_one(directory: Path) -> bool:
    """Whether a folder holds annotations: XML files in it or below, or COCO's JSON directly in it.

    The first folder that has any file of use tells; if images are there, it is no such folder.

    Raises:
      OSError: a folder cannot be listed.
    """

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    top, seen = os.fsencode(directory), set()
    for folder, below, files in os.walk(top, onerror=fail, followlinks=True):
        status = os.stat(folder)  # noqa: PTH116 (bytes)
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder that holds it
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        named = [shown(name) for name in files]
        if any(map(named_as_image, named)):
            return False
        if any(names.suffix(name) == ".xml" for name in named):
            return True
        if folder == top and any(coco.split_in(name)[0] for name in named):
            return True
    return False
