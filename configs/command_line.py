"""From the command line to a config: loading, overriding, and errors a person can use."""

import copy
import dataclasses
import difflib
import itertools
import os
import re
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from configs import fields
from configs.common import ConfigError, base_config, expanded, keep_overridden_unit

_OVERRIDE = re.compile(r"--?config\.(?P<path>[\w.]+)(?P<value>=.*)?", re.DOTALL)
_NEGATED = re.compile(r"--?noconfig\.(?P<path>[\w.]+)")
_WRONG_FIELD = re.compile(r"^flag --(?:no)?config\.(?P<path>[\w.]+)=(?P<value>[^:]*)")
_OF_ANY_NETWORK = ("model.name", "model.num_classes", "model.image_size")
_KINDS = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    tuple: "a tuple such as '(1, 2)'",
}


@dataclasses.dataclass(frozen=True)
class CommandLine:
    """What the command line says.

    Attributes:
      config: locked, with the overrides applied.
      name: of the config file, without its folder and suffix.
      variant: after the colon, or "".
      overrides: path of each overridden field -> its value.
      source: the value of --config; "" where it is left out.
      written: the config of the file, without the overrides.
    """

    config: ConfigDict
    name: str
    variant: str
    overrides: dict[str, Any]
    source: str
    written: ConfigDict

    @property
    def renamed(self) -> bool:
        """Whether an override names another network; its options then replace the file's."""
        return self.config.model.name != self.written.model.name


def parse(
    argv: Sequence[str],
    flag_values: flags.FlagValues,
    without_config: Mapping[str, Callable[[str], ConfigDict] | None] = types.MappingProxyType({}),
) -> CommandLine | None:
    """Parses a command line whose flag --config names a config file.

    Overrides may stand before or after --config. Other flags are those already
    defined in `flag_values`, which holds their values afterwards.

    Args:
      argv: the program's name, then its arguments.
      flag_values: does not define the flag `config` yet.
      without_config: each value of the flag `mode` that needs no --config -> a function of the
        value of the flag `run`, or of "", that makes the config to be overridden in its place;
        None where such a mode has no config.

    Returns:
      None where --config is left out and the mode has no config.

    Raises:
      ConfigError: a flag, a file, a field or a value that is not accepted; one or two lines.
    """
    program, *arguments = argv
    source, arguments = _take_config(arguments)
    if source is None:
        mode, run = _value("mode", arguments), _value("run", arguments)
        fields_given = [a for a in arguments if a.lstrip("-").startswith("config.")]
        load = without_config.get(mode)
        if mode in without_config and load is None and fields_given:
            raise ConfigError(
                f"no --config for {fields_given[0]} to override; leave it out, or name a config "
                "with --config=FILE"
            )
        if mode not in without_config:
            raise ConfigError(
                "no --config; for example --config=configs/alexnet.py:digits, which needs no data "
                "of yours"
            )
        if load is None:
            _parse_flags(argv, flag_values)
            return None
        source, config = "", load(run)
    else:
        source = expanded("--config", source)
        config = _load(source)
    path, _, variant = source.partition(":")
    overrides, others = _take_overrides(arguments, config)
    options = _take_options(overrides, config)
    defined = {"lock_config": True, "flag_values": flag_values}
    if source:
        arguments = [program, f"--config={source}", *overrides.values(), *others]
        config_flags.DEFINE_config_file("config", sys_argv=arguments, **defined)
    else:
        arguments = [program, *overrides.values(), *others]
        changed = copy.deepcopy(config)
        config_flags.DEFINE_config_dict("config", changed, sys_argv=arguments, **defined)
    try:
        _parse_flags(arguments, flag_values)
    except flags.IllegalFlagValueError as error:
        raise ConfigError(_wrong_value(str(error), config)) from error
    unchanged, config = config, flag_values["config"].value
    keep_overridden_unit(config, overrides)
    values = {field: _get(config, field) for field in overrides}
    other_data = values.get("data.name", unchanged.data.name) != unchanged.data.name
    assert config is not None, "it is defined above"
    if not source and other_data and "data.validation_examples" not in values:
        with config.ignore_type():  # so many were held out of the run's own dataset
            config.data.validation_examples = None
    for field, value in values.items():
        before = _get(unchanged, field)
        kind = str if before and isinstance(before, tuple) and isinstance(before[0], str) else None
        if isinstance(value, tuple) and not all(isinstance(v, kind or int | float) for v in value):
            takes = f"texts, such as {before}" if kind else "numbers, such as '(1, 2)'"
            raise ConfigError(f"--config.{field}={fields.shown(value)}: {field} takes {takes}")
    return CommandLine(config, Path(path).stem, variant, values | options, source, unchanged)


