"""What a run leaves to read: metrics.jsonl, TensorBoard events, and lines on the screen."""

import json
import math
import os
from pathlib import Path
from typing import Any


class MetricWriter:
    """Writes metrics to `metrics.jsonl` and to TensorBoard.

    A line of the file is an object with `step`, `epoch`, `split`, `loss`,
    `top1_error`, `top5_error` (fractions of 1) and more.
    """

    def __init__(self, workdir: Path, step: int, evaluated: int):
        """Continues the files of a run.

        Args:
          workdir: where they are, or are made.
          step: the step that the run goes on from; lines about training after it are
            removed, for those steps come again.
          evaluated: the last step whose evaluation the run remembers, likewise.
        """
        # Not at the top: the training step is also used where this is not installed.
        from tensorboardX import SummaryWriter

        self.path = workdir / "metrics.jsonl"
        if self.path.exists():
            _remove_later_lines(self.path, {"train": step, "validation": evaluated})
        self._file = open(self.path, "a")  # noqa: SIM115 (closed by close)
        self._events = SummaryWriter(str(workdir), purge_step=step + 1)

    def write(self, metrics: dict[str, Any]) -> None:
        """Appends one line, at once on disk."""
        self._file.write(to_json(metrics) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        for name, value in metrics.items():
            if name not in ("step", "split"):
                self._events.add_scalar(f"{metrics['split']}/{name}", value, metrics["step"])

    def close(self) -> None:
        """Writes what is left."""
        self._file.close()
        self._events.close()


def _remove_later_lines(path: Path, last: dict[str, int]) -> None:
    kept = []
    for line in path.read_text().splitlines():
        try:
            metrics = json.loads(line)
        except ValueError:
            continue  # cut short when the process was killed
        if metrics["step"] <= last[metrics["split"]]:
            kept.append(line + "\n")
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    os.replace(temporary, path)


def to_json(values: dict[str, Any]) -> str:
    """One line of JSON; what is no finite number becomes null, for JSON has no NaN."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
    return json.dumps(finite)


def training_line(metrics: dict[str, Any], total: int, seconds_left: float) -> str:
    """One line about the training since the line before."""
    return " | ".join(
        [
            f"step {metrics['step']}/{total}",
            f"epoch {metrics['epoch']:.2f}",
            f"loss {metrics['loss']:.4f}",
            f"top-1 error {metrics['top1_error']:.2%}",
            f"rate {metrics['learning_rate']:.3g}",
            f"{metrics['images_per_second']:.0f} images/s",
            f"data wait {metrics['data_wait']:.0%}",
            f"{duration(seconds_left)} left",
        ]
    )


def evaluation_line(metrics: dict[str, Any]) -> str:
    """One line about an evaluation."""
    return (
        f"{metrics['split']}: loss {metrics['loss']:.4f} | top-1 error "
        f"{metrics['top1_error']:.2%} | top-5 error {metrics['top5_error']:.2%} | "
        f"{metrics['examples']} images"
    )


def duration(seconds: float) -> str:
    """Such as 3 d 4 h, 2 h 5 min, 7 min 3 s, 12 s."""
    seconds = round(seconds)
    parts = [
        (seconds // 86400, "d"),
        (seconds // 3600 % 24, "h"),
        (seconds // 60 % 60, "min"),
        (seconds % 60, "s"),
    ]
    first = next((i for i, (amount, _) in enumerate(parts) if amount), len(parts) - 1)
    return " ".join(f"{amount} {unit}" for amount, unit in parts[first : first + 2])
