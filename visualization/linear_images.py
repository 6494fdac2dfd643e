"""The images that linear classifiers are trained and tested on: all, or random choices."""

import argparse
import dataclasses
from collections.abc import Generator, Sequence

import numpy as np

from configs.common import ConfigError
from input_pipeline import DataError
from input_pipeline.sources import labels_of
from visualization import classifiers
from visualization.classifiers import Drawn
from visualization.feature_files import Features
from visualization.opening import ALL, Opened


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """Labelled images of one or several splits, numbered through.

    Attributes:
      labels: by split, int32 [count].
    """

    labels: dict[str, np.ndarray]

    @property
    def label(self) -> np.ndarray:
        """Of all images, int32 [n]."""
        return np.concatenate(list(self.labels.values()))

    def by_split(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Ascending numbers in the pool -> numbers in each split, of those that have any."""
        found, begin = {}, 0
        for split, labels in self.labels.items():
            here = numbers[(numbers >= begin) & (numbers < begin + len(labels))] - begin
            if len(here):
                found[split] = here
            begin += len(labels)
        return found


def pools(opened: Opened, asked: str | None) -> tuple[Pool, Pool | None]:
    """The images to train on, and those to test on; None to take these from the first as well.

    Args:
      opened: the network.
      asked: --split.

    Raises:
      DataError: a split does not exist, or has images without labels.
    """
    if asked in ("train", ALL):
        data = opened.data(asked)
        splits = [s for s in ("train", "validation", "test") if s in data.dataset.splits]
        return _pool(opened, splits, asked), None
    train = _pool(opened, ["train"], "train")
    tested = asked or opened.data().evaluation_split
    return train, _pool(opened, [tested], tested)


def _pool(opened: Opened, splits: Sequence[str], asked: str) -> Pool:
    data = opened.data(asked)
    labels = {split: labels_of(data.examples(split), data.cache_dir) for split in splits}
    for split, of_split in labels.items():
        if (of_split < 0).any():
            raise DataError(
                f"{data.dataset.name}: {(of_split < 0).sum():,} of {len(of_split):,} images of "
                f"{split} have no label; choose another --split"
            )
    return Pool(labels)


def trials(
    arguments: argparse.Namespace, train: Pool, test: Pool | None, class_names: Sequence[str]
) -> list[Drawn]:
    """The images of every random split; all images, once, without --per_class.

    Raises:
      ConfigError: a class has too few images, or flags contradict each other.
    """
    per_class, others = arguments.per_class, None if test is None else test.label
    if per_class is None:
        for flag in ("splits", "test_per_class"):
            if getattr(arguments, flag) is not None:
                raise ConfigError(f"--{flag} is of random splits, which need --per_class=K")
        if others is None:
            raise ConfigError(
                f"--split={arguments.split}: training and test images are drawn from it at "
                "random, which needs --per_class=K"
            )
        return [Drawn(np.arange(len(train.label)), np.arange(len(others)))]
    needed = per_class + (others is None)
    counts = np.bincount(train.label, minlength=len(class_names))
    there = counts > 0
    if others is not None:
        there |= np.bincount(others, minlength=len(class_names)) > 0
    few = [n for n in map(int, np.flatnonzero(there)) if counts[n] < needed]
    if few:
        said = ", ".join(f"{class_names[n]} ({counts[n]})" for n in few[:5])
        more = ", ..." if len(few) > 5 else ""
        most = int(counts[there].min()) - (others is None)
        each = f"{needed} images each" + ", one of them to test on" * (others is None)
        if most > 0:
            way_out = f"choose at most {most}"
        elif others is None:
            way_out = "no number will do: choose another --split, or data without these classes"
        else:
            way_out = "leave --per_class out"
        raise ConfigError(
            f"--per_class={per_class} needs {each}; {len(few)} class{'es' * (len(few) > 1)} of "
            f"{'+'.join(train.labels)} have fewer: {said}{more}; {way_out}"
        )
    return [
        classifiers.draw_images(
            train.label, others, per_class, arguments.test_per_class or 50, (arguments.seed, n)
        )
        for n in range(arguments.splits or 3)
    ]


def parts(
    pool: Pool, numbers: np.ndarray
) -> Generator[tuple[str, np.ndarray, np.ndarray], None, None]:
    """Yields split, numbers in the split and labels of images."""
    for split, there in pool.by_split(numbers).items():
        yield split, there, pool.labels[split][there]


def readable(kept: dict[tuple[str, str], Features], pool: tuple[Pool, Pool], one: Drawn) -> Drawn:
    """The images of a random split that have features of all layers.

    Args:
      kept: by split and layer.
      pool: of training and of test images.
      one: the random split.
    """

    def of(pool: Pool, numbers: np.ndarray) -> np.ndarray:
        there = [
            np.all([np.isin(n, f.index) for (of, _), f in kept.items() if of == split], axis=0)
            for split, n in pool.by_split(numbers).items()
        ]
        return numbers[np.concatenate(there)]

    return Drawn(of(pool[0], one.train), of(pool[1], one.test))


def check_classes(
    arguments: argparse.Namespace, train: Pool, drawn: Sequence[Drawn], name: str
) -> None:
    """Checks that every random split has two classes to train on, and images to test on.

    Raises:
      ConfigError: it has not.
    """
    for one in drawn:
        labels, counts = np.unique(train.label[one.train], return_counts=True)
        if len(labels) < 2:
            raise ConfigError(f"{name}: images of one class only; two are needed")
        if not len(one.test):
            raise ConfigError(f"{name}: no images to test on")
        if len(arguments.constants) > 1 and min(int(counts.min()), arguments.folds) < 2:
            raise ConfigError(
                f"{name}: cross-validation needs two training images of every class and "
                "--folds=2; or give a single constant, such as --constants=1"
            )
