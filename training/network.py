"""The network that a config names, with its options."""

from collections.abc import Mapping
from typing import Any

import vision_models
from training.errors import TrainingError

# Options of a network that follow from the data, not from its name.
_OF_THE_DATA = ("num_classes", "image_size")


def wrong_options(error: ValueError) -> TrainingError:
    """The error of `vision_models.create`, with the config fields at fault."""
    crop = "data.crop, " if "image_size=" in str(error) else ""
    return TrainingError(f"{crop}model: {error}")


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def model_fields(
    model: Mapping[str, Any], overrides: Mapping[str, Any], network: str | None
) -> dict[str, Any]:
    """The fields `model` of a config, made consistent with `model.name`.

    If `model.name` was overridden, every other option that was not takes the named network's
    default.

    Args:
      model: nested fields, `name` among them.
      overrides: path, such as `model.towers`, and value of every overridden field.
      network: the name that the config was written with.

    Returns:
      The same fields, or `name` and all options of the other network.

    Raises:
      TrainingError: the name is unknown, or an option is unknown to the named network or
        contradicts the name; the message names the fields.
    """
    name = model["name"]
    try:
        options = vision_models.default_options(name)
        definition = vision_models.definition(name)
    except ValueError as error:
        raise TrainingError(f"--config.model.name: {error}") from error
    given = {
        path.removeprefix("model."): value
        for path, value in overrides.items()
        if path.startswith("model.") and path != "model.name"
    }
    checked = dict(given) if "model.name" in overrides else {}
    if name == network:
        checked |= {field: _plain(model[field]) for field in model if field not in given}
    differing = {f: v for f, v in definition.items() if f in checked and checked[f] != v}
    if differing:
        said = ", ".join(f"model.{field}={checked[field]}" for field in differing)
        wanted = ", ".join(f"{field}={value}" for field, value in differing.items())
        raise TrainingError(
            f"--config.{said}: contradicts model.name={name}, which stands for {wanted}; choose "
            "either"
        )
    if name == network:
        return dict(model)
    unknown = [field for field in given if field.split(".")[0] not in options]
    if unknown:
        raise TrainingError(
            f"--config.model.{unknown[0]}: no option of {name}; it has {', '.join(options)}"
        )
    fields = {k: dict(v) if isinstance(v, Mapping) else v for k, v in options.items()}
    for field, value in ({k: model[k] for k in _OF_THE_DATA} | given).items():
        group, _, constant = field.partition(".")
        if constant:
            fields[group][constant] = value
        else:
            fields[group] = value
    return {"name": name, **fields}
