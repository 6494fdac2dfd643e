"""What pictures are made of: a trained network as a function, and images as it sees them."""

import argparse
import dataclasses
import difflib
import functools
import itertools
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

import input_pipeline
import training
from configs.common import ConfigError, config_of
from devices.xla import keep_compiled
from evaluation.preprocessing import view_input
from evaluation.protocols import Crops, Look
from input_pipeline import Data, DataError
from input_pipeline.batches import Batch
from input_pipeline.sources import subset
from training import Trained, TrainingError
from training.workdir import is_directory, saved_config, steps_in
from vision_models.analysis import activation_shapes, layer_table
from vision_models.network import Auxiliary, Network
from visualization.pictures import place_of
from visualization.weights import central_look, network_of, open_trained

# Stands for all splits together where a split can be named.
ALL = "all"
# Fields of `data` that say how images are read, not which.
_READING = (
    *("resize", "pad", "crop", "mean", "mean_values", "deviation", "augment"),
    *("decode", "unreadable", "threads", "cache_dir"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """A trained network to look into, on one device.

    Attributes:
      trained: what was opened.
      arguments: the command line, parsed.
      workdir: the run's directory; None for a file.
    """

    trained: Trained
    arguments: argparse.Namespace
    workdir: Path | None

    @functools.cached_property
    def model(self) -> Network:
        """The network with its weights.

        Raises:
          TrainingError: the weights do not fit the options, or do not cover every parameter.
        """
        return network_of(self.trained)

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every layer's activations for one image, in order: maps or features.

        Auxiliary classifiers are left out: their input passes through outside training.
        """
        found = activation_shapes(self.model)
        auxiliary = {n for n in found if isinstance(getattr(self.model, n, None), Auxiliary)}
        return {name: shape for name, shape in found.items() if name not in auxiliary}

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in order."""
        return tuple(self.shapes)

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """Name of each logit's class: a number where nothing is known.

        Raises:
          TrainingError: the network gives boxes, not classes.
        """
        training.check_classifier(self.trained)
        return training.class_names_of(self.trained)

    def named_classes(self) -> tuple[str, ...]:
        """Name of each logit's class, of the dataset where the network has none.

        Raises:
          ConfigError, DataError: see `data`.
          TrainingError: the network was trained on other classes, or gives boxes.
        """
        training.check_classifier(self.trained)
        names = self.data().class_names
        training.check_trained(self.trained, names)
        return self.class_names if self.trained.class_names is not None else tuple(names)

    @functools.cached_property
    def look(self) -> Look:
        """The central crop, with the preprocessing that the network was trained with.

        Raises:
          TrainingError: the network's preprocessing is unknown.
        """
        if self.trained.preprocessing is None or self.trained.normalization is None:
            what = "normalization" if self.trained.preprocessing else "preprocessing"
            raise TrainingError(
                f"{self.trained.source} does not say the {what} of its images: name a config that "
                "does, with --config and, for the normalisation, --config.init_preprocessing"
            )
        return central_look(self.trained.preprocessing)

    @functools.cached_property
    def view(self) -> np.ndarray:
        """Row and column where the crop begins in its square, and 0: int32 [3]."""
        (crops,) = self.look.views
        assert isinstance(crops, Crops)
        square = self.look.images.square
        return np.append(crops.offsets(square, square)[0], 0).astype(np.int32)

    def layer(self, name: str, *, maps: bool = False, flag: str = "layer") -> str:
        """The name of a layer, once it has been looked up.

        Args:
          name: as in `layers`.
          maps: the layer must make maps, not features.
          flag: the flag that named it, for messages.

        Raises:
          ConfigError: no layer has this name, or it makes no maps; the message lists the choices.
        """
        able = [n for n, shape in self.shapes.items() if not maps or len(shape) == 3]
        if name in able:
            return name
        fault = "makes no maps" if name in self.shapes else "no such layer"
        inner = [n for n in able if "/" in n]
        shown = ", ".join(n for n in able if n not in inner)
        parts = f", and parts of them such as {inner[0]}" if inner else ""
        near = difflib.get_close_matches(name, able, n=1) if name not in self.shapes else []
        hint = f"did you mean {near[0]}? " if near else ""
        there = f"there are {shown}{parts}" if able else "no layer of this network makes maps"
        raise ConfigError(f"--{flag}={name}: {fault}; {hint}{there}")

    @functools.cached_property
    def inputs(self) -> Callable[[np.ndarray], Array]:
        """Crops and normalises: uint8 [B, square, square, 3] -> float32 [B, crop, crop, 3].

        Raises:
          TrainingError: the network's preprocessing is unknown.
        """
        preprocessing = self.trained.preprocessing
        found = training.normalization_for(self.trained, self.look.images.square)
        assert preprocessing is not None
        assert found is not None
        expected = {name: jnp.asarray(value) for name, value in found.items()}
        view = jnp.asarray(self.view)

        @jax.jit
        def see(images: Array) -> Array:
            return view_input(
                images,
                expected,
                view,
                size=preprocessing.crop,
                aligned=preprocessing.aligned_mean,
                dtype="float32",
            )

        return lambda images: see(jnp.asarray(images))

    def shown(self, images: np.ndarray) -> np.ndarray:
        """uint8 [B, square, square, 3] -> their central crops, uint8 [B, crop, crop, 3]."""
        assert self.trained.preprocessing is not None
        y, x, _ = self.view
        crop = self.trained.preprocessing.crop
        return images[:, y : y + crop, x : x + crop]

    def recorder(self, layers: Sequence[str]) -> Callable[[Array], tuple[Array, dict[str, Array]]]:
        """A compiled function: network inputs -> logits, and activations by layer.

        Args:
          layers: layers whose activations are returned, as in `self.layers`.
        """
        return self._recorders(tuple(layers))

    @functools.cached_property
    def _recorders(self) -> Callable[[tuple[str, ...]], Any]:
        graph, state = nnx.split(self.model)

        @functools.cache  # so that each set of layers is compiled once
        def recorder(layers: tuple[str, ...]) -> Any:
            @jax.jit
            def run(state: Any, images: Array) -> tuple[Array, dict[str, Array]]:
                record: dict[str, Array] = {}
                logits = nnx.merge(graph, state)(images, record=record)
                return logits, {name: record[name] for name in layers}

            return functools.partial(run, state)

        return recorder

    def recorded(
        self, layers: Sequence[str], squares: Iterable[np.ndarray]
    ) -> Generator[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]], None, None]:
        """Yields any number of images with their logits and activations, batch by batch.

        Args:
          layers: see `recorder`.
          squares: uint8 [square, square, 3] each; see `square`.

        Yields:
          Images, uint8 [b, square, square, 3]; logits, float32 [b, classes]; and by layer the
          activations, float32 [b, ...]. b is the batch size; the last batch may be smaller.
        """
        run, coming = self.recorder(layers), iter(squares)
        while batch := list(itertools.islice(coming, self.arguments.batch_size)):
            more = self.arguments.batch_size - len(batch)  # padded, so that one shape is compiled
            images = np.stack(batch + more * batch[-1:])
            logits, found = run(self.inputs(images))
            kept = {n: np.asarray(v[: len(batch)], np.float32) for n, v in found.items()}
            yield images[: len(batch)], np.asarray(logits[: len(batch)]), kept

    def data(self, only: str | None = None) -> Data:
        """The dataset: the run's own, or that of --data_name and --data_dir; without its boxes.

        Args:
          only: the split to open; `ALL` for every split; None for --split, or else the split that
            results are reported on.

        Raises:
          ConfigError: no dataset is named.
          DataError: it cannot be opened.
        """
        arguments, own = self.arguments, self._data_fields()
        named = arguments.data_name or own.get("name")
        if not named:
            raise ConfigError(
                f"{self.trained.source} names no dataset; name one with --data_name=NAME "
                "and --data_dir=DIR (--data_name=digits needs no directory)"
            )
        other = named != own.get("name")
        if other:  # of the run's own dataset only how its images are read
            own = {name: value for name, value in own.items() if name in _READING}
        if other or arguments.data_dir:
            own |= {"name": named, "dir": arguments.data_dir, "prepared_dir": None}
        fields = config_of({"data": own}).data
        split = only or arguments.split or input_pipeline.REPORTED
        return input_pipeline.open_data(
            fields,
            input_pipeline.cache_dir_of(fields),
            only=None if split == ALL else split,
            class_names=None if other else self.trained.class_names,
        ).without_boxes()

    def data_dir(self) -> str:
        """The directory of `data` as it was given; "" where there is none."""
        asked, own = self.arguments, self._data_fields()
        other = asked.data_dir or asked.data_name not in (None, own.get("name"))
        return str((asked.data_dir if other else own.get("dir")) or "")

    def _data_fields(self) -> dict[str, Any]:
        if self.arguments.config is not None:
            return self.arguments.config.data.to_dict()
        try:
            if self.workdir is not None:
                return dict(saved_config(self.workdir)["config"]["data"])
        except (LookupError, FileNotFoundError):
            pass
        return training.data_fields(self.trained)

    def images(
        self,
        limit: int | None = None,
        *,
        only: str | None = None,
        seed: int | None = None,
        chosen: np.ndarray | None = None,
    ) -> Generator[Batch, None, None]:
        """A dataset's images, batch by batch.

        Args:
          limit: number of images, from the first on; None for all.
          only: see `data`.
          seed: seed of a random order; None for the dataset's order.
          chosen: indices of the images to yield, in this order; None for all.

        Yields:
          `image` uint8 [b, square, square, 3], `label` int32 [b], `index` int64 [b] in the split.
          b is the batch size; the last batch may be smaller. Unreadable images are left out.

        Raises:
          ConfigError, DataError: see `data`.
        """
        data = self.data(only)
        split = only or self.arguments.split or data.evaluation_split
        examples = data.examples(split)
        if chosen is None:
            chosen = np.arange(examples.count)
            if seed is not None:
                chosen = np.random.default_rng(seed).permutation(examples.count)
        left = len(chosen) if limit is None else limit
        part = dataclasses.replace(data.dataset, splits={split: subset(examples, chosen)})
        size = min(self.arguments.batch_size, max(left, 1), len(chosen))
        stream = dataclasses.replace(data, dataset=part).evaluation(
            split, self.look.images, batch_size=size
        )
        for batch in stream:
            there = batch["mask"] > 0
            found = {name: batch[name][there][:left] for name in ("image", "label", "index")}
            found["index"] = chosen[found["index"]]
            left -= len(found["label"])
            if len(found["label"]):
                yield found
            if left <= 0:
                return

    def content(self, only: str | None = None) -> bytes | np.ndarray:
        """The image of --image, or else the dataset's image at --index; see `labelled`."""
        return self.labelled(only)[0]

    def labelled(self, only: str | None = None) -> tuple[bytes | np.ndarray, int]:
        """The image of --image, or else the dataset's image at --index, and its label.

        Args:
          only: see `data`.

        Returns:
          Bytes of a file, or uint8 [h, w, 3]; and the label, -1 where there is none.

        Raises:
          ConfigError, DataError: there is no such image, or it cannot be read.
        """
        path, index = self.arguments.image, self.arguments.index
        if path:
            found = input_pipeline.find_photographs(path)
            if len(found) != 1:
                raise DataError(f"--image={path}: {len(found)} images are there; name one")
            return input_pipeline.read_photograph(found[0]), -1
        data = self.data(only)
        examples = data.examples(only or self.arguments.split or data.evaluation_split)
        if not 0 <= index < examples.count:
            raise ConfigError(f"--index={index}: images are numbered 0 to {examples.count - 1}")
        return examples.read(index)

    def square(self, content: bytes | np.ndarray) -> np.ndarray:
        """Rescales an image for the network's central crop: uint8 [square, square, 3].

        Args:
          content: bytes of a file, or uint8 [h, w, 3].

        Raises:
          DataError: the image cannot be decoded.
        """
        name = self.arguments.image or f"image {self.arguments.index}"
        return input_pipeline.pixels_of(content, self.look.images, name)

    @functools.cached_property
    def first_trained(self) -> str:
        """The first layer that has parameters, such as conv1."""
        return next(row.name for row in layer_table(self.model) if row.parameters)

    def towers(self, layer: str) -> int:
        """The number of towers that a layer's maps or features belong to, each an equal share."""
        begin, end = (self.layers.index(n) for n in (self.first_trained, self.model.heads[0]))
        return self.model.towers if layer in self.layers[begin:end] else 1

    @functools.cached_property
    def last_hidden(self) -> str:
        """The layer whose features the classifier reads, such as fc7.

        Raises:
          ConfigError: the classifier reads the image itself.
        """
        kinds, head = {row.name: row.kind for row in layer_table(self.model)}, self.model.heads[0]
        before = self.layers[: self.layers.index(head)]
        passing = ("Dropout", "Exchange", "Activation")
        found = [name for name in before if kinds.get(name) not in passing]
        if not found:
            raise ConfigError(
                f"{self.trained.source}: no hidden layer, for {head} reads the image itself; name "
                f"a layer, such as {head}"
            )
        return found[-1]

    def activations(
        self, layers: Sequence[str], **which: Any
    ) -> Generator[tuple[dict[str, np.ndarray], Batch], None, None]:
        """Yields activations by layer, float32 [b, ...], with the images, batch by batch.

        Args:
          layers: as in `self.layers`.
          which: see `images`.
        """
        run = self.recorder(layers)
        for batch in self.images(**which):
            images = batch["image"]
            # Padded, so that one shape is compiled.
            more = self.arguments.batch_size - len(images)
            _, found = run(self.inputs(np.pad(images, [(0, more), (0, 0), (0, 0), (0, 0)])))
            yield {n: np.asarray(v, np.float32)[: len(images)] for n, v in found.items()}, batch

    def features(self, layer: str, **which: Any) -> Generator[tuple[np.ndarray, Batch], None, None]:
        """Yields a layer's features, float32 [b, features], with the images, batch by batch.

        Args:
          layer: as in `layers`.
          which: see `images`.
        """
        for found, batch in self.activations([layer], **which):
            yield found[layer].reshape(len(found[layer]), -1), batch

    def out(self, name: str, directory: str = "pictures") -> Path:
        """See `pictures.place_of`."""
        return place_of(self.arguments.out, self.workdir, name, directory)

    def states(self) -> Generator["Opened", None, None]:
        """Yields the run at each of its checkpoints, oldest first; for a file, the file alone.

        Raises:
          ConfigError, DataError, TrainingError: a checkpoint cannot be opened.
        """
        if self.workdir is None:
            yield self
            return
        network, config = self.arguments.network, self.arguments.config
        for step in steps_in(self.workdir / "checkpoints"):
            trained = open_trained(self.workdir, network, config, str(step))
            yield dataclasses.replace(self, trained=trained)

    @property
    def when(self) -> str:
        """The checkpoint's step in words; `weights` for a file."""
        return "weights" if self.trained.step is None else f"step {self.trained.step}"


def open_run_or_file(arguments: argparse.Namespace) -> Opened:
    """Opens the run or the weights file that the command line names.

    Raises:
      ConfigError, DataError, TrainingError: it cannot be opened.
    """
    keep_compiled(input_pipeline.default_cache_dir() / "compiled")
    path = Path(arguments.run)
    trained = open_trained(path, arguments.network, arguments.config, arguments.checkpoint)
    return Opened(trained, arguments, path if is_directory(path) else None)
