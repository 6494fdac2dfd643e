"""Datasets by name: their splits, what is held out, and what is wrong with a directory."""

import dataclasses
import os
from pathlib import Path

import numpy as np

from input_pipeline import order, sources
from input_pipeline.errors import DataError, check_utf8
from input_pipeline.sources import Examples

# Held out of train where a dataset has no validation split.
VALIDATION_EXAMPLES = {"cifar10": 5000, "mnist": 5000, "digits": 360}

_PREPARE_IMAGENET = (
    "Name ImageNet's directory with --config.data.dir=DIR: either DIR/train/<wnid>/*.JPEG and "
    "DIR/val/<wnid>/*.JPEG, or one where TFDS prepared imagenet2012 (the README says how)."
)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labelled image dataset.

    Attributes:
      name: the name it was asked for by.
      splits: `train`, `validation` and, where there is a labelled one, `test`.
      class_names: name of each label.
    """

    name: str
    splits: dict[str, Examples]
    class_names: tuple[str, ...]

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
            raise DataError(
                f"{self.name} has no split {split!r}; evaluation.split can be "
                f"{', '.join(self.splits)}"
            )
        return self.splits[split]

    @property
    def evaluation_split(self) -> str:
        """The split that results are reported on: the labelled test split where there is one."""
        return "test" if "test" in self.splits else "validation"


def open_dataset(
    name: str,
    directory: str | None,
    *,
    validation_examples: int | None = None,
    cache_dir: Path | None = None,
) -> Dataset:
    """Opens a dataset; reads its index but no images.

    Args:
      name: `imagenet2012` (an ILSVRC folder tree or a TFDS directory), `folder` (a
        tree of one's own classes), `digits` (embedded), or the name of a labelled
        image dataset that TFDS prepared in `directory`.
      directory: where it is; not needed for `digits`.
      validation_examples: how many to hold out of train where there is no validation
        split; by default 5,000 of CIFAR-10 and MNIST, 360 of the digits and a
        tenth of anything else.
      cache_dir: where indices are kept; by default `default_cache_dir()`.

    Raises:
      DataError: nothing there, or not in a layout that is known; the message says
        what was looked for.
    """
    cache_dir = cache_dir or default_cache_dir()
    if name == "digits":
        splits, class_names = _digits()
    else:
        root = _existing_directory(name, directory)
        version = _tfds_version(root, name)
        if version is not None:
            splits, class_names = _tfds(version, name, cache_dir)
        elif name == "imagenet2012":
            splits, class_names = _imagenet_folders(root, cache_dir)
        elif name == "folder":
            splits, class_names = _own_folders(root, cache_dir)
        else:
            raise DataError(
                f"{root}: no {name} as TFDS prepares it (looked for "
                f"{name}/<version>/dataset_info.json).\nPrepare it there, or choose "
                "data.name=folder for a tree of class folders."
            )
    if "validation" in splits:
        if validation_examples is not None:
            raise DataError(
                f"data.validation_examples={validation_examples}: {name} has a validation split "
                "of its own; leave that field out"
            )
    else:
        splits = _hold_out(name, splits, validation_examples)
    return Dataset(name, splits, class_names)


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
    root = Path(os.path.expanduser(directory))  # noqa: PTH111 (pathlib's fails without a home)
    if not root.exists():
        raise DataError(f"data.dir={directory}: there is no such directory")
    if not root.is_dir():
        raise DataError(f"data.dir={directory}: a file, not a directory")
    if not any(root.iterdir()):
        raise DataError(f"data.dir={directory}: the directory is empty")
    return root


def _hold_out(
    name: str, splits: dict[str, Examples], validation_examples: int | None
) -> dict[str, Examples]:
    train = splits["train"]
    held = validation_examples
    if held is None:
        held = VALIDATION_EXAMPLES.get(name, max(1, train.count // 10))
    if not 0 < held < train.count:
        raise DataError(
            f"data.validation_examples={held}: hold out between 1 and {train.count - 1} of the "
            f"{train.count} training examples of {name}"
        )
    permutation = order.fixed_order(train.count)
    return {
        **splits,
        "train": sources.subset(train, np.sort(permutation[held:])),
        "validation": sources.subset(train, np.sort(permutation[:held])),
    }


def _digits() -> tuple[dict[str, Examples], tuple[str, ...]]:
    """scikit-learn's 1,797 handwritten digits, 8x8 pixels of 17 grey levels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = np.rint(data.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(grey[..., None], 3, axis=-1)
    examples = sources.from_arrays(images, data.target.astype(np.int32), "digits")
    return {"train": examples}, tuple(str(digit) for digit in range(10))


def _imagenet_folders(root: Path, cache_dir: Path) -> tuple[dict[str, Examples], tuple[str, ...]]:
    train = root / "train"
    validation = next((root / n for n in ("val", "validation") if (root / n).is_dir()), None)
    if not train.is_dir() or validation is None:
        raise DataError(
            f"{root}: not ImageNet (looked for train/<wnid>/ and val/<wnid>/, and for "
            f"imagenet2012/<version>/dataset_info.json).\n{_PREPARE_IMAGENET}"
        )
    synsets = imagenet_synsets()
    splits = {}
    for split, directory in (("train", train), ("validation", validation)):
        folders = sources.class_folders(directory)
        if not folders:
            raise DataError(
                f"{directory}: no class folders; its images belong in {directory.name}/<wnid>/"
            )
        strange = sorted(set(folders) - set(synsets))
        if strange:
            raise DataError(
                f"{directory / strange[0]}: no synset of ImageNet, such as n01440764. "
                "For classes of your own: --config.data.name=folder"
            )
        splits[split] = sources.from_folders(directory, synsets, cache_dir)
    return splits, synsets


def imagenet_synsets() -> tuple[str, ...]:
    """The 1000 ILSVRC-2012 synsets (WordNet ids) in the order of their labels, from TFDS."""
    import tensorflow_datasets as tfds

    return tuple(tfds.builder("imagenet2012", data_dir=os.devnull).info.features["label"].names)


def _own_folders(root: Path, cache_dir: Path) -> tuple[dict[str, Examples], tuple[str, ...]]:
    """train/<class>/, and val/ (or validation/) and test/ where they are; or just <class>/."""
    if (root / "train").is_dir():
        where = {"train": root / "train"}
        names = {"val": "validation", "validation": "validation", "test": "test"}
        where |= {names[name]: root / name for name in names if (root / name).is_dir()}
    else:
        where = {"train": root}
    class_names = tuple(sources.class_folders(where["train"]))
    if len(class_names) < 2:
        raise DataError(
            f"{where['train']}: {len(class_names)} class folders, at least two are needed "
            "(looked for train/<class>/* or <class>/*)"
        )
    splits = {
        split: sources.from_folders(path, class_names, cache_dir) for split, path in where.items()
    }
    return splits, class_names


def _tfds_version(root: Path, name: str) -> Path | None:
    """The newest version directory of a TFDS dataset below `root`, or `root` if it is one."""
    if name == "folder":
        return None
    if (root / "dataset_info.json").is_file():
        return root
    found = [info.parent for info in (root / name).glob("**/dataset_info.json")]
    numbered = [path for path in found if all(part.isdigit() for part in path.name.split("."))]
    unfinished = next((root / name).glob("**/*.incomplete*"), None)
    if not numbered and unfinished is not None:
        raise DataError(
            f"{unfinished}: a preparation by TFDS that was not finished; run it again "
            "(tfds build, as in the README)"
        )
    return max(
        numbered, key=lambda path: [int(part) for part in path.name.split(".")], default=None
    )


def _tfds(version: Path, name: str, cache_dir: Path) -> tuple[dict[str, Examples], tuple[str, ...]]:
    import tensorflow_datasets as tfds

    check_utf8(version)
    try:
        builder = tfds.builder_from_directory(version)
    except Exception as error:  # TFDS fails in many ways on files that it did not write
        raise DataError(
            f"{version}: not a dataset as this version of TFDS ({tfds.__version__}) prepares it "
            f"({str(error).splitlines()[0][:150]}); prepare it again"
        ) from error
    if builder.info.name != name:
        raise DataError(
            f"{version}: holds {builder.info.name}, not {name}; for that dataset "
            f"--config.data.name={builder.info.name}"
        )
    features = builder.info.features
    image_key, label_key = builder.info.supervised_keys or (None, None)
    if (
        label_key not in features
        or not isinstance(features[label_key], tfds.features.ClassLabel)
        or not isinstance(features[image_key], tfds.features.Image)
    ):
        raise DataError(
            f"{version}: {builder.info.name} is no image classification dataset "
            "(an image and one class label per example are needed)"
        )
    splits = {}
    for split in ("train", "validation", "test"):
        if split in builder.info.splits:
            examples = sources.from_tfds(builder, split, cache_dir)
            # The labels of ImageNet's test images are secret: all are -1.
            if split == "train" or examples.read(0)[1] >= 0:
                splits[split] = examples
    if "train" not in splits:
        raise DataError(f"{version}: no train split (there are {', '.join(builder.info.splits)})")
    return splits, tuple(features[label_key].names)
