"""The functions behind the layers: neurons, initialisers, normalisations, dropout.

Arrays are channels-last, [batch, height, width, channels]. Computation runs in
the dtype of the input (parameters are cast to it), except where a docstring
says otherwise.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax


@jax.custom_vjp
def _relu(x: Array) -> Array:
    """max(0, x), with gradient 0 at 0; only reverse-mode differentiation works.

    Written as a selection: XLA on CPUs computes a maximum, and its operand, again for each use,
    even where the result is in memory already, for a convolution or transposed. On GPUs it is a
    maximum, which XLA leaves to the convolution before it. The gradient reads the result, which
    the next layer keeps as well, so that nobody keeps `x`.
    """
    return lax.platform_dependent(x, cuda=rectified, rocm=rectified, default=_selected)


def rectified(x: Array) -> Array:
    """max(0, x) as XLA looks for it behind a convolution on GPUs."""
    return lax.max(x, np.zeros((), x.dtype))


def _selected(x: Array) -> Array:
    return jnp.where(x <= 0, 0, x)


def _relu_forward(x: Array) -> tuple[Array, Array]:
    out = _relu(x)
    return out, out


def _relu_backward(out: Array, gradient: Array) -> tuple[Array]:
    return (jnp.where(out <= 0, 0, gradient),)


_relu.defvjp(_relu_forward, _relu_backward)


NEURONS: dict[str, Callable[[Array], Array]] = {
    "identity": lambda x: x,
    "relu": _relu,
    "tanh": jnp.tanh,
    # A tanh(S a) with A = 1.7159 and S = 2/3, so that f(1) = 1: LeCun et al. 1998, appendix A.
    "scaled_tanh": lambda x: 1.7159 * jnp.tanh((2 / 3) * x),
    # |tanh|: Jarrett et al. 2009, which AlexNet's section 3.1 compares with.
    "abs_tanh": lambda x: jnp.abs(jnp.tanh(x)),
    "sigmoid": jax.nn.sigmoid,
    # Slope 0.01 below zero: Maas et al. 2013.
    "leaky_relu": lambda x: jnp.where(x > 0, x, 0.01 * x),
    # exp(x) - 1 below zero: Clevert et al. 2016.
    "elu": jax.nn.elu,
}


def neuron(name: str) -> Callable[[Array], Array]:
    """The nonlinearity called `name`.

    Raises:
      ValueError: no such neuron; the message lists those there are.
    """
    if name not in NEURONS:
        raise ValueError(f"unknown neuron {name!r}; choose one of {', '.join(NEURONS)}")
    return NEURONS[name]


# (key, shape, fan-in, fan-out) -> float32 array of that shape.
Initializer = Callable[[Array, Sequence[int], int, int], Array]
INITIALIZERS = ("gaussian", "xavier", "he", "lecun")


def initializer(name: str, std: float = 0.01) -> Initializer:
    """An initialiser of kernels, by name.

    Args:
      name: `gaussian`, with standard deviation `std`; `xavier`, uniform in
        +-sqrt(6 / (fan-in + fan-out)) (Glorot and Bengio 2010, equation 16); `he`, Gaussian
        with variance 2 / fan-in (He et al., "Delving Deep into Rectifiers", 2015, equation 10);
        `lecun`, Gaussian with variance 1 / fan-in (LeCun et al., "Efficient BackProp", 1998,
        equation 16).
      std: standard deviation of `gaussian`, at least 0.

    Raises:
      ValueError: an unknown name or a negative deviation.
    """
    if name not in INITIALIZERS:
        raise ValueError(f"unknown init {name!r}; choose one of {', '.join(INITIALIZERS)}")
    if std < 0:
        raise ValueError(f"init_std={std}: a deviation is at least 0")

    def draw(key: Array, shape: Sequence[int], fan_in: int, fan_out: int) -> Array:
        if name == "xavier":
            bound = math.sqrt(6 / (fan_in + fan_out))
            return jax.random.uniform(key, shape, jnp.float32, -bound, bound)
        variances = {"gaussian": std**2, "he": 2 / fan_in, "lecun": 1 / fan_in}
        deviation = std if name == "gaussian" else math.sqrt(variances[name])
        return deviation * jax.random.normal(key, shape, jnp.float32)

    return draw


def widened(x: Array) -> Array:
    """`x` in float32, for sums; float64 stays float64."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@jax.custom_vjp
