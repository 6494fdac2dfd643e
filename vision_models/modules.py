"""The layers of a network.

A layer is called as `layer(x, run, path)`: its input, the forward pass
(`vision_models.forward.Pass`) and its own path within the network. Layers with
parameters are NNX modules; those without are frozen dataclasses. Layers that slide a
window have the attributes `window`, `stride` and `padding`, which `analysis` reads.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from vision_models import layers, pooling, response
from vision_models.convolution import Normalization, Pooling, convolve
from vision_models.forward import (
    NO_PADDING,
    Activations,
    Pass,
    Window,
    each,
    first_tower,
    gather,
    sides,
)
from vision_models.layers import Initializer
from vision_models.pooling import Padding
from vision_models.products import product


def _constant(value: float, *shape: int) -> Array:
    return jnp.full(shape, value, jnp.float32)


class Conv(nnx.Module):
    """Convolution, optional bias, neuron. Parameters: kernel [h, w, in, out], bias [out]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        window: Window,
        *,
        stride: int = 1,
        padding: Padding = NO_PADDING,
        neuron: str = "relu",
        init: Initializer,
        bias: float | None = 0.0,
        rngs: nnx.Rngs,
    ):
        """`bias` is the initial value of the bias; None for a convolution without one."""
        self.window, self.stride, self.padding, self.neuron = window, stride, padding, neuron
        height, width = sides(window)
        fans = height * width * in_channels, height * width * out_channels
        shape = (height, width, in_channels, out_channels)
        self.kernel = nnx.Param(init(rngs.params(), shape, *fans))
        if bias is not None:
            self.bias = nnx.Param(_constant(bias, out_channels))

    def __call__(
        self, x: Array, run: Pass, path: str, *,
        pool: Pooling | None = None, norm: Normalization | None = None,
    ) -> Array:  # fmt: skip
        """[B, H, W, in] -> [B, H', W', out]; for `pool` and `norm` see `together`."""
        x = run.slide(x, self.window, self.stride, self.padding)
        bias = self.bias[...] if hasattr(self, "bias") else None
        if norm is not None:
            maps = convolve(x, self.kernel[...], stride=self.stride, padding=self.padding)
            return norm(maps, bias)
        out = convolve(
            x, self.kernel[...], bias, stride=self.stride, padding=self.padding, pool=pool
        )
        return run.neuron(self.neuron)(out)


