"""Networks side by side: their sizes, what was published of them, and what came out here.

Nothing is computed by a network: sizes are of its layers (`vision_models.analysis`). Published
errors are those of `configs.papers`.
"""

import csv
import dataclasses
import difflib
import functools
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from flax import nnx

import files
import trained_networks
import vision_models
from configs import papers
from configs.common import ConfigError
from configs.papers import Published
from training import RunError
from vision_models.analysis import Totals, layer_table, totals
from visualization import network_plots
from visualization.pictures import place_of

BATCH = 128  # examples for which memory is stated
_FLOAT = 4  # bytes
_IMAGENET = 1000  # classes


@dataclasses.dataclass(frozen=True)
class Measured:
    """An error that was measured with this project.

    Attributes:
      error: a fraction of 1.
      kind: `top1_error` or `top5_error`.
      data: name of the dataset.
      source: the claim or the trained network that it is of, and over how long a run.
    """

    error: float
    kind: str
    data: str
    source: str


@dataclasses.dataclass(frozen=True)
class Row:
    """A network.

    Attributes:
      network, year: its name, and the year in which its paper came out.
      sizes: of its layers.
      published: config (`alexnet` or `vgg:d`) -> what was published for it.
      ours: what was measured here.
    """

    network: str
    year: int
    sizes: Totals
    published: Mapping[str, Published]
    ours: Sequence[Measured]

    @property
    def paper(self) -> Published | None:
        """The first of what was published."""
        return next(iter(self.published.values()), None)

    @property
    def training_bytes(self) -> int:
        """Weights, gradients and velocities, and all layers' activations and their gradients."""
        sizes = self.sizes
        activations = sizes.activation_bytes + sizes.auxiliary_activation_bytes
        parameters = sizes.parameters + sizes.auxiliary_parameters
        return 3 * _FLOAT * parameters + 2 * BATCH * activations

    @property
    def test_bytes(self) -> int:
        """Weights, and the most activations that are held at once."""
        return _FLOAT * self.sizes.parameters + BATCH * self.sizes.held_bytes

    def fields(self) -> dict[str, Any]:
        """All numbers, flat; errors are fractions of 1."""
        sizes, paper = self.sizes, self.paper
        return {
            "network": self.network,
            "year": self.year,
            "layers": sizes.layers,
            "neurons": sizes.neurons,
            "connections": sizes.connections,
            "parameters": sizes.parameters,
            "multiply_adds": sizes.multiply_adds,
            "batch_size": BATCH,
            "training_bytes": self.training_bytes,
            "test_bytes": self.test_bytes,
            "data": paper.data if paper else None,
            "top1_error": _fraction(paper.top1) if paper else None,
            "top5_error": _fraction(paper.top5) if paper else None,
            "protocol": paper.views if paper else None,
            "source": paper.source if paper else None,
        }


def names(chosen: str | None) -> list[str]:
    """The networks that were asked for, or all for ImageNet; in order of year.

    Args:
      chosen: names with commas between; None for all.

    Raises:
      ConfigError: an unknown network, or none.
    """
    known = vision_models.list_models()
    if chosen is None:
        # A network of two names, such as vgg_d and vgg16, once.
        found = [
            name
            for name in known
            if vision_models.default_options(name)["num_classes"] == _IMAGENET
            and vision_models.name_of(name, {}) == name
        ]
    else:
        found = list(dict.fromkeys(name.strip() for name in chosen.split(",") if name.strip()))
        if not found:
            raise ConfigError(
                f"--networks={chosen}: names none; for example --networks=alexnet,vgg_d"
            )
        for name in found:
            if name not in known:
                plain = name.lower().replace("-", "_")
                near = [other for other in known if other.startswith(plain)][:3]
                near = near or difflib.get_close_matches(plain, known, n=3, cutoff=0.5)
                hint = "did you mean " + ", ".join(near) if near else f"there are {len(known)}: "
                listed = "?" if near else ", ".join(known)
                raise ConfigError(f"--networks: no network {name!r}; {hint}{listed}")
    return sorted(found, key=papers.year)


@functools.cache
def sizes_of(name: str) -> Totals:
    """The sums over a network's layers, at its usual options; allocates nothing."""
    model = nnx.eval_shape(
        lambda: vision_models.create(name, rngs=nnx.Rngs(params=jax.random.key(0)))
    )
    return totals(model, layer_table(model))


def rows(
    chosen: Sequence[str], claimed: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]
) -> list[Row]:
    """The networks of some names.

    Args:
      chosen: their names.
      claimed: (config, variant) -> what the claim of its published error gave: `Measured`'s fields.
    """
    # A network of two names, such as vgg_d and vgg16, has the same errors under both.
    usual = {name: vision_models.name_of(name, {}) for name in chosen}
    published: dict[str, dict[str, Published]] = {name: {} for name in usual.values()}
    ours: dict[str, list[Measured]] = {name: [] for name in usual.values()}
    for (config, variant), paper in papers.PUBLISHED.items():
        name = papers.network_of(config, variant)
        if name in published:
            published[name][f"{config}:{variant}".rstrip(":")] = paper
            ours[name] += (Measured(**told) for told in claimed.get((config, variant), ()))
    for trained in trained_networks.names():
        try:
            card = trained_networks.card(trained)
        except ValueError as fault:
            raise ConfigError(str(fault)) from fault
        if card["network"] in ours:
            error = round(float(card["test_error"]) / 100, 6)
            parameters = int(card["parameters"])
            said = f"trained network {trained}, {parameters:,} parameters"
            found = Measured(error, "top1_error", card["dataset"], said)
            ours[card["network"]].append(found)
    return [
        Row(name, papers.year(name), sizes_of(name), published[usual[name]], ours[usual[name]])
        for name in chosen
    ]


