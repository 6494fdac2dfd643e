"""Products of features and matrices: fully connected layers."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: Array, kernel: Array, dtype: Any) -> Array:
    """[B, in] times [in, out], both in the dtype of `x`; sums and result are in `dtype`.

    Only reverse-mode differentiation works.
    """
    return lax.platform_dependent(
        x,
        kernel,
        tpu=partial(product_of_wide, dtype=dtype),
        default=partial(product_of_cast, dtype=dtype),
    )


def product_of_cast(x: Array, kernel: Array, dtype: Any) -> Array:
    """`product`, of the kernel in the dtype of `x`."""
    return jnp.matmul(x, kernel.astype(x.dtype), preferred_element_type=dtype)


def product_of_wide(x: Array, kernel: Array, dtype: Any) -> Array:
    """`product` on TPUs, whose matrix unit rounds float32 to bfloat16 as it reads, unless told.

    A copy of the kernel in bfloat16 would be written first.
    """
    if x.dtype == kernel.dtype:
        return product_of_cast(x, kernel, dtype)
    wide = x.astype(kernel.dtype)
    return jnp.matmul(wide, kernel, precision=lax.Precision.DEFAULT).astype(dtype)


def _product_forward(x: Array, kernel: Array, dtype: Any) -> tuple[Array, tuple[Array, Array]]:
    return product(x, kernel, dtype), (x, kernel)


def _product_backward(
    dtype: Any, kept: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = kept

    def cast(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
        return jax.vjp(partial(product_of_cast, dtype=dtype), x, kernel)[1](gradient)

    def wide(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
        _, of_kernel = cast(x, kernel, gradient)
        return product_of_wide(gradient.astype(x.dtype), kernel.T, x.dtype), of_kernel

    return lax.platform_dependent(x, kernel, gradient, tpu=wide, default=cast)


product.defvjp(_product_forward, _product_backward)
