import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from vision_models import layers, pooling
from vision_models.convolution import convolve
from vision_models.forward import Pass
from vision_models.functional import variables
from vision_models.lenet import C3_TABLE, RBFHead, SparseConv, Subsample, digit_codes
from vision_models.modules import NO_PADDING, BatchNorm, LocalResponseNorm
from vision_models.network import Block, Builder


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(3, 14),
    width=st.integers(3, 14),
    window=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 1),
    ceil=st.booleans(),
    kind=st.sampled_from(pooling.POOLS),
)
def test_pools_equal_a_loop(height, width, window, stride, padding, ceil, kind):
    """Windows clipped to the image; the output's size is (W - F + 2P) / S + 1."""
    padding = min(padding, window - 1)
    x = np.random.default_rng(height * 31 + width).normal(size=(1, height, width, 2))
    x = x.astype(np.float32)

    def windows(size):
        span = size + 2 * padding - window
        count = (-(-span // stride) if ceil else span // stride) + 1
        starts = [i * stride - padding for i in range(count)]
        return [(max(s, 0), min(s + window, size)) for s in starts if s < size]

    reduce = {
        "max": lambda v: v.max((0, 1)),
        "average": lambda v: v.mean((0, 1)),
        "padded_average": lambda v: v.sum((0, 1)) / window**2,
        "sum": lambda v: v.sum((0, 1)),
        "l2": lambda v: np.sqrt((v**2).sum((0, 1))),
    }[kind]
    by_hand = np.array(
        [[reduce(x[0, a:b, c:d]) for c, d in windows(width)] for a, b in windows(height)]
    )
    ours = pooling.pool(
        x, kind, window=window, stride=stride, padding=((padding, padding),) * 2, ceil=ceil
    )
    np.testing.assert_allclose(ours[0], by_hand, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "kind, reduce, initial", [("max", lax.max, -np.inf), ("average", lax.add, 0)]
)
@pytest.mark.parametrize(
    "window, stride, padding",
    [
        *((*sizes, NO_PADDING) for sizes in [(3, 2), (3, 1), (2, 2), (2, 3), (5, 3)]),
        pytest.param(16, 4, NO_PADDING, marks=pytest.mark.slow),
        *((3, stride, ((1, 1), (1, 1))) for stride in (1, 2, 3)),
        *((5, stride, ((4, 1), (0, 3))) for stride in (1, 2, 3)),
        (3, 2, ((0, 2), (1, 0))),
        (2, 3, ((1, 1), (0, 1))),
    ],
)
def test_gradients_of_pools_equal_those_of_xlas_windows(
    kind, reduce, initial, window, stride, padding
):
    """Few different values: of equal ones the first gets the gradient."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 4, (2, 18, 17, 3)), jnp.float32)
    windows = (1, window, window, 1), (1, stride, stride, 1), ((0, 0), *padding, (0, 0))

    def xlas(x):
        return lax.reduce_window(x, np.float32(initial), reduce, *windows)

    def ours(x):
        out = pooling.pool(x, kind, window=window, stride=stride, padding=padding)
        covered = lax.reduce_window(jnp.ones_like(x), 0.0, lax.add, *windows)
        return out if kind == "max" else out * covered

    def with_gradient(pool, gradient):
        out, back = jax.vjp(pool, x)
        return out, back(gradient)[0]

    shape = jax.eval_shape(ours, x).shape
    gradient = jnp.asarray(rng.normal(size=shape), jnp.float32)
    compiled = jax.jit(with_gradient, static_argnums=0)
    (out, back), (expected, expected_back) = compiled(ours, gradient), compiled(xlas, gradient)
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    np.testing.assert_allclose(back, expected_back, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["max", "sum"])
@pytest.mark.parametrize(
    "window, stride, pads", [(3, 2, ((1, 1), (0, 2))), (3, 1, ((1, 1), (1, 1))), (2, 3, NO_PADDING)]
)
def test_padded_pools_of_gpus_equal_those_by_blocks(window, stride, pads, kind, dtype):
    """Value and gradient; few different values, and below 0, where padding is larger."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-5, -1, (2, 9, 11, 3)), dtype)
    constants = kind, window, stride, pads
    out, back = jax.vjp(lambda x: pooling._over_windows(x, *constants), x)
    gradient = jnp.asarray(rng.integers(-9, 9, out.shape), dtype)
    np.testing.assert_array_equal(pooling.over_padded_windows(*constants, x), out)
    found = pooling.padded_windows_gradient(*constants, x, gradient)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, back(gradient)[0])


@pytest.mark.parametrize("kind", ["average", "padded_average", "sum", "l2"])
def test_pools_of_bfloat16_sum_in_float32(kind):
    x = jnp.ones((1, 20, 20, 1), jnp.bfloat16)  # 400 ones; sums of bfloat16 stay at 256
    out = pooling.pool(x, kind, window=20, stride=1)
    assert out.dtype == jnp.bfloat16
    assert float(out[0, 0, 0, 0]) == {"l2": 20, "sum": 400}.get(kind, 1)


def test_pools_that_cannot_be_are_named():
    x = jnp.zeros((1, 4, 4, 1))
    with pytest.raises(ValueError, match="maps of 4 x 4 in windows of 5: too small"):
        pooling.pool(x, "max", window=5, stride=2)
    with pytest.raises(ValueError, match=r"padding .* of windows of 2: at most 1"):
        pooling.pool(x, "max", window=2, stride=2, padding=((0, 2), (0, 0)))


@pytest.mark.parametrize("side, size", [(14, 4), (7, 3), (6, 6), (5, 2)])
def test_adaptive_pool_equals_a_loop(side, size):
    x = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
    cuts = [(i * side // size, -(-(i + 1) * side // size)) for i in range(size)]
    by_hand = np.array([[x[:, a:b, c:d].mean((1, 2)) for c, d in cuts] for a, b in cuts])
    ours = pooling.adaptive_average_pool(x, size)
    np.testing.assert_allclose(ours, by_hand.transpose(2, 0, 1, 3), rtol=1e-5, atol=1e-6)


def test_relu_of_gpus_equals_that_of_cpus():
    """Up to the sign of zero; NaNs stay. The slope at 0 is 0."""
    x = jnp.array([-np.inf, -2, -0.0, 0, 1e-30, 3, np.inf, np.nan], jnp.float32)
    for dtype in (jnp.float32, jnp.bfloat16):
        own = layers.rectified(x.astype(dtype))
        assert own.dtype == dtype
        cpus = layers.neuron("relu")(x.astype(dtype))
        np.testing.assert_array_equal(*(np.asarray(out, np.float32) for out in (own, cpus)))
    slope = jax.grad(lambda x: layers.neuron("relu")(x).sum())(x)
    np.testing.assert_array_equal(slope, [0, 0, 0, 0, 1, 1, 1, 1])


def test_neurons():
    x = np.linspace(-3, 3, 31).astype(np.float32)
    expected = {
        "identity": x,
        "relu": np.maximum(x, 0),
        "tanh": np.tanh(x),
        "scaled_tanh": 1.7159 * np.tanh(2 * x / 3),
        "abs_tanh": np.abs(np.tanh(x)),
        "sigmoid": 1 / (1 + np.exp(-x)),
        "leaky_relu": np.where(x < 0, 0.01 * x, x),
        "elu": np.where(x < 0, np.exp(x) - 1, x),
    }
    assert expected.keys() == layers.NEURONS.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(layers.neuron(name)(x), values, rtol=1e-5, atol=1e-6)
    # LeCun 1998: the scaled tanh goes through (1, 1) and (-1, -1).
    assert float(layers.neuron("scaled_tanh")(jnp.float32(1))) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    "name, deviation",
    [
        ("gaussian", 0.03),
        ("he", (2 / 50) ** 0.5),
        ("lecun", (1 / 50) ** 0.5),
        ("xavier", (2 / 250) ** 0.5),
    ],
)
def test_initialisers(name, deviation):
    draw = layers.initializer(name, 0.03)
    values = np.asarray(draw(jax.random.key(0), (500, 400), 50, 200))
    assert values.std() == pytest.approx(deviation, rel=0.01)
    assert abs(values.mean()) < 5 * deviation / np.sqrt(values.size)
    if name == "xavier":
        assert np.abs(values).max() <= (6 / 250) ** 0.5


def test_kernels_start_with_the_deviation_of_their_fan_in():
    """He's: sqrt(2 / fan-in) for convolutions, towers, matrices and local layers."""
    net = Builder(12, rngs=nnx.Rngs(0), init=layers.initializer("he"))
    net.conv("conv", 64, 5, padding=2)
    net.local("local", 32, 3, padding=1, init=net.init)
    net.dense("dense", 64)
    net.head("head", 10)
    params = variables(net.network())[0]
    for layer, fan_in in (("conv", 75), ("local", 576), ("dense", 12 * 12 * 32), ("head", 64)):
        kernel = np.asarray(params[layer]["kernel"])
        tolerance = 5 / np.sqrt(2 * kernel.size)
        assert kernel.std() == pytest.approx((2 / fan_in) ** 0.5, rel=tolerance), layer
        assert not params[layer]["bias"].any()


def test_locally_connected_layers_equal_a_loop():
    net = Builder(6, rngs=nnx.Rngs(0), channels=4, neuron="identity")
    net.local("local", 5, 3, padding=1, init=layers.initializer("gaussian", 0.5))
    part = net.by_name["local"]
    part.bias[...] = jax.random.normal(jax.random.key(1), part.bias.shape)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = np.asarray(part.kernel[...]).reshape(6, 6, 3, 3, 4, 5)
    by_hand = np.zeros((2, 6, 6, 5))
    for i, j in np.ndindex(6, 6):
        window = padded[:, i : i + 3, j : j + 3]
        by_hand[:, i, j] = np.tensordot(window, kernel[i, j], 3) + np.asarray(part.bias[i, j])
    np.testing.assert_allclose(part(x, Pass(), ""), by_hand, rtol=1e-4, atol=1e-5)


def test_lenets_c3_reads_what_table_1_says():
    """Equal to a dense convolution whose kernel is zero where the table has no cross."""
    part = SparseConv(5, neuron="identity", rngs=nnx.Rngs(0))
    kernel, dense, plane = np.asarray(part.kernel[...]), np.zeros((5, 5, 6, 16), np.float32), 0
    for out, reads in enumerate(C3_TABLE):
        for source in reads:
            dense[:, :, source, out] = kernel[:, :, plane]
            plane += 1
    assert plane == 60 == kernel.shape[-1]
    x = np.random.default_rng(0).normal(size=(3, 14, 14, 6)).astype(np.float32)
    expected = convolve(jnp.asarray(x), jnp.asarray(dense))
    np.testing.assert_allclose(part(x, Pass(), ""), expected, rtol=1e-4, atol=1e-5)
    # Columns of the table: each map of S2 feeds ten of C3's.
    assert [sum(m in reads for reads in C3_TABLE) for m in range(6)] == [10] * 6


def test_the_output_layer_of_lenet_is_a_distance():
    codes = digit_codes()
    assert codes.shape == (10, 84) and set(np.unique(codes)) == {-1.0, 1.0}
    distances = ((codes[:, None] - codes[None]) ** 2).sum(-1) / 4
    assert distances[~np.eye(10, dtype=bool)].min() >= 5  # no two digits nearly alike
    x = np.random.default_rng(0).normal(size=(3, 84)).astype(np.float32)
    expected = -((x[:, None] - codes[None]) ** 2).sum(-1)
    np.testing.assert_allclose(RBFHead()(x, Pass(), ""), expected, rtol=1e-5)


def test_subsampling_is_a_sum_a_factor_and_a_bias():
    part = Subsample(2, neuron="tanh", rngs=nnx.Rngs(0))
    part.bias[...] = jnp.array([0.3, -0.2])
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 2)).astype(np.float32)
    total = x.reshape(1, 2, 2, 2, 2, 2).sum((2, 4))
    expected = np.tanh(total * np.asarray(part.scale[...]) + [0.3, -0.2])
    np.testing.assert_allclose(part(x, Pass(), ""), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 2**-7)])
