"""Images per second that the input pipeline delivers, beside PyTorch's DataLoader and FFCV.

    python -m benchmarks.input_pipeline [--quick] [--data=DIR] [--only=CASE,...]

DIR (by default $VISION_MODELS_DATA) has imagenet_sample/train/<wnid>/*.JPEG. All contestants read
the same photographs, repeated, from the page cache. They make batches of 128 uint8 crops of
224 x 224 pixels with labels, use as many workers as there are cores, and take turns.

  on_the_fly/*       from JPEG files; peer: DataLoader over Pillow, the same crops and flips
  prepared_jpeg/*    from shards of 256 x 256 JPEGs; peer: the same over files of that size
  prepared_raw/*     from shards of pixels; peer: FFCV's raw mode, the same crop and flip
  from_*/alexnet     from the same photographs stored in tars, shards or Parquet files, read in
                     place; peer: on_the_fly from JPEG files
  prepare_from_parquet/*  writing shards of pixels; peer: the same from JPEG files
  first_batch/*      seconds from opening the dataset to its first batch, after imports and
                     with the pixel statistics of the training set known
"""

import argparse
import importlib.util
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import input_pipeline
from benchmarks import layouts, report
from configs import alexnet, googlenet, vgg
from input_pipeline.datasets.imagenet import imagenet_synsets

BATCH = 128
# Batches that are not timed: buffers fill with them while other contestants have their turn.
SKIPPED = 10
# Copies of each photograph; together they are a few hundred megabytes of pixels.
REPEATS = 10
CASES = (
    "on_the_fly/alexnet",
    "on_the_fly/vgg_jittered",
    "on_the_fly/googlenet",
    "prepared_jpeg/alexnet",
    "prepared_raw/alexnet",
    "from_original_tars/alexnet",
    "from_webdataset/alexnet",
    "from_parquet/alexnet",
    "prepare_from_parquet/alexnet",
    "first_batch/alexnet",
)


