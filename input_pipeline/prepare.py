"""Prepares a dataset: rescales its images once and writes shards that are quick to read at random.

TFDS can read the directory too (`tfds.builder_from_directory`). Its ArrayRecord files contain
tf.train.Example records with `image`, `label` and `file_name`. `prepared.json` has the settings
and the SHA-256 of every shard; `report.jsonl` lists the images that were repaired or left out.
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

import files
from input_pipeline import augment, decode, names
from input_pipeline.batches import Reading, leave_out
from input_pipeline.datasets import Dataset
from input_pipeline.decode import UnreadableError, View
from input_pipeline.errors import DataError, first_line
from input_pipeline.names import shown
from input_pipeline.prepared import ABOUT, load_about, packed, readable_by_tfds
from input_pipeline.report import progress_bar, silent
from input_pipeline.sources import Examples

# An interruption loses at most one shard: 800 MB of raw pixels at a side of 256.
EXAMPLES_PER_SHARD = 4096
_REPORT, _LOCK = "report.jsonl", ".lock.tmp"
_JPEGS_LONGEST = 65_500  # libjpeg's limit for a side, in pixels


def write(
    dataset: Dataset,
    directory: Path,
    settings: dict[str, Any],
    reading: Reading,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Writes all splits of a dataset; continues where an earlier call was stopped.

    Every shard is read back and compared with what was written before it counts as done.

    Args:
      dataset: the source.
      directory: created if missing; otherwise empty, or written by an earlier call.
      settings: from `from_config.prepared_as`.
      reading: how images are read.
      stopped: called after every image; True stops there.

    Returns:
      The content of prepared.json.

    Raises:
      KeyboardInterrupt: `stopped` returned True; the shards written so far are kept.
      DataError: the directory contains other files, another process is preparing there, the disk
        is full or too small, a shard does not read back as it was written, or an image cannot be
        decoded and `reading` says to fail.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(directory):
            return _prepare(dataset, directory, settings, reading, stopped)
    except OSError as error:
        raise _explained(directory, error) from error


def _prepare(
    dataset: Dataset,
    directory: Path,
    settings: dict[str, Any],
    reading: Reading,
    stopped: Callable[[], bool],
) -> dict[str, Any]:
    about = _begin(dataset, directory, settings)
    done = _sound_shards(directory, about)
    left = [
        (split, number, shards)
        for split, examples in dataset.splits.items()
        for shards in [-(-examples.count // EXAMPLES_PER_SHARD)]
        for number in range(shards)
        if _file_name(settings["name"], split, number, shards) not in done
    ]
    if not left and about["complete"] and readable_by_tfds(directory):
        return about
    features = _features(dataset, settings)
    jobs = {
        split: _Job(examples, features, settings, reading)
        for split, examples in dataset.splits.items()
    }
    total = sum(examples.count for examples in dataset.splits.values())
    todo = sum(_rows(dataset.splits[split], number)[1] for split, number, _ in left)
    about["complete"] = False
    if left:
        _check_space(directory, jobs, todo)
    title = f"preparing {directory}"
    with progress_bar(total=total, initial=total - todo, desc=title, unit=" images") as progress:

        def advance() -> None:
            progress.update(1)
            if stopped():
                raise KeyboardInterrupt

        for split, number, shards in left:
            file = _file_name(settings["name"], split, number, shards)
            start, count = _rows(dataset.splits[split], number)
            about["shards"][file] = {
                "split": split,
                **_write_shard(directory / file, jobs[split], start, count, advance),
            }
            _save_json(directory / ABOUT, about)
    _finish(dataset, directory, features, about)
    return about


def _begin(dataset: Dataset, directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The content of prepared.json: that of an earlier call, or a new one."""
    about = {
        "settings": settings,
        "source": dataset.fingerprint,
        "splits": {split: examples.fingerprint for split, examples in dataset.splits.items()},
        "class_names": list(dataset.class_names),
        "complete": False,
        "shards": {},
    }
    saved = load_about(directory)
    if saved is None:
        others = sorted(shown(path.name) for path in directory.iterdir())
        others = [name for name in others if not names.is_clutter(name)]
        if others:
            raise DataError(
                f"data.prepared_dir={directory}: not empty, and not a prepared dataset (it "
                f"holds {names.listed(others, 3)}, no {ABOUT}); name an empty or a new directory"
            )
        _save_json(directory / ABOUT, about)
        return about
    differing = [
        f"{field} (was {saved['settings'].get(field)}, now {value})"
        for field, value in settings.items()
        if saved["settings"].get(field) != value
    ]
    if saved["source"] != dataset.fingerprint:
        differing.append("the images themselves")
    if differing:
        raise DataError(
            f"data.prepared_dir={directory}: begun with other settings: "
            f"{', '.join(differing)}. Name another directory"
        )
    return saved


