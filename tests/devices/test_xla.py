import platform
import subprocess
import sys

import jax
import numpy as np
import pytest

from devices.xla import compiler_options, options_to_run_once
from tests.conftest import ROOT

# Page faults of a call that needs 64 MiB for a while. Now and then a small array that came to lie
# in the midst of the memory for it makes a call take new memory, less and less often.
FAULTS = """
import ctypes, resource, sys
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of 4 KiB
import jax, jax.numpy as jnp
from devices.xla import keep_memory
if sys.argv[1] == "kept":
    keep_memory()
work = jax.jit(lambda x: x @ x.T @ x)
x = jnp.ones((4096, 16))
for _ in range(100):
    work(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    work(x).block_until_ready()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 100)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")
@pytest.mark.slow
def test_memory_that_is_kept_is_not_asked_for_again():
    """Counted in page faults, of 4 KiB each."""
    faults = {
        way: int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, way],
                cwd=ROOT,
                env={"JAX_PLATFORMS": "cpu", "PATH": ""},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for way in ("kept", "given back")
    }
    assert faults["given back"] > 1000
    assert faults["kept"] < faults["given back"] / 20


def test_options_are_ones_that_xla_knows():
    """Otherwise there are none, and convolutions would be slow without a word."""
    assert compiler_options()
    jax.jit(lambda x: x + 1, compiler_options=compiler_options()).lower(1.0).compile()


def test_a_program_that_runs_once_draws_the_same():
    """Bit for bit, so that parameters do not depend on how their draw was compiled."""

    def draw(key):
        return jax.random.normal(key, (1000, 7)), jax.random.uniform(key, (999,))

    assert options_to_run_once()
    quick = jax.jit(draw, compiler_options=options_to_run_once())(jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, quick, jax.jit(draw)(jax.random.key(3)))
