"""Directories that TFDS prepared: resolves the dataset, its configuration and its version."""

import functools
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from input_pipeline import names, sources
from input_pipeline.datasets.layout import Asked, Found
from input_pipeline.errors import DataError, first_line
from input_pipeline.sources import Examples

_Openers = dict[str, Callable[[], Examples]]
# Among so many entries of a folder that TFDS prepared is one of its folders.
_FEW = 32


class _Parts(NamedTuple):
    """The parts of NAME[/CONFIG][/VERSION] or NAME[/CONFIG][:VERSION]; a missing one is empty."""

    name: str
    config: str
    version: str


def base_name(name: str) -> str:
    """The dataset's name without its configuration and version."""
    return _parts(name).name


def _parts(name: str) -> _Parts:
    path, _, version = name.partition(":")
    first, *others = path.split("/")
    if not version and others and _is_version(others[-1]):
        version = others.pop()
    return _Parts(first, "/".join(others), version)


def _is_version(name: str) -> bool:
    return all(part.isascii() and part.isdigit() for part in name.split("."))


def _number(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _infos(directory: Path) -> list[Path]:
    """Info files one and two folders deep. A full walk could pass through a million images."""
    return [*directory.glob("*/dataset_info.json"), *directory.glob("*/*/dataset_info.json")]


def _infos_of_configurations(root: Path) -> list[Path]:
    """Info files of NAME/CONFIG/VERSION in a `data_dir`.

    A folder that begins with files, as one of a million images does, is not listed to its end.
    """

    def folders(directory: Path, most: int | None = None) -> list[Path]:
        try:
            with os.scandir(directory) as entries:
                return [Path(e.path) for e in itertools.islice(entries, most) if e.is_dir()]
        except OSError:
            return []

    def with_folders(directory: Path) -> list[Path]:
        return [folder for folder in folders(directory) if folders(folder, _FEW)]

    versions = [
        version
        for name in with_folders(root)
        for config in with_folders(name)
        for version in folders(config)
        if _is_version(version.name)
    ]
    return [path for path in (v / "dataset_info.json" for v in versions) if path.is_file()]


def _of_the_hub(info: Path) -> bool:
    """Whether `save_to_disk` wrote an info file: it writes state.json as well, TFDS does not."""
    return (info.parent / "state.json").is_file()


def names_in(root: Path) -> list[str]:
    """Names of the datasets that TFDS prepared in `root`, a `data_dir` or one dataset's folder."""
    found = set()
    configured = _infos_of_configurations(root)
    for path in (root / "dataset_info.json", *_infos(root), *configured):
        if _of_the_hub(path):
            continue
        try:
            name = str(json.loads(path.read_bytes())["name"])
            if path not in configured or name == path.parents[2].name:
                found.add(name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise DataError(
                f"{path}: not as TFDS writes it ({first_line(error)}); prepare the dataset again"
            ) from error
    return sorted(found)


def version_directory(root: Path, name: str) -> Path | None:
    """The directory of a dataset's version, the newest if none is named; None if there is none.

    Args:
      root: TFDS's `data_dir`, or in it the directory of the dataset, of its configuration or of
        its version.
      name: NAME, NAME/CONFIG, NAME/CONFIG/VERSION or NAME:VERSION.

    Raises:
      DataError: there are several configurations and none is named, the named configuration or
        version is missing, or the preparation is unfinished.
    """
    info = root / "dataset_info.json"
    if info.is_file() and not _of_the_hub(info):
        return root
    parts = _parts(name)
    bases = [root / parts.name, *(p for p in (root, root.parent) if p.name == parts.name)]
    base = next((path for path in bases if path.is_dir()), None)
    if not parts.name or base is None:
        return None
    searched = root if base in root.parents else base
    versions_of: dict[str, dict[str, Path]] = {}  # configuration -> version -> directory
    for info in _infos(searched):
        if _is_version(info.parent.name):
            config = info.parent.parent.relative_to(base).as_posix()
            versions = versions_of.setdefault("" if config == "." else config, {})
            versions[info.parent.name] = info.parent
    if not versions_of:
        unfinished = [*searched.glob("*.incomplete*"), *searched.glob("*/*.incomplete*")]
        if unfinished:
            raise DataError(
                f"{unfinished[0]}: a preparation by TFDS that was not finished; run it again "
                "(tfds build, as in the README)"
            )
        return None
    config = parts.config if parts.config or "" in versions_of else next(iter(versions_of))
    if config not in versions_of or (config != parts.config and len(versions_of) > 1):
        raise DataError(
            f"{searched}: holds {parts.name} in the configurations "
            f"{', '.join(sorted(filter(None, versions_of)))}; name one: "
            f"--config.data.name={parts.name}/{min(filter(None, versions_of))}"
            if any(versions_of)
            else f"{searched}: {parts.name} has no configurations there; "
            f"--config.data.name={parts.name}"
        )
    versions = versions_of[config]
    if parts.version and parts.version not in versions:
        raise DataError(
            f"{searched}: no version {parts.version} of {parts.name} there; "
            f"data.name can end in {', '.join(':' + v for v in sorted(versions, key=_number))}"
        )
    return versions[parts.version or max(versions, key=_number)]


def find(asked: Asked) -> Found:
    """Finds a dataset that TFDS prepared.

    Raises:
      DataError: it is missing; or see `find_version`.
    """
    root = asked.root(f"dataset {asked.name} needs a directory: --config.data.dir=DIR")
    found = find_version(asked, root)
    if found is None:
        raise DataError(
            f"{root}: no {asked.name} as TFDS prepares it (looked for "
            f"{asked.name}/<version>/dataset_info.json).\nPrepare it there, or choose "
            "data.name=folder for a tree of class folders."
        )
    return found


def find_version(asked: Asked, root: Path) -> Found | None:
    """Opens the version that is asked for, the newest if none is named; None if there is none.

    Raises:
      DataError: see `version_directory`; or the directory cannot be read, or holds another dataset
        or one that is not of labelled images.
    """
    version = version_directory(root, asked.name)
    return None if version is None else _open_version(version, asked.name, asked.cache_dir)


def _open_version(version: Path, name: str, cache_dir: Path) -> Found:
    """The dataset in a version directory.

    Raises:
      DataError: the directory cannot be read, or holds another dataset than `name` or one that is
        not of labelled images.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(version)
    except Exception as error:  # TFDS fails in many ways on files that it did not write
        raise DataError(
            f"{version}: not a dataset as this version of TFDS ({tfds.__version__}) "
            f"prepares it ({(str(error).splitlines() or [''])[0][:150]}); prepare it again"
        ) from error
    info, parts = builder.info, _parts(name)
    config = info.config_name or ""
    dataset = f"{info.name}/{config}" if config else info.name
    if info.name != parts.name or (parts.config and config != parts.config):
        raise DataError(
            f"{version}: holds {dataset}, not {name}; for that dataset --config.data.name={dataset}"
        )
    if parts.version and str(info.version) != parts.version:
        raise DataError(
            f"{version}: is version {info.version}; --config.data.name={dataset}:{info.version}"
        )
    image_key, label_key = info.supervised_keys or (None, None)
    if (
        label_key not in info.features
        or not isinstance(info.features[label_key], tfds.features.ClassLabel)
        or not isinstance(info.features[image_key], tfds.features.Image)
    ):
        raise DataError(
            f"{version}: {dataset} is no image classification dataset "
            "(an image and one class label per example are needed)"
        )
    splits, absent, unlabelled, notes = _splits(builder, version, cache_dir)
    if not splits:
        raise DataError(f"{version}: no labelled split of train, validation and test there")
    file_format = info.file_format.value if info.file_format is not None else "tfrecord"
    return Found(
        splits,
        tuple(info.features[label_key].names),
        absent,
        unlabelled,
        notes,
        layout=f"prepared by TFDS: {info.full_name}, {file_format}",
        labels_from=f"the feature {label_key!r} of its records",
    )


def _splits(
    builder: Any, version: Path, cache_dir: Path
) -> tuple[_Openers, dict[str, str], _Openers, list[str]]:
    split_infos = builder.info.splits
    splits: _Openers = {}
    unlabelled: _Openers = {}
    absent = {
        split: f"{version} has {', '.join(split_infos) or 'no splits'}" for split in names.SPLITS
    }
    name_of: dict[str, str] = {}
    notes, others = [], []
    for name in split_infos:
        split = names.split_of(name)
        if split is None:
            others.append(f"{name} ({split_infos[name].num_examples:,} examples)")
            continue
        if split in name_of:
            raise DataError(f"{version}: {name_of[split]} and {name} are both the {split} split")
        name_of[split] = name
        opened = functools.cache(functools.partial(sources.from_tfds, builder, name, cache_dir))
        files_exist = any(Path(str(path)).exists() for path in split_infos[name].filepaths)
        if not split_infos[name].num_examples:
            absent[split] = f"split {name} of {version} is empty"
        elif split == "test" and not files_exist:
            absent[split] = f"the files of split {name} are not in {version}"
        # The labels of ImageNet's test images are not public: all are -1.
        elif split == "test" and opened().read(0)[1] < 0:
            absent[split] = f"split {name} of {version} has no labels"
            unlabelled[split] = functools.partial(
                sources.from_tfds, builder, name, cache_dir, file_names=True
            )
        else:
            splits[split] = opened
            del absent[split]
            continue
        notes.append(f"{absent[split]}. It is not used")
    if others:
        notes.append(f"{version}: not used: {names.listed(others)}")
    return splits, absent, unlabelled, notes
