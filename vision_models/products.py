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


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def product_by_each(x: Array, kernels: Array, dtype: Any) -> list[Array]:
    """`product` of the same features [B, in] by each of [n, in, out].

    On TPUs the gradient by all kernels is one operation, of which the update is then a part.
    """
    return [product(x, kernel, dtype) for kernel in _each(kernels)]


def _each(kernels: Array) -> list[Array]:
    return [kernels[number] for number in range(len(kernels))]


def _by_each_forward(
    x: Array, kernels: Array, dtype: Any
) -> tuple[list[Array], tuple[Array, Array]]:
    return product_by_each(x, kernels, dtype), (x, kernels)


def _by_each_backward(
    dtype: Any, kept: tuple[Array, Array], gradients: list[Array]
) -> tuple[Array, Array]:
    def apart(x: Array, kernels: Array, gradients: list[Array]) -> tuple[Array, Array]:
        def products(x: Array, kernels: Array) -> list[Array]:
            return [product_of_cast(x, kernel, dtype) for kernel in _each(kernels)]

        return jax.vjp(products, x, kernels)[1](gradients)

    return lax.platform_dependent(*kept, gradients, tpu=gradients_together, default=apart)


def gradients_together(x: Array, kernels: Array, gradients: list[Array]) -> tuple[Array, Array]:
    """Gradients of `product_by_each` on TPUs, from those by each of its results."""
    narrow = [gradient.astype(x.dtype) for gradient in gradients]
    by_input = [
        product_of_wide(gradient, kernel.T, x.dtype)
        for gradient, kernel in zip(narrow, _each(kernels), strict=True)
    ]
    of_kernels = jnp.einsum(
        "nbi,nbo->nio", jnp.broadcast_to(x, (len(kernels), *x.shape)), jnp.stack(narrow)
    )
    return sum(by_input[1:], by_input[0]), of_kernels.astype(kernels.dtype)


product_by_each.defvjp(_by_each_forward, _by_each_backward)
