"""What is read from a finished run: errors, gaps, the time to a level, and what tools print."""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from claims.claim import SUMMARY, TRAIN, Measure, Step, Value

Line = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Finished:
    """A run's directory, of which all processes have ended.

    Attributes:
      directory: the run's.
      diverged: whether its training ended with a loss or parameters that are not finite.
    """

    directory: Path
    diverged: bool = False

    def lines(self, split: str) -> list[Line]:
        """The lines of metrics.jsonl on `train` or `validation`, ascending by step."""
        return [line for line in read_lines(self.directory / "metrics.jsonl")
                if line.get("split") == split]  # fmt: skip

    def printed(self, step: Step, field: str) -> Line:
        """The last JSON object with a field that a process printed, each on a line of its own.

        Claims share runs, of which each evaluation is a process of its own.

        Raises:
          LookupError: there is none.
        """
        for text in reversed(self.output(step).splitlines()):
            try:
                found = json.loads(text)
                if field in found:
                    return dict(found)
            except (ValueError, TypeError):
                continue
        raise LookupError(f"claims-{step.name}.txt has no {field}")

    def output(self, step: Step) -> str:
        """What a process printed."""
        path = self.directory / f"claims-{step.name}.txt"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def read_lines(path: Path) -> list[Line]:
    """The JSON objects of a file, one a line; a line that is cut short is left out."""
    found = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(text))
        except ValueError:
            continue
    return found


def last(lines: Sequence[Line], field: str) -> float:
    """A field's value in the last line that has a number there.

    Raises:
      LookupError: no line has one.
    """
    for line in reversed(lines):
        if isinstance(line.get(field), int | float):
            return float(line[field])
    raise LookupError(f"no line has {field}")


def first_below(lines: Sequence[Line], field: str, level: float) -> Value:
    """The epoch at which a field first falls to `level`, by straight lines between the log's.

    Args:
      lines: ascending by epoch; each is the mean since the line before it.
      field: such as `top1_error`.
      level: in the field's unit.

    Returns:
      The epoch; where the level was not reached, the last epoch as a lower bound.

    Raises:
      LookupError: no line has the field.
    """
    points = [
        (float(line["epoch"]), float(line[field]))
        for line in lines
        if isinstance(line.get(field), int | float)
    ]
    if not points:
        raise LookupError(f"no line has {field}")
    before: tuple[float, float] | None = None
    for epoch, value in points:
        if value <= level:
            if before is None or before[1] == value:
                return Value(epoch)
            share = (before[1] - level) / (before[1] - value)
            return Value(before[0] + share * (epoch - before[0]))
        before = epoch, value
    return Value(points[-1][0], at_least=True)


def _percent(number: float) -> Value:
    return Value(100 * number)


def _error(step: Step, field: str = "top1_error") -> Callable[[Finished], Value]:
    """Reads an error from what an evaluation printed."""
    return lambda run: _percent(run.printed(step, field)[field])


def evaluating(
    protocol: str = "", *, scales: Sequence[int] = (), masks: int = 0, split: str = ""
) -> Step:
    """An evaluation of the last checkpoint.

    Args:
      protocol: "" for the config's own.
      scales: pixels of the shorter side; none for the protocol's own.
      masks: number of networks that dropout samples; 0 for the network with halved outputs.
      split: "" for the reported one.
    """
    told = {
        "protocol": protocol,
        "scales": f"({','.join(map(str, scales))},)" if scales else "",
        "dropout_masks": masks or "",
        "split": split,
    }
    flags = tuple(f"--config.evaluation.{name}={value}" for name, value in told.items() if value)
    words = [protocol, *map(str, scales), f"{masks}_masks" * bool(masks), split]
    name = "-".join(["evaluate", *filter(None, words)])
    return Step(name, "evaluate", flags=flags)


def test_error(
    protocol: str = "", *, scales: Sequence[int] = (), masks: int = 0, top5: bool = False
) -> Measure:
    """The error on the reported split in percent, by the config's protocol or another.

    Args:
      protocol, scales, masks: see `evaluating`.
      top5: whether the correct class need only be among five guesses.
    """
    field = "top5_error" if top5 else "top1_error"
    step = evaluating(protocol, scales=scales, masks=masks)
    more = [f"at {', '.join(map(str, scales))} pixels"] if scales else []
    more += [f"{masks} sampled networks"] if masks else []
    name = ", ".join(filter(None, [f"{'top-5 ' * top5}test error", protocol, *more]))
    return Measure(name, "%", _error(step, field), (TRAIN, step))


def overfitting(field: str, protocol: str = "center_crop") -> Measure:
    """How much higher an error or loss is on test images than on those of the training.

    Both are of the last checkpoint and of one protocol. The training's own log will not do: it is
    of distorted images, with dropout, and of the parameters at each step.

    Args:
      field: top1_error or loss.
      protocol: of both evaluations.
    """
    seen, new = evaluating(protocol, split="train"), evaluating(protocol)
    scale, unit = (100, "%") if field.endswith("error") else (1, "")

    def read(run: Finished) -> Value:
        return Value(scale * (run.printed(new, field)[field] - run.printed(seen, field)[field]))

    name = f"test {field.removeprefix('top1_')} less that on the training images, {protocol}"
    return Measure(name, unit, read, (TRAIN, seen, new))


