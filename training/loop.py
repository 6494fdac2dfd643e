"""The training loop."""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from devices import mesh as meshes
from evaluation import evaluate, inputs, metrics
from training import writers
from training.checkpoints import Checkpoints
from training.clock import Clock, peak_flops
from training.errors import RunError, TrainingError
from training.initial import Initial, start_from
from training.optimizer import Plateau
from training.profiler import Profiler
from training.recipe import Recipe
from training.signals import StopRequest
from training.step import (
    SUMS,
    State,
    abstract_state,
    init_state,
    make_optimizer,
    make_pooling_step,
    make_train_step,
    model_of,
)
from training.task import Task, evaluator, training_flops
from vision_models.functional import PureNetwork

# Asking the other processes makes the devices wait; a stop can wait for some steps.
_STEPS_BETWEEN_AGREEMENTS = 10
# Updates left out in a row, after which the parameters are not worth going on with.
_TOO_MANY_SKIPPED = 100

NumpyBatch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When things happen, in steps; None or 0 is never.

    Attributes:
      total: updates in all.
      log_every, evaluate_every, checkpoint_every: between lines, evaluations, checkpoints;
        all three come at the end as well.
      profile: first and last step that are traced, or empty.
      recompute: batches over which BatchNorm's statistics are computed anew at the end.
    """

    total: int
    log_every: int | None
    evaluate_every: int | None
    checkpoint_every: int | None
    profile: tuple[int, ...] = ()
    recompute: int = 0


def schedule_from_config(
    config: Any, to_steps: Callable[[str], Any], has_statistics: bool
) -> Schedule:
    """The schedule of a config.

    Args:
      config: `total_*`, `log_every_*`, `evaluate_every_*`, `checkpoint_every_*`,
        `profile_steps`, `batch_norm.recompute_examples`, `batch_size`, `optimizer`.
      to_steps: (node, name of a duration in it) -> steps.
      has_statistics: the network has BatchNorm.

    Raises:
      TrainingError: nothing to train, or fields that contradict one another.
    """
    optimizer, recompute = config.optimizer, config.batch_norm.recompute_examples
    total = to_steps("total")
    if not total:
        raise TrainingError("nothing to train: set --config.total_epochs or --config.total_steps")
    schedule = Schedule(
        total=total,
        log_every=to_steps("log_every"),
        evaluate_every=to_steps("evaluate_every"),
        checkpoint_every=to_steps("checkpoint_every"),
        profile=tuple(config.profile_steps),
        # A run of a few steps does not end in hours of this.
        recompute=min(-(-recompute // config.batch_size), total),
    )
    if optimizer.plateau_patience and not schedule.evaluate_every:
        raise TrainingError(
            f"optimizer.plateau_patience={optimizer.plateau_patience} needs evaluations: set "
            "evaluate_every_epochs, or plateau_patience=0 and the moments of drop_epochs"
        )
    if recompute and not has_statistics:
        raise TrainingError(
            f"batch_norm.recompute_examples={recompute}: this network has no BatchNorm; choose 0"
        )
    start = to_steps("optimizer.average_from") or 0
    if optimizer.average != "none" and start >= schedule.total:
        raise TrainingError(
            f"optimizer.average_from: step {start} is not before the end, step {schedule.total}"
        )
    profile = schedule.profile
    if profile and profile[0] > profile[1]:
        raise TrainingError(
            f"profile_steps={profile}: give the first and the last step, such as (10,20)"
        )
    return schedule


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What the loop reads.

    Attributes:
      training: first step -> the training stream from there.
      validation: () -> one pass over the validation split.
      example_name: index of a training example -> what it is called.
      normalization: `mean` [square, square, 3] and `deviation` [3] of images, float32.
      dataset: JSON kept with each checkpoint: `class_names`, `fingerprint`, `train_examples`.
    """

    training: Callable[[int], Generator[NumpyBatch, None, None]]
    validation: Callable[[], Generator[NumpyBatch, None, None]]
    example_name: Callable[[int], str]
    normalization: dict[str, np.ndarray]
    dataset: dict[str, Any]


