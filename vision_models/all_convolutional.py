"""The all-convolutional nets of Springenberg et al., "Striving for Simplicity", 2015.

Sections and tables are the paper's.
"""

from flax import nnx

from vision_models import layers
from vision_models.network import Builder, Network

# Table 1: the windows of the convolutions before each of the two pools, of 96 and of 192 maps.
BASES = {"a": (5,), "b": (5, 1), "c": (3, 3)}
MAPS = (96, 192)
# Table 2, how the base networks' two 3x3 max pools of stride 2 are changed: kept; left out, with
# stride 2 in the convolution before each; kept, after a further 3x3 convolution; or replaced by a
# 3x3 convolution of stride 2.
REDUCTIONS = ("pool", "stride", "convolution_and_pool", "convolution")
# The networks' names, before their base's.
NAMES = dict(zip(("base_cnn", "strided_cnn", "convpool_cnn", "all_cnn"), REDUCTIONS, strict=True))


def all_convolutional(
    num_classes: int = 10,
    *,
    base: str = "c",
    reduction: str = "convolution",
    image_size: int = 32,
    neuron: str = "relu",
    dropout: float = 0.5,
    input_dropout: float = 0.2,
    init: str = "he",
    init_std: float = 0.05,
    rngs: nnx.Rngs,
) -> Network:
    """All-CNN-A, -B or -C, or what the paper compares them with: an average for fc layers.

    The base is followed by a 3x3 convolution without padding (8x8 -> 6x6 pixels), two 1x1
    convolutions, the last with a map for each class, and the average over its maps.

    Args:
      num_classes: number of logits.
      base: a, b or c of Table 1.
      reduction: how the two halvings of the maps are made (Table 2): "pool", max pools (the base
        network); "stride", in the last convolution before each (Strided-CNN); with
        "convolution_and_pool" by pools after a further convolution (ConvPool-CNN);
        "convolution", by convolutions of stride 2 (All-CNN). Pools round up.
      image_size: side of the square input in pixels.
      neuron: nonlinearity of all convolutions.
      dropout: probability of dropping after each halving (section 3.1).
      input_dropout: probability of dropping in the image.
      init, init_std: as for `alexnet`; the paper does not say.
      rngs: stream `params` draws the parameters.

    Raises:
      ValueError: an unknown or impossible option.
    """
    if base not in BASES:
        raise ValueError(f"base={base}: choose one of {', '.join(BASES)}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction={reduction}: choose one of {', '.join(REDUCTIONS)}")
    net = Builder(image_size, rngs=rngs, init=layers.initializer(init, init_std), neuron=neuron)
    net.dropout("drop0", input_dropout)
    number = 0
    for stage, maps in enumerate(MAPS, start=1):
        windows = (*BASES[base], 3) if reduction.startswith("convolution") else BASES[base]
        for place, window in enumerate(windows, start=1):
            number += 1
            halves = reduction in ("stride", "convolution") and place == len(windows)
            net.conv(f"conv{number}", maps, window, stride=2 if halves else 1, padding=window // 2)
        if reduction.endswith("pool"):
            net.pool(f"pool{stage}", 3, 2, ceil=True)
        net.dropout(f"drop{number}", dropout)
    net.conv(f"conv{number + 1}", 192, 3)
    net.conv(f"conv{number + 2}", 192, 1)
    net.conv(f"conv{number + 3}", num_classes, 1)
    net.global_average_pool("average")
    net.ends_in(f"conv{number + 3}", num_classes)
    return net.network()
