"""The network that a config names, with its options."""

from collections.abc import Mapping
from typing import Any

import vision_models
from training.errors import TrainingError

# A network's options that the data decide, and not its name.
_OF_THE_DATA = ("num_classes", "image_size")


def wrong_options(error: ValueError) -> TrainingError:
    """What `vision_models.create` says of options, with the fields that they come from."""
    crop = "data.crop, " if "image_size=" in str(error) else ""
    return TrainingError(f"{crop}model: {error}")


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def model_fields(
    model: Mapping[str, Any], overrides: Mapping[str, Any], network: str | None
) -> dict[str, Any]:
    """The fields `model` of a config, such that its name means its network.

    Where another network is named than the config was written for, every option that was not
    overridden is what it is by default in that network.

    Args:
      model: nested fields, `name` among them.
      overrides: paths and values of all fields that were overridden, such as `model.towers`.
      network: the name that the config was written with.

    Returns:
      The same fields, or `name` and all options of the other network.

    Raises:
      TrainingError: an unknown name, an option that its network does not have, or one that
        makes it another network; the message names the fields.
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
    strange = [field for field in given if field.split(".")[0] not in options]
    if strange:
        raise TrainingError(
            f"--config.model.{strange[0]}: no option of {name}; it has {', '.join(options)}"
        )
    fields = {k: dict(v) if isinstance(v, Mapping) else v for k, v in options.items()}
    for field, value in ({k: model[k] for k in _OF_THE_DATA} | given).items():
        group, _, constant = field.partition(".")
        if constant:
            fields[group][constant] = value
        else:
            fields[group] = value
    return {"name": name, **fields}
