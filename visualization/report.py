"""One page that shows a run: report.html, which needs no network and no other file.

Curves of loss and error with the published error as a line, the learning rate, evaluations, the
first kernels, guesses, the mistakes that the network is surest of, a confusion matrix, the layers,
the config with what was overridden first, and the environment. What a run does not have, or not
yet, is named on the page and on the screen, and the rest is shown.

Guesses, mistakes and the confusion matrix are of the newest file of scores of the run, where
`--mode=evaluate --config.evaluation.save_scores=True` wrote one (of `--split` and `--checkpoint`,
if these are given), else of `--limit` images drawn at random, of which the central crop is seen.
"""

import argparse
import shlex
from collections.abc import Callable, Generator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import jax
from flax import nnx

import vision_models
from configs.common import ConfigError
from evaluation.localization import regression
from training.workdir import flat_fields
from training.writers import ERRORS
from vision_models.analysis import COLUMNS, cells, layer_table
from visualization import command_line, curves, guessed, kernels, page, records
from visualization.command_line import positive
from visualization.curves import Series
from visualization.guessed import Run
from visualization.page import count, json_text, loss, percent
from visualization.pictures import place_of
from visualization.records import Line, Record

opener = records.open_record

_NO_CONFIG = "there is no config.json, or it is empty"
_ROWS = 100  # of a table of metrics, at most
_LAYERS = 30  # rows of a table that is shown at once

SHARED = ("checkpoint", *command_line.DATA)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument(
        "--limit", type=positive, default=2000, help="Images that are guessed, drawn at random."
    )
    command_line.add_seed(parser, "Of the random choices.")


Maker = Callable[[Run], list[str]]


def _charts(run: Run) -> list[str]:
    """Loss, errors, learning rate and speed against epochs, and the numbers."""
    record = run.record
    if not record.metrics:
        raise ConfigError("metrics.jsonl has no line yet")
    drawn, absent = charts(record)
    said = f"{', '.join(absent)}: metrics.jsonl has no number of it"
    if absent:
        print(f"without {said}", flush=True)
    gap = page.gap(f"{said}.") if absent else ""
    return ["\n".join(['<div class="charts">', *drawn, "</div>"]), gap, *numbers(record)]


def charts(record: Record) -> tuple[list[str], list[str]]:
    """The charts of a run, and the names of curves whose lines have no number."""
    paper, absent = record.published, []
    published = {"top1_error": paper.top1, "top5_error": paper.top5} if paper else {}

    def drawn(title: str, series: list[Series], **options: Any) -> str:
        for of in series:
            if of.points and not any(y is not None for _, y in of.points):
                absent.append(f"{title} ({of.name})" if of.name else title)
        return curves.chart(title, series, x="epoch", **options)

    def pair(metric: str) -> list[Series]:
        return [
            Series("training", record.points("train", metric), 0, thin=True),
            Series("validation", record.points("validation", metric), 1, marks=True),
        ]

    def error(metric: str) -> str:
        height = published.get(metric)
        level = None
        if paper is not None and height is not None:
            level = f"{paper.views}, {paper.source}", height
        return drawn(_title(metric), pair(metric), unit="%", level=level)

    few = record.classes is not None and record.classes <= 10
    made = [
        drawn("Loss", pair("loss")),
        error(record.watched),
        "" if few else error("top5_error"),
        drawn(
            "Learning rate",
            [Series("", record.points("train", "learning_rate"), 2)],
            logarithmic=True, steps=True,
        ),
        drawn(
            "Images per second, in training",
            [Series("", record.points("train", "images_per_second"), 6)],
        ),
    ]  # fmt: skip
    return list(filter(None, made)), absent


def _title(metric: str) -> str:
    """An error's name as a heading."""
    return ERRORS[metric].capitalize()


def _errors_in(lines: Sequence[Line]) -> list[str]:
    """The errors that some line has; top-1 where none has any."""
    return [name for name in ERRORS if any(name in line for line in lines)] or ["top1_error"]


