"""Checkpoints: a small module around Orbax's CheckpointManager."""

import contextlib
import errno
import os
import shutil
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from devices.mesh import put
from evaluation import metrics
from training import damaged, sums
from training.errors import RunError, TrainingError
from training.parts import parts_of, whole
from training.quiet import leave_failures_to_us
from training.workdir import REPLACED, begun_by, damaged_in, steps_in
from training.writers import say

# The system's words for a full disk, and the message's.
_NO_ROOM = (
    (os.strerror(errno.ENOSPC), "the disk is full"),
    (os.strerror(errno.EDQUOT), "the quota of this disk is used up"),
    (os.strerror(errno.EFBIG), "a file would become larger than allowed, see ulimit -f"),
)
# A file system's block, in bytes: the most that a file's last bytes, or a directory, take up.
_BLOCK = 4096
# Seconds between two looks at a write that is waited for.
_LOOK = 0.02


class _Manager(ocp.CheckpointManager):
    """Orbax's, with the error of a write that failed in this process, as soon as there is one.

    Orbax tells of it when all processes have ended the write; the others wait for this one first.
    """

    failure: Exception | None = None

    def _wait_for_checkpointers(self) -> None:
        with self._remembering():
            super()._wait_for_checkpointers()

    def _finalize(self, *arguments: Any, **options: Any) -> None:
        with self._remembering():
            super()._finalize(*arguments, **options)

    @contextlib.contextmanager
    def _remembering(self) -> Generator[None, None, None]:
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error
            raise


