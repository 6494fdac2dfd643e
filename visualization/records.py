"""What a run has written down, read as it is: config, metrics, evaluations, environment."""

import argparse
import dataclasses
import datetime
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trained_networks
from configs.common import ConfigError, to_steps
from configs.papers import Published, published
from evaluation.metrics import WATCHED
from training import TrainingError
from training.workdir import (
    changes_result,
    flat_fields,
    has_checkpoint,
    in_training,
    is_directory,
    saved_config,
    steps_in,
)

_OVERRIDE = re.compile(r"--?(?:no)?config\.([\w.]+)")
_SOURCE = re.compile(r"--?config[= ](.+)")

Line = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Record:
    """What a run's directory holds, besides its weights.

    Attributes:
      workdir: the directory.
      config: the resolved config, nested; empty where there is no config.json.
      dataset: `fingerprint` and `train_examples`, as far as they are known.
      environment: `versions`, `git_commit`, `machine` and `command`, as far as they were recorded.
      metrics: the lines of metrics.jsonl, ascending by step.
      evaluations: the lines of evaluations.jsonl, in order of time.
      checkpoints: steps, ascending.
      running: whether a process of this machine is training it.
    """

    workdir: Path
    config: dict[str, Any]
    dataset: dict[str, Any]
    environment: dict[str, Any]
    metrics: list[Line]
    evaluations: list[Line]
    checkpoints: list[int]
    running: bool

    @property
    def network(self) -> str:
        """Name of the network; "unknown network" without a config."""
        return str(self.config.get("model", {}).get("name") or "unknown network")

    @property
    def data(self) -> str:
        """Name of the dataset; "unknown data" without a config."""
        return str(self.config.get("data", {}).get("name") or "unknown data")

    @property
    def classes(self) -> int | None:
        """Number of classes, where a file says so."""
        return self.config.get("model", {}).get("num_classes") or self.dataset.get("classes")

    @property
    def source(self) -> tuple[str, str]:
        """Name and variant of the config that the command named, or empty texts."""
        arguments = self._arguments()
        for argument in [*arguments, *map(" ".join, itertools.pairwise(arguments))]:
            if found := _SOURCE.fullmatch(argument):
                path, _, variant = found[1].partition(":")
                return Path(path).stem, variant
        return "", ""

    @property
    def overridden(self) -> dict[str, Any]:
        """Fields that the last command set, by path, with their values."""
        fields = flat_fields(self.config)
        said = (_OVERRIDE.match(argument) for argument in self._arguments())
        paths = {found[1] for found in said if found}
        return {k: v for k, v in fields.items() if any(f"{k}.".startswith(f"{p}.") for p in paths)}

    @property
    def published(self) -> Published | None:
        """The published errors of the run's config on its dataset, if any.

        Its `source` says so if the run has another recipe, or another length, than the config.
        """
        fields = flat_fields(self.config)
        if fields.get("data.classes") or fields.get("loss.boxes", "none") != "none":
            return None  # they are errors of all classes
        found = published(*self.source, self.data)
        changed = sum(
            changes_result(f) or f.startswith("total_") for f in self.overridden if f != "seed"
        )
        if found is None or not changed:
            return found
        those = "a field is" if changed == 1 else f"{changed} fields are"
        return found._replace(source=f"{found.source} (here {those} overridden)")

    @property
    def step(self) -> int:
        """The last step that a file tells of."""
        return max([0, *(line["step"] for line in self.metrics), *self.checkpoints])

    @property
    def total(self) -> int | None:
        """Number of steps of the whole run; None where the files do not say."""
        try:
            return (
                to_steps(
                    self.config,
                    "total",
                    batch_size=self.config["batch_size"],
                    examples_per_epoch=self.dataset.get("train_examples") or 0,
                )
                or None
            )
        except (ConfigError, LookupError, TypeError):
            return None

    @property
    def watched(self) -> str:
        """The error by which the run is judged: of classes, or of boxes."""
        for lines in (self.metrics, self.evaluations):
            for name in WATCHED:
                if any(name in line for line in lines):
                    return name
        return WATCHED[0]

    def lines(self, split: str) -> list[Line]:
        """The lines of metrics.jsonl on a split, `train` or `validation`."""
        return [line for line in self.metrics if line["split"] == split]

    def points(self, split: str, metric: str, x: str = "epoch") -> list[tuple[float, float | None]]:
        """A metric over `x`, `step` or `epoch`; errors in percent, None for what is no number."""
        times = 100 if metric.endswith("_error") else 1
        found = []
        for line in self.lines(split):
            value = line.get(metric)
            if metric in line and isinstance(line.get(x), int | float):
                known = isinstance(value, int | float)
                found.append((line[x], times * float(value or 0) if known else None))
        return found

    def best(self) -> Line | None:
        """The first line with the lowest validation error; None where there is none."""
        metric = self.watched
        able = [
            line for line in self.lines("validation") if isinstance(line.get(metric), int | float)
        ]
        return min(able, key=lambda line: line[metric], default=None)

    def state(self) -> tuple[str, str]:
        """`running`, `finished` or `stopped`, and a sentence that says it."""
        total, step = self.total, self.step
        share = f" ({100 * step // total}%)" if total and step <= total else ""
        of = f"step {step:,}" + (f" of {total:,}{share}" if total else "")
        if self.running:
            return "running", f"Still running: {of}. What there is so far is shown."
        if total and step >= total:
            return "finished", f"Finished: {of}."
        if not step:
            return "stopped", "Nothing has been logged or saved yet."
        return "stopped", f"Not finished: {of}. Nobody on this machine is training it now."

    def written(self) -> str | None:
        """When metrics.jsonl was last written, in words; None where there is no such file."""
        try:
            seconds = (self.workdir / "metrics.jsonl").stat().st_mtime
        except OSError:
            return None
        return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")

    def _arguments(self) -> Sequence[str]:
        command = self.environment.get("command")
        return [t for t in command if isinstance(t, str)] if isinstance(command, list) else []


