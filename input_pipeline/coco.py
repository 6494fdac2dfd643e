"""Annotation files in COCO's JSON: one file for all images of a split, or of a dataset."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from input_pipeline.errors import DataError, first_line
from input_pipeline.names import shown, split_of

# instances_train2017.json, annotations_val.json, train.coco.json; _annotations.coco.json of all.
_NAMED = re.compile(
    r"(?:instances|annotations|coco)_?([a-z]+?)?(?:[-_]?\d{4})?\.json|"
    r"_?([a-z]+?)(?:[-_]?\d{4})?\.coco\.json",
    re.IGNORECASE,
)
LOOKED_FOR = "instances_<split>.json"
# Annotations of an image as `annotations.parsed` gives them: its width and height in pixels; and of
# each object its name and [xmin, ymin, xmax, ymax].
Parsed = tuple[int, int, list[tuple[str, list[float]]]]


def split_in(name: str) -> tuple[bool, str | None]:
    """Whether a file is called as COCO's files are; and its split, None for no certain one."""
    match = _NAMED.fullmatch(name)
    if not match:
        return False, None
    said = match[1] or match[2] or ""
    split = split_of(said)
    return split is not None or said.lower() in ("", "annotations", "instances"), split


def annotated(path: Path) -> Iterator[tuple[bytes, Parsed | Exception]]:
    """Yields the path of every image that has boxes, and these, or what is wrong with them.

    COCO's boxes are left, top, width and height of a region; their last pixel is one less than
    where they end.

    Raises:
      DataError: the file is no COCO JSON.
    """
    try:
        content = json.loads(path.read_bytes())
        names = {of["id"]: str(of["name"]) for of in content["categories"]}
        of_image: dict[Any, list[dict[str, Any]]] = {}
        for annotation in content["annotations"]:
            of_image.setdefault(annotation["image_id"], []).append(annotation)
        images = [(image["id"], str(image["file_name"]), image) for image in content["images"]]
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{shown(path)}: no JSON ({first_line(error)}); move it elsewhere to do without boxes"
        ) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{shown(path)}: no annotations of COCO: no {first_line(error)} (there are lists of "
            "categories, annotations and images); move it elsewhere to do without boxes"
        ) from error
    for number, name, image in images:
        drawn = of_image.get(number, [])
        if drawn:
            yield name.encode("utf-8", "surrogateescape"), _of_image(image, drawn, names)


def _of_image(
    image: dict[str, Any], drawn: list[dict[str, Any]], names: dict[Any, str]
) -> Parsed | Exception:
    try:
        width, height = int(image["width"]), int(image["height"])
        if not (0 < width < 2**31 and 0 < height < 2**31):
            raise ValueError("it does not say the size of the image")
        objects = []
        for one in drawn:
            left, top, across, down = map(float, one["bbox"])
            corners = [left, top, left + across - 1, top + down - 1]
            if not np.isfinite(corners).all():
                raise ValueError("a box without its corners")
            objects.append((names[one["category_id"]], corners))
    except KeyError as error:
        return ValueError(f"without {error}")
    except (TypeError, ValueError, OverflowError) as error:
        return error
    return width, height, objects
