"""Opening what `prepare` wrote."""

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
    """Opens what `prepare_data` wrote.

    Args:
      directory: where it wrote.
      wanted: from `from_config.prepared_as`, of the config that is to use it.
      cache_dir: as in `open_dataset`.
      as_they_are: images are not rescaled once more. Raw ones are then the same data as what
        they were made from, and have its fingerprint: a run goes on with either.
      only: as in `open_dataset`; shards of other splits may be missing. One split alone is not
        trained on: its images may be larger than the config's, and what asks for larger ones
        is refused when it does.

    Raises:
      DataError: not there, not complete, cut short since, or made with settings that give
        other pixels than the config asks for.
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
        # The whole image has the square in it, exact pixels are better than asked for.
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
    """Records that were written in another order than that of their examples, in the latter."""
    shards = [shard for _, shard in sorted(about["shards"].items()) if shard["split"] == split]
    if not any("indices" in shard for shard in shards):
        return examples
    indices = np.concatenate([_unpacked(shard["indices"]) for shard in shards])
    return sources.subset(examples, np.argsort(indices))


def packed(indices: Sequence[int]) -> str:
    """Indices as a text."""
    return base64.b64encode(np.array(indices, "<i4").tobytes()).decode()


def _unpacked(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<i4")


def _labels(shards: dict[str, Any], split: str) -> Callable[[], np.ndarray] | None:
    """What gives the labels of a split; None where they were not noted when it was prepared."""
    noted = [shard.get("labels") for _, shard in sorted(shards.items()) if shard["split"] == split]
    if None in noted:
        return None
    return lambda: np.array(" ".join(noted).split(), np.int32)


def described(directory: Path, about: dict[str, Any]) -> str:
    """A sentence on what `prepare.write` has made, with the way to use it."""
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
    """TFDS's view of the directory."""
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(directory)


def readable_by_tfds(directory: Path) -> bool:
    """Whether what TFDS needs beside the shards is there and whole."""
    try:
        return bool(_builder(directory).info.splits)
    except Exception:  # in many ways
        return False


def load_about(directory: Path) -> dict[str, Any] | None:
    """What stands in prepared.json; None if there is none.

    Raises:
      DataError: it cannot be read or is damaged.
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
