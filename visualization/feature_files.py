"""Files of features: a layer's activations for the images of a split, and what they are of.

`<split>-<layer>.npy` is float32 [N, features]; `<split>-<layer>.npz` beside it says of each row
which image it is, and of all of them which network, layer and data they are of. Rows are written
as they are computed, so that a split may be larger than memory.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import files
from configs.common import ConfigError
from training import RunError
from training.scoring import scores_digest
from visualization.opening import Opened

_ENDS = 2**16  # bytes of a file's beginning and end
# Ways to make one number of each map; `none` keeps every value, in the order (y, x, map).
POOLS = ("none", "average", "max")


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """The content of a file of features.

    Attributes:
      path: of the `.npy` file.
      values: float32 [N, features], mapped from the file: only rows that are used are read.
      index: int64 [N], ascending: number of each row's image in the split.
      label: int32 [N], -1 for none.
      unreadable: int64, numbers of the images that could not be read.
      about: what the features are of; see `about`.
    """

    path: Path
    values: np.ndarray
    index: np.ndarray
    label: np.ndarray
    unreadable: np.ndarray
    about: dict[str, str]

    def holds(self, wanted: np.ndarray) -> bool:
        """Whether the images of these numbers are all there, or cannot be read."""
        return bool(np.isin(wanted, np.concatenate([self.index, self.unreadable])).all())

    def rows(self, wanted: np.ndarray) -> np.ndarray:
        """The features of the images of these numbers, which are all there: [len(wanted), ...]."""
        return self.values[np.searchsorted(self.index, wanted)]


def about(opened: Opened, split: str, layer: str, pool: str) -> dict[str, str]:
    """What features are of. Files are of the same network and data if all of this is equal.

    Returns:
      `network` and `digest` (of its options, weights, normalisation and crop), `layer` and `pool`
      (`none` where the layer makes no maps), `images` (see `Data.pixels_digest`: an image of a
      folder that is replaced by one of the same name and length is not noticed), `split`.
      `source` and `data` are for reading only.

    Raises:
      ConfigError, DataError, TrainingError: the network or the data cannot be opened.
    """
    trained, data = opened.trained, opened.data(split)
    made = dataclasses.asdict(opened.look.images) | dataclasses.asdict(_preprocessing(opened))
    return {
        "network": trained.name,
        "digest": scores_digest(trained, {"options": trained.options, "preprocessing": made}),
        "layer": layer,
        "pool": pool if len(opened.shapes[layer]) == 3 else "none",
        "images": data.pixels_digest(split, opened.look.images),
        "split": split,
        "source": trained.source + ("" if trained.step is None else f" at step {trained.step}"),
        "data": f"{data.dataset.name}{f' in {where}' if (where := opened.data_dir()) else ''}",
    }


def _preprocessing(opened: Opened) -> Any:
    assert opened.trained.preprocessing is not None, "there is a look"
    return opened.trained.preprocessing


def file_name(of: Mapping[str, str]) -> str:
    """Name of the `.npy` file, such as `test-fc7.npy` or `test-conv5-average.npy`."""
    pool = "" if of["pool"] == "none" else f"-{of['pool']}"
    return f"{of['split']}-{of['layer'].replace('/', '_')}{pool}.npy"


def pooled(values: np.ndarray, pool: str) -> np.ndarray:
    """Activations [b, ...] -> [b, features]; `pool` is one of `POOLS`."""
    if values.ndim == 4 and pool != "none":
        return values.mean(axis=(1, 2)) if pool == "average" else values.max(axis=(1, 2))
    return values.reshape(len(values), -1)


def compute(
    opened: Opened, split: str, paths: Mapping[Path, Mapping[str, str]], chosen: np.ndarray
) -> None:
    """Computes layers in one pass over images, and writes the files of each.

    No file changes before all are complete. At most a batch of features is in memory, and the
    number, label and name of each image. All files are in one directory.

    Args:
      opened: the network.
      split: which split.
      paths: of the `.npy` files, and what each is `about`.
      chosen: int64, ascending: numbers of the images in the split.

    Raises:
      ConfigError: another process writes features into the directory.
      DataError: no image can be read.
      RunError: the files cannot be written.
    """
    data = opened.data(split)
    examples = data.examples(split)
    index, label = [], []
    layers = sorted({of["layer"] for of in paths.values()})
    (place,) = {path.parent for path in paths}
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(files.locked(place, directory=True))
            described = {p: stack.enter_context(_described(p.with_suffix(".npz"))) for p in paths}
            appends = {p: stack.enter_context(_appending(p)) for p in paths}
            for found, batch in opened.activations(layers, only=split, chosen=chosen):
                index.append(batch["index"])
                label.append(batch["label"])
                for path, of in paths.items():
                    appends[path](pooled(found[of["layer"]], of["pool"]))
            arrays = {
                "index": np.concatenate(index),
                "label": np.concatenate(label),
                "unreadable": np.setdiff1d(chosen, np.concatenate(index)),
            }
            arrays["name"] = np.array([examples.name(int(n)) for n in arrays["index"]], np.str_)
            arrays["class_names"] = np.array(data.class_names, np.str_)
            for path, of in paths.items():
                texts = {**of, "rows": appends[path](None)}
                described[path](arrays | {key: np.array(value) for key, value in texts.items()})
    except BlockingIOError as error:
        raise ConfigError(
            f"{place}: another process is writing features there; wait for its end, or name "
            "another directory"
        ) from error
    except OSError as error:
        raise RunError(
            f"{place}: {len(chosen):,} images of {', '.join(layers)} cannot be written "
            f"({error.strerror}); choose another place, fewer images, or a --pool"
        ) from error


@contextlib.contextmanager
def _appending(path: Path) -> Generator[Callable[[np.ndarray | None], str], None, None]:
    """A function that appends rows [b, n] to a `.npy` file, which appears whole at the end.

    With None in place of rows it completes the file, and returns `_digest` of it.
    """
    count, width = 0, 0

    def header() -> None:
        # NumPy leaves room for any count, so that the header's length stays the same.
        shape = {"descr": "<f4", "fortran_order": False, "shape": (count, width)}
        np.lib.format.write_array_header_1_0(file, shape)

    def append(rows: np.ndarray | None) -> str:
        nonlocal count, width
        if rows is None:
            file.seek(0)
            header()
            file.flush()
            return _digest(temporary)
        if not count:
            width = rows.shape[1]
            header()
        file.write(np.ascontiguousarray(rows, "<f4").data)
        count += len(rows)
        return ""

    with files.replacing(path, shared=True) as temporary, open(temporary, "wb") as file:
        yield append


def _digest(path: Path) -> str:
    """Of a file's beginning and end: features of two networks have not the same first row."""
    with open(path, "rb") as file:
        begin = file.read(_ENDS)
        file.seek(-min(file.seek(0, 2), _ENDS), 2)
        return hashlib.sha256(begin + file.read()).hexdigest()[:16]


