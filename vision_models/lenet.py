"""LeNet-5: LeCun, Bottou, Bengio and Haffner, 1998, and Caffe's LeNet.

"Gradient-Based Learning Applied to Document Recognition", Proceedings of the IEEE,
section II.B and appendix A. Tables, figures and equations are the paper's.
"""

from collections.abc import Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from vision_models import layers, modules, pooling
from vision_models.convolution import convolve
from vision_models.forward import Pass
from vision_models.network import Builder, Network

# Table I: which maps of S2 each map of C3 reads.
C3_TABLE = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip

# Target codes of the output units: the digits drawn in 7 x 12 pixels, as in Figure 3. The
# paper prints its codes as a figure; these drawings follow its manner and are not copies.
DIGITS = """
..###.. ...#... .#####. ####### .....#. ####### ..####. ####### .#####. ..###..
.#...#. ..##... #.....# .....#. ....##. #...... .#..... ......# #.....# .#...#.
#.....# .#.#... ......# ....#.. ...#.#. #...... #...... .....#. #.....# #.....#
#.....# ...#... ......# ...#... ..#..#. #...... #...... .....#. #.....# #.....#
#.....# ...#... .....#. ..####. .#...#. ######. #.####. ....#.. .#####. #.....#
#.....# ...#... ....#.. ......# #....#. ......# ##....# ....#.. #.....# #....##
#.....# ...#... ...#... ......# ####### ......# #.....# ...#... #.....# .####.#
#.....# ...#... ..#.... ......# .....#. ......# #.....# ...#... #.....# ......#
#.....# ...#... .#..... ......# .....#. ......# #.....# ..#.... #.....# ......#
.#...#. ...#... #...... #.....# .....#. #.....# .#...#. ..#.... #.....# .....#.
..###.. .#####. ####### .#####. .....#. .#####. ..###.. ..#.... .#####. .####..
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
"""


def digit_codes() -> np.ndarray:
    """The target codes of the ten digits: float32 [10, 84], +1 for ink, -1 for paper."""
    rows = [line.split() for line in DIGITS.split("\n") if line]
    drawings = ["".join(row[digit] for row in rows) for digit in range(10)]
    return np.array([[1 if pixel == "#" else -1 for pixel in d] for d in drawings], np.float32)


class SparseConv(nnx.Module):
    """C3: a convolution in which each map reads some of the input maps (Table I).

    Parameters: kernel [5, 5, 60], one plane per connected pair of maps in the table's
    order, and bias [16]. It runs as a full convolution whose kernel is zero where maps are
    not connected: on a CPU several times faster than a convolution for each map.
    `density`, the share of connected pairs, is for counting multiply-adds.
    """

    density = Fraction(sum(map(len, C3_TABLE)), 6 * len(C3_TABLE))

    def __init__(self, window: int, *, neuron: str, rngs: nnx.Rngs):
        """Kernels start uniform in +-2.4 / fan-in (section II and appendix A)."""
        self.window, self.stride, self.padding = window, 1, modules.NO_PADDING
        self.neuron = neuron
        fans = [window**2 * len(sources) for sources in C3_TABLE for _ in sources]
        uniform = jax.random.uniform(
            rngs.params(), (window, window, len(fans)), jnp.float32, -2.4, 2.4
        )
        self.kernel = nnx.Param(uniform / np.array(fans, np.float32))
        self.bias = nnx.Param(jnp.zeros(len(C3_TABLE), jnp.float32))

    def __call__(self, x: Array, run: Pass, path: str) -> Array:
        """[B, H, W, 6] -> [B, H - 4, W - 4, 16]."""
        x = run.slide(x, self.window)
        pairs = [(source, made) for made, row in enumerate(C3_TABLE) for source in row]
        sources, made = np.array(pairs).T
        planes = self.kernel[...]
        dense = jnp.zeros((*planes.shape[:2], 6, len(C3_TABLE)), planes.dtype)
        dense = dense.at[:, :, sources, made].set(planes)
        return run.neuron(self.neuron)(convolve(x, dense, self.bias[...]))


class Subsample(nnx.Module):
    """S2 and S4: the sum over 2x2 pixels times a trainable factor, plus a bias; neuron.

    Parameters: scale [C], bias [C].
    """

    def __init__(self, channels: int, *, neuron: str, rngs: nnx.Rngs):
        """The factors start uniform in +-2.4 / 4: the fan-in is four pixels."""
        self.window, self.stride, self.padding = 2, 2, modules.NO_PADDING
        self.neuron, self.reads = neuron, 5  # four pixels and the bias
        self.scale = nnx.Param(
            jax.random.uniform(rngs.params(), (channels,), jnp.float32, -0.6, 0.6)
        )
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))

    def __call__(self, x: Array, run: Pass, path: str) -> Array:
        """[B, H, W, C] -> [B, H / 2, W / 2, C]."""
        x = run.slide(x, self.window, self.stride)
        total = 4 * pooling.pool(x, "average", window=2, stride=2)
        out = total * self.scale[...].astype(x.dtype) + self.bias[...].astype(x.dtype)
        return run.neuron(self.neuron)(out)


