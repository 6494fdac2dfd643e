"""Residual networks: He, Zhang, Ren and Sun, for ImageNet and for CIFAR-10.

"Deep Residual Learning for Image Recognition", 2015 (sections 4.1 and 4.2), and "Identity
Mappings in Deep Residual Networks", 2016 (pre-activation).
"""

from collections.abc import Callable, Sequence

from flax import nnx

from vision_models import layers, modules
from vision_models.network import Builder, Network

# Table 1: blocks in each of the four stages.
DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),  # pre-activation only
}
BOTTLENECKS_FROM = 50  # layers
PLAIN_DEPTHS = (18, 34)  # section 4.1
CIFAR_DEPTHS = (20, 32, 44, 56, 110)  # Table 6
CIFAR_PLAIN_DEPTHS = (8, *CIFAR_DEPTHS)
CIFAR_PREACTIVATION_DEPTHS = (20, 56, 110)  # 164 has bottlenecks
SHORTCUTS = ("projection", "pad", "none")


def resnet(
    num_classes: int = 1000,
    *,
    depth: int = 50,
    image_size: int = 224,
    shortcut: str = "projection",
    preactivation: bool = False,
    stride_in: str = "1x1",
    pool1_padded: bool = False,
    batch_norm: bool = True,
    neuron: str = "relu",
    init: str = "he",
    init_std: float = 0.01,
    rngs: nnx.Rngs,
) -> Network:
    """A network of Table 1: conv1, pool1, stages conv2 to conv5, average, fc.

    Blocks are called `conv<stage>_<number>`. Networks of 18 and 34 layers have blocks of two
    3x3 convolutions, deeper ones bottlenecks of 1x1, 3x3 and 1x1.

    Args:
      num_classes: number of logits.
      depth: 18, 34, 50, 101 or 152; 200 with preactivation.
      image_size: side of the square input in pixels.
      shortcut: `projection`, 1x1 where the shape changes and the identity elsewhere
        (option B); `pad`, zeros for new maps (option A); `none`, a plain network.
      preactivation: normalisation and neuron before each convolution (2016).
      stride_in: the convolution that has the stride in a bottleneck that halves the size:
        the first `1x1`, as in the paper, or the `3x3`, as in torchvision ("v1.5").
      pool1_padded: pool1 reaches one pixel past the top and left, as in torchvision,
        rather than past the bottom and right, as in the authors' models.
      batch_norm: normalisation after each convolution. Without it (of plain networks alone)
        convolutions have biases.
      neuron: nonlinearity of all hidden layers.
      init, init_std: as for `alexnet`; the paper's is He's (section 3.4).
      rngs: stream `params` draws the parameters.

    Raises:
      ValueError: an unknown or impossible option.
    """
    if depth not in DEPTHS or (depth == 200 and not preactivation):
        raise ValueError(f"depth={depth}: choose 18, 34, 50, 101 or 152, 200 with preactivation")
    if stride_in not in ("1x1", "3x3"):
        raise ValueError(f"stride_in={stride_in}: choose 1x1 or 3x3")
    _check_batch_norm(batch_norm, shortcut, preactivation)
    net = Builder(image_size, rngs=rngs, init=layers.initializer(init, init_std), neuron=neuron)
    _conv(net, "conv1", "norm1" if batch_norm else None, 64, 7, stride=2)
    net.add("neuron1", modules.Neuron(neuron))
    if pool1_padded:
        net.pool("pool1", 3, 2, padding=1)
    else:
        net.pool("pool1", 3, 2, ceil=True)
    stages = [
        (f"conv{number}", blocks, 64 * 2**n, 1 if n == 0 else 2)
        for n, (number, blocks) in enumerate(zip(range(2, 6), DEPTHS[depth], strict=True))
    ]
    bottleneck = depth >= BOTTLENECKS_FROM
    _stages(net, stages, bottleneck, shortcut, preactivation, stride_in, batch_norm)
    _classifier(net, num_classes, preactivation)
    return net.network()


def cifar_resnet(
    num_classes: int = 10,
    *,
    depth: int = 20,
    image_size: int = 32,
    shortcut: str = "pad",
    preactivation: bool = False,
    bottleneck: bool = False,
    batch_norm: bool = True,
    neuron: str = "relu",
    init: str = "he",
    init_std: float = 0.01,
    rngs: nnx.Rngs,
) -> Network:
    """The CIFAR-10 networks of section 4.2: conv1, then three stages of 16, 32, 64 maps.

    Args:
      num_classes: number of logits.
      depth: 6n + 2, such as 8, 20, 32, 44, 56, 110; with bottlenecks 9n + 2, such as 164.
      image_size: side of the square input in pixels.
      shortcut: `pad` (option A, the paper's), `projection` or `none`, a plain network.
      preactivation: normalisation and neuron before each convolution (2016).
      bottleneck: blocks of 1x1, 3x3 and 1x1, the last with four times the maps (2016).
      batch_norm, neuron, init, init_std, rngs: as for `resnet`.

    Raises:
      ValueError: a depth that is not 6n + 2 (9n + 2), or another impossible option.
    """
    per_block = 9 if bottleneck else 6
    if depth < per_block + 2 or (depth - 2) % per_block:
        raise ValueError(f"depth={depth}: a multiple of {per_block}, and 2")
    _check_batch_norm(batch_norm, shortcut, preactivation)
    net = Builder(image_size, rngs=rngs, init=layers.initializer(init, init_std), neuron=neuron)
    _conv(net, "conv1", "norm1" if batch_norm else None, 16, 3)
    net.add("neuron1", modules.Neuron(neuron))
    blocks = (depth - 2) // per_block
    stages = [(f"conv{n + 2}", blocks, 16 * 2**n, 1 if n == 0 else 2) for n in range(3)]
    _stages(net, stages, bottleneck, shortcut, preactivation, "1x1", batch_norm)
    _classifier(net, num_classes, preactivation)
    return net.network()


