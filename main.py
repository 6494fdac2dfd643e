"""Trains and evaluates the networks of the ImageNet papers.

    python main.py --config=configs/alexnet.py:digits
    python main.py --config=configs/alexnet.py --config.data.dir=DIR
    python main.py --config=configs/alexnet.py --config.data.dir=DIR --mode=evaluate
    python main.py --config=configs/vgg.py:d --mode=summary
    python main.py --mode=evaluate --run=lenet5-mnist --config.data.dir=DIR
    python main.py --mode=predict --run=runs/alexnet --images=photo.jpg

Modes: train; evaluate, a checkpoint or the weights of --config.init_from; summary, a table of the
network's layers; export, the weights as WORKDIR/weights.safetensors; prepare_data, the dataset at
the config's size in --config.data.prepared_dir; describe_data, what --config.data.dir holds and
lacks, with or without --config; predict, five guesses for each of --images by the --run's network;
compile, whether and how fast the training step would run on --accelerator, without having one;
compare, sizes and published errors of --networks, by default of all for ImageNet, without --config;
evaluate_guesses, the localization error of a file of --guesses with boxes (ILSVRC's second task).

Any field of a config is overridden by --config.field=value, such as --config.total_epochs=30.

Exit codes: 0 done; 1 failed on the way, such as a full disk or a loss that is not finite; 2 a
usage error; 75 stopped by a signal (SIGTERM, SIGHUP; Ctrl-C in training and preparing) and ready
to be run again; 130 Ctrl-C before there was anything to save.
"""

import process
from process import DONE, FAILED, KILLED, STOPPED, USAGE_ERROR, fail, interrupted

if __name__ == "__main__":  # before the imports that take time
    process.guard_streams()
    process.do_without_a_home()
    process.end_in_words({"SIGTERM": STOPPED, "SIGHUP": STOPPED, "SIGINT": KILLED})

import contextlib
import sys
import traceback

from absl import flags

import modes
from configs import command_line, mode_flags, notes
from configs.common import ConfigError, any_config, expand_paths, expanded

# JAX, TensorFlow and what needs them are imported where they are used: --help answers at once.
MODES = (
    *(*modes.SEVERAL, "summary", "prepare_data", "describe_data", "predict", "compile", "compare"),
    "evaluate_guesses",
)
TEXTS = {
    "workdir": "Where the run lives; by default runs/<config>...",
    "run": "With predict, evaluate: a workdir, a file of weights, or a name such as lenet5-mnist.",
    "images": "With --mode=predict: files and directories, with commas between them.",
    "network": "With --mode=predict: the network of a weights file that does not say it.",
    "protocol": "With --mode=predict: by default evaluation.protocol of the config or run.",
    "out": "Where predictions.jsonl goes (by default here), a sheet or plots (pictures/).",
    "networks": "With --mode=compare: names, with commas between them.",
    "csv": "With --mode=compare: a file for all numbers.",
    "accelerator": "With --mode=compile: KIND:CHIPS_OR_TOPOLOGY, such as v5e:2x2, h100:8.",
    "guesses": "With --mode=evaluate_guesses: a submission file of ILSVRC's second task.",
    "json": "With --mode=compile, compare: a file for all that was found.",
    "hlo": "With --mode=compile: a file for the optimised program.",
    "coordinator_address": "host:port of process 0.",
}
PATHS = ("workdir", "run", "out", "csv", "guesses", "json", "hlo")
WITHOUT_CONFIG = {
    "predict": None,
    "compare": None,
    "describe_data": lambda run: any_config(),
    "evaluate_guesses": lambda run: any_config(),
    "evaluate": modes.config_of,
}


