"""What main.py's modes do about boxes: ILSVRC's second task."""

import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.common import ConfigError
from process import DONE


def evaluate_guesses(guesses: str | None, config: Any) -> int:
    """Prints the official errors of a submission file on a dataset's annotated split.

    Args:
      guesses: path of the file.
      config: `data`, `evaluation.split` and `evaluation.excluded` are read.

    Raises:
      ConfigError: no file is named.
      DataError: the dataset cannot be opened, or has no annotations.
      EvaluationError: the file, or the list of excluded images, is wrong.
    """
    if not guesses:
        raise ConfigError(
            "--mode=evaluate_guesses needs --guesses=FILE, a submission of ILSVRC's second task "
            "(label xmin ymin xmax ymax, five times a line, or Kaggle's CSV)"
        )
    import input_pipeline
    from evaluation import localization

    cache = input_pipeline.cache_dir_of(config.data)
    only = config.evaluation.split or input_pipeline.REPORTED
    data = input_pipeline.open_data(config.data, cache, only=only)
    split = config.evaluation.split or data.evaluation_split
    names, truths = truths_of(data, split)
    found, notes = localization.read(Path(guesses), names)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    report = official_report(found, truths, names, config.evaluation.excluded)
    print(json.dumps({"guesses": guesses, "split": split, **report}))
    return DONE


def truths_of(data: Any, split: str) -> tuple[Any, list[Any]]:
    """What the images and classes of a split are called, and the true boxes of each image.

    Args:
      data, split: of the dataset.

    Raises:
      DataError: the dataset has no annotations.
    """
    import input_pipeline
    from evaluation import localization

    examples = data.examples(split)
    boxes_of = input_pipeline.boxes_of(examples, f"{data.dataset.name}, {split}")
    labels = input_pipeline.labels_of(examples, data.cache_dir)
    truths = []
    for row in range(examples.count):
        drawn = boxes_of(row)
        truths.append(localization.Truth(int(labels[row]), drawn.corners, drawn.labels))
    return _names(data, examples), truths


def _names(data: Any, examples: Any) -> Any:
    """What the images of a split and their classes are called."""
    from evaluation import localization

    images = [examples.name(row) for row in range(examples.count)]
    return localization.Names(images, data.class_names)


def official_report(
    guesses: list[Any], truths: list[Any], names: Any, excluded: str | None
) -> dict[str, Any]:
    """The official errors, with notes on the images that are left out.

    Args:
      guesses, truths: of each image.
      names: of images and classes.
      excluded: path of the list of excluded images; None for none.

    Raises:
      EvaluationError: see `excluded_images` and `official_errors`.
    """
    from evaluation import localization

    rows = _excluded(excluded, names.images) if excluded else []
    report = localization.official_errors(guesses, truths, rows)
    bare = [
        name for name, truth in zip(names.images, truths, strict=True) if not len(truth.of_class)
    ]
    if bare:
        print(
            f"note: {len(bare):,} of {len(truths):,} images have no box of their class, and are "
            f"not in the localization error ({bare[0]} is one)",
            file=sys.stderr,
        )
    return report


def check_boxes(config: Any, data: Any, *splits: str) -> None:
    """Checks, before anything is computed, that splits have the boxes that a config asks for.

    Args:
      config: `data.boxes.count` and `loss.boxes` are read.
      data: the opened dataset.
      splits: which are needed.

    Raises:
      DataError: there are no annotations, or boxes are learned and no image has one of its class.
    """
    import input_pipeline

    if not config.data.boxes.count:
        return
    for split in splits:
        examples = data.examples(split)
        boxes_of = input_pipeline.boxes_of(
            examples, f"data.boxes.count={config.data.boxes.count}, {split}"
        )
        labels = input_pipeline.labels_of(examples, data.cache_dir)
        if config.loss.boxes != "none" and not any(
            label in boxes_of(row).labels for row, label in enumerate(labels)
        ):
            raise input_pipeline.DataError(
                f"{_no_box(examples, split)}; objects must be named as the classes are, such as "
                f"{data.class_names[labels[0]]}"
            )


def _no_box(examples: Any, split: str) -> str:
    """Says in words that a split's annotations have no box of its images' classes."""
    return (
        f"{examples.boxes_from}: none of the {examples.count:,} images of {split} "
        f"({examples.name(0)} the first) has a box of its class"
    )