@contextlib.contextmanager
def _locked(directory: Path) -> Generator[None, None, None]:
    """Keeps other processes from preparing in the same directory.

    Raises:
      DataError: another process is doing so.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(files.locked(directory / _LOCK))
        except BlockingIOError:
            raise DataError(
                f"data.prepared_dir={directory}: another process is preparing there; wait for it"
            ) from None
        yield


def _file_name(name: str, split: str, number: int, shards: int) -> str:
    """File name of a shard; NAME/CONFIG:VERSION becomes one word, as TFDS requires."""
    return (
        f"{re.sub(r'[^0-9A-Za-z_]', '_', name)}-{split}.array_record-{number:05d}-of-{shards:05d}"
    )


def _rows(examples: Examples, number: int) -> tuple[int, int]:
    """First example of a shard, and the number of examples of the source that it covers."""
    start = number * EXAMPLES_PER_SHARD
    return start, min(EXAMPLES_PER_SHARD, examples.count - start)


def _sound_shards(directory: Path, about: dict[str, Any]) -> set[str]:
    """The file names of the shards that are there with the size and SHA-256 in prepared.json."""
    sound = set()
    title = f"verifying {directory}"
    for file, shard in progress_bar(about["shards"].items(), desc=title, unit=" shards", delay=1.0):
        path = directory / file
        if path.exists() and path.stat().st_size == shard["bytes"]:
            with open(path, "rb") as content:
                if hashlib.file_digest(content, "sha256").hexdigest() == shard["sha256"]:
                    sound.add(file)
    return sound


def _features(dataset: Dataset, settings: dict[str, Any]) -> Any:
    import tensorflow_datasets as tfds

    # TFDS stores one name per line and strips it, so other names cannot be stored.
    lines = [name.strip() for name in "\n".join(dataset.class_names).splitlines()]
    as_they_are = lines == list(dataset.class_names)
    label = {"names": lines} if as_they_are else {"num_classes": len(dataset.class_names)}
    if settings["format"] == "jpeg":
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
    else:
        side = settings["size"] if settings["image"] == "square" else None
        image = tfds.features.Tensor(shape=(side, side, 3), dtype=np.uint8, encoding="bytes")
    return tfds.features.FeaturesDict(
        {
            "image": image,
            "label": tfds.features.ClassLabel(**label),
            "file_name": tfds.features.Text(),
        }
    )


@dataclasses.dataclass(frozen=True)
class _Job:
    """Makes the records of a split."""

    examples: Examples
    features: Any
    settings: dict[str, Any]
    reading: Reading

    def index(self, position: int) -> int:
        """The example at a position of the writing order, which is the order on disk if known.

        Examples that are left out have positions too.
        """
        order = self.examples.disk_order
        return position if order is None else int(order[position])

    def record(self, index: int) -> tuple[bytes, int, list[dict[str, str]]]:
        """An example's record (empty if left out), its label, and a note on each repair."""
        notes: list[dict[str, str]] = []
        name = self.examples.name(index)

        def note(what: str, reason: str) -> None:
            notes.append({"image": name, "what": what, "reason": reason})
            self.reading.report(name, what, reason)

        content, label = self.examples.read(index)
        try:
            _, pixels = decode.window(
                content,
                self._view,
                exact=self.reading.exact,
                repaired=lambda reason: note("repaired", reason),
            )
        except UnreadableError as error:
            leave_out(self.examples, index, error, self.reading)
            return b"", label, [{"image": name, "what": "left out", "reason": str(error)}]
        image: Any = pixels
        if self.settings["format"] == "jpeg":
            image = io.BytesIO()
            Image.fromarray(pixels).save(image, "JPEG", quality=self.settings["quality"])
            image.seek(0)
        short = "/".join(name.split("/")[-2:])
        fields = {"image": image, "label": label, "file_name": short}
        return self.features.serialize_example(fields), label, notes

    def _view(self, height: int, width: int) -> View:
        size = self.settings["size"]
        if self.settings["image"] == "square":
            square = augment.central_square(size)
            return augment.view(square, augment.MIDDLE.tolist(), height, width)
        scaled = augment.rescaled(height, width, size)
        too_long = self.settings["format"] == "jpeg" and max(scaled) > _JPEGS_LONGEST
        if scaled[0] * scaled[1] > decode.MAX_PIXELS or too_long:
            raise UnreadableError(f"{width} x {height} would become {scaled[1]} x {scaled[0]}")
        return View((0, 0, height, width), scaled, (0, 0), scaled)


def _records(
    job: _Job, start: int, count: int
) -> Generator[tuple[bytes, int, list[dict[str, str]]], None, None]:
    """The records of a shard in order, made by several threads."""
    failures: list[Exception] = []

    def make(position: np.int64) -> tuple[bytes, bytes]:
        try:
            record, *besides = job.record(job.index(int(position)))
            return record, json.dumps(besides).encode()
        except Exception as error:
            failures.append(error)
            raise

    threads = job.reading.parallel
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    pipeline = tf.data.Dataset.range(start, start + count).map(
        lambda row: tf.numpy_function(make, [row], [tf.string, tf.string], stateful=False),
        4 * threads,
        deterministic=True,
    )
    try:
        for record, besides in pipeline.with_options(options).as_numpy_iterator():
            yield record, *json.loads(besides)
    except tf.errors.OpError as error:
        raise (failures or [error])[0] from error


