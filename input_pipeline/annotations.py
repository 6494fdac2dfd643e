"""Finds and indexes a dataset's annotations: PASCAL VOC XML in directories and tars, COCO JSON."""

import array
import dataclasses
import functools
import os
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from input_pipeline import annotation_files, annotation_folders, coco, folders, names
from input_pipeline.boxes import NONE, Boxes, normalized
from input_pipeline.errors import DataError, first_line
from input_pipeline.names import shown
from input_pipeline.report import progress_bar, warn
from input_pipeline.sources import Examples, digest, load_arrays, save_arrays

# Many files of the dogs of n02092002 name them in words (seen in TensorFlow's
# models/research/slim/datasets/process_bounding_boxes.py).
_IN_WORDS = {"Scottish_deerhound": "n02092002"}
_BBOXES = re.compile(r".*bbox_([a-z]+?)(_v\d+)?(\.tar|\.tar\.gz|\.tgz)?", re.IGNORECASE)
_OF_IMAGENET = re.compile(rb"n\d{8}_\d+|ILSVRC\d{4}_\w+_\d{8}")
_OF_ANNOTATIONS = re.compile(rb"annotation|bbox", re.IGNORECASE)
# Up to this many files in a directory, the state of each is checked, to notice edited files.
_MANY = 10_000
LOOKED_FOR = (
    "Annotations/CLS-LOC/<split>/, Annotations/<split>/, ILSVRC2012_bbox_<split>*.tar.gz, "
    f"{coco.LOOKED_FOR}"
)


def beside(root: Path) -> dict[str, list[Path]]:
    """Where the annotations of each split are, directories and tars: those that are there.

    Looked for is `LOOKED_FOR`: in the directory of a dataset, in ILSVRC/ there, and where it is
    Kaggle's ILSVRC/Data/CLS-LOC, in that ILSVRC/. Annotations/ without folders of splits is of
    all splits, and may be spelled annotations/. COCO's files may also be in it; those without the
    name of a split are of all.

    Args:
      root: the directory, or a list of images.
    """
    home = root if root.is_dir() else root.parent
    homes = [home, home / "ILSVRC", *(p.parent for p in (home, home.parent) if p.name == "Data")]
    found: dict[str, list[Path]] = {}
    for place in filter(Path.is_dir, homes):
        spelled = [place / name for name in annotation_folders.NAMES]
        bases = [base for path in spelled for base in (path / "CLS-LOC", path)]
        base = next(filter(annotation_folders.is_one, bases), None)
        jsons = _cocos(place)
        for split in names.SPLITS:
            found.setdefault(split, []).extend(path for path, of in jsons if of in (None, split))
        if base is not None and any(base in path.parents for path, _ in jsons):
            base = None
        inside = {} if base is None else folders.class_folders(base)
        of_split = {names.split_of(name): os.fsdecode(raw) for name, raw in inside.items()}
        for split in names.SPLITS:
            if base is not None and split in of_split:
                found.setdefault(split, []).append(base / of_split[split])
            elif base is not None and not of_split.keys() - {None}:
                found.setdefault(split, []).append(base)
        for path in sorted(place.iterdir()):
            match = _BBOXES.fullmatch(path.name)
            named = names.split_of(match[1]) if match else None
            if match and named and (path.is_file() if match[3] else path.is_dir()):
                found.setdefault(named, []).append(path)
    return {split: places for split, places in found.items() if places}


def _cocos(place: Path) -> list[tuple[Path, str | None]]:
    """COCO's files of a dataset's directory, each with its split, None for all."""
    found: list[tuple[Path, str | None]] = []
    for directory in (place, *(place / name for name in annotation_folders.NAMES)):
        for path in sorted(directory.glob("*.json")):
            named, split = coco.split_in(path.name)
            if named and not any(path.samefile(other) for other, _ in found):
                found.append((path, split))
    return found


def names_in(root: Path) -> list[str]:
    """Names of the files and folders of a directory that annotations are in."""
    places = [place for there in beside(root).values() for place in there]
    return [place.relative_to(root).parts[0] for place in places if root in place.parents]


def boxes_of(examples: Examples, what: str) -> Callable[[int], Boxes]:
    """The function that gives the boxes of an example.

    Args:
      examples: of a split.
      what: asks for them, at the beginning of the message.

    Raises:
      DataError: there are no annotations.
    """
    if examples.boxes is None:
        raise DataError(
            f"{what}: there are no annotations of {examples.name(0)} and the other images of its "
            f"split (looked for {LOOKED_FOR}; images that were prepared have none)"
        )
    return examples.boxes


