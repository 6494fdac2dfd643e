"""What each mode of main.py does: what it opens, hands over and prints.

A function a mode. JAX, TensorFlow and the packages that need them are imported where they are
used, so that a mode waits for no more than it needs.
"""

import contextlib
import dataclasses
import itertools
import json
import signal
import sys
from pathlib import Path
from typing import Any

import process
from configs.command_line import CommandLine
from configs.common import ConfigError, to_steps
from process import DONE, STOPPED

# Images that are predicted in one program.
_AT_ONCE = 16


def in_workdir(arguments: CommandLine, flags: Any) -> int:
    """Runs a mode that has a workdir, as one of several processes where it is.

    Raises:
      ConfigError, DataError, DeviceError, TrainingError: it cannot run as asked.
      RunError, LostProcessError: it had begun.
    """
    import devices
    import training
    from training import workdir as workdirs

    config, mode = arguments.config, flags.mode
    named = (arguments.name, arguments.variant, arguments.overrides)
    workdir = Path(flags.workdir or workdirs.default_workdir(*named))
    if flags.distributed:
        launch = devices.launch_from(
            flags.coordinator_address, flags.num_processes, flags.process_id
        )
        facts = training.facts_of_launch(mode, plain(config))
        devices.join_processes(launch, facts, workdir)
    devices.check_platform()
    workdirs.check_continuation(workdir, plain(config))
    begun = workdirs.has_checkpoint(workdir)
    if mode != "train" and not begun and not config.init_from:
        raise training.TrainingError(
            f"{workdir}: no checkpoint to {mode}; train first, name the run with --workdir, or "
            "weights with --config.init_from"
        )
    if begun and config.init_from:
        print(f"{workdir} holds a checkpoint: it counts, and not {config.init_from}")
    return {"train": train, "evaluate": evaluate, "export": export}[mode](config, workdir, begun)


def out_of_memory(error: Exception) -> Exception | None:
    """A RunError in the place of what JAX says of a device whose memory is full; else None."""
    if type(error).__name__ != "JaxRuntimeError":
        return None
    import training

    return training.out_of_memory(
        error,
        "choose a smaller --config.batch_size, compute it in parts "
        "(--config.gradient_accumulation=4), or use more devices",
    )


def summary(config: Any) -> int:
    """Prints the layers of a config's network; needs no data and allocates no weights."""
    import training

    print(training.summary(*training.model_options(config.model)))
    return DONE


def prepare_data(config: Any) -> int:
    """Writes the dataset at the config's size; stopped, it goes on when it is called again."""
    import input_pipeline

    noted = []

    def stop(number: int, frame: Any) -> None:
        # Noted as well: libraries lose an exception that is raised inside their callbacks.
        noted.append(number)
        raise KeyboardInterrupt

    for number in map(process.named, ("SIGINT", "SIGTERM", "SIGHUP")):
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    report = input_pipeline.reporter(None)
    cache = input_pipeline.cache_dir_of(config.data)
    try:
        stopped = lambda: bool(noted)  # noqa: E731
        print(input_pipeline.prepare_data(config.data, cache, report=report, stopped=stopped))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return STOPPED
    return DONE


def export(config: Any, workdir: Path, begun: bool) -> int:
    """Writes the weights of a checkpoint, or of init_from, to WORKDIR/weights.safetensors."""
    import training

    trained = _opened(config, workdir, begun)
    print(training.export(trained, workdir / "weights.safetensors"))
    return DONE


