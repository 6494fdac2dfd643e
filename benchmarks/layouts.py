"""Seconds and memory that it takes to open a dataset of ImageNet's size, by its layout.

    python -m benchmarks.layouts [--quick] [--only=CASE,...] [--images=N]

Writes as many images as ImageNet's training set has, of a hundred bytes each (1.3 GB as tars), to
a temporary directory. Opens them twice, each time in a new process: without an index, and with the
one that the first made.

  open/original_tars   1,000 tars in one
  open/webdataset      1,282 shards
  open/parquet         294 files
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from benchmarks import report

IMAGES = 1_281_167


class Image(NamedTuple):
    """An image to be stored: its synset, label, file name and content."""

    synset: str
    label: int
    name: str
    content: bytes


def write_original_tars(root: Path, split: str, images: Sequence[Image]) -> None:
    """Writes `ILSVRC2012_img_train.tar`, which has a tar for each synset."""
    by_class: dict[str, list[Image]] = {}
    for image in images:
        by_class.setdefault(image.synset, []).append(image)
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / f"ILSVRC2012_img_{split}.tar", "w") as tar:
        for synset, members in by_class.items():
            inner = b"".join(_member(image.name, image.content) for image in members)
            _add(tar, f"{synset}.tar", inner + bytes(1024))


def write_webdataset(root: Path, split: str, images: Sequence[Image]) -> None:
    """Writes `imagenet-train-000000.tar` and so on, with a .jpg and a .cls for each image."""
    root.mkdir(parents=True, exist_ok=True)
    shards = -(-len(images) // 1000)
    for shard in range(shards):
        with open(root / f"imagenet-{split}-{shard:06d}.tar", "wb") as file:
            for image in images[shard::shards]:
                stem = image.name.removesuffix(".JPEG")
                file.write(_member(f"{stem}.cls", str(image.label).encode()))
                file.write(_member(f"{stem}.jpg", image.content))
            file.write(bytes(1024))


def write_parquet(root: Path, split: str, images: Sequence[Image]) -> None:
    """Writes `data/train-00000-of-00294.parquet` and so on, in row groups of 100 as on the Hub."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (root / "data").mkdir(parents=True, exist_ok=True)
    files = -(-len(images) // 4358)
    names = [f"class {label}" for label in range(1000)]
    about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for file in range(files):
        some = images[file::files]
        pairs = [{"bytes": image.content, "path": image.name} for image in some]
        labels = pa.array([image.label for image in some], pa.int64())
        table = pa.table({"image": pa.array(pairs, image_type), "label": labels})
        pq.write_table(
            table.replace_schema_metadata({"huggingface": json.dumps(about)}),
            root / "data" / f"{split}-{file:05d}-of-{files:05d}.parquet",
            row_group_size=100,
        )


def _member(name: str, content: bytes) -> bytes:
    """The bytes of a file in a tar: its header, and its content padded to blocks of 512 bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    header = info.tobuf(tarfile.USTAR_FORMAT)
    return header + content + bytes(-len(content) % 512)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


CASES: dict[str, Callable[[Path, str, Sequence[Image]], None]] = {
    "original_tars": write_original_tars,
    "webdataset": write_webdataset,
    "parquet": write_parquet,
}


def main() -> int:
    """Runs all cases and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the images")
    parser.add_argument("--only", default=",".join(CASES), help="cases, separated by commas")
    parser.add_argument("--images", type=report.positive(int), default=IMAGES)
    parser.add_argument("--open", nargs=2, metavar=("DIR", "CACHE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open:
        return _opened(*arguments.open)
    cases = [case.removeprefix("open/") for case in arguments.only.split(",")]
    if not set(cases) <= CASES.keys():
        parser.error(f"--only={arguments.only}: choose from {', '.join(CASES)}")
    images = list(islice(_images(), arguments.images // (10 if arguments.quick else 1)))
    report.show(list(_rows(cases, images)))
    return 0


def _images() -> Iterator[Image]:
    """Images whose classes alternate, so that they are not sorted by class."""
    from input_pipeline.datasets.imagenet import imagenet_synsets

    synsets, content = imagenet_synsets(), bytes(range(100))
    for number in range(2**30):
        label = number % 1000
        yield Image(synsets[label], label, f"{synsets[label]}_{number // 1000 + 1}.JPEG", content)


def _rows(cases: Sequence[str], images: Sequence[Image]) -> Iterator[report.Row]:
    for case in cases:
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch) / "data"
            CASES[case](root, "train", images)
            command = [sys.executable, "-m", "benchmarks.layouts", "--open", str(root)]
            cold, warm = (
                json.loads(subprocess.check_output([*command, f"{scratch}/cache"]))
                for _ in range(2)
            )
            assert cold["count"] == warm["count"] == len(images)
        yield report.row(
            f"open/{case}",
            "s",
            warm["seconds"],
            None,
            device=report.cpu_name(),
            images=len(images),
            index_seconds=round(cold["seconds"], 1),
            index_megabytes=round(cold["megabytes"]),
            megabytes=round(warm["megabytes"]),
        )


def _opened(directory: str, cache: str) -> int:
    """Opens the training split, and prints the time and memory that this took, without imports."""
    from input_pipeline import open_dataset
    from input_pipeline.datasets.imagenet import imagenet_synsets

    imagenet_synsets()
    _peak()
    before, start = _peak(), time.perf_counter()
    dataset = open_dataset("imagenet2012", directory, cache_dir=Path(cache), only="train")
    seconds, examples = time.perf_counter() - start, dataset.splits["train"]
    examples.read(examples.count // 2)
    taken = {"seconds": seconds, "megabytes": _peak() - before, "count": examples.count}
    print(json.dumps(taken))
    return 0


def _peak() -> float:
    """Peak resident memory of this process in megabytes since the last call; resets the peak."""
    status = Path("/proc/self/status")
    if not status.exists():  # not Linux: since the process began
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return int(line.split()[1]) / 1e3


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main())