def numbers(record: Record) -> list[str]:
    """The numbers of the curves, in a table that opens: at the evaluations, else at every line."""
    split = "validation" if record.lines("validation") else "train"
    lines = record.lines(split)
    every = -(-len(lines) // _ROWS)
    few = lines[::-1][::every][::-1]  # the last among them
    errors = _errors_in(lines)
    columns = ["step", "epoch", "loss", *(ERRORS[name] for name in errors), "learning rate"]
    rows = [
        [
            f"{line['step']:,}",
            curves.number(line.get("epoch")),
            loss(line.get("loss")),
            *(percent(line.get(name)) for name in errors),
            curves.number(line.get("learning_rate")),
        ]
        for line in few
    ]
    some = "" if every == 1 else f", one line in {every}"
    caption = f"{split}, from metrics.jsonl{some}"
    made = page.table(caption, columns, rows, numbers=range(len(columns)))
    return [page.details("The numbers", made)]


def _evaluations(run: Run) -> list[str]:
    """What --mode=evaluate measured, and what was published."""
    record = run.record
    errors = _errors_in(record.evaluations)
    rows = [
        [
            str(line.get("split", "")),
            *(percent(line.get(name)) for name in errors),
            loss(line.get("loss")),
            str(line.get("protocol", "")),
            count(line.get("examples")),
            str(line.get("checkpoint", "")),
        ]
        for line in record.evaluations
    ]
    if not rows:
        raise ConfigError("--mode=evaluate has not been run here")
    if paper := record.published:
        known = {"top1_error": paper.top1, "top5_error": paper.top5}
        heights = [known.get(name) for name in errors]
        error = [f"{height:.2f}%" if height is not None else "-" for height in heights]
        rows.append([f"published: {paper.source}", *error, "", paper.views, "", ""])
    # What matters comes first: on a telephone the others are beyond the edge.
    columns = ["split", *(ERRORS[n] for n in errors), "loss", "protocol", "images", "checkpoint"]
    number = [n for n, name in enumerate(columns) if name not in ("split", "protocol")]
    made = page.table("evaluations.jsonl", columns, rows, numbers=number, long=(0,))
    return [made]


def _kernels(run: Run) -> list[str]:
    """The first layer's kernels."""
    opened = run.opened
    first = kernels.first_kernels(opened.trained.params, opened.layers)
    towers, maps, height, width, channels = first.shape
    said = f"{towers * maps} kernels of {height} x {width} x {channels}" + (
        f", in {towers} towers, one block above the other" if towers > 1 else ""
    )
    caption = f"{said}; step {opened.trained.step:,}. Black is the lowest value, white the highest."
    # An image a tower, between which the page is seen, light or dark.
    images = [
        page.image(
            block,
            f"First-layer kernels{f' of tower {number}' * (towers > 1)}, step "
            f"{opened.trained.step}: {maps} of {height} x {width} x {channels}.",
        )
        for number, block in enumerate(kernels.blocks(first), 1)
    ]
    return [
        f'<figure class="below">{"".join(images)}'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    ]


def _layers(run: Run) -> list[str]:
    """The table of layers, with totals."""
    options = dict(run.record.config.get("model") or {})
    name = options.pop("name", None)
    if name is None:
        raise ConfigError("config.json names no network" if run.record.config else _NO_CONFIG)
    boxes = run.record.config.get("loss", {}).get("boxes", "none")
    classes = run.record.classes
    if classes is None:
        classes = run.opened.trained.num_classes
    elif boxes != "none":
        classes = regression.outputs(boxes, classes)
    options["num_classes"] = classes
    try:
        model = nnx.eval_shape(
            lambda: vision_models.create(name, rngs=nnx.Rngs(jax.random.key(0)), **options)
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    rows = layer_table(model)
    main = [row for row in rows if not row.auxiliary]
    said = (
        f"{sum(row.parameters for row in main):,} parameters, "
        f"{sum(row.multiply_adds for row in main):,} multiply-adds for an image of "
        f"{model.image_size} x {model.image_size} pixels"
    )
    if len(main) < len(rows):
        said += f"; auxiliary classifiers: {sum(r.parameters for r in rows if r.auxiliary):,} more"
    caption = "window is size/stride; sees is the receptive field in pixels"
    made = page.table(
        caption, COLUMNS, [cells(row) for row in rows], numbers=range(4, len(COLUMNS))
    )
    few = len(rows) <= _LAYERS
    return [page.text(f"{said}.", "soft"), made if few else page.details("The layers", made)]


def _config(run: Run) -> list[str]:
    """What was overridden, and the whole config."""
    record = run.record
    if not record.config:
        raise ConfigError(_NO_CONFIG)
    overridden = [[field, json_text(value)] for field, value in record.overridden.items()]
    whole = [[field, json_text(value)] for field, value in flat_fields(record.config).items()]
    columns = ["field", "value"]
    name, variant = record.source
    source = f"configs/{name}.py{f':{variant}' * bool(variant)}" if name else "an unknown config"
    return [
        page.table(f"overridden, of {source}", columns, overridden, long=(0, 1))
        if overridden
        else page.text(f"Nothing was overridden of {source}."),
        page.details("The whole config", page.table("config.json", columns, whole, long=(0, 1))),
    ]


def _command(words: Sequence[object]) -> str:
    """A command as a shell reads it, a line for each flag."""
    return " \\\n    ".join(shlex.quote(str(word)) for word in words)


def _environment(run: Run) -> list[str]:
    """Versions, machine, commit and command."""
    found = dict(run.record.environment)
    if not found:
        raise ConfigError("there is no config.json that tells it")
    command = found.pop("command", None)
    rows = [[field, json_text(value)] for field, value in flat_fields(found).items()]
    absent = [
        what
        for what, key in (("the machine", "machine"), ("the git commit", "git_commit"))
        if key not in found
    ]
    return [
        page.table("as the run was last started", ["", ""], rows, long=(0, 1)),
        page.gap(f"{' and '.join(absent)}, which this run did not record.") if absent else "",
        f'<h3>Command</h3>\n<pre tabindex="0">{escape(_command(command))}</pre>' if command else "",
    ]


_SECTIONS: list[tuple[str, str, Maker]] = [
    ("curves", "Curves", _charts),
    ("evaluations", "Evaluations", _evaluations),
    ("kernels", "First kernels", _kernels),
    ("guesses", "Guesses", guessed.guesses),
    ("mistakes", "Mistakes", guessed.mistakes),
    ("confusion", "Confusion", guessed.confusion),
    ("layers", "Layers", _layers),
    ("config", "Config", _config),
    ("environment", "Environment", _environment),
]


def headline(record: Record) -> list[tuple[str, str, str]]:
    """The facts at the top: (name, value, remark) each."""
    total, step = record.total, record.step
    entries = [("steps", f"{step:,}", f"of {total:,}" if total else "")]
    for title, split in (("training error", "train"), ("validation error", "validation")):
        if lines := record.lines(split):
            epoch = curves.number(lines[-1].get("epoch"))
            entries.append((title, percent(lines[-1].get(record.watched)), f"epoch {epoch}"))
    if best := record.best():
        epoch = curves.number(best.get("epoch"))
        entries.append(("best validation", percent(best[record.watched]), f"epoch {epoch}"))
    if record.evaluations:
        last = record.evaluations[-1]
        said = f"{last.get('protocol')}, checkpoint {last.get('checkpoint')}"
        entries.append((f"evaluated, {last.get('split')}", percent(last.get(record.watched)), said))
    if paper := record.published:
        entries.append(("published", *records.published_words(paper)))
    return entries


def draw(arguments: argparse.Namespace, record: Record) -> Generator[Path, None, None]:
    """Writes report.html."""
    path = place_of(arguments.out, record.workdir, "report.html")
    run, sections = Run(arguments, record), []
    gaps: dict[str, list[str]] = {}
    run.check_flags()
    for name, title, make in _SECTIONS:
        try:
            parts = make(run)
        except Exception as error:
            said = command_line.in_flags(error)
            if said is None:
                raise
            parts = [page.gap(f"{said}.")]
            gaps.setdefault(str(said), []).append(f'<a href="#{name}">{title}</a>')
            print(f"without {title.lower()}: {said}", flush=True)
        sections.append(page.section(name, title, parts))
    kind, sentence = record.state()
    written = record.written()
    begin = [
        f'<p class="state {kind}" role="status">{escape(sentence)}</p>',
        page.text(
            f"{record.workdir.resolve().name}" + (f", last line of {written}" if written else ""),
            "soft",
        ),
        page.facts(headline(record)),
    ]
    if gaps:
        items = [f"<li>{', '.join(links)}: {escape(said)}</li>" for said, links in gaps.items()]
        begin += ['<div class="gaps">Not on this page:\n<ul>', *items, "</ul></div>"]
    heading = f"{record.network} on {record.data}"
    yield page.write(page.page(f"{heading}: a run", heading, begin, sections), path)


if __name__ == "__main__":
    command_line.main(__doc__, add_flags, draw, opener, shared=SHARED)
