"""The log of a run: lines on the screen, metrics.jsonl and TensorBoard."""

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from devices import mesh as meshes
from evaluation import metrics
from training import pictures, writers
from training.clock import Clock
from training.recipe import Recipe
from training.step import State
from vision_models.functional import PureNetwork


class RunLog:
    """The log of a run; only the first process writes it."""

    def __init__(self, workdir: Path, step: int, evaluated: int, total: int, epoch_steps: float):
        """Continues the files of a run.

        Args:
          workdir, step, evaluated: see `writers.MetricWriter`.
          total: steps in the whole run.
          epoch_steps: steps in an epoch.

        Raises:
          RunError: the files cannot be written.
        """
        first = jax.process_index() == 0
        self._writer = writers.MetricWriter(workdir, step, evaluated) if first else None
        self._workdir, self._total, self._epoch_steps = workdir, total, epoch_steps
        self._begun = time.perf_counter()

    def devices(self, mesh: Mesh) -> None:
        """Prints how many devices train, if there are several."""
        there, processes = jax.device_count(), jax.process_count()
        if self._writer is not None and there > 1:
            used = f"{mesh.size} of {there}" if mesh.size < there else f"{there}"
            writers.say(
                f"training on {used} devices ({mesh.devices.flat[0].device_kind})"
                + f" of {processes} processes" * (processes > 1)
                + f": mesh.data={mesh.shape['data']} x mesh.tower={mesh.shape['tower']}"
            )

    def training(self, step: int, state: State, clock: Clock, skips: bool) -> bool:
        """Writes a line on the updates since the last such line.

        Args:
          step: number of updates made.
          state: its `interval` holds the sums of the metrics.
          clock: read here, after which its measurement starts again.
          skips: whether updates may be left out; the line then has their number.

        Returns:
          False, with nothing written, if there were no updates.
        """
        averages = metrics.averages(state["interval"])
        if not averages.pop("examples"):
            return False
        values = {
            **self._moment(step, "train"),
            **averages,
            "learning_rate": float(state["learning_rate"]),
            **({"skipped": int(state["skipped"])} if skips else {}),
            **clock.read(),
        }
        left = (self._total - step) * clock.seconds_per_step
        self._report(writers.training_line(values, self._total, left), values)
        return True

    def validation(
        self, step: int, state: State, validation: dict[str, float], seconds: float
    ) -> None:
        """Writes a line on an evaluation that took `seconds`."""
        values = {
            **self._moment(step, "validation"),
            **validation,
            "learning_rate": float(state["learning_rate"]),
            "images_per_second": validation["examples"] / seconds,
        }
        self._report(writers.evaluation_line(values), values)

    def first_kernels(self, step: int, network: PureNetwork, params: Any) -> None:
        """Writes a picture of the first layer's kernels; every process calls this."""
        kernels = meshes.fetch(pictures.first_kernels(params, network.layers))
        if self._writer is not None:
            shown = pictures.picture_of_kernels(kernels)
            self._writer.write_picture("first_layer_kernels", shown, step)

    def training_images(
        self, step: int, batch: dict[str, np.ndarray], normalization: Any, recipe: Recipe
    ) -> None:
        """Writes a picture of the first images of a batch."""
        if self._writer is not None:
            seen = pictures.training_images(batch, normalization, recipe)
            self._writer.write_picture("training_images", pictures.picture(seen), step)

    def compiled(self, seconds: float) -> None:
        """Prints how long the first call of the training step took."""
        if self._writer is not None:
            writers.say(f"training step compiled, or found compiled, in {seconds:.1f} s")

    def end(
        self,
        step: int,
        state: State,
        done: bool,
        best: float,
        validation: dict[str, float] | None,
    ) -> None:
        """Prints the last line; `best` is the lowest validation error before `validation`."""
        if self._writer is not None:
            lowest = best if validation is None else min(best, metrics.watched(validation))
            spent = time.perf_counter() - self._begun
            error = next(name for name in metrics.WATCHED if name in state["interval"])
            line = writers.summary_line(self._workdir, step, done, spent, lowest, error)
            writers.say(line)

    def close(self) -> None:
        """Writes what is still in memory, and closes the files."""
        if self._writer is not None:
            self._writer.close()

    def _moment(self, step: int, split: str) -> dict[str, Any]:
        return {"step": step, "epoch": step / self._epoch_steps, "split": split}

    def _report(self, line: str, values: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(values)
            writers.say(line)