def without_excluded(config: Any, data: Any, split: str, task: Any) -> tuple[Any, list[int]]:
    """The task with means that leave out what `evaluation.excluded` lists, and its rows.

    Args:
      config: `evaluation.excluded` is read, and `loss.boxes`, without which it has no effect.
      data, split: whose images the list numbers.
      task: what is evaluated.

    Raises:
      EvaluationError: see `excluded_images`.
    """
    listed = config.evaluation.excluded
    if not listed or config.loss.boxes == "none":
        return task, []
    examples = data.examples(split)
    rows = _excluded(listed, [examples.name(row) for row in range(examples.count)])
    means = functools.partial(task.objective.means, excluded=rows)
    objective = dataclasses.replace(task.objective, means=means)
    return dataclasses.replace(task, objective=objective), rows


def _excluded(listed: str, images: list[str]) -> list[int]:
    """The rows of excluded images; says how many there are."""
    from evaluation import localization

    rows = localization.excluded_images(Path(listed), images)
    print(f"note: {listed} leaves out {len(rows):,} images", file=sys.stderr)
    return rows


def _mean_box_error(boxes: list[Any]) -> float:
    """The error of a regressor that answers the mean box of a split's objects for every image.

    Args:
      boxes: of each image those of its class, [n, 4], as shares of the image.
    """
    import numpy as np

    from evaluation import localization

    own = [of_image for of_image in boxes if len(of_image)]
    mean = np.concatenate(own).mean(axis=0)
    wrong = [localization.region_overlaps(mean, boxes).max() < 0.5 for boxes in own]
    return float(np.mean(wrong))


def merge_boxes(
    config: Any,
    data: Any,
    read: Any,
    protocol: Any,
    trained: Any,
    task: Any,
    workdir: Path,
    excluded: list[int],
) -> dict[str, Any]:
    """Evaluates a regressor by a protocol that merges the boxes of many windows.

    Guesses go to WORKDIR/guesses/<split>-<protocol>.csv and .txt, and with
    `evaluation.save_scores` the boxes of all windows to WORKDIR/boxes/<split>-<protocol>.npz.

    Args:
      config: `evaluation` is read.
      data: the dataset.
      read: its split, a `training.Split`.
      protocol, trained, task: what is evaluated.
      workdir: where files go.
      excluded: rows of the images that are left out of localization errors.

    Returns:
      What is written to evaluation.json; without errors if the split has no true boxes. `guesses`
      is None if a submission cannot tell the images apart.

    Raises:
      ConfigError: the images are prepared ones.
      EvaluationError: see `training.windows_of`; or all images with a box are excluded.
      RunError, TrainingError: see `training.windows_of`, `open_classifier`, `write_report`.
    """
    import jax

    import training
    from evaluation.localization import box_files
    from evaluation.localization.merging import Merging

    chosen, split = config.evaluation, read.name
    if config.data.prepared_dir:
        raise ConfigError(
            f"evaluation.protocol={protocol.name}: boxes are in pixels of the images themselves; "
            "leave out data.prepared_dir"
        )
    classifier = None
    if chosen.classifier:
        classifier = training.open_classifier(chosen.classifier, data.class_names, task)
    merge, name = chosen.merge, f"{split}-{protocol.label}"
    merging = Merging(merge.threshold, merge.distance, protocol.name == "overfeat_boxes")
    subject = _subject(data, split, excluded)
    apart = _told_apart(subject.names)
    looks = training.windows_of(trained, task, protocol, read, classifier, merge.classes)
    is_first = jax.process_index() == 0
    unwritten: OSError | None = None
    if is_first and chosen.save_scores:  # the merge may take hours
        said = {"protocol": protocol.label, "source": trained.source}
        try:
            box_files.write(workdir / "boxes" / f"{name}.npz", looks, subject, said)
        except OSError as error:
            unwritten = error  # said with the result
    found = box_files.guesses(looks, subject, merging)
    place = workdir / "guesses" / name
    report = {
        "protocol": protocol.label,
        "split": split,
        "checkpoint": trained.source if trained.step is None else trained.step,
        **({"classifier": chosen.classifier} if classifier else {}),
        "examples": len(looks[0].index),
        **box_files.errors(found, subject, excluded),
        "guesses": f"{place}.csv" if apart else None,
    }

    def write_files() -> None:
        if apart:
            box_files.write_guesses(place, found, subject.names)
        if unwritten is not None:
            raise unwritten

    if is_first:
        training.write_report(report, workdir, write_files)
    return report


