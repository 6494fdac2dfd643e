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
