"""VGG: Simonyan and Zisserman, 2015, networks A to E.

"Very Deep Convolutional Networks for Large-Scale Image Recognition", Table 1.
"""

from flax import nnx

from vision_models import layers, modules
from vision_models.alexnet import PAPER_LRN
from vision_models.network import Builder, Network

# Table 1, a row for each of the five stages: maps of the 3x3 convolutions; "1:" marks a
# 1x1, "5:" a 5x5. Every stage ends in a 2x2 max pool.
CONFIGURATIONS = {
    "a": "64  |  128      |  256 256          |  512 512          |  512 512",
    "b": "64 64  |  128 128  |  256 256          |  512 512          |  512 512",
    "b_5x5": "5:64  |  5:128  |  5:256  |  5:512  |  5:512",
    "c": "64 64  |  128 128  |  256 256 1:256    |  512 512 1:512    |  512 512 1:512",
    "d": "64 64  |  128 128  |  256 256 256      |  512 512 512      |  512 512 512",
    "e": "64 64  |  128 128  |  256 256 256 256  |  512 512 512 512  |  512 512 512 512",
}

# Networks that torchvision has with batch normalisation as well.
NORMALIZED = "abde"

# Layers that the deeper networks take from a trained network A (section 3.1): its first
# four convolutions and its fully connected layers.
FROM_A = ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8")


def vgg(
    num_classes: int = 1000,
    *,
    configuration: str = "d",
    image_size: int = 224,
    lrn: bool = False,
    batch_norm: bool = False,
    hidden: tuple[int, ...] = (4096, 4096),
    neuron: str = "relu",
    pool: str = "max",
    dropout: float = 0.5,
    init: str = "xavier",
    init_std: float = 0.1,
    rngs: nnx.Rngs,
) -> Network:
    """A network of Table 1: convolutions `conv<stage>_<number>`, then fc6, fc7, fc8.

    Args:
      num_classes: number of logits.
      configuration: a, b, c, d, e, or b_5x5: B with each pair of 3x3 convolutions
        replaced by one 5x5 (section 4.1).
      image_size: side of the square input in pixels.
      lrn: AlexNet's normalisation after the first convolution (network A-LRN).
      batch_norm: batch normalisation after every convolution, as in torchvision's
        `vgg16_bn`; not in the paper.
      hidden: sizes of fc6 and fc7. () replaces them by an average over the last maps,
        which leaves a ninth of the parameters.
      neuron: nonlinearity of all hidden layers.
      pool: max, average or l2.
      dropout: probability of dropping in fc6 and fc7 (inverted).
      init: gaussian, xavier or he. The paper trains A from a Gaussian of variance 10^-2,
        which diverges here, and starts the others from A; it adds that Glorot's (xavier)
        makes that unnecessary.
      init_std: standard deviation of the Gaussian.
      rngs: stream `params` draws the parameters.

    Raises:
      ValueError: an unknown configuration, or an impossible option.
    """
    if configuration not in CONFIGURATIONS:
        raise ValueError(
            f"unknown configuration {configuration!r}; choose one of {', '.join(CONFIGURATIONS)}"
        )
    if len(hidden) not in (0, 2):
        raise ValueError(f"hidden={tuple(hidden)}: the units of fc6 and fc7, or () for neither")
    net = Builder(image_size, rngs=rngs, init=layers.initializer(init, init_std), neuron=neuron)
    for stage, row in enumerate(CONFIGURATIONS[configuration].split("|"), start=1):
        for number, entry in enumerate(row.split(), start=1):
            window, _, maps = entry.rpartition(":")
            size = int(window or 3)
            name = f"{stage}_{number}"
            if batch_norm:
                net.conv(f"conv{name}", int(maps), size, padding=size // 2, neuron="identity")
                net.batch_norm(f"norm{name}")
                net.add(f"neuron{name}", modules.Neuron(neuron))
            else:
                net.conv(f"conv{name}", int(maps), size, padding=size // 2)
            if lrn and stage == number == 1:
                net.add("lrn", modules.LocalResponseNorm(**PAPER_LRN))
        net.pool(f"pool{stage}", 2, 2, kind=pool)
    if not hidden:
        net.global_average_pool("average")
    for number, units in enumerate(hidden, start=6):
        net.dense(f"fc{number}", units)
        net.dropout(f"drop{number}", dropout)
    net.head("fc8", num_classes)
    return net.network()