class Dense(nnx.Module):
    """Fully connected layer and neuron. Parameters: kernel [in, out], bias [out].

    Maps [h, w, c] are flattened in that order. As a convolution it slides over larger maps
    instead, with the same parameters: kernel [h, w, c, out], no padding, stride 1. It does
    so in dense evaluation, and where `vision_models.fully_convolutional` has set
    `convolutional`.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        units: int,
        *,
        neuron: str = "relu",
        head: bool = False,
        init: Initializer,
        bias: float = 0.0,
        rngs: nnx.Rngs,
    ):
        """`in_shape` is (h, w, c) or (features,); the output of a `head` is float32."""
        self.in_shape = in_shape if len(in_shape) == 3 else (1, 1, *in_shape)
        self.neuron, self.head, self.convolutional = neuron, head, False
        features = int(np.prod(in_shape))
        self.kernel = nnx.Param(init(rngs.params(), (features, units), features, units))
        self.bias = nnx.Param(_constant(bias, units))

    def __call__(self, x: Array, run: Pass, path: str) -> Array:
        """[B, h, w, c] or [B, features] -> [B, units]; as a convolution [B, H', W', units]."""
        dtype = jnp.promote_types(x.dtype, jnp.float32) if self.head else x.dtype
        sliding = self.convolutional or run.valid is not None
        x = run.slide(x, self.in_shape[0])
        out = apply_dense(x, self.kernel[...], self.in_shape, sliding, dtype)
        return run.neuron(self.neuron)(out + self.bias[...].astype(dtype))


def apply_dense(
    x: Array, kernel: Array, in_shape: tuple[int, ...], convolutional: bool, dtype: Any
) -> Array:
    """A matrix [in, out] applied to flattened maps, or slid over maps larger than `in_shape`."""
    if convolutional:
        return lax.conv_general_dilated(
            x.reshape(len(x), 1, 1, -1) if x.ndim == 2 else x,
            kernel.astype(x.dtype).reshape(*in_shape, -1),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            preferred_element_type=dtype,
        )
    return product(x.reshape(len(x), -1), kernel, dtype)


class LocallyConnected(nnx.Module):
    """A convolution whose kernels are not shared between positions.

    cuda-convnet's `local` layer. Parameters: kernel [H', W', window^2 in, out], bias
    [H', W', out].
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        out_channels: int,
        window: int,
        *,
        padding: Padding,
        neuron: str = "relu",
        init: Initializer,
        bias: float = 0.0,
        rngs: nnx.Rngs,
    ):
        """`in_shape` is (H, W, in); the stride is 1."""
        self.window, self.stride, self.padding, self.neuron = window, 1, padding, neuron
        height, width, channels = in_shape
        out = tuple(
            pooling.pooled_size(size, window, 1, *pads)
            for size, pads in zip((height, width), padding, strict=True)
        )
        fan_in = window * window * channels
        shape = (*out, fan_in, out_channels)
        self.kernel = nnx.Param(init(rngs.params(), shape, fan_in, window**2 * out_channels))
        self.bias = nnx.Param(_constant(bias, *out, out_channels))

    def __call__(self, x: Array, run: Pass, path: str) -> Array:
        """[B, H, W, in] -> [B, H', W', out]."""
        height, width = self.kernel.shape[:2]
        padded = jnp.pad(x, ((0, 0), *self.padding, (0, 0)))
        windows = jnp.concatenate(
            [
                padded[:, dy : dy + height, dx : dx + width]
                for dy in range(self.window)
                for dx in range(self.window)
            ],
            axis=-1,
        )
        out = jnp.einsum("bhwi,hwio->bhwo", windows, self.kernel[...].astype(x.dtype))
        return run.neuron(self.neuron)(out + self.bias[...].astype(x.dtype))


