"""The command line of all pictures: RUN_OR_FILE, and flags that mean the same in every command.

A command defines its own flags and a function that returns the paths of its pictures:

    def add_flags(parser): parser.add_argument("--layer", ...)
    def draw(arguments, opened) -> list[Path]: ...
    if __name__ == "__main__":
        command_line.main(__doc__, add_flags, draw)

One that does not read all flags of `SHARED` names those that it reads: `main(..., shared=FILES)`.
"""

import argparse
import difflib
import functools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import process
from configs.common import ConfigError, expanded
from process import KILLED, STOPPED, USAGE_ERROR

Draw = Callable[[argparse.Namespace, Any], Iterable[Path]]
Opener = Callable[[argparse.Namespace], Any]
AddFlags = Callable[[argparse.ArgumentParser], Any]

_RUN = "A run's workdir, a weights file, or the name of a trained network such as lenet5-mnist."
# Flags by what they are about; `out` is every command's.
WEIGHTS = ("network", "config")
FILES = (*WEIGHTS, "checkpoint")
DATA = ("data_name", "data_dir", "split", "batch_size")
SHARED = (*FILES, *DATA)
_PLACES = ("run", "others")  # what is named without a flag
_MEMORY = "choose a smaller --batch_size"
# A config field, as messages of other packages name it -> the flag for it in these commands.
_FLAGS = {
    r"(--config\.|\b)data\.(dir|name)\b": r"--data_\2",
    r"(--config\.)?evaluation\.(checkpoint|protocol|split)\b": r"--\2",
    r"--images=": "--image=",
    r"; or choose another --workdir$": "",
    r"the config's network is": "--network is",
    r"choose the config of ": "choose --network=",
}


def main(
    said: str | None,
    add_flags: AddFlags,
    draw: Draw,
    opener: Opener | None = None,
    shared: Sequence[str] = SHARED,
) -> NoReturn:
    """Runs a command and exits with the code of `run`; handles streams and signals as main.py."""
    process.guard_streams()
    process.do_without_a_home()
    process.end_in_words({"SIGTERM": STOPPED, "SIGHUP": STOPPED, "SIGINT": KILLED})
    sys.exit(run(sys.argv[1:], said, add_flags, draw, opener, shared))


def run(
    arguments: Sequence[str],
    said: str | None,
    add_flags: AddFlags,
    draw: Draw,
    opener: Opener | None = None,
    shared: Sequence[str] = SHARED,
) -> int:
    """Runs a command, prints the path of each picture, and returns the exit code.

    Args:
      arguments: of the command line, without the program's name.
      said: the command's docstring, printed by --help.
      add_flags: adds the command's own flags to the parser.
      draw: (arguments, what `opener` returned) -> paths of the pictures, printed one by one.
      opener: parsed arguments -> what RUN_OR_FILE refers to; None for an `opening.Opened`.
      shared: the flags of `SHARED` that the command reads.
    """
    parser = make_parser(said, shared)
    add_flags(parser)
    try:
        parsed, overrides = parser.parse_known_intermixed_args(arguments)
    except SystemExit:  # --help
        return process.DONE
    except ConfigError as error:
        return process.fail(error, USAGE_ERROR)

    def drawn() -> int:
        values = vars(parsed)
        empty = [n for n, v in values.items() if v == "" or (isinstance(v, list) and "" in v)]
        if empty:
            raise ConfigError(f"{_shown(empty[0])}: an empty text names nothing")
        taken = [f"--{n}" for n in values if n in shared or n not in (*SHARED, *_PLACES)]
        parsed.config = read_config(parsed.config, overrides, taken)
        for name in ("run", "out", "data_dir", "features"):
            if getattr(parsed, name, None):
                setattr(parsed, name, expanded(_shown(name), getattr(parsed, name)))

        from visualization import opening

        for picture in draw(parsed, (opener or opening.open_run_or_file)(parsed)):
            print(picture, flush=True)
        return process.DONE

    return process.failing_in_words(drawn, in_flags)