@contextlib.contextmanager
def _shard_failures(path: Path) -> Generator[None, None, None]:
    """Turns the exceptions of ArrayRecord's writer into DataErrors."""
    try:
        yield
    except DataError:
        raise
    except (RuntimeError, ValueError) as error:
        raise _explained(path.parent, error) from error


def _write_shard(
    path: Path, job: _Job, start: int, count: int, advance: Callable[[], None]
) -> dict[str, Any]:
    """Writes a shard under a temporary name, verifies and renames it; its prepared.json entry."""
    from array_record.python import array_record_module

    written, notes, labels, indices = hashlib.sha256(), [], [], []
    with _shard_failures(path), files.replacing(path) as temporary:
        # One record per chunk for random access; compression would not shrink pixels or JPEGs.
        writer = array_record_module.ArrayRecordWriter(
            os.fsencode(temporary), "group_size:1,uncompressed"
        )
        for position, (record, label, said) in enumerate(_records(job, start, count), start):
            notes += said
            if record:
                writer.write(record)
                written.update(record)
                labels.append(label)
                indices.append(job.index(position))
            advance()
        writer.close()
        again = hashlib.sha256()
        reader = array_record_module.ArrayRecordReader(
            os.fsencode(temporary), options="readahead_buffer_size:0,max_parallelism:0"
        )
        for position in range(reader.num_records()):
            again.update(reader.read([position])[0])
        reader.close()
        if again.digest() != written.digest():
            raise DataError(
                f"{path}: does not read back as it was written; is the disk full or failing? What "
                "was done before is kept: run the same command again"
            )
        with open(temporary, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    about = {
        "records": len(labels),
        "bytes": path.stat().st_size,
        "sha256": sha256,
        "notes": notes,
        "labels": " ".join(map(str, labels)),
    }
    if job.examples.disk_order is not None:
        about["indices"] = packed(indices)
    return about


def _finish(dataset: Dataset, directory: Path, features: Any, about: dict[str, Any]) -> None:
    """Writes the report and what TFDS needs to read the directory."""
    import tensorflow_datasets as tfds

    notes = [note for shard in about["shards"].values() for note in shard["notes"]]
    (directory / _REPORT).write_text("".join(json.dumps(note) + "\n" for note in notes))
    name = about["settings"]["name"]
    infos = []
    for split in dataset.splits:
        if not any(s["records"] for s in about["shards"].values() if s["split"] == split):
            raise DataError(
                f"{directory}: no image of split {split} could be read; "
                f"{directory / _REPORT} says "
                "why. Repair them, or remove the split"
            )
        shards = [shard for _, shard in sorted(about["shards"].items()) if shard["split"] == split]
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[shard["records"] for shard in shards],
                num_bytes=sum(shard["bytes"] for shard in shards),
            )
        )
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints its progress
        tfds.folder_dataset.write_metadata(
            data_dir=directory,
            features=features,
            split_infos=infos,
            version="1.0.0",
            filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            supervised_keys=("image", "label"),
            description=f"{name}, prepared with {json.dumps(about['settings'])}",
            check_data=False,
        )
    about["complete"] = True
    about["left_out"] = sum(note["what"] == "left out" for note in notes)
    about["repaired"] = len(notes) - about["left_out"]
    _save_json(directory / ABOUT, about)
    for stray in directory.glob(".*.array_record-*.tmp"):
        stray.unlink()
    (directory / _LOCK).unlink(missing_ok=True)


def _check_space(directory: Path, jobs: dict[str, _Job], todo: int) -> None:
    """Estimates the bytes of the `todo` examples still to be written from a few records.

    Raises:
      DataError: they are more than the free space.
    """
    sizes = []
    for job in jobs.values():
        quiet = dataclasses.replace(job, reading=dataclasses.replace(job.reading, report=silent))
        for index in range(0, job.examples.count, max(job.examples.count // 8, 1)):
            sizes.append(len(quiet.record(index)[0]))
    needed = int(np.mean(sizes) * todo)
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise DataError(
            f"{directory}: about {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free; "
            "name a larger disk, or choose --config.data.prepare.format=jpeg or a lower "
            "--config.data.prepare.quality"
        )


def _explained(directory: Path, error: Exception) -> DataError:
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space" in str(error)
    reason = "the disk is full" if full else first_line(error)
    return DataError(
        f"{directory}: cannot be written ({reason}). What was done before is kept: run the same "
        "command again, and it goes on"
    )


def _save_json(path: Path, content: dict[str, Any]) -> None:
    with files.replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
