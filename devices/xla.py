"""XLA's options for compiling and running these networks."""

import ctypes
import functools
import hashlib
import platform
from pathlib import Path

import jax
from jax.sharding import Mesh


def platform_of(mesh: Mesh) -> str:
    """The platform that a program on a mesh is compiled for: `cpu`, `gpu` or `tpu`."""
    return str(mesh.devices.flat[0].platform)


@functools.cache
def compiler_options(platform: str | None = None) -> dict[str, str]:
    """Options for `jax.jit(..., compiler_options=...)` of programs with convolutions.

    On CPUs XLA of 2026 gives float32 convolutions to YNNPACK by default, which is slower at most
    of them than Eigen (docs/speed.md); matrix products stay with YNNPACK. There are no options
    on other platforms, and where XLA does not know this one.

    Args:
      platform: that the program is compiled for; None for this process's.
    """
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
    if (platform or jax.default_backend()) != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def options_to_run_once(platform: str | None = None) -> dict[str, int]:
    """Options for `jax.jit` of a program that runs once, such as the draw of all parameters.

    On CPUs the program compiles faster, and gives the same numbers.

    Args:
      platform: as for `compiler_options`.
    """
    on_cpu = (platform or jax.default_backend()) == "cpu"
    return {"xla_backend_optimization_level": 1} if on_cpu else {}


# Parameters of mallopt, from malloc.h of the GNU C library.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_memory() -> None:
    """On CPUs, keeps memory that a program has freed in this process, for the next call.

    Otherwise each training step gets zeroed memory from the system, page by page
    (docs/speed.md has the cost). Must be called before JAX has devices, and after
    `jax.distributed.initialize`. Programs for the CPU then run synchronously. Memory is left
    alone with an accelerator, and where the C library is not GNU's.
    """
    # Synchronous programs run in the calling, main thread. Other threads allocate from arenas
    # that hold no blocks above 64 MiB.
    if "jax_cpu_enable_async_dispatch" in jax.config.values:  # not in JAX's stable interface
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    if jax.default_backend() == "cpu" and platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_TRIM_THRESHOLD, -1)
        library.mallopt(_MMAP_MAX, 0)


def keep_compiled(directory: Path) -> None:
    """Keeps compiled programs in a directory, so that the next run need not compile them again.

    This is JAX's persistent compilation cache. It holds programs that took a second or more to
    compile, in one subdirectory per kind of host, for programs may contain a host's special
    instructions. A cache that the user chose (JAX_COMPILATION_CACHE_DIR) stays.

    Args:
      directory: made if it does not exist. If that fails, JAX prints it, and compiles. Nothing
        is kept if its path is not UTF-8, which XLA needs.
    """
    try:
        str(directory.absolute()).encode()
    except UnicodeEncodeError:
        return
    if jax.config.values["jax_compilation_cache_dir"] is None:
        host = hashlib.sha256(_instructions().encode()).hexdigest()[:16]
        jax.config.update("jax_compilation_cache_dir", str(directory / host))


def _instructions() -> str:
    """A text that differs between hosts that cannot run each other's programs."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    flags = {line for line in lines if line.startswith(("flags", "Features"))}
    return " ".join([platform.machine(), platform.processor(), *sorted(flags)])
