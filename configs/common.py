"""Small helpers of the config files: durations in any unit, variants."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

UNITS = ("steps", "epochs", "examples")


class ConfigError(ValueError):
    """A config that cannot be used as it is; the message names the field and the way out."""


def add_duration(config: ConfigDict, name: str, *, several: bool = False, **value: Any) -> None:
    """Adds a duration that can be given in any unit.

    `add_duration(config, "total", epochs=90)` makes the fields `total_steps`,
    `total_epochs` (90) and `total_examples`, two of them empty.

    Args:
      config: where the fields are added.
      name: what they are called before the unit.
      several: the fields hold tuples of moments instead of one.
      **value: at most one of steps, epochs, examples.
    """
    for unit in UNITS:
        kind = tuple if several else float if unit == "epochs" else int
        config[f"{name}_{unit}"] = config_dict.placeholder(kind)
    for unit, amount in value.items():
        config[f"{name}_{unit}"] = amount


def parameter_group(
    match: str,
    *,
    multiplier: float = 1.0,
    drop_epochs: tuple[float, ...] | None = None,
    freeze_epochs: float | None = None,
) -> ConfigDict:
    """Parameters whose rate differs from the others'.

    Args:
      match: part of the parameters' paths, such as `bias` or `conv1/kernel`. Where
        several groups match a path, the longest `match` counts.
      multiplier: of `optimizer.learning_rate`.
      drop_epochs: when this group's rate falls; () never. None: whenever the
        others' does, on a plateau too. (Other units: `drop_steps`, `drop_examples`.)
      freeze_epochs: the rate is 0 from then on; None never.
    """
    group = ConfigDict({"match": match, "multiplier": multiplier})
    add_duration(group, "drop", several=True, epochs=drop_epochs)
    add_duration(group, "freeze", epochs=freeze_epochs)
    return group


def keep_overridden_unit(config: ConfigDict, overridden: Iterable[str]) -> None:
    """Lets a duration overridden in one unit replace the config's value in another.

    Args:
      config: changed in place.
      overridden: the paths of the fields that were overridden, such as `total_steps`.

    Raises:
      ConfigError: one duration was overridden in two units.
    """
    chosen: dict[str, str] = {}
    for path in overridden:
        *parents, field = path.split(".")
        name, _, unit = field.rpartition("_")
        node = config
        for parent in parents:
            node = node[parent]
        if unit not in UNITS or any(f"{name}_{other}" not in node for other in UNITS):
            continue
        stem = ".".join([*parents, name])
        if chosen.setdefault(stem, unit) != unit:
            raise ConfigError(
                f"--config.{stem}_{chosen[stem]} and --config.{stem}_{unit} say the same thing in "
                "two units; give one"
            )
        for other in UNITS:
            if other != unit:
                node[f"{name}_{other}"] = None


def to_steps(config: Any, name: str, *, batch_size: int, examples_per_epoch: int) -> Any:
    """A duration of the config in steps.

    Args:
      config: the node that has the fields of `add_duration`.
      name: of the duration.
      batch_size: examples per step.
      examples_per_epoch: size of the training set.

    Returns:
      int, rounded to the nearest and at least 1 for a positive duration; a tuple of
      ints where the config has a tuple; None where no unit is given.

    Raises:
      ConfigError: given in two units, negative or not finite.
    """
    given = {unit: config[f"{name}_{unit}"] for unit in UNITS}
    given = {unit: value for unit, value in given.items() if value is not None}
    if not given:
        return None
    if len(given) > 1:
        raise ConfigError(f"{name} is given in {' and '.join(given)}; give one")
    ((unit, value),) = given.items()
    examples = {"steps": batch_size, "epochs": examples_per_epoch, "examples": 1}[unit]

    def steps(amount: float) -> int:
        if not 0 <= amount < math.inf:
            raise ConfigError(f"{name}_{unit}={amount}: a number of 0 or more is needed")
        return max(round(amount * examples / batch_size), 1) if amount > 0 else 0

    return tuple(steps(v) for v in value) if isinstance(value, tuple | list) else steps(value)


def choose_variant(variant: str, variants: Mapping[str, Any]) -> Any:
    """The entry of `variants` called `variant`.

    Raises:
      ConfigError: there is none; the message lists those there are.
    """
    if variant not in variants:
        named = ", ".join(f":{name}" for name in variants if name)
        raise ConfigError(f"no variant :{variant}; there are {named}, or none for the paper's own")
    return variants[variant]
