"""Sources of examples: TFDS directories and arrays in memory; `folders` reads folders of images.

Every source gives random access: any example is read by its index, at the same cost.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import files
from input_pipeline.boxes import Boxes
from input_pipeline.errors import DataError
from input_pipeline.names import shown
from input_pipeline.record_labels import label_in
from input_pipeline.report import progress_bar, warn
from input_pipeline.side_by_side import of_each


@dataclasses.dataclass(frozen=True)
class Examples:
    """The labelled images of one split.

    Attributes:
      count: number of examples.
      read: index -> (a file's bytes or uint8 [height, width, 3], label). Called from many
        threads; raises DataError if the storage cannot be read.
      name: index -> what to call the example in a message.
      fingerprint: changes with the examples' names, sizes, order and labels.
      notes: sentences on files beside the examples that are not used.
      disk_order: int64 [count], the indices in the order in which the images are stored, if
        reading them in that order is far quicker than at random; None otherwise.
      labels: returns the labels of all examples, int32 [count], without reading any image; None
        if labels can only be read with the examples. See `labels_of`.
      ignored: number of hidden files, and of files of operating systems and archivers, among them.
      boxes: index -> the boxes that were drawn in the image, see `boxes.as_read`; called from many
        threads. None where there are no annotations.
      boxes_from: where the annotations are, in words.
    """

    count: int
    read: Callable[[int], tuple[bytes | np.ndarray, int]]
    name: Callable[[int], str]
    fingerprint: str
    notes: tuple[str, ...] = ()
    disk_order: np.ndarray | None = None
    labels: Callable[[], np.ndarray] | None = None
    ignored: int = 0
    boxes: Callable[[int], Boxes] | None = None
    boxes_from: str = ""


def subset(examples: Examples, indices: np.ndarray) -> Examples:
    """The examples at `indices` (int64 [count]), in that order."""
    disk_order = examples.disk_order
    if disk_order is not None:
        disk_order = np.argsort(np.argsort(disk_order)[indices], kind="stable")
    labels, boxes = examples.labels, examples.boxes
    return dataclasses.replace(
        examples,
        count=len(indices),
        read=lambda row: examples.read(int(indices[row])),
        name=lambda row: examples.name(int(indices[row])),
        fingerprint=digest(examples.fingerprint, indices.tobytes()),
        disk_order=disk_order,
        labels=None if labels is None else lambda: labels()[indices],
        boxes=None if boxes is None else lambda row: boxes(int(indices[row])),
    )


def joined(several: Sequence[Examples]) -> Examples:
    """The examples of several sources, one source after another; of one, that one as it is."""
    if len(several) == 1:
        return several[0]
    ends = np.cumsum([one.count for one in several])

    def place(row: int) -> tuple[Examples, int]:
        number = int(np.searchsorted(ends, row, side="right"))
        return several[number], row - int(ends[number]) + several[number].count

    def read(row: int) -> tuple[bytes | np.ndarray, int]:
        one, inside = place(row)
        return one.read(inside)

    def name(row: int) -> str:
        one, inside = place(row)
        return one.name(inside)

    known = [one.labels for one in several if one.labels is not None]
    return Examples(
        count=int(ends[-1]),
        read=read,
        name=name,
        fingerprint=digest(*(one.fingerprint for one in several)),
        notes=tuple(note for one in several for note in one.notes),
        labels=(lambda: np.concatenate([of() for of in known]))
        if len(known) == len(several)
        else None,
        ignored=sum(one.ignored for one in several),
    )


def labels_of(examples: Examples, cache_dir: Path) -> np.ndarray:
    """The labels of all examples, int32 [count].

    If labels can only be read with the examples, all examples are read once, with a progress bar,
    and the labels are cached in `cache_dir`.

    Raises:
      DataError: an example cannot be read.
    """
    if examples.labels is not None:
        return examples.labels()
    cache = cache_dir / f"labels-{examples.fingerprint}.npz"
    return _kept_labels(lambda row: examples.read(row)[1], examples.count, cache)


def _kept_labels(label: Callable[[int], int], count: int, cache: Path) -> np.ndarray:
    """The labels of all examples, int32 [count], from `cache`, or read by `label` and cached."""
    saved = load_arrays(cache, "labels")
    if saved is not None and saved["labels"].shape == (count,):
        return saved["labels"]
    labels = np.fromiter(of_each(label, count, 8, "reading labels", " images"), np.int32, count)
    save_arrays(cache, labels=labels)
    return labels


def digest(*parts: str | bytes) -> str:
    """A hash of the parts, 16 hexadecimal digits of SHA-256."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()[:16]


def from_arrays(images: np.ndarray, labels: np.ndarray, name: str) -> Examples:
    """Examples in memory.

    Args:
      images: uint8 [count, height, width, 3].
      labels: int32 [count].
      name: of the dataset, used in messages.
    """
    return Examples(
        count=len(images),
        read=lambda row: (images[row], int(labels[row])),
        name=lambda row: f"{name} example {row}",
        fingerprint=digest(name, images.tobytes(), labels.tobytes()),
        labels=lambda: labels,
    )


def from_tfds(builder: Any, split: str, cache_dir: Path, *, file_names: bool = False) -> Examples:
    """A split of a prepared TFDS dataset, in TFRecord or ArrayRecord files, with random access.

    ArrayRecord files have an index of their own. For TFRecord files an index is made (file, offset
    and length of every record) by reading the headers of the records once, 12 bytes each, without
    the images. It is cached in `cache_dir`.

    Args:
      builder: from `tfds.builder_from_directory`, with supervised keys.
      split: a split that it has.
      cache_dir: where the index is kept.
      file_names: name examples by their files, if the records contain the file names.

    Raises:
      DataError: files are missing, truncated or of another format.
    """
    info = builder.info
    files = [Path(str(path)) for path in info.splits[split].filepaths]
    for path in files:
        if not path.exists():
            raise DataError(f"{path}: missing; prepare the dataset again")
    fingerprint = digest(
        info.full_name, split, *(f"{path.name}:{path.stat().st_size}" for path in files)
    )
    kind = info.file_format.value if info.file_format is not None else "tfrecord"
    image_key, label_key = info.supervised_keys
    if kind == "tfrecord":
        index = cache_dir / f"records-{fingerprint}.npz"
        count, record, name, label = _tfrecords(files, index, label_key)
    elif kind == "array_record":
        count, record, name, label = _array_records(files, info.splits[split].shard_lengths)
    else:
        raise DataError(
            f"{builder.data_path}: files are {kind}; prepare the dataset with "
            "file_format='array_record' or 'tfrecord'"
        )
    if count != info.splits[split].num_examples:
        raise DataError(
            f"{builder.data_path}: split {split} has {count} records but says it has "
            f"{info.splits[split].num_examples}; prepare it again"
        )
    parse = _parser(info.features[image_key], image_key, label_key)
    if file_names and "file_name" in info.features:
        name = lambda row: _file_name(record(row))  # noqa: E731
    return Examples(
        count=count,
        read=lambda row: parse(record(row)),
        name=name,
        fingerprint=fingerprint,
        labels=None
        if label is None
        else lambda: _kept_labels(label, count, cache_dir / f"labels-{fingerprint}.npz"),
    )


def _file_name(record: bytes) -> str:
    fields = tf.train.Example.FromString(record).features.feature
    return fields["file_name"].bytes_list.value[0].decode("utf-8", "backslashreplace")


def _parser(
    feature: Any, image_key: str, label_key: str
) -> Callable[[bytes], tuple[bytes | np.ndarray, int]]:
    """A function that parses a record, a serialized tf.train.Example.

    Args:
      feature: the image's feature in TFDS: an Image, or a Tensor of pixels of fixed or any size.
      image_key, label_key: names in the record.

    Returns:
      record -> (a file's bytes or uint8 [height, width, 3], label).
    """
    import tensorflow_datasets as tfds

    def any_record(record: bytes) -> tuple[bytes | np.ndarray, int]:
        fields = tf.train.Example.FromString(record).features.feature
        label = fields[label_key].int64_list.value[0]
        if isinstance(feature, tfds.features.Image):
            return fields[image_key].bytes_list.value[0], label
        if None in feature.shape:
            values = fields[f"{image_key}/value"].bytes_list.value[0]
            shape = tuple(fields[f"{image_key}/shape"].int64_list.value)
        else:
            values, shape = fields[image_key].bytes_list.value[0], feature.shape
        return np.frombuffer(values, np.uint8).reshape(shape), label

    if isinstance(feature, tfds.features.Image) or None in feature.shape:
        return any_record

    # Pixels of fixed size always follow the same bytes. Reading them there saves two copies of
    # each image, and half of the time for which a thread holds the interpreter's lock.
    size = int(np.prod(feature.shape))
    pixels = tf.train.Feature(bytes_list=tf.train.BytesList(value=[bytes(size)]))
    entry = tf.train.Features(feature={image_key: pixels}).SerializeToString()
    head = entry[: len(entry) - size]

    def pixel_record(record: bytes) -> tuple[bytes | np.ndarray, int]:
        begin = record.find(head)
        if begin < 0:
            return any_record(record)
        start = 1  # the length of the features, a varint, ends here
        while record[start] & 0x80:
            start += 1
        others = tf.train.Features.FromString(
            record[start + 1 : begin] + record[begin + len(entry) :]
        )
        values = np.frombuffer(record, np.uint8, size, begin + len(head))
        return values.reshape(feature.shape), others.feature[label_key].int64_list.value[0]

    return pixel_record


# The number of records; then functions of a record's index: the record, its name, and its label,
# None if that cannot be read without the image.
_Records = tuple[int, Callable[[int], bytes], Callable[[int], str], Callable[[int], int] | None]


def _tfrecords(files: Sequence[Path], cache: Path, label_key: str) -> _Records:
    file_of, offsets, lengths = _record_index(files, cache)

    def piece(row: int, start: int, length: int) -> bytes:
        path, size = files[file_of[row]], min(int(lengths[row]) - start, length)
        try:
            with open(path, "rb", buffering=0) as file:
                return os.pread(file.fileno(), size, int(offsets[row]) + start)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error

    def record(row: int) -> bytes:
        return piece(row, 0, int(lengths[row]))

    def name(row: int) -> str:
        return f"{shown(files[file_of[row]])} at byte {offsets[row]}"

    def label(row: int) -> int:
        return label_in(functools.partial(piece, row), label_key)

    return len(offsets), record, name, label


def _array_records(files: Sequence[Path], counts: Sequence[int]) -> _Records:
    from array_record.python import array_record_module

    _allow_open_files(len(files))
    ends = np.cumsum(counts)
    readers: dict[int, Any] = {}
    lock = threading.Lock()

    def place(row: int) -> tuple[int, int]:
        file = int(np.searchsorted(ends, row, side="right"))
        return file, row - int(ends[file]) + counts[file]

    def record(row: int) -> bytes:
        file, position = place(row)
        try:
            if file not in readers:
                with lock:
                    if file not in readers:
                        # No reading ahead, because the order is random.
                        readers[file] = array_record_module.ArrayRecordReader(
                            os.fsencode(files[file]),  # as text it would have to be UTF-8
                            options="readahead_buffer_size:0,max_parallelism:0",
                        )
            return readers[file].read([position])[0]
        except (ValueError, RuntimeError, IndexError) as error:
            raise DataError(
                f"{files[file]}: record {position} cannot be read ({str(error)[:200]}); "
                "prepare the dataset again"
            ) from error

    def name(row: int) -> str:
        file, position = place(row)
        return f"{shown(files[file])} record {position}"

    return int(ends[-1]), record, name, None


def _allow_open_files(count: int) -> None:
    """Raises the soft limit of open files, often 1024, to `count` and some more if it is lower."""
    try:
        import resource
    except ImportError:  # not a Unix
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + 512
    if soft != resource.RLIM_INFINITY and soft < needed:
        with contextlib.suppress(ValueError, OSError):
            most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _record_index(files: Sequence[Path], cache: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """File number, offset and length in bytes of every record, int64 [records] each; cached.

    Raises:
      DataError: a file is truncated.
    """
    saved = load_arrays(cache, "shard", "offset", "length")
    if saved is not None:
        return saved["shard"], saved["offset"], saved["length"]
    found = []
    title = f"index of {files[0].parent}"
    for number, path in enumerate(progress_bar(files, desc=title, unit=" files", delay=1.0)):
        size = path.stat().st_size
        index: list[tuple[int, int, int]] = []
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
        found.append(np.array(index, np.int64).reshape(-1, 3))
    columns = np.concatenate(found).T
    save_arrays(cache, shard=columns[0], offset=columns[1], length=columns[2])
    return columns[0], columns[1], columns[2]


def load_arrays(path: Path, *names: str) -> dict[str, np.ndarray] | None:
    """Reads what `save_arrays` wrote; None if it is missing, damaged or lacks one of these names.

    Every exception counts as damage, for which NumPy's and zip's readers raise many kinds.
    """
    try:
        if not path.is_file():  # reading a FIFO would block
            return None
        with np.load(path, allow_pickle=False) as saved:
            arrays = dict(saved)
    except Exception:
        return None
    return arrays if arrays.keys() >= set(names) else None


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes a .npz file atomically.

    It is a cache: if it cannot be written, a warning is printed and nothing raised.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path, shared=True) as temporary, open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    except OSError as error:
        warn(f"{path} could not be kept ({error.strerror}); it will be made again")
