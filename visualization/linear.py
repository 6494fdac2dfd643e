"""Linear classifiers on the features of layers, by the papers' protocol on Caltech-101 and 256.

    python -m visualization.linear runs/alexnet --layers=conv3,conv5,fc7 --per_class=30 --split=all

trains a linear SVM and a logistic regression (scikit-learn's) on each layer and prints the mean
class accuracy. Zeiler and Fergus 2014 (section 5, table 7) and Simonyan and Zisserman 2015
(appendix B): the network stays as it is; `--per_class` images of every class, drawn at random,
are trained on and up to 50 others tested on; accuracy is averaged over the classes, and over
random `--splits`, with its standard deviation. Features are scaled to Euclidean length 1, as in
the latter's appendix. The constant is chosen on the training images alone, by cross-validation.

Training images are of `train` and test images of `--split`, by default the one that results are
reported on. `--split=train` or `all` (all splits together, as for Caltech) draws both from one.
Without `--per_class` all of `train` is trained on, once, and all of the other split is tested on.

Features are read from `--features`, where `python -m visualization.features` wrote them, if they
are of this network and these data; what is not there is computed, for the images that are used,
and kept there. Files: linear.json, which is also the last printed line, and linear.png.
"""

import argparse
import json
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.preprocessing import normalize

import files
from configs.common import ConfigError
from training import RunError
from visualization import classifiers, command_line, feature_files, pictures
from visualization.classifiers import KINDS, Drawn
from visualization.command_line import positive
from visualization.feature_files import Features
from visualization.linear_images import Pool, check_classes, parts, pools, readable, trials
from visualization.opening import Opened

_TITLES = {"svm": "linear SVM", "logistic": "logistic regression"}
_BLOCK = 1024  # test images that are classified at once


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("--layers", help="Comma-separated; the last hidden one by default.")
    parser.add_argument("--pool", choices=feature_files.POOLS, default="none", help="Of maps.")
    parser.add_argument("--per_class", type=positive, help="Training images a class; else all.")
    parser.add_argument("--test_per_class", type=positive, help="At most; 50 with --per_class.")
    parser.add_argument("--splits", type=positive, help="Random ones; 3 with --per_class.")
    parser.add_argument("--folds", type=positive, default=5, help="Of the cross-validation.")
    parser.add_argument(
        "--constants", type=_constants, default="0.1,1,10,100,1e3,1e4,1e5", help="To choose from."
    )
    command_line.add_seed(parser, "Of splits and folds.")
    parser.add_argument("--features", help="Directory of files; features/ in the run or here.")


def _constants(text: str) -> list[float]:
    """Ascending numbers above 0.

    Raises:
      ArgumentTypeError: they are not.
    """
    try:
        numbers = sorted({float(part) for part in text.split(",")})
    except ValueError:
        numbers = [0.0]
    if not (numbers[0] > 0 and np.isfinite(numbers).all()):
        raise argparse.ArgumentTypeError(f"{text}: numbers above 0")
    return numbers


def features_of(
    opened: Opened, layers: Sequence[str], wanted: dict[str, np.ndarray]
) -> dict[tuple[str, str], Features]:
    """The features of images, from files if they are there; others are computed and written.

    Nothing is computed before all files that are there have been checked.

    Args:
      opened: the network.
      layers: names.
      wanted: by split, int64: numbers of images.

    Returns:
      By split and layer; each holds at least the images that are wanted and can be read.

    Raises:
      ConfigError: a file is of another network or of other data.
      RunError: another process replaced a file meanwhile.
    """
    arguments, found = opened.arguments, {}
    directory = Path(arguments.features or (opened.workdir or Path()) / "features")
    # By split and images: files that are computed in one pass.
    missing: dict[tuple[str, bytes], tuple[np.ndarray, dict[Path, dict[str, str]]]] = {}
    for split, numbers in wanted.items():
        for layer in layers:
            of = feature_files.about(opened, split, layer, arguments.pool)
            path = directory / feature_files.file_name(of)
            kept = None
            if path.exists():
                kept = feature_files.read(path)
                feature_files.check(kept, of)
            if kept is None or not kept.holds(numbers):
                # What is written again loses no image, but those that others add meanwhile.
                chosen = numbers if kept is None else np.union1d(numbers, kept.index)
                missing.setdefault((split, chosen.tobytes()), (chosen, {}))[1][path] = of
            found[split, layer] = path, of
    if missing:
        pictures.place_of(arguments.features, opened.workdir, "", "features", "features")
    for (split, _), (chosen, paths) in missing.items():
        feature_files.compute(opened, split, paths, chosen)
    features = {}
    for (split, layer), (path, of) in found.items():
        kept = features[split, layer] = feature_files.read(path)
        try:
            feature_files.check(kept, of)
            whole = kept.holds(wanted[split])
        except ConfigError:
            whole = False
        if not whole:
            raise RunError(
                f"{path}: replaced by another process; run this again, or with --features=DIR"
            )
    return features


