"""Published figures of accelerators, for models of a step's time.

The model is the usual one. Computing takes FLOPs / (share of the peak that is reached x peak),
memory traffic takes bytes / bandwidth, an exchange takes latency + bytes / link.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Machine:
    """One accelerator and its link to the next, as their makers publish them.

    Attributes:
      name: for tables.
      flops: peak FLOP/s in `dtype`.
      dtype: of the computation; activations and their exchanges are of it.
      memory_bandwidth: bytes/s.
      link: bytes/s that one accelerator sends to another.
      latency: seconds of an exchange that sends nothing.
    """

    name: str
    flops: float
    dtype: str
    memory_bandwidth: float
    link: float
    latency: float

    @property
    def activation_bytes(self) -> int:
        """Bytes of one activation."""
        return 4 if self.dtype == "float32" else 2


MACHINES = {
    # PCI Express 2.0 x16, from card to card without the host: 8 GB/s, of which 6 arrive.
    "gtx580": Machine("GTX 580 (2012)", 1.581e12, "float32", 192e9, 6e9, 20e-6),
    # NVLink 4: 900 GB/s both ways together.
    "h100": Machine("H100 SXM", 989e12, "bfloat16", 3.35e12, 450e9, 10e-6),
    # Four links of 400 Gbit/s; neighbours share one.
    "v5e": Machine("TPU v5e", 197e12, "bfloat16", 819e9, 50e9, 5e-6),
}


def all_reduce_seconds(size: float, devices: int, link: float, latency: float) -> float:
    """Seconds of a ring all-reduce, which sends 2 (n - 1) / n of the bytes over each link.

    Args:
      size: bytes that are summed.
      devices: n.
      link: bytes/s.
      latency: seconds of each of the 2 (n - 1) exchanges.
    """
    if devices == 1:
        return 0.0
    return 2 * (devices - 1) * (size / devices / link + latency)