def read(path: Path) -> Record:
    """Reads a run.

    Raises:
      ConfigError: it is no run.
      TrainingError: a file of it is damaged or cannot be read.
    """
    if not is_directory(path):
        what = "there is no such run; name the directory that training wrote (main.py's --workdir)"
        if path.exists():
            what = "a file; name the directory of a run"
        elif path.name in trained_networks.names():
            what = "a trained network, without the curves of its run; name the directory of a run"
        raise ConfigError(f"{path}: {what}")
    if not (
        has_checkpoint(path) or (path / "config.json").exists() or (path / "metrics.jsonl").exists()
    ):
        raise ConfigError(
            f"{path}: a directory, but no run: there is no config.json, no metrics.jsonl and no "
            "checkpoint"
        )
    try:
        saved = saved_config(path)
        environment = json.loads((path / "config.json").read_bytes())
    except FileNotFoundError:
        saved, environment = {"config": {}, "dataset": {}}, {}
    for group in ("model", "data", "loss"):
        if not isinstance(saved["config"].get(group, {}), dict):
            raise TrainingError(f"{path / 'config.json'}: damaged ({group} is no group of fields)")
    return Record(
        path,
        saved["config"],
        saved["dataset"],
        {
            k: environment[k]
            for k in ("versions", "git_commit", "machine", "command")
            if environment.get(k)
        },
        sorted(
            (
                line
                for line in _json_lines(path / "metrics.jsonl")
                if type(line.get("step")) is int and isinstance(line.get("split"), str)
            ),
            key=lambda line: line["step"],
        ),
        _json_lines(path / "evaluations.jsonl"),
        steps_in(path / "checkpoints"),
        in_training(path),
    )


def published_words(paper: Published) -> tuple[str, str]:
    """A published error in percent, and of what and whose it is."""
    if paper.top1 is None:
        return f"{paper.top5:g}%", f"top-5, {paper.views}, {paper.source}"
    return f"{paper.top1:g}%", f"{paper.views}, {paper.source}"


def open_record(arguments: argparse.Namespace) -> Record:
    """Reads the run that the command line names; see `read`."""
    return read(Path(arguments.run))


def _json_lines(path: Path) -> list[Line]:
    """The objects of a file, a line each; a line that is none, such as one cut short, is left out.

    What is NaN or infinite is read as null, which is what this project writes for it.

    Raises:
      ConfigError: the file cannot be read.
    """
    try:
        texts = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    found = []
    for text in texts:
        try:
            line = json.loads(text, parse_constant=lambda _: None)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict):
            found.append(line)
    return found
