import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vision_models.convolution import convolve, convolve_by_each, gradients_together

pytestmark = pytest.mark.quick

PADDINGS = [((0, 0), (0, 0)), ((1, 1), (1, 1)), ((2, 0), (0, 3)), ((4, 4), (5, 4))]


@pytest.mark.parametrize("window", [1, 3, 5])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("width", [8, 9])
@pytest.mark.parametrize(
    "maps", [(3, 24), (24, 3), pytest.param((16, 16), marks=pytest.mark.slow), (24, 24)]
)
def test_convolutions_and_their_gradients_equal_xlas(window, padding, width, maps):
    """Few maps and many, an even and an odd number of columns, more padding than the window."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(size=(2, 7, width, maps[0])))
        kernel = jnp.asarray(rng.normal(size=(window, window, *maps)))

        def xlas(x, kernel):
            return lax.conv_general_dilated(
                x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
            )

        out, back = jax.vjp(lambda x, kernel: convolve(x, kernel, padding=padding), x, kernel)
        expected, expected_back = jax.vjp(xlas, x, kernel)
        np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)
        gradient = jnp.asarray(rng.normal(size=out.shape))
        for ours, theirs in zip(back(gradient), expected_back(gradient), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("stride", [1, 4])
def test_gradients_of_several_kernels_together_equal_those_of_each(stride):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 11, 11, 3)), jnp.float32)
    kernels = [jnp.asarray(rng.normal(size=(5, 5, 3, 4)), jnp.float32) for _ in range(2)]
    biases = [jnp.asarray(rng.normal(size=4), jnp.float32) for _ in range(2)]
    window = {"stride": stride, "padding": ((0, 1), (0, 1))}

    def outputs(x, kernels):
        return [convolve(x, *of, **window) for of in zip(kernels, biases, strict=True)]

    expected, back = jax.vjp(outputs, x, kernels)
    ours = convolve_by_each(x, kernels, biases, **window)
    np.testing.assert_array_equal(ours, expected)
    gradients = [jnp.asarray(rng.normal(size=maps.shape), jnp.float32) for maps in ours]
    by_input, of_kernels = gradients_together(window["padding"], stride, x, kernels, gradients)
    expected_by_input, expected_of_kernels = back(gradients)
    np.testing.assert_allclose(by_input, expected_by_input, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(of_kernels, expected_of_kernels, rtol=1e-5, atol=1e-4)


def test_no_images_have_no_output():
    assert convolve(jnp.zeros((0, 8, 8, 3)), jnp.zeros((3, 3, 3, 5))).shape == (0, 6, 6, 5)
