"""The all-convolutional nets of Springenberg et al., "Striving for Simplicity", 2015.

Sections and tables are the paper's.
"""

from flax import nnx

from vision_models import layers
from vision_models.network import Builder, Network

# Tables 1 and 2: (window, maps, stride) of each convolution; one of stride 2 replaces a pool.
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
    """All-CNN-A, -B or -C: convolutions of stride 2 for pools, an average for fc layers.

    The base is followed by a 3x3 convolution without padding (8x8 -> 6x6 pixels), two 1x1
    convolutions, the last with a map for each class, and the average over its maps.

    Args:
      num_classes: number of logits.
      base: a, b or c of Table 1.
      image_size: side of the square input in pixels.
      neuron: nonlinearity of all convolutions.
      dropout: probability of dropping after each convolution of stride 2 (section 3.1).
      input_dropout: probability of dropping in the image.
      init, init_std: as for `alexnet`; the paper does not say.
      rngs: stream `params` draws the parameters.

    Raises:
      ValueError: an unknown or impossible option.
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
