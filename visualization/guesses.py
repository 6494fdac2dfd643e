"""Eight images with five guesses each, as in Krizhevsky et al. 2012, Figure 4, left.

Images are drawn at random from the split (`--seed`). The true class is written below each image,
and its bar is red if it is among the five. `--mistakes` shows only images whose first guess is
wrong.
"""

import argparse
import itertools
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import evaluation
import training
from configs.common import ConfigError
from evaluation.words import first_words
from visualization import command_line, pictures
from visualization.opening import Opened
from visualization.weights import protocol_of

# Two rows of four (shownet.py of the authors' code, as are the colours).
COLUMNS, SHOWN = 4, 8
_TRUE, _OTHER = "#ffaaaa", "#aaaaff"
_LETTERS = 24


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("--mistakes", action="store_true", help="Wrong first guesses only.")
    parser.add_argument("--protocol", help="The run's own evaluation.protocol by default.")
    command_line.add_seed(parser, "Of the random choice.")


def short(class_name: str) -> str:
    """The class's first words, cut to the length that fits."""
    (first,) = first_words([class_name])
    return first if len(first) <= _LETTERS else first[: _LETTERS - 1] + "…"


def in_words(image: str, guesses: Sequence[dict[str, Any]]) -> str:
    """A line with the image's name, and a line for each guess."""
    lines = [f"{guess['probability']:7.2%}  {guess['words']}" for guess in guesses]
    return "\n".join([image, *lines])


def drawer(directory: Path, *, named: bool) -> Callable[..., Path | None]:
    """A function of an image and its guesses that draws eight at a time.

    It returns the path of a picture that it has written, else None; without an image it draws
    those that are left. Unless the classes are `named`, their numbers are drawn as `class 17`.
    """
    held: list[tuple[Any, list[dict[str, Any]]]] = []
    numbers = itertools.count(1)

    def add(image: Any | None, found: list[dict[str, Any]]) -> Path | None:
        if image is not None:
            if not named:
                found = [guess | {"class": f"class {guess['class']}"} for guess in found]
            held.append((image, found))
        if not held or (image is not None and len(held) < SHOWN):
            return None
        drawn = figure([image for image, _ in held], [found for _, found in held])
        held.clear()
        return pictures.save_figure(drawn, directory / f"predictions-{next(numbers)}.png")

    return add


def figure(
    images: Sequence[np.ndarray],
    guesses: Sequence[list[dict[str, Any]]],
    truths: Sequence[str] | None = None,
) -> Figure:
    """Draws images with bars of their guesses, four in a row.

    Args:
      images: uint8 [h, w, 3] each.
      guesses: those of each image, from `evaluation.guesses`.
      truths: name of each image's true class; None where that is not known.
    """
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    whole = pictures.figure(2.1 * columns, 3.1 * rows)
    axes = whole.subplots(
        2 * rows, columns, squeeze=False, gridspec_kw={"height_ratios": [1.9, 1] * rows}
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (image, found) in enumerate(zip(images, guesses, strict=True)):
        row, column = divmod(number, columns)
        above, below = axes[2 * row, column], axes[2 * row + 1, column]
        above.imshow(image, interpolation="lanczos" if len(image) < 200 else "antialiased")
        if truths is not None:
            above.set_title(short(truths[number]), fontsize=9, y=-0.16)
        places = range(len(found))[::-1]
        truth = None if truths is None else truths[number]
        below.barh(
            places,
            [guess["probability"] for guess in found],
            color=[_TRUE if guess["class"] == truth else _OTHER for guess in found],
        )
        for place, guess in zip(places, found, strict=True):
            below.text(0.02, place, short(guess["class"]), va="center", fontsize=8)
        below.set_xlim(0, 1)
    return whole


def draw(arguments: argparse.Namespace, opened: Opened) -> Generator[Path, None, None]:
    """Writes guesses.png."""
    trained, data = opened.trained, opened.data()
    split = arguments.split or data.evaluation_split
    examples = data.examples(split)
    training.check_trained(trained, data.class_names)
    names = trained.class_names or data.class_names
    name, scales, averaged = protocol_of(trained, arguments.protocol, arguments.config)
    protocol, at_once, scores_of = training.predictor(
        trained, name, min(arguments.batch_size, examples.count), scales, averaged
    )
    order = np.random.default_rng(arguments.seed).permutation(examples.count)
    shown: list[tuple[np.ndarray, list[dict[str, Any]], str]] = []
    for begin in range(0, examples.count, at_once):
        photographs, labels = [], []
        for index in order[begin : begin + at_once].tolist():
            found = data.example(split, index, [look.images for look in protocol.looks])
            if found is not None:
                photographs.append(found[0])
                labels.append(found[1])
        scores = scores_of(photographs) if photographs else np.zeros((0, len(names)))
        for photograph, label, of_image in zip(photographs, labels, scores, strict=True):
            if not (arguments.mistakes and label in (np.argmax(of_image), -1)):
                truth = names[label] if label >= 0 else ""
                image = protocol.looks[0].images.without_padding(photograph[0])
                shown.append((image, evaluation.guesses(of_image, names), truth))
        if len(shown) >= SHOWN:
            break
    if not shown:
        raise ConfigError("--mistakes: there are none; leave it out, or choose another --split")
    yield pictures.save_figure(figure(*zip(*shown[:SHOWN], strict=True)), opened.out("guesses.png"))


if __name__ == "__main__":
    command_line.main(__doc__, add_flags, draw)