def measure(
    arguments: argparse.Namespace,
    kept: dict[str, Features],
    pool: tuple[Pool, Pool],
    drawn: Sequence[Drawn],
) -> dict[str, Any]:
    """Trains and tests the classifiers on one layer.

    Args:
      arguments: `constants`, `folds` and `seed`.
      kept: the layer's features by split.
      pool: of training and of test images.
      drawn: the images of every random split.

    Returns:
      `features`, their number; and for each of `KINDS` the `accuracy` (mean class accuracy in 0..1,
      averaged over the random splits), its `deviation` (None for one split), `accuracies` and
      `constants` of each split, and whether all trainings `converged`.
    """
    accuracies: dict[str, list[float]] = {kind: [] for kind in KINDS}
    fitted: dict[str, list[classifiers.Fitted]] = {kind: [] for kind in KINDS}
    for one in drawn:
        learned = list(parts(pool[0], one.train))
        inputs = np.concatenate([_scaled(kept[s], n) for s, n, _ in learned])
        labels = np.concatenate([of for _, _, of in learned])
        folds = min(arguments.folds, int(np.unique(labels, return_counts=True)[1].min()))
        for kind in KINDS:
            result = classifiers.fit(
                kind, inputs, labels, arguments.constants, folds, arguments.seed
            )
            tests = list(parts(pool[1], one.test))
            blocks = (
                _scaled(kept[s], numbers[begin : begin + _BLOCK])
                for s, numbers, _ in tests
                for begin in range(0, len(numbers), _BLOCK)
            )
            truth = np.concatenate([of for _, _, of in tests])
            fitted[kind].append(result)
            accuracies[kind].append(classifiers.mean_class_accuracy(result.model, blocks, truth))
    width = next(iter(kept.values())).values.shape[1]
    return {"features": width} | {
        kind: {
            "accuracy": float(np.mean(accuracies[kind])),
            "deviation": float(np.std(accuracies[kind], ddof=1)) if len(drawn) > 1 else None,
            "accuracies": accuracies[kind],
            "constants": [result.constant for result in fitted[kind]],
            "converged": all(result.converged for result in fitted[kind]),
        }
        for kind in KINDS
    }


def _scaled(kept: Features, numbers: np.ndarray) -> np.ndarray:
    """The features of images, each scaled to length 1: float32 [n, features].

    Raises:
      RunError: they are no finite numbers.
    """
    rows = kept.rows(numbers)
    if not np.isfinite(rows).all():
        raise RunError(
            f"{kept.path}: features that are infinite or no numbers; the network's weights are not "
            "sound"
        )
    scaled: np.ndarray = normalize(rows)
    return scaled


def check_size(rows: int, width: int, layer: str) -> None:
    """Checks that training on features fits into memory.

    scikit-learn works in float64, on all rows and on four fifths of them at a time; LIBLINEAR, the
    SVM's library, copies these into nodes of 16 bytes. 37 bytes a number were measured.

    Raises:
      ConfigError: it does not.
    """
    needed = rows * width * (4 + 4 + 8 + 8 + 16)
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a Unix
        return
    if needed > there:
        raise ConfigError(
            f"--layers={layer}: training on {rows:,} x {width:,} numbers takes about "
            f"{needed / 2**30:.0f} GiB, and there are {there / 2**30:.0f}; choose --per_class=K, "
            "or --pool=average"
        )


