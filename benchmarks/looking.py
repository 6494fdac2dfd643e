"""What the search for neighbours and t-SNE take: seconds, and the memory of the whole process.

    python -m benchmarks.looking [--quick]

`neighbours/60000x4096` searches 60,000 vectors of 4,096 numbers, drawn block by block as a
network would give them, for the six nearest to each of five; the time of drawing them is left
out. Its peer is scikit-learn's brute force, which holds them all. `tsne/2000x4096` lays out 2,000
in ten clusters and assigns them to a grid; it has no peer, as it is scikit-learn's. Every
measurement is a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np

from benchmarks import report

_ROOT = Path(__file__).parent.parent
_WIDTH, _VECTORS, _IMAGES, _BLOCK = 4096, 60_000, 2_000, 64
_QUERIES, _NEIGHBOURS = 5, 6


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one of each, not three")
    parser.add_argument("--only", choices=_CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        seconds, found = _CASES[arguments.only]()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(json.dumps({"seconds": seconds, "MiB": round(peak), "found": found}))
        return
    times = 1 if arguments.quick else 3
    measured = {name: [_in_a_process(name) for _ in range(times)] for name in _CASES}
    ours, peer, layout = (measured[name] for name in _CASES)
    device = report.cpu_name()
    report.show(
        [
            report.row(
                f"neighbours/{_VECTORS}x{_WIDTH}", unit, _median(ours, key), _median(peer, key),
                device=device, peer_name="scikit-learn, brute force",
                same=ours[0]["found"] == peer[0]["found"],
            )
            for unit, key in (("s", "seconds"), ("MiB", "MiB"))
        ]
        + [
            report.row(
                f"tsne/{_IMAGES}x{_WIDTH}", unit, _median(layout, key), None, device=device
            )
            for unit, key in (("s", "seconds"), ("MiB", "MiB"))
        ]
    )  # fmt: skip


def _in_a_process(case: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.looking", f"--only={case}"],
        cwd=_ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def _median(measured: list[dict], key: str) -> float:
    return float(np.median([one[key] for one in measured]))


def _blocks() -> Generator[np.ndarray, None, None]:
    """The vectors, as a ReLU leaves them."""
    rng = np.random.default_rng(0)
    for begin in range(0, _VECTORS, _BLOCK):
        shape = (min(_BLOCK, _VECTORS - begin), _WIDTH)
        yield np.maximum(rng.standard_normal(shape, np.float32), 0)


def _queries() -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.maximum(rng.standard_normal((_QUERIES, _WIDTH), np.float32), 0)


def _nearest() -> tuple[float, list]:
    from visualization import neighbours

    drawing = 0.0

    def timed() -> Generator[np.ndarray, None, None]:
        nonlocal drawing
        blocks = _blocks()
        while True:
            start = time.perf_counter()
            block = next(blocks, None)
            drawing += time.perf_counter() - start
            if block is None:
                return
            yield block

    start = time.perf_counter()
    index, _ = neighbours.nearest(_queries(), timed(), _NEIGHBOURS)
    return time.perf_counter() - start - drawing, index.tolist()


def _brute_force() -> tuple[float, list]:
    from sklearn.neighbors import NearestNeighbors

    vectors = np.empty((_VECTORS, _WIDTH), np.float32)
    for number, block in enumerate(_blocks()):
        vectors[number * _BLOCK : number * _BLOCK + len(block)] = block
    start = time.perf_counter()
    search = NearestNeighbors(n_neighbors=_NEIGHBOURS, algorithm="brute").fit(vectors)
    index = search.kneighbors(_queries(), return_distance=False)
    return time.perf_counter() - start, index.tolist()


def _tsne() -> tuple[float, list]:
    from visualization import tsne

    rng = np.random.default_rng(0)
    centres = rng.standard_normal((10, _WIDTH), np.float32)
    noise = rng.standard_normal((_IMAGES, _WIDTH), np.float32)
    features = np.maximum(centres[rng.integers(0, 10, _IMAGES)] + noise, 0)
    start = time.perf_counter()
    tsne.cells(tsne.places(features, perplexity=30.0, seed=0), int(_IMAGES**0.5))
    return time.perf_counter() - start, []


_CASES = {"ours": _nearest, "peer": _brute_force, "tsne": _tsne}

if __name__ == "__main__":
    main()