def make_parser(said: str | None, shared: Sequence[str] = SHARED) -> argparse.ArgumentParser:
    """A parser with the flags that several commands share.

    Args:
      said: its description.
      shared: the flags of `SHARED` that it takes; the others have their defaults. Without
        `network` it takes a run; with `data_name` and without `checkpoint`, a submission file too.
    """
    parser = _Parser(
        description=said, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    if "network" in shared:
        parser.add_argument("run", metavar="RUN_OR_FILE", help=_RUN)
    elif "data_name" in shared and "checkpoint" not in shared:
        parser.add_argument("run", metavar="RUN_OR_GUESSES", help="A run, or a submission file.")
    else:
        parser.add_argument("run", metavar="RUN", help="A run's workdir.")
    options: dict[str, dict[str, Any]] = {
        "network": {"help": "The network of a file that does not say it."},
        "config": {
            "help": "In place of --network: a config, which --config.field=value overrides."
        },
        "checkpoint": {"default": "latest", "help": "latest, best or a step of the run."},
        "out": {"help": "Directory to write to, in place of one in the run or here."},
        "data_name": {"help": "A dataset; the run's own by default."},
        "data_dir": {"help": "Where the dataset is."},
        "split": {"help": "train, validation or test; what is reported by default."},
        "batch_size": {
            "type": positive,
            "default": 64,
            "help": "Images that are computed at once.",
        },
    }
    for name, of in options.items():
        if name in shared or name == "out":
            parser.add_argument(f"--{name}", **of)
        else:
            parser.set_defaults(**{name: of.get("default")})
    return parser


def add_image_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that choose a single image; see `Opened.content`."""
    parser.add_argument("--image", help="A photograph; else --index of the dataset.")
    parser.add_argument("--index", type=int, default=0, help="Number in the split; 0 if not told.")


class _Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError."""
        raise ConfigError(f"{message}; --help says more")


def add_seed(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds --seed, a whole number below 2^32; `what` says of what."""
    parser.add_argument("--seed", type=_seed, default=0, help=what)


def positive(text: str) -> int:
    """Parses a flag's value as an integer of at least 1.

    Raises:
      ArgumentTypeError: it is not one.
    """
    return _whole(text, 1)


def _seed(text: str) -> int:
    number = _whole(text, 0)
    if number >= 2**32:  # scikit-learn takes none of these
        raise argparse.ArgumentTypeError(f"{text}: below 2^32")
    return number


def at_least(least: int) -> Callable[[str], int]:
    """A parser of a flag's value as an integer of at least `least`; see `positive`."""
    return functools.partial(_whole, least=least)


def _whole(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: no whole number") from None
    if number < least:
        raise argparse.ArgumentTypeError(f"{text}: at least {least}")
    return number


def read_config(
    source: str | None, overrides: Sequence[str], flags_there: Sequence[str] = ()
) -> Any | None:
    """The config that --config names, with its overrides; None without --config.

    Args:
      source, overrides: --config, and what else the command line has.
      flags_there: those of the command, for what is misspelt.

    Raises:
      ConfigError: the config or an override is invalid, or an argument is unknown.
    """
    others = [text for text in overrides if not text.lstrip("-").startswith(("config.", "noconf"))]
    if source is None or others:
        if not overrides:
            return None
        wrong = (others or overrides)[0]
        near = difflib.get_close_matches(wrong.partition("=")[0], flags_there, 1) if others else []
        raise ConfigError(
            f"{wrong!r} is not understood; "
            + (f"did you mean {near[0]}? " if near else "")
            + "--help says what there is"
            + ("" if others else ", and --config=FILE is missing")
        )
    from absl import flags

    import training
    from configs import command_line
    from configs.common import expand_paths

    argv = ["visualization", f"--config={source}", *overrides]
    parsed = command_line.parse(argv, flags.FlagValues())
    assert parsed is not None, "there is a --config"
    command_line.check(parsed)
    expand_paths(parsed.config)
    model = parsed.config.model.to_dict()
    fields = training.model_fields(model, parsed.overrides, parsed.written.model.name)
    if parsed.renamed:
        command_line.set_model(parsed.config, fields)
    return parsed.config


def _shown(name: str) -> str:
    return "RUN_OR_FILE" if name in _PLACES else f"--{name}"


def in_flags(error: Exception) -> Exception | None:
    """The error with these commands' flags in its message; None if it is not one of ours."""
    if hasattr(error, "exit_code"):
        text = str(error)
        for field, flag in _FLAGS.items():
            text = re.sub(field, flag, text)
        return type(error)(text)
    if type(error).__name__ != "JaxRuntimeError":
        return None
    import training

    return training.out_of_memory(error, _MEMORY)
