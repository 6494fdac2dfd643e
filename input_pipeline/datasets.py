"""Datasets by name: their splits, what is held out, and what is wrong with a directory."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from input_pipeline import folders, names, order, sources, tfds_directories
from input_pipeline.errors import DataError
from input_pipeline.names import shown
from input_pipeline.sources import Examples

# Held out of train where a dataset has no validation split.
VALIDATION_EXAMPLES = {"cifar10": 5000, "mnist": 5000, "digits": 360}
# In place of a split's name: the one that results are reported on.
REPORTED = "reported"

_PREPARE_IMAGENET = (
    "Name ImageNet's directory with --config.data.dir=DIR: either DIR/train/<wnid>/*.JPEG and "
    "DIR/val/<wnid>/*.JPEG, or one where TFDS prepared imagenet2012 (the README says how)."
)


class Prepared(NamedTuple):
    """Images that were written at a fixed size.

    Attributes:
      directory: where.
      side: pixels of their shorter side.
      as_source: at that size they are the pixels of the images that they were made from, bit
        for bit, and have their fingerprint.
    """

    directory: Path
    side: int
    as_source: bool


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labelled image dataset, or the part of it that was asked for.

    Attributes:
      name: the name it was asked for by.
      splits: of `train`, `validation` and, where there is a labelled one, `test`, those that
        are there and were asked for.
      class_names: name of each label.
      absent: why there is no such split, by its name.
      notes: sentences on what is not used, and on how labels are ordered where that is a choice.
      prepared: where images come at a fixed size; None for the images themselves.
    """

    name: str
    splits: dict[str, Examples]
    class_names: tuple[str, ...]
    absent: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    prepared: Prepared | None = None

    @property
    def fingerprint(self) -> str:
        """Changes with the fingerprint of any split, so with what is held out, too."""
        return sources.digest(*(f"{k}:{v.fingerprint}" for k, v in sorted(self.splits.items())))

    def examples(self, split: str) -> Examples:
        """The examples of a split.

        Raises:
          DataError: there is no such split.
        """
        if split not in self.splits:
            raise _no_split(self.name, split, self.splits, self.absent)
        return self.splits[split]

    @property
    def evaluation_split(self) -> str:
        """The split that results are reported on: the labelled test split where there is one."""
        return "test" if "test" in self.splits else "validation"


@dataclasses.dataclass(frozen=True)
class _Found:
    """What there is, before any image is listed; see `Dataset`."""

    splits: dict[str, Callable[[], Examples]]
    class_names: tuple[str, ...]
    absent: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)


def _no_split(name: str, split: str, there: Iterable[str], absent: dict[str, str]) -> DataError:
    why = f": {absent[split]}" if split in absent else ""
    return DataError(
        f"{name} has no split {split!r}{why}; evaluation.split can be {', '.join(there)}"
    )