def evaluated_training_error(protocol: str = "center_crop") -> Measure:
    """The error of the last checkpoint on the training images, in percent."""
    step = evaluating(protocol, split="train")
    name = f"error on the training images, {protocol}"
    return Measure(name, "%", _error(step), (TRAIN, step))


TEST_ERROR = test_error()
VALIDATION_ERROR = Measure(
    "validation error", "%", lambda run: _percent(last(run.lines("validation"), "top1_error"))
)
TRAINING_ERROR = Measure(
    "training error", "%", lambda run: _percent(last(run.lines("train"), "top1_error"))
)
TRAINING_LOSS = Measure("training loss", "", lambda run: Value(last(run.lines("train"), "loss")))


def epochs_to(error: float, *, ends: bool = False) -> Measure:
    """Epochs to a training error: the mean over the updates of a line.

    Args:
      error: a fraction of 1.
      ends: whether the training ends there.
    """

    def read(run: Finished) -> Value:
        return first_below(run.lines("train"), "top1_error", error)

    def reached(run: Finished) -> bool:
        try:
            return not read(run).at_least
        except LookupError:  # nothing is logged yet
            return False

    step = Step(f"train_to_{error:g}", "train", enough=reached) if ends else TRAIN
    return Measure(f"epochs to {error:.0%} training error", "epochs", read, (step,))


def epochs_to_loss(loss: float) -> Measure:
    """Epochs to a training loss."""
    return Measure(
        f"epochs to a training loss of {loss:g}", "epochs",
        lambda run: first_below(run.lines("train"), "loss", loss),
    )  # fmt: skip


def printed(
    step: Step, pattern: str, name: str, unit: str = "", *, trained: bool = True
) -> Measure:
    """The mean of the numbers that a tool prints.

    Args:
      step: runs the tool.
      pattern: of a line; its first group is the number.
      name, unit: of the measure.
      trained: whether the tool needs a trained run.
    """

    def read(run: Finished) -> Value:
        found = re.findall(pattern, run.output(step), re.MULTILINE)
        if not found:
            raise LookupError(f"{step.name} printed no {name}")
        numbers = [float(text.replace(",", "")) for text in found]
        return Value(math.fsum(numbers) / len(numbers))

    return Measure(name, unit, read, (TRAIN, step) if trained else (step,))


PARAMETERS = printed(SUMMARY, r"^parameters +([\d,]+)", "parameters", trained=False)
MULTIPLY_ADDS = printed(SUMMARY, r"^multiply-adds +([\d,]+)", "multiply-adds", trained=False)
_LOOK = ("{run}", "--data_dir={data_dir}", "--out={run}/pictures")
RESPONSES = Step("responses", module="visualization.responses", flags=_LOOK)
RESPONSE_DEVIATION = printed(
    RESPONSES, r"^\S+ \S+ ([\d.e+-]+)$", "mean deviation of the layers' responses"
)
GRADIENTS = Step("gradients", module="visualization.gradients", flags=_LOOK)
_KEPT = Step("scores", "evaluate", flags=("--config.evaluation.save_scores=True",))


def first_gradient_share() -> Measure:
    """Logarithm of the first layer's gradient norm over the last's, at the last checkpoint."""

    def read(run: Finished) -> Value:
        found = re.findall(r"^(.*) \S+ ([\d.e+-]+)$", run.output(GRADIENTS), re.MULTILINE)
        if not found:
            raise LookupError("no gradient norms were printed")
        norms = [float(norm) for when, norm in found if when == found[-1][0]]
        return Value(math.log10(max(norms[0], 1e-30) / max(norms[-1], 1e-30)))

    name = "decades from the last layer's gradient norm to the first's"
    return Measure(name, "", read, (TRAIN, GRADIENTS))


ENSEMBLE = Step("ensemble", module="evaluation.ensemble", flags=("{members}", "--error=top1"))


def _ensemble_error(run: Finished) -> Value:
    return _percent(run.printed(ENSEMBLE, "mean")["mean"]["top1_error"])


# Of the average of an arm's members; each of these is evaluated with its scores kept.
ENSEMBLE_ERROR = Measure("test error", "%", _ensemble_error, (TRAIN, _KEPT))
ONE_OF_ENSEMBLE = Measure("test error", "%", _error(_KEPT), (TRAIN, _KEPT))


def linear_error(layer: str, data: str, per_class: int) -> Measure:
    """Error of a logistic regression on a layer's features, of a dataset that needs no directory.

    Args:
      layer: of the trained network.
      data: name of the dataset.
      per_class: examples of each class that it is trained on, in three random choices.
    """
    flags = ("{run}", f"--layers={layer}", f"--data_name={data}", f"--per_class={per_class}")
    out = ("--split=all", "--out={run}/linear", "--features={run}/features")
    step = Step(f"linear-{layer}-{data}-{per_class}", module="visualization.linear",
                flags=(*flags, *out))  # fmt: skip

    def read(run: Finished) -> Value:
        found = run.printed(step, "layers")["layers"]
        return _percent(1 - found[layer]["logistic"]["accuracy"])

    return Measure(f"error of a linear classifier on {layer}", "%", read, (TRAIN, step))
