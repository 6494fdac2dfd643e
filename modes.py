"""The modes of main.py, a function each.

JAX, TensorFlow and the packages that need them are imported where they are used, so that a mode
waits only for what it needs.
"""

import contextlib
import copy
import json
import signal
import sys
from pathlib import Path
from typing import Any

import localizing
import predicting
import process
from configs import common
from configs.command_line import CommandLine
from configs.common import ConfigError, expanded, to_steps
from process import DONE, FAILED, STOPPED

SEVERAL = ("train", "evaluate", "export")  # modes for one of several processes


def run(arguments: CommandLine | None, flags: Any) -> int:
    """Runs the mode that the flags name; returns the exit code."""
    if flags.mode == "predict":
        return predicting.predict(flags, arguments)
    if flags.mode == "compare":
        from claims import registry, results
        from visualization import networks

        networks.compare(flags, results.of_published(registry.all_claims()))
        return DONE
    assert arguments is not None, "every other mode has a config"
    if flags.mode == "describe_data":
        return describe_data(flags, arguments)
    if flags.mode in SEVERAL:
        return in_workdir(arguments, flags)
    if flags.mode == "compile":
        return compile_step(flags, arguments.config)
    if flags.mode == "evaluate_guesses":
        return localizing.evaluate_guesses(flags.guesses, arguments.config)
    return {"summary": summary, "prepare_data": prepare_data}[flags.mode](arguments.config)


def in_workdir(arguments: CommandLine, flags: Any) -> int:
    """Runs a mode that has a workdir; with --distributed joins the other processes first.

    Raises:
      ConfigError, DataError, DeviceError, TrainingError: the mode cannot run as asked.
      RunError, LostProcessError: the mode had begun and cannot go on.
    """
    import devices
    import training
    from training import workdir as workdirs

    config, mode = arguments.config, flags.mode
    run = flags.run if flags.run and workdirs.is_directory(Path(flags.run)) else None
    if run and flags.workdir and Path(flags.workdir).resolve() != Path(run).resolve():
        raise ConfigError(
            f"--run={run} is a run, and its evaluation goes into it: leave out "
            f"--workdir={flags.workdir}"
        )
    workdir = Path(flags.workdir or run or "")
    if not (flags.workdir or run):
        name = arguments.name or workdirs.name_of_weights(flags.run)
        workdir = workdirs.default_workdir(name, arguments.variant, arguments.overrides)
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


def config_of(run: str) -> Any:
    """The config of `--run`: a run's own, or one for the network and dataset of a weights file.

    Raises:
      ConfigError: it cannot be opened, or does not say its network, dataset or preprocessing.
    """
    if not run:
        raise ConfigError(
            "--mode=evaluate needs --config=FILE, such as configs/alexnet.py, or "
            "--run=RUN_OR_FILE, such as lenet5-mnist"
        )
    import training

    try:
        return common.config_of(training.config_fields(expanded("--run", run)))
    except training.TrainingError as error:
        raise ConfigError(str(error)) from error


def out_of_memory(error: Exception) -> Exception | None:
    """The RunError for JAX's error of a device whose memory is full; None for other errors."""
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


def compile_step(flags: Any, config: Any) -> int:
    """Compiles the training step for `accelerator`, prints what it tells; touches no data."""
    from configs import datasets
    from devices import accelerators

    if flags.price is not None and not 0 < flags.price < 1e6:
        raise ConfigError(f"--price={flags.price}: dollars of a chip and hour, such as 1.2")
    classes, examples = datasets.size(config)
    target = accelerators.target_of(flags.accelerator)
    devices = accelerators.devices_of(target)
    import training
    from training import compiling
    from training.recipe import batch_multiple

    paths = {"json": flags.json, "hlo": flags.hlo}
    compiling.check_places(**paths)
    task = training.task_from_config(config, classes, devices)

    def recipe_at(batch: int) -> tuple[Any, int | None]:
        """Recipe and number of steps at a batch size, on which rate and durations depend."""
        changed = copy.deepcopy(config)
        changed.batch_size = batch

        def steps(duration: str) -> Any:
            return to_steps(changed, duration, batch_size=batch, examples_per_epoch=examples)

        recipe = training.recipe_from_config(changed, task, steps, lambda: [1] * classes)
        return recipe, steps("total")

    batch = config.batch_size
    if flags.find_batch:
        multiple = batch_multiple(task.mesh, config.gradient_accumulation, config.batch_norm.group)
        batch = compiling.find_batch(lambda n: recipe_at(n)[0], task, target, batch, multiple)
    found = compiling.compiled(task, recipe_at(batch)[0])
    compiling.tell(found, task, target, *recipe_at(batch), flags.price, **paths)
    return DONE