def _check_batch_norm(batch_norm: bool, shortcut: str, preactivation: bool) -> None:
    if not batch_norm and (shortcut != "none" or preactivation):
        raise ValueError(
            "batch_norm=False: of plain networks alone (shortcut=none, preactivation=False)"
        )


def _conv(
    net: Builder, name: str, norm: str | None, maps: int, window: int, *, stride: int = 1
) -> None:
    """A convolution, and the normalisation called `norm` after it.

    The normalisation's bias stands in for the convolution's. An empty `norm` is for convolutions
    that are normalised before, without a bias either; with None nothing is normalised, and the
    convolution has a bias of its own.
    """
    net.conv(
        name, maps, window, stride=stride, padding=window // 2, use_bias=norm is None,
        neuron="identity",
    )  # fmt: skip
    if norm:
        net.batch_norm(norm)


def _stages(
    net: Builder,
    stages: Sequence[tuple[str, int, int, int]],
    bottleneck: bool,
    shortcut: str,
    preactivation: bool,
    stride_in: str,
    batch_norm: bool,
) -> None:
    """The residual blocks; each stage is (name, blocks, maps, stride of its first block)."""
    if shortcut not in SHORTCUTS:
        raise ValueError(f"shortcut={shortcut}: choose one of {', '.join(SHORTCUTS)}")
    for stage, blocks, maps, first_stride in stages:
        for number in range(1, blocks + 1):
            stride = first_stride if number == 1 else 1
            if bottleneck:
                strides = (stride, 1, 1) if stride_in == "1x1" else (1, stride, 1)
                convs = list(zip((maps, maps, 4 * maps), (1, 3, 1), strides, strict=True))
            else:
                convs = [(maps, 3, stride), (maps, 3, 1)]
            name = f"{stage}_{number}"
            if preactivation:
                first = stage == stages[0][0] and number == 1
                _preactivation_block(net, name, convs, stride, shortcut, first)
            else:
                _block(net, name, convs, stride, shortcut, batch_norm)


Convs = Sequence[tuple[int, int, int]]  # (maps, window, stride) of each convolution


def _block(
    net: Builder, name: str, convs: Convs, stride: int, shortcut: str, batch_norm: bool
) -> None:
    """Convolutions, each with normalisation; the sum with the shortcut; the last neuron."""

    def residual(branch: Builder) -> None:
        for number, (maps, window, step) in enumerate(convs, start=1):
            norm = f"norm{number}" if batch_norm else None
            _conv(branch, f"conv{number}", norm, maps, window, stride=step)
            if number < len(convs):
                branch.add(f"neuron{number}", modules.Neuron(net.neuron))

    _add(net, name, residual, convs[-1][0], stride, shortcut, normalized=True)
    net.add(f"{name}_neuron", modules.Neuron(net.neuron))


def _preactivation_block(
    net: Builder, name: str, convs: Convs, stride: int, shortcut: str, first: bool
) -> None:
    """Normalisation and neuron before each convolution; nothing after the sum.

    Where the shape changes, both paths read the output of the first normalisation and neuron.
    The first block of the network has none of its own and reads those of conv1 (2016,
    appendix and code).
    """
    shared = not first and (stride != 1 or net.channels != convs[-1][0])

    def activate(branch: Builder, number: int) -> None:
        branch.batch_norm(f"norm{number}")
        branch.add(f"neuron{number}", modules.Neuron(net.neuron))

    def residual(branch: Builder) -> None:
        for number, (maps, window, step) in enumerate(convs, start=1):
            if number > 1 or not (first or shared):
                activate(branch, number)
            _conv(branch, f"conv{number}", "", maps, window, stride=step)

    def whole(inner: Builder) -> None:
        activate(inner, 1)
        _add(inner, "sum", residual, convs[-1][0], stride, shortcut, normalized=False)

    if shared:
        net.block(name, whole)
    else:
        _add(net, name, residual, convs[-1][0], stride, shortcut, normalized=False)


def _add(
    net: Builder,
    name: str,
    residual: Callable[[Builder], None],
    maps: int,
    stride: int,
    shortcut: str,
    *,
    normalized: bool,
) -> None:
    """The residual branch plus the shortcut; in a plain network the branch alone."""

    def carry(branch: Builder) -> None:
        if stride == 1 and branch.channels == maps:
            return
        if shortcut == "pad":
            branch.pad_channels("pad", maps, stride=stride)
        else:
            branch.conv("conv", maps, 1, stride=stride, use_bias=False, neuron="identity")
            if normalized:
                branch.batch_norm("norm")

    if shortcut == "none":
        net.branches(name, "add", residual=residual)
    else:
        net.branches(name, "add", residual=residual, shortcut=carry)


def _classifier(net: Builder, num_classes: int, preactivation: bool) -> None:
    if preactivation:
        net.batch_norm("norm")
        net.add("neuron", modules.Neuron(net.neuron))
    net.global_average_pool("average")
    net.head("fc", num_classes)