def draw(arguments: argparse.Namespace, opened: Opened) -> Generator[Path, None, None]:
    """Prints the table, writes linear.json and linear.png, and prints the JSON in a line."""
    asked = (arguments.layers or opened.last_hidden).split(",")
    layers = list(dict.fromkeys(opened.layer(name.strip(), flag="layers") for name in asked))
    path, picture = opened.out("linear.json"), opened.out("linear.png")
    train, test = pools(opened, arguments.split)
    data = opened.data(arguments.split)
    drawn = trials(arguments, train, test, data.class_names)
    pool = train, test or train
    check_classes(arguments, train, drawn, data.dataset.name)
    for layer in layers:
        of_maps = len(opened.shapes[layer]) == 3 and arguments.pool != "none"
        shape = opened.shapes[layer][-1:] if of_maps else opened.shapes[layer]
        check_size(len(drawn[0].train), int(np.prod(shape)), layer)
    wanted: dict[str, np.ndarray] = {}
    for one in drawn:
        for part, numbers in ((pool[0], one.train), (pool[1], one.test)):
            for split, there in part.by_split(numbers).items():
                wanted[split] = np.union1d(wanted.get(split, there), there)
    kept = features_of(opened, layers, wanted)
    lost = 0
    for split, numbers in wanted.items():
        of = [np.isin(numbers, kept[split, layer].index) for layer in layers]
        lost += int((~np.all(of, axis=0)).sum())
    drawn = [readable(kept, pool, one) for one in drawn]
    if lost:
        print(f"note: {lost} of the images drawn cannot be read, and are left out")
        check_classes(arguments, train, drawn, f"{data.dataset.name}, without what is unreadable")
    print(f"{len(drawn[0].train):,} training images, {len(drawn[0].test):,} test images")
    print(f"{'layer':<24} {'features':>9}" + "".join(f"  {_TITLES[k]:<20} C" for k in KINDS))
    results = {}
    for layer in layers:
        results[layer] = measure(arguments, {s: kept[s, layer] for s in wanted}, pool, drawn)
        print(_row(layer, results[layer]), flush=True)
    for note in _notes(results, arguments.constants):
        print(note)
    report = {
        "network": opened.trained.name,
        "source": opened.trained.source,
        "checkpoint": opened.trained.step,
        "data": data.dataset.name,
        "train": "+".join(train.labels),
        "test": "+".join(pool[1].labels),
        "train_examples": len(drawn[0].train),
        "test_examples": len(drawn[0].test),
        "per_class": arguments.per_class,
        "splits": len(drawn),
        "seed": arguments.seed,
        "pool": arguments.pool,
        "scaling": "l2",
        "layers": results,
    }
    try:
        with files.replacing(path, shared=True) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n")
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror})") from error
    yield from (path, _picture(results, picture))
    print(json.dumps(report))


def _row(layer: str, result: dict[str, Any]) -> str:
    cells = f"{layer:<24} {result['features']:>9,}"
    for kind in KINDS:
        of = result[kind]
        spread = "" if of["deviation"] is None else f" ± {100 * of['deviation']:.2f}"
        constants = ", ".join(f"{c:g}" for c in sorted(set(of["constants"])))
        cells += f"  {100 * of['accuracy']:.2f}%{spread}".ljust(23) + constants
    return cells


def _notes(results: dict[str, Any], constants: Sequence[float]) -> Generator[str, None, None]:
    for layer, result in results.items():
        for kind in KINDS:
            of = result[kind]
            ends = {constants[0], constants[-1]} & set(of["constants"])
            if ends and len(constants) > 1:
                said = ", ".join(f"{c:g}" for c in sorted(ends))
                yield f"note: {layer}, {_TITLES[kind]}: C={said} is the end of --constants"
            if not of["converged"]:
                yield f"note: {layer}, {_TITLES[kind]}: a training ended before it converged"


def _picture(results: dict[str, Any], path: Path) -> Path:
    """Accuracy by layer, a line for each classifier, with standard deviations."""
    figure = pictures.figure(max(4, 1.5 + 0.7 * len(results)), 3.5)
    axes = figure.subplots()
    for kind, marker in zip(KINDS, "os", strict=True):
        of = [result[kind] for result in results.values()]
        axes.errorbar(
            range(len(of)),
            [100 * one["accuracy"] for one in of],
            yerr=[100 * (one["deviation"] or 0) for one in of],
            marker=marker, capsize=3, label=_TITLES[kind],
        )  # fmt: skip
    axes.set_xticks(range(len(results)), list(results), rotation=30, ha="right")
    axes.set_ylabel("mean class accuracy, %")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)
    return pictures.save_figure(figure, path)


if __name__ == "__main__":
    command_line.main(__doc__, add_flags, draw)
