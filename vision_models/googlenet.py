"""GoogLeNet: Szegedy et al., "Going Deeper with Convolutions", 2015, and torchvision's form."""

from flax import nnx

from vision_models import layers, modules
from vision_models.alexnet import PAPER_LRN
from vision_models.forward import Window
from vision_models.network import Builder, Network
from vision_models.pooling import Padding

# Table 1: maps of 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection.
INCEPTION = {
    "inception_3a": (64, 96, 128, 16, 32, 32),
    "inception_3b": (128, 128, 192, 32, 96, 64),
    "inception_4a": (192, 96, 208, 16, 48, 64),
    "inception_4b": (160, 112, 224, 24, 64, 64),
    "inception_4c": (128, 128, 256, 24, 64, 64),
    "inception_4d": (112, 144, 288, 32, 64, 64),
    "inception_4e": (256, 160, 320, 32, 128, 128),
    "inception_5a": (256, 160, 320, 32, 128, 128),
    "inception_5b": (384, 192, 384, 48, 128, 128),
}
# Modules that a pool follows, and those whose output an auxiliary classifier reads.
POOLED = {"inception_3b": "pool3", "inception_4e": "pool4"}
AUXILIARY = {"inception_4a": "aux1", "inception_4d": "aux2"}


def normalized_conv(
    net: Builder,
    name: str,
    maps: int,
    window: Window,
    *,
    stride: int = 1,
    padding: int | Padding = 0,
) -> None:
    """A convolution without bias, batch normalisation (epsilon 0.001), and the neuron."""
    net.conv(name, maps, window, stride=stride, padding=padding, use_bias=False, neuron="identity")
    net.batch_norm(f"{name}_norm", epsilon=1e-3)
    net.add(f"{name}_neuron", modules.Neuron(net.neuron))


def googlenet(
    num_classes: int = 1000,
    *,
    image_size: int = 224,
    batch_norm: bool = False,
    auxiliary: bool = True,
    lrn: bool = True,
    neuron: str = "relu",
    pool: str = "max",
    dropout: float = 0.4,
    auxiliary_dropout: float = 0.7,
    init: str = "xavier",
    init_std: float = 0.01,
    init_bias: float = 0.2,
    rngs: nnx.Rngs,
) -> Network:
    """GoogLeNet of the paper's Table 1 and Figure 3.

    Args:
      num_classes: number of logits.
      image_size: side of the square input in pixels.
      batch_norm: builds torchvision's `googlenet`: batch normalisation (epsilon 0.001)
        after every convolution, which then has no bias; no response normalisation; 3x3
        kernels in the branches called 5x5; pool4 2x2; auxiliary classifiers that average
        over 4x4 uneven windows.
      auxiliary: adds the two auxiliary classifiers, which run in training only.
      lrn: response normalisation after pool1 and conv2 (not with `batch_norm`).
      neuron: nonlinearity of all hidden layers.
      pool: max, average or l2, between the stages.
      dropout: probability of dropping before the classifier (inverted).
      auxiliary_dropout: the same, before the auxiliary classifiers.
      init, init_std: as for `alexnet`. The paper does not say; Xavier's with biases of
        0.2 is from Caffe's model.
      init_bias: initial bias of all hidden layers, without `batch_norm`.
      rngs: stream `params` draws the parameters.

    Raises:
      ValueError: an unknown or impossible option.
    """
    net = Builder(
        image_size, rngs=rngs, init=layers.initializer(init, init_std), neuron=neuron,
        bias=0.0 if batch_norm else init_bias,
    )  # fmt: skip

    def conv(
        net: Builder, name: str, maps: int, window: int, *, stride: int = 1, padding: int = 0
    ) -> None:
        make = normalized_conv if batch_norm else Builder.conv
        make(net, name, maps, window, stride=stride, padding=padding)

    def norm(name: str) -> None:
        if lrn and not batch_norm:
            net.add(name, modules.LocalResponseNorm(**{**PAPER_LRN, "k": 1.0, "average": True}))

    def inception(name: str, maps: tuple[int, ...]) -> None:
        one, reduce3, three, reduce5, five, projection = maps
        window = 3 if batch_norm else 5

        def pooled(branch: Builder) -> None:
            branch.pool("pool", 3, 1, padding=1)
            conv(branch, "pool_proj", projection, 1)

        def reduced(prefix: str, reduce: int, maps: int, window: int, branch: Builder) -> None:
            conv(branch, f"{prefix}_reduce", reduce, 1)
            conv(branch, prefix, maps, window, padding=window // 2)

        net.branches(
            name,
            "concatenate",
            branch1=lambda b: conv(b, "1x1", one, 1),
            branch2=lambda b: reduced("3x3", reduce3, three, 3, b),
            branch3=lambda b: reduced("5x5", reduce5, five, window, b),
            branch4=pooled,
        )

    def classifier(net: Builder) -> None:
        if batch_norm:
            net.adaptive_average_pool("pool", 4)
        else:
            net.pool("pool", 5, 3, kind="average")
        conv(net, "conv", 128, 1)
        net.dense("fc", 1024)
        net.dropout("drop", auxiliary_dropout)
        net.head("classifier", num_classes)

    conv(net, "conv1", 64, 7, stride=2, padding=3)
    net.pool("pool1", 3, 2, kind=pool, ceil=True)
    norm("norm1")
    conv(net, "conv2_reduce", 64, 1)
    conv(net, "conv2", 192, 3, padding=1)
    norm("norm2")
    net.pool("pool2", 3, 2, kind=pool, ceil=True)
    for name, maps in INCEPTION.items():
        inception(name, maps)
        if auxiliary and name in AUXILIARY:
            net.auxiliary(AUXILIARY[name], classifier)
        if name in POOLED:
            window = 2 if batch_norm and name == "inception_4e" else 3
            net.pool(POOLED[name], window, 2, kind=pool, ceil=True)
    net.global_average_pool("average")
    net.dropout("drop", dropout)
    net.head("classifier", num_classes)
    return net.network()