def train(config: Any, workdir: Path, begun: bool) -> int:
    """Trains, going on from what the workdir holds."""
    import jax

    import devices
    import training
    from training import workdir as workdirs

    data = _open_data(config, workdir, begun, only=None)
    for split in ("train", "validation"):
        data.examples(split)
    task = training.task_from_config(config, len(data.class_names))
    initial = None
    if not begun:
        initial = training.open_initial(
            training.start_from_config(config), task.name, task.options, data.class_names
        )
    devices.agree_on_inputs(training.facts_of_inputs(data.fingerprint, initial, begun))
    workdirs.check_dataset(workdir, data.fingerprint)
    examples = data.examples("train")

    def steps(duration: str) -> Any:
        return to_steps(
            config, duration, batch_size=config.batch_size, examples_per_epoch=examples.count
        )

    recipe = training.recipe_from_config(config, task, steps)
    schedule = training.schedule_from_config(config, task, steps)
    noise, share = steps("data.augment.colour_noise_until"), devices.process_share(task.mesh)
    validated = training.validation_protocol(task).images
    chief = jax.process_index() == 0
    with workdirs.locked(workdir) if chief else contextlib.nullcontext():
        training_data = training.TrainingData(
            training=lambda start: data.training(
                start,
                seed=config.seed,
                batch_size=config.batch_size,
                colour_noise_steps=noise,
                share=share,
            ),
            validation=lambda: data.evaluation(
                "validation",
                validated,
                batch_size=task.padded_batch_size(config.evaluation.batch_size),
                share=share,
            ),
            example_name=examples.name,
            normalization=training.normalization_for(initial, task.preprocessing.square)
            or data.normalization(validated),
            dataset={
                "class_names": list(data.class_names),
                "fingerprint": data.fingerprint,
                "train_examples": examples.count,
            },
        )
        if chief:
            workdirs.save_config(workdir, plain(config), training_data.dataset)
        finished = training.train(task, recipe, schedule, training_data, workdir, initial)
    return DONE if finished else STOPPED


def evaluate(config: Any, workdir: Path, begun: bool) -> int:
    """Evaluates a checkpoint, or weights; writes evaluation.json and prints it."""
    import jax

    import devices
    import evaluation
    import input_pipeline
    import training

    only = config.evaluation.split or input_pipeline.REPORTED
    data = _open_data(config, workdir, begun, only)
    split = config.evaluation.split or data.evaluation_split
    task = training.task_from_config(config, len(data.class_names))
    protocol = evaluation.protocol_called(config.evaluation.protocol, task.preprocessing)
    trained = _opened(config, workdir, begun, task.options, data.class_names)
    facts = training.facts_of_inputs(data.fingerprint, None if begun else trained, begun)
    devices.agree_on_inputs(facts)
    training.check_trained(trained, data.class_names)
    if trained.normalization is None:
        trained = dataclasses.replace(trained, normalization=data.normalization(protocol.images))
    batch_size = task.padded_batch_size(config.evaluation.batch_size)
    share, examples = devices.process_share(task.mesh), data.examples(split)
    keep = None
    if config.evaluation.save_scores:
        keep = training.Keep(
            examples.name, data.pixels_digest(split, protocol.images.side), batch_size
        )
    result = training.evaluate_trained(
        trained,
        task,
        protocol,
        lambda start: data.evaluation(
            split, protocol.images, batch_size=batch_size, share=share, start=start
        ),
        split,
        workdir,
        keep,
    )
    if jax.process_index() == 0:
        print(json.dumps(result))
    return DONE


