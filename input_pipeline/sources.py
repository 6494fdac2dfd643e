"""Where examples come from: folders of images, TFDS directories, arrays in memory.

Every source gives random access. The cheap part, finding examples by index, runs
in NumPy for a whole batch; the costly part, reading and decoding, is a graph
function that tf.data runs in parallel.
"""

import contextlib
import dataclasses
import hashlib
import os
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DataError

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".gif", ".bmp")


@dataclasses.dataclass(frozen=True)
class Examples:
    """The labelled images of one split.

    Attributes:
      count: number of examples.
      find: indices int64 [B] -> the arrays, each [B, ...], from which `load` makes
        the examples.
      find_spec: shape and dtype of one row of each of these arrays.
      load: one row of each array -> (image uint8 [height, width, 3], label int32), in graph.
      name: index -> what to call the example in a message.
      fingerprint: changes with the examples' names, sizes, order and labels.
    """

    count: int
    find: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    find_spec: tuple[tf.TensorSpec, ...]
    load: Callable[..., tuple[tf.Tensor, tf.Tensor]]
    name: Callable[[int], str]
    fingerprint: str


def subset(examples: Examples, indices: np.ndarray) -> Examples:
    """The examples at `indices` (int64 [count]), in that order."""
    return dataclasses.replace(
        examples,
        count=len(indices),
        find=lambda rows: examples.find(indices[rows]),
        name=lambda row: examples.name(int(indices[row])),
        fingerprint=digest(examples.fingerprint, indices.tobytes()),
    )


