"""Opens prepared datasets, which `prepare` wrote."""

import base64
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from input_pipeline import sources
from input_pipeline.datasets import REPORTED, Dataset, Prepared
from input_pipeline.errors import DataError, first_line
from input_pipeline.names import shown
from input_pipeline.report import warn
from input_pipeline.sources import Examples

ABOUT = "prepared.json"
_OF_TFDS = ("dataset_info.json", "features.json")


def open_prepared(
    directory: Path,
    wanted: dict[str, Any],
    cache_dir: Path,
    *,
    as_they_are: bool,
    only: str | None = None,
) -> Dataset:
    """Opens a dataset that --mode=prepare_data wrote.

    Args:
      directory: of the prepared dataset.
      wanted: from `from_config.prepared_as`, of the config that is to use it.
      cache_dir: as in `open_dataset`.
      as_they_are: whether images are used without further rescaling. Raw images are then the same
        data as their source and have its fingerprint, so that a run can resume with either.
      only: as in `open_dataset`; shards of other splits may be missing. A single split is not
        trained on, so its size is not compared with the config's here. A reader that needs larger
        images than were prepared is refused later.

    Raises:
      DataError: the dataset is missing, incomplete, truncated or damaged, or was prepared with
        settings that give other pixels than the config asks for.
    """
    again = "prepare it with --mode=prepare_data and the same --config.data.prepared_dir"
    about = load_about(directory)
    if about is None:
        raise DataError(
            f"data.prepared_dir={directory}: no prepared dataset there (no {ABOUT}); {again}"
        )
    made = about["settings"]
    if not about["complete"]:
        raise DataError(f"{directory}: prepared in part; {again}, which goes on with it")
    if only == REPORTED:
        only = "test" if "test" in about["splits"] else "validation"
    if only is not None and only not in about["splits"]:
        raise DataError(
            f"{directory}: no split {only!r} was prepared; evaluation.split can be "
            f"{', '.join(about['splits'])}"
        )
    sizes = {
        file: shard["bytes"]
        for file, shard in about["shards"].items()
        if only in (None, shard["split"])
    }
    for file, size in (sizes | dict.fromkeys(_OF_TFDS)).items():
        path = directory / file
        if not path.exists() or (size is not None and path.stat().st_size != size):
            raise DataError(f"{path}: missing or cut short; {again}, which mends it")
    differing = [
        f"{field} is {made.get(field)}, and {wanted[field]} is needed"
        for field in ("name", "validation_examples", "folds", "size", "image", "decode")
        if made.get(field) != wanted[field]
        and not (field == "size" and only is not None)
        # A whole image contains the square, and exact pixels are at least as good as fast ones.
        and (field, made.get(field)) not in (("image", "whole"), ("decode", "exact"))
    ]
    if differing:
        raise DataError(
            f"{directory}: prepared with other settings: {'; '.join(differing)}. Prepare it anew "
            "in another directory, or use the images themselves, without data.prepared_dir"
        )
    side = made["size"]
    if side > wanted["size"]:
        warn(
            f"{directory}: prepared at {side} pixels; smaller images are rescaled from these",
            "note",
        )
    try:
        builder = _builder(directory)
    except Exception as error:  # TFDS fails in many ways on files that are damaged
        raise DataError(
            f"{directory}: {' or '.join(_OF_TFDS)} is damaged ({first_line(error)}); {again}, "
            "which mends it and keeps the shards"
        ) from error
    pixels = made["format"] == "raw" and made["decode"] == wanted["decode"]
    as_source = pixels and as_they_are and not about["left_out"] and side == wanted["size"]
    splits = {}
    for split, fingerprint in about["splits"].items():
        if only not in (None, split):
            continue
        if not as_source:
            of_split = {k: v for k, v in about["shards"].items() if v["split"] == split}
            fingerprint = sources.digest(json.dumps([made, of_split], sort_keys=True))
        examples = dataclasses.replace(
            sources.from_tfds(builder, split, cache_dir),
            fingerprint=fingerprint,
            labels=_labels(about["shards"], split),
        )
        examples = _in_order(examples, about, split)
        splits[split] = dataclasses.replace(examples, fingerprint=fingerprint)
    class_names = about.get("class_names") or builder.info.features["label"].names
    absent = dict.fromkeys(("train", "validation", "test"), f"{directory} has none")
    return Dataset(
        made["name"],
        splits,
        tuple(class_names),
        absent,
        prepared=Prepared(directory, side, made["image"] == "whole", as_source),
        layout=f"prepared by --mode=prepare_data: {side} pixels, {made['format']}",
        labels_from=f"{made['name']}, when it was prepared",
    )


def _in_order(examples: Examples, about: dict[str, Any], split: str) -> Examples:
    """Sorts records that were not written in the order of their examples."""
    shards = [shard for _, shard in sorted(about["shards"].items()) if shard["split"] == split]
    if not any("indices" in shard for shard in shards):
        return examples
    indices = np.concatenate([_unpacked(shard["indices"]) for shard in shards])
    return sources.subset(examples, np.argsort(indices))


def packed(indices: Sequence[int]) -> str:
    """Encodes indices as text: little-endian int32 in base64."""
    return base64.b64encode(np.array(indices, "<i4").tobytes()).decode()


def _unpacked(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<i4")


def _labels(shards: dict[str, Any], split: str) -> Callable[[], np.ndarray] | None:
    """A function that returns the labels of a split; None if prepared.json does not list them."""
    noted = [shard.get("labels") for _, shard in sorted(shards.items()) if shard["split"] == split]
    if None in noted:
        return None
    return lambda: np.array(" ".join(noted).split(), np.int32)


def described(directory: Path, about: dict[str, Any]) -> str:
    """A summary of a prepared dataset, with the override that trains on it.

    Args:
      directory: of the prepared dataset.
      about: from `prepare.write`.
    """
    settings, shards = about["settings"], about["shards"].values()
    counts: dict[str, int] = {}
    for shard in shards:
        counts[shard["split"]] = counts.get(shard["split"], 0) + shard["records"]
    said = ", ".join(f"{split} {count}" for split, count in counts.items())
    size = sum(shard["bytes"] for shard in shards) / 1e9
    return (
        f"{shown(directory)}: {said} images, {size:.2f} GB, shorter side {settings['size']}, "
        f"{settings['format']}; {about['repaired']} repaired and {about['left_out']} left out "
        f"(report.jsonl). Train with --config.data.prepared_dir={shown(directory)}."
    )


def _builder(directory: Path) -> Any:
    """The TFDS builder of a directory."""
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(directory)


def readable_by_tfds(directory: Path) -> bool:
    """Whether the files that TFDS needs beside the shards are there and intact."""
    try:
        return bool(_builder(directory).info.splits)
    except Exception:  # in many ways
        return False


def load_about(directory: Path) -> dict[str, Any] | None:
    """Reads prepared.json; None if there is none.

    Raises:
      DataError: the file cannot be read or is damaged.
    """
    path = directory / ABOUT
    try:
        about = json.loads(path.read_text())
        if not {"settings", "source", "splits", "complete", "shards"} <= about.keys():
            raise ValueError("fields are missing")
        of_shards = {"split", "records", "bytes", "sha256", "notes"}
        if not all(of_shards <= shard.keys() for shard in about["shards"].values()):
            raise ValueError("fields of a shard are missing")
        about["settings"].keys(), about["splits"].keys()
        return about
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: damaged ({first_line(error)}). The shards beside it may be good, but it "
            "alone says of what they are: put it back from a copy, or prepare the dataset in "
            "another directory"
        ) from error
