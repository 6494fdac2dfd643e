"""Published figures of accelerators, for models of a step's time.

The model is the usual one. Computing takes FLOPs / (share of the peak that is reached x peak),
memory traffic takes bytes / bandwidth, an exchange takes latency + bytes / link.
"""

from devices.accelerators import ACCELERATORS, Accelerator

Machine = Accelerator
MACHINES = {
    # PCI Express 2.0 x16, from card to card without the host: 8 GB/s, of which 6 arrive.
    "gtx580": Accelerator("GTX 580 (2012)", 1.581e12, "float32", 192e9, 6e9, 20e-6),
    "h100": ACCELERATORS["h100"],
    "v5e": ACCELERATORS["v5e"],
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
