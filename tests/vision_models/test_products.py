import jax
import jax.numpy as jnp
import numpy as np

from vision_models import products


def test_product_of_a_wide_kernel_equals_that_of_a_cast_one():
    """To the rounding of the kernel, which CPUs do not round."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(4, 64)), jnp.bfloat16)
    kernel = jnp.asarray(rng.normal(size=(64, 8)), jnp.float32)
    cast = products.product_of_cast(x, kernel, jnp.float32)
    wide = products.product_of_wide(x, kernel, jnp.float32)
    terms = np.abs(np.asarray(x, np.float32)) @ np.abs(kernel)
    assert cast.dtype == wide.dtype == jnp.float32
    assert (np.abs(wide - cast) <= 2**-8 * terms).all()


def test_gradients_of_several_kernels_together_equal_those_of_each():
    rng = np.random.default_rng(0)
    x, kernels = (
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((4, 16), (2, 16, 8))
    )
    gradients = [jnp.asarray(rng.normal(size=(4, 8)), jnp.float32) for _ in range(2)]
    outputs, back = jax.vjp(lambda x, kernels: [x @ kernel for kernel in kernels], x, kernels)
    ours, ours_back = jax.vjp(
        lambda x, kernels: products.product_by_each(x, kernels, x.dtype), x, kernels
    )
    np.testing.assert_array_equal(ours, outputs)
    for found in (ours_back(gradients), products.gradients_together(x, kernels, gradients)):
        for values, expected in zip(found, back(gradients), strict=True):
            np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