class BatchNorm(nnx.Module):
    """Batch normalisation: Ioffe and Szegedy 2015.

    Parameters: scale, bias [C]. Statistics, used in evaluation: mean, variance [C]. Each
    training batch moves them a tenth of the way to its own mean and unbiased variance, as
    in PyTorch. `forward.BatchStatistics` says which examples are taken together. Computed
    in float32 or wider.
    """

    momentum = 0.9

    def __init__(self, channels: int, *, epsilon: float = 1e-5):
        """Starts as the identity; `epsilon` is added to the variance."""
        self.epsilon = epsilon
        self.scale = nnx.Param(_constant(1.0, channels))
        self.bias = nnx.Param(_constant(0.0, channels))
        self.mean = nnx.BatchStat(_constant(0.0, channels))
        self.variance = nnx.BatchStat(_constant(1.0, channels))

    def __call__(self, x: Array, run: Pass, path: str, *, relu: bool = False) -> Array:
        """[B, H, W, C] -> the same shape and dtype; then a ReLU, if asked for."""
        if not run.training or f"{path}/scale" in run.statistics.frozen:
            wide = layers.widened(x)
            out = self._normalized(wide, self.mean[...], self.variance[...]).astype(x.dtype)
            return layers.neuron("relu")(out) if relu else out
        taken = run.statistics
        devices = 1 if taken.axis is None else lax.axis_size(taken.axis)
        group = taken.group or len(x) * devices
        across = max(group // len(x), 1)  # devices that share a group
        out, mean, variance = layers.batch_normalization(
            x.reshape(-1, min(group, len(x)), *x.shape[1:]),
            self.scale[...],
            self.bias[...],
            self.mean[...],
            self.epsilon,
            lambda values: _over_neighbours(values, across, taken.axis),
            relu,
        )
        self._remember(mean, variance, group * x.shape[1] * x.shape[2], taken.pooled)
        return out.reshape(x.shape)

    def _normalized(self, x: Array, mean: Array, variance: Array) -> Array:
        factor = self.scale[...] * lax.rsqrt(variance + self.epsilon)
        return x * factor + (self.bias[...] - mean * factor)

    def _remember(self, mean: Array, variance: Array, count: int, pooled: Array | None) -> None:
        """Updates the statistics by mean and variance [groups, C] of groups of `count` values."""
        if pooled is not None:
            # The variance of several batches together includes the variance of their means.
            apart = mean[0] - self.mean[...]
            within = (1 - pooled) * self.variance[...] + pooled * variance[0]
            self.variance.set_value(within + pooled * (1 - pooled) * jnp.square(apart))
            self.mean.set_value(self.mean[...] + pooled * apart)
            return
        keep = self.momentum
        unbiased = jnp.mean(variance, axis=0) * (count / max(count - 1, 1))
        self.mean.set_value(keep * self.mean[...] + (1 - keep) * jnp.mean(mean, axis=0))
        self.variance.set_value(keep * self.variance[...] + (1 - keep) * unbiased)


def _over_neighbours(values: Array, devices: int, axis: str | None) -> Array:
    """Mean over each run of `devices` neighbouring devices along a mesh axis."""
    if axis is None or devices == 1:
        return values
    count = lax.axis_size(axis)
    if devices == count:
        return lax.pmean(values, axis)
    runs = np.arange(count).reshape(-1, devices).tolist()
    return jnp.mean(lax.all_gather(values, axis, axis_index_groups=runs), axis=0)


@dataclasses.dataclass(frozen=True)
class Neuron:
    """A nonlinearity as a layer of its own."""

    name: str = "relu"

    def __call__(self, x: Activations, run: Pass, path: str) -> Activations:
        """Elementwise."""
        return each(run.neuron(self.name), x)


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Drops units in training; see `layers.dropout`. Every tower has its own masks."""

    rate: float
    inverted: bool = True
    towers: int = 1

    def __call__(self, x: Activations, run: Pass, path: str) -> Activations:
        """Keeps the shape. Masks do not depend on which device holds a tower."""
        keys = run.keys_of(path)
        if not isinstance(x, list):
            return layers.dropout(x, self.rate, keys, inverted=self.inverted)
        first = first_tower(len(x), self.towers)
        dropped = []
        for tower, maps in enumerate(x):
            own = None if keys is None else layers.fold_in_each(keys, first + tower)
            dropped.append(layers.dropout(maps, self.rate, own, inverted=self.inverted))
        return dropped


@dataclasses.dataclass(frozen=True)
class Pool:
    """Max, average, sum or L2 pooling; see `pooling.pool`."""

    kind: str
    window: int
    stride: int
    padding: Padding = NO_PADDING
    ceil: bool = False

    def __call__(self, x: Activations, run: Pass, path: str) -> Activations:
        """[B, H, W, C] -> [B, H', W', C]."""
        pool = self.of_whole_maps
        if run.valid is None:
            return each(pool, x)
        first = x[0] if isinstance(x, list) else x
        image = run.mask(first).astype(jnp.promote_types(first.dtype, jnp.float32))
        lowest = -np.inf if self.kind == "max" else 0.0
        x = run.slide(x, self.window, self.stride, self.padding, ceil=self.ceil, outside=lowest)
        if self.kind == "average":
            # The average is over pixels of the image: the pooled mask is their share.
            share = jnp.maximum(pool(image), np.finfo(np.float32).tiny)
            x = each(lambda maps: (pool(layers.widened(maps)) / share).astype(maps.dtype), x)
            return x
        # Windows outside every image hold -inf, which some convolutions spread to neighbours.
        return run.cut(each(pool, x))

    def of_whole_maps(self, x: Array) -> Array:
        """Pools maps that are wholly inside their images: [B, H, W, C] -> [B, H', W', C]."""
        return pooling.pool(
            x, self.kind, window=self.window, stride=self.stride,
            padding=self.padding, ceil=self.ceil,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class GlobalAveragePool:
    """Average over whole maps; in dense evaluation over each image's part of them.

    With `convolutional` (set by `vision_models.fully_convolutional`), or `run.windows`, a window
    of the size of the maps that the network was built for slides over larger maps.
    """

    window: int
    convolutional: bool = False
    stride: int = 1
    padding: Padding = NO_PADDING

    def __call__(self, x: Array, run: Pass, path: str) -> Array:
        """[B, H, W, C] -> [B, C], or [B, H', W', C]; in dense evaluation [B, 1, 1, C]."""
        if run.windows or (self.convolutional and run.valid is None):
            x = run.slide(x, self.window)
            return run.cut(pooling.pool(x, "average", window=self.window, stride=1))
        if run.valid is not None:
            total = layers.widened(run.cut(x)).sum((1, 2), keepdims=True)
            pixels = jnp.maximum(run.valid.prod(axis=1), 1)
            run.valid = jnp.minimum(run.valid, 1)
            return (total / pixels[:, None, None, None]).astype(x.dtype)
        return x.mean(axis=(1, 2))


@dataclasses.dataclass(frozen=True)
class AdaptiveAveragePool:
    """PyTorch's adaptive average pool to size x size maps.

    `window` is their nominal size, which analyses read; the windows may overlap unevenly.
    """

    size: int
    window: int
    stride: int = 1
    padding: Padding = NO_PADDING

    def __call__(self, x: Array, run: Pass, path: str) -> Array:
        """[B, H, W, C] -> [B, size, size, C]."""
        return pooling.adaptive_average_pool(x, self.size)


@dataclasses.dataclass(frozen=True)
class LocalResponseNorm:
    """Normalisation across maps; see `response.local_response_normalization`.

    The default constants are those of Krizhevsky et al. 2012, section 3.3. The window sees the
    maps of one tower only. With `across` set to the number of towers it sees those of all, as in
    Caffe's AlexNet, at the price of one more exchange.
    """

    size: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75
    average: bool = False
    across: int = 1

    def __post_init__(self) -> None:
        """Checks the window."""
        if self.size < 1:
            raise ValueError(f"lrn_constants.size={self.size}: at least 1")

    def __call__(self, x: Activations, run: Pass, path: str) -> Activations:
        """Keeps the shape."""
        apply = run.normalization(lambda maps: self.of_maps(maps))
        if self.across == 1 or not isinstance(x, list):
            return each(apply, x)
        whole = apply(gather(x, self.across))
        channels, first = x[0].shape[-1], first_tower(len(x), self.across)
        return [
            lax.dynamic_slice_in_dim(whole, (first + tower) * channels, channels, whole.ndim - 1)
            for tower in range(len(x))
        ]

    def of_maps(self, x: Array, bias: Array | None = None) -> Array:
        """Normalises `x` [..., C], or the ReLU of `x` plus `bias`; keeps the shape."""
        return response.local_response_normalization(
            x, size=self.size, k=self.k, alpha=self.alpha, beta=self.beta,
            average=self.average, bias=bias,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SpatialResponseNorm:
    """Normalisation inside each map; see `response.spatial_response_normalization`.

    The default constants are those of `cnorm2` in layers-145.cfg of AlexNet's code.
    """

    size: int = 5
    k: float = 1.0
    alpha: float = 1e-3
    beta: float = 0.75

    def __call__(self, x: Activations, run: Pass, path: str) -> Activations:
        """Keeps the shape."""
        constants = dataclasses.asdict(self)

        def normalize(maps: Array) -> Array:
            return response.spatial_response_normalization(maps, **constants)

        return each(run.normalization(normalize), run.cut(x))


@dataclasses.dataclass(frozen=True)
class Grayscale:
    """The average of red, green and blue, for networks with one input map."""

    def __call__(self, x: Array, run: Pass, path: str) -> Array:
        """[B, H, W, 3] -> [B, H, W, 1]; grey images stored as RGB keep their values."""
        return x.mean(axis=-1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class PadChannels:
    """Shortcut without parameters: every `stride`-th pixel, and maps of zeros on both sides.

    Option A of He et al., "Deep Residual Learning", 2015, section 3.3, which does not say
    where the zeros go. Half go before and half after the maps, as in the widely used
    CIFAR-10 weights.
    """

    channels: int
    stride: int
    window: int = 1
    padding: Padding = NO_PADDING

    def __call__(self, x: Array, run: Pass, path: str) -> Array:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), channels]."""
        x = run.slide(x, self.window, self.stride, self.padding)
        more = self.channels - x.shape[-1]
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2)))
