"""AlexNet: Krizhevsky, Sutskever and Hinton, 2012, and its relatives.

"ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012. Sections
and figures are the paper's. "Code" is the source that the authors released; its
`layers-145.cfg` is the network that they trained in 2012.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx

from vision_models import layers, modules
from vision_models.contrast import LocalContrastNorm
from vision_models.network import Builder, Network

# Layers that the ablations of the paper (sections 5.1 and 7) leave out.
REMOVABLE = ("conv3", "conv4", "conv5", "fc6", "fc7")
# Layers whose maps all towers may read, as Figure 2 draws it.
EXCHANGES = ("pool2", "pool5", "fc6", "fc7")

# Section 3.3: size, k, alpha, beta, and whether alpha is divided by the size, as in the code.
PAPER_LRN: Mapping[str, Any] = {
    field.name: field.default
    for field in dataclasses.fields(modules.LocalResponseNorm)
    if field.name != "across"
}


def check_sizes(kernels: Sequence[int], hidden: Sequence[int], convolutions: int = 5) -> None:
    """Raises ValueError unless `kernels` has a size for each convolution and `hidden` two."""
    if len(kernels) != convolutions or len(hidden) != 2:
        raise ValueError(
            f"kernels takes {convolutions} numbers and hidden 2, not {len(kernels)} and "
            f"{len(hidden)}"
        )


def alexnet(
    num_classes: int = 1000,
    *,
    image_size: int = 224,
    towers: int = 2,
    kernels: Sequence[int] = (96, 256, 384, 384, 256),
    hidden: Sequence[int] = (4096, 4096),
    conv6: int = 0,
    connected: bool = True,
    exchanges: str = ",".join(EXCHANGES),
    without: str = "",
    neuron: str = "relu",
    lrn: bool = True,
    lrn_constants: Mapping[str, Any] = PAPER_LRN,
    lrn_across_towers: bool = False,
    lcn: bool = False,
    pool_before_norm: bool = False,
    norm1_before_neuron: bool = False,
    spatial_norm2: bool = False,
    pool: str = "max",
    pool_window: int = 3,
    dropout: float = 0.5,
    inverted_dropout: bool = False,
    init: str = "gaussian",
    init_std: float = 0.01,
    init_std_conv3to5: float = 0.01,
    init_bias: float = 1.0,
    rngs: nnx.Rngs,
) -> Network:
    """The network of the paper's Figure 2; its arguments are the ablations.

    Images are RGB in 0..255 less the training mean. Each tower, for 224x224 pixels:

        conv1 48 11x11/4 | LRN | pool 3/2 | conv2 128 5x5 | LRN | pool 3/2 | exchange
        conv3 192 3x3 | conv4 192 3x3 | conv5 128 3x3 | pool 3/2 | exchange
        fc6 2048 | dropout | exchange | fc7 2048 | dropout | fc8 (towers summed)

    Parameters are named `<layer>/kernel` and `<layer>/bias`, and with several towers have
    a leading axis over them (see `vision_models.towers`).

    Args:
      num_classes: number of logits.
      image_size: side of the square input in pixels, at least 64; with `pool_window=2` 36.
      towers: 2 as in the paper; 1 joins the towers, so that every kernel reads every
        map and normalisation sees all channels.
      kernels: number of maps of conv1 to conv5, all towers together.
      hidden: sizes of fc6 and fc7, all towers together.
      conv6: maps of a sixth convolution over the last pooling layer, which reads both
        towers; 0 for none (the "1 CNN*" of the paper's Table 2: 256).
      connected: False leaves out all exchanges except the sum of the scores (network 150
        of the code); `exchanges="fc7"` says the same.
      exchanges: layers whose maps all towers read, comma-separated, of pool2, pool5 (with
        `conv6` also the maps of conv6), fc6 and fc7. What follows another layer reads its
        own tower's maps. Without fc7 each tower scores its share of the classes. The places
        stay where layers are left out.
      without: layers to leave out, comma-separated, of conv3, conv4, conv5, fc6, fc7.
        The exchanges around a removed layer stay: the next layer reads both towers.
      neuron: nonlinearity of all hidden layers, by name.
      lrn: False leaves out both normalisation layers.
      lrn_constants: arguments of `response.local_response_normalization`.
      lrn_across_towers: the window sees the maps of both towers, as in Caffe.
      pool_before_norm: layers 1 and 2 are conv, neuron, pool, LRN, as in CaffeNet.
      norm1_before_neuron: layer 1 is conv, LRN, pool, neuron, as in the code, instead of
        the paper's conv, neuron, LRN, pool.
      spatial_norm2: adds a normalisation inside each map after the second LRN (`cnorm2` of
        the code).
      lcn: Jarrett's local contrast normalisation in place of the response normalisation, with
        which section 3.3 compares it.
      pool: one of `pooling.POOLS`.
      pool_window: 3 overlaps, 2 does not (the stride is 2).
      dropout: probability of dropping in fc6 and fc7; 0 turns it off.
      inverted_dropout: rescale in training instead of in evaluation.
      init: gaussian as in the paper, xavier, he or lecun.
      init_std: standard deviation of the Gaussian of all kernels but those of conv3 to
        conv6 (section 5: 0.01).
      init_std_conv3to5: standard deviation for conv3 to conv6 (code: 0.03).
      init_bias: initial bias of conv2, conv4, conv5, conv6, fc6 and fc7 (section 5: 1);
        the others start at 0.
      rngs: stream `params` draws the parameters.

    Raises:
      ValueError: sizes that the towers do not divide, an image too small for the pools,
        an unknown neuron or a layer that cannot be left out.
    """
    removed = _named(without, REMOVABLE, "cannot leave out")
    exchanged = _named(exchanges, EXCHANGES, "towers cannot exchange")
    if not connected:
        exchanged = {"fc7"}
    check_sizes(kernels, hidden)
    if towers < 1:
        raise ValueError(f"towers={towers}: at least 1")

    net = Builder(
        image_size,
        rngs=rngs,
        init=layers.initializer(init, init_std),
        neuron=neuron,
        bias=init_bias,
        towers=towers,
    )
    middle = layers.initializer(init, init_std_conv3to5)

    def norm_and_pool(number: int) -> None:
        def norm() -> None:
            if lcn:
                net.add(f"norm{number}", LocalContrastNorm())
            elif lrn:
                across = towers if lrn_across_towers else 1
                response = modules.LocalResponseNorm(**lrn_constants, across=across)
                net.add(f"norm{number}", response)
            if spatial_norm2 and number == 2:
                net.add("spatial_norm2", modules.SpatialResponseNorm())

        if not pool_before_norm:
            norm()
        net.pool(f"pool{number}", pool_window, 2, kind=pool)
        if pool_before_norm:
            norm()

    def exchange(below: str) -> None:
        if exchanged.intersection(passed):
            net.exchange(f"exchange_{below}")

    # conv1 and conv2, each tower by itself. To make 55 outputs of 224 pixels takes three
    # more pixels: the code reads zeros past the bottom and the right edge.
    net.conv(
        "conv1", kernels[0], 11, stride=4, padding=((0, 3), (0, 3)),
        bias=0.0, neuron="identity" if norm1_before_neuron else neuron,
    )  # fmt: skip
    norm_and_pool(1)
    if norm1_before_neuron:
        net.add("neuron1", modules.Neuron(neuron))
    net.conv("conv2", kernels[1], 5, padding=2)
    norm_and_pool(2)

    # conv3 reads both towers; conv4 and conv5 read their own.
    layer_names = [name for name in ("conv3", "conv4", "conv5") if name not in removed]
    passed = ["pool2"]  # the places of exchanges since the last layer with kernels
    if layer_names:
        exchange("pool2")
        passed = []
    for name in layer_names:
        made = kernels[int(name[-1]) - 1]
        net.conv(name, made, 3, padding=1, init=middle, bias=0.0 if name == "conv3" else init_bias)
    net.pool("pool5", pool_window, 2, kind=pool)
    passed.append("pool5")
    if conv6:
        exchange("pool5")
        passed = ["pool5"]
        net.conv("conv6", conv6, 3, padding=1, init=middle)

    # fc6 and fc7 read both towers; fc8 sums the scores of both.
    below = "conv6" if conv6 else "pool5"
    for name, units in zip(("fc6", "fc7"), hidden, strict=True):
        if name not in removed:
            exchange(below)
            net.dense(name, units)
            net.dropout(f"drop{name[-1]}", dropout, inverted=inverted_dropout)
            below, passed = name, []
        passed.append(name)
    net.head("fc8", num_classes, apart=exchanged.isdisjoint(passed))
    return net.network()


def _named(names: str, known: Sequence[str], wrong: str) -> set[str]:
    """The names in a comma-separated list, each of which must be known."""
    found = {name.strip() for name in names.split(",") if name.strip()}
    if found - set(known):
        unknown = ", ".join(sorted(found - set(known)))
        raise ValueError(f"{wrong} {unknown}; choose from {', '.join(known)}")
    return found


def alexnet_owt(
    num_classes: int = 1000,
    *,
    image_size: int = 224,
    neuron: str = "relu",
    dropout: float = 0.5,
    init: str = "he",
    init_std: float = 0.01,
    rngs: nnx.Rngs,
) -> Network:
    """The one-tower network of Krizhevsky 2014, as torchvision has it.

    "One weird trick for parallelizing convolutional neural networks", footnote 1. No
    response normalisation; 64-192-384-256-256 kernels; inverted dropout of the inputs of
    fc6 and fc7. It has the 61,100,840 parameters of torchvision's `alexnet`.

    Args:
      num_classes, image_size, neuron, dropout, init, init_std, rngs: as for `alexnet`.

    Raises:
      ValueError: an unknown neuron or initialiser, or an image that is too small.
    """
    net = Builder(image_size, rngs=rngs, init=layers.initializer(init, init_std), neuron=neuron)
    net.conv("conv1", 64, 11, stride=4, padding=2)
    net.pool("pool1", 3, 2)
    net.conv("conv2", 192, 5, padding=2)
    net.pool("pool2", 3, 2)
    net.conv("conv3", 384, 3, padding=1)
    net.conv("conv4", 256, 3, padding=1)
    net.conv("conv5", 256, 3, padding=1)
    net.pool("pool5", 3, 2)
    net.dropout("drop5", dropout)
    net.dense("fc6", 4096)
    net.dropout("drop6", dropout)
    net.dense("fc7", 4096)
    net.head("fc8", num_classes)
    return net.network()
