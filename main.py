"""Trains and evaluates the networks of the ImageNet papers.

    python main.py --config=configs/alexnet.py:digits
    python main.py --config=configs/alexnet.py --config.data.dir=DIR
    python main.py --config=configs/alexnet.py --config.data.dir=DIR --mode=evaluate
    python main.py --config=configs/vgg.py:d --mode=summary

Modes: train; evaluate, a checkpoint or the weights of --config.init_from; summary, a table of
the network's layers; export, the weights as WORKDIR/weights.safetensors; prepare_data, the
dataset at the config's size in --config.data.prepared_dir, quick to read from then on.

Any field of a config is overridden by --config.field=value, for example
--config.model.dropout=0 or --config.total_epochs=30.

Exit codes: 0 done; 1 failed on the way, such as a full disk or a loss that is not
finite; 2 a usage error; 75 stopped by a signal (SIGTERM, SIGHUP; Ctrl-C in training and
preparing) and ready to be run again, in training with a checkpoint saved if there
was a step to save; 130 Ctrl-C before there was anything to save.
"""

import process

DONE, FAILED, USAGE_ERROR, STOPPED, KILLED = 0, 1, 2, 75, 130
if __name__ == "__main__":  # before anything that takes time is imported
    process.guard_streams()
    process.do_without_a_home()
    process.end_in_words({"SIGTERM": STOPPED, "SIGHUP": STOPPED, "SIGINT": KILLED})

import contextlib
import functools
import json
import sys
import traceback
import types
from pathlib import Path
from typing import Any

from absl import flags

from configs import command_line, notes
from configs.common import ConfigError, expand_paths, expanded, to_steps

# JAX, TensorFlow and the packages that need them are imported where they are used:
# --help and a misspelt override answer at once.

LAUNCH = ("coordinator_address", "num_processes", "process_id")
MODES = ("train", "evaluate", "summary", "export", "prepare_data")


def define_flags() -> flags.FlagValues:
    """The flags besides --config and its overrides."""
    values = flags.FlagValues()
    flags.DEFINE_string(
        "workdir", None, "Where the run lives; by default runs/<config>...", flag_values=values
    )
    flags.DEFINE_enum("mode", "train", MODES, "What to do.", flag_values=values)
    flags.DEFINE_bool("distributed", False, "One of several processes.", flag_values=values)
    flags.DEFINE_string("coordinator_address", None, "host:port of process 0.", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "Processes in all.", flag_values=values)
    flags.DEFINE_integer("process_id", None, "Number of this process.", flag_values=values)
    return values


def main(argv: list[str]) -> int:
    """Runs a command line and returns the exit code."""
    values = define_flags()
    if any(argument in ("-h", "--help", "-help", "--helpfull") for argument in argv[1:]):
        print(__doc__)
        print("Flags:\n")
        print(values.get_help())
        return DONE
    try:
        arguments = command_line.parse(argv, values)
        command_line.check(arguments)
        expand_paths(arguments.config)
        values.workdir = values.workdir and expanded("--workdir", values.workdir)
        check_launch(values)
        resolve_network(arguments)
    except ConfigError as error:
        fail(error)
        tell_others(argv)
        return USAGE_ERROR
    if not values.process_id:
        for line in remarks(arguments, values.mode):
            print(f"note: {line}", file=sys.stderr)
    try:
        return run_with_others(arguments, values)
    except KeyboardInterrupt:
        return interrupted()


def resolve_network(arguments: command_line.CommandLine) -> None:
    """Makes the options of the config's network those that its name stands for.

    Raises:
      ConfigError: a name or an option that contradicts it.
    """
    import training

    model = arguments.config.model.to_dict()
    try:
        fields = training.model_fields(model, arguments.overrides, arguments.written.model.name)
    except training.TrainingError as error:
        raise ConfigError(str(error)) from error
    if arguments.renamed:
        command_line.set_model(arguments.config, fields)


def remarks(arguments: command_line.CommandLine, mode: str) -> list[str]:
    """What a person who wrote this command line may not expect, a line each."""
    config, written = arguments.config.to_dict(), arguments.written.to_dict()
    return [
        *notes.not_scaled(config, written, arguments.overrides),
        *notes.without_effect(config, mode, arguments.overrides),
    ]


def interrupted() -> int:
    """Says that nothing was saved now."""
    print("interrupted; what was saved before is kept", file=sys.stderr)
    return KILLED


