"""Guesses for single images, without a dataset."""

import contextlib
import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np

from devices import mesh as meshes
from evaluation import Protocol, make_step, protocol_called
from evaluation.words import synsets
from training.errors import RunError, TrainingError
from training.initial import normalization_for, put_complete
from training.task import make_task
from training.trained import Trained


def predictor(
    trained: Trained, protocol: str
) -> tuple[Protocol, Callable[[np.ndarray], np.ndarray]]:
    """A function from images to log-probabilities, on one device.

    Args:
      trained: a whole network, with its normalization and preprocessing.
      protocol: the name of a protocol.

    Returns:
      The protocol, which says how images are read; and a function from its images, uint8
      [B, square, square, 3], to log-probabilities, float32 [B, classes].

    Raises:
      TrainingError: the network's preprocessing, normalization or some weights are not known.
      EvaluationError: there is no such protocol.
    """
    if trained.preprocessing is None or trained.normalization is None:
        what = "normalization" if trained.preprocessing else "preprocessing"
        raise TrainingError(
            f"{trained.source} does not say the {what} of its images: name a config that does, "
            "with --config and, for the normalisation, --config.init_preprocessing"
        )
    preprocessing = trained.preprocessing
    options = {**trained.options, "num_classes": trained.num_classes}
    task = make_task(trained.name, options, preprocessing, data=1, tower=1)
    chosen = protocol_called(protocol, preprocessing)
    step = make_step(
        chosen, task.network.apply, task.mesh, task.param_specs, preprocessing, task.dtype
    )
    model = put_complete(trained, task)
    expected = normalization_for(trained, chosen.images.square)
    assert expected is not None
    normalization = {k: meshes.replicate(task.mesh, v) for k, v in expected.items()}
    place = meshes.batch_placer(task.mesh)

    def predict(images: np.ndarray) -> np.ndarray:
        placed = place({"image": images})["image"]
        return np.asarray(step(model["params"], model["statistics"], normalization, placed))

    return chosen, predict


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
