"""CIFAR-10 networks of AlexNet's time: cuda-convnet's example layers.

From Krizhevsky's cuda-convnet (example-layers/*.cfg) and cuda-convnet2
(layers/layers-cifar10-11pct.cfg), which name them by the test error that they reached.
Pools are 3/2 and round up. Images are raw pixels less the mean, hence the small standard
deviation of conv1's initialiser.
"""

from flax import nnx

from vision_models import layers, modules
from vision_models.network import Builder, Network


def four_layer(
    num_classes: int = 10,
    *,
    image_size: int = 32,
    neuron: str = "relu",
    pools: tuple[str, str, str] = ("max", "average", "average"),
    norm: bool = False,
    init: str = "gaussian",
    init_std_conv1: float = 0.0001,
    init_std: float = 0.01,
    rngs: nnx.Rngs,
) -> Network:
    """Three 5x5 convolutions of 32, 32, 64 maps and a classifier (layers-19pct, -18pct).

    The four-layer network of AlexNet's Figure 1 has no published configuration; this
    network, with either neuron, stands in for it.

    Args:
      num_classes: number of logits.
      image_size: side of the square input in pixels.
      neuron: nonlinearity of the convolutions.
      pools: kinds of pool1 to pool3.
      norm: adds normalisation inside each map (3x3, alpha 5e-5, beta 0.75) after pool1
        and pool2: the 18% network.
      init: gaussian, xavier or he.
      init_std_conv1, init_std: standard deviations of the Gaussians of conv1 and of the
        other layers.
      rngs: stream `params` draws the parameters.

    Raises:
      ValueError: an unknown or impossible option.
    """
    net = Builder(image_size, rngs=rngs, init=layers.initializer(init, init_std), neuron=neuron)
    for number, maps in enumerate((32, 32, 64), start=1):
        first = layers.initializer(init, init_std_conv1) if number == 1 else None
        net.conv(f"conv{number}", maps, 5, padding=2, init=first)
        net.pool(f"pool{number}", 3, 2, kind=pools[number - 1], ceil=True)
        if norm and number < 3:
            net.add(f"norm{number}", modules.SpatialResponseNorm(size=3, alpha=5e-5))
    net.head("fc10", num_classes)
    return net.network()


def conv_local(
    num_classes: int = 10,
    *,
    image_size: int = 24,
    neuron: str = "relu",
    pool: str = "max",
    norm: bool = False,
    local3: int = 32,
    shared: bool = False,
    init: str = "gaussian",
    init_std_conv1: float = 0.0001,
    init_std: float = 0.01,
    init_std_local: float = 0.04,
    rngs: nnx.Rngs,
) -> Network:
    """Two convolutions, two locally connected layers and a classifier (13%, 11%).

    layers-conv-local-13pct.cfg; with `norm` and local3=64, layers-cifar10-11pct.cfg. They
    are the networks of AlexNet's section 3.3 ("13% without, 11% with normalization").

    Args:
      num_classes: number of logits.
      image_size: side of the square crop in pixels.
      neuron: nonlinearity of the hidden layers.
      pool: max, average or l2.
      norm: adds normalisation across 9 maps (k=1, alpha 0.001/9, beta 0.75) after pool1
        and between conv2 and pool2.
      local3: maps of the first locally connected layer.
      shared: local3 and local4 share their kernels between positions: they are convolutions of
        the same size, initialised alike. Without it a position's kernels are its own.
      init: gaussian, xavier or he.
      init_std_conv1, init_std, init_std_local: standard deviations of the Gaussians of
        conv1, of conv2 and fc10, and of the locally connected layers.
      rngs: stream `params` draws the parameters.

    Raises:
      ValueError: an unknown or impossible option.
    """
    net = Builder(image_size, rngs=rngs, init=layers.initializer(init, init_std), neuron=neuron)
    response = modules.LocalResponseNorm(size=9, k=1.0, alpha=0.001, average=True)
    local = layers.initializer(init, init_std_local)
    net.conv("conv1", 64, 5, padding=2, init=layers.initializer(init, init_std_conv1))
    net.pool("pool1", 3, 2, kind=pool, ceil=True)
    if norm:
        net.add("norm1", response)
    net.conv("conv2", 64, 5, padding=2)
    if norm:
        net.add("norm2", response)
    net.pool("pool2", 3, 2, kind=pool, ceil=True)
    for name, maps in (("local3", local3), ("local4", 32)):
        (net.conv if shared else net.local)(name, maps, 3, padding=1, init=local)
    net.head("fc10", num_classes)
    return net.network()
