"""How fast training goes, and how fast it could."""

import contextlib
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

# Dense bfloat16 FLOP/s of an accelerator by a part of its name, as its maker publishes them.
# The first that matches counts.
_PEAKS = {
    "v6": 918e12,
    "v5 lite": 197e12,
    "v5e": 197e12,
    "v5": 459e12,  # v5p
    "v4": 275e12,
    "v3": 123e12 / 2,  # a device is one of two cores
    "v2": 45e12 / 2,
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "T4": 65e12,  # float16
    "V100": 125e12,  # float16
}


def peak_flops(mesh: Mesh) -> float:
    """FLOP/s that the devices of a mesh can make at most.

    The published bfloat16 figures of known accelerators. CPUs, and accelerators that are not
    known, are measured: what the multiplication of two float32 matrices reaches (some 50 ms);
    all CPU devices of a process are taken to be the same processor.
    """
    device = mesh.local_devices[0]
    for name, peak in _PEAKS.items():
        if device.platform != "cpu" and name in device.device_kind:
            return peak * mesh.size
    count = mesh.size if device.platform != "cpu" else mesh.size // len(mesh.local_devices)
    return count * measured_flops(device, 1536, "float32", 4)


def measured_flops(device: jax.Device, size: int, dtype: str, times: int) -> float:
    """FLOP/s that the product of two matrices reaches at best.

    Args:
      device: where.
      size: rows and columns of both.
      dtype: of both.
      times: to try, the first of which compiles.
    """
    ones = jax.device_put(jnp.ones((size, size), dtype), device)
    multiply = jax.jit(jnp.matmul)
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        multiply(ones, ones).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


class Clock:
    """Measures the speed of training, and what part of the time goes into waiting for data.

    Neither evaluation and saving nor the first step, which compiles, count.
    """

    def __init__(self, batch_size: int, flops: float, peak: float) -> None:
        """Runs from the end of the first step.

        Args:
          batch_size: images of a step.
          flops: of training on one image.
          peak: FLOP/s that the devices can make together.
        """
        self._batch_size, self._flops, self._peak = batch_size, flops, peak
        self.seconds_per_step = 0.0
        self._start: float | None = None
        self._waited = 0.0
        self._steps = 0

    def tick(self) -> None:
        """A step has ended."""
        if self._start is None:
            self._start, self._waited = time.perf_counter(), 0.0
        else:
            self._steps += 1

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Inside, the loop waits for a batch."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Inside, time does not count."""
        start = time.perf_counter()
        yield
        if self._start is not None:
            self._start += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """Since the last reading: `images_per_second`, `data_wait` and `mfu` (shares of 1).

        The latter is model FLOP utilisation: the multiply-adds that the network's formulas
        need, twice, for one pass forward and two of that size backward, over the peak.
        """
        if self._start is None or not self._steps:
            return {"images_per_second": 0.0, "data_wait": 0.0, "mfu": 0.0}
        now = time.perf_counter()
        elapsed = max(now - self._start, 1e-9)
        self.seconds_per_step = elapsed / self._steps
        speed = self._batch_size / self.seconds_per_step
        values = {
            "images_per_second": speed,
            "data_wait": min(self._waited / elapsed, 1.0),
            "mfu": speed * self._flops / self._peak,
        }
        self._start, self._waited, self._steps = now, 0.0, 0
        return values
