"""The written output of a run: metrics.jsonl, TensorBoard events, and lines on the screen."""

import contextlib
import itertools
import json
import math
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

import files
from training.errors import RunError

# Why the thread that writes TensorBoard's events has ended; empty while it runs.
_events_lost: list[str] = []


class MetricWriter:
    """Writes metrics to `metrics.jsonl` and to TensorBoard.

    A line of the file is an object with `step`, `epoch`, `split`, `loss`,
    `top1_error`, `top5_error` (fractions of 1) and more.
    """

    def __init__(self, workdir: Path, step: int, evaluated: int):
        """Continues the files of a run.

        Args:
          workdir: the directory of the files.
          step: the step that the run goes on from. Lines on later training steps are removed,
            for those steps come again.
          evaluated: the last evaluated step. Lines on later evaluations are removed.

        Raises:
          RunError: the files cannot be written.
        """
        self.path = workdir / "metrics.jsonl"
        try:
            if self.path.exists():
                copy = _remove_later_lines(self.path, {"train": step, "validation": evaluated})
                if copy is not None:
                    say(f"{self.path} had lines that are no metrics; all are in {copy}")
            self._file = open(self.path, "a")  # noqa: SIM115 (closed by close)
            threading.excepthook = _events_failed
            self._events = _summary_writer()(str(workdir), purge_step=step + 1)
        except OSError as error:
            raise RunError(
                f"{error.filename or workdir}: cannot be written ({error.strerror}); the "
                "checkpoints are intact, and the same command goes on from the newest"
            ) from error

    def write(self, metrics: dict[str, Any]) -> None:
        """Appends one line and writes it to disk at once."""
        try:
            self._file.write(to_json(metrics) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be written ({error.strerror}); the checkpoints are intact, "
                "and the same command goes on from the newest"
            ) from error
        if _events_lost:
            return
        for name, value in metrics.items():
            if name not in ("step", "split"):
                self._events.add_scalar(f"{metrics['split']}/{name}", value, metrics["step"])

    def write_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """A picture, uint8 [height, width, 3]."""
        if not _events_lost:
            self._events.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Writes what is still in memory, and closes the files."""
        with contextlib.suppress(OSError):  # reported already, by `write`
            self._file.close()
        if not _events_lost:  # otherwise closing would wait for a thread that has ended
            with contextlib.suppress(OSError):
                self._events.close()


def _summary_writer() -> Any:
    """The class of TensorBoard's writer, imported without PyTorch.

    tensorboardX imports PyTorch where that is installed, which takes seconds. The import is
    here because the training step is also used without tensorboardX.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter


def _events_failed(failure: threading.ExceptHookArgs) -> None:
    """Prints one line if the thread of TensorBoard's events fails; the run goes on."""
    if type(failure.thread).__module__.startswith("tensorboardX"):
        _events_lost.append(str(failure.exc_value))
        print(f"no more TensorBoard events: {failure.exc_value}", file=sys.stderr, flush=True)
    else:
        threading.__excepthook__(failure)


def say(line: str) -> None:
    """Prints a line, at once."""
    print(line, flush=True)


def _remove_later_lines(path: Path, last: dict[str, int]) -> Path | None:
    """Removes the lines of each split after its last step; splits not in `last` keep theirs.

    Returns:
      The path of a copy of the old file, if that had lines that are no metrics.
    """
    kept, invalid = [], False
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            metrics = json.loads(line)
            step, split = metrics["step"], metrics["split"]
            if type(step) is not int or not isinstance(split, str):
                raise ValueError
        except (ValueError, LookupError, TypeError, RecursionError):
            # A last line without an end was cut short when the process was killed.
            invalid = invalid or (bool(line.strip()) and line.endswith(b"\n"))
            continue
        if step <= last.get(split, step):
            kept.append(line.rstrip(b"\r\n") + b"\n")
    copy = None
    if invalid:
        copy = _free_name(path)
        shutil.copyfile(path, copy)
    with files.replacing(path) as temporary:
        temporary.write_bytes(b"".join(kept))
    return copy


def _free_name(path: Path) -> Path:
    """`metrics-damaged-1.jsonl` for `metrics.jsonl`, or the next number that is free."""
    names = (
        path.with_name(f"{path.stem}-damaged-{number}{path.suffix}")
        for number in itertools.count(1)
    )
    return next(name for name in names if not name.exists())


def append_line(path: Path, line: str) -> None:
    """Appends a line to a file; ends the file's last line first if it was cut short."""
    with open(path, "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")
        file.write(line.encode() + b"\n")


def to_json(values: dict[str, Any]) -> str:
    """One line of JSON; NaN and infinities become null, for JSON lacks them."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
    return json.dumps(finite)


def training_line(metrics: dict[str, Any], total: int, seconds_left: float) -> str:
    """One line about the training since the last line."""
    return " | ".join(
        [
            f"step {metrics['step']}/{total}",
            f"epoch {metrics['epoch']:.2f}",
            f"loss {metrics['loss']:.4f}",
            _errors(metrics)[0],
            f"rate {metrics['learning_rate']:.3g}",
            f"{metrics['images_per_second']:.0f} images/s",
            f"data wait {metrics['data_wait']:.0%}",
            f"MFU {metrics['mfu']:.0%}",
            f"{duration(seconds_left)} left",
        ]
    )


def evaluation_line(metrics: dict[str, Any]) -> str:
    """One line about an evaluation."""
    loss, count = f"{metrics['split']}: loss {metrics['loss']:.4f}", f"{metrics['examples']} images"
    return " | ".join([loss, *_errors(metrics), count])


def _errors(metrics: dict[str, Any]) -> list[str]:
    """Words for those errors that there are, the one that is watched first."""
    return [f"{words} {metrics[name]:.2%}" for name, words in ERRORS.items() if name in metrics]


# The errors among the metrics, and what they are called.
ERRORS = {
    "top1_error": "top-1 error",
    "top5_error": "top-5 error",
    "localization_error": "localization error",
}


def summary_line(
    workdir: Path, step: int, done: bool, seconds: float, best: float, error: str = "top1_error"
) -> str:
    """One line about the whole run so far; `best` is the lowest `error` of validation."""
    found = f"; best validation {ERRORS[error]} {best:.2%}" if math.isfinite(best) else ""
    what = "done" if done else "stopped"
    return f"{what} after {step} steps, this process ran {duration(seconds)}{found}: {workdir}"


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