def concatenated(maps: Sequence[Array]) -> Array:
    """[..., C1], [..., C2] ... -> [..., C1 + C2 + ...]; only reverse-mode differentiation works.

    On TPUs each part is written to its place, by the convolution that computes it: XLA would pad
    every part to the whole width and take their maximum.
    """
    return lax.platform_dependent(
        list(maps), tpu=written_in_place, default=lambda maps: jnp.concatenate(maps, -1)
    )


def written_in_place(maps: Sequence[Array]) -> Array:
    """`concatenated` on TPUs."""
    *shape, _ = maps[0].shape
    out = lax.empty((*shape, sum(part.shape[-1] for part in maps)), maps[0].dtype)
    for place, part in zip(_starts(maps), maps, strict=True):
        out = lax.dynamic_update_slice_in_dim(out, part, place, len(shape))
    return out


def _starts(maps: Sequence[Array]) -> list[int]:
    return [0, *itertools.accumulate(part.shape[-1] for part in maps)][:-1]


concatenated.defvjp(
    lambda maps: (concatenated(maps), _starts(maps)),
    lambda starts, gradient: (jnp.split(gradient, starts[1:], -1),),
)


def channel_sums(x: Array) -> Array:
    """Sums over images and pixels: [groups, n, H, W, C] -> [groups, C].

    On CPUs it sums over rows first and then along them: XLA is far slower at summing many
    outer axes into few channels (docs/speed.md).
    """
    groups, images, height, width, channels = x.shape

    def rows_first(x: Array) -> Array:
        rows = x.reshape(groups, images * height, width * channels)
        return rows.sum(1).reshape(groups, width, channels).sum(1)

    return lax.platform_dependent(x, cpu=rows_first, default=lambda x: x.sum((1, 2, 3)))


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def batch_normalization(
    x: Array,
    scale: Array,
    bias: Array,
    near: Array,
    epsilon: float,
    over_devices: Callable[[Array], Array],
    relu: bool,
) -> tuple[Array, Array, Array]:
    """Batch normalisation of each group of images: Ioffe and Szegedy 2015, algorithm 1.

    The backward pass is written by hand: it reads the maps twice, where JAX's own reads them
    four times. Only reverse-mode differentiation works. Computed in float32 or wider.

    Args:
      x: [groups, n, H, W, C].
      scale, bias: gamma and beta, [C].
      near: numbers near the means, such as the running means, [C]; see `moments_in_one_pass`.
      epsilon: added to the variance.
      over_devices: takes the mean of [groups, C] over the devices that share a group.
      relu: apply a ReLU to the result. Its gradient then needs no pass over the maps.

    Returns:
      The normalised maps, of the shape and dtype of `x`; mean and variance, [groups, C], through
      which no gradient flows.
    """
    return _batch_normalization(x, scale, bias, near, epsilon, over_devices, relu)[0]


def moments_in_two_passes(
    over_devices: Callable[[Array], Array], x: Array, near: Array
) -> tuple[Array, Array]:
    """Mean and variance [groups, C] of [groups, n, H, W, C]; `near` is not needed."""
    size = math.prod(x.shape[1:4])
    mean = over_devices(channel_sums(x) / size)
    return mean, over_devices(channel_sums(jnp.square(x - _on_maps(mean))) / size)


def moments_in_one_pass(
    over_devices: Callable[[Array], Array], x: Array, near: Array
) -> tuple[Array, Array]:
    """`moments_in_two_passes`, from sums of differences from `near` and of their squares.

    The variance has the relative error of a sum times 1 + (mean - near)^2 / variance.
    """
    size = math.prod(x.shape[1:4])
    apart = x - near
    first, second = (over_devices(channel_sums(y) / size) for y in (apart, jnp.square(apart)))
    return first + near, jnp.maximum(second - jnp.square(first), 0)