def open_dataset(
    name: str,
    directory: str | None,
    *,
    validation_examples: int | None = None,
    cache_dir: Path | None = None,
    only: str | None = None,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """Opens a dataset; reads its index but no images.

    Args:
      name: `imagenet2012` (an ILSVRC folder tree or a TFDS directory), `folder` (a
        tree of one's own classes), `digits` (embedded), or the name of a labelled
        image dataset that TFDS prepared in `directory`: NAME, NAME/CONFIG, NAME/CONFIG/VERSION
        or NAME:VERSION.
      directory: where it is; not needed for `digits`.
      validation_examples: how many to hold out of train where there is no validation
        split; by default 5,000 of CIFAR-10 and MNIST, 360 of the digits and a
        tenth of anything else (of ImageNet none).
      cache_dir: where indices are kept; by default `default_cache_dir()`.
      only: the one split to open, or `REPORTED`; None opens all there are. What is not opened
        may be damaged or absent.
      class_names: of the network that is to be trained on or evaluated, in the order of its
        labels; None where it has none yet. Own classes keep this order if they are the same,
        whatever order they would be given; without a training set they may be some of these.

    Raises:
      DataError: nothing there, or not in a layout that is known; the message says
        what was looked for.
    """
    cache_dir = cache_dir or default_cache_dir()
    with folders.readable():
        found = _find(name, directory, cache_dir, class_names, evaluated=only is not None)
    splits = dict(found.splits)
    if "validation" in splits:
        if validation_examples is not None:
            raise DataError(
                f"data.validation_examples={validation_examples}: {name} has a validation split "
                "of its own; leave that field out"
            )
    elif "train" in splits and (
        tfds_directories.base_name(name) != "imagenet2012" or validation_examples is not None
    ):
        train = functools.cache(splits["train"])
        for part in ("train", "validation"):
            splits[part] = functools.partial(_hold_out, name, train, validation_examples, part)
    if only == REPORTED:
        only = "test" if "test" in splits else "validation"
    if only is not None and only not in splits:
        raise _no_split(name, only, list(splits), found.absent)
    opened = {split: splits[split]() for split in splits if only in (None, split)}
    notes = [*found.notes, *(note for examples in opened.values() for note in examples.notes)]
    return Dataset(name, opened, found.class_names, found.absent, tuple(dict.fromkeys(notes)))


def _find(
    name: str,
    directory: str | None,
    cache_dir: Path,
    class_names: Sequence[str] | None,
    *,
    evaluated: bool,
) -> _Found:
    if name == "digits":
        return _digits()
    root = _existing_directory(name, directory)
    version = None if name == "folder" else tfds_directories.version_directory(root, name)
    if version is not None:
        return _Found(*tfds_directories.open_version(version, name, cache_dir))
    if name == "imagenet2012":
        return _imagenet_folders(root, cache_dir)
    if name == "folder":
        return _own_folders(root, cache_dir, class_names, evaluated)
    raise DataError(
        f"{root}: no {name} as TFDS prepares it (looked for "
        f"{name}/<version>/dataset_info.json).\nPrepare it there, or choose "
        "data.name=folder for a tree of class folders."
    )


def default_cache_dir() -> Path:
    """`vision_models` under $XDG_CACHE_HOME, or under ~/.cache; without a home under ./.cache."""
    chosen = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")  # noqa: PTH111
    return Path(".cache" if chosen.startswith("~") else chosen) / "vision_models"


def _existing_directory(name: str, directory: str | None) -> Path:
    if not directory:
        if name == "imagenet2012":
            raise DataError(
                f"this config needs ImageNet. {_PREPARE_IMAGENET}\n"
                "To try the network without it: --config=configs/alexnet.py:digits"
            )
        raise DataError(f"dataset {name} needs a directory: --config.data.dir=DIR")
    root = Path(directory)
    if not root.exists():
        raise DataError(f"data.dir={directory}: there is no such directory")
    if not root.is_dir():
        raise DataError(f"data.dir={directory}: a file, not a directory")
    if not any(root.iterdir()):
        raise DataError(f"data.dir={directory}: the directory is empty")
    return root


def _hold_out(
    name: str, opened: Callable[[], Examples], validation_examples: int | None, part: str
) -> Examples:
    """One part, `train` or `validation`, of the training examples that `opened` gives."""
    train, held = opened(), validation_examples
    if held is None:
        base = tfds_directories.base_name(name)
        held = VALIDATION_EXAMPLES.get(base, max(1, train.count // 10))
    if not 0 < held < train.count:
        raise DataError(
            f"data.validation_examples={held}: hold out between 1 and {train.count - 1} of the "
            f"{train.count} training examples of {name}"
        )
    permutation = order.fixed_order(train.count)
    rows = permutation[held:] if part == "train" else permutation[:held]
    return sources.subset(train, np.sort(rows))


def _digits() -> _Found:
    """scikit-learn's 1,797 handwritten digits, 8x8 pixels of 17 grey levels."""
    from sklearn.datasets import load_digits

    def opened() -> Examples:
        data = load_digits()
        grey = np.rint(data.images * (255 / 16)).astype(np.uint8)
        images = np.repeat(grey[..., None], 3, axis=-1)
        return sources.from_arrays(images, data.target.astype(np.int32), "digits")

    return _Found({"train": opened}, tuple(str(digit) for digit in range(10)))


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders of `root` that are named as splits, by split.

    Raises:
      DataError: two are of the same split.
    """
    found: dict[str, Path] = {}
    for name, raw in folders.class_folders(root).items():
        split = names.split_of(name)
        if split in found:
            raise DataError(
                f"{root}: {found[split].name}/ and {name}/ are both the {split} split; "
                "leave one of them there"
            )
        if split is not None:
            found[split] = root / os.fsdecode(raw)
    return found


def _absent(root: Path, where: dict[str, Path]) -> dict[str, str]:
    return {
        split: f"{root} has no folder {'/, '.join(words)}/"
        for split, words in names.SPLITS.items()
        if split not in where
    }


def _wrapped(root: Path) -> str:
    """A hint, if the tree is not in `root` but in a folder of it."""
    inside = root
    for _ in range(4):  # as in ILSVRC/Data/CLS-LOC
        here = list(folders.class_folders(inside).values())
        if inside != root and _split_folders(inside):
            return f" Is it --config.data.dir={inside}?"
        deeper = [inside / os.fsdecode(raw) for raw in here]
        deeper = [path for path in deeper if folders.class_folders(path)]
        if len(deeper) != 1:
            break
        inside = deeper[0]
    return ""


def _imagenet_folders(root: Path, cache_dir: Path) -> _Found:
    where = _split_folders(root)
    test = where.pop("test", None)
    if not where:
        raise DataError(
            f"{root}: not ImageNet (looked for train/<wnid>/ and val/<wnid>/, and for "
            f"imagenet2012/<version>/dataset_info.json).{_wrapped(root)}\n{_PREPARE_IMAGENET}"
        )
    synsets = imagenet_synsets()

    def opened(directory: Path) -> Examples:
        found = folders.class_folders(directory)
        if not found:
            raise _no_classes(directory, "<wnid>")
        strange = sorted(found.keys() - set(synsets))
        if strange:
            raise DataError(
                f"{directory}/{strange[0]}: no synset of ImageNet, such as n01440764. "
                "For classes of your own: --config.data.name=folder"
            )
        return folders.from_folders(directory, synsets, cache_dir)

    absent = _absent(root, where)
    if test is not None:
        absent["test"] = f"the labels of ImageNet's test images are secret ({test})"
    if "validation" not in where:
        absent["validation"] += (
            " (its images, sorted into class folders); part of train/ is held out by "
            "--config.data.validation_examples=50000"
        )
    splits: dict[str, Callable[[], Examples]] = {
        split: functools.partial(opened, path) for split, path in where.items()
    }
    notes = folders.unused(root, [path.name for path in where.values()])
    return _Found(splits, synsets, absent, notes)


def _no_classes(directory: Path, pattern: str) -> DataError:
    return DataError(
        f"{directory}: no class folders; its images belong in {directory.name}/{pattern}/"
    )


def imagenet_synsets() -> tuple[str, ...]:
    """The 1000 ILSVRC-2012 synsets (WordNet ids) in the order of their labels, from TFDS."""
    import tensorflow_datasets as tfds

    return tuple(tfds.builder("imagenet2012", data_dir=os.devnull).info.features["label"].names)


def _own_folders(
    root: Path, cache_dir: Path, known: Sequence[str] | None, evaluated: bool
) -> _Found:
    """train/<class>/, val/<class>/, test/<class>/ in any spelling, those there are; or <class>/.

    Args:
      root: the directory.
      cache_dir: where lists of files are kept.
      known: class names that there are already, or None.
      evaluated: rather than trained on.
    """
    where = _split_folders(root)
    notes: list[str] = []
    if where and not any(folders.class_folders(path) for path in where.values()):
        # A folder of images called `train` beside others is one of railways; beside others that
        # sound like parts of a dataset (test1) its images are in no class.
        named = [path.name for path in where.values()]
        others = [raw for name, raw in folders.class_folders(root).items() if name not in named]
        classes = [raw for raw in others if folders.holds_images(root / os.fsdecode(raw))]
        parts = any(names.sounds_like_a_split(shown(raw)) for raw in classes)
        if len(classes) > 1 and not parts:
            notes.append(f"{root}: {', '.join(named)} taken for classes, not for splits")
            where = {}
    absent = _absent(root, where)
    if where:
        notes += folders.unused(root, [path.name for path in where.values()])
        base = next(split for split in ("train", "validation", "test") if split in where)
    else:
        where, base = {"train": root}, "train"

    own = list(folders.class_folders(where[base]))
    if len(own) < 2 and (base == "train" or not own or not known):
        raise DataError(
            f"{where[base]}: {len(own)} class folders, at least two are needed "
            f"(looked for {base}/<class>/* or <class>/*).{_wrapped(root)}"
        )
    class_names, said = names.class_order(own, shown(where[base]))
    natural, mine = [names.key(name) for name in class_names], set(map(names.key, own))
    kept = [] if known is None else [names.key(name) for name in known]
    # The names known before, if they are those of the folders, or these are some of them.
    if known and (mine == set(kept) or (mine < set(kept) and (evaluated or base != "train"))):
        class_names = tuple(known)
        if [name for name in kept if name in mine] != natural:
            said = [
                f"{where[base]}: labels follow the class names that the network was "
                f"trained with ({names.listed(class_names, 3)})"
            ]
    notes += said

    splits: dict[str, Callable[[], Examples]] = {}
    for split, path in where.items():
        found = set(map(names.key, folders.class_folders(path)))
        if split == "test" and not found & set(map(names.key, class_names)):
            absent[split] = (
                f"{path} ({folders.count_files(path)}) has no labels: no folder of a class"
            )
            notes.append(f"{absent[split]}. It is not used")
            continue
        splits[split] = functools.partial(_opened, path, class_names, cache_dir)
    return _Found(splits, class_names, absent, notes)


def _opened(path: Path, class_names: Sequence[str], cache_dir: Path) -> Examples:
    if not folders.class_folders(path):
        raise _no_classes(path, "<class>")
    return folders.from_folders(path, class_names, cache_dir)
