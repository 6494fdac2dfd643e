"""Photographs with their true boxes and those of a submission: boxes.png and boxes.html.

    python -m visualization.boxes RUN_OR_GUESSES [--limit=12] [--misses] [--guesses=5]

RUN_OR_GUESSES is a run, whose newest file in `guesses/` is taken, or a file of guesses in Kaggle's
form or in that of ILSVRC's task 2; a file needs --data_name and --data_dir.

A true box is a white line on a black one. A guess is a green line if it is right, by the official
rules; orange with dashes if its class is right and its box is not; red with dots if its class is
another one. Its number is at the box and in the list below, with class and overlap: intersection
over union with the true box that it overlaps most. Images are drawn at random (`--seed`); --misses
takes only those without a right guess.
"""

import argparse
import dataclasses
from collections.abc import Generator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

import input_pipeline
from configs.common import ConfigError, config_of
from evaluation import Images, localization
from evaluation.localization import Guesses, Truth
from input_pipeline import Data
from training.workdir import is_directory, saved_config
from visualization import command_line, page, pictures
from visualization.guesses import short

SHARED = command_line.DATA[:3]
COLUMNS = 3
_SIDE = 320  # pixels of a photograph's shorter side
# Verdict -> colour and dashes.
_STYLES: dict[str, tuple[str, Any]] = {
    "right": ("#17a34a", "solid"),
    "box misses": ("#b45f00", (0, (5, 2))),
    "other class": ("#e02d2d", (0, (1, 1.5))),
}
_TRUE = "true box"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("--limit", type=command_line.positive, default=12, help="Photographs.")
    parser.add_argument("--guesses", type=command_line.positive, default=5, help="Of an image.")
    parser.add_argument("--misses", action="store_true", help="Without a right guess only.")
    command_line.add_seed(parser, "Of the random choice.")


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A submission beside its dataset.

    Attributes:
      path: of the guesses.
      data: the dataset.
      split: its name.
      workdir: the run's directory; None for a file.
    """

    path: Path
    data: Data
    split: str
    workdir: Path | None


class Shown(NamedTuple):
    """A photograph on the page.

    Attributes:
      name: of the image.
      pixels: uint8 [h, w, 3].
      size: width and height of the image in whose pixels boxes are, int [2].
      guesses, truth: those of the image.
      right: whether some guess is, of all that were made.
    """

    name: str
    pixels: np.ndarray
    size: np.ndarray
    guesses: Guesses
    truth: Truth
    right: bool


def opener(arguments: argparse.Namespace) -> Subject:
    """Finds the guesses and opens their dataset.

    Raises:
      ConfigError: there are none, or no dataset is named.
      DataError, TrainingError: it cannot be opened.
    """
    given = Path(arguments.run)
    workdir = given if is_directory(given) else None
    path, fields = given, {}
    if workdir is not None:
        found = sorted(
            (workdir / "guesses").glob(f"{arguments.split or '[!.]*'}-*.csv"),
            key=lambda file: file.stat().st_mtime,
        )
        if not found:
            raise ConfigError(
                f"{workdir}: no guesses{f' of {arguments.split}' * bool(arguments.split)} in "
                "guesses/; --mode=evaluate writes them for a network that regresses boxes"
            )
        path = found[-1]
        fields = dict(saved_config(workdir)["config"]["data"])
    elif not path.is_file():
        raise ConfigError(f"{path}: no such run and no such file of guesses")
    named = arguments.data_name or fields.get("name")
    if not named:
        raise ConfigError(
            f"{path} names no dataset; name one with --data_name=NAME and --data_dir=DIR"
        )
    if arguments.data_dir or named != fields.get("name"):
        fields |= {"name": named, "dir": arguments.data_dir, "prepared_dir": None}
    of_config = config_of({"data": fields}).data
    known = path.stem.split("-")[0] if workdir is not None else None
    split = arguments.split or known
    data = input_pipeline.open_data(
        of_config,
        input_pipeline.cache_dir_of(of_config),
        only=split or input_pipeline.REPORTED,
    )
    return Subject(path, data, split or data.evaluation_split, workdir)


def verdicts(guesses: Guesses, truth: Truth) -> list[tuple[str, float]]:
    """Of each guess what is right or wrong, a key of `_STYLES`, and its overlap.

    The overlap is with a box of the image's class; below 0 is none.
    """
    named, right = localization.is_right(guesses, truth)
    found = localization.overlaps(guesses.boxes, truth.of_class).max(axis=1, initial=0.0)
    said = np.where(right, "right", np.where(named, "box misses", "other class"))
    return list(zip(said.tolist(), found.tolist(), strict=True))


def _draw_one(axes: Axes, of: Shown) -> None:
    image, guesses, truth = of.pixels, of.guesses, of.truth
    scale = np.tile(np.array(image.shape[1::-1]) / of.size, 2)
    axes.imshow(image)
    axes.set_axis_off()

    def rectangle(box: np.ndarray, **style: Any) -> Rectangle:
        left, top, right, bottom = (np.add(box, [0, 0, 1, 1]) * scale - 0.5).tolist()
        made = Rectangle((left, top), right - left, bottom - top, fill=False, **style)
        axes.add_patch(made)
        return made

    for box in truth.of_class:
        around = patheffects.Stroke(linewidth=6, foreground="black")
        line = rectangle(box, edgecolor="white", linewidth=4)
        line.set_path_effects([around, patheffects.Normal()])
    order = range(len(guesses.labels))
    found = verdicts(guesses, truth)
    for number in reversed(order):  # the best on top
        colour, dashes = _STYLES[found[number][0]]
        line = rectangle(guesses.boxes[number], edgecolor=colour, linewidth=2, linestyle=dashes)
        axes.text(
            line.get_x() + 2 + 16 * number, line.get_y() + 2, str(number + 1), va="top",
            fontsize=8, color="white", clip_on=True,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
    # Lines along the edges are seen whole.
    axes.set_xlim(-4.5, image.shape[1] + 3.5)
    axes.set_ylim(image.shape[0] + 3.5, -4.5)


def _lines(
    guesses: Guesses, truth: Truth, names: tuple[str, ...]
) -> list[tuple[str, str, str, str]]:
    """Number, verdict, class and overlap of each guess, in words."""
    rows = []
    pairs = zip(guesses.labels.tolist(), verdicts(guesses, truth), strict=True)
    for number, (label, (verdict, overlap)) in enumerate(pairs, 1):
        called = short(names[label]) if label >= 0 else "a class not in the dataset"
        # Cut and not rounded: what is below half does not read as half.
        rows.append((str(number), verdict, called, f"{int(100 * max(overlap, 0)) / 100:.2f}"))
    return rows


def _legend() -> list[Line2D]:
    around = [patheffects.Stroke(linewidth=5, foreground="black"), patheffects.Normal()]
    true = Line2D([], [], color="white", linewidth=2.5, label=_TRUE, path_effects=around)
    styles = _STYLES.items()
    return [true, *(Line2D([], [], color=c, linestyle=d, label=said) for said, (c, d) in styles)]


def draw(arguments: argparse.Namespace, subject: Subject) -> Generator[Path, None, None]:
    """Writes boxes.png and boxes.html."""
    data, split = subject.data, subject.split
    examples = data.examples(split)
    boxes_of = input_pipeline.boxes_of(examples, f"{data.dataset.name}, {split}")
    names = localization.Names([examples.name(n) for n in range(examples.count)], data.class_names)
    guessed, notes = localization.read(subject.path, names)
    labels = input_pipeline.labels_of(examples, data.cache_dir)
    form = Images(_SIDE, whole=True)
    shown: list[Shown] = []
    right = misses = 0
    for row in np.random.default_rng(arguments.seed).permutation(examples.count).tolist():
        drawn = boxes_of(row)
        truth = Truth(int(labels[row]), drawn.corners, drawn.labels)
        if not len(truth.of_class):
            continue
        found = any(said == "right" for said, _ in verdicts(guessed[row], truth))
        right, misses = right + found, misses + (not found)
        if len(shown) < arguments.limit and not (arguments.misses and found):
            read = data.example(split, row, [form])
            if read is not None:
                best = Guesses(*(part[: arguments.guesses] for part in guessed[row]))
                content = examples.read(row)[0]
                boxes, size = _upright(truth.boxes, drawn.shown, content)
                truth = truth._replace(boxes=boxes)
                best = best._replace(boxes=_upright(best.boxes, drawn.shown, content)[0])
                shown.append(Shown(examples.name(row), read[0][0], size, best, truth, found))
    if not shown:
        what = "--misses: there are none" if arguments.misses and right else "no image has boxes"
        raise ConfigError(f"{subject.path}: {what}; choose another --split")
    yield _picture(arguments, subject, shown)
    begin = [
        page.text(
            f"{subject.path.name}: {right:,} of {right + misses:,} images of {split} have a right "
            f"guess ({misses / (right + misses):.2%} localization error).",
            "soft",
        ),
        *(page.text(note, "soft") for note in notes),
        page.text(
            "True boxes are white lines on black ones. Guesses: a solid line is right; with dashes "
            "the class is right and the box is not; with dots the class is another one.",
            "soft",
        ),
    ]
    yield _page(arguments, subject, shown, begin)


def _upright(
    corners: np.ndarray, shown: tuple[int, int], content: bytes | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [n, 4] of the image as annotated in the upright one, in pixels; its width, height."""
    edges = np.add(corners, [0, 0, 1, 1]) / np.tile(shown, 2)
    boxes = input_pipeline.Boxes(edges, np.zeros(len(edges), np.int32), shown)
    found = input_pipeline.as_read(boxes, content)
    size = np.array(found.shown)
    return found.edges * np.tile(size, 2) - [0, 0, 1, 1], size


