"""Configs as claims use them: overrides as text, a shorter length, cost, and what has changed."""

import functools
import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags

from claims.claim import Fields
from claims.errors import ClaimError
from configs import command_line, common
from configs.common import ConfigError
from configs.fields import UNITS

ROOT = Path(__file__).resolve().parent.parent
# Examples of the training split that the configs' defaults leave.
EXAMPLES = {"imagenet2012": 1_281_167, "cifar10": 45_000, "mnist": 55_000, "digits": 1_437}
# Fields of which a run computes the same whatever they are: paths and how it is divided, and its
# output, to which what concerns evaluation belongs.
_PATHS = (
    "data.dir",
    "data.cache_dir",
    "data.prepared_dir",
    "data.threads",
    "checkpoint_",
    "mesh.",
    "profile_",
    "init_from",
    "model.num_classes",
)
_FREE = (*_PATHS, "evaluation.", "log_every_")
# Moments and lengths that move with the length of a run.
_MOMENTS = ("total", "drop", "warmup", "freeze", "average_from", "colour_noise_until")


def text(value: Any) -> str:
    """A field's value as it stands on a command line."""
    return str(value).replace(" ", "") if isinstance(value, tuple) else str(value)


def arguments(source: str, overrides: Fields) -> list[str]:
    """--config and its overrides, as main.py takes them in the repository's root."""
    file, colon, variant = source.partition(":")
    return [
        f"--config=configs/{file}.py{colon}{variant}",
        *(f"--config.{path}={text(value)}" for path, value in overrides.items()),
    ]


@functools.cache
def _written(source: str) -> dict[str, Any]:
    """The fields of a config as its file has them, by path."""
    file, _, variant = source.partition(":")
    module = importlib.import_module(f"configs.{file}")
    config = module.get_config(variant) if variant else module.get_config()
    return dict(flat(json.loads(config.to_json_best_effort())))


@functools.cache
def usual() -> dict[str, Any]:
    """The fields that all configs begin with, by path."""
    base = common.base_config(batch_size=1, learning_rate=1.0)
    return dict(flat(json.loads(base.to_json_best_effort())))


def fields_of(source: str, overrides: Fields) -> dict[str, Any]:
    """The fields of a config of the registry by path, with overrides, in no time.

    Unlike `resolved` it checks nothing, and leaves fields as they are that follow from others.
    """
    found = dict(_written(source))
    for path, value in overrides.items():
        stem, _, unit = path.rpartition("_")
        if unit in UNITS:
            found |= {f"{stem}_{other}": None for other in UNITS}
        found[path] = value
    return found


@functools.lru_cache(maxsize=512)
def _resolved(arguments: tuple[str, ...]) -> dict[str, Any]:
    config, *rest = arguments
    name, _, path = config.partition("=")
    try:
        argv = ["claims", f"{name}={ROOT / path}", *rest]
        parsed = command_line.parse(argv, flags.FlagValues())
        assert parsed is not None, "there is a --config"
        command_line.check(parsed)
    except ConfigError as error:
        raise ClaimError(str(error)) from error
    fields = dict(flat(json.loads(parsed.config.to_json_best_effort())))
    if parsed.renamed:  # the network's options are then those that are overridden
        written = {f"model.{name}" for name in parsed.written.model}
        fields = {k: v for k, v in fields.items() if k not in written or k in parsed.overrides}
    return fields


def resolved(source: str, overrides: Fields) -> dict[str, Any]:
    """All fields of a config by path, tuples as lists; JAX is not needed.

    Raises:
      ClaimError: the config or an override is invalid.
    """
    return dict(_resolved(tuple(arguments(source, overrides))))


def flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Fields by path: {"data": {"crop": 224}} -> ("data.crop", 224)."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def shortened(source: str, overrides: Fields, fraction: float) -> dict[str, Any]:
    """Overrides of a run of another length, whose rates change at the same fractions of it.

    Args:
      source: `CONFIG[:VARIANT]`.
      overrides: of the run at its whole length.
      fraction: of the length.

    Returns:
      `overrides` with total, drops, warm-up and other moments multiplied by `fraction`; steps
      and examples are rounded and at least 1.
    """
    if fraction == 1:
        return dict(overrides)
    short = dict(overrides)
    for path, value in fields_of(source, overrides).items():
        stem, _, unit = path.rpartition("_")
        if unit not in UNITS or stem.rpartition(".")[2] not in _MOMENTS or not value:
            continue

        def scaled(moment: float, unit: str = unit) -> float:
            exact = moment * fraction
            return round(exact, 3) if unit == "epochs" else max(round(exact), 1)

        whole = isinstance(value, list | tuple)
        short[path] = tuple(map(scaled, value)) if whole else scaled(value)
    return short


def epochs(fields: Mapping[str, Any]) -> float:
    """Length of a run in passes over its training set.

    Args:
      fields: from `fields_of`.
    """
    examples = examples_of(fields)
    for unit, size in (("epochs", examples), ("steps", fields["batch_size"]), ("examples", 1)):
        if fields.get(f"total_{unit}"):
            return float(fields[f"total_{unit}"] * size / examples)
    return 0.0


def examples_of(fields: Mapping[str, Any]) -> int:
    """Number of training examples of an epoch, as far as fields tell it."""
    name = fields["data.name"]
    whole = {"cifar10": 50_000, "mnist": 60_000, "digits": 1_797}.get(name)
    if fields.get("data.train_examples"):
        return int(fields["data.train_examples"])
    if whole and fields.get("data.classes"):  # each of the ten is about as frequent
        every = examples_of({**fields, "data.classes": ()})
        return every * len(fields["data.classes"]) // 10
    if whole and fields.get("data.folds"):
        return whole - whole // int(fields["data.folds"])
    if whole and fields.get("data.validation_examples"):
        return whole - int(fields["data.validation_examples"])
    return EXAMPLES.get(name, EXAMPLES["cifar10"])


def changed(fields: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """Paths of fields that a run in config.json has otherwise, sorted.

    Fields that only one of the two has are left out: networks' own options, and later fields.

    Args:
      fields: from `resolved`.
      saved: the nested config of config.json.
    """
    before = dict(flat(saved))
    return sorted(
        path
        for path, value in fields.items()
        if path in before and before[path] != value and counts(path)
    )


def counts(path: str, *, output: bool = False) -> bool:
    """Whether what a run computes depends on a field; with `output` also what it writes."""
    return not path.startswith(_PATHS if output else _FREE)


def key(source: str, overrides: Fields, *others: str) -> str:
    """Ten digits that stand for a run's settings."""
    told = "\n".join([*sorted(arguments(source, overrides)), *others])
    return hashlib.sha256(told.encode()).hexdigest()[:10]
