"""The config's fields that a run or a weights file says, as nested dicts."""

from pathlib import Path
from typing import Any

from training.errors import TrainingError
from training.trained import Trained
from training.workdir import is_directory, located, saved_config
from vision_models import weights


def config_fields(source: str) -> dict[str, Any]:
    """The fields of a config that evaluates a run or a weights file as it was trained.

    Args:
      source: path of the run or the file, or the name of a trained network.

    Returns:
      A run's whole config; for a file `init_from`, `model`, and the fields of `data` and
      `evaluation` that it says.

    Raises:
      TrainingError: it cannot be opened, or does not say its network and dataset.
    """
    path = located(Path(source))
    if is_directory(path):
        try:
            return saved_config(path)["config"]
        except FileNotFoundError as error:
            raise TrainingError(f"{path}: a directory without config.json, so no run") from error
    try:
        named = weights.named_network(path)
    except weights.WeightsError as error:
        raise TrainingError(str(error)) from error
    trained = None if named is None else Trained.open(path)
    if trained is None or trained.dataset is None:
        raise TrainingError(
            f"{path}: a file that does not say its network and dataset; choose a --config that "
            "does, and name the file with --config.init_from"
        )
    model = {"name": trained.name, **trained.options}
    fields = {"init_from": source, "model": model, "data": data_fields(trained)}
    if trained.protocol is not None:
        fields["evaluation"] = {"protocol": trained.protocol}
    return fields


def data_fields(trained: Trained) -> dict[str, Any]:
    """The fields `data` that a trained network says: its dataset and how images are cropped."""
    fields: dict[str, Any] = {} if trained.dataset is None else {"name": trained.dataset}
    if trained.validation_examples is not None:
        fields["validation_examples"] = trained.validation_examples
    made = trained.preprocessing
    if made is None:
        return fields
    mean = "image" if made.aligned_mean else "channel"
    return fields | {"resize": made.resize, "crop": made.crop, "pad": made.pad, "mean": mean}