class Checkpoints:
    """The checkpoints of one run, one directory per step.

    A checkpoint has these parts:
      model: the parameters and statistics that are evaluated.
      training: the rest of the train state.
      normalization: the mean and deviation of the images.
      progress: the loop's memory between evaluations, as JSON.
      dataset: class names and fingerprint of the data, as JSON.

    The SHA-256 of every file lies beside them. A checkpoint and its sums appear together.
    """

    def __init__(self, directory: Path, keep: int = 3):
        """Opens or makes the directory.

        Args:
          directory: made when the first checkpoint is saved.
          keep: number of the newest checkpoints that stay; the one with the lowest validation
            error stays as well.

        Raises:
          TrainingError: a damaged checkpoint cannot be moved aside, or the path is not UTF-8.
        """
        self.directory = directory
        try:
            str(directory.absolute()).encode()
        except UnicodeEncodeError:
            raise TrainingError(
                f"{directory.absolute()}: not a path in UTF-8, and only such hold checkpoints; "
                "rename it, choose another, or make a symbolic link to it"
            ) from None
        policy = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(max(keep, 1)),
                checkpoint_managers.BestN(
                    get_metric_fn=_error,
                    reverse=True,  # the lowest error is the best
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        self._saving: int | None = None
        self._written: int | None = None
        if jax.process_index() == 0:
            damaged.set_unlisted_aside(self.directory)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("checkpoints can be listed")
        self._manager = _Manager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                best_fn=_error,  # without it metrics are not written
                best_mode="min",
                create=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_sums),
            ),
            item_handlers={
                "model": ocp.StandardCheckpointHandler(),
                "training": ocp.StandardCheckpointHandler(),
                "normalization": ocp.StandardCheckpointHandler(),
                "progress": ocp.JsonCheckpointHandler(),
                "dataset": ocp.JsonCheckpointHandler(),
            },
        )

    def save(
        self,
        step: int,
        state: Any,
        model: Any,
        normalization: Any,
        progress: dict[str, Any],
        dataset: dict[str, Any],
        validation: dict[str, float] | None,
    ) -> None:
        """Saves a checkpoint in the background.

        An older checkpoint of this step is replaced if `validation` is given: the run was
        stopped before that evaluation.

        Args:
          step: number of updates made.
          state: arrays on the mesh.
          model: the evaluated `params` and `statistics`. Those that are also parts of the
            state are saved once.
          normalization: arrays on the mesh.
          progress, dataset: JSON.
          validation: metrics of an evaluation at this step, if there was one.

        Raises:
          RunError: this checkpoint, or the one before it, could not be written.
        """
        self._wait()
        leave_failures_to_us()
        with self._failing_in_words(step):
            if step in self._manager.all_steps():
                if validation is None:
                    return
                self._set_aside(step)
            elif (self.directory / str(step)).exists() and jax.process_index() == 0:
                damaged.set_aside(self.directory, step, "no directory")
            parts = parts_of(state)
            shared = {
                name: next((k for k, part in parts.items() if part is evaluated), None)
                for name, evaluated in model.items()
            }
            rest = {name: part for name, part in parts.items() if name not in shared.values()}
            self._check_space()
            self._saving = step
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    model=ocp.args.StandardSave(model),
                    training=ocp.args.StandardSave(rest),
                    normalization=ocp.args.StandardSave(normalization),
                    progress=ocp.args.JsonSave(progress | {"model": shared}),
                    dataset=ocp.args.JsonSave(dataset),
                ),
                metrics=validation,
            )

    def _check_space(self) -> None:
        """Raises OSError if the disk has no room for a checkpoint as large as the newest.

        A write that fails half way prints many messages and leaves files to remove.
        """
        steps = steps_in(self.directory)
        if jax.process_index() > 0 or not steps:
            return
        newest = self.directory / str(steps[-1])
        try:
            files = [newest / name for name in sums.read_sums(newest)]
            needed = sum(path.stat().st_size for path in files)
        except (OSError, ValueError):
            return  # the size of the next checkpoint is not known
        needed += (len(files) + len({path.parent for path in files})) * _BLOCK
        if shutil.disk_usage(self.directory).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _set_aside(self, step: int) -> None:
        """Renames a step's checkpoint; it stays valid until its replacement is written."""
        old = self.directory / str(step)
        if jax.process_index() == 0:
            old.rename(old.with_name(f"{step}{REPLACED}"))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("a checkpoint is replaced")
        self._manager.reload()

    def _write_sums(self) -> None:
        """Writes the SHA-256 of every file, before the checkpoint gets its final name."""
        if jax.process_index() == 0:
            (unfinished,) = self.directory.glob(f"{self._saving}{damaged.UNFINISHED}*")
            sums.write_sums(unfinished)
        self._written = self._saving

    def check(self) -> None:
        """Raises RunError if the last write has failed; does not wait for it to end."""
        ended = self._written != self._saving and not self._manager.is_saving_in_progress()
        if ended or self._manager.failure is not None:
            self._wait()

    def finish(self) -> None:
        """Waits for the last checkpoint; raises RunError if it could not be written."""
        self._wait()
        self.clear_unfinished()

    def _wait(self) -> None:
        with self._failing_in_words(self._saving):
            failure = None
            while self._manager.is_saving_in_progress():
                if failure is not None:
                    raise failure  # Orbax waits for the others, and they for this process
                failure = self._manager.failure
                time.sleep(_LOOK)
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    @contextlib.contextmanager
    def _failing_in_words(self, step: int | None) -> Generator[None, None, None]:
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise many kinds
            self._manager.failure = error
            # Orbax's own error may stand for JAX's.
            for lost in (error, error.__cause__):
                if isinstance(lost, jax.errors.JaxRuntimeError):  # another process was lost
                    raise lost from None
            raise self._failed(step, error) from error

    def _failed(self, step: int | None, error: Exception) -> RunError:
        sys.unraisablehook = lambda _: None
        reason = next((why for sign, why in _NO_ROOM if sign in str(error)), _first_line(error))
        if jax.process_index() == 0:  # the unfinished files take up room
            damaged.clear_unfinished(self.directory)
        steps = steps_in(self.directory)
        kept = f"that of step {steps[-1]} is intact" if steps else "there is none before it"
        return RunError(
            f"{self.directory}: the checkpoint of step {step} could not be written ({reason}); "
            f"{kept}, and the same command goes on from there"
        )

    def clear_unfinished(self) -> None:
        """Removes checkpoints that a killed process left half written or half replaced."""
        if jax.process_index() == 0 and self.directory.is_dir():
            damaged.clear_unfinished(self.directory)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("unfinished checkpoints are cleared")
        self._manager.reload()

    def latest_sound(self) -> int | None:
        """The newest step whose files are all as they were written; None without checkpoints.

        Newer checkpoints, which are damaged, are moved to `damaged/` beside the checkpoints'
        directory, and reported on the screen.

        Raises:
          TrainingError: all checkpoints are damaged.
        """
        found = -1
        if jax.process_index() == 0:
            sound = damaged.newest_sound(self.directory)
            if sound is not None:
                found = sound
            elif damaged_in(self.directory.parent):
                found = -2
        if jax.process_count() > 1:
            found = int(multihost_utils.broadcast_one_to_all(np.array(found)))
        if found == -2:
            raise TrainingError(
                f"{self.directory}: every checkpoint was damaged; they are in "
                f"{damaged.place_of(self.directory)}. Put sound copies back, if there are any, or "
                "choose another --workdir to begin anew"
            )
        self._manager.reload()
        return found if found >= 0 else None

    def damage(self, step: int) -> str | None:
        """Which file of a checkpoint is missing or has changed; see `sums.damage`."""
        return sums.damage(self.directory / str(step))

    def choose(self, which: str) -> int:
        """The step of the undamaged checkpoint that `latest`, `best` or a number names.

        `latest` passes over damaged checkpoints, and reports them on the screen.

        Raises:
          TrainingError: there is no such checkpoint.
        """
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise TrainingError(f"{self.directory}: no finished checkpoint; train first")
        if which == "latest":
            for step in reversed(steps):
                fault = self.damage(step)
                if fault is None:
                    return step
                if not (self.directory / str(step)).exists():
                    continue  # the run is still training, and has removed it
                say(f"damaged: {self.directory / str(step)} ({fault}), passed over")
            raise TrainingError(f"{self.directory}: every checkpoint is damaged")
        if which == "best":
            best = self._manager.best_step()
            if best is None:
                raise TrainingError(
                    f"evaluation.checkpoint=best: no checkpoint of {self.directory} has been "
                    "evaluated; choose latest"
                )
            return self._undamaged(best)
        if which.isdecimal() and int(which) in steps:
            return self._undamaged(int(which))
        raise TrainingError(
            f"evaluation.checkpoint={which}: choose latest, best or one of the steps "
            f"{', '.join(map(str, steps))}"
        )

    def _undamaged(self, step: int) -> int:
        fault = self.damage(step)
        if fault is not None:
            raise TrainingError(f"{self.directory / str(step)} is damaged ({fault})")
        return step

    def restore_state(self, step: int, state: Any) -> Any:
        """Restores the train state onto any mesh.

        Args:
          step: the checkpoint's.
          state: arrays or abstract arrays with the shapes and shardings to restore to. Where
            its `interval` has other metrics than the saved one, the sums begin at zero.
        """
        parts, in_model = parts_of(state), self.restore_json(step)[0]["model"]
        held = {name: part for name, part in in_model.items() if part is not None}
        rest = {name: part for name, part in parts.items() if name not in held.values()}
        sums_saved = (self._manager.item_metadata(step)["training"] or {}).get("interval")
        sums_saved = sums_saved or rest.get("interval", {})
        other_metrics = sums_saved.keys() != rest.get("interval", {}).keys()
        if other_metrics:
            rest["interval"] = dict.fromkeys(sums_saved, next(iter(rest["interval"].values())))
        # The rest of the model, if any, was made for evaluation and is not part of the state.
        model = {name: parts[in_model[name] or name] for name in in_model}
        restored = self._restore(
            step,
            model=ocp.args.StandardRestore(model),
            training=ocp.args.StandardRestore(rest),
        )
        found = dict(restored.training) | {held[name]: restored.model[name] for name in held}
        if other_metrics:
            found["interval"] = jax.tree.map(
                lambda leaf: put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding), state["interval"]
            )
        return whole(found)

    def restore_model(self, step: int, model: Any) -> Any:
        """`params` and `statistics` alone, with the shapes and shardings of `model`."""
        return self._restore(step, model=ocp.args.StandardRestore(model)).model

    def restore_normalization(self, step: int, sharding: Any) -> Any:
        """The `mean` and `deviation` that the network was trained with."""
        return self._restore_as_saved(step, "normalization", sharding)

    def restore_model_as_saved(self, step: int, sharding: Any) -> Any:
        """`params` and `statistics` with their saved shapes, all with one sharding."""
        return self._restore_as_saved(step, "model", sharding)

    def _restore_as_saved(self, step: int, item: str, sharding: Any) -> Any:
        shapes = self._manager.item_metadata(step)[item]
        if shapes is None:
            raise TrainingError(f"{self.directory / str(step)}: damaged, its {item} is missing")
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            dict(shapes),
        )
        return self._restore(step, **{item: ocp.args.StandardRestore(abstract)})[item]

    def restore_json(self, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The JSON parts `(progress, dataset)`."""
        restored = self._restore(
            step, progress=ocp.args.JsonRestore(), dataset=ocp.args.JsonRestore()
        )
        return restored.progress, restored.dataset

    def _restore(self, step: int, **items: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise TrainingError(
                f"{self.directory / str(step)}: not a checkpoint of this network "
                f"({_first_line(error)}){begun_by(self.directory.parent)}"
            ) from error

    def close(self) -> None:
        """Waits for the last checkpoint; raises nothing, unlike `finish`."""
        with contextlib.suppress(Exception):  # reported already, or the run ends anyway
            self._manager.close()


def _error(validation: dict[str, float]) -> float:
    """The error that checkpoints are compared by."""
    return metrics.watched(validation)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