def main() -> int:
    """Runs all cases and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three rounds of each, not seven")
    parser.add_argument("--data", default=os.environ.get("VISION_MODELS_DATA"))
    parser.add_argument("--only", default=",".join(CASES), help="cases, separated by commas")
    arguments = parser.parse_args()
    cases = arguments.only.split(",")
    if not set(cases) <= set(CASES):
        parser.error(f"--only={arguments.only}: choose from {', '.join(CASES)}")
    photographs = Path(arguments.data or ".") / "imagenet_sample" / "train"
    if not photographs.is_dir():
        print(
            f"error: {photographs}: no such directory; name one with --data=DIR or "
            "VISION_MODELS_DATA that has imagenet_sample/train/<wnid>/*.JPEG",
            file=sys.stderr,
        )
        return 2
    rounds, seconds = (3, 4.0) if arguments.quick else (7, 6.0)
    with tempfile.TemporaryDirectory() as directory:
        report.show(list(_rows(cases, photographs, Path(directory), rounds, seconds)))
    return 0


def _rows(
    cases: list[str], photographs: Path, scratch: Path, rounds: int, seconds: float
) -> Iterator[report.Row]:
    folder = _repeated(photographs, scratch / "photographs")
    cache = scratch / "cache"
    paths = sorted(str(path) for path in (folder / "train").glob("*/*"))
    device = report.cpu_name()

    def compare(
        name: str, ours: Iterator[Any], peer: Iterator[Any] | None, peer_name: str
    ) -> report.Row:
        speeds = report.alternate(
            [_speed(ours, seconds), None if peer is None else _speed(peer, seconds)], rounds
        )
        first, second = (report.median(values) for values in speeds)
        assert first is not None
        return report.row(
            name,
            "images/s",
            first,
            second,
            device=device,
            peer_name=peer_name,
            ours_rounds=[round(v) for v in speeds[0] or []],
            peer_rounds=[round(v) for v in speeds[1] or []],
        )

    vgg_config = vgg.get_config("d")
    vgg_config.data.augment.scale_range = (256, 512)
    for name, config, crop in (
        ("alexnet", alexnet.get_config(), _alexnet_crop),
        ("vgg_jittered", vgg_config, _vgg_crop),
        ("googlenet", googlenet.get_config(), _area_crop),
    ):
        if f"on_the_fly/{name}" not in cases:
            continue
        ours = _ours(config, folder, cache)
        yield compare(f"on_the_fly/{name}", ours, _data_loader(paths, crop), "DataLoader, Pillow")
        ours.close()

    config = alexnet.get_config()
    for kind in ("jpeg", "raw"):
        if f"prepared_{kind}/alexnet" not in cases:
            continue
        config.data.prepare.format = kind
        prepared = scratch / kind
        config.data.dir, config.data.prepared_dir = str(folder), str(prepared)
        input_pipeline.prepare_data(config.data, cache)
        ours = _ours(config, folder, cache)
        if kind == "jpeg":
            small = _squares(paths, scratch / "squares")
            peer: Iterator[Any] | None = _data_loader(small, _square_crop)
            peer_name = "DataLoader, Pillow"
        else:
            peer, peer_name = _ffcv(config, cache, scratch / "squares.beton"), "FFCV, raw"
        yield compare(f"prepared_{kind}/alexnet", ours, peer, peer_name)
        ours.close()

    for kind, write in layouts.CASES.items():
        if not {f"from_{kind}/alexnet", f"prepare_from_{kind}/alexnet"} & set(cases):
            continue
        if kind == "parquet" and importlib.util.find_spec("pyarrow") is None:
            continue
        stored = scratch / kind
        write(stored, "train", _stored(folder))
        if f"from_{kind}/alexnet" in cases:
            ours, plain = (_ours(alexnet.get_config(), root, cache) for root in (stored, folder))
            yield compare(f"from_{kind}/alexnet", ours, plain, "JPEG files")
            ours.close(), plain.close()
        if f"prepare_from_{kind}/alexnet" in cases:
            both = [_preparing(root, cache, scratch / "written") for root in (stored, folder)]
            speeds = report.alternate(both, rounds)
            first, second = (report.median(values) for values in speeds)
            assert first is not None
            name = f"prepare_from_{kind}/alexnet"
            yield report.row(name, "images/s", first, second, device=device, peer_name="JPEG files")

    if "first_batch/alexnet" not in cases:
        return
    config = alexnet.get_config()

    def first_of_ours() -> float:
        start = time.perf_counter()
        stream = _ours(config, folder, cache)
        next(stream)
        passed = time.perf_counter() - start
        stream.close()
        return passed

    def first_of_peer() -> float:
        start = time.perf_counter()
        loader = _data_loader(paths, _alexnet_crop)
        assert loader is not None
        next(loader)
        return time.perf_counter() - start

    there = importlib.util.find_spec("torch") is not None
    times = report.alternate([first_of_ours, first_of_peer if there else None], rounds)
    ours_time, peer_time = (report.median(values) for values in times)
    assert ours_time is not None
    yield report.row(
        "first_batch/alexnet",
        "s",
        ours_time,
        peer_time,
        device=device,
        peer_name="DataLoader, Pillow",
    )


def _repeated(photographs: Path, folder: Path) -> Path:
    """Makes an ImageNet folder tree of links with every photograph several times; returns it."""
    for path in sorted(photographs.glob("*/*")):
        for split, copies in (("train", REPEATS), ("val", 1)):
            target = folder / split / path.parent.name
            target.mkdir(parents=True, exist_ok=True)
            for number in range(copies):
                (target / f"{number}_{path.name}").symlink_to(path.resolve())
    return folder


def _stored(folder: Path) -> list[layouts.Image]:
    """The training photographs, shuffled as files of the Hub and shards are."""
    synsets = imagenet_synsets()
    images = [
        layouts.Image(path.parent.name, synsets.index(path.parent.name), path.name, b"")
        for path in sorted((folder / "train").glob("*/*"))
    ]
    random.Random(0).shuffle(images)
    return [
        image._replace(content=(folder / "train" / image.synset / image.name).read_bytes())
        for image in images
    ]


def _preparing(root: Path, cache: Path, written: Path) -> Callable[[], float]:
    """Images per second at which a dataset is prepared."""
    config = alexnet.get_config()
    config.data.dir, config.data.prepared_dir = str(root), str(written)

    def measure() -> float:
        start = time.perf_counter()
        input_pipeline.prepare_data(config.data, cache)
        passed = time.perf_counter() - start
        count = sum(e.count for e in _examples(config, cache))
        shutil.rmtree(written)
        return count / passed

    return measure


def _examples(config: Any, cache: Path) -> Iterator[Any]:
    data = input_pipeline.open_data(config.data, cache)
    yield from (data.examples(split) for split in data.dataset.splits)


def _ours(config: Any, folder: Path, cache: Path) -> Any:
    config.data.dir = str(folder)
    return input_pipeline.open_data(config.data, cache).training(0, seed=0, batch_size=BATCH)


def _speed(batches: Iterator[Any], seconds: float) -> Callable[[], float]:
    """A function that measures images per second for `seconds`, once the buffers are used up."""

    def measure() -> float:
        for _ in itertools.islice(batches, SKIPPED):
            pass
        start, count = time.perf_counter(), 0
        while (passed := time.perf_counter() - start) < seconds:
            next(batches)
            count += BATCH
        return count / passed

    return measure


def _data_loader(paths: list[str], crop: Callable[[Any], Any]) -> Iterator[Any] | None:
    """An endless torch.utils.data.DataLoader over Pillow; None without PyTorch."""
    try:
        import torch
    except ImportError:
        return None
    from PIL import Image

    class Photographs(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            with open(paths[index], "rb") as file:
                image = crop(Image.open(file).convert("RGB"))
            if random.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            # As torchvision's PILToTensor.
            return torch.as_tensor(np.array(image)).permute(2, 0, 1), index % 1000

    dataset = Photographs()
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=BATCH,
        sampler=torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=10**8),
        num_workers=len(os.sched_getaffinity(0)),
    )
    return iter(loader)


def _alexnet_crop(image: Any) -> Any:
    scaled = _shorter_side(image, 256)
    left, top = (scaled.width - 256) // 2, (scaled.height - 256) // 2
    return _square_crop(scaled.crop((left, top, left + 256, top + 256)))


def _vgg_crop(image: Any) -> Any:
    return _square_crop(_shorter_side(image, random.randint(256, 512)))


def _square_crop(image: Any) -> Any:
    x, y = random.randint(0, image.width - 224), random.randint(0, image.height - 224)
    return image.crop((x, y, x + 224, y + 224))


def _area_crop(image: Any) -> Any:
    from PIL import Image

    for _ in range(10):
        area = image.width * image.height * random.uniform(0.08, 1)
        aspect = random.uniform(3 / 4, 4 / 3)
        width, height = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if width <= image.width and height <= image.height:
            break
    else:
        width = height = min(image.size)
    x, y = random.randint(0, image.width - width), random.randint(0, image.height - height)
    return image.crop((x, y, x + width, y + height)).resize((224, 224), Image.Resampling.BILINEAR)


def _shorter_side(image: Any, size: int) -> Any:
    from PIL import Image

    scale = size / min(image.size)
    scaled = (round(image.width * scale), round(image.height * scale))
    return image.resize(scaled, Image.Resampling.BILINEAR)


def _squares(paths: list[str], folder: Path) -> list[str]:
    """Writes the photographs' central squares as JPEG files of our quality; returns their paths."""
    from PIL import Image

    folder.mkdir()
    made = []
    for number, path in enumerate(paths):
        scaled = _shorter_side(Image.open(path).convert("RGB"), 256)
        left, top = (scaled.width - 256) // 2, (scaled.height - 256) // 2
        target = folder / f"{number}.jpg"
        scaled.crop((left, top, left + 256, top + 256)).save(target, quality=95)
        made.append(str(target))
    return made


