"""What one update does: the fields of a config that the training step is made from, checked."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jax.sharding import Mesh

from training.errors import TrainingError
from training.optimizer import Average, Rate, rates_by_parameter, rates_from_config
from vision_models.functional import PureNetwork, parameter_names


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained, one update at a time.

    Attributes:
      rates: learning rates, the common one first.
      batch_size: examples in a batch over all devices.
      parts: that each device computes its share of a batch in, one after another, adding
        up their gradients.
      seed: of the dropout masks, which are a function of (seed, step, place in the batch).
      dtype: of the computation; parameters, their updates and the loss are float32.
      aligned_mean: see `evaluation.inputs.training_input`.
      auxiliary_weight: of the loss of each auxiliary classifier; the loss in metrics is
        that of the main one.
      rubbish_penalty: see `evaluation.metrics.rubbish_loss`; None leaves it out.
      max_filter_rms: see `optimizer.limit_filters`; 0 does not limit.
      statistics_group: examples that BatchNorm's statistics are of; 0 for the whole batch
        (of each part, where there are several).
      frozen: names of the parameters that stay as they are.
      average: of the parameters; None keeps none.
      skip_nonfinite: an update whose loss or gradient is not finite is left out.
    """

    rates: tuple[Rate, ...]
    batch_size: int
    parts: int = 1
    seed: int = 0
    dtype: str = "float32"
    aligned_mean: bool = True
    auxiliary_weight: float = 0.0
    rubbish_penalty: float | None = None
    max_filter_rms: float = 0.0
    statistics_group: int = 0
    frozen: frozenset[str] = frozenset()
    average: Average | None = None
    skip_nonfinite: bool = False


def recipe_from_config(
    config: Any, network: PureNetwork, mesh: Mesh, to_steps: Callable[[str], Any]
) -> Recipe:
    """The recipe of a config for a network on a mesh.

    Args:
      config: `seed`, `batch_size`, `gradient_accumulation`, `nonfinite`, `compute_dtype`,
        `batch_norm`, `data.mean`, `loss` and `optimizer` are read.
      network: what is trained.
      mesh: with an axis `data`.
      to_steps: path of a duration in the config, such as `optimizer.drop` -> steps.

    Raises:
      TrainingError: fields that contradict one another, the mesh or the network.
    """
    optimizer, names = config.optimizer, parameter_names(network.per_tower)
    rates = rates_from_config(optimizer, to_steps)
    rates_by_parameter(rates, names)  # groups that match nothing
    parts = config.gradient_accumulation
    check_batch_size(config.batch_size, mesh, parts)
    group = config.batch_norm.group
    if parts == 1 and group >= config.batch_size:
        group = 0  # all there is, without a name for it that other meshes must divide
    _check_group(group, config.batch_size, mesh, parts)
    return Recipe(
        rates=tuple(rates),
        batch_size=config.batch_size,
        parts=parts,
        seed=config.seed,
        dtype=config.compute_dtype,
        aligned_mean=config.data.mean == "image",
        auxiliary_weight=config.loss.auxiliary_weight,
        rubbish_penalty=config.loss.rubbish_penalty,
        max_filter_rms=optimizer.max_filter_rms,
        statistics_group=group,
        frozen=frozen_names(
            names, network.layers, optimizer.frozen.split(","), optimizer.train_last
        ),
        average=_average(optimizer, to_steps),
        skip_nonfinite=config.nonfinite == "skip",
    )


def check_batch_size(batch_size: int, mesh: Mesh, parts: int) -> None:
    """Every device along `data` gets the same number of examples in every part.

    Raises:
      TrainingError: it does not divide.
    """
    data = mesh.shape["data"]
    shares = data * parts
    if batch_size % shares:
        by = f"mesh.data={data}" + (f" x gradient_accumulation={parts}" if parts > 1 else "")
        raise TrainingError(
            f"batch_size={batch_size} is not a multiple of {shares} ({by}); "
            f"choose {max(round(batch_size / shares), 1) * shares}, or another "
            + ("mesh.data" if parts == 1 else "gradient_accumulation")
        )


def _check_group(group: int, batch_size: int, mesh: Mesh, parts: int) -> None:
    if group > batch_size // parts:
        raise TrainingError(
            f"batch_norm.group={group}: with gradient_accumulation={parts} a batch of {batch_size} "
            f"is computed {batch_size // parts} examples at a time, and statistics are of no more; "
            "choose a smaller group, or fewer parts"
        )
    held = batch_size // (mesh.shape["data"] * parts)
    fits = group == 0 or held % group == 0 or group % held == 0
    if not fits or (group and (batch_size // parts) % group):
        raise TrainingError(
            f"batch_norm.group={group}: a device computes {held} examples at a time "
            f"(batch_size={batch_size}, mesh.data={mesh.shape['data']}, "
            f"gradient_accumulation={parts}); choose a group that divides them or that they "
            "divide, or 0 for the whole batch"
        )


def frozen_names(
    names: Sequence[str], layers: Sequence[str], matches: Sequence[str], train_last: int | None
) -> frozenset[str]:
    """Names of the parameters that are not trained.

    Args:
      names: of all parameters.
      layers: `PureNetwork.layers`.
      matches: parts of the names to freeze.
      train_last: the layers before the last so many are frozen too; None: none of them.

    Raises:
      TrainingError: nothing would be trained, or a match that no name has.
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


def _average(optimizer: Any, to_steps: Callable[[str], Any]) -> Average | None:
    if optimizer.average == "none":
        return None
    start = to_steps("optimizer.average_from") or 0
    return Average(optimizer.average, optimizer.average_decay, start)