@contextlib.contextmanager
def _described(path: Path) -> Generator[Callable[[dict[str, np.ndarray]], None], None, None]:
    """A function that writes arrays to a `.npz` file, which appears at the end."""
    with files.replacing(path, shared=True) as temporary, open(temporary, "wb") as file:
        yield lambda arrays: np.savez_compressed(file, allow_pickle=False, **arrays)


def check_room(paths: Mapping[Path, Mapping[str, str]], chosen: np.ndarray) -> None:
    """Checks that no file would be replaced by one with fewer images of the same.

    Args:
      paths, chosen: as for `compute`.

    Raises:
      ConfigError: a file holds images that are not among the chosen; the message names it.
    """
    for path, of in paths.items():
        if not path.exists():
            continue
        try:
            kept = read(path)
            check(kept, of)
        except ConfigError:
            continue  # of something else, or damaged: it is written anew
        more = len(np.setdiff1d(np.union1d(kept.index, kept.unreadable), chosen))
        if more:
            raise ConfigError(
                f"{path}: holds {len(kept.index):,} images, {more:,} of them not among these "
                f"{len(chosen):,}; remove it, or write to another directory with --out=DIR"
            )


def read(path: Path) -> Features:
    """Opens the `.npy` file at `path` and the `.npz` file beside it.

    Raises:
      ConfigError: a file is missing or damaged, or they are not of one another.
    """
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as saved:
            found = {name: saved[name] for name in ("index", "label", "unreadable")}
            texts = {k: str(saved[k]) for k in saved if saved[k].shape == ()}
        if len(values) != len(found["index"]) or values.ndim != 2:
            raise ValueError(f"{len(found['index'])} rows described, {values.shape} stored")
        if texts.get("rows") != _digest(path):
            raise ValueError("rows of another file are described, or by an earlier version")
    except Exception as error:  # damaged files fail in many ways
        raise ConfigError(
            f"{path}: no features with their description ({error}); remove it, or name another "
            "directory with --features=DIR"
        ) from error
    return Features(path, values, about=texts, **found)


def check(kept: Features, expected: Mapping[str, str]) -> None:
    """Checks that features are of a network and of data; `expected` is from `about`.

    Raises:
      ConfigError: they are of others; the message names them.
    """
    differing = [k for k in expected if kept.about.get(k) != expected[k]]
    way_out = "name another directory with --features=DIR, remove the file, or write it again "
    way_out += "with python -m visualization.features"
    of, this = kept.about, f"{expected['network']} of {expected['source']}"
    if "digest" in differing or "network" in differing:
        raise ConfigError(
            f"{kept.path}: features of another network, {of.get('network')} of "
            f"{of.get('source')}, and this is {this}; {way_out}"
        )
    if {"images", "split"} & set(differing):
        raise ConfigError(
            f"{kept.path}: features of other data, {of.get('split')} of {of.get('data')}, and "
            f"this is {expected['split']} of {expected['data']}; {way_out}"
        )
    if {"layer", "pool"} & set(differing):
        raise ConfigError(
            f"{kept.path}: features of layer {of.get('layer')} with --pool={of.get('pool')}; "
            f"{way_out}"
        )