def _batch_normalization(
    x: Array,
    scale: Array,
    bias: Array,
    near: Array,
    epsilon: float,
    over_devices: Callable[[Array], Array],
    relu: bool,
) -> tuple[tuple[Array, Array, Array], tuple[Array | None, ...]]:
    wide = widened(x)
    mean, variance = lax.platform_dependent(
        wide,
        near,
        cpu=partial(moments_in_two_passes, over_devices),
        default=partial(moments_in_one_pass, over_devices),
    )
    inverse = lax.rsqrt(variance + epsilon)
    factor = scale * inverse
    out = wide * _on_maps(factor) + _on_maps(bias - mean * factor)
    out = (jnp.where(out <= 0, 0, out) if relu else out).astype(x.dtype)
    return (out, mean, variance), (x, out, scale, bias, mean, inverse)


def normalization_gradients(
    from_result: bool,
    over_devices: Callable[[Array], Array],
    relu: bool,
    gradient: Array,
    kept: tuple[Array, ...],
) -> tuple[Array, Array, Array]:
    """The gradients by `x`, scale and bias, in two passes over the maps.

    CPUs and TPUs read a ReLU's derivative from its result. GPUs are bound by memory: there it is
    computed from what a pass reads anyway, once for each pass. Without the barriers XLA would
    compute it once and keep it.
    """
    x, out, scale, bias, mean, inverse = kept
    size = math.prod(x.shape[1:4])

    def again(*values: Array) -> tuple[Array, ...]:
        return lax.optimization_barrier(values) if relu and not from_result else values

    def read(x: Array, gradient: Array) -> tuple[Array, Array]:
        """The normalised maps, and their gradient."""
        normalized = (widened(x) - _on_maps(mean)) * _on_maps(inverse)
        gradient = widened(gradient)
        if relu:
            passes = out > 0 if from_result else normalized * scale > -bias
            gradient = jnp.where(passes, gradient, 0)
        return normalized, gradient

    x, gradient = again(x, gradient)
    normalized, of_maps = read(x, gradient)
    along, total = channel_sums(of_maps * normalized), channel_sums(of_maps)
    means = over_devices(along / size), over_devices(total / size)
    x, gradient, along_mean, mean_gradient = again(x, gradient, *means)
    normalized, of_maps = read(x, gradient)
    apart = normalized * _on_maps(along_mean) + _on_maps(mean_gradient)
    by_input = (of_maps - apart) * _on_maps(scale * inverse)
    return by_input.astype(x.dtype), along.sum(0), total.sum(0)


def _batch_normalization_backward(
    epsilon: float,
    over_devices: Callable[[Array], Array],
    relu: bool,
    kept: tuple[Array, ...],
    gradients: tuple[Array, Array, Array],
) -> tuple[Array | None, ...]:
    found = lax.platform_dependent(
        gradients[0],
        kept,
        cuda=partial(normalization_gradients, False, over_devices, relu),
        rocm=partial(normalization_gradients, False, over_devices, relu),
        default=partial(normalization_gradients, True, over_devices, relu),
    )
    return (*found, None)


batch_normalization.defvjp(_batch_normalization, _batch_normalization_backward)


def _on_maps(values: Array) -> Array:
    """[groups, C] -> [groups, 1, 1, 1, C]."""
    return values[:, None, None, None]


def dropout(x: Array, rate: float, keys: Array | None, *, inverted: bool) -> Array:
    """Dropout: in training each value is set to 0 with probability `rate`.

    As in Krizhevsky et al. 2012, section 4.2, the values kept are not rescaled in
    training, and all values are multiplied by 1 - rate in evaluation. The inverted form,
    of Caffe and later libraries, divides by 1 - rate in training instead: the same in
    expectation, but activations are larger at the start.

    Args:
      x: [batch, ...].
      rate: probability of dropping, in [0, 1).
      keys: one random key per example, [batch], so that an example's mask does not
        depend on how the batch is spread over devices; None in evaluation.
      inverted: rescale in training rather than in evaluation.

    Returns:
      Array of the shape and dtype of `x`.
    """
    if rate == 0.0:
        return x
    if keys is None:
        return x if inverted else x * (1.0 - rate)
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1.0 - rate) if inverted else x, 0)


def fold_in_each(keys: Array, number: Array | int) -> Array:
    """`jax.random.fold_in` applied to each of the keys: [batch] -> [batch]."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