def digest(*parts: str | bytes) -> str:
    """A short hexadecimal hash of the parts."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()[:16]


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """JPEG, PNG, GIF or BMP bytes -> uint8 [height, width, 3], in graph.

    The format is found in the bytes, never taken from a file's name. Gray and CMYK
    images become RGB. JPEGs are decoded by the accurate integer transform, as PIL
    does it; TensorFlow's default differs from that by about a grey level.
    """
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    image.set_shape([None, None, 3])
    return image


def from_arrays(images: np.ndarray, labels: np.ndarray, name: str) -> Examples:
    """Examples in memory.

    Args:
      images: uint8 [count, height, width, 3].
      labels: int32 [count].
      name: what they are called in messages.
    """
    return Examples(
        count=len(images),
        find=lambda rows: (images[rows], labels[rows]),
        find_spec=(tf.TensorSpec(images.shape[1:], tf.uint8), tf.TensorSpec([], tf.int32)),
        load=lambda image, label: (image, label),
        name=lambda row: f"{name} example {row}",
        fingerprint=digest(name, images.tobytes(), labels.tobytes()),
    )


def class_folders(directory: Path) -> list[str]:
    """Names of the folders in `directory`, sorted; hidden ones do not count."""
    with os.scandir(directory) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def from_folders(directory: Path, class_names: Sequence[str]) -> Examples:
    """Images in class folders, `directory/<class name>/*`.

    Files are read in sorted order; what is hidden or has no image suffix is left out.

    Args:
      directory: where the class folders are.
      class_names: the label of a folder is the place of its name in this list.

    Raises:
      DataError: a folder of another name, or no image in any folder.
    """
    label_of = {name: label for label, name in enumerate(class_names)}
    paths: list[str] = []
    sizes: list[int] = []
    labels: list[int] = []
    for folder in class_folders(directory):
        if folder not in label_of:
            raise DataError(
                f"{directory / folder}: {folder!r} is not one of the {len(class_names)} classes "
                "of the training set"
            )
        with os.scandir(directory / folder) as entries:
            files = sorted(
                (e.name, e.stat().st_size)
                for e in entries
                if e.name.lower().endswith(IMAGE_SUFFIXES) and not e.name.startswith(".")
            )
        paths += [f"{folder}/{file}" for file, _ in files]
        sizes += [size for _, size in files]
        labels += [label_of[folder]] * len(files)
    if not paths:
        raise DataError(
            f"{directory}: no images in its class folders "
            f"(looked for *{', *'.join(IMAGE_SUFFIXES)})"
        )
    # Fixed-width bytes: a million Python strings would take several times the memory.
    relative = np.array([os.fsencode(path) for path in paths])
    targets = np.array(labels, np.int32)
    prefix = os.fsencode(directory) + b"/"

    def find(rows: np.ndarray) -> tuple[np.ndarray, ...]:
        return np.array([prefix + path for path in relative[rows]], object), targets[rows]

    return Examples(
        count=len(relative),
        find=find,
        find_spec=(tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32)),
        load=lambda path, label: (decode_image(tf.io.read_file(path)), label),
        name=lambda row: os.fsdecode(prefix + relative[row]),
        fingerprint=digest(
            relative.tobytes(), np.array(sizes, np.int64).tobytes(), targets.tobytes(), *class_names
        ),
    )


def from_tfds(builder: Any, split: str, cache_dir: Path) -> Examples:
    """A split of a prepared TFDS dataset, read at random through an index of its records.

    The index (file, offset and length of every record) is made by reading the
    headers of the TFRecord files once: 12 bytes a record, without the images.
    It is kept in `cache_dir`.

    Args:
      builder: from `tfds.builder_from_directory`, with supervised keys.
      split: a split that it has.
      cache_dir: where the index is kept.

    Raises:
      DataError: not TFRecord files, or files missing or cut short.
    """
    info = builder.info
    image_key, label_key = info.supervised_keys
    files = [Path(str(path)) for path in info.splits[split].filepaths]
    if builder.info.file_format is not None and builder.info.file_format.value != "tfrecord":
        raise DataError(
            f"{builder.data_path}: files are {builder.info.file_format.value}, not tfrecord; "
            "prepare the dataset with file_format='tfrecord'"
        )
    for path in files:
        if not path.exists():
            raise DataError(f"{path}: missing; prepare the dataset again")
    fingerprint = digest(
        info.full_name, split, *(f"{path.name}:{path.stat().st_size}" for path in files)
    )
    file_of, offsets, lengths = _record_index(files, cache_dir / f"records-{fingerprint}.npz")
    if len(offsets) != info.splits[split].num_examples:
        raise DataError(
            f"{builder.data_path}: split {split} has {len(offsets)} records but says it has "
            f"{info.splits[split].num_examples}; prepare it again"
        )
    names = [os.fsencode(path) for path in files]
    import tensorflow_datasets as tfds

    def find(rows: np.ndarray) -> tuple[np.ndarray, ...]:
        return np.array([names[f] for f in file_of[rows]], object), offsets[rows], lengths[rows]

    def read(path: Any, offset: Any, length: Any) -> bytes:
        with open(np.asarray(path).item(), "rb", buffering=0) as file:  # an array when eager
            return os.pread(file.fileno(), int(length), int(offset))

    def load(path: tf.Tensor, offset: tf.Tensor, length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        record = tf.numpy_function(read, [path, offset, length], tf.string, stateful=False)
        record.set_shape([])
        example = info.features.deserialize_example(
            record, decoders={image_key: tfds.decode.SkipDecoding()}
        )
        return decode_image(example[image_key]), tf.cast(example[label_key], tf.int32)

    return Examples(
        count=len(offsets),
        find=find,
        find_spec=(
            tf.TensorSpec([], tf.string),
            tf.TensorSpec([], tf.int64),
            tf.TensorSpec([], tf.int64),
        ),
        load=load,
        name=lambda row: f"{files[file_of[row]]} at byte {offsets[row]}",
        fingerprint=fingerprint,
    )


def _record_index(files: Sequence[Path], cache: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(file, offset, length) of every record, int64 [records] each, from the cache if there."""
    saved = load_arrays(cache)
    if saved is not None and saved.keys() >= {"shard", "offset", "length"}:
        return saved["shard"], saved["offset"], saved["length"]
    index: list[tuple[int, int, int]] = []
    for number, path in enumerate(files):
        size = path.stat().st_size
        with open(path, "rb", buffering=0) as file:
            position = 0
            while position < size:
                # Length and its checksum, the record, the record's checksum.
                header = os.pread(file.fileno(), 12, position)
                length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else size
                if position + 16 + length > size:
                    raise DataError(f"{path}: cut short at byte {position}; prepare it again")
                index.append((number, position + 12, length))
                position += 16 + length
    columns = np.array(index, np.int64).reshape(-1, 3).T
    save_arrays(cache, shard=columns[0], offset=columns[1], length=columns[2])
    return columns[0], columns[1], columns[2]


def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """What `save_arrays` wrote; None if it is not there or damaged."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            return dict(saved)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes a .npz file so that a reader sees the whole of it or none.

    Nothing is raised if the place cannot be written: it is a cache.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(temporary, path)
    except OSError as error:
        print(f"warning: {path} could not be kept ({error.strerror}); it will be made again")
        with contextlib.suppress(OSError):
            temporary.unlink()
