"""Single layers, forward and backward, beside PyTorch's and beside XLA's plain operations.

    python -m benchmarks.layers [--quick] [--layers lrn1 ...] [--batch=N]
        [--dtype=float32|bfloat16]

The layers are those that a library's own operations compute slowly: response normalisation,
pooling, convolutions in groups or of few maps, sums over maps. `ours` is the code of
`vision_models`. `xla` is the same layer in plain operations (windows, groups, JAX's derivatives,
XLA's default options). PyTorch's two sides are eager and compiled. All get channels-last maps in
memory, and compute the output and the gradients of the maps and of the parameters. Both JAX sides
keep their memory between calls (`devices.xla.keep_memory`).
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import sides
from benchmarks.workload import TORCH_DEVICES, Case


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of one of the networks.

    Attributes:
      kind: `lrn`, `pool`, `conv`, `towers` (a convolution in two groups) or `norm` (BatchNorm).
      maps: (height, width, channels) of its input.
      window, stride, pad: of pools and convolutions, in pixels.
      out: number of maps of a convolution's output.
      batches: batch size on a CPU, and on an accelerator.
    """

    kind: str
    maps: tuple[int, int, int]
    window: int = 0
    stride: int = 1
    pad: int = 0
    out: int = 0
    batches: tuple[int, int] = (32, 512)

    @property
    def groups(self) -> int:
        """Number of groups of a convolution."""
        return 2 if self.kind == "towers" else 1

    @property
    def flops(self) -> int:
        """FLOPs of one image, forward and backward: three times those of the forward formula.

        Other than convolutions, the forward formulas have eleven FLOPs per value in response
        normalisation, one per position of a window in pooling, and six per value in BatchNorm.
        """
        height, width, channels = self.maps
        if self.kind in ("conv", "towers"):
            return 6 * height * width * self.window**2 * channels * self.out // self.groups
        places = {"lrn": 11, "norm": 6, "pool": self.window**2 / self.stride**2}[self.kind]
        return int(3 * places * math.prod(self.maps))


LAYERS = {
    "lrn1": Layer("lrn", (55, 55, 48)),  # AlexNet's, of one tower
    "lrn2": Layer("lrn", (27, 27, 128)),
    "pool1": Layer("pool", (55, 55, 96), 3, 2),
    "pool_vgg": Layer("pool", (112, 112, 128), 2, 2, batches=(8, 256)),
    "pool_inception": Layer("pool", (28, 28, 192), 3, 1, 1, batches=(16, 512)),
    "pool_resnet": Layer("pool", (112, 112, 64), 3, 2, 1, batches=(8, 256)),
    "conv2": Layer("towers", (27, 27, 96), 5, pad=2, out=256),  # AlexNet's
    "conv4": Layer("towers", (13, 13, 384), 3, pad=1, out=384),
    "conv_rgb": Layer("conv", (224, 224, 3), 3, pad=1, out=64, batches=(8, 256)),  # VGG's first
    "conv_16": Layer("conv", (32, 32, 16), 3, pad=1, out=16, batches=(128, 1024)),  # ResNet-20's
    "conv_vgg": Layer("conv", (56, 56, 256), 3, pad=1, out=256, batches=(8, 256)),
    "norm_resnet": Layer("norm", (56, 56, 256), batches=(8, 256)),
}


def main() -> None:
    """Measures and prints."""
    sides.main(
        "layers",
        "layer",
        {"ours": ours, "xla": plainly, "eager": theirs, "compiled": theirs},
        batches={name: layer.batches for name, layer in LAYERS.items()},
        flops=lambda name: LAYERS[name].flops,
        description=__doc__.splitlines()[0],
        noun="layers",
    )


# AlexNet's constants for PyTorch, which divides alpha by the size. Not imported from our networks,
# because they import JAX, whose memory would be counted as PyTorch's.
TORCH_LRN: dict[str, Any] = {"size": 5, "alpha": 5e-4, "beta": 0.75, "k": 2.0}


def arrays(case: Case) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """The input and the parameters of a layer, random, float32.

    Returns:
      Maps [B, H, W, C]; and a kernel [window, window, C / groups, out], or scale and bias [C] of
      BatchNorm, or nothing.
    """
    layer, rng = LAYERS[case.name], np.random.default_rng(0)
    channels = layer.maps[2]
    maps = rng.standard_normal((case.batch, *layer.maps), np.float32)
    if layer.kind == "norm":
        return maps, (np.ones(channels, np.float32), np.zeros(channels, np.float32))
    if layer.kind not in ("conv", "towers"):
        return maps, ()
    shape = layer.window, layer.window, channels // layer.groups, layer.out
    return maps, (0.05 * rng.standard_normal(shape, np.float32),)