def prepare_data(config: Any) -> int:
    """Writes the dataset at the config's size; after a stop the next call goes on from there."""
    import input_pipeline

    received = []

    def stop(number: int, frame: Any) -> None:
        # Recorded as well: libraries lose exceptions that are raised inside their callbacks.
        received.append(number)
        raise KeyboardInterrupt

    for number in map(process.named, ("SIGINT", "SIGTERM", "SIGHUP")):
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    report = input_pipeline.reporter(None)
    cache = input_pipeline.cache_dir_of(config.data)
    try:
        stopped = lambda: bool(received)  # noqa: E731
        print(input_pipeline.prepare_data(config.data, cache, report=report, stopped=stopped))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return STOPPED
    return DONE


def describe_data(flags: Any, arguments: CommandLine) -> int:
    """Prints what a directory holds and lacks, and writes a sheet of samples of every class.

    Args:
      flags: `out` and `verify`.
      arguments: with or without a config; without a name of the dataset it is found out.
    """
    import input_pipeline

    data = arguments.config.data
    cache, out = input_pipeline.cache_dir_of(data), Path(flags.out or "pictures")
    named = bool(arguments.source) or "data.name" in arguments.overrides
    dataset = input_pipeline.open_any(data, cache, named=named)
    print(*input_pipeline.described(dataset, cache), sep="\n", flush=True)
    sheet = out / "samples.png"
    input_pipeline.write_sheet(dataset, sheet, cache)
    print(f"samples     {sheet}", flush=True)
    faults = 0
    if flags.verify:
        report = input_pipeline.reporter(out / "images.jsonl")
        for split, count, unreadable in input_pipeline.verify(dataset, report, data.threads):
            print(f"read        {split}: {count:,} images, {unreadable:,} cannot be read")
            faults += unreadable
    return FAILED if faults else DONE


def export(config: Any, workdir: Path, begun: bool) -> int:
    """Writes the weights of a checkpoint, or of init_from, to WORKDIR/weights.safetensors."""
    import training

    trained = _opened(config, workdir, begun)
    print(training.export(trained, workdir / "weights.safetensors"))
    return DONE


