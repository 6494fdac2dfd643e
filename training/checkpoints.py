"""Checkpoints: a small module around Orbax's CheckpointManager."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from training.errors import TrainingError


class Checkpoints:
    """The checkpoints of one run, one directory per step.

    Each holds `params`, `training` (the rest of the train state), `mean` (what is
    subtracted from images), and as JSON `progress`, what the loop remembers between
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
                "params": ocp.StandardCheckpointHandler(),
                "training": ocp.StandardCheckpointHandler(),
                "mean": ocp.StandardCheckpointHandler(),
                "progress": ocp.JsonCheckpointHandler(),
                "dataset": ocp.JsonCheckpointHandler(),
            },
        )

    def save(
        self,
        step: int,
        state: Any,
        mean: Any,
        progress: dict[str, Any],
        dataset: dict[str, Any],
        validation: dict[str, float] | None,
    ) -> None:
        """Saves in the background.

        A checkpoint of this step that is there already is replaced if this one has
        been evaluated: the run was stopped before it could be.

        Args:
          step: updates made.
          state, mean: arrays on the mesh.
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
                params=ocp.args.StandardSave(state["params"]),
                training=ocp.args.StandardSave(_without_params(state)),
                mean=ocp.args.StandardSave({"mean": mean}),
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
            params=ocp.args.StandardRestore(state["params"]),
            training=ocp.args.StandardRestore(_without_params(state)),
        )
        return {"params": restored.params, **restored.training}

    def restore_params(self, step: int, params: Any) -> Any:
        """The parameters alone, like these arrays or abstract arrays."""
        return self._restore(step, params=ocp.args.StandardRestore(params)).params

    def restore_mean(self, step: int, sharding: Any) -> Any:
        """The mean image that the network was trained with."""
        shape = self._manager.item_metadata(step)["mean"]["mean"]
        abstract = {"mean": jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)}
        return self._restore(step, mean=ocp.args.StandardRestore(abstract)).mean["mean"]

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


def _without_params(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name != "params"}