def ours(case: Case) -> sides.Made:
    """The layer as `vision_models` computes it."""
    import jax.numpy as jnp

    from devices.xla import compiler_options, keep_memory
    from vision_models import layers, pooling, response
    from vision_models.alexnet import PAPER_LRN
    from vision_models.convolution import convolve

    keep_memory()
    layer = LAYERS[case.name]
    pads = ((layer.pad, layer.pad),) * 2

    def forward(x: Any, *parameters: Any) -> Any:
        if layer.kind == "lrn":
            return response.local_response_normalization(x, **PAPER_LRN)
        if layer.kind == "pool":
            return pooling.pool(x, "max", window=layer.window, stride=layer.stride, padding=pads)
        if layer.kind == "norm":
            constants = jnp.zeros(x.shape[-1]), 1e-5, lambda mean: mean, False
            return layers.batch_normalization(x[None], *parameters, *constants)[0][0]
        groups = (jnp.split(array, layer.groups, -1) for array in (x, parameters[0]))
        towers = zip(*groups, strict=True)
        return jnp.concatenate([convolve(part, own, padding=pads) for part, own in towers], -1)

    return _jax_work(case, forward, compiler_options())


def plainly(case: Case) -> sides.Made:
    """The layer in plain operations of JAX and Flax."""
    import jax.numpy as jnp
    from flax import nnx
    from jax import lax

    from devices.xla import keep_memory
    from vision_models.alexnet import PAPER_LRN

    keep_memory()
    layer = LAYERS[case.name]
    pads = ((layer.pad, layer.pad),) * 2

    def forward(x: Any, *parameters: Any) -> Any:
        if layer.kind == "lrn":
            wide = x.astype(jnp.float32)
            lrn = PAPER_LRN
            across = (1, 1, 1, lrn["size"])
            sums = lax.reduce_window(wide * wide, 0.0, lax.add, across, (1, 1, 1, 1), "SAME")
            return (wide * (lrn["k"] + lrn["alpha"] * sums) ** -lrn["beta"]).astype(x.dtype)
        if layer.kind == "pool":
            window, strides = (layer.window,) * 2, (layer.stride,) * 2
            return nnx.max_pool(x, window, strides=strides, padding=pads)
        if layer.kind == "norm":
            wide = x.astype(jnp.float32)
            mean, variance = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
            scale, bias = parameters
            normalized = (wide - mean) * lax.rsqrt(variance + 1e-5)
            return (scale * normalized + bias).astype(x.dtype)
        return lax.conv_general_dilated(
            x,
            parameters[0].astype(x.dtype),
            (1, 1),
            pads,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=layer.groups,
        )

    return _jax_work(case, forward, {})


def _jax_work(case: Case, forward: Callable[..., Any], options: dict[str, str]) -> sides.Made:
    import jax
    import jax.numpy as jnp

    maps, own = arrays(case)
    x, parameters = jnp.asarray(maps, case.dtype), tuple(map(jnp.asarray, own))

    @functools.partial(jax.jit, compiler_options=options)
    def both_ways(gradient: Any, x: Any, *parameters: Any) -> Any:
        out, pull = jax.vjp(forward, x, *parameters)
        return out, pull(gradient)

    shape = jax.eval_shape(forward, x, *parameters)
    gradient = jnp.asarray(np.random.default_rng(1).standard_normal(shape.shape), shape.dtype)
    results: Any = None

    def work() -> None:
        nonlocal results
        results = None  # frees its memory for the next results
        results = both_ways(gradient, x, *parameters)

    return work, lambda: jax.block_until_ready(results)


def theirs(case: Case) -> sides.Made:
    """The layer in PyTorch's functions, with gradients accumulated in `.grad`."""
    import torch
    from torch.nn import functional as F

    layer = LAYERS[case.name]
    device = TORCH_DEVICES[case.platform]
    dtype = getattr(torch, case.dtype)
    maps, own = arrays(case)
    x = torch.from_numpy(maps.transpose(0, 3, 1, 2)).to(device, dtype)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    parameters = []
    for array in own:
        if array.ndim == 1:
            parameters.append(torch.from_numpy(array).to(device).requires_grad_())
            continue
        kernel = torch.from_numpy(array.transpose(3, 2, 0, 1)).to(device, dtype)
        kernel = kernel.contiguous(memory_format=torch.channels_last)
        parameters.append(kernel.requires_grad_())
    torch.backends.cudnn.benchmark = True

    def forward(x: Any, *parameters: Any) -> Any:
        if layer.kind == "lrn":
            return F.local_response_norm(x, **TORCH_LRN)
        if layer.kind == "pool":
            return F.max_pool2d(x, layer.window, layer.stride, layer.pad)
        if layer.kind == "norm":
            return F.batch_norm(x, None, None, parameters[0], parameters[1], training=True)
        return F.conv2d(x, parameters[0], padding=layer.pad, groups=layer.groups)

    if case.side == "compiled":
        forward = torch.compile(forward)
    gradient = torch.randn_like(forward(x, *parameters))

    def work() -> None:
        for array in (x, *parameters):
            array.grad = None
        forward(x, *parameters).backward(gradient)

    return work, torch.cuda.synchronize if device == "cuda" else lambda: None


if __name__ == "__main__":
    main()