def _subject(data: Any, split: str, excluded: list[int]) -> Any:
    """The images of a split as `box_files` has them, with their true boxes if there are some.

    Raises:
      DataError: see `input_pipeline.image_sizes`.
      EvaluationError: all images with a box are excluded.
    """
    import numpy as np

    import input_pipeline
    from evaluation import localization
    from evaluation.localization import box_files

    examples = data.examples(split)
    truths, annotated = None, np.zeros((examples.count, 2), np.int32)
    if examples.boxes is not None:
        truths = truths_of(data, split)[1]
        annotated = np.array([examples.boxes(row).shown for row in range(examples.count)])
        if any(len(truth.of_class) for truth in truths):
            localization.localized(truths, excluded)
        else:
            print(f"note: {_no_box(examples, split)}; there are no errors", file=sys.stderr)
            truths = None
    looked = (examples, data.cache_dir, data.choices.reading.parallel)
    sizes, marks = input_pipeline.image_sizes(*looked), input_pipeline.orientation_marks(*looked)
    return box_files.Subject(_names(data, examples), split, sizes, marks, annotated, truths)


def _told_apart(names: Any) -> bool:
    """Whether a submission can tell images apart by their file names; if not, says so."""
    from evaluation import EvaluationError, localization

    try:
        localization.stems(names.images)
    except EvaluationError as error:
        print(f"note: no file of guesses is written: {error}", file=sys.stderr)
        return False
    return True


def besides(
    data: Any, split: str, protocol: Any, workdir: Path, excluded: list[int]
) -> Callable[[Any], tuple[dict[str, Any], Callable[[], object]]]:
    """What an evaluation of boxes writes and reports besides the means over its examples.

    The guesses go to WORKDIR/guesses/<split>-<protocol>.csv in Kaggle's form.

    Args:
      data, split, protocol: what is evaluated.
      workdir: where the guesses go.
      excluded: rows of the images that are left out of errors.

    Returns:
      A function from the rows of `localization.regression.rows` to an addition to the report, and
      to a function that writes the guesses; of other protocols it adds and writes nothing.
      `guesses` is None in the report if a submission cannot tell the images apart.

    Raises:
      DataError: see `truths_of`, `input_pipeline.image_sizes`.
      EvaluationError: no image has a box of its class that counts.
    """
    if not protocol.of_boxes:
        return lambda scores: ({}, lambda: None)
    import numpy as np

    import input_pipeline
    from devices.mesh import gather_rows
    from evaluation import localization

    (look,) = protocol.looks
    names, truths = truths_of(data, split)
    localization.localized(truths, excluded)
    path = workdir / "guesses" / f"{split}-{protocol.label}.csv" if _told_apart(names) else None
    examples, left_out = data.examples(split), set(excluded)
    looked = (examples, data.cache_dir, data.choices.reading.parallel)
    of_all = input_pipeline.image_sizes(*looked), input_pipeline.orientation_marks(*looked)
    drawn = list(map(input_pipeline.boxes_of(examples, split), range(examples.count)))

    def found(scores: Any) -> tuple[dict[str, Any], Callable[[], object]]:
        index, rows, labels = gather_rows(scores.index, scores.scores, scores.label)
        index, first = np.unique(index, return_index=True)
        sizes, marks = (of[index] for of in of_all)
        scaled = input_pipeline.rescaled_sizes(sizes, look.images.side)
        shares = localization.of_image(
            rows[first][:, :4], scaled, look.images.side, look.images.pad
        )
        annotated = np.array([of_image.shown for of_image in drawn])[index]
        boxes = localization.in_pixels(shares, sizes, annotated, marks)
        guesses = [localization.NO_GUESSES] * examples.count
        for row, label, box in zip(index, labels[first], boxes, strict=True):
            guesses[row] = localization.Guesses(np.array([label]), box[None])
        own = [
            input_pipeline.extents(boxes).edges[boxes.labels == truth.label]
            for row, (boxes, truth) in enumerate(zip(drawn, truths, strict=True))
            if row not in left_out
        ]

        def write_files() -> None:
            if path is not None:
                localization.write(path, "kaggle", guesses, names)

        said = None if path is None else str(path)
        return {"guesses": said, "mean_box_error": _mean_box_error(own)}, write_files

    return found