def fail(error: Exception, code: int = USAGE_ERROR) -> int:
    """Says what is wrong, without a traceback."""
    print(f"error: {error}", file=sys.stderr)
    return code


def check_launch(values: flags.FlagValues) -> None:
    """Raises ConfigError for flags of several processes where there is one, and the reverse."""
    given = [name for name in LAUNCH if values[name].value is not None]
    if given and not values.distributed:
        raise ConfigError(
            f"--{given[0]}={values[given[0]].value} is for one of several processes: add "
            "--distributed, or leave it out"
        )
    if values.distributed and values.mode in ("summary", "prepare_data"):
        raise ConfigError(f"--mode={values.mode} is for one process, without --distributed")


def tell_others(argv: list[str]) -> None:
    """After a usage error: other processes of the launch need not wait for this one."""
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
        launch = devices.launch_from(*(values[name].value for name in LAUNCH))
        devices.tell_of_failure(launch, USAGE_ERROR)


def run_with_others(arguments: command_line.CommandLine, values: flags.FlagValues) -> int:
    """Like `run`; if it fails as one of several processes, those do not wait for this one."""
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


def run(arguments: command_line.CommandLine, values: flags.FlagValues) -> int:
    """Opens the data, builds the network and dispatches to the mode."""
    if values.mode == "summary":
        return summary(arguments.config)
    if values.mode == "prepare_data":
        return prepare_data(arguments.config)

    import jax

    import devices
    import training
    from training import workdir as workdirs

    config = arguments.config
    workdir = Path(
        values.workdir
        or workdirs.default_workdir(arguments.name, arguments.variant, arguments.overrides)
    )
    try:
        if values.distributed:
            launch = devices.launch_from(*(values[name].value for name in LAUNCH))
            facts = training.facts_of_launch(values.mode, plain(config))
            devices.join_processes(launch, facts, workdir)
        devices.check_platform()
        workdirs.check_continuation(workdir, plain(config))
        begun = workdirs.has_checkpoint(workdir)
        if values.mode != "train" and not begun and not config.init_from:
            raise training.TrainingError(
                f"{workdir}: no checkpoint to {values.mode}; train first, name the run with "
                "--workdir, or weights with --config.init_from"
            )
        if begun and config.init_from:
            print(f"{workdir} holds a checkpoint: it counts, and not {config.init_from}")
        if values.mode == "export":
            print(training.export(config, workdir))
            return DONE
        return with_data(values.mode, config, workdir, begun)
    except (ConfigError, devices.DeviceError, training.TrainingError) as error:
        return fail(error)
    except (devices.LostProcessError, training.RunError) as error:
        return fail(error, FAILED)
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        return fail(
            training.RunError(
                f"the device's memory is full ({str(error).splitlines()[0][:200]}); choose a "
                "smaller --config.batch_size, compute it in parts (--config.gradient_accumulation"
                "=4), or use more devices"
            ),
            FAILED,
        )


def with_data(mode: str, config: Any, workdir: Path, begun: bool) -> int:
    """Training and evaluation; `begun` if the workdir holds a checkpoint."""
    import devices
    import input_pipeline
    import training
    from devices.xla import keep_compiled, keep_memory

    try:
        keep_compiled(cache_dir(config) / "compiled")
        only = None
        if mode == "evaluate":
            only = config.evaluation.split or input_pipeline.REPORTED
        listed = workdir / f"images{process_suffix()}.jsonl"
        data = input_pipeline.open_data(
            config.data,
            cache_dir(config),
            only=only,
            class_names=training.known_classes(config, workdir, begun),
            report=input_pipeline.reporter(listed),
        )
        if mode == "train":
            for split in ("train", "validation"):
                data.examples(split)
        keep_memory()
        task = training.prepare(config, len(data.class_names))
        initial = None
        if not begun:
            initial = training.initial_weights(config, task.name, task.options, data.class_names)
        devices.agree_on_inputs(training.facts_of_inputs(data.fingerprint, initial, begun))
        run_mode = {"train": train, "evaluate": evaluate}[mode]
        return run_mode(config, workdir, data, task, initial)
    except input_pipeline.DataError as error:
        return fail(error)


def summary(config: Any) -> int:
    """Prints the layers of a config's network; needs no data and allocates no weights."""
    import training

    try:
        print(training.summary(config))
    except training.TrainingError as error:
        return fail(error)
    return DONE


