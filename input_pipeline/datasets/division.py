"""Which of the training examples are trained on, and which are held out for validation.

First the examples that train is divided into: a validation split, where the dataset has none. Then,
of what is left for training, a smaller choice. So validation is the same for any size of the
training set, and that size is exact.
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

# Held out of train where a dataset has no validation split.
VALIDATION_EXAMPLES = {"cifar10": 5000, "mnist": 5000, "digits": 360}


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Which of the training examples are used; all are, by default.

    Attributes:
      train_examples: so many, of each class as many as of any other, to one. A class that has
        fewer gives all it has, and the others the rest.
      train_examples_per_class: at most so many of each class.
      folds, fold: train is divided into so many folds, each with its share of every class; the one
        of number `fold`, from 0 on, is the validation split, and the others are trained on.
      choice_seed: of the random order in each class by which examples are chosen and divided. A
        smaller choice is part of every larger one.
    """

    train_examples: int | None = None
    train_examples_per_class: int | None = None
    folds: int | None = None
    fold: int = 0
    choice_seed: int = 0

    @property
    def folding(self) -> list[int] | None:
        """What decides which examples are in which split; None without folds."""
        return None if self.folds is None else [self.folds, self.fold, self.choice_seed]


ALL = Chosen()


def check(chosen: Chosen, validation_examples: int | None) -> None:
    """Looks for fields that contradict one another.

    Raises:
      DataError: they do.
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
    """A dataset's splits with a validation split, if one is to be held out of train.

    Args:
      name: of the dataset, without configuration and version.
      splits: as they are stored.
      validation_examples: how many to hold out; None for `VALIDATION_EXAMPLES` or a tenth, and
        none of ImageNet.
      chosen: folds are made, if there are any.
      cache_dir: where labels are kept.

    Raises:
      DataError: there is nothing to divide, or a validation split already; when a split is
        opened, more folds than examples.
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
    if name == "imagenet2012" and set(asked.values()) == {None}:
        return splits
    train = functools.cache(splits["train"])

    def held(split: str) -> Examples:
        if chosen.folds is not None:
            return _fold(name, train(), chosen, split, cache_dir)
        return _hold_out(name, train(), validation_examples, split)

    return splits | {
        "train": lambda: held("train"),
        # What lies among them is counted once, with train's.
        "validation": lambda: dataclasses.replace(held("validation"), ignored=0),
    }


def _hold_out(name: str, train: Examples, held: int | None, split: str) -> Examples:
    """One split, `train` or `validation`, of the training examples; `held` make the latter."""
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
    """One split, `train` or `validation`, of the training examples, by folds."""
    folds = chosen.folds or 1
    if not 2 <= folds <= train.count:
        raise DataError(
            f"data.folds={folds}: choose between 2 and {train.count}, the training examples of "
            f"{name}"
        )
    labels = sources.labels_of(train, cache_dir)
    # Dealt out class after class, so that folds are as large as one another, to one example.
    dealt = np.lexsort((order.fixed_ranks(chosen.choice_seed, labels), labels))
    fold_of = np.empty(train.count, np.int64)
    fold_of[dealt] = np.arange(train.count) % folds
    held = fold_of == chosen.fold
    return sources.subset(train, np.flatnonzero(held if split == "validation" else ~held))


def choose(
    train: Examples, chosen: Chosen, class_names: Sequence[str], cache_dir: Path
) -> Examples:
    """The training examples that are trained on, in their order; all if nothing else is asked.

    Args:
      train: what is there to train on, after validation was held out.
      chosen: how many.
      class_names: for messages.
      cache_dir: where labels are kept.

    Raises:
      DataError: there are not so many.
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
    # One of each class, then a second, ...; in the last round the classes come at random.
    _, classes = np.unique(labels, return_inverse=True)
    turns = order.fixed_ranks(chosen.choice_seed, np.zeros(classes.max() + 1, np.int32))
    return sources.subset(train, np.sort(np.lexsort((turns[classes], ranks))[:wanted]))