def _ffcv(config: Any, cache: Path, path: Path) -> Iterator[Any] | None:
    """FFCV's loader over the pixels of our prepared dataset; None if it is not installed."""
    try:
        from ffcv.fields import IntField, RGBImageField
        from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import RandomHorizontalFlip, Squeeze, ToTensor
        from ffcv.writer import DatasetWriter
    except ImportError:
        return None
    examples = input_pipeline.open_data(config.data, cache).examples("train")

    class Squares:
        def __len__(self) -> int:
            return examples.count

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            pixels, label = examples.read(index)
            return np.ascontiguousarray(pixels), label

    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
    DatasetWriter(str(path), fields, num_workers=1).from_indexed_dataset(Squares())
    # A window of 224/256 of each side.
    crop = RandomResizedCropRGBImageDecoder((224, 224), scale=(0.765625,) * 2, ratio=(1, 1))
    # As one long epoch: a new one allocates its batches anew, and waits for the first of them.
    indices = np.tile(np.arange(examples.count, dtype=np.uint64), 1000)
    loader = Loader(
        str(path),
        indices=indices,
        batch_size=BATCH,
        num_workers=len(os.sched_getaffinity(0)),
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines={
            "image": [crop, RandomHorizontalFlip(), ToTensor()],
            "label": [IntDecoder(), ToTensor(), Squeeze()],
        },
    )
    return itertools.chain.from_iterable(itertools.repeat(loader))


if __name__ == "__main__":
    sys.exit(main())
