"""Score maps of whole images beside PyTorch's: images of many sizes, as a set of photographs has.

    python -m benchmarks.dense [--quick] [--networks alexnet vgg_d] [--side=Q] [--photographs=N]
        [--batch=N] [--data=DIR]

Sizes are those of the sample photographs in `--data` (default: `VISION_MODELS_DATA`), scaled to a
shorter side of Q; pixels are noise, in memory and normalised. Ours pads images to a few shapes;
PyTorch's, eager, channels_last, takes them one at a time (`single`) or in batches of equal size
(`equal`). `ratio` is to the faster of these. A turn is all of the photographs. Every shape runs
once before that, so that compiling does not count.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report, sides, turns, workload
from evaluation import whole

NETWORKS = ("alexnet", "vgg_d")


@dataclasses.dataclass(frozen=True)
class Case:
    """One contestant's work.

    Attributes:
      side: `ours`, `single` or `equal`.
      name: of a network.
      batch: images, at most.
      dtype: of the computation.
      sizes: height and width of each image.
      platform: of JAX's device, as in `workload.Case`.
    """

    side: str
    name: str
    batch: int
    dtype: str
    sizes: list[list[int]]
    platform: str


def photographs(data: Path) -> list[Path]:
    """The sample photographs, sorted; ends the program where there are none."""
    files = sorted(data.glob("imagenet_sample/*/*/*.JPEG"))
    if not files:
        sys.exit(f"error: no photographs in {data}/imagenet_sample (--data or VISION_MODELS_DATA)")
    return files


def image_sizes(data: Path, side: int, count: int) -> list[list[int]]:
    """Heights and widths of so many of the photographs, evenly taken, at a shorter side."""
    from PIL import Image

    files = photographs(data)
    picked = [files[i * len(files) // count] for i in range(min(count, len(files)))]
    sizes = np.array([Image.open(file).size[::-1] for file in picked])
    return np.rint(sizes * (side / sizes.min(axis=1, keepdims=True))).astype(int).tolist()


def pixels(*shape: int) -> np.ndarray:
    """Noise."""
    return np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)


def our_maps(case: Case) -> tuple[Callable[[], None], Callable[[], None], dict[str, Any]]:
    """(the mean scores of all images, a wait for them, facts of the batches)."""
    import jax
    import jax.numpy as jnp

    from devices.xla import compiler_options, keep_memory

    keep_memory()
    network = workload.pure_network(workload.Case("ours", case.name, 1, case.dtype, 0))
    params, state = jax.jit(network.init)(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf.astype(case.dtype), params)

    @jax.jit
    def place(noise: jax.Array, valid: jax.Array) -> jax.Array:
        inside = [jnp.arange(noise.shape[n]) < valid[:, n - 1 : n] for n in (1, 2)]
        mask = inside[0][:, :, None] & inside[1][:, None, :]
        return jnp.where(mask[..., None], noise, 0).astype(case.dtype)

    def score(params: Any, images: jax.Array, valid: jax.Array) -> jax.Array:
        scores, cells = network.score_map(params, state, images, valid)
        return scores.sum((1, 2)) / jnp.maximum(cells.prod(1), 1)[:, None]

    step = jax.jit(score, compiler_options=compiler_options())
    sizes = np.array(case.sizes, np.int32)
    batches = []
    for batch in whole.batches(sizes, whole.widths(sizes), case.batch):
        valid = np.zeros((case.batch, 2), np.int32)
        valid[: len(batch.rows)] = sizes[batch.rows]
        batches.append((place(pixels(case.batch, *batch.shape, 3), valid), jnp.asarray(valid)))
    scores: Any = None

    def work() -> None:
        nonlocal scores
        for images, valid in batches:
            scores = step(params, images, valid)

    padded = sum(int(np.prod(images.shape[:3])) for images, _ in batches)
    facts = {
        "compilations": len({images.shape for images, _ in batches}),
        "padded_area": padded / int(sizes.prod(axis=1).sum()),
    }
    return work, lambda: jax.block_until_ready(scores), facts


def their_maps(case: Case) -> tuple[Callable[[], None], Callable[[], None], dict[str, Any]]:
    """The same in PyTorch, its linear layers as convolutions."""
    import torch

    device = workload.TORCH_DEVICES[case.platform]
    dtype = getattr(torch, case.dtype)
    model = convolutional(case.name).eval().to(device, dtype, memory_format=torch.channels_last)
    torch.backends.cudnn.benchmark = case.side == "equal"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    batches = []
    for (height, width), rows in equal_batches(
        case.sizes, 1 if case.side == "single" else case.batch
    ):
        images = torch.from_numpy(pixels(rows, 3, height, width)).to(device, dtype)
        batches.append(images.contiguous(memory_format=torch.channels_last))

    def work() -> None:
        with torch.inference_mode():
            for images in batches:
                model(images).mean((2, 3))

    facts = {"batches": len(batches)}
    return work, torch.cuda.synchronize if device == "cuda" else lambda: None, facts


def equal_batches(sizes: list[list[int]], batch: int) -> list[tuple[tuple[int, int], int]]:
    """((height, width), how many images) of batches of images of the same size."""
    found = []
    distinct, counts = np.unique(np.array(sizes), axis=0, return_counts=True)
    for (height, width), count in zip(distinct.tolist(), counts.tolist(), strict=True):
        full, rest = divmod(count, batch)
        found += [((height, width), batch)] * full + [((height, width), rest)] * bool(rest)
    return found


def convolutional(name: str) -> Any:
    """A network of `torch_networks` whose linear layers slide over its last maps.

    As products of all windows with a matrix: on a CPU two to three times as fast as `Conv2d` with
    the same weights where images come one by one, and up to twice in batches of eight.
    """
    from torch import nn

    from benchmarks import torch_networks

    class Everywhere(nn.Module):
        def __init__(self, linear: nn.Linear, window: int) -> None:
            super().__init__()
            self.linear, self.window = linear, window
            features = linear.weight.data.unflatten(1, (-1, window, window))
            linear.weight.data = features.permute(0, 2, 3, 1).flatten(1)  # maps last, as in memory

        def forward(self, x: Any) -> Any:
            x = x.permute(0, 2, 3, 1)
            if self.window > 1:
                windows = x.unfold(1, self.window, 1).unfold(2, self.window, 1)
                x = windows.permute(0, 1, 2, 4, 5, 3).flatten(3)
            return self.linear(x).permute(0, 3, 1, 2)

    parts: list[Any] = []
    maps: int = 0
    for part in torch_networks.make(name, 1000):
        if isinstance(part, nn.Conv2d):
            maps = part.out_channels
        if isinstance(part, nn.Linear):
            window = round((part.in_features / maps) ** 0.5)
            maps, part = part.out_features, Everywhere(part, window)
        if not isinstance(part, nn.Flatten):
            parts.append(part)
    return nn.Sequential(*parts)


def measured(case: Case) -> Callable[[], turns.Measurement]:
    """Runs every shape once; what is returned measures a pass over all images."""
    work, finish, facts = (our_maps if case.side == "ours" else their_maps)(case)
    work()
    finish()

    def measure() -> turns.Measurement:
        seconds = turns.timed(work, finish, 0)
        return {"images_per_second": len(case.sizes) / seconds, **facts}

    return measure


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer photographs, smaller ones")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--side", type=report.positive(int), help="pixels of the shorter side")
    parser.add_argument("--photographs", type=report.positive(int), help="how many")
    parser.add_argument("--batch", type=report.positive(int), default=8, help="images")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"))
    parser.add_argument("--data", type=Path, default=os.environ.get("VISION_MODELS_DATA", "."))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker = Case(**json.loads(arguments.worker))
        turns.serve(lambda: measured(worker))
        return
    side = arguments.side or (256 if arguments.quick else 384)
    count = arguments.photographs or (40 if arguments.quick else 250)
    sizes = image_sizes(Path(arguments.data), side, count)
    device = turns.run_apart(sides.device_and_peak, arguments.dtype)
    platform = device["platform"]
    names = ["ours", "single", "equal"] if sides.has_peer(platform) else ["ours"]
    rows = []
    for network in arguments.networks:
        cases = {
            name: dataclasses.asdict(
                Case(name, network, arguments.batch, device["dtype"], sizes, platform)
            )
            for name in names
        }
        found = turns.contest("benchmarks.dense", cases, 3, quick=arguments.quick)
        if not found["ours"]:
            print(f"dense/{network}: not measured", file=sys.stderr)
            continue
        speeds = {
            name: statistics.median(m["images_per_second"] for m in measurements)
            for name, measurements in found.items()
            if measurements
        }
        theirs = {name: speed for name, speed in speeds.items() if name != "ours"}
        best = max(theirs, key=lambda name: theirs[name], default=None)
        facts = found["ours"][0]
        rows.append(
            report.row(
                f"dense/{network}", "images/s", speeds["ours"], theirs[best] if best else None,
                device=device["name"], peer_name=f"PyTorch {best}" if best else "",
                side=side, photographs=len(sizes), batch=arguments.batch, dtype=device["dtype"],
                compilations=facts["compilations"],
                padded_area=round(facts["padded_area"], 3),
                **{f"pytorch_{name}": report.short(speed) for name, speed in theirs.items()},
            )
        )  # fmt: skip
    report.show(rows)
    if len(rows) < len(arguments.networks):
        sys.exit(1)


if __name__ == "__main__":
    main()
