"""The lectures' pattern: [(CONV-RELU)*N-POOL?]*M-[FC-RELU]*K-FC (Stanford CS231n)."""

from flax import nnx

from vision_models import layers, modules
from vision_models.network import Builder, Network


def convnet(
    num_classes: int = 10,
    *,
    image_size: int = 32,
    convolutions: int = 2,
    stages: int = 3,
    hidden_layers: int = 1,
    kernels: int = 32,
    window: int = 3,
    hidden: int = 256,
    pool: str = "max",
    neuron: str = "relu",
    batch_norm: bool = False,
    dropout: float = 0.0,
    init: str = "he",
    init_std: float = 0.01,
    rngs: nnx.Rngs,
) -> Network:
    """M stages of N convolutions and a pool, K hidden layers, a classifier.

    Convolutions keep the size (stride 1, padding (F - 1) / 2); every pool halves it, and
    the next stage has twice the kernels.

    Args:
      num_classes: number of logits.
      image_size: side of the square input in pixels.
      convolutions: N, in each stage.
      stages: M.
      hidden_layers: K.
      kernels: maps of the first stage's convolutions.
      window: F, odd.
      hidden: units of each hidden layer.
      pool: max, average or l2; "" for none.
      neuron: nonlinearity of all hidden layers.
      batch_norm: normalisation between each convolution, then without a bias, and its neuron.
      dropout: probability of dropping after each hidden layer (inverted).
      init, init_std: of all kernels, as for `alexnet`.
      rngs: stream `params` draws the parameters.

    Raises:
      ValueError: an unknown or impossible option.
    """
    if min(convolutions, stages, hidden_layers) < 0 or window % 2 == 0:
        raise ValueError(
            f"convolutions={convolutions}, stages={stages}, hidden_layers={hidden_layers} must be "
            f"at least 0, and window={window} odd"
        )
    if pool and image_size < 2**stages:
        raise ValueError(f"stages={stages}: pools leave nothing of image_size={image_size} pixels")
    net = Builder(image_size, rngs=rngs, init=layers.initializer(init, init_std), neuron=neuron)
    for stage in range(1, stages + 1):
        for number in range(1, convolutions + 1):
            maps, name = kernels * 2 ** (stage - 1), f"{stage}_{number}"
            if batch_norm:
                net.conv(
                    f"conv{name}", maps, window, padding=window // 2, use_bias=False,
                    neuron="identity",
                )  # fmt: skip
                net.batch_norm(f"norm{name}")
                net.add(f"neuron{name}", modules.Neuron(neuron))
            else:
                net.conv(f"conv{name}", maps, window, padding=window // 2)
        if pool:
            net.pool(f"pool{stage}", 2, 2, kind=pool)
    for number in range(1, hidden_layers + 1):
        net.dense(f"hidden{number}", hidden)
        net.dropout(f"drop{number}", dropout)
    net.head("fc", num_classes)
    return net.network()
