"""Which of main.py's flags go together: with a mode, with several processes, with a config."""

from collections.abc import Collection
from typing import Any

from configs.command_line import CommandLine
from configs.common import ConfigError

# What the processes of a launch are told.
LAUNCH = ("coordinator_address", "num_processes", "process_id")
# Flag -> the modes that read it; flags that are not here are for any, or have words of their own.
_ONLY = {
    **dict.fromkeys(("accelerator", "hlo", "price", "find_batch"), ("compile",)),
    **dict.fromkeys(("networks", "csv"), ("compare",)),
    **dict.fromkeys(("network", "images", "protocol"), ("predict",)),
    "picture": ("predict", "compare"),
    "verify": ("describe_data",),
    "json": ("compile", "compare"),
    "out": ("predict", "compare", "describe_data"),
    "guesses": ("evaluate_guesses",),
}


def check(flags: Any, arguments: CommandLine | None, several: Collection[str]) -> None:
    """Checks the flags against each other.

    Args:
      flags: absl's flags, parsed.
      arguments: None without a config.
      several: the modes for one of several processes.

    Raises:
      ConfigError: a flag that the mode, or a launch of one process, would not read.
    """
    mode, given = flags.mode, [name for name in LAUNCH if flags[name].value is not None]
    if given and not flags.distributed:
        raise ConfigError(
            f"--{given[0]}={flags[given[0]].value} is for one of several processes: add "
            "--distributed, or leave it out"
        )
    for name in flags:
        if flags[name].present and flags[name].value == "":
            raise ConfigError(f"--{name}=: an empty text names nothing; leave it out")
    if flags.distributed and mode not in several:
        raise ConfigError(f"--mode={mode} is for one process, without --distributed")
    if mode == "compare" and (arguments is not None or flags.network):
        wrong = "network" if arguments is None else "config"
        raise ConfigError(f"--mode=compare takes no --{wrong}; networks are named by --networks")
    for name, modes in _ONLY.items():
        if flags[name].present and mode not in modes:
            raise ConfigError(
                f"--mode={mode} takes no --{name}; it is for --mode={' or '.join(modes)}"
            )
    if flags.protocol and arguments and "evaluation.protocol" in arguments.overrides:
        raise ConfigError("--protocol and --config.evaluation.protocol: leave one of them out")
    if flags.workdir and mode in ("compile", "compare"):
        raise ConfigError(f"--mode={mode} takes no --workdir; files are named by --json")
    if flags.run and mode not in ("predict", "evaluate"):
        raise ConfigError(f"--mode={mode} takes no --run; a run is named by --workdir")
    if flags.run and mode == "evaluate" and arguments is not None and arguments.source:
        raise ConfigError(
            f"--run={flags.run} brings its own config: leave out --config, or name a run with "
            "--workdir and weights with --config.init_from"
        )
