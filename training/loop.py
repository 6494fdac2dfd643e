"""The training loop."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from evaluation import evaluate, metrics
from training import mesh as meshes
from training import writers
from training.checkpoints import Checkpoints
from training.initial import Initial, start_from
from training.optimizer import Plateau, Rate
from training.signals import StopRequest
from training.step import (
    abstract_state,
    empty_interval,
    init_state,
    make_optimizer,
    make_train_step,
)
from training.task import Task, evaluator

# Asking the other processes makes the devices wait; a stop can wait for some steps.
_STEPS_BETWEEN_AGREEMENTS = 10

NumpyBatch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When things happen, in steps; None or 0 is never.

    Attributes:
      total: updates in all.
      log_every, evaluate_every, checkpoint_every: between lines, evaluations, checkpoints;
        all three come at the end as well.
    """

    total: int
    log_every: int | None
    evaluate_every: int | None
    checkpoint_every: int | None


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What the loop reads.

    Attributes:
      training: first step -> the training stream from there.
      validation: () -> one pass over the validation split.
      normalization: `mean` [square, square, 3] and `deviation` [3] of images, float32.
      dataset: JSON kept with each checkpoint: `class_names`, `fingerprint`, `train_examples`.
    """

    training: Callable[[int], Generator[NumpyBatch, None, None]]
    validation: Callable[[], Generator[NumpyBatch, None, None]]
    normalization: dict[str, np.ndarray]
    dataset: dict[str, Any]


def train(
    config: Any,
    task: Task,
    schedule: Schedule,
    rates: list[Rate],
    data: Inputs,
    workdir: Path,
    initial: Initial | None = None,
) -> bool:
    """Trains to the end of the schedule, from the newest checkpoint if there is one.

    Args:
      config: `seed`, `batch_size`, `compute_dtype`, `checkpoint_keep`, `data.mean`,
        `loss` and
        `optimizer` are read.
      task: network and mesh.
      schedule: when things happen.
      rates: from `training.optimizer.rates_from_config`.
      data: training stream, validation split, normalisation.
      workdir: exists; gets checkpoints/, metrics.jsonl and TensorBoard events.
      initial: what the network starts from, if there is no checkpoint.

    Returns:
      True at the end of the schedule; False after a signal, with a checkpoint saved.
    """
    network, mesh = task.network, task.mesh
    optimizer = make_optimizer(config.optimizer, network)
    train_step = make_train_step(
        network,
        optimizer,
        rates,
        mesh,
        seed=config.seed,
        batch_size=config.batch_size,
        aligned_mean=config.data.mean == "image",
        dtype=config.compute_dtype,
        auxiliary_weight=config.loss.auxiliary_weight,
        rubbish_penalty=config.loss.rubbish_penalty,
        max_filter_rms=config.optimizer.max_filter_rms,
    )
    evaluation_step = evaluator(config, task, "center_crop").make_step()
    place = meshes.batch_placer(mesh)
    plateau = Plateau(
        config.optimizer.drop_factor,
        config.optimizer.plateau_patience,
        config.optimizer.plateau_drops,
    )
    evaluated = 0  # the last step that was evaluated

    checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint_keep)
    step = checkpoints.latest() or 0
    if not step:
        state = init_state(network, optimizer, config.seed, mesh)
        normalization = {k: meshes.replicate(mesh, v) for k, v in data.normalization.items()}
        if initial is not None:
            state = start_from(state, initial)
    else:
        state = checkpoints.restore_state(step, abstract_state(network, optimizer, mesh))
        normalization = checkpoints.restore_normalization(step, meshes.replicated(mesh))
        progress, _ = checkpoints.restore_json(step)
        plateau = Plateau(**progress["plateau"])
        evaluated = progress["evaluated"]
        print(f"continuing {workdir} from step {step}", flush=True)

    chief, alone = jax.process_index() == 0, jax.process_count() == 1
    epoch_steps = data.dataset["train_examples"] / config.batch_size
    clock = Clock()
    with contextlib.ExitStack() as stack:
        stack.callback(checkpoints.close)
        writer = writers.MetricWriter(workdir, step, evaluated) if chief else None
        if writer is not None:
            stack.callback(writer.close)
        stream = stack.enter_context(contextlib.closing(data.training(step)))
        stop = stack.enter_context(StopRequest())

        def report(line: str, values: dict[str, Any]) -> None:
            if writer is not None:
                writer.write(values)
                print(line, flush=True)

        # Everything that is due after `step` updates, then one more update. What was
        # done before an interruption is not done again: an empty interval is not
        # logged, and `evaluated` remembers the last evaluation.
        previous: Any = None
        while True:
            last = step >= schedule.total
            stopping = _agreed(stop, step)
            validation, improved = None, False

            if step and (last or _due(step, schedule.log_every)):
                sums = metrics.averages(state["interval"])
                if sums.pop("examples"):
                    state["interval"] = _interval_on(mesh)
                    values = {
                        "step": step,
                        "epoch": step / epoch_steps,
                        "split": "train",
                        **sums,
                        "learning_rate": float(state["learning_rate"]),
                        **clock.read(config.batch_size),
                    }
                    left = (schedule.total - step) * clock.seconds_per_step
                    report(writers.training_line(values, schedule.total, left), values)

            if evaluated < step and (last or _due(step, schedule.evaluate_every)):
                start = time.perf_counter()
                with clock.stopped(), contextlib.closing(data.validation()) as batches:
                    validation = evaluate(
                        evaluation_step, state["params"], state["statistics"], normalization,
                        batches, place, lambda: alone and stop.requested,
                    )  # fmt: skip
                if validation is not None:
                    evaluated = step
                    # The last evaluation may be off the schedule; a longer run has not got it.
                    if _due(step, schedule.evaluate_every):
                        improved = plateau.observe(validation["top1_error"])
                    state["plateau_scale"] = meshes.replicate(
                        mesh, np.array(plateau.scale, np.float32)
                    )
                    values = {
                        "step": step,
                        "epoch": step / epoch_steps,
                        "split": "validation",
                        **validation,
                        "learning_rate": float(state["learning_rate"]),
                        "images_per_second": validation["examples"] / (time.perf_counter() - start),
                    }
                    report(writers.evaluation_line(values), values)

            due = _due(step, schedule.checkpoint_every)
            stopping = stopping or (alone and stop.requested)  # during the evaluation
            if step and (due or improved or last or stopping):
                progress = {"plateau": dataclasses.asdict(plateau), "evaluated": evaluated}
                with clock.stopped():
                    checkpoints.save(step, state, normalization, progress, data.dataset, validation)

            if last or stopping:
                return evaluated == step if last else False

            with clock.waiting_for_data():
                batch = next(stream)
            state, batch_sums = train_step(state, place(batch), normalization)
            step += 1
            # The device computes while the next batch is fetched and copied; no more
            # than one step is queued behind the one that runs.
            jax.block_until_ready(previous)
            previous = batch_sums
            clock.tick()


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
    zeros = {name: np.zeros((), np.float32) for name in empty_interval()}
    return {name: meshes.replicate(mesh, zero) for name, zero in zeros.items()}


class Clock:
    """Measures the speed of training, and what part of the time goes into waiting for data.

    Neither evaluation and saving nor the first step, which compiles, count.
    """

    def __init__(self) -> None:
        """Runs from the end of the first step."""
        self.seconds_per_step = 0.0
        self._start: float | None = None
        self._waited = 0.0
        self._steps = 0

    def tick(self) -> None:
        """A step has been made."""
        if self._start is None:
            self._start, self._waited = time.perf_counter(), 0.0
        else:
            self._steps += 1

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Inside, the loop waits for a batch."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Inside, time does not count."""
        start = time.perf_counter()
        yield
        if self._start is not None:
            self._start += time.perf_counter() - start

    def read(self, batch_size: int) -> dict[str, float]:
        """`images_per_second` and `data_wait` (a share of 1) since the last reading."""
        if self._start is None or not self._steps:
            return {"images_per_second": 0.0, "data_wait": 0.0}
        now = time.perf_counter()
        elapsed = max(now - self._start, 1e-9)
        self.seconds_per_step = elapsed / self._steps
        values = {
            "images_per_second": batch_size / self.seconds_per_step,
            "data_wait": min(self._waited / elapsed, 1.0),
        }
        self._start, self._waited, self._steps = now, 0.0, 0
        return values
