"""Which training examples are trained on, and which are held out for validation.

If the dataset has no validation split, one is held out of train first. A subset is then chosen from
what is left for training. The validation split is therefore the same for every size of the training
set, and that size is exact.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from input_pipeline import order, sources
from input_pipeline.errors import DataError
from input_pipeline.names import listed
from input_pipeline.sources import Examples

# Number of examples held out of train where a dataset has no validation split.
VALIDATION_EXAMPLES = {"cifar10": 5000, "mnist": 5000, "digits": 360}
# Here none are, unless they are asked for: the validation images are there, or can be had.
_UNDIVIDED = ("imagenet2010", "imagenet2012")


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Which examples are used; by default all are.

    Attributes:
      classes: labels of the classes that are used, in the order of the labels that they get; ()
        for all. They are chosen in all splits, after what is held out for validation: the
        validation split has the same images, whatever the classes of a training run.
      train_examples: total number of examples. The counts of any two classes differ by one at
        most, unless a class has too few: then it gives all it has, and the others the rest.
      train_examples_per_class: largest number of examples of each class.
      folds, fold: train is divided into `folds` stratified folds. The one with index `fold`,
        counted from 0, is the validation split, and the others are trained on.
      choice_seed: seed of the random order within each class by which examples are chosen and
        divided. For one seed, a smaller subset is contained in every larger one.
    """

    classes: tuple[int, ...] = ()
    train_examples: int | None = None
    train_examples_per_class: int | None = None
    folds: int | None = None
    fold: int = 0
    choice_seed: int = 0

    @property
    def folding(self) -> list[int] | None:
        """The numbers that determine which example is in which fold; None without folds."""
        return None if self.folds is None else [self.folds, self.fold, self.choice_seed]


ALL = Chosen()


def check(chosen: Chosen, validation_examples: int | None) -> None:
    """Checks that the fields do not contradict one another.

    Raises:
      DataError: two of them do, or one is out of range.
    """
    if None not in (chosen.train_examples, chosen.train_examples_per_class):
        raise DataError(
            f"data.train_examples={chosen.train_examples} and data.train_examples_per_class="
            f"{chosen.train_examples_per_class} both say how many to train on; leave one out"
        )
    if chosen.folds is not None and validation_examples is not None:
        raise DataError(
            f"data.folds={chosen.folds} and data.validation_examples={validation_examples} both "
            "say what is held out; leave one out"
        )
    if chosen.folds is not None and not 0 <= chosen.fold < chosen.folds:
        raise DataError(
            f"data.fold={chosen.fold}: with data.folds={chosen.folds} choose 0 to "
            f"{chosen.folds - 1}"
        )


def divided(
    name: str,
    splits: dict[str, Callable[[], Examples]],
    validation_examples: int | None,
    chosen: Chosen,
    cache_dir: Path,
) -> dict[str, Callable[[], Examples]]:
    """Adds a validation split to a dataset's splits, if one is to be held out of train.

    Args:
      name: of the dataset, without configuration and version.
      splits: the stored splits, by name.
      validation_examples: number of examples to hold out; None for `VALIDATION_EXAMPLES`, or
        otherwise a tenth, and none for ImageNet.
      chosen: its folds are used, if it has any.
      cache_dir: where labels are kept.

    Raises:
      DataError: there is nothing to divide, or there is a validation split already; or, raised
        when a split is opened, there are more folds than examples.
    """
    check(chosen, validation_examples)
    asked = {"validation_examples": validation_examples, "folds": chosen.folds}
    for field, value in asked.items():
        if value is not None and "validation" in splits:
            raise DataError(
                f"data.{field}={value}: {name} has a validation split of its own; leave that field "
                "out"
            )
        if field == "folds" and value is not None and "train" not in splits:
            raise DataError(f"data.folds={value}: {name} has no training split to divide")
    if "validation" in splits or "train" not in splits:
        return splits
    if name in _UNDIVIDED and set(asked.values()) == {None}:
        return splits
    train = functools.cache(splits["train"])

    def held(split: str) -> Examples:
        if chosen.folds is not None:
            return _fold(name, train(), chosen, split, cache_dir)
        return _hold_out(name, train(), validation_examples, split)

    return splits | {
        "train": lambda: held("train"),
        # Files ignored among the images are counted once, with train.
        "validation": lambda: dataclasses.replace(held("validation"), ignored=0),
    }


def _hold_out(name: str, train: Examples, held: int | None, split: str) -> Examples:
    """The `train` or `validation` part of the training examples, with `held` in validation."""
    if held is None:
        held = VALIDATION_EXAMPLES.get(name, max(1, train.count // 10))
    if not 0 < held < train.count:
        raise DataError(
            f"data.validation_examples={held}: hold out between 1 and {train.count - 1} of the "
            f"{train.count} training examples of {name}"
        )
    permutation = order.fixed_order(train.count)
    rows = permutation[held:] if split == "train" else permutation[:held]
    return sources.subset(train, np.sort(rows))


def _fold(name: str, train: Examples, chosen: Chosen, split: str, cache_dir: Path) -> Examples:
    """The `train` or `validation` part of the training examples, by folds."""
    folds = chosen.folds or 1
    if not 2 <= folds <= train.count:
        raise DataError(
            f"data.folds={folds}: choose between 2 and {train.count}, the training examples of "
            f"{name}"
        )
    labels = sources.labels_of(train, cache_dir)
    # Examples are dealt out class after class, so that fold sizes differ by one at most.
    dealt = np.lexsort((order.fixed_ranks(chosen.choice_seed, labels), labels))
    fold_of = np.empty(train.count, np.int64)
    fold_of[dealt] = np.arange(train.count) % folds
    held = fold_of == chosen.fold
    return sources.subset(train, np.flatnonzero(held if split == "validation" else ~held))


def choose(
    train: Examples, chosen: Chosen, class_names: Sequence[str], cache_dir: Path
) -> Examples:
    """Chooses the examples to train on and keeps their order; by default all of them.

    Args:
      train: the training examples, without those held out for validation.
      chosen: the number of examples, in total or per class.
      class_names: for messages.
      cache_dir: where labels are kept.

    Raises:
      DataError: there are fewer examples than asked for.
    """
    wanted, per_class = chosen.train_examples, chosen.train_examples_per_class
    if wanted is None and per_class is None:
        return train
    if wanted is not None and wanted > train.count:
        raise DataError(
            f"data.train_examples={wanted}: there are {train.count} training examples, without "
            "those held out for validation"
        )
    labels = sources.labels_of(train, cache_dir)
    ranks = order.fixed_ranks(chosen.choice_seed, labels)
    if wanted is None:
        found, sizes = np.unique(labels, return_counts=True)
        few = [n for n in range(len(found)) if sizes[n] < per_class]
        kept = sources.subset(train, np.flatnonzero(ranks < per_class))
        if not few:
            return kept
        said = listed([f"{class_names[found[n]]} ({sizes[n]})" for n in few])
        note = (
            f"data.train_examples_per_class={per_class}: {len(few)} "
            f"class{'' if len(few) == 1 else 'es'} of fewer examples: {said}"
        )
        return dataclasses.replace(kept, notes=(*train.notes, note))
    # Each round takes one example of every class. The last round may not reach all classes, so
    # their order in it is random.
    _, classes = np.unique(labels, return_inverse=True)
    turns = order.fixed_ranks(chosen.choice_seed, np.zeros(classes.max() + 1, np.int32))
    return sources.subset(train, np.sort(np.lexsort((turns[classes], ranks))[:wanted]))