def train(
    config: Any,
    task: Task,
    schedule: Schedule,
    recipe: Recipe,
    data: Inputs,
    workdir: Path,
    initial: Initial | None = None,
) -> bool:
    """Trains to the end of the schedule, from the newest sound checkpoint if there is one.

    Args:
      config: `checkpoint_keep`, `compute_dtype`, `data` and `optimizer` are read.
      task: network and mesh.
      schedule: when things happen.
      recipe: what a step does.
      data: training stream, validation split, normalisation.
      workdir: exists; gets checkpoints/, metrics.jsonl and TensorBoard events.
      initial: what the network starts from, if there is no checkpoint.

    Returns:
      True at the end of the schedule; False after a signal, with a checkpoint saved.

    Raises:
      TrainingError: no checkpoint fits the network.
      RunError: a loss or gradient that is not finite, or a checkpoint or a line of the log
        that cannot be written; the checkpoints before are intact.
    """
    network, mesh = task.network, task.mesh
    optimizer = make_optimizer(config.optimizer, network)
    train_step = make_train_step(network, optimizer, recipe, mesh)
    evaluation_step = evaluator(config, task, "center_crop").make_step()
    place = meshes.batch_placer(mesh)
    plateau = Plateau(
        config.optimizer.drop_factor,
        config.optimizer.plateau_patience,
        config.optimizer.plateau_drops,
    )
    evaluated = 0  # the last step that was evaluated

    checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint_keep)
    checkpoints.clear_unfinished()
    step = checkpoints.latest_sound() or 0
    if not step:
        state = init_state(network, optimizer, recipe, mesh)
        normalization = {k: meshes.replicate(mesh, v) for k, v in data.normalization.items()}
        if initial is not None:
            state = start_from(state, initial)
    else:
        abstract = abstract_state(network, optimizer, recipe, mesh)
        state = checkpoints.restore_state(step, abstract)
        normalization = checkpoints.restore_normalization(step, meshes.replicated(mesh))
        progress, _ = checkpoints.restore_json(step)
        plateau = Plateau(**progress["plateau"])
        evaluated = progress["evaluated"]
        writers.say(f"continuing {workdir} from step {step}")

    chief, alone = jax.process_index() == 0, jax.process_count() == 1
    epoch_steps = data.dataset["train_examples"] / recipe.batch_size
    clock = Clock(recipe.batch_size, training_flops(task), peak_flops(mesh))
    begun = time.perf_counter()
    with contextlib.ExitStack() as stack:
        # It waits for the other processes: not where this one has failed.
        stack.push(lambda kind, *_: checkpoints.close() if alone or kind is None else None)
        writer = writers.MetricWriter(workdir, step, evaluated) if chief else None
        if writer is not None:
            stack.callback(writer.close)
        profiler = stack.enter_context(Profiler(workdir / "profile", schedule.profile))
        stream = stack.enter_context(contextlib.closing(data.training(step)))
        stop = stack.enter_context(StopRequest())

        def asked_to_stop() -> bool:
            return alone and stop.requested

        def report(line: str, values: dict[str, Any]) -> None:
            if writer is not None:
                writer.write(values)
                writers.say(line)

        # Everything that is due after `step` updates, then one more update. What was
        # done before an interruption is not done again: an empty interval is not
        # logged, and `evaluated` remembers the last evaluation.
        running: _Running | None = None  # the update that the devices are at
        skipped_in_row, first = 0, step

        def wait_for_update() -> None:
            nonlocal running, skipped_in_row
            if running is not None:
                skipped_in_row = running.check(checkpoints, workdir, recipe, data)
                running = None
                clock.tick()

        while True:
            last = step >= schedule.total
            stopping = _agreed(stop, step)
            log = step and (last or _due(step, schedule.log_every))
            validate = last or _due(step, schedule.evaluate_every)
            validate = validate and evaluated < step and not stopping
            save = step and (last or stopping or _due(step, schedule.checkpoint_every))
            model, validation, best = evaluated_model(state), None, False

            if log or validate or save:
                wait_for_update()

            if log:
                sums = metrics.averages(state["interval"])
                if sums.pop("examples"):
                    state["interval"] = _interval_on(mesh)
                    values = {
                        "step": step,
                        "epoch": step / epoch_steps,
                        "split": "train",
                        **sums,
                        "learning_rate": float(state["learning_rate"]),
                        **({"skipped": int(state["skipped"])} if recipe.skip_nonfinite else {}),
                        **clock.read(),
                    }
                    left = (schedule.total - step) * clock.seconds_per_step
                    report(writers.training_line(values, schedule.total, left), values)
                    checkpoints.check()

            if validate:
                evaluation_begun = time.perf_counter()
                with clock.stopped(), contextlib.closing(data.validation()) as batches:
                    if last and schedule.recompute:
                        model = _with_recomputed_statistics(
                            model, task, recipe, stream, schedule.recompute, place, normalization,
                            asked_to_stop,
                        )  # fmt: skip
                    validation = evaluate(
                        evaluation_step, model["params"], model["statistics"], normalization,
                        batches, place, asked_to_stop,
                    )  # fmt: skip
                    kernels = meshes.fetch(first_kernels(network, state["params"]))
                    if validation is not None:
                        evaluated = step
                        taken = time.perf_counter() - evaluation_begun
                        # The last evaluation may be off the schedule; a longer run has not got it.
                        if _due(step, schedule.evaluate_every):
                            best = plateau.observe(validation["top1_error"])
                        state["plateau_scale"] = meshes.replicate(
                            mesh, np.array(plateau.scale, np.float32)
                        )
                        values = {
                            "step": step,
                            "epoch": step / epoch_steps,
                            "split": "validation",
                            **validation,
                            "learning_rate": float(state["learning_rate"]),
                            "images_per_second": validation["examples"] / taken,
                        }
                        report(writers.evaluation_line(values), values)
                        if writer is not None:
                            writer.write_images("first_layer_kernels", kernels, step)
                stopping = stopping or asked_to_stop()
                save = save or stopping or best

            # While updates are left out the parameters may be such that nothing else comes:
            # the checkpoints from before stay.
            if save and (last or stopping or best or not skipped_in_row):
                progress = {"plateau": dataclasses.asdict(plateau), "evaluated": evaluated}
                with clock.stopped():
                    checkpoints.save(
                        step, state, model, normalization, progress, data.dataset, validation
                    )

            if last or stopping:
                checkpoints.finish()
                done = last and evaluated == step
                if chief:
                    spent = time.perf_counter() - begun
                    lowest = min(plateau.best, (validation or {}).get("top1_error", math.inf))
                    writers.say(writers.summary_line(workdir, step, done, spent, lowest))
                return done

            with clock.waiting_for_data():
                batch = next(stream)
            if writer is not None and step == first:
                writer.write_images("training_images", _as_seen(batch, normalization, recipe), step)
            profiler.before(step + 1)
            called = time.perf_counter()
            state, outcome = train_step(state, place(batch), normalization)
            if chief and step == first:
                taken = time.perf_counter() - called
                writers.say(f"training step compiled, or found compiled, in {taken:.1f} s")
            step += 1
            # The device computes while the next batch is fetched and copied; no more
            # than one step is queued behind the one that runs.
            wait_for_update()
            running = _Running(step, batch["index"], outcome)
            profiler.after(step, outcome)
            if step == first + 1:
                wait_for_update()  # the clock runs from here: the first step was compiled


