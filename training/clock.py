"""The speed of training, and the most that the devices could reach."""

import contextlib
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from devices.accelerators import PEAKS


def peak_flops(mesh: Mesh) -> float:
    """The peak FLOP/s of the devices of a mesh.

    Known accelerators have their published bfloat16 figures. CPUs and unknown accelerators are
    measured by a product of two float32 matrices (some 50 ms). All CPU devices of a process
    are taken to be one processor.
    """
    device = mesh.local_devices[0]
    for name, peak in PEAKS.items():
        if device.platform != "cpu" and name in device.device_kind:
            return peak * mesh.size
    count = mesh.size if device.platform != "cpu" else mesh.size // len(mesh.local_devices)
    return count * measured_flops(device, 1536, "float32", 4)


def measured_flops(device: jax.Device, size: int, dtype: str, times: int) -> float:
    """The highest FLOP/s that products of two square matrices reach.

    Args:
      device: where they are computed.
      size: rows and columns of each matrix.
      dtype: the matrices'.
      times: number of products; the first compiles.
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
    """Measures the speed of training and the share of time spent waiting for data.

    Evaluation, saving and the first step, which compiles, do not count.
    """

    def __init__(self, batch_size: int, flops: float, peak: float) -> None:
        """Starts at the end of the first step.

        Args:
          batch_size: images per step.
          flops: FLOP of training on one image.
          peak: FLOP/s of all devices together at most.
        """
        self._batch_size, self._flops, self._peak = batch_size, flops, peak
        self.seconds_per_step = 0.0
        self._start: float | None = None
        self._waited = 0.0
        self._steps = 0

    def tick(self) -> None:
        """Counts a step that has ended."""
        if self._start is None:
            self._start, self._waited = time.perf_counter(), 0.0
        else:
            self._steps += 1

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Counts the time inside as waiting for a batch."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Leaves the time inside out."""
        start = time.perf_counter()
        yield
        if self._start is not None:
            self._start += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """`images_per_second`, `data_wait` and `mfu` (fractions of 1) since the last reading.

        `mfu` is the model FLOP utilisation: the FLOP/s of training over the peak. A
        multiply-add counts as two FLOP, and the backward pass as two forward passes. A peak that
        was measured while others computed is corrected by what training reaches.
        """
        if self._start is None or not self._steps:
            return {"images_per_second": 0.0, "data_wait": 0.0, "mfu": 0.0}
        now = time.perf_counter()
        elapsed = max(now - self._start, 1e-9)
        self.seconds_per_step = elapsed / self._steps
        speed = self._batch_size / self.seconds_per_step
        self._peak = max(self._peak, speed * self._flops)
        values = {
            "images_per_second": speed,
            "data_wait": min(self._waited / elapsed, 1.0),
            "mfu": speed * self._flops / self._peak,
        }
        self._start, self._waited, self._steps = now, 0.0, 0
        return values