def _heading(of: Shown, names: tuple[str, ...]) -> str:
    said = "right" if of.right else "missed" if len(of.guesses.labels) else "no guess"
    return f"{short(names[of.truth.label])}: {said}"


def _picture(arguments: argparse.Namespace, subject: Subject, shown: list[Shown]) -> Path:
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    lines = max(len(of.guesses.labels) for of in shown)
    figure = pictures.figure(4.2 * columns, (3.6 + 0.17 * lines) * rows + 0.4)
    axes = figure.subplots(
        2 * rows, columns, squeeze=False,
        gridspec_kw={"height_ratios": [3.3, 0.17 * lines + 0.1] * rows},
    )  # fmt: skip
    for axis in axes.flat:
        axis.set_axis_off()
    names = subject.data.class_names
    for number, of in enumerate(shown):
        row, column = divmod(number, columns)
        above, below = axes[2 * row, column], axes[2 * row + 1, column]
        _draw_one(above, of)
        above.set_title(_heading(of, names), fontsize=9)
        for place, line in enumerate(_lines(of.guesses, of.truth, names)):
            text = "{}  {}: {}, IoU {}".format(*line)
            below.text(
                0.02, 1 - place / max(lines, 1), text, va="top", fontsize=8,
                color=_STYLES[line[1]][0], weight="bold" if line[1] == "right" else "normal",
            )  # fmt: skip
    figure.legend(
        handles=_legend(), loc="outside lower center", ncols=4, fontsize=9, facecolor="#d5dbe1"
    )
    path = pictures.place_of(arguments.out, subject.workdir, "boxes.png")
    return pictures.save_figure(figure, path)