def define_flags() -> flags.FlagValues:
    """The flags besides --config and its overrides."""
    values = flags.FlagValues()
    for name, text in TEXTS.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_enum("mode", "train", MODES, "What to do.", flag_values=values)
    flags.DEFINE_bool("picture", False, "With predict, compare: figures.", flag_values=values)
    flags.DEFINE_bool("verify", False, "With describe_data: read all.", flag_values=values)
    flags.DEFINE_bool("find_batch", False, "With compile: the largest.", flag_values=values)
    flags.DEFINE_float("price", None, "Dollars of a chip and hour.", flag_values=values)
    flags.DEFINE_bool("distributed", False, "One of several processes.", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "Processes in all.", flag_values=values)
    flags.DEFINE_integer("process_id", None, "Number of this process.", flag_values=values)
    return values


def main(argv: list[str]) -> int:
    """Runs a command line and returns the exit code."""
    values = define_flags()
    if any(argument in ("-h", "--help", "-help", "--helpfull") for argument in argv[1:]):
        print(__doc__, "Flags:\n", values.get_help(), sep="\n")
        return DONE
    try:
        arguments = command_line.parse(argv, values, WITHOUT_CONFIG)
        for name in PATHS:
            if values[name].value:
                values[name].value = expanded(f"--{name}", str(values[name].value))
        mode_flags.check(values, arguments, modes.SEVERAL)
        if arguments is not None:
            if values.protocol:  # the short name of a field
                arguments.config.evaluation.protocol = values.protocol
                arguments.overrides["evaluation.protocol"] = values.protocol
            command_line.check(arguments)
            expand_paths(arguments.config)
            if arguments.config.model.name:
                resolve(arguments)
    except ConfigError as error:
        fail(error)
        tell_others(argv)
        return USAGE_ERROR
    if arguments is not None and not values.process_id:
        config, written = arguments.config.to_dict(), arguments.written.to_dict()
        for note in notes.remarks(config, written, values.mode, arguments.overrides):
            print(f"note: {note}", file=sys.stderr)
    try:
        return run_with_others(arguments, values)
    except KeyboardInterrupt:
        return interrupted()


def resolve(arguments: command_line.CommandLine) -> None:
    """Sets the options that the network's name stands for, and checks the protocol's name.

    Raises:
      ConfigError: a name is unknown, or an option contradicts it.
    """
    import evaluation
    import training

    model = arguments.config.model.to_dict()
    try:
        chosen = arguments.config.evaluation
        evaluation.check_protocol(chosen.protocol, chosen.scales)
        fields = training.model_fields(model, arguments.overrides, arguments.written.model.name)
    except (training.TrainingError, evaluation.EvaluationError) as error:
        raise ConfigError(str(error)) from error
    if arguments.renamed:
        command_line.set_model(arguments.config, fields)


def tell_others(argv: list[str]) -> None:
    """Tells the other processes of a launch of a usage error, so that they do not wait."""
    values = define_flags()
    values.set_gnu_getopt(True)
    try:
        values(argv, known_only=True)
    except flags.Error:
        return
    if not values.distributed:
        return
    import devices

    with contextlib.suppress(devices.DeviceError, KeyboardInterrupt):
        launch = devices.launch_from(*(values[name].value for name in mode_flags.LAUNCH))
        devices.tell_of_failure(launch, USAGE_ERROR)


def run_with_others(arguments: command_line.CommandLine | None, values: flags.FlagValues) -> int:
    """Calls `run`; if it fails as one of several processes, tells the others."""
    if not values.distributed:
        return run(arguments, values)
    import devices

    try:
        with devices.ending_with_the_others():
            code = run(arguments, values)
    except KeyboardInterrupt:
        code = interrupted()
    except Exception:
        traceback.print_exc()
        code = FAILED
    if code in (DONE, STOPPED):
        devices.finish(code)
    else:
        devices.leave(code)
    return code


def run(arguments: command_line.CommandLine | None, values: flags.FlagValues) -> int:
    """Runs the mode; prints errors that have an exit code, and raises others."""
    return process.failing_in_words(lambda: modes.run(arguments, values), modes.out_of_memory)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
