"""Linear classifiers on features: what they are trained on, their constant, and their accuracy."""

import dataclasses
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

KINDS = ("svm", "logistic")
_LARGE = 4_000_000  # numbers
_STEPS = {"svm": 20_000, "logistic": 2_000}


@dataclasses.dataclass(frozen=True, eq=False)
class Drawn:
    """A random choice of images, or all: numbers in a pool of examples, int64 each."""

    train: np.ndarray
    test: np.ndarray


def draw_images(
    train: np.ndarray,
    test: np.ndarray | None,
    per_class: int,
    test_per_class: int,
    seeds: tuple[int, int],
) -> Drawn:
    """Draws training and test images of every class.

    For one seed, fewer training images are contained in more; the test images then differ only if
    all are drawn from one pool.

    Args:
      train: int32 [n], labels of the pool.
      test: int32 [m], labels of the pool of test images; None to take them from the rest of
        `train`.
      per_class: training images of each class; each has so many, and one more without `test`.
      test_per_class: test images of a class, at most.
      seeds: of the random order.

    Returns:
      Numbers in `train`, and in `test` or `train`, ascending.
    """
    chosen, tested = [], []
    for label in np.unique(train):
        # A generator a class: its order does not depend on the other classes.
        rng = np.random.default_rng((*seeds, int(label)))
        mixed = rng.permutation(np.flatnonzero(train == label))
        rest = mixed[per_class:]
        if test is not None:
            rest = rng.permutation(np.flatnonzero(test == label))
        chosen.append(mixed[:per_class])
        tested.append(rest[:test_per_class])
    return Drawn(np.sort(np.concatenate(chosen)), np.sort(np.concatenate(tested)))


def classifier(kind: str, constant: float, seed: int = 0) -> Any:
    """A linear classifier of scikit-learn.

    Args:
      kind: `svm` (one class against the others, squared hinge loss) or `logistic` (softmax).
      constant: weight of the loss beside half of the squared length of the weights.
      seed: of the SVM's order of examples.
    """
    steps = _STEPS[kind]
    if kind == "svm":
        return LinearSVC(C=constant, dual="auto", random_state=seed, max_iter=steps)
    return LogisticRegression(C=constant, max_iter=steps)


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """A trained classifier.

    Attributes:
      model: of scikit-learn.
      constant: that was chosen.
      converged: whether every training ended before its limit of steps.
    """

    model: Any
    constant: float
    converged: bool


def fit(
    kind: str,
    features: np.ndarray,
    labels: np.ndarray,
    constants: Sequence[float],
    folds: int,
    seed: int,
) -> Fitted:
    """Trains a classifier with the constant of the highest mean class accuracy on held-out folds.

    Of equally good constants the smallest is taken. A single constant is not tried.

    Args:
      kind: one of `KINDS`.
      features: float32 [n, d], each row of Euclidean length 1.
      labels: int32 [n], of at least two classes.
      constants: to choose from, ascending.
      folds: of the cross-validation, stratified; at most as many as the smallest class has images.
      seed: of the folds and the SVM.
    """
    # On small arrays threads of OpenMP cost more than they save, most of all beside other work.
    threads = 1 if features.size < _LARGE else None
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(threads):
        warnings.simplefilter("always")
        model = classifier(kind, constants[0], seed)
        if len(constants) == 1:
            model.fit(features, labels)
        else:
            split = StratifiedKFold(folds, shuffle=True, random_state=seed)
            grid = {"C": list(constants)}
            search = GridSearchCV(model, grid, scoring="balanced_accuracy", cv=split)
            model = search.fit(features, labels).best_estimator_
    converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
    return Fitted(model, float(model.C), converged)


def mean_class_accuracy(model: Any, blocks: Iterable[np.ndarray], labels: np.ndarray) -> float:
    """Accuracy on the images of each class, averaged over the classes that have any; in 0..1.

    Args:
      model: of scikit-learn.
      blocks: the test images' features, [b, d] at a time.
      labels: int32 [n], theirs.
    """
    right = np.concatenate([model.predict(block) for block in blocks]) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))