def prepare_data(config: Any) -> int:
    """Writes the dataset at the config's size; stopped, it goes on when it is called again."""
    import signal

    import input_pipeline

    noted = []

    def stop(number: int, frame: Any) -> None:
        # Noted as well: libraries lose an exception that is raised inside their callbacks.
        noted.append(number)
        raise KeyboardInterrupt

    for number in map(process.named, ("SIGINT", "SIGTERM", "SIGHUP")):
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        print(
            input_pipeline.prepare_data(
                config.data,
                cache_dir(config),
                report=input_pipeline.reporter(None),
                stopped=lambda: bool(noted),
            )
        )
    except input_pipeline.DataError as error:
        return fail(error)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return STOPPED
    return DONE


def train(config: Any, workdir: Path, data: Any, task: Any, initial: Any) -> int:
    """Trains, going on from what the workdir holds."""
    import jax

    import training
    from training import workdir as workdirs

    workdirs.check_dataset(workdir, data.fingerprint)
    examples = data.examples("train").count

    def steps(name: str) -> Any:
        return to_steps(config, name, batch_size=config.batch_size, examples_per_epoch=examples)

    recipe = training.recipe_from_config(config, task.network, task.mesh, steps)
    schedule = training.schedule_from_config(config, steps, task.network.has_statistics)
    noise = steps("data.augment.colour_noise_until")
    chief = jax.process_index() == 0
    with workdirs.locked(workdir) if chief else contextlib.nullcontext():
        inputs = training_inputs(config, data, task, initial, noise)
        if chief:
            workdirs.save_config(workdir, plain(config), inputs.dataset)
        finished = training.train(config, task, schedule, recipe, inputs, workdir, initial)
    return DONE if finished else STOPPED


def training_inputs(config: Any, data: Any, task: Any, initial: Any, noise: int | None) -> Any:
    """What training reads; `noise` in steps."""
    import devices
    import training

    examples = data.examples("train")
    return training.Inputs(
        training=functools.partial(
            data.training,
            seed=config.seed,
            batch_size=config.batch_size,
            colour_noise_steps=noise,
            part=devices.process_share(task.mesh),
        ),
        validation=lambda: evaluation_batches(config, data, "validation", task),
        example_name=examples.name,
        normalization=normalization(config, data, initial),
        dataset={
            "class_names": list(data.class_names),
            "fingerprint": data.fingerprint,
            "train_examples": examples.count,
        },
    )


def evaluate(config: Any, workdir: Path, data: Any, task: Any, initial: Any) -> int:
    """Evaluates a checkpoint, or weights; writes evaluation.json and prints it."""
    import jax

    import training

    split = config.evaluation.split or data.evaluation_split
    batches = evaluation_batches(config, data, split, task)
    images = None if initial is None else normalization(config, data, initial)
    result = training.evaluate_network(
        config, task, batches, split, workdir, data.class_names, initial, images
    )
    if jax.process_index() == 0:
        print(json.dumps(result))
    return DONE


def evaluation_batches(config: Any, data: Any, split: str, task: Any) -> Any:
    """One pass over a split, in batches that the mesh divides."""
    import devices

    return data.evaluation(
        split,
        square(config),
        batch_size=task.padded_batch_size(config.evaluation.batch_size),
        part=devices.process_share(task.mesh),
    )


def normalization(config: Any, data: Any, initial: Any) -> Any:
    """What images are normalised with: what initial weights expect, or else the config's."""
    import training

    if initial is not None and initial.normalization is not None:
        return training.normalization_for(initial, config.data.resize + 2 * config.data.pad)
    return data.normalization(square(config))


def square(config: Any) -> Any:
    """The square that crops are taken from in training, for evaluation as well."""
    return types.SimpleNamespace(side=config.data.resize, pad=config.data.pad)


def process_suffix() -> str:
    """Tells the files of several processes apart; empty for the first."""
    import jax

    return f"-{jax.process_index()}" if jax.process_index() else ""


def cache_dir(config: Any) -> Path:
    """Where the mean image and indices are kept."""
    import input_pipeline

    chosen = config.data.cache_dir
    return Path(chosen) if chosen else input_pipeline.default_cache_dir()


def plain(config: Any) -> dict[str, Any]:
    """The config as nested dicts of JSON values."""
    return json.loads(config.to_json_best_effort())


if __name__ == "__main__":
    sys.exit(main(sys.argv))
