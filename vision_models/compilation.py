"""How XLA is to compile these networks."""

import functools

import jax


@functools.cache
def compiler_options() -> dict[str, str]:
    """Options for `jax.jit(..., compiler_options=...)` of programs with convolutions.

    On CPUs XLA of 2026 hands float32 convolutions to YNNPACK by default, whose weight
    gradients of large maps are several times slower than those of Eigen
    (`python -m benchmarks.layers`); matrix products stay there. Elsewhere, and where XLA does
    not know the option, none.
    """
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options