@pytest.mark.parametrize("relu", [False, True])
def test_batch_norms_accelerator_form_equals_differentiation(relu, dtype, tolerance):
    """Moments in one pass, and gradients with the ReLU's derivative computed again."""
    rng = np.random.default_rng(0)
    shape = 2, 4, 5, 5, 3
    x, gradient = (jnp.asarray(rng.normal(2, 3, shape), dtype) for _ in range(2))
    scale, bias, near = (jnp.asarray(rng.normal(1, 1, 3), jnp.float32) for _ in range(3))
    mean, variance = layers.moments_in_one_pass(lambda values: values, layers.widened(x), near)
    wide = np.asarray(x, np.float64)
    np.testing.assert_allclose(mean, wide.mean((1, 2, 3)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(variance, wide.var((1, 2, 3)), rtol=1e-5)

    def reference(x, scale, bias):
        mean, variance = x.mean((1, 2, 3), keepdims=True), x.var((1, 2, 3), keepdims=True)
        out = (x - mean) / jnp.sqrt(variance + 1e-5) * scale + bias
        return jnp.where(out > 0, out, 0) if relu else out

    with jax.enable_x64(True):
        exact = [jnp.asarray(np.asarray(a, np.float64)) for a in (x, scale, bias)]
        _, pull = jax.vjp(reference, *exact)
        expected = pull(jnp.asarray(np.asarray(gradient, np.float64)))
    kept = x, None, scale, bias, mean, jax.lax.rsqrt(variance + 1e-5)
    found = layers.normalization_gradients(False, lambda values: values, relu, gradient, kept)
    assert found[0].dtype == dtype
    for ours, theirs in zip(found, expected, strict=True):
        reach = np.abs(theirs).max()
        np.testing.assert_allclose(
            np.asarray(ours, np.float64), theirs, rtol=tolerance, atol=tolerance * reach
        )


def test_moments_in_one_pass_with_means_far_from_zero():
    """A mean of a thousand deviations costs nothing once the running mean is near it."""
    rng = np.random.default_rng(1)
    x = rng.normal(1000, 1, (1, 64, 8, 8, 2)).astype(np.float32)
    variance = x.astype(np.float64).var((1, 2, 3))
    for near, tolerance in ((999.0, 1e-5), (900.0, 2e-2)):
        _, found = layers.moments_in_one_pass(
            lambda values: values, jnp.asarray(x), jnp.full(2, near, jnp.float32)
        )
        np.testing.assert_allclose(found[0], variance[0], rtol=tolerance)


def test_batch_norm_in_training_and_evaluation():
    part = BatchNorm(3)
    part.scale[...], part.bias[...] = jnp.array([1.0, 2.0, 3.0]), jnp.array([0.5, 0.0, -1.0])
    rng = np.random.default_rng(0)
    mean, variance = np.zeros(3), np.ones(3)
    keys = jax.random.split(jax.random.key(0), 4)
    for _ in range(3):
        x = rng.normal(5, 3, (4, 6, 6, 3)).astype(np.float32)
        out = part(jnp.asarray(x), Pass(dropout_keys=keys), "")
        flat = x.reshape(-1, 3).astype(np.float64)
        expected = (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
        expected = expected * np.array([1, 2, 3]) + np.array([0.5, 0, -1])
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
        mean = 0.9 * mean + 0.1 * flat.mean(0)
        variance = 0.9 * variance + 0.1 * flat.var(0, ddof=1)
    np.testing.assert_allclose(part.mean[...], mean, rtol=1e-5)
    np.testing.assert_allclose(part.variance[...], variance, rtol=1e-5)
    evaluated = part(jnp.asarray(x), Pass(), "")
    expected = (x - mean) / np.sqrt(variance + 1e-5) * [1, 2, 3] + [0.5, 0, -1]
    np.testing.assert_allclose(evaluated, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(
    strides=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    shift=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_convolution_stacks_move_with_the_image(strides, shift, seed):
    """Shifting an image by the stack's stride shifts its maps by one pixel."""
    net = Builder(40, rngs=nnx.Rngs(seed), init=layers.initializer("he"))
    for number, stride in enumerate(strides):
        net.conv(f"conv{number}", 4, 3, stride=stride)
        if number == 0:
            net.add("norm", LocalResponseNorm())
            net.pool("pool", 2, 1)
    stack, jump = Block(net.by_name), int(np.prod(strides)) * shift
    image = np.random.default_rng(seed).normal(0, 1, (1, 40 + jump, 40 + jump, 3))
    image = image.astype(np.float32)
    whole = stack(jnp.asarray(image[:, :40, :40]), Pass(), "")
    moved = stack(jnp.asarray(image[:, jump:, jump:]), Pass(), "")
    np.testing.assert_allclose(
        moved[:, : whole.shape[1] - shift, : whole.shape[2] - shift],
        whole[:, shift:, shift:],
        rtol=1e-4,
        atol=1e-5,
    )


def test_dropout_is_the_papers():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 1000)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 64)
    dropped = np.asarray(layers.dropout(x, 0.3, keys, inverted=False))
    kept = dropped != 0
    np.testing.assert_array_equal(dropped[kept], np.asarray(x)[kept])  # not rescaled
    assert kept.mean() == pytest.approx(0.7, abs=5 * np.sqrt(0.21 / x.size))
    np.testing.assert_allclose(layers.dropout(x, 0.3, None, inverted=False), x * 0.7, rtol=1e-6)
    np.testing.assert_array_equal(layers.dropout(x, 0.0, keys, inverted=False), x)


def test_inverted_dropout_rescales_in_training():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 100)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 8)
    dropped = np.asarray(layers.dropout(x, 0.3, keys, inverted=True))
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], np.asarray(x)[kept] / 0.7, rtol=1e-6)
    np.testing.assert_array_equal(layers.dropout(x, 0.3, None, inverted=True), x)


def test_dropout_mask_of_an_example_depends_on_its_key_alone():
    x = jnp.ones((6, 50))
    keys = jax.random.split(jax.random.key(0), 6)
    whole = layers.dropout(x, 0.5, keys, inverted=True)
    np.testing.assert_array_equal(layers.dropout(x[2:4], 0.5, keys[2:4], inverted=True), whole[2:4])
    assert not np.array_equal(whole[0], whole[1])


def test_unknown_neuron_lists_the_known():
    with pytest.raises(ValueError, match=r"unknown neuron 'rleu'.*identity, relu, tanh"):
        layers.neuron("rleu")