@dataclasses.dataclass(frozen=True)
class _Running:
    """An update on its way.

    Attributes:
      step: its number.
      examples: indices of this process's share of its batch.
      outcome: what the training step says of it.
    """

    step: int
    examples: np.ndarray
    outcome: dict[str, Array]

    def check(self, checkpoints: Checkpoints, workdir: Path, recipe: Recipe, data: Inputs) -> int:
        """Waits for it; the arguments are of the run.

        Returns:
          How many updates in a row have been left out; 0 if this one was not.

        Raises:
          RunError: its loss or an updated parameter is not finite, and such updates are not
            skipped, or too many in a row have been.
        """
        in_row = int(jax.device_get(self.outcome["skipped_in_row"]))
        if not in_row:
            return 0
        loss = float(self.outcome["loss"]) / recipe.batch_size
        what = "an updated parameter is not finite" if np.isfinite(loss) else f"the loss is {loss}"
        if recipe.skip_nonfinite:
            if jax.process_index() == 0:
                writers.say(f"step {self.step}: {what}; this update is left out")
            if in_row < _TOO_MANY_SKIPPED:
                return in_row
            what += f", and so it was {in_row - 1} times before"
        gathered = np.asarray(multihost_utils.process_allgather(self.examples)).reshape(-1)
        # Processes that hold other towers of the same examples read the same.
        examples = list(dict.fromkeys(gathered.tolist()))
        names = [data.example_name(index) for index in examples]
        listed = workdir / "nonfinite.json"
        if jax.process_index() == 0:
            content = {"step": self.step, "index": examples, "examples": names}
            with contextlib.suppress(OSError):  # a full disk: the message has the first names
                listed.write_text(json.dumps(content, indent=1) + "\n")
        checkpoints.finish()
        good = checkpoints.latest_sound()
        raise RunError(
            f"step {self.step}: {what}. Its batch: {', '.join(names[:3])} ... ({listed} has all "
            f"{len(names)}). Last good checkpoint: "
            + (f"step {good}" if good is not None else "none")
            + ". Lower optimizer.learning_rate in a new run"
            + ("" if recipe.skip_nonfinite else ", or leave such out with --config.nonfinite=skip")
        )