_COLUMNS = (
    *("network", "year", "layers", "neurons", "connections", "parameters", "multiply-adds"),
    *("training", "test", "top-1", "top-5", "protocol", "data"),
)
_TEXTS = ("network", "protocol", "data")


def table(found: Sequence[Row]) -> str:
    """Networks as text, in millions, gigabytes and percent; below it what was measured here."""
    lines = [_COLUMNS, *map(_cells, found)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
    aligned = [
        "  ".join(
            cell.ljust(width) if column in _TEXTS else cell.rjust(width)
            for cell, width, column in zip(line, widths, _COLUMNS, strict=True)
        ).rstrip()
        for line in lines
    ]
    ours = [
        f"  {row.network}: {100 * one.error:.2f}% {_ERROR[one.kind]} on {one.data} ({one.source})"
        for row in found
        for one in row.ours
    ]
    return "\n".join(
        [
            *aligned,
            "",
            "neurons, connections, parameters, multiply-adds: millions, for one image, without "
            "auxiliary classifiers",
            f"training: GB for {BATCH} images in float32: weights, gradients, velocities; "
            "activations and their gradients",
            "test: GB for as many: weights, and the activations that are held at once",
            "top-1, top-5: published errors of one network in %, by the protocol named",
            *(["measured here:", *ours] if ours else ["measured here: none of these"]),
        ]
    )


_ERROR = {"top1_error": "top-1 error", "top5_error": "top-5 error"}


def _cells(row: Row) -> tuple[str, ...]:
    sizes, paper = row.sizes, row.paper
    return (
        row.network,
        str(row.year),
        str(sizes.layers),
        *(
            f"{number / 1e6:,.2f}" if number < 1e9 else f"{number / 1e6:,.0f}"
            for number in (sizes.neurons, sizes.connections, sizes.parameters, sizes.multiply_adds)
        ),
        *(f"{number / 1e9:.2f}" for number in (row.training_bytes, row.test_bytes)),
        *(
            "-" if error is None else f"{error:.2f}"
            for error in ((paper.top1, paper.top5) if paper else (None, None))
        ),
        paper.views if paper else "-",
        paper.data if paper else "-",
    )


def _fraction(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, 6)


def as_csv(found: Sequence[Row]) -> str:
    """A line for each network; what was measured here in one cell."""
    text = io.StringIO()

    def measured(row: Row) -> str:
        return "; ".join(f"{one.kind} {one.error:g} {one.data} {one.source}" for one in row.ours)

    fields = [row.fields() | {"ours": measured(row)} for row in found]
    writer = csv.DictWriter(text, list(fields[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(fields)
    return text.getvalue()


def as_json(found: Sequence[Row]) -> str:
    """A list of objects, with all that was published and measured."""
    told = [
        row.fields()
        | {
            "published": [
                {"config": config, "data": paper.data, "top1_error": _fraction(paper.top1),
                 "top5_error": _fraction(paper.top5), "protocol": paper.views,
                 "source": paper.source}
                for config, paper in row.published.items()
            ],
            "ours": [dataclasses.asdict(one) for one in row.ours],
        }
        for row in found
    ]  # fmt: skip
    return json.dumps(told, indent=1) + "\n"


def compare(flags: Any, claimed: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]) -> None:
    """Prints the table of networks; writes the files that are asked for and prints their paths.

    Args:
      flags: `networks` as for `names`; `csv` and `json`, files for all numbers; `out`, a
        directory for plots, which `picture` alone asks for in `pictures`.
      claimed: see `rows`.

    Raises:
      ConfigError: an unknown network, or one file for both.
      RunError: a file cannot be written.
    """
    chosen = names(flags.networks)
    if flags.csv and flags.json and Path(flags.csv).resolve() == Path(flags.json).resolve():
        raise ConfigError(f"--csv and --json are both {flags.csv}: give each a file of its own")
    written = [
        (_place(flag, path), text)
        for flag, path, text in (("csv", flags.csv, as_csv), ("json", flags.json, as_json))
        if path
    ]
    directory = flags.out or ("pictures" if flags.picture else None)
    directory = directory and place_of(directory, None, "")
    found = rows(chosen, claimed)
    print(table(found), flush=True)
    for path, text in written:
        _write(path, text(found))
        print(path, flush=True)
    if directory:
        for path in network_plots.draw(_points(found), directory):
            print(path, flush=True)


def _points(found: Sequence[Row]) -> list[network_plots.Point]:
    return [
        network_plots.Point(
            row.network, row.sizes.multiply_adds, row.sizes.parameters, paper.data, paper.views,
            paper.top1, paper.top5,
        )
        for row in found
        if (paper := row.paper)
    ]  # fmt: skip


def _place(flag: str, path: str) -> Path:
    """The path of a file to write, after its directory has been found or made, and written to.

    Raises:
      RunError: it cannot be written.
    """
    if Path(path).is_dir():
        raise RunError(f"{path}: is a directory; name a file with --{flag}")
    return place_of(str(Path(path).parent), None, Path(path).name, flag=flag)


def _write(path: Path, text: str) -> None:
    try:
        with files.replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> RunError:
    return RunError(f"{path}: cannot be written ({error.strerror})")
