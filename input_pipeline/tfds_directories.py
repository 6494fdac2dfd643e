"""Directories that TFDS prepared: which dataset, configuration and version is meant."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from input_pipeline import names, sources
from input_pipeline.errors import DataError
from input_pipeline.sources import Examples


class _Asked(NamedTuple):
    """The parts of NAME[/CONFIG][/VERSION], NAME[/CONFIG][:VERSION]; empty if not given."""

    name: str
    config: str
    version: str


def base_name(name: str) -> str:
    """The dataset's name without its configuration and version."""
    return _asked(name).name


def _asked(name: str) -> _Asked:
    path, _, version = name.partition(":")
    first, *others = path.split("/")
    if not version and others and _is_version(others[-1]):
        version = others.pop()
    return _Asked(first, "/".join(others), version)


def _is_version(name: str) -> bool:
    return all(part.isascii() and part.isdigit() for part in name.split("."))


def _number(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _infos(directory: Path) -> list[Path]:
    """Files one and two folders deep: no walk through a million images that are there instead."""
    return [*directory.glob("*/dataset_info.json"), *directory.glob("*/*/dataset_info.json")]


def version_directory(root: Path, name: str) -> Path | None:
    """The directory of a dataset's version, the newest if none is named; None if there is none.

    Args:
      root: what TFDS calls `data_dir`, or in it the directory of the dataset, of its
        configuration or of the version.
      name: NAME, NAME/CONFIG, NAME/CONFIG/VERSION or NAME:VERSION.

    Raises:
      DataError: one of several configurations has to be named, the one named or its version is
        not there, or a preparation was not finished.
    """
    if (root / "dataset_info.json").is_file():
        return root
    asked = _asked(name)
    bases = [root / asked.name, *(p for p in (root, root.parent) if p.name == asked.name)]
    base = next((path for path in bases if path.is_dir()), None)
    if not asked.name or base is None:
        return None
    searched = root if base in root.parents else base
    there: dict[str, dict[str, Path]] = {}
    for info in _infos(searched):
        if _is_version(info.parent.name):
            config = info.parent.parent.relative_to(base).as_posix()
            there.setdefault("" if config == "." else config, {})[info.parent.name] = info.parent
    if not there:
        unfinished = [*searched.glob("*.incomplete*"), *searched.glob("*/*.incomplete*")]
        if unfinished:
            raise DataError(
                f"{unfinished[0]}: a preparation by TFDS that was not finished; run it again "
                "(tfds build, as in the README)"
            )
        return None
    config = asked.config if asked.config or "" in there else next(iter(there))
    if config not in there or (config != asked.config and len(there) > 1):
        raise DataError(
            f"{searched}: holds {asked.name} in the configurations "
            f"{', '.join(sorted(filter(None, there)))}; name one: "
            f"--config.data.name={asked.name}/{min(filter(None, there))}"
            if any(there)
            else f"{searched}: {asked.name} has no configurations there; "
            f"--config.data.name={asked.name}"
        )
    versions = there[config]
    if asked.version and asked.version not in versions:
        raise DataError(
            f"{searched}: no version {asked.version} of {asked.name} there; "
            f"data.name can end in {', '.join(':' + v for v in sorted(versions, key=_number))}"
        )
    return versions[asked.version or max(versions, key=_number)]


def open_version(
    version: Path, name: str, cache_dir: Path
) -> tuple[dict[str, Callable[[], Examples]], tuple[str, ...], dict[str, str], list[str]]:
    """What a version directory holds.

    Returns:
      How to open each labelled split, the class names, why a split is absent, and notes; see
      `datasets.Dataset`.

    Raises:
      DataError: not readable, another dataset than `name`, or not of labelled images.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(version)
    except Exception as error:  # TFDS fails in many ways on files that it did not write
        raise DataError(
            f"{version}: not a dataset as this version of TFDS ({tfds.__version__}) "
            f"prepares it ({(str(error).splitlines() or [''])[0][:150]}); prepare it again"
        ) from error
    info, asked = builder.info, _asked(name)
    config = info.config_name or ""
    held = f"{info.name}/{config}" if config else info.name
    if info.name != asked.name or (asked.config and config != asked.config):
        raise DataError(
            f"{version}: holds {held}, not {name}; for that dataset --config.data.name={held}"
        )
    if asked.version and str(info.version) != asked.version:
        raise DataError(
            f"{version}: is version {info.version}; --config.data.name={held}:{info.version}"
        )
    image_key, label_key = info.supervised_keys or (None, None)
    if (
        label_key not in info.features
        or not isinstance(info.features[label_key], tfds.features.ClassLabel)
        or not isinstance(info.features[image_key], tfds.features.Image)
    ):
        raise DataError(
            f"{version}: {held} is no image classification dataset "
            "(an image and one class label per example are needed)"
        )
    splits, absent, notes = _splits(builder, version, cache_dir)
    if not splits:
        raise DataError(f"{version}: no labelled split of train, validation and test there")
    return splits, tuple(info.features[label_key].names), absent, notes


def _splits(
    builder: Any, version: Path, cache_dir: Path
) -> tuple[dict[str, Callable[[], Examples]], dict[str, str], list[str]]:
    there = builder.info.splits
    splits: dict[str, Callable[[], Examples]] = {}
    absent = {split: f"{version} has {', '.join(there) or 'no splits'}" for split in names.SPLITS}
    spelled: dict[str, str] = {}
    notes, strange = [], []
    for name in there:
        split = names.split_of(name)
        if split is None:
            strange.append(f"{name} ({there[name].num_examples:,} examples)")
            continue
        if split in spelled:
            raise DataError(f"{version}: {spelled[split]} and {name} are both the {split} split")
        spelled[split] = name
        opened = functools.cache(functools.partial(sources.from_tfds, builder, name, cache_dir))
        copied = any(Path(str(path)).exists() for path in there[name].filepaths)
        if not there[name].num_examples:
            absent[split] = f"split {name} of {version} is empty"
        elif split == "test" and not copied:
            absent[split] = f"the files of split {name} are not in {version}"
        # The labels of ImageNet's test images are secret: all are -1.
        elif split == "test" and opened().read(0)[1] < 0:
            absent[split] = f"split {name} of {version} has no labels"
        else:
            splits[split] = opened
            del absent[split]
            continue
        notes.append(f"{absent[split]}. It is not used")
    if strange:
        notes.append(f"{version}: not used: {names.listed(strange)}")
    return splits, absent, notes
