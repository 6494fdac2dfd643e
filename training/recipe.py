"""What one update does: everything that the training step depends on."""

import dataclasses
from collections.abc import Sequence

from jax.sharding import Mesh

from evaluation import CLASSES, Objective
from training.errors import TrainingError
from training.optimizer import Average, Momentum, Plateau, Rate


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained, one update at a time.

    Attributes:
      rates: learning rates, the common one first.
      batch_size: examples in a batch over all devices.
      momentum: momentum and weight decay.
      plateau: the rule by which the rate falls when validation error stops improving.
      micro_batches: number of micro-batches that a device cuts its share of a batch into;
        their gradients are added up.
      seed: of the initial parameters and of the dropout masks, which are a function of (seed,
        step, place in the batch).
      dtype: of the computation; parameters, their updates and the loss are float32.
      aligned_mean: see `evaluation.preprocessing.training_input`.
      auxiliary_weight: weight of each auxiliary classifier's loss. The loss in metrics is the
        main classifier's.
      label_smoothing: see `evaluation.metrics.smoothing_loss`; 0 leaves it out. It is in the
        auxiliary classifiers' losses, not in the loss in metrics.
      rubbish_penalty: see `evaluation.metrics.rubbish_loss`; None leaves it out.
      max_gradient_norm: see `optimizer.limit_gradient`; 0 for no limit.
      max_filter_rms: see `optimizer.limit_filters`; 0 for no limit.
      statistics_group: number of examples that BatchNorm's statistics are taken over; 0 for
        the whole batch (the whole micro-batch, where there are several).
      frozen: names of the parameters that are not trained.
      average: the average of the parameters; None for none.
      skip_nonfinite: whether updates whose loss or gradient is not finite are left out.
      objective: what the network learns.
      boxes: number of boxes that come with each example; 0 for none.
      class_weights: weight of each class in the loss; None for 1. The loss in metrics has no
        weights.
    """

    rates: tuple[Rate, ...]
    batch_size: int
    momentum: Momentum = dataclasses.field(default_factory=Momentum)
    plateau: Plateau = dataclasses.field(default_factory=Plateau)
    micro_batches: int = 1
    seed: int = 0
    dtype: str = "float32"
    aligned_mean: bool = True
    auxiliary_weight: float = 0.0
    label_smoothing: float = 0.0
    rubbish_penalty: float | None = None
    max_gradient_norm: float = 0.0
    max_filter_rms: float = 0.0
    statistics_group: int = 0
    frozen: frozenset[str] = frozenset()
    average: Average | None = None
    skip_nonfinite: bool = False
    objective: Objective = CLASSES
    boxes: int = 0
    class_weights: tuple[float, ...] | None = None


def batch_multiple(mesh: Mesh, micro_batches: int, group: int) -> int:
    """A number of examples all of whose multiples are batch sizes.

    Args:
      mesh: `data` is read.
      micro_batches: of a batch.
      group: of BatchNorm's statistics, in examples; 0 for the whole batch.
    """
    return int(mesh.shape["data"]) * micro_batches * max(group, 1)


def check_batch_size(batch_size: int, mesh: Mesh, micro_batches: int) -> None:
    """Checks that every device along `data` gets equally many examples in every micro-batch.

    Raises:
      TrainingError: the batch size is not divisible.
    """
    data = mesh.shape["data"]
    shares = data * micro_batches
    if batch_size % shares:
        by = f"mesh.data={data}" + (
            f" x gradient_accumulation={micro_batches}" if micro_batches > 1 else ""
        )
        raise TrainingError(
            f"batch_size={batch_size} is not a multiple of {shares} ({by}); "
            f"choose {max(round(batch_size / shares), 1) * shares}, or another "
            + ("mesh.data" if micro_batches == 1 else "gradient_accumulation")
        )


def check_group(group: int, batch_size: int, mesh: Mesh, micro_batches: int) -> None:
    """Checks that a group of BatchNorm's statistics fits what a device computes at a time.

    The number of examples of one must be a multiple of the other's.

    Raises:
      TrainingError: the group does not fit, or is larger than a micro-batch.
    """
    if group > batch_size // micro_batches:
        raise TrainingError(
            f"batch_norm.group={group}: with gradient_accumulation={micro_batches} a batch of "
            f"{batch_size} is computed {batch_size // micro_batches} examples at a time, and "
            "statistics are of no more; choose a smaller group, or fewer micro-batches"
        )
    held = batch_size // (mesh.shape["data"] * micro_batches)
    fits = group == 0 or held % group == 0 or group % held == 0
    if not fits or (group and (batch_size // micro_batches) % group):
        raise TrainingError(
            f"batch_norm.group={group}: a device computes {held} examples at a time "
            f"(batch_size={batch_size}, mesh.data={mesh.shape['data']}, "
            f"gradient_accumulation={micro_batches}); choose a group that divides them or that "
            "they divide, or 0 for the whole batch"
        )


def frozen_names(
    names: Sequence[str], layers: Sequence[str], matches: Sequence[str], train_last: int | None
) -> frozenset[str]:
    """Names of the parameters that are not trained.

    Args:
      names: all parameters' names.
      layers: `PureNetwork.layers`.
      matches: parameters whose name contains one of these are frozen.
      train_last: number of last layers to train, the layers before them being frozen; None
        freezes no layers.

    Raises:
      TrainingError: nothing would be trained, or no name contains a match.
    """
    matches = [match.strip() for match in matches if match.strip()]
    for match in matches:
        if not any(match in name for name in names):
            raise TrainingError(
                f"optimizer.frozen: {match!r} is in no parameter's name ({', '.join(names)})"
            )
    if train_last is not None and not 1 <= train_last <= len(layers):
        raise TrainingError(
            f"optimizer.train_last={train_last}: choose 1 to {len(layers)} of {', '.join(layers)}"
        )
    first = layers[: len(layers) - train_last] if train_last is not None else ()
    frozen = frozenset(
        name
        for name in names
        if any(match in name for match in matches) or name.split("/")[0] in first
    )
    if len(frozen) == len(names):
        raise TrainingError(
            "optimizer.frozen and optimizer.train_last freeze every layer: nothing would be trained"
        )
    return frozen