class RBFHead(nnx.Module):
    """Output layer: minus the squared distances of F6 from the codes of the digits.

    Equation 7 with the sign changed, so that the best class scores highest. The codes are
    fixed. Equation 9 is the cross-entropy over these scores plus
    `evaluation.metrics.rubbish_loss`.
    """

    reads = 84  # units, by each output

    def __call__(self, x: Array, run: Pass, path: str) -> Array:
        """[..., 84] -> [..., 10], float32."""
        difference = layers.widened(x)[..., None, :] - digit_codes()
        return -jnp.sum(jnp.square(difference), axis=-1)


def lenet5(
    num_classes: int = 10,
    *,
    image_size: int = 32,
    neuron: str = "scaled_tanh",
    head: str = "rbf",
    rngs: nnx.Rngs,
) -> Network:
    """LeNet-5 of the paper's Figure 2: 60,000 trainable parameters.

        C1 6 5x5 | S2 | C3 16 5x5, sparse | S4 | C5 120 5x5 | F6 84 | output

    Images are 32x32 with the digit centred, background -0.1 and ink 1.175. Their three
    colours are averaged.

    Args:
      num_classes: number of logits; 10 with the `rbf` head.
      image_size: side of the square input in pixels; the paper's is 32.
      neuron: nonlinearity of C1 to F6; the paper's is 1.7159 tanh(2a/3).
      head: `rbf`, distances from fixed codes of the digits, or `linear`, a fully
        connected layer as in later networks (850 parameters more).
      rngs: stream `params` draws the parameters: uniform in +-2.4 / fan-in (appendix A).

    Raises:
      ValueError: an unknown or impossible option.
    """
    if head not in ("rbf", "linear"):
        raise ValueError(f"head={head}: choose rbf or linear")
    if head == "rbf" and num_classes != 10:
        raise ValueError(
            f"num_classes={num_classes}: the RBF head has codes for the ten digits; head=linear "
            "takes any number"
        )

    def uniform(key: Array, shape: Sequence[int], fan_in: int, fan_out: int) -> Array:
        return jax.random.uniform(key, shape, jnp.float32, -2.4 / fan_in, 2.4 / fan_in)

    net = Builder(image_size, rngs=rngs, init=uniform, neuron=neuron)
    net.add("grey", modules.Grayscale())
    net.channels = 1
    net.conv("c1", 6, 5)
    net.custom("s2", Subsample(6, neuron=neuron, rngs=rngs), 6)
    net.custom("c3", SparseConv(5, neuron=neuron, rngs=rngs), 16)
    net.custom("s4", Subsample(16, neuron=neuron, rngs=rngs), 16)
    net.conv("c5", 120, 5)
    net.dense("f6", 84)
    if head == "rbf":
        net.add("output", RBFHead())
        net.ends_in("output", num_classes)
    else:
        net.head("output", num_classes)
    return net.network()


def lenet_caffe(
    num_classes: int = 10,
    *,
    image_size: int = 28,
    neuron: str = "relu",
    pool: str = "max",
    init: str = "xavier",
    init_std: float = 0.01,
    rngs: nnx.Rngs,
) -> Network:
    """The LeNet of Caffe's MNIST example: 431,080 parameters (examples/mnist/lenet.prototxt).

        conv1 20 5x5 | pool 2/2 | conv2 50 5x5 | pool 2/2 | ip1 500, neuron | ip2

    Images are 28x28, in 0..1. Their three colours are averaged. Only ip1 has a neuron.

    Args:
      num_classes: number of logits.
      image_size: side of the square input in pixels.
      neuron: nonlinearity of ip1.
      pool: max, average or l2.
      init, init_std: as for `alexnet`; the example has Xavier's.
      rngs: stream `params` draws the parameters.

    Raises:
      ValueError: an unknown or impossible option.
    """
    net = Builder(image_size, rngs=rngs, init=layers.initializer(init, init_std), neuron=neuron)
    net.add("grey", modules.Grayscale())
    net.channels = 1
    net.conv("conv1", 20, 5, neuron="identity")
    net.pool("pool1", 2, 2, kind=pool)
    net.conv("conv2", 50, 5, neuron="identity")
    net.pool("pool2", 2, 2, kind=pool)
    net.dense("ip1", 500)
    net.head("ip2", num_classes)
    return net.network()
