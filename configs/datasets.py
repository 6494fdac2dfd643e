"""What is known of datasets without opening them: their classes and training examples.

The counts are those of the datasets' authors. What is held out of train for validation is the
default of `data.validation_examples`.
"""

from typing import Any, NamedTuple

from configs.common import ConfigError


class Known(NamedTuple):
    """A dataset as it is published.

    Attributes:
      classes: number of classes.
      train: number of training examples.
      held_out: of these, how many are validated on where there is no validation split.
    """

    classes: int
    train: int
    held_out: int = 0


DATASETS = {
    "imagenet2012": Known(1000, 1_281_167),
    "imagenet2010": Known(1000, 1_261_406),
    "cifar10": Known(10, 50_000, 5_000),
    "cifar100": Known(100, 50_000, 5_000),
    "mnist": Known(10, 60_000, 5_000),
    "fashion_mnist": Known(10, 60_000, 6_000),
    "digits": Known(10, 1_797, 360),
    "digit_canvases": Known(10, 100_000),
}


def size(config: Any) -> tuple[int, int]:
    """Number of classes and of examples in an epoch of a config's dataset, without opening it.

    Raises:
      ConfigError: the dataset is not known, and the config does not say.
    """
    data = config.data
    known = DATASETS.get(data.name.split("/")[0].split(":")[0])
    classes = known.classes if known is not None else config.model.num_classes
    if data.classes:
        # How many examples these have is not known without the labels.
        classes, known = len(data.classes), None
    each = data.train_examples_per_class
    chosen = data.train_examples or (each * classes if each and classes else None)
    if classes is None or (known is None and chosen is None):
        raise ConfigError(
            f"--mode=compile touches no data, and how many classes and examples "
            f"data.name={data.name}{' has with data.classes' if data.classes else ' has'} is not "
            "known without it: set --config.model.num_classes=N and --config.data.train_examples=N"
        )
    if known is None:
        return classes, chosen or 0
    held = known.held_out
    if held and data.validation_examples is not None:
        held = data.validation_examples
    trained = known.train - held
    if data.folds:
        trained = known.train - -(-known.train // data.folds)  # without the largest fold
    return classes, min(chosen or trained, trained)
