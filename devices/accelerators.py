"""The accelerators that programs can be compiled for without having one, and their figures.

XLA's compilers for TPUs and GPUs run on any x86-64 Linux machine. `devices_of("v5e:2x2")` gives
devices that compile and do not run. A mesh of them takes the place of a mesh of real ones, and what
is compiled is the program that the hardware would run.

Sources of the figures. TPUs: Google's pages on each version (docs.cloud.google.com/tpu/docs/v5e and
so on) for peak, memory, bandwidth and links; v2 and v3: Jouppi et al. 2020, "A domain-specific
supercomputer for training deep neural networks", whose two cores a chip are two devices with half
of its figures each. The clock is the peak over what the chip's matrix units do in a cycle.
GPUs: NVIDIA's data sheets for peak (dense) and NVLink; the rest as the cards describe themselves
to CUDA, collected with XLA (xla/backends/gpu/target_config/specs).
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

import jax

from devices.errors import DeviceError

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """One device of a kind, and its link to the next, as their makers publish them.

    Attributes:
      name: for tables.
      flops: peak FLOP/s in `dtype`, dense.
      dtype: of the computation that `flops` is for.
      memory_bandwidth: bytes/s.
      link: bytes/s that one device sends to another of its host or slice, in one direction.
      latency: seconds of an exchange that sends nothing.
      platform: `tpu`, `cuda` or `cpu`; empty for one that nothing compiles for.
      memory: bytes; 0 where unknown.
      clock: cycles/s of a TPU; 0 for others.
      network: bytes/s that one device sends to another host; 0 where that is over the same links.
      host: chips of a host along each axis of a topology.
      largest: chips along each axis, in any order, of the largest topology.
      devices_per_chip: 2 where a device is one of a chip's two cores.
      options: further arguments of XLA's description of the topology.
      reported: part of the name that JAX gives such a device.
    """

    name: str
    flops: float
    dtype: str
    memory_bandwidth: float
    link: float
    latency: float
    platform: str = ""
    memory: int = 0
    clock: float = 0.0
    network: float = 0.0
    host: tuple[int, ...] = (1,)
    largest: tuple[int, ...] = (1,)
    devices_per_chip: int = 1
    options: dict[str, str] = dataclasses.field(default_factory=dict)
    reported: str = ""

    @property
    def activation_bytes(self) -> int:
        """Bytes of one activation."""
        return 4 if self.dtype == "float32" else 2

    @property
    def usable(self) -> int:
        """Bytes that a program may take: of a GPU, JAX takes three quarters by default."""
        return self.memory * 3 // 4 if self.platform == "cuda" else self.memory


def _tpu(
    name: str,
    reported: str,
    flops: float,
    memory: int,
    bandwidth: float,
    link: float,
    clock: float,
    largest: tuple[int, ...],
    cores: int = 1,
    **options: str,
) -> Accelerator:
    """A TPU, from the figures of a chip; `cores` are devices of their own."""
    return Accelerator(
        f"TPU {name}", flops / cores, "bfloat16", bandwidth / cores, link, 5e-6, "tpu",
        memory // cores, clock, host=(2, 2, 1)[: len(largest)], largest=largest,
        devices_per_chip=cores, options=options, reported=reported,
    )  # fmt: skip


def _gpu(
    name: str,
    reported: str,
    flops: float,
    bandwidth: float,
    link: float,
    network: float,
    description: dict[str, Any],
) -> Accelerator:
    """A GPU; `description` holds what differs between cards of what they tell CUDA."""
    major = description.pop("compute_capability")
    card = {
        "threads_per_block_limit": 1024, "threads_per_warp": 32, "shared_memory_per_block": 49152,
        "threads_per_core_limit": 2048, "block_dim_limit_x": 2147483647,
        "block_dim_limit_y": 65535, "block_dim_limit_z": 65535,
        "registers_per_core_limit": 65536, "registers_per_block_limit": 65536,
        "memory_bandwidth": int(bandwidth), **description,
    }  # fmt: skip
    fields = " ".join(f"{field}: {value}" for field, value in card.items())
    target = (
        f"gpu_device_info {{ {fields} cuda_compute_capability {{ major: {major} minor: 0 }} }} "
        'platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 patch: 0 } '
        f'device_description_str: "{name}"'
    )
    return Accelerator(
        name, flops, "bfloat16", bandwidth, link, 1e-5, "cuda", description["device_memory_size"],
        network=network, host=(8,), largest=(4096,), options={"target_config": target},
        reported=reported,
    )  # fmt: skip


def _hopper(memory: int) -> dict[str, Any]:
    return {
        "compute_capability": 9, "core_count": 132, "fpus_per_core": 128, "clock_rate_ghz": 1.98,
        "l2_cache_size": 52428800, "shared_memory_per_core": 233472,
        "shared_memory_per_block_optin": 232448, "device_memory_size": memory,
    }  # fmt: skip


def _ampere(memory: int) -> dict[str, Any]:
    return {
        "compute_capability": 8, "core_count": 108, "fpus_per_core": 64, "clock_rate_ghz": 1.41,
        "l2_cache_size": 41943040, "shared_memory_per_core": 167936,
        "shared_memory_per_block_optin": 166912, "device_memory_size": memory,
    }  # fmt: skip


_BLACKWELL = {
    "compute_capability": 10, "core_count": 148, "fpus_per_core": 128, "clock_rate_ghz": 1.965,
    "l2_cache_size": 132644864, "shared_memory_per_core": 233472,
    "shared_memory_per_block_optin": 232448, "device_memory_size": 191514411008,
}  # fmt: skip

ACCELERATORS = {
    "v2": _tpu("v2", "v2", 46e12, 16 * _GIB, 700e9, 62e9, 0.70e9, (16, 16), cores=2),
    "v3": _tpu("v3", "v3", 123e12, 32 * _GIB, 900e9, 82e9, 0.94e9, (32, 32), cores=2),
    # One device a chip, as Cloud TPU sets it up.
    "v4": _tpu(
        "v4",
        "v4",
        275e12,
        32 * _GIB,
        1228e9,
        50e9,
        1.05e9,
        (16, 16, 16),
        chip_config_name="megacore",
    ),
    "v5e": _tpu("v5e", "v5 lite", 197e12, 16 * _GIB, 819e9, 50e9, 1.5e9, (16, 16)),
    "v5p": _tpu("v5p", "v5", 459e12, 95 * _GIB, 2765e9, 100e9, 1.75e9, (16, 16, 24)),
    "v6e": _tpu("v6e", "v6", 918e12, 32 * _GIB, 1640e9, 100e9, 1.75e9, (16, 16)),
    # NVLink 3, 4 and 5: 600, 900 and 1,800 GB/s both ways together. Between hosts InfiniBand: a
    # card's own adapter of 200 or 400 Gbit/s.
    "a100_40": _gpu(
        "NVIDIA A100-SXM4-40GB", "A100", 312e12, 1555.2e9, 300e9, 25e9, _ampere(42331013120)
    ),
    "a100": _gpu(
        "NVIDIA A100-SXM4-80GB", "A100", 312e12, 2039.04e9, 300e9, 25e9, _ampere(85100068864)
    ),
    "h100": _gpu(
        "NVIDIA H100 80GB HBM3", "H100", 989e12, 3352.32e9, 450e9, 50e9, _hopper(84942979072)
    ),
    "h200": _gpu(
        "NVIDIA H200 141GB HBM3e", "H200", 989e12, 4800e9, 450e9, 50e9, _hopper(151397597184)
    ),
    "b200": _gpu("NVIDIA B200", "B200", 2250e12, 7672.32e9, 900e9, 50e9, dict(_BLACKWELL)),
    # This machine's processor as so many devices: what it compiles is exact, its time unknown.
    "cpu": Accelerator("CPU", 0.0, "float32", 0.0, 0.0, 0.0, "cpu", host=(256,), largest=(256,)),
}

# Peak FLOP/s of a device by a part of the name that JAX reports; the first match counts. Further
# ones than can be compiled for here, from the same kind of sources.
PEAKS = {
    **{
        a.reported: a.flops for a in reversed(ACCELERATORS.values()) if a.reported not in ("", "v5")
    },
    "v5e": ACCELERATORS["v5e"].flops,
    "v5": ACCELERATORS["v5p"].flops,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "T4": 65e12,  # float16
    "V100": 125e12,  # float16
}


@dataclasses.dataclass(frozen=True)
class Target:
    """What a program is compiled for.

    Attributes:
      text: as it was asked for, such as `v5e:2x2`.
      accelerator: its kind.
      shape: chips along each axis of the topology.
    """

    text: str
    accelerator: Accelerator
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        """Number of chips, or of GPUs."""
        return math.prod(self.shape)

    @property
    def hosts(self) -> int:
        """Number of hosts, each a process."""
        return -(-self.chips // math.prod(self.accelerator.host))


def target_of(text: str | None) -> Target:
    """Reads `KIND:CHIPS` or `KIND:TOPOLOGY`, such as `v5e:4`, `v5e:2x2`, `v5p:2x2x1`, `h100:8`.

    Chips of a TPU without a topology are laid out as nearly square as their number allows.

    Raises:
      DeviceError: the kind is unknown, or its hosts do not make up the topology.
    """
    text = text or ""
    kind, _, size = text.partition(":")
    if kind not in ACCELERATORS:
        said = (
            f"--accelerator={text}: no such kind" if text else "--accelerator=KIND:CHIPS is missing"
        )
        raise DeviceError(
            f"{said}; there are {', '.join(ACCELERATORS)}, each with chips or a topology, as "
            "v5e:2x2 or h100:8"
        )
    accelerator = ACCELERATORS[kind]
    host = accelerator.host
    if re.fullmatch(r"[1-9]\d{0,4}(x[1-9]\d{0,4}){0,2}", size) is None:
        raise DeviceError(
            f"--accelerator={text}: say how many, as {kind}:{math.prod(host) if size else 1}"
            if accelerator.platform != "tpu"
            else f"--accelerator={text}: give chips or a topology, as {kind}:1 or {kind}:"
            f"{'x'.join(map(str, host))}"
        )
    shape = tuple(map(int, size.split("x")))
    if len(shape) == 1 and len(host) > 1:
        shape = _laid_out(text, shape[0], len(host))
    if len(shape) == 2 and len(host) == 3:
        shape += (1,)
    if len(shape) == 3 and len(host) == 2 and shape[2] == 1:
        shape = shape[:2]
    if len(shape) != len(host):
        axes = "a number" if len(host) == 1 else f"{len(host)} axes"
        raise DeviceError(f"--accelerator={text}: {accelerator.name} takes {axes}")
    # XLA ends the process at some that are larger; thousands of CPU devices would stop the machine.
    if any(s > most for s, most in zip(sorted(shape), sorted(accelerator.largest), strict=True)):
        most = "x".join(map(str, accelerator.largest))
        raise DeviceError(f"--accelerator={text}: at most {kind}:{most}")
    if len(host) == 1:  # any number of a host's GPUs
        divides = shape[0] <= host[0] or shape[0] % host[0] == 0
    else:
        pairs = list(zip(shape, host, strict=True))
        divides = all(h % s == 0 for s, h in pairs) or all(s % h == 0 for s, h in pairs)
    if not divides:
        per_host = "x".join(map(str, host))
        raise DeviceError(
            f"--accelerator={text}: does not divide into hosts of {per_host}; choose "
            + ("a multiple" if len(host) == 1 else "multiples")
            + f" of {per_host}, or a part of one host"
        )
    return Target(text, accelerator, shape)


def _laid_out(text: str, chips: int, dimensions: int) -> tuple[int, ...]:
    """The topology of a number of chips: powers of two, shared out among the axes."""
    exponent = chips.bit_length() - 1
    if chips != 1 << exponent:
        raise DeviceError(
            f"--accelerator={text}: {chips} chips can be laid out in several ways; give a "
            f"topology, as {text.partition(':')[0]}:{'x'.join(['4'] * dimensions)}"
        )
    if dimensions == 3 and chips <= 4:
        return (2 if chips > 1 else 1, 2 if chips > 2 else 1, 1)  # a part of a host
    shares = [exponent // dimensions] * dimensions
    for extra in range(exponent % dimensions):
        shares[-1 - extra] += 1
    return tuple(1 << share for share in shares)


def check_installed(target: Target) -> None:
    """Checks that the compiler of a platform is installed.

    Raises:
      DeviceError: an extra is missing; the message says which.
    """
    needed = {"tpu": ("libtpu",), "cuda": ("jax_plugins.xla_cuda12", "nvidia.cuda_nvcc")}
    for module in needed.get(target.accelerator.platform, ()):
        found = None
        with contextlib.suppress(ModuleNotFoundError):  # of the package around it
            found = importlib.util.find_spec(module)
        if found is None:
            extra = {"tpu": "tpu", "cuda": "compile-cuda"}[target.accelerator.platform]
            raise DeviceError(
                f"--accelerator={target.text}: {target.accelerator.name} needs its compiler, which "
                f"is not installed ({module}): pip install -e '.[{extra}]'"
            )


def prepare_environment(target: Target) -> None:
    """Sets what the compilers read from the environment; must come before JAX has devices.

    The process itself computes on the CPU and leaves accelerators of this machine alone.
    """
    with contextlib.suppress(RuntimeError):  # there are devices already, as in tests
        jax.config.update("jax_platforms", "cpu")
        forced = "--xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
        if target.accelerator.platform == "cpu" and not forced:
            jax.config.update("jax_num_cpu_devices", target.chips)
    platform = target.accelerator.platform
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if platform == "tpu":
        # libtpu would ask the cloud which machine this is, and locks a file.
        os.environ.update(
            TPU_SKIP_MDS_QUERY="1",
            TPU_ACCELERATOR_TYPE="v5litepod-4",
            TPU_WORKER_HOSTNAMES="localhost",
            ALLOW_MULTIPLE_LIBTPU_LOAD="1",
        )
    elif platform == "cuda":
        spec = importlib.util.find_spec("nvidia.cuda_nvcc")
        assert spec is not None and spec.submodule_search_locations, "see check_installed"
        flags = {
            # Without a card no kernels can be tried out.
            "--xla_gpu_autotune_level": "0",
            "--xla_gpu_cuda_data_dir": next(iter(spec.submodule_search_locations)),
        }
        given = os.environ.get("XLA_FLAGS", "")
        added = [f"{flag}={value}" for flag, value in flags.items() if flag not in given]
        os.environ["XLA_FLAGS"] = " ".join([given, *added]).strip()
        os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"


def devices_of(target: Target | str) -> list[jax.Device]:
    """Devices that compile for a target and do not run; of a CPU, real ones.

    Raises:
      DeviceError: see `target_of` and `check_installed`; or XLA does not know the topology.
    """
    if isinstance(target, str):
        target = target_of(target)
    accelerator = target.accelerator
    check_installed(target)
    prepare_environment(target)
    if accelerator.platform == "cpu":
        found = jax.devices("cpu")
        if len(found) < target.chips:
            raise DeviceError(
                f"--accelerator={target.text}: JAX has {len(found)} CPU devices in this process"
            )
        return list(found[: target.chips])
    from jax.experimental import topologies

    options: dict[str, Any] = dict(accelerator.options)
    if accelerator.platform == "cuda":
        hosts = target.hosts
        options["topology"] = f"1x{hosts}x{target.chips // hosts}"
    else:
        shape = (*target.shape, 1)[:3]
        kind = target.text.partition(":")[0]
        options["topology_name"] = f"{kind}:{'x'.join(map(str, shape))}"
        host = (*accelerator.host, 1)[:3]
        if any(s < h for s, h in zip(shape, host, strict=True)):
            options["chips_per_host_bounds"] = shape
    try:
        described = topologies.get_topology_desc(platform=accelerator.platform, **options)
    except (jax.errors.JaxRuntimeError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:300]
        raise DeviceError(f"--accelerator={target.text}: {reason}") from error
    return list(described.devices)


def host_of(target: Target, device: int) -> int:
    """Number of the host of a device, for devices that are numbered host by host."""
    return device * target.hosts // (target.chips * target.accelerator.devices_per_chip)
