"""What layers compute, as functions: neurons, initialisers, normalisations, pools, convolution.

Arrays are channels-last, [batch, height, width, channels]. Computation runs in
the dtype of the input (parameters are cast to it), except where a docstring
says otherwise.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

NEURONS: dict[str, Callable[[Array], Array]] = {
    "identity": lambda x: x,
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    # A tanh(S a), A = 1.7159 and S = 2/3: LeCun et al. 1998, appendix A. f(1) is 1.
    "scaled_tanh": lambda x: 1.7159 * jnp.tanh((2 / 3) * x),
    # |tanh|: Jarrett et al. 2009, which AlexNet's section 3.1 compares with.
    "abs_tanh": lambda x: jnp.abs(jnp.tanh(x)),
    "sigmoid": jax.nn.sigmoid,
    # Slope .01 below zero: Maas et al. 2013.
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


# (key, shape, inputs of a unit, units that an input feeds) -> float32 array of that shape.
Initializer = Callable[[Array, Sequence[int], int, int], Array]
INITIALIZERS = ("gaussian", "xavier", "he")


def initializer(name: str, std: float = 0.01) -> Initializer:
    """A way to draw kernels, by name.

    Args:
      name: `gaussian`, of deviation `std`; `xavier`, uniform in +-sqrt(6 / (in + out))
        (Glorot and Bengio 2010, equation 16); `he`, Gaussian of variance 2 / in
        (He et al. 2015, equation 10).
      std: of `gaussian`.

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
        deviation = std if name == "gaussian" else math.sqrt(2 / fan_in)
        return deviation * jax.random.normal(key, shape, jnp.float32)

    return draw


def widened(x: Array) -> Array:
    """`x` in float32, where sums need it; in float64 if it is that already."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _channel_window_sum(x: Array, before: int, after: int) -> Array:
    """Sum over channels c-before .. c+after, clipped at both ends."""
    channels = x.shape[-1]
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(before, after)])
    total = padded[..., :channels]
    for shift in range(1, before + after + 1):
        total = total + padded[..., shift : shift + channels]
    return total


def _power_of_scale(scale: Array, beta: float) -> Array:
    """Scale ** -beta, avoiding the slow general power for the papers' beta of 3/4."""
    if beta == 0.75:
        return lax.rsqrt(scale * jnp.sqrt(scale))
    return scale**-beta


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _lrn(x: Array, size: int, k: float, alpha: float, beta: float) -> Array:
    before = size // 2
    scale = k + alpha * _channel_window_sum(x * x, before, size - 1 - before)
    return x * _power_of_scale(scale, beta)


def _lrn_forward(x: Array, size: int, k: float, alpha: float, beta: float) -> tuple[Array, Array]:
    return _lrn(x, size, k, alpha, beta), x


def _lrn_backward(
    size: int, k: float, alpha: float, beta: float, x: Array, gradient: Array
) -> tuple[Array]:
    # The scale is recomputed rather than kept: it costs a few adds, and keeping it
    # costs as much memory as the activations themselves.
    before = size // 2
    after = size - 1 - before
    scale = k + alpha * _channel_window_sum(x * x, before, after)
    power = _power_of_scale(scale, beta)
    # Channel i feeds the windows of the channels i-after .. i+before.
    inner = _channel_window_sum(gradient * x * power / scale, after, before)
    return (gradient * power - (2.0 * alpha * beta) * x * inner,)


_lrn.defvjp(_lrn_forward, _lrn_backward)


def local_response_normalization(
    x: Array,
    *,
    size: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    average: bool = False,
) -> Array:
    """Response normalisation across channels: x / (k + alpha * sum x^2)^beta.

    Krizhevsky et al. 2012, section 3.3; its constants are the defaults. The
    window is `size` channels centred on each channel, clipped at the first and
    the last. Computed in float32 whatever the dtype of `x`.

    Args:
      x: [..., channels], the channels of one tower: the window sees nothing else.
      size: channels in the window (n in the paper).
      k: constant term (2 in the paper, 1 in Caffe).
      alpha: factor of the sum of squares.
      beta: exponent.
      average: divide alpha by `size`, as cuda-convnet and Caffe do (a mean of
        squares); the paper's formula does not.

    Returns:
      Array of the shape and dtype of `x`.
    """
    alpha = alpha / size if average else alpha
    return _lrn(widened(x), size, k, alpha, beta).astype(x.dtype)


def spatial_response_normalization(
    x: Array, *, size: int = 5, k: float = 1.0, alpha: float = 1e-3, beta: float = 0.75
) -> Array:
    """Response normalisation over a size x size neighbourhood inside each map.

    cuda-convnet's `rnorm` layer: x / (k + alpha / size^2 * sum x^2)^beta, the
    window clipped at the borders. The 2012 code has one after its second
    cross-map normalisation (`cnorm2` of layers-145.cfg); the paper has not.
    Computed in float32 whatever the dtype of `x`.

    Args:
      x: [batch, height, width, channels].
      size: side of the window in pixels, odd.
      k: constant term.
      alpha: factor of the sum of squares, divided by the window's area.
      beta: exponent.

    Returns:
      Array of the shape and dtype of `x`.
    """
    wide = widened(x)
    total = lax.reduce_window(wide * wide, 0.0, lax.add, (1, size, size, 1), (1, 1, 1, 1), "SAME")
    return (wide * _power_of_scale(k + alpha / size**2 * total, beta)).astype(x.dtype)