def _with_recomputed_statistics(
    model: dict[str, Any],
    task: Task,
    recipe: Recipe,
    stream: Iterator[NumpyBatch],
    batches: int,
    place: Callable[[NumpyBatch], dict[str, Array]],
    normalization: dict[str, Array],
    stop: Callable[[], bool],
) -> dict[str, Any]:
    """The model with the statistics of the next batches together in place of the running ones.

    Once `stop` is true the rest is left out; the evaluation that follows then is as well.
    """
    pool = make_pooling_step(task.network, recipe, task.mesh)
    statistics = model["statistics"]
    for number in range(1, batches + 1):
        if stop():
            break
        share = meshes.replicate(task.mesh, np.array(1 / number, np.float32))
        batch = place(next(stream))
        statistics = pool(model["params"], statistics, batch, normalization, share)
    return {"params": model["params"], "statistics": statistics}


def evaluated_model(state: State) -> dict[str, Any]:
    """Parameters and statistics that are evaluated: the average, or those of now."""
    return state["average"] if "average" in state else model_of(state)


def first_kernels(network: PureNetwork, params: Any) -> Array:
    """The kernels of the first layer: [h, w, channels, maps], or [towers, h, w, channels, maps]."""
    found = params[network.layers[0]]
    while "kernel" not in found:
        found = next(iter(found.values()))
    return found["kernel"]


def _as_seen(batch: NumpyBatch, normalization: dict[str, Array], recipe: Recipe) -> np.ndarray:
    """The first images of a batch as the network sees them, float32 [n, h, w, 3]."""
    few = {name: jnp.asarray(value[:16]) for name, value in batch.items()}
    images = jax.tree.map(meshes.fetch, normalization)
    see = jax.jit(inputs.training_input, static_argnames=("aligned", "dtype"))
    return np.asarray(see(few, images, aligned=recipe.aligned_mean, dtype="float32"))


def _agreed(stop: StopRequest, step: int) -> bool:
    """Whether any process has been asked to stop: all must leave the loop at the same step."""
    if jax.process_count() == 1:
        return stop.requested
    if step % _STEPS_BETWEEN_AGREEMENTS:
        return False
    return bool(multihost_utils.process_allgather(np.array(stop.requested)).any())


def _due(step: int, every: int | None) -> bool:
    return every is not None and every > 0 and step % every == 0


def _interval_on(mesh: Mesh) -> dict[str, Array]:
    return {name: meshes.replicate(mesh, np.zeros((), np.float32)) for name in SUMS}
