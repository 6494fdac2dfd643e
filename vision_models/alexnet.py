"""AlexNet: Krizhevsky, Sutskever and Hinton, 2012.

"ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012. Sections
and Figure 2 are the paper's; "code" is the source that the authors released, whose
`layers-145.cfg` is the network that was trained in 2012.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from vision_models import layers
from vision_models.towers import (
    TowerConv,
    TowerDense,
    TowerHead,
    Towers,
    exchange,
    first_tower,
)

# Layers that the paper (section 7 and 5.1) tried the network without.
REMOVABLE = ("conv3", "conv4", "conv5", "fc6", "fc7")

# Section 3.3. The code divides alpha by the size of the window.
PAPER_LRN: Mapping[str, Any] = {"size": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75, "average": False}


class AlexNet(nnx.Module):
    """The network of the paper's Figure 2; its arguments are the ablations.

    Per tower, with 224x224 images:

        conv1 48 11x11/4 | LRN | pool 3/2 | conv2 128 5x5 | LRN | pool 3/2 | exchange
        conv3 192 3x3 | conv4 192 3x3 | conv5 128 3x3 | pool 3/2 | exchange
        fc6 2048 | dropout | exchange | fc7 2048 | dropout | fc8 (towers summed)

    Parameters are named `<layer>/kernel` and `<layer>/bias`, and have a leading
    axis over towers (see `vision_models.towers`).
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        image_size: int = 224,
        towers: int = 2,
        kernels: Sequence[int] = (96, 256, 384, 384, 256),
        hidden: Sequence[int] = (4096, 4096),
        connected: bool = True,
        without: str = "",
        neuron: str = "relu",
        lrn: bool = True,
        lrn_constants: Mapping[str, Any] = PAPER_LRN,
        norm1_before_neuron: bool = False,
        spatial_norm2: bool = False,
        pool_window: int = 3,
        dropout: float = 0.5,
        init_std: float = 0.01,
        init_std_conv3to5: float = 0.01,
        init_bias: float = 1.0,
        rngs: nnx.Rngs,
    ):
        """Builds the network with freshly drawn parameters.

        Args:
          num_classes: number of logits.
          image_size: side of the square input in pixels, at least 64.
          towers: 2 as in the paper; 1 joins the towers, so that every kernel
            reads every map and normalisation sees all channels.
          kernels: maps made by conv1 to conv5, all towers together.
          hidden: sizes of fc6 and fc7, all towers together.
          connected: False leaves out all exchanges but the sum of the scores
            (network 150 of the code).
          without: comma-separated layers to leave out, of conv3, conv4, conv5,
            fc6, fc7. The exchange stays in its place: what follows reads both towers.
          neuron: nonlinearity of all hidden layers, by name.
          lrn: False leaves out both normalisation layers.
          lrn_constants: arguments of `layers.local_response_normalization`.
          norm1_before_neuron: conv1, LRN, pool, neuron, as the code has it,
            instead of the paper's conv1, neuron, LRN, pool.
          spatial_norm2: a normalisation inside each map after the second LRN
            (`cnorm2` of the code).
          pool_window: 3 overlaps, 2 does not (the stride is 2).
          dropout: probability of dropping in fc6 and fc7; 0 turns it off.
          init_std: deviation of the Gaussian of every kernel (section 5: .01) ...
          init_std_conv3to5: ... but conv3 to conv5 (code: .03).
          init_bias: bias of conv2, conv4, conv5, fc6 and fc7 (section 5: 1);
            the others start at 0.
          rngs: stream `params` draws the parameters.

        Raises:
          ValueError: sizes that the towers do not divide, an image too small for
            the pools, an unknown neuron or a layer that cannot be left out.
        """
        removed = {name.strip() for name in without.split(",") if name.strip()}
        if removed - set(REMOVABLE):
            raise ValueError(
                f"cannot leave out {', '.join(sorted(removed - set(REMOVABLE)))}; "
                f"choose from {', '.join(REMOVABLE)}"
            )
        if len(kernels) != 5 or len(hidden) != 2:
            raise ValueError(
                f"kernels takes 5 numbers and hidden 2, not {len(kernels)} and {len(hidden)}"
            )
        if towers < 1 or any(count % towers for count in (*kernels, *hidden)):
            raise ValueError(
                f"{towers} towers do not divide {tuple(kernels)} kernels and {tuple(hidden)} units"
            )
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout is a probability in [0, 1), not {dropout}")
        if pool_window < 1 or lrn_constants["size"] < 1 or min(init_std, init_std_conv3to5) < 0:
            raise ValueError(
                f"pool_window={pool_window}, lrn_constants.size={lrn_constants['size']}, init_std="
                f"{init_std}, init_std_conv3to5={init_std_conv3to5}: windows of at least 1 and "
                "deviations of at least 0 are needed"
            )
        size = final_size(image_size, pool_window)
        if size < 1:
            raise ValueError(
                f"images of {image_size} pixels are too small for AlexNet: at least 64"
            )

        self.towers = towers
        self.connected = connected
        self.neuron = layers.neuron(neuron)
        self.lrn = lrn
        self.lrn_constants = tuple(sorted(lrn_constants.items()))
        self.norm1_before_neuron = norm1_before_neuron
        self.spatial_norm2 = spatial_norm2
        self.pool_window = pool_window
        self.dropout = dropout
        self.middle = tuple(name for name in ("conv3", "conv4", "conv5") if name not in removed)
        self.hidden = tuple(name for name in ("fc6", "fc7") if name not in removed)

        maps = [count // towers for count in kernels]  # made by one tower
        seen = towers if connected else 1  # towers that a layer reads after an exchange
        narrow = layers.gaussian(init_std)
        middle = layers.gaussian(init_std_conv3to5)
        # 224 -> 55 takes three more pixels: the code reads zeros past the bottom
        # and the right edge, which is this padding.
        self.conv1 = TowerConv(
            3, maps[0], 11, stride=4, padding=((0, 3), (0, 3)),
            towers=towers, kernel_init=narrow, bias=0.0, rngs=rngs,
        )  # fmt: skip
        self.conv2 = TowerConv(
            maps[0], maps[1], 5, padding=((2, 2), (2, 2)),
            towers=towers, kernel_init=narrow, bias=init_bias, rngs=rngs,
        )  # fmt: skip
        channels = maps[1] * seen
        for name, made in zip(("conv3", "conv4", "conv5"), maps[2:], strict=True):
            if name in self.middle:
                layer = TowerConv(
                    channels, made, 3, padding=((1, 1), (1, 1)),
                    towers=towers, kernel_init=middle,
                    bias=0.0 if name == "conv3" else init_bias, rngs=rngs,
                )  # fmt: skip
                setattr(self, name, layer)
                channels = made
        features = size * size * (channels if self.middle else maps[1])
        for name, units in zip(("fc6", "fc7"), hidden, strict=True):
            if name in self.hidden:
                hidden_layer = TowerDense(
                    features * seen, units // towers,
                    towers=towers, kernel_init=narrow, bias=init_bias, rngs=rngs,
                )  # fmt: skip
                setattr(self, name, hidden_layer)
                features = units // towers
        self.fc8 = TowerHead(features, num_classes, towers=towers, kernel_init=narrow, rngs=rngs)

    def __call__(
        self,
        images: Array,
        *,
        dropout_keys: Array | None = None,
        record: dict[str, Array] | None = None,
    ) -> Array:
        """Scores of a batch of images.

        Args:
          images: [batch, image_size, image_size, 3], floating, RGB on the scale
            of 0..255 with the training mean subtracted. Their dtype is the
            dtype of the computation.
          dropout_keys: one random key per example, [batch], in training; None in
            evaluation.
          record: a dict that receives the activations of every layer by name, each
            [batch, ...] with the maps of all towers held here.

        Returns:
          Logits [batch, num_classes], float32.
        """

        def note(name: str, parts: Towers) -> Towers:
            if record is not None:
                record[name] = jnp.concatenate(parts, axis=-1)
            return parts

        def meet(parts: Towers) -> Towers:
            return exchange(parts, self.towers) if self.connected else parts

        # conv1 and conv2, each tower by itself.
        x = note("conv1", self._activate(self.conv1([images]), self.norm1_before_neuron))
        x = note("norm1", self._normalize(x))
        x = note("pool1", self._activate(self._pool(x), not self.norm1_before_neuron))
        x = note("conv2", self._activate(self.conv2(x)))
        x = self._normalize(x)
        if self.spatial_norm2:
            x = [layers.spatial_response_normalization(part) for part in x]
        x = note("norm2", x)
        x = note("pool2", self._pool(x))

        # conv3 reads both towers; conv4 and conv5 their own.
        if self.middle:
            x = meet(x)
        for name in self.middle:
            x = note(name, self._activate(getattr(self, name)(x)))
        x = note("pool5", self._pool(x))

        # fc6 and fc7 read both towers, fc8 sums the scores of both.
        for number, name in enumerate(self.hidden):
            x = note(name, self._activate(getattr(self, name)(meet(x))))
            x = self._dropout(x, dropout_keys, number)
        logits = self.fc8(x)
        if record is not None:
            record["fc8"] = logits
        return logits

    def _activate(self, parts: Towers, skip: bool = False) -> Towers:
        return parts if skip else [self.neuron(part) for part in parts]

    def _normalize(self, parts: Towers) -> Towers:
        """Each tower by itself: the window never reaches the other's maps."""
        if not self.lrn:
            return parts
        constants = dict(self.lrn_constants)
        return [layers.local_response_normalization(part, **constants) for part in parts]

    def _pool(self, parts: Towers) -> Towers:
        return [layers.max_pool(part, window=self.pool_window) for part in parts]

    def _dropout(self, parts: Towers, keys: Array | None, layer: int) -> Towers:
        """Every layer and every tower has masks of its own, whoever holds the tower."""
        first = first_tower(len(parts), self.towers)
        dropped = []
        for tower, part in enumerate(parts):
            own = None
            if keys is not None:
                own = layers.fold_in_each(layers.fold_in_each(keys, layer), first + tower)
            dropped.append(layers.dropout(part, self.dropout, own))
        return dropped


def final_size(image_size: int, pool_window: int = 3) -> int:
    """Side of the maps that reach fc6 (6 for 224-pixel images), at most 0 if there are none."""
    size = (image_size + 3 - 11) // 4 + 1
    for _ in range(3):
        size = (size - pool_window) // 2 + 1
    return size