def _value(flag: str, arguments: Sequence[str]) -> str:
    """The last value of a flag, before flags are parsed; "" where it is left out."""
    found = ""
    for argument, following in itertools.pairwise([*arguments, ""]):
        name, equals, value = argument.partition("=")
        if name in (f"--{flag}", f"-{flag}"):
            found = value if equals else following
    return found


def _parse_flags(arguments: Sequence[str], flag_values: flags.FlagValues) -> None:
    try:
        rest = flag_values(arguments)
    except flags.Error as error:
        if _WRONG_FIELD.search(str(error)):
            raise  # `_wrong_value` has better words
        raise ConfigError(str(error).splitlines()[0]) from error
    if rest[1:]:
        raise ConfigError(
            f"{rest[1]!r} is not understood; overrides are written --config.field=value"
        )


def check(parsed: CommandLine) -> None:
    """Checks every field against `configs.fields`, the overridden ones first.

    Raises:
      ConfigError: a value of the wrong type or out of range, or a field that does not exist.
    """
    network = parsed.config.model.name or ""
    for field, value in parsed.overrides.items():
        fault = fields.fault(field, value, network)
        if fault is not None:
            raise ConfigError(f"--config.{fault}")
    for field in field_names(parsed.config) if parsed.source else ():
        if field.startswith("model.") and field not in _OF_ANY_NETWORK and parsed.renamed:
            continue  # an option of the network that the override replaces
        fault = fields.fault(field, _get(parsed.config, field), network)
        if fault is not None:
            raise ConfigError(f"--config={parsed.source}: {fault}")


def set_model(config: ConfigDict, model: dict[str, Any]) -> None:
    """Replaces all fields below `model`.

    Args:
      config: changed in place, locked or not.
      model: option -> value.
    """
    with config.unlocked():
        config.model = ConfigDict(model)


