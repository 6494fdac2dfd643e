"""Checkpoints: a small module around Orbax's CheckpointManager."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from training.errors import TrainingError


class Checkpoints:
    """The checkpoints of one run, one directory per step.

    Each holds `model` (parameters and statistics), `training` (the rest of the train
    state), `normalization` (of images), and as JSON `progress`, what the loop remembers between
    evaluations, and `dataset`, the class names and the fingerprint of the data.
    """

    def __init__(self, directory: Path, keep: int = 3):
        """Opens or makes the directory.

        Args:
          directory: made when the first checkpoint is saved.
          keep: how many of the newest stay; the best by validation error stays as well.
        """
        self.directory = directory
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
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                best_fn=_error,  # without it metrics are not written
                best_mode="min",
                create=True,
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
        normalization: Any,
        progress: dict[str, Any],
        dataset: dict[str, Any],
        validation: dict[str, float] | None,
    ) -> None:
        """Saves in the background.

        A checkpoint of this step that is there already is replaced if this one has
        been evaluated: the run was stopped before it could be.

        Args:
          step: updates made.
          state, normalization: arrays on the mesh.
          progress, dataset: JSON.
          validation: metrics of an evaluation at this step, if there was one.
        """
        if step in self._manager.all_steps():
            if validation is None:
                return
            self._manager.delete(step)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(_model(state)),
                training=ocp.args.StandardSave(_without_model(state)),
                normalization=ocp.args.StandardSave(normalization),
                progress=ocp.args.JsonSave(progress),
                dataset=ocp.args.JsonSave(dataset),
            ),
            metrics=validation,
        )

    def latest(self) -> int | None:
        """The newest step, or None if there is no checkpoint."""
        return self._manager.latest_step()

    def choose(self, which: str) -> int:
        """The step that `latest`, `best` or a number names.

        Raises:
          TrainingError: there is none.
        """
        steps = sorted(self._manager.all_steps())
        if which == "latest" and steps:
            return steps[-1]
        if which == "best":
            best = self._manager.best_step()
            if best is None:
                raise TrainingError(
                    f"evaluation.checkpoint=best: no checkpoint of {self.directory} has been "
                    "evaluated; choose latest"
                )
            return best
        if which.isdigit() and int(which) in steps:
            return int(which)
        raise TrainingError(
            f"evaluation.checkpoint={which}: choose latest, best or one of the steps "
            f"{', '.join(map(str, steps))}"
        )

    def restore_state(self, step: int, state: Any) -> Any:
        """The train state, onto any mesh.

        Args:
          step: of a checkpoint.
          state: arrays or abstract arrays of the same shapes, as they shall lie.
        """
        restored = self._restore(
            step,
            model=ocp.args.StandardRestore(_model(state)),
            training=ocp.args.StandardRestore(_without_model(state)),
        )
        return {**restored.model, **restored.training}

    def restore_model(self, step: int, model: Any) -> Any:
        """`params` and `statistics` alone, like these arrays or abstract arrays."""
        return self._restore(step, model=ocp.args.StandardRestore(model)).model

    def restore_normalization(self, step: int, sharding: Any) -> Any:
        """`mean` and `deviation` that the network was trained with."""
        return self._restore_as_saved(step, "normalization", sharding)

    def restore_model_as_saved(self, step: int, sharding: Any) -> Any:
        """`params` and `statistics` whatever their shapes, all with one sharding."""
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
        """(progress, dataset)."""
        restored = self._restore(
            step, progress=ocp.args.JsonRestore(), dataset=ocp.args.JsonRestore()
        )
        return restored.progress, restored.dataset

    def _restore(self, step: int, **items: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise TrainingError(
                f"{self.directory / str(step)}: not a checkpoint of this network, or damaged "
                f"({str(error).splitlines()[0][:200]})"
            ) from error

    def close(self) -> None:
        """Waits for what is being saved."""
        self._manager.wait_until_finished()
        self._manager.close()


def _error(validation: dict[str, float]) -> float:
    """By which checkpoints are compared."""
    return validation["top1_error"]


def _model(state: dict[str, Any]) -> dict[str, Any]:
    return {name: state[name] for name in ("params", "statistics")}


def _without_model(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name not in _model(state)}