def train(config: Any, workdir: Path, begun: bool) -> int:
    """Trains, from the workdir's newest checkpoint if there is one."""
    import jax

    import devices
    import evaluation
    import training
    from training import workdir as workdirs

    data = _open_data(config, workdir, begun, only=None)
    for split in ("train", "validation"):
        data.examples(split)
    localizing.check_boxes(config, data, "train", "validation")
    task = training.task_from_config(config, len(data.class_names))
    initial = None
    if not begun:
        initial = training.open_initial(
            training.start_from_config(config), task.name, task.options, data.class_names,
            config.loss.boxes,
        )  # fmt: skip
    devices.agree_on_inputs(training.facts_of_inputs(data.fingerprint, initial, begun))
    workdirs.check_dataset(workdir, data.fingerprint)
    examples = data.examples("train")

    def steps(duration: str) -> Any:
        return to_steps(
            config, duration, batch_size=config.batch_size, examples_per_epoch=examples.count
        )

    recipe = training.recipe_from_config(config, task, steps, data.class_counts)
    schedule = training.schedule_from_config(config, task, steps)
    noise, share = steps("data.augment.colour_noise_until"), devices.process_share(task.mesh)
    watch = evaluation.training_protocol(config.evaluation.validation_protocol, task.preprocessing)
    evaluation.check_objective(watch, task.objective)
    validated = watch.looks[0].images
    is_first = jax.process_index() == 0
    with workdirs.locked(workdir) if is_first else contextlib.nullcontext():
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
            watch=watch,
            normalization=lambda: (
                training.normalization_for(initial, task.preprocessing.square)
                or data.normalization(validated)
            ),
            dataset={
                "class_names": list(data.class_names),
                "fingerprint": data.fingerprint,
                "train_examples": examples.count,
            },
        )
        if is_first:
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
    from evaluation import whole

    only = config.evaluation.split or input_pipeline.REPORTED
    data = _open_data(config, workdir, begun, only)
    split = config.evaluation.split or data.evaluation_split
    task = training.task_from_config(config, len(data.class_names))
    protocol = evaluation.protocol_called(
        config.evaluation.protocol,
        task.preprocessing,
        config.evaluation.scales,
        config.evaluation.dense_average,
        evaluation.Masks(config.evaluation.dropout_masks, config.evaluation.dropout_seed),
    )
    evaluation.check_network(protocol, task.network)
    evaluation.check_objective(protocol, task.objective)
    if protocol.merges:  # true boxes are not needed for guesses
        data = data.without_boxes()
    else:
        localizing.check_boxes(config, data, split)
    task, excluded = localizing.without_excluded(config, data, split, task)
    trained = _opened(config, workdir, begun, task.options, data.class_names)
    facts = training.facts_of_inputs(data.fingerprint, trained, begun)
    devices.agree_on_inputs(facts)
    training.check_trained(trained, data.class_names)
    share, rows, plans = devices.process_share(task.mesh), {}, {}
    for look in protocol.looks:
        fitting = look.batch_size(config.evaluation.batch_size, task.mesh.shape["data"])
        rows[look.images] = task.padded_batch_size(fitting)
        if look.images.whole:
            sizes = data.sizes(split, look.images)
            plans[look.images] = whole.batches(sizes, whole.widths(sizes), rows[look.images])
    read = training.Split(
        split,
        lambda images, start: data.evaluation(
            split, images, batch_size=rows[images], share=share, start=start,
            plan=plans.get(images),
        ),
        data.normalization if trained.normalization is None else None,
        data.class_names,
        data.examples(split).name,
        lambda images: data.pixels_digest(split, images),
        rows.__getitem__,
    )  # fmt: skip
    if protocol.merges:
        result = localizing.merge_boxes(
            config, data, read, protocol, trained, task, workdir, excluded
        )
    else:
        result = training.evaluate_trained(
            trained, task, protocol, read, workdir,
            keep=config.evaluation.save_scores and not protocol.of_boxes,
            besides=localizing.besides(data, split, protocol, workdir, excluded),
        )  # fmt: skip
    if jax.process_index() == 0:
        print(json.dumps(result))
    return DONE


def _open_data(config: Any, workdir: Path, begun: bool, only: str | None) -> Any:
    """The dataset of a config, with its classes in the network's order."""
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
    """The network of a run if it has begun, else of `init_from`."""
    import training

    name, written = training.model_options(config.model)
    if begun:
        return training.Trained.open(
            workdir, name, options or written, checkpoint=config.evaluation.checkpoint
        )
    initial = training.open_initial(
        training.start_from_config(config), name, options or written, class_names,
        config.loss.boxes if options else None, config.evaluation.checkpoint,
    )  # fmt: skip
    assert initial is not None, "main asks for a checkpoint or init_from"
    return initial


def plain(config: Any) -> dict[str, Any]:
    """The config as nested dicts of JSON values."""
    return json.loads(config.to_json_best_effort())