def predict(flags: Any, config: Any | None) -> int:
    """Prints five guesses for each image, and writes them to predictions.jsonl.

    Args:
      flags: `run`, `network`, `images`, `protocol`, `picture` and `out`.
      config: of a weights file that does not say what it is of; None takes what the run, the
        file or `network` says.
    """
    import numpy as np

    import evaluation
    import input_pipeline
    import training
    from devices.xla import keep_compiled
    from visualization import opening

    if not flags.run or not flags.images:
        raise ConfigError(
            "--mode=predict needs --run=RUN_OR_WEIGHTS_FILE and --images=FILES_OR_DIRECTORIES, "
            "several with commas between them"
        )
    keep_compiled(input_pipeline.default_cache_dir() / "compiled")
    trained = opening.open_trained(Path(flags.run), flags.network, config)
    protocol, scores_of = training.predictor(
        trained, flags.protocol or trained.protocol or "center_crop"
    )
    class_names = training.class_names_of(trained)
    one = Path(flags.images).exists()  # a name with a comma in it
    texts = [flags.images] if one else flags.images.split(",")
    photographs = input_pipeline.find_photographs([text for text in texts if text])
    at_once, read = min(len(photographs), _AT_ONCE), 0
    drawing = _figures(Path(flags.out or ".")) if flags.picture else None
    with training.predictions_file(Path(flags.out or ".") / "predictions.jsonl") as write:
        for begin in range(0, len(photographs), at_once):
            squares = _squares(photographs[begin : begin + at_once], protocol.images)
            if not squares:
                continue
            # Padded, so that there is one program for any number of images.
            images = np.stack(list(squares.values()))
            images = np.pad(images, [(0, at_once - len(images)), (0, 0), (0, 0), (0, 0)])
            for photograph, scores in zip(squares, scores_of(images), strict=False):
                found = evaluation.guesses(scores, class_names)
                name = input_pipeline.shown(photograph)
                write({"image": name, "guesses": found})
                print(_said(name, found))
                if drawing is not None and (picture := drawing(squares[photograph], found)):
                    print(picture)
            read += len(squares)
    if not read:
        raise input_pipeline.DataError("no image could be read; nothing was predicted")
    if drawing is not None and (picture := drawing(None, [])):
        print(picture)
    return DONE


def _figures(directory: Path) -> Any:
    """A function that takes images with their guesses, and draws eight at a time.

    It gives the path of a picture that it has written, else None; without an image it draws
    those that are left.
    """
    from visualization import guesses, pictures

    held: list[tuple[Any, list[dict[str, Any]]]] = []
    numbers = itertools.count(1)

    def add(image: Any | None, found: list[dict[str, Any]]) -> Path | None:
        if image is not None:
            held.append((image, found))
        if not held or (image is not None and len(held) < guesses.SHOWN):
            return None
        figure = guesses.figure([image for image, _ in held], [found for _, found in held])
        held.clear()
        return pictures.save_figure(figure, directory / f"predictions-{next(numbers)}.png")

    return add


def _squares(photographs: list[Path], images: Any) -> dict[Path, Any]:
    """Photographs as a protocol asks for them; what cannot be read is said and left out."""
    import input_pipeline

    squares = {}
    for photograph in photographs:
        try:
            squares[photograph] = input_pipeline.read_square(photograph, images.side, images.pad)
        except input_pipeline.DataError as error:
            print(f"left out: {error}", file=sys.stderr)
    return squares


def _said(name: str, found: list[dict[str, Any]]) -> str:
    lines = [f"{guess['probability']:7.2%}  {guess['words']}" for guess in found]
    return "\n".join([name, *lines])


def _open_data(config: Any, workdir: Path, begun: bool, only: str | None) -> Any:
    """The dataset of a config, whose classes are in the order that the network knows them."""
    import jax

    import input_pipeline
    import training
    from devices.xla import keep_compiled, keep_memory

    cache = input_pipeline.cache_dir_of(config.data)
    keep_compiled(cache / "compiled")
    keep_memory()
    number = jax.process_index()
    listed = workdir / (f"images-{number}.jsonl" if number else "images.jsonl")
    return input_pipeline.open_data(
        config.data,
        cache,
        only=only,
        class_names=training.known_classes(training.start_from_config(config), workdir, begun),
        report=input_pipeline.reporter(listed),
    )


def _opened(
    config: Any,
    workdir: Path,
    begun: bool,
    options: dict[str, Any] | None = None,
    class_names: Any = None,
) -> Any:
    """The network of a run, or else of `init_from`."""
    import training

    name, written = training.model_options(config.model)
    if begun:
        return training.Trained.open(
            workdir, name, options or written, checkpoint=config.evaluation.checkpoint
        )
    initial = training.open_initial(
        training.start_from_config(config), name, options or written, class_names
    )
    assert initial is not None, "main asks for a checkpoint or init_from"
    return initial


def plain(config: Any) -> dict[str, Any]:
    """The config as nested dicts of JSON values."""
    return json.loads(config.to_json_best_effort())
