"""The cost of checkpoints, logging and checks in a run, beside its bare training steps.

    python -m benchmarks.overhead [--quick] [--network=alexnet] [--batch=32] [--seconds=60]

One side is `training.train`, with a line of the log every ten steps and one checkpoint, written in
the background, every --seconds. The other is the compiled step in a plain loop. Both train on the
same batch in memory and take turns of --seconds, with the checkpoint in the middle of a turn. The
first step, which compiles, does not count. `overhead` is the share by which a step takes longer.
"""

import argparse
import contextlib
import io
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

import training
from benchmarks import report
from devices import mesh as meshes
from evaluation import training_protocol
from evaluation.preprocessing import Preprocessing
from training.optimizer import Momentum, Rate
from training.recipe import Recipe
from training.step import init_state, make_train_step


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two turns of each, not five")
    parser.add_argument("--network", default="alexnet")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0, help="between checkpoints")
    arguments = parser.parse_args()
    images = Preprocessing(resize=256, crop=224, aligned_mean=True)
    options = {"num_classes": 1000}
    task = training.make_task(arguments.network, options, images, data=1, tower=1)
    momentum = Momentum(0.9, weight_decay=0.0005)
    recipe = Recipe(rates=(Rate("", 1e-6),), batch_size=arguments.batch, momentum=momentum)
    batch = batch_of(arguments.batch, images.crop)
    normalization = {
        "mean": np.full((images.square, images.square, 3), 110, np.float32),
        "deviation": np.ones(3, np.float32),
    }
    trial = bare(task, recipe, batch, normalization, 4)
    steps = max(math.ceil(arguments.seconds / trial), 20)
    both = report.alternate(
        [
            lambda: whole(task, recipe, batch, normalization, steps),
            lambda: bare(task, recipe, batch, normalization, steps),
        ],
        2 if arguments.quick else 5,
    )
    ours, peer = (report.median(values) for values in both)
    assert ours is not None and peer is not None
    report.show(
        [
            report.row(
                f"overhead/{arguments.network}", "ms", 1000 * ours, 1000 * peer,
                device=report.device_name(), peer_name="the bare step", steps=steps,
                overhead=round(ours / peer - 1, 4),
            )
        ]
    )  # fmt: skip


def batch_of(size: int, crop: int) -> dict[str, np.ndarray]:
    """A training batch of noise, with the arrays that the input pipeline yields.

    Args:
      size: number of images.
      crop: pixels of a crop's side.
    """
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (size, crop, crop, 3), np.uint8),
        "label": rng.integers(0, 1000, size).astype(np.int32),
        "index": np.arange(size),
        "crop_offset": rng.integers(0, 33, (size, 2)).astype(np.int32),
        "flip": rng.integers(0, 2, size).astype(bool),
        "colour_shift": np.zeros((size, 3), np.float32),
        "colour_scale": np.ones(size, np.float32),
    }


def bare(task: Any, recipe: Recipe, batch: Any, normalization: Any, steps: int) -> float:
    """Seconds per step of the compiled step in a plain loop."""
    step = make_train_step(task.network, recipe, task.mesh)
    state = init_state(task.network, recipe, task.mesh)
    on_mesh = {k: meshes.replicate(task.mesh, v) for k, v in normalization.items()}
    place = meshes.batch_placer(task.mesh)
    outcome: Any = None
    start = 0.0
    for number in range(steps + 1):
        state, outcome = step(state, place(batch), on_mesh)
        if number == 0:
            jax.block_until_ready(outcome)
            start = time.perf_counter()
    jax.block_until_ready((state, outcome))
    return (time.perf_counter() - start) / steps


def whole(task: Any, recipe: Recipe, batch: Any, normalization: Any, steps: int) -> float:
    """Seconds per step of a run with a checkpoint half way."""
    started: list[float] = []

    def stream(first: int) -> Iterator[Any]:
        for number in range(steps + 1):
            if number == 2:  # requested after the first update, which compiles, has ended
                started.append(time.perf_counter())
            yield batch
        raise AssertionError("one step too many")

    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(io.StringIO()):
        ended: list[float] = []

        def validation() -> Iterator[Any]:
            ended.append(time.perf_counter())  # called after the last step has ended
            rows = {"image": np.zeros((recipe.batch_size, 256, 256, 3), np.uint8)}
            yield rows | {
                "label": batch["label"],
                "index": np.arange(recipe.batch_size),
                "mask": np.ones(recipe.batch_size, np.float32),
            }

        training.train(
            task,
            recipe,
            training.Schedule(steps + 1, 10, None, steps // 2 + 1, checkpoint_keep=2),
            training.TrainingData(
                training=stream,  # type: ignore[arg-type]
                validation=validation,  # type: ignore[arg-type]
                example_name=str,
                watch=training_protocol("center_crop", task.preprocessing),
                normalization=lambda: normalization,
                dataset={"class_names": [], "fingerprint": "", "train_examples": 10**6},
            ),
            Path(directory),
        )
    return (ended[0] - started[0]) / steps


if __name__ == "__main__":
    main()