def with_boxes(
    examples: Examples,
    places: Sequence[Path],
    class_names: Sequence[str],
    cache_dir: Path,
    within: Path | None = None,
) -> Examples:
    """Adds boxes to examples.

    An annotation is matched to an image by its own path, whatever its `filename` element says; see
    `_matched`. The files are read once, with a progress bar, when boxes are first needed. The index
    is kept in `cache_dir`.

    Args:
      examples: their names must end as the paths of the image files do.
      places: directories and tars of annotations.
      class_names: in the order of their labels.
      cache_dir: where the index is kept.
      within: only images in this directory get boxes, and others keep theirs; None for all images.
    """
    inside = "" if within is None else f"{shown(within)}/"
    lock = threading.Lock()

    @functools.cache
    def loaded() -> tuple[_Index, np.ndarray]:
        index = _Index.load(places, class_names, cache_dir)
        files = map(examples.name, range(examples.count))
        mine = (name if name.startswith(inside) else "" for name in files)
        of_image, shared = _matched(index.keys.tolist(), mine)
        if shared:
            warn(
                f"{', '.join(map(shown, places))}: {len(shared):,} annotations are not used: each "
                f"may be of several images ({names.listed(sorted(map(shown, shared)), 3)})",
                "note",
            )
        return index, of_image

    def boxes(row: int) -> Boxes:
        with lock:
            index, of_image = loaded()
        if of_image[row] < 0:
            return NONE if examples.boxes is None else examples.boxes(row)
        return index.boxes(int(of_image[row]))

    said = ", ".join([*filter(None, [examples.boxes_from]), *map(shown, places)])
    return dataclasses.replace(examples, boxes=boxes, boxes_from=said)


@dataclasses.dataclass(frozen=True)
class _Index:
    """The indexed annotations of a split.

    Attributes:
      keys: bytes [files]; see `_key`.
      begins: int64 [files + 1]: the boxes of file i are begins[i] to begins[i + 1] - 1.
      shown: int32 [files, 2]: width and height in pixels.
      edges: float32 [boxes, 4]; see `Boxes`.
      labels: int32 [boxes].
    """

    keys: np.ndarray
    begins: np.ndarray
    shown: np.ndarray
    edges: np.ndarray
    labels: np.ndarray

    def boxes(self, file: int) -> Boxes:
        """The boxes of one annotation file, by its index."""
        rows = slice(self.begins[file], self.begins[file + 1])
        width, height = self.shown[file].tolist()
        return Boxes(self.edges[rows], self.labels[rows], (width, height))

    @classmethod
    def load(cls, places: Sequence[Path], class_names: Sequence[str], cache_dir: Path) -> "_Index":
        """Loads the index from the cache, or builds it from the files."""
        with folders.readable():
            state = digest("whole paths", *(part for place in places for part in _state(place)))
            # The name does not depend on the files' state, so that a new index replaces the old.
            cache = cache_dir / f"boxes-{digest(*(shown(p.resolve()) for p in places))}.npz"
            saved = load_arrays(
                cache, "state", "keys", "begins", "shown", "edges", "names", "objects", "faults"
            )
            if saved is None or saved["state"] != state:
                saved = _read(places)
                save_arrays(cache, state=np.array(state), **saved)
        for text, kind in zip(saved["faults"].tolist(), ("warning", "note"), strict=True):
            if text:
                warn(text, kind)
        label_of = {names.key(name): label for label, name in enumerate(class_names)}
        known = [names.key(name) for name in saved["objects"].tolist()]
        known = [name if name in label_of else _IN_WORDS.get(name, name) for name in known]
        labels = np.array([label_of.get(name, -1) for name in known], np.int32)
        _tell_unknown(saved, labels, places)
        return cls(
            saved["keys"], saved["begins"], saved["shown"], saved["edges"], labels[saved["names"]]
        )


def _tell_unknown(saved: dict[str, np.ndarray], labels: np.ndarray, places: Sequence[Path]) -> None:
    """Prints which names of objects are none of the classes', with a file of each."""
    counts = np.bincount(saved["names"], minlength=len(labels))
    said = []
    for number in np.flatnonzero((labels < 0) & (counts > 0)).tolist():
        first = np.flatnonzero(saved["names"] == number)[0]
        file = int(np.searchsorted(saved["begins"], first, side="right")) - 1
        name = str(saved["objects"][number]) or "nothing"
        said.append(f"{name} in {shown(bytes(saved['keys'][file]))}")
    if said:
        objects = int(counts[labels < 0].sum())
        warn(
            f"{', '.join(map(shown, places))}: {objects:,} objects are called as none of the "
            f"classes is ({names.listed(said, 3)})",
            "note",
        )


def _key(path: bytes) -> bytes:
    """The key of an annotation: the end of its path, without suffix, that its image's path shares.

    For ImageNet's file names, which are unique, the key is the name alone. For others it is the
    path below the last folder that is named as a split or as annotations.

    Args:
      path: path of the annotation in the directory or tar of a split.
    """
    *above, file = path.split(b"/")
    stem = file.rpartition(b".")[0]
    if _OF_IMAGENET.fullmatch(stem):
        return stem
    of_all = [
        number
        for number, name in enumerate(above, 1)
        if _OF_ANNOTATIONS.search(name) or names.split_of(shown(name)) or name == b"."
    ]
    return b"/".join([*above[max(of_all, default=0) :], stem])


