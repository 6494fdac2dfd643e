"""Networks as named layers in order, and a builder that tracks the size of their maps.

net = Builder(image_size=32, rngs=rngs)
net.head("fc", num_classes)
model = net.network()
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx
from jax import Array

from vision_models import layers, modules, pooling, together, towers
from vision_models.forward import WHOLE_BATCH, Activations, BatchStatistics, Pass, Window, sides
from vision_models.layers import Initializer
from vision_models.pooling import Padding


class Sequential(nnx.Module):
    """Layers applied one after another; each is an attribute under its name."""

    def __init__(self, by_name: Mapping[str, Any]):
        """`by_name` are layers (see `vision_models.modules`), in order."""
        self.names = tuple(by_name)
        for name, layer in by_name.items():
            setattr(self, name, layer)

    def run(self, x: Activations, run: Pass, path: str = "", first: int = 0) -> Activations:
        """Applies the layers, from the one numbered `first`; records them under `path`."""
        names = list(self.names[first:])
        while names:
            layer, name = getattr(self, names[0]), names.pop(0)
            whole = f"{path}/{name}" if path else name
            taken = together.with_next(layer, getattr(self, names[0]), run) if names else {}
            with jax.named_scope(name):
                x = layer(x, run, whole, **taken)
            run.note(whole, x)
            names = names[1:] if taken else names
        return x


class Branches(Sequential):
    """Sequences of layers that all read the same input, and whose outputs are joined.

    `join`: `concatenate` (along the maps, as in Inception modules) or `add` (residual blocks).
    """

    def __init__(self, by_name: Mapping[str, Sequential], join: str):
        """`by_name` are the branches, in the order of their maps."""
        super().__init__(by_name)
        self.join = join

    def __call__(self, x: Array, run: Pass, path: str) -> Array:
        """[B, H, W, C] -> [B, H', W', C']."""
        branches = {name: getattr(self, name) for name in self.names}
        heads = {name: getattr(b, b.names[0]) for name, b in branches.items() if b.names}
        begun, outputs, valid = together.of_same_maps(heads, x, run), [], run.valid
        for name, branch in branches.items():
            run.valid = valid
            start, first = (begun[name], 1) if name in begun else (x, 0)
            with jax.named_scope(name):
                outputs.append(branch.run(start, run, f"{path}/{name}", first))
        if self.join == "concatenate":
            return layers.concatenated(outputs)
        return sum(outputs[1:], outputs[0])


class Block(Sequential):
    """Layers grouped under a name."""

    def __call__(self, x: Activations, run: Pass, path: str) -> Activations:
        """Applies the layers."""
        return self.run(x, run, path)


class Auxiliary(Sequential):
    """An auxiliary classifier, which runs in training only; its input passes through."""

    def __call__(self, x: Array, run: Pass, path: str) -> Array:
        """[B, H, W, C] -> the input itself."""
        if run.training and run.auxiliary is not None:
            logits = self.run(x, run, path)
            assert not isinstance(logits, list), "auxiliary classifiers have no towers"
            run.auxiliary[path] = layers.widened(logits)
        return x


class Network(Sequential):
    """A whole network.

    Attributes:
      image_size: side in pixels of the square images that it was built for.
      num_classes: number of logits.
      heads: paths of its classifiers, the main one first.
      towers: number of towers; 1 for most networks.
    """

    def __init__(
        self,
        by_name: Mapping[str, Any],
        *,
        image_size: int,
        num_classes: int,
        heads: tuple[str, ...],
        towers: int,
    ):
        """Made by `Builder.network`."""
        super().__init__(by_name)
        self.image_size, self.num_classes = image_size, num_classes
        self.heads, self.towers = heads, towers

    def __call__(
        self,
        images: Array,
        *,
        dropout_keys: Array | None = None,
        statistics: BatchStatistics = WHOLE_BATCH,
        record: dict[str, Array] | None = None,
        auxiliary: dict[str, Array] | None = None,
    ) -> Array:
        """Scores of a batch of images.

        Args:
          images: [batch, image_size, image_size, 3], floating, normalised as the network
            was trained. Their dtype is the dtype of the computation.
          dropout_keys: one random key per example, [batch], in training; None in
            evaluation.
          statistics, record, auxiliary: see `vision_models.forward.Pass`.

        Returns:
          Logits [batch, num_classes], float32; [batch, H', W', num_classes] where fully
          connected layers have been turned into convolutions.
        """
        run = Pass(dropout_keys, statistics, record, auxiliary)
        logits = self.run(images, run)
        assert not isinstance(logits, list), "towers end in a head that sums them"
        return layers.widened(logits)


class Builder:
    """Collects layers and tracks the shape of the maps between them.

    Methods that add a layer raise ValueError for sizes that it cannot have.

    Attributes:
      height, width, channels: shape of the maps that the next layer reads; with towers,
        of those that one tower's layer reads.
    """

    def __init__(
        self,
        image_size: int,
        *,
        rngs: nnx.Rngs,
        channels: int = 3,
        init: Initializer | None = None,
        neuron: str = "relu",
        bias: float = 0.0,
        towers: int = 1,
    ):
        """Starts from images.

        Args:
          image_size: side of the square images in pixels.
          rngs: stream `params` draws the parameters.
          channels: of the images.
          init, neuron, bias: defaults of the layers; `init` None is He's initialiser.
          towers: number of towers that convolutions and hidden layers are cut into.

        Raises:
          ValueError: an unknown neuron, or an `image_size` below 1.
        """
        layers.neuron(neuron)
        if image_size < 1:
            raise ValueError(f"image_size={image_size}: at least 1")
        self.image_size, self.rngs, self.towers = image_size, rngs, towers
        self.init = init or layers.initializer("he")
        self.neuron, self.bias = neuron, bias
        self.height = self.width = image_size
        self.channels = channels
        self.flat = False  # whether the maps have become features
        self.shared = True  # whether every tower reads the maps of all towers
        self.by_name: dict[str, Any] = {}
        self.heads: list[str] = []
        self.num_classes = 0

    def add(self, name: str, layer: Any) -> None:
        """Appends a layer that keeps the shape."""
        if name in self.by_name:
            raise ValueError(f"two layers are called {name}")
        self.by_name[name] = layer

    def custom(self, name: str, layer: Any, channels: int) -> None:
        """Appends a layer that slides a window (`window`, `stride`, `padding`)."""
        self.add(name, layer)
        self._slide(name, layer.window, layer.stride, layer.padding)
        self._made(channels)

    def conv(
        self,
        name: str,
        channels: int,
        window: Window,
        *,
        stride: int = 1,
        padding: int | Padding = 0,
        neuron: str | None = None,
        init: Initializer | None = None,
        bias: float | None = None,
        use_bias: bool = True,
    ) -> None:
        """A convolution; `channels` counts the maps of all towers."""
        pads = _pads(padding)
        _check_positive(name, maps=channels, window=min(sides(window)), stride=stride)
        common: dict[str, Any] = {
            "stride": stride,
            "padding": pads,
            "neuron": self.neuron if neuron is None else neuron,
            "init": init or self.init,
            "rngs": self.rngs,
        }
        value = self.bias if bias is None else bias
        if self.towers > 1:
            self._check_divides(name, channels)
            self.add(
                name,
                towers.TowerConv(
                    self.channels, channels // self.towers, window,
                    towers=self.towers, bias=value, **common,
                ),
            )  # fmt: skip
        else:
            layer = modules.Conv(
                self.channels, channels, window, bias=value if use_bias else None, **common
            )
            self.add(name, layer)
        self._slide(name, window, stride, pads)
        self._made(channels)

    def batch_norm(self, name: str, *, epsilon: float = 1e-5) -> None:
        """Batch normalisation."""
        self.add(name, modules.BatchNorm(self.channels, epsilon=epsilon))

    def local(
        self, name: str, channels: int, window: int, *, padding: int = 0, init: Initializer
    ) -> None:
        """A convolution whose kernels are not shared between positions."""
        _check_positive(name, maps=channels, window=window)
        layer = modules.LocallyConnected(
            (self.height, self.width, self.channels), channels, window,
            padding=_pads(padding), neuron=self.neuron, init=init, bias=self.bias,
            rngs=self.rngs,
        )  # fmt: skip
        self.custom(name, layer, channels)

    def pad_channels(self, name: str, channels: int, *, stride: int) -> None:
        """A shortcut without parameters to fewer pixels and more maps."""
        self.custom(name, modules.PadChannels(channels, stride), channels)

    def pool(
        self,
        name: str,
        window: int,
        stride: int,
        *,
        kind: str = "max",
        padding: int = 0,
        ceil: bool = False,
    ) -> None:
        """A pooling layer; `kind` is one of `pooling.POOLS`."""
        if kind not in pooling.POOLS:
            raise ValueError(f"unknown pool {kind!r}; choose one of {', '.join(pooling.POOLS)}")
        _check_positive(name, window=window, stride=stride)
        pads = _pads(padding)
        self.add(name, modules.Pool(kind, window, stride, pads, ceil))
        self._slide(name, window, stride, pads, ceil)

    def adaptive_average_pool(self, name: str, size: int) -> None:
        """PyTorch's adaptive average pool to size x size maps."""
        self.add(name, modules.AdaptiveAveragePool(size, -(-self.height // size)))
        self.height = self.width = size

    def global_average_pool(self, name: str) -> None:
        """The average over each map: one feature a map."""
        self.add(name, modules.GlobalAveragePool(self.height))
        self.height = self.width = 1
        self.flat = True

    def dense(
        self,
        name: str,
        units: int,
        *,
        neuron: str | None = None,
        init: Initializer | None = None,
        bias: float | None = None,
    ) -> None:
        """A fully connected layer; `units` counts those of all towers."""
        _check_positive(name, units=units)
        common: dict[str, Any] = {
            "neuron": self.neuron if neuron is None else neuron,
            "init": init or self.init,
            "bias": self.bias if bias is None else bias,
            "rngs": self.rngs,
        }
        if self.towers > 1:
            self._check_divides(name, units)
            per_tower = units // self.towers
            self.add(
                name,
                towers.TowerDense(self._in_shape(), per_tower, towers=self.towers, **common),
            )
        else:
            self.add(name, modules.Dense(self._in_shape(), units, **common))
        self.height = self.width = 1
        self.flat = True
        self._made(units)

    def head(
        self, name: str, num_classes: int, *, init: Initializer | None = None, apart: bool = False
    ) -> None:
        """The classifier: scores in float32, no neuron, bias 0; `apart` as in `TowerHead`."""
        if num_classes < 1:
            raise ValueError(f"num_classes={num_classes}: at least 1")
        common: dict[str, Any] = {"init": init or self.init, "rngs": self.rngs}
        shape = self._in_shape()
        if self.towers > 1:
            if apart:
                self._check_divides(name, num_classes, "classes")
            split: dict[str, Any] = {"towers": self.towers, "apart": apart}
            self.add(name, towers.TowerHead(shape, num_classes, **split, **common))
        else:
            self.add(
                name, modules.Dense(shape, num_classes, neuron="identity", head=True, **common)
            )
        self.ends_in(name, num_classes)

    def ends_in(self, name: str, num_classes: int) -> None:
        """Declares the layer `name` to be the main classifier."""
        self.heads.insert(0, name)
        self.num_classes = num_classes

    def dropout(self, name: str, rate: float, *, inverted: bool = True) -> None:
        """Dropout."""
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"dropout is a probability in [0, 1), not {rate}")
        self.add(name, modules.Dropout(rate, inverted, self.towers))

    def exchange(self, name: str) -> None:
        """Lets the next layer of every tower read the maps of all towers."""
        if self.towers > 1 and not self.shared:
            self.add(name, towers.Exchange(self.towers))
            self.channels *= self.towers
            self.shared = True

    def branches(
        self, name: str, join: str, **makers: Callable[["Builder"], None]
    ) -> dict[str, "Builder"]:
        """Branches that all read the current maps; each of `makers` adds the layers of one.

        Returns the builder of each branch.

        Raises:
          ValueError: branches whose maps do not fit together.
        """
        made = {}
        for branch, make in makers.items():
            made[branch] = self.fork()
            make(made[branch])
        sizes = {(b.height, b.width) for b in made.values()}
        channels = [b.channels for b in made.values()]
        if len(sizes) != 1 or (join == "add" and len(set(channels)) != 1):
            raise ValueError(f"{name}: its branches make {sizes} pixels of {channels} maps")
        self.add(name, Branches({n: Sequential(b.by_name) for n, b in made.items()}, join))
        ((self.height, self.width),) = sizes
        self.channels = sum(channels) if join == "concatenate" else channels[0]
        return made

    def block(self, name: str, make: Callable[["Builder"], None]) -> None:
        """Layers grouped under a name."""
        inner = self.fork()
        make(inner)
        self.add(name, Block(inner.by_name))
        self.height, self.width, self.channels = inner.height, inner.width, inner.channels

    def auxiliary(self, name: str, make: Callable[["Builder"], None]) -> None:
        """An auxiliary classifier; `make` ends it in a head."""
        inner = self.fork()
        try:
            make(inner)
        except ValueError as error:
            raise ValueError(f"{name}: {error} (auxiliary=False leaves it out)") from error
        self.add(name, Auxiliary(inner.by_name))
        self.heads += [f"{name}/{head}" for head in inner.heads]

    def fork(self) -> "Builder":
        """A builder without layers that continues from the current maps."""
        other = Builder(
            self.image_size, rngs=self.rngs, channels=self.channels,
            init=self.init, neuron=self.neuron, bias=self.bias, towers=self.towers,
        )  # fmt: skip
        other.height, other.width = self.height, self.width
        other.flat, other.shared = self.flat, self.shared
        return other

    def network(self) -> Network:
        """The finished network; its head must have been added."""
        return Network(
            self.by_name,
            image_size=self.image_size,
            num_classes=self.num_classes,
            heads=tuple(self.heads),
            towers=self.towers,
        )

    def _slide(
        self, name: str, window: Window, stride: int, pads: Padding, ceil: bool = False
    ) -> None:
        (tall, wide), (vertical, horizontal) = sides(window), pads
        self.height = pooling.pooled_size(self.height, tall, stride, *vertical, ceil=ceil)
        self.width = pooling.pooled_size(self.width, wide, stride, *horizontal, ceil=ceil)
        if self.height < 1 or self.width < 1:
            raise ValueError(
                f"image_size={self.image_size}, window {window}: images of "
                f"{self.image_size} pixels are too small: nothing is left at {name}"
            )

    def _in_shape(self) -> tuple[int, ...]:
        return (self.channels,) if self.flat else (self.height, self.width, self.channels)

    def _made(self, channels: int) -> None:
        self.channels = channels // self.towers
        self.shared = self.towers == 1

    def _check_divides(self, name: str, channels: int, what: str = "maps") -> None:
        if channels % self.towers:
            raise ValueError(f"{self.towers} towers do not divide the {channels} {what} of {name}")


def _check_positive(name: str, **numbers: int) -> None:
    for what, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name}: {what} {number}, at least 1 is needed")


def _pads(padding: int | Padding) -> Padding:
    return ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding
