"""The training loop."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from devices import mesh as meshes
from evaluation import Protocol, evaluate, make_steps, metrics
from training import writers
from training.checkpoints import Checkpoints
from training.clock import Clock, peak_flops
from training.faults import Update, explained, finished
from training.initial import start_from
from training.log import RunLog
from training.optimizer import Plateau
from training.profiler import Profiler
from training.recipe import Recipe
from training.schedule import Schedule, due
from training.signals import StopRequest
from training.step import (
    State,
    abstract_state,
    init_state,
    make_pooling_step,
    make_train_step,
    model_of,
)
from training.task import Task, training_flops
from training.trained import Trained

# The devices wait while processes ask each other; a stop can wait for some steps.
_STEPS_BETWEEN_AGREEMENTS = 10

NumpyBatch = dict[str, np.ndarray]
Model = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """What the loop reads: the training stream, the validation split, and facts on them.

    Attributes:
      training: first step -> the training stream from there.
      validation: () -> one pass over the validation split.
      example_name: index of a training example -> its name.
      watch: the protocol of validation, which looks at squares as training does.
      normalization: () -> `mean` [square, square, 3] and `deviation` [3] of images, float32; may
        read the whole training set, and is asked only by a run that begins.
      dataset: JSON kept with each checkpoint: `class_names`, `fingerprint`, `train_examples`.
    """

    training: Callable[[int], Generator[NumpyBatch, None, None]]
    validation: Callable[[], Generator[NumpyBatch, None, None]]
    example_name: Callable[[int], str]
    watch: Protocol
    normalization: Callable[[], dict[str, np.ndarray]]
    dataset: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Progress:
    """The loop's memory between evaluations, kept with each checkpoint.

    Attributes:
      plateau: the state of the plateau rule.
      evaluated: the last step that was evaluated.
    """

    plateau: Plateau
    evaluated: int = 0


def train(
    task: Task,
    recipe: Recipe,
    schedule: Schedule,
    data: TrainingData,
    workdir: Path,
    initial: Trained | None = None,
) -> bool:
    """Trains to the end of the schedule, from the newest sound checkpoint if there is one.

    Args:
      task: network, images and mesh.
      recipe: what an update does.
      schedule: when things happen.
      data: training stream, validation split, normalisation.
      workdir: an existing directory; gets checkpoints/, metrics.jsonl and TensorBoard events.
      initial: the weights that the network starts from, if there is no checkpoint.

    Returns:
      True at the end of the schedule; False after a signal, with a checkpoint saved.

    Raises:
      TrainingError: no checkpoint fits the network.
      RunError: a loss or gradient is not finite, or a checkpoint or a line of the log cannot
        be written; the earlier checkpoints are intact.
    """
    train_step = make_train_step(task.network, recipe, task.mesh)
    validate = _validator(task, data)
    place = meshes.batch_placer(task.mesh)
    checkpoints = Checkpoints(workdir / "checkpoints", schedule.checkpoint_keep)
    step, state, normalization, progress = _begin(task, recipe, data, checkpoints, initial)
    explain = functools.partial(
        explained, recipe=recipe, checkpoints=checkpoints, workdir=workdir,
        example_name=data.example_name,
    )  # fmt: skip
    clock = Clock(recipe.batch_size, training_flops(task), peak_flops(task.mesh))
    alone, first = jax.process_count() == 1, step
    with contextlib.ExitStack() as stack:
        # Closing waits for the other processes, so a process that has failed does not close.
        stack.push(lambda kind, *_: checkpoints.close() if alone or kind is None else None)
        epoch_steps = data.dataset["train_examples"] / recipe.batch_size
        log = RunLog(workdir, step, progress.evaluated, schedule.total, epoch_steps)
        stack.callback(log.close)
        log.devices(task.mesh)
        profiler = stack.enter_context(Profiler(workdir / "profile", schedule.profile))
        stream = stack.enter_context(contextlib.closing(data.training(step)))
        stop = stack.enter_context(StopRequest())

        def asked_to_stop() -> bool:
            return alone and stop.requested

        running: Update | None = None  # the update that the devices compute
        skipped_in_row = 0

        def wait_for_update() -> None:
            nonlocal running, skipped_in_row
            if running is not None:
                skipped_in_row, running = finished(running, recipe, explain), None
                clock.tick()

        # Everything that is due after `step` updates, then one more update. Work done
        # before an interruption is not done again: an empty interval is not logged, and
        # `evaluated` holds the last evaluation.
        while True:
            # 1. What is due.
            last, stopping = step >= schedule.total, _agreed(stop, step)
            line_due = step > 0 and (last or due(step, schedule.log_every))
            validation_due = progress.evaluated < step and not stopping
            validation_due &= last or due(step, schedule.evaluate_every)
            checkpoint_due = step > 0 and (last or stopping or due(step, schedule.checkpoint_every))
            model, validation, best = evaluated_model(state), None, False

            # 2. The last update: nothing is written after one that was not finite.
            if line_due or validation_due or checkpoint_due:
                wait_for_update()

            # 3. A line of the log.
            if line_due and log.training(step, state, clock, recipe.skip_nonfinite):
                state["interval"] = _replicated(
                    task.mesh, dict.fromkeys(recipe.objective.sums, np.float32(0))
                )
                checkpoints.check()

            # 4. Validation.
            if validation_due:
                with clock.stopped():
                    begun = time.perf_counter()
                    if last and schedule.recompute:
                        model = _with_recomputed_statistics(
                            model, task, recipe, stream, schedule.recompute, place, normalization,
                            asked_to_stop,
                        )  # fmt: skip
                    validation = validate(model, normalization, asked_to_stop)
                    if validation is not None:
                        # The last evaluation may be off the schedule; a longer run lacks it.
                        counts = due(step, schedule.evaluate_every)
                        after = _after(progress, step, metrics.watched(validation), counts)
                        best = after.plateau.best < progress.plateau.best
                        progress = after
                        scale = np.array(progress.plateau.scale, np.float32)
                        state["plateau_scale"] = meshes.replicate(task.mesh, scale)
                        log.validation(step, state, validation, time.perf_counter() - begun)
                        log.first_kernels(step, task.network, state["params"])
                stopping = stopping or asked_to_stop()
                checkpoint_due = checkpoint_due or stopping or best

            # 5. A checkpoint; none while updates are left out. The parameters may be past
            # recovery, and the older checkpoints must stay.
            if checkpoint_due and (last or stopping or best or not skipped_in_row):
                with clock.stopped():
                    checkpoints.save(
                        step, state, model, normalization, dataclasses.asdict(progress),
                        data.dataset, validation,
                    )  # fmt: skip

            # 6. The end.
            if last or stopping:
                checkpoints.finish()
                done = last and progress.evaluated == step
                log.end(step, state, done, progress.plateau.best, validation)
                return done

            # 7. One more update. The devices compute while the next batch is fetched and
            # copied; at most one step is queued behind the running one.
            with clock.waiting_for_data():
                batch = next(stream)
            if step == first:
                log.training_images(step, batch, normalization, recipe)
            profiler.before(step + 1)
            called = time.perf_counter()
            state, outcome = train_step(state, place(batch), normalization)
            if step == first:
                log.compiled(time.perf_counter() - called)
            step += 1
            wait_for_update()
            running = Update(step, batch["index"], outcome)
            profiler.after(step, outcome)
            if step == first + 1:
                wait_for_update()  # the clock starts here, after the compilation


def _begin(
    task: Task,
    recipe: Recipe,
    data: TrainingData,
    checkpoints: Checkpoints,
    initial: Trained | None,
) -> tuple[int, State, dict[str, Array], Progress]:
    """Step, state, normalisation and progress of the newest checkpoint, or fresh ones."""
    checkpoints.clear_unfinished()
    step = checkpoints.latest_sound() or 0
    if not step:
        normalization = _replicated(task.mesh, data.normalization())
        state = init_state(task.network, recipe, task.mesh)
        if initial is not None:
            state = start_from(state, initial)
        return 0, state, normalization, Progress(recipe.plateau)
    state = checkpoints.restore_state(step, abstract_state(task.network, recipe, task.mesh))
    normalization = checkpoints.restore_normalization(step, meshes.replicated(task.mesh))
    saved, _ = checkpoints.restore_json(step)
    writers.say(f"continuing {checkpoints.directory.parent} from step {step}")
    return step, state, normalization, Progress(Plateau(**saved["plateau"]), saved["evaluated"])


def _validator(
    task: Task, data: TrainingData
) -> Callable[[Model, dict[str, Array], Callable[[], bool]], dict[str, float] | None]:
    """A function (model, normalization, whether to stop) -> metrics, or None if stopped."""
    (evaluation_step,) = make_steps(
        data.watch, task.network, task.mesh, task.param_specs, task.preprocessing, task.dtype
    )
    place = meshes.batch_placer(task.mesh)

    def validate(
        model: Model, normalization: dict[str, Array], stop: Callable[[], bool]
    ) -> dict[str, float] | None:
        with contextlib.closing(data.validation()) as batches:
            scores = evaluate(
                evaluation_step, model["params"], model["statistics"], normalization, batches,
                place, stop, task.objective.rows,
            )  # fmt: skip
        return None if scores is None else task.objective.means(scores)

    return validate


def _after(progress: Progress, step: int, error: float, counts: bool) -> Progress:
    """The progress after an evaluation; `counts` says whether its error counts for the plateau."""
    plateau = progress.plateau.after(error) if counts else progress.plateau
    return Progress(plateau, evaluated=step)


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
    """The model with statistics pooled over the next batches in place of the running ones.

    Once `stop` is true the remaining batches are left out, and so is the evaluation after it.
    """
    pool = make_pooling_step(task.network, recipe, task.mesh)
    statistics = model["statistics"]
    for number in range(1, batches + 1):
        if stop():
            break
        weight = meshes.replicate(task.mesh, np.array(1 / number, np.float32))
        batch = place(next(stream))
        statistics = pool(model["params"], statistics, batch, normalization, weight)
    return {"params": model["params"], "statistics": statistics}


def evaluated_model(state: State) -> dict[str, Any]:
    """The evaluated `params` and `statistics`: the average's if there is one, else the newest."""
    return state["average"] if "average" in state else model_of(state)


def _agreed(stop: StopRequest, step: int) -> bool:
    """Whether any process has been asked to stop; all leave the loop at the same step."""
    if jax.process_count() == 1:
        return stop.requested
    if step % _STEPS_BETWEEN_AGREEMENTS:
        return False
    return bool(multihost_utils.process_allgather(np.array(stop.requested)).any())


def _replicated(mesh: Mesh, arrays: dict[str, Any]) -> dict[str, Array]:
    return {name: meshes.replicate(mesh, np.asarray(array)) for name, array in arrays.items()}