def _matched(keys: Sequence[bytes], files: Iterable[str]) -> tuple[np.ndarray, list[bytes]]:
    """Finds the annotation of each image.

    An annotation matches an image if its key ends the image's path without suffix: `cat/a/1`
    matches cat/a/1.jpg, not dog/a/1.jpg. Of several, the longest key counts. If no image has a
    match, all annotations may lie in a folder of another name: the search is repeated without the
    first folder of each key, as long as one folder remains.

    Args:
      keys: see `_key`; of equal keys the first counts.
      files: the images' paths.

    Returns:
      Indices of annotations, int64 [images], -1 for none; and the keys that match several images,
      which then get none. A key that is one of ImageNet's names may match several.
    """
    paths = []
    for name in files:
        above, slash, file = name.encode("utf-8", "surrogateescape").rpartition(b"/")
        paths.append(above + slash + (file.rpartition(b".")[0] or file))
    depth = max((key.count(b"/") for key in keys), default=0)
    while True:
        index_of: dict[bytes, int] = {}
        for index, key in enumerate(keys):
            index_of.setdefault(key, index)
        found = np.full(len(paths), -1, np.int64)
        for row, path in enumerate(paths):
            parts = path.split(b"/")
            for length in range(min(depth + 1, len(parts)), 0, -1):
                match = index_of.get(b"/".join(parts[-length:]))
                if match is not None:
                    found[row] = match
                    break
        if (found >= 0).any() or not depth:
            break
        keys = [key.partition(b"/")[2] if b"/" in key else key for key in keys]
        depth -= 1
        if not depth:  # a bare file name could be in any class
            break
    counts = np.bincount(found[found >= 0], minlength=len(keys))
    shared = [
        index
        for index in np.flatnonzero(counts > 1).tolist()
        if not _OF_IMAGENET.fullmatch(keys[index])
    ]
    found[np.isin(found, shared)] = -1
    return found, [keys[index] for index in shared]


def _state(place: Path) -> list[str]:
    """Describes the files' state by text that changes when one is added, removed or renamed.

    Up to `_MANY` files, the text also changes when one is overwritten in place.
    """
    if not place.is_dir():
        status = place.stat()
        return [f"{shown(place)}:{status.st_mtime_ns}:{status.st_size}"]
    top, state, seen = os.fsencode(place), [shown(place)], 0
    for directory, subfolders, files in os.walk(top):
        subfolders[:] = sorted(
            raw for raw in subfolders if not names.is_clutter(shown(raw), folder=True)
        )
        seen += len(files)
        checked = [directory]
        if seen <= _MANY:
            checked += [directory + b"/" + raw for raw in sorted(files)]
        for path in checked:
            try:
                status = os.stat(path)  # noqa: PTH116 (bytes)
            except FileNotFoundError:  # a link to nowhere
                continue
            relative = shown(path[len(top) + 1 :])
            state.append(f"{relative}:{status.st_mtime_ns}:{status.st_size}")
    return state


def _read(places: Sequence[Path]) -> dict[str, np.ndarray]:
    """Reads all annotation files, in the order of their paths, into the arrays of `_Index`.

    In place of `labels`, `names` holds indices in `objects`, the objects' names. `faults` says in
    words which files are not used, and which boxes lie outside of their images; "" for none.
    """
    keys: list[bytes] = []
    begins, sizes = array.array("q", [0]), array.array("i")
    edges, name_indices = array.array("f"), array.array("i")
    index_of: dict[str, int] = {}
    unusable: list[str] = []
    outside: list[str] = []
    title = f"boxes of {', '.join(map(shown, places))}"
    found = (annotation for place in places for annotation in annotation_files.annotated(place))
    for path, parsed in progress_bar(found, desc=title, unit=" images", delay=1.0):
        if isinstance(parsed, Exception):
            unusable.append(f"{shown(path)} ({first_line(parsed)})")
            continue
        width, height, drawn = parsed
        for name, corners in drawn:
            box_edges = normalized(corners, width, height)
            if box_edges is None:
                outside.append(f"{shown(path)} ({' '.join(f'{x:g}' for x in corners)})")
                continue
            edges.extend(box_edges)
            name_indices.append(index_of.setdefault(name, len(index_of)))
        keys.append(_key(path))
        sizes.extend((width, height))
        begins.append(len(name_indices))
    faults = [
        f"{title}: {len(files):,} {what}: {names.listed(files, 3)}" if files else ""
        for what, files in (
            ("annotations are not used", unusable),
            ("boxes lie outside of their image, and are not used", outside),
        )
    ]
    return {
        "faults": np.array(faults, np.str_),
        "keys": np.array(keys, np.bytes_),
        "begins": np.array(begins, np.int64),
        "shown": np.array(sizes, np.int32).reshape(-1, 2),
        "edges": np.array(edges, np.float32).reshape(-1, 4),
        "names": np.array(name_indices, np.int32),
        "objects": np.array(list(index_of), np.str_),
    }