def field_names(config: Any, prefix: str = "") -> Iterator[str]:
    """The paths of all fields, depth first: `batch_size`, `data.dir`, ..."""
    for name in config:
        value = config[name]
        if isinstance(value, ConfigDict):
            yield from field_names(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _take_config(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The value of --config, the last if there are several, and the arguments without it."""
    source, rest = None, []
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            source = value if equals else next(remaining, "")
        else:
            rest.append(argument)
    return source or None, rest


def _take_overrides(arguments: list[str], config: ConfigDict) -> tuple[dict[str, str], list[str]]:
    """The overrides by field, each as one argument, and the other arguments.

    The last of several overrides of one field counts.

    Raises:
      ConfigError: there is no such field; the message names the nearest.
    """
    overrides: dict[str, str] = {}
    others = []
    remaining = iter(arguments)
    renamed = _names_another_network(arguments, config)
    for argument in remaining:
        negated = _NEGATED.fullmatch(argument)
        match = negated or _OVERRIDE.fullmatch(argument)
        if match is None:
            if argument.lstrip("-").startswith(("config.", "noconfig.")):
                raise ConfigError(f"{argument}: overrides are written --config.field=value")
            others.append(argument)
            continue
        field = match["path"]
        _check_field(field, config, renamed)
        if negated or match["value"] is not None:
            text = argument
        elif _is_switch(field, config):
            text = f"--config.{field}=true"
        else:
            value = next(remaining, None)
            if value is None:
                raise ConfigError(f"--config.{field}: no value; write --config.{field}=value")
            text = f"--config.{field}={value}"
        overrides[field] = text
    return overrides, others


def _take_options(overrides: dict[str, str], config: ConfigDict) -> dict[str, Any]:
    """Moves the options of a newly named network out of `overrides`.

    An option may accept other values in that network than in the config's own, for instance a
    tuple instead of an integer; the config's types would reject them.

    Returns:
      Path -> value; empty unless `model.name` is overridden with another network.
    """
    if "model.name" not in overrides:
        return {}
    _, _, name = overrides["model.name"].partition("=")
    if name == config.model.name:
        return {}
    values = {}
    for field in list(overrides):
        kind = fields.kind_of(field, name)
        if not field.startswith("model.") or field in _OF_ANY_NETWORK or kind is None:
            continue
        override = overrides.pop(field)
        text = "false" if _NEGATED.fullmatch(override) else override.partition("=")[2]
        values[field] = fields.read(text, kind)
    return values


def _load(source: str) -> ConfigDict:
    """The config as its file has it, without overrides.

    Raises:
      ConfigError: no such file, no such variant, a file that is no config or that raises, or a
        config without some of the common fields.
    """
    path = source.partition(":")[0]
    try:
        if not Path(path).is_file():
            there = _config_files(Path(path).parent) or _config_files(Path(__file__).parent)
            raise ConfigError(f"--config={source}: no file {path}; there are {', '.join(there)}")
        if not _is_config(Path(path)):
            raise ConfigError(
                f"--config={source}: {path} defines no get_config, so it is no config"
            )
    except OSError as error:
        raise ConfigError(f"--config={source}: cannot be read ({error.strerror})") from error
    probe = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=probe, sys_argv=[])
    try:
        probe(["main.py", f"--config={source}"])
    except (Exception, SystemExit) as error:
        raise ConfigError(f"--config={source}: {_raised(error, Path(path))}") from error
    config = probe["config"].value
    if not isinstance(config, ConfigDict):
        raise ConfigError(
            f"--config={source}: get_config returns {type(config).__name__}, not a ConfigDict"
        )
    needed = base_config(batch_size=1, learning_rate=1.0)
    missing = sorted(set(field_names(needed)) - set(field_names(config)))
    if missing:
        raise ConfigError(
            f"--config={source}: no field {', '.join(missing[:3])}{' ...' * (len(missing) > 3)}; "
            "begin with configs.common.base_config, which has them all"
        )
    return config


def _raised(error: BaseException, path: Path) -> str:
    """One line on what a config file raised, with the line number where that is known."""
    wrapped = "Error whilst parsing config file"  # ml_collections wraps some exceptions in it
    while error.__context__ and (isinstance(error, flags.Error) or str(error).startswith(wrapped)):
        error = error.__context__
    reason = " ".join(str(error).split())
    if isinstance(error, ConfigError):
        return reason
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve() == path.resolve()
    ]
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}{': ' * bool(reason)}{reason[:200]}"


def _config_files(directory: Path) -> list[str]:
    """The config files in a directory, as they would be named on the command line."""
    files = (path for path in directory.glob("*.py") if path.is_file())
    return sorted(os.path.relpath(path) for path in files if _is_config(path))


def _is_config(path: Path) -> bool:
    text = path.read_text(errors="replace")
    return path.suffix == ".py" and re.search(r"^def get_config\b", text, re.MULTILINE) is not None


def _is_switch(path: str, config: ConfigDict) -> bool:
    kind = fields.kind_of(path)
    return (_type(config, path) if kind is None else kind.type) is bool


def _names_another_network(arguments: list[str], config: ConfigDict) -> bool:
    named = config.model.name
    for argument, following in itertools.pairwise([*arguments, ""]):
        match = _OVERRIDE.fullmatch(argument)
        if match is not None and match["path"] == "model.name":
            named = following if match["value"] is None else match["value"].removeprefix("=")
    return bool(named != config.model.name)


def _check_field(path: str, config: ConfigDict, renamed: bool) -> None:
    """Raises ConfigError if there is no field of this path; the message names the nearest.

    With `renamed` the options of all networks are accepted.
    """
    names = list(field_names(config))
    if renamed and "model.name" in names:
        names += [field for field in fields.FIELDS if field.startswith("model.")]
    if path in names:
        return
    inside = [name for name in names if name.startswith(f"{path}.")]
    if inside:
        raise ConfigError(
            f"--config.{path} is a group of fields; override one: {', '.join(inside)}"
        )
    raise ConfigError(f"--config.{path}: no such field; {_nearest(path, names)}")


def _nearest(path: str, names: list[str]) -> str:
    """A hint: the field whose path, or whose last part, is most similar to that of `path`."""
    leaf = path.split(".")[-1]

    def likeness(name: str) -> float:
        return max(
            difflib.SequenceMatcher(None, path, name).ratio(),
            difflib.SequenceMatcher(None, leaf, name.split(".")[-1]).ratio(),
        )

    best = max(names, key=likeness)
    if likeness(best) > 0.5:
        return f"did you mean --config.{best}?"
    return f"there are {', '.join(sorted({name.split('.')[0] for name in names}))}"


def _wrong_value(message: str, config: ConfigDict) -> str:
    match = _WRONG_FIELD.search(message)
    assert match is not None, message
    kind = _type(config, match["path"])
    return (
        f"--config.{match['path']}={fields.shown(match['value'])}: "
        f"{match['path']} takes {_KINDS.get(kind, kind.__name__)}"
    )


def _parent(config: Any, path: str) -> Any:
    for name in path.split(".")[:-1]:
        config = config[name]
    return config


def _type(config: Any, path: str) -> type:
    return _parent(config, path).get_type(path.split(".")[-1])


def _get(config: Any, path: str) -> Any:
    return _parent(config, path)[path.split(".")[-1]]