POOLS = ("max", "average", "l2")
Padding = tuple[tuple[int, int], tuple[int, int]]  # zeros ((top, bottom), (left, right))


def pooled_size(
    size: int, window: int, stride: int, before: int = 0, after: int = 0, ceil: bool = False
) -> int:
    """Outputs of a convolution or pool along one axis: (W - F + 2P) / S + 1.

    Args:
      size: pixels W.
      window, stride: F and S.
      before, after: pixels of padding at both ends, 2P together.
      ceil: round up rather than down, as cuda-convnet and Caffe do in pools, but for a
        last window that would start outside the image and its padding on the left.
    """
    span = size - window + before + after
    if span < 0:
        return 1 if ceil and size + before > 0 else 0
    if not ceil:
        return span // stride + 1
    out = -(-span // stride) + 1
    return out - 1 if (out - 1) * stride >= size + before else out


def pool(
    x: Array,
    kind: str,
    *,
    window: int,
    stride: int,
    padding: Padding = ((0, 0), (0, 0)),
    ceil: bool = False,
) -> Array:
    """Maximum, average or L2 norm over window x window neighbourhoods.

    A window larger than the stride overlaps (Krizhevsky et al. 2012, section 3.4).
    Windows are clipped to the image: padding never is a maximum, and an average is over
    the pixels there are, as in cuda-convnet.

    Args:
      x: [batch, height, width, channels].
      kind: `max`, `average`, or `l2`, the root of the sum of squares.
      window, stride: in pixels, the same in both directions.
      padding: ((top, bottom), (left, right)).
      ceil: see `pooled_size`.

    Returns:
      [batch, `pooled_size` of height, of width, channels], of the dtype of `x`.
    """
    pads = []
    for size, (before, after) in zip(x.shape[1:3], padding, strict=True):
        out = pooled_size(size, window, stride, before, after, ceil)
        pads.append((before, max((out - 1) * stride + window - size - before, 0)))

    def windows(x: Array, initial: float, reduce: Callable[..., Array]) -> Array:
        return lax.reduce_window(
            x,
            np.array(initial, x.dtype),
            reduce,
            (1, window, window, 1),
            (1, stride, stride, 1),
            ((0, 0), *pads, (0, 0)),
        )

    if kind == "max":
        return windows(x, -np.inf, lax.max)
    if kind == "l2":
        return jnp.sqrt(windows(x * x, 0, lax.add) + np.array(1e-12, x.dtype))
    covered = [
        _covered(size, window, stride, before, after)
        for size, (before, after) in zip(x.shape[1:3], pads, strict=True)
    ]
    counts = np.outer(*covered)[None, :, :, None]
    return windows(x, 0, lax.add) / counts.astype(x.dtype)


def _covered(size: int, window: int, stride: int, before: int, after: int) -> np.ndarray:
    """How many real pixels each window along an axis covers, at least 1."""
    starts = np.arange((size + before + after - window) // stride + 1) * stride - before
    return np.maximum(np.minimum(starts + window, size) - np.maximum(starts, 0), 1)


def adaptive_average_pool(x: Array, size: int) -> Array:
    """Averages over size x size windows that share the image out, PyTorch's adaptive pool.

    Window i covers the pixels floor(i H / size) to ceil((i + 1) H / size) - 1.
    """

    def cuts(length: int) -> list[slice]:
        return [slice(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]

    rows = [x[:, rows] for rows in cuts(x.shape[1])]
    return jnp.stack(
        [jnp.stack([r[:, :, c].mean((1, 2)) for c in cuts(x.shape[2])], 1) for r in rows], 1
    )


def dropout(x: Array, rate: float, keys: Array | None, *, inverted: bool) -> Array:
    """Dropout: in training each value is set to 0 with probability `rate`.

    As in Krizhevsky et al. 2012, section 4.2, values kept are not rescaled, and in
    evaluation all are multiplied by 1 - rate. The inverted form, of Caffe and later
    libraries, divides by 1 - rate in training instead: the same in expectation, but
    networks start with larger activations.

    Args:
      x: [batch, ...].
      rate: probability of dropping, in [0, 1).
      inverted: rescale in training rather than in evaluation.
      keys: one random key per example, [batch]; None in evaluation. With a key
        per example the mask of an example does not depend on how the batch is
        spread over devices.

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


def convolve(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    stride: int = 1,
    padding: Padding = ((0, 0), (0, 0)),
) -> Array:
    """Convolution plus bias.

    Args:
      x: [batch, height, width, in].
      kernel: [kernel height, kernel width, in, out].
      bias: [out].
      stride: pixels between windows, the same in both directions.
      padding: zeros before and after, ((top, bottom), (left, right)).
    """
    out = lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        window_strides=(stride, stride),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return out if bias is None else out + bias.astype(x.dtype)