def _page(
    arguments: argparse.Namespace, subject: Subject, shown: list[Shown], begin: list[str]
) -> Path:
    names = subject.data.class_names
    items = []
    for of in shown:
        height, width = of.pixels.shape[:2]
        figure = pictures.figure(width / 100, height / 100)
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        _draw_one(axes, of)
        pixels = pictures.pixels_of(figure)
        said = _lines(of.guesses, of.truth, names)
        alt = f"{short(names[of.truth.label])}; guesses: " + "; ".join(
            f"{number} {verdict} ({called}, {overlap})" for number, verdict, called, overlap in said
        )
        heading = f"<h3>{escape(_heading(of, names))}</h3>"
        listed = [
            page.text(f"{number}  {verdict}: {called}, IoU {overlap}")
            for number, verdict, called, overlap in said
        ]
        name = page.text(of.name, "soft")
        items.append("\n".join([heading, page.image(pixels, alt), *listed, name]))
    sections = [page.section("images", "Photographs", [page.cards(items)])]
    text = page.page("Boxes", f"Boxes of {first_of(subject)}", begin, sections)
    return page.write(text, pictures.place_of(arguments.out, subject.workdir, "boxes.html"))


def first_of(subject: Subject) -> str:
    """What the guesses are called: the run, or the file."""
    return subject.workdir.resolve().name if subject.workdir is not None else subject.path.name


if __name__ == "__main__":
    command_line.main(__doc__, add_flags, draw, opener, shared=SHARED)
