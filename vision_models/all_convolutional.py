"""The all-convolutional nets of Springenberg et al., "Striving for Simplicity", 2015."""

from flax import nnx

from vision_models import layers
from vision_models.network import Builder, Network

# Tables 1 and 2: (window, maps, stride) of each convolution; stride 2 stands for a pool.
BASES = {
    "a": ((5, 96, 1), (3, 96, 2), (5, 192, 1), (3, 192, 2)),
    "b": ((5, 96, 1), (1, 96, 1), (3, 96, 2), (5, 192, 1), (1, 192, 1), (3, 192, 2)),
    "c": ((3, 96, 1), (3, 96, 1), (3, 96, 2), (3, 192, 1), (3, 192, 1), (3, 192, 2)),
}


def all_convolutional(
    num_classes: int = 10,
    *,
    base: str = "c",
    image_size: int = 32,
    neuron: str = "relu",
    dropout: float = 0.5,
    input_dropout: float = 0.2,
    init: str = "he",
    init_std: float = 0.05,
    rngs: nnx.Rngs,
) -> Network:
    """All-CNN-A, -B or -C: pools are convolutions of stride 2, the end is an average.

    After the base a 3x3 convolution without padding (8x8 -> 6x6 pixels), two 1x1
    convolutions, the last one to the classes, and the average over its maps.

    Args:
      num_classes: number of logits.
      base: a, b or c of Table 1.
      image_size: pixels.
      neuron: of all convolutions.
      dropout: after each convolution of stride 2 (section 3.1).
      input_dropout: of the image.
      init, init_std: the paper does not say.
      rngs: stream `params` draws the parameters.

    Raises:
      ValueError: an option that cannot be.
    """
    if base not in BASES:
        raise ValueError(f"base={base}: choose one of {', '.join(BASES)}")
    net = Builder(image_size, rngs=rngs, init=layers.initializer(init, init_std), neuron=neuron)
    net.dropout("drop0", input_dropout)
    number = 0
    for number, (window, maps, stride) in enumerate(BASES[base], start=1):
        net.conv(f"conv{number}", maps, window, stride=stride, padding=window // 2)
        if stride == 2:
            net.dropout(f"drop{number}", dropout)
    net.conv(f"conv{number + 1}", 192, 3)
    net.conv(f"conv{number + 2}", 192, 1)
    net.conv(f"conv{number + 3}", num_classes, 1)
    net.global_average_pool("average")
    net.ends_in(f"conv{number + 3}", num_classes)
    return net.network()
