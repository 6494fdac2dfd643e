"""Guesses for single images, without a dataset."""

import contextlib
import json
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from devices import mesh as meshes
from evaluation import (
    Images,
    Protocol,
    check_network,
    check_objective,
    make_steps,
    protocol_called,
)
from evaluation.words import synsets
from training.errors import RunError, TrainingError
from training.initial import normalization_for, put_complete
from training.task import make_task
from training.trained import Trained, check_classifier

# Whole images are padded to multiples of so many pixels, so that few programs serve all.
_STEP = 64


def predictor(
    trained: Trained,
    protocol: str,
    most: int,
    scales: Sequence[int] = (),
    dense_average: str = "scores",
) -> tuple[Protocol, int, Callable[[Sequence[Sequence[np.ndarray]]], np.ndarray]]:
    """A function from photographs to log-probabilities, on one device.

    Args:
      trained: a whole network, with its normalization and preprocessing.
      protocol: the name of a protocol.
      most: photographs in one program.
      scales, dense_average: see `evaluation.protocol_called`.

    Returns:
      The protocol, whose looks say how images are read; how many photographs are given at a
      time; and a function from photographs, each a list with one uint8 [height, width, 3] for
      each look, to log-probabilities, float32 [photographs, classes].

    Raises:
      TrainingError: the network's preprocessing, normalization or some weights are not known.
      EvaluationError: there is no such protocol, or the network cannot be tested by it.
    """
    if trained.preprocessing is None or trained.normalization is None:
        what = "normalization" if trained.preprocessing else "preprocessing"
        raise TrainingError(
            f"{trained.source} does not say the {what} of its images: name a config that does, "
            "with --config and, for the normalisation, --config.init_preprocessing"
        )
    check_classifier(trained)
    preprocessing = trained.preprocessing
    options = {**trained.options, "num_classes": trained.num_classes}
    task = make_task(trained.name, options, preprocessing, data=1, tower=1)
    chosen = protocol_called(protocol, preprocessing, scales, dense_average)
    check_network(chosen, task.network)
    check_objective(chosen, task.objective)
    steps = make_steps(chosen, task.network, task.mesh, task.param_specs, preprocessing, task.dtype)
    # Whole images come one by one: the next one may be of another shape.
    rows = 1 if any(look.images.whole for look in chosen.looks) else most
    model = put_complete(trained, task)
    place = meshes.batch_placer(task.mesh)
    normalizations = []
    for look in chosen.looks:
        expected = normalization_for(trained, None if look.images.whole else look.images.square)
        assert expected is not None
        normalizations.append({k: meshes.replicate(task.mesh, v) for k, v in expected.items()})

    def predict(photographs: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        found = []
        for number, look in enumerate(chosen.looks):
            images = _batch([p[number] for p in photographs], rows, look.images)
            scores = steps[number](
                model["params"], model["statistics"], normalizations[number],
                *place(images).values(),
            )  # fmt: skip
            found.append(np.asarray(scores)[: len(photographs)])
        return chosen.combined(found)

    return chosen, rows, predict


def _batch(pixels: list[np.ndarray], rows: int, images: Images) -> dict[str, np.ndarray]:
    """Images as a batch of so many rows; of whole ones also how large each is."""
    sizes = np.array([image.shape[:2] for image in pixels], np.int32)
    height, width = sizes.max(axis=0)
    if images.whole:
        height, width = (
            images.side if n == images.side else -(-n // _STEP) * _STEP for n in (height, width)
        )
    whole = np.zeros((rows, height, width, 3), np.uint8)
    for row, image in enumerate(pixels):
        whole[row, : image.shape[0], : image.shape[1]] = image
    if not images.whole:
        return {"image": whole}
    return {"image": whole, "valid": np.pad(sizes, [(0, rows - len(sizes)), (0, 0)], mode="edge")}


def class_names_of(trained: Trained) -> tuple[str, ...]:
    """The name of each logit's class; its number where the name is not known."""
    if trained.class_names is not None:
        return trained.class_names
    if trained.imagenet:
        return tuple(synsets())
    return tuple(map(str, range(trained.num_classes)))


@contextlib.contextmanager
def predictions_file(path: Path) -> Generator[Callable[[dict[str, Any]], None], None, None]:
    """A function that adds a JSON object to a file, which is emptied first.

    Raises:
      RunError: the file cannot be written.
    """

    def failed(error: OSError) -> RunError:
        return RunError(f"{path}: cannot be written ({error.strerror}); name a place with --out")

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w", encoding="utf-8")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise failed(error) from error

    def write(values: dict[str, Any]) -> None:
        try:
            file.write(json.dumps(values, ensure_ascii=False) + "\n")
            file.flush()
        except OSError as error:
            raise failed(error) from error

    with file:
        yield write
