import dataclasses
import hashlib
import itertools
import json
import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from configs.alexnet import get_config
from input_pipeline import Data, DataError, open_dataset, order, reporter
from input_pipeline.batches import Reading
from input_pipeline.from_config import choices
from input_pipeline.normalization import Normalizer, normalization
from input_pipeline.pixel_statistics import pixel_statistics
from input_pipeline.sources import from_arrays, subset
from tests.conftest import ROOT, write_images

DEFAULT = Reading()
SQUARE = SimpleNamespace(side=40, pad=0, whole=False)


def fields(**augment):
    data = get_config().data
    data.resize, data.crop, data.mean = 40, 32, "channel"
    for name, value in augment.items():
        data.augment[name] = value
    return data


def opened(dataset, tmp_path, reading=DEFAULT, **augment):
    chosen = dataclasses.replace(choices(fields(**augment)), reading=reading)
    return Data(dataset, chosen, tmp_path, lambda: dataset)


def stream(
    dataset,
    tmp_path,
    batch=4,
    start=0,
    process=(0, 1),
    noise_steps=None,
    reading=DEFAULT,
    **augment,
):
    data = opened(dataset, tmp_path, reading, **augment)
    return data.training(
        start, seed=3, batch_size=batch, colour_noise_steps=noise_steps, share=process
    )


def evaluated(
    dataset, split="validation", batch=4, process=(0, 1), reading=DEFAULT, images=SQUARE, start=0
):
    data = opened(dataset, None, reading)
    return data.evaluation(split, images, batch_size=batch, share=process, start=start)


def take(batches, count):
    return list(itertools.islice(batches, count))


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


@pytest.fixture
def dataset(imagenet_folder, tmp_path):
    return open_dataset("imagenet2012", str(imagenet_folder), cache_dir=tmp_path)


def test_a_batch(dataset, tmp_path):
    batch = next(stream(dataset, tmp_path))
    described = {name: (value.shape, value.dtype.name) for name, value in batch.items()}
    assert described == {
        "image": ((4, 32, 32, 3), "uint8"),
        "label": ((4,), "int32"),
        "index": ((4,), "int64"),
        "crop_offset": ((4, 2), "int32"),
        "flip": ((4,), "bool"),
        "colour_shift": ((4, 3), "float32"),
        "colour_scale": ((4,), "float32"),
    }


@pytest.mark.parametrize("start", [1, 5, 7])
def test_starting_at_a_step_equals_skipping_to_it(dataset, tmp_path, start):
    from_zero = take(stream(dataset, tmp_path), start + 2)[start:]
    for ours, theirs in zip(
        take(stream(dataset, tmp_path, start=start), 2), from_zero, strict=True
    ):
        assert_equal(ours, theirs)


def test_far_ahead_costs_no_reading(dataset, tmp_path):
    """Step one million of ten images is epoch 400,000."""
    batch = next(stream(dataset, tmp_path, start=1_000_000))
    assert batch["image"].shape == (4, 32, 32, 3)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_same_global_batches(dataset, tmp_path, processes):
    alone = take(stream(dataset, tmp_path), 4)
    shares = [take(stream(dataset, tmp_path, process=(i, processes)), 4) for i in range(processes)]
    for step, whole in enumerate(alone):
        joined = {k: np.concatenate([share[step][k] for share in shares]) for k in whole}
        assert_equal(joined, whole)


def test_an_epoch_holds_every_image_once(dataset, tmp_path):
    """Ten images in batches of four: the third batch reaches into the next epoch."""
    indices = np.concatenate([b["index"] for b in take(stream(dataset, tmp_path), 5)])
    assert sorted(indices[:10]) == sorted(indices[10:]) == list(range(10))
    assert list(indices[:10]) != list(indices[10:])


def test_colour_noise_ends_at_its_step(dataset, tmp_path):
    batches = take(stream(dataset, tmp_path, noise_steps=2, colour_noise="original"), 4)
    assert [bool(b["colour_shift"].any()) for b in batches] == [True, True, False, False]
    scales = [float(b["colour_scale"][0]) for b in batches]
    assert scales == pytest.approx([1 / 1.1, 1 / 1.1, 1, 1])


@pytest.mark.parametrize("batch_size", [1, 2, 4, 7])
def test_evaluation_holds_every_example_once_and_masks_the_rest(dataset, batch_size):
    for processes in (1, 2):
        if batch_size % processes:
            continue
        batches = [
            list(evaluated(dataset, batch=batch_size, process=(process, processes)))
            for process in range(processes)
        ]
        steps = {len(b) for b in batches}
        assert steps == {-(-5 // batch_size)}
        labels = np.concatenate(
            [b["label"][b["mask"] > 0] for step in zip(*batches, strict=True) for b in step]
        )
        assert labels.tolist() == [0, 0, 284, 284, 999]
        assert all(b["image"].shape[0] == batch_size // processes for p in batches for b in p)


@pytest.mark.parametrize("threads", [1, 8])
def test_threads_change_nothing(dataset, tmp_path, threads):
    some = take(stream(dataset, tmp_path, reading=Reading(threads=3)), 4)
    for ours, theirs in zip(
        take(stream(dataset, tmp_path, reading=Reading(threads=threads)), 4), some, strict=True
    ):
        assert_equal(ours, theirs)


@pytest.mark.parametrize("count, batch", [(10, 5), (10, 4), (7, 3)])
def test_shares_are_disjoint_and_complete_in_every_epoch(dataset, tmp_path, count, batch):
    """Also where neither batch nor share divides the epoch."""
    dataset = dataclasses.replace(
        dataset, splits={"train": subset(dataset.examples("train"), np.arange(count))}
    )
    if batch % 2:
        batch *= 2
    steps = 3 * count // batch + 1
    shares = [take(stream(dataset, tmp_path, batch, process=(i, 2)), steps) for i in range(2)]
    seen = np.concatenate([s[step]["index"] for step in range(steps) for s in shares])
    for epoch in range(3):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_batches_are_those_of_yesterday(tmp_path):
    """Recorded once: order, crops, mirroring and resampling, to the last bit."""
    rows, columns = np.mgrid[:50, :60]
    images = np.stack(
        [np.stack([rows * 5, columns * 4, (rows + columns) * 2 + i], -1) for i in range(9)]
    ).astype(np.uint8)
    dataset = SimpleNamespace(
        prepared=None,
        examples=lambda split: from_arrays(images, np.arange(9, dtype=np.int32), "pattern"),
    )
    digest = hashlib.sha256()
    for crop, scales in [("square", ()), ("image", (33, 48)), ("area", ())]:
        for batch in take(
            stream(dataset, tmp_path, crop=crop, scale_range=scales, colour_noise="none"), 5
        ):
            for name in sorted(batch):
                digest.update(batch[name].tobytes())
    assert digest.hexdigest() == RECORDED_BATCHES


RECORDED_BATCHES = "c2479135fb4d4f0f8342b443e6c68be92072075dbd07a92c6519d724402fea46"


def damage(folder):
    """A JPEG with a tenth of its bytes, and one with none."""
    victims = [folder / "train" / "n02123597" / name for name in ("1.jpg", "2.jpg")]
    victims[0].write_bytes(victims[0].read_bytes()[:200])
    victims[1].write_bytes(b"")
    return victims


def test_damaged_images_are_left_out_and_listed(imagenet_folder, tmp_path, capsys):
    victims = damage(imagenet_folder)
    dataset = open_dataset("imagenet2012", str(imagenet_folder), cache_dir=tmp_path)
    listed = tmp_path / "run" / "images.jsonl"
    reading = Reading(report=reporter(listed))
    batches = take(stream(dataset, tmp_path, batch=5, reading=reading), 4)
    indices = np.concatenate([b["index"] for b in batches])
    left = {5, 6}  # four of the first class, then the second of the next
    names = {i: dataset.examples("train").name(i) for i in range(10)}
    assert {names[i] for i in left} == {str(v) for v in victims}
    # The next readable one, 7, stands in for both.
    assert sorted(indices[:10]) == sorted(indices[10:]) == [0, 1, 2, 3, 4, 7, 7, 7, 8, 9]
    assert all(b["image"].std(axis=(1, 2, 3)).min() > 0 for b in batches)  # none is blank
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert {(line["image"], line["what"]) for line in lines} == {
        (str(v), "left out") for v in victims
    }
    assert len(lines) == 2
    assert {line["reason"] for line in lines if "2.jpg" in line["image"]} == {"the file is empty"}
    with open(listed, "a") as file:
        file.write('{"image": "cut sho')  # a process that was killed
    reporter(listed)(str(victims[0]), "left out", "again")
    reporter(listed)("another", "left out", "at last")
    assert len(listed.read_text().splitlines()) == 4
    said = capsys.readouterr().err
    assert "left out" in said and f"1 images left out so far; listed in {listed}" in said


def test_evaluation_goes_without_damaged_images(imagenet_folder, tmp_path):
    victim = imagenet_folder / "val" / "n02123597" / "0.jpg"
    victim.write_bytes(victim.read_bytes()[:100])
    dataset = open_dataset("imagenet2012", str(imagenet_folder), cache_dir=tmp_path)
    batches = list(evaluated(dataset, batch=2))
    assert np.concatenate([b["mask"] for b in batches]).tolist() == [1, 1, 0, 1, 1, 0]
    assert not batches[1]["image"][0].any() and not batches[2]["image"][1].any()


def test_damaged_images_can_be_fatal(imagenet_folder, tmp_path):
    damage(imagenet_folder)
    dataset = open_dataset("imagenet2012", str(imagenet_folder), cache_dir=tmp_path)
    reading = Reading(unreadable="fail")
    message = r"n02123597/\d.jpg: .+; repair or remove it, or --config.data.unreadable=leave_out"
    with pytest.raises(DataError, match=message):
        take(stream(dataset, tmp_path, reading=reading), 3)
    with pytest.raises(DataError, match=message):
        take(evaluated(dataset, "train", reading=reading), 3)


def test_a_dataset_of_nothing_but_damage_ends(tmp_path):
    root = write_images(tmp_path / "own", {"train/a": 60, "train/b": 60, "val/a": 1})
    for path in root.glob("train/*/*"):
        path.write_bytes(b"nothing")
    dataset = open_dataset("folder", str(root), cache_dir=tmp_path)
    with pytest.raises(
        DataError, match=r"none of the 120 images, .*train/a/0.jpg the first, can be read"
    ):
        opened(dataset, tmp_path).normalization(SQUARE)
    train = dataset.splits["train"]
    # Of the two batches that are made at once.
    firsts, _ = order.examples_at(3, np.arange(4), train.count)
    last = "|".join(re.escape(train.name((first + 99) % train.count)) for first in firsts)
    with pytest.raises(DataError, match=f"({last}) and the 99 images before it cannot be read"):
        next(stream(dataset, tmp_path, batch=2, colour_noise="none"))


def test_streams_that_are_given_up_leave_no_thread(dataset, tmp_path):
    before = {t.name for t in threading.enumerate() if t.name.startswith("images")}
    for _ in range(3):
        batches = stream(dataset, tmp_path)
        next(batches)
        batches.close()
    after = {t.name for t in threading.enumerate() if t.name.startswith("images")}
    assert after <= before


@pytest.mark.slow
def test_memory_stays_the_same_over_20_000_batches(tmp_path):
    """In a process of its own, whose memory is nobody else's."""
    root = write_images(tmp_path / "own", {"train/a": 50, "train/b": 50, "val/a": 1})
    script = f"""
import itertools, pathlib
import input_pipeline
from configs.alexnet import get_config

data = get_config().data
data.name, data.dir, data.resize, data.crop = "folder", {str(root)!r}, 32, 24
data.mean, data.augment.colour_noise = "channel", "gaussian"
cache = pathlib.Path({str(tmp_path)!r})
stream = input_pipeline.open_data(data, cache).training(0, seed=0, batch_size=8)

def megabytes():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1000

for count in (2_000, 18_000):
    for _ in itertools.islice(stream, count):
        pass
    print(megabytes())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    early, late = map(float, done.stdout.split())
    assert late - early < 20


@pytest.mark.parametrize("crop", ["square", "image", "area", "center"])
@pytest.mark.parametrize("distortion", [{}, {"rotation": 15.0, "shear": 0.1, "stretch": 1.2}])
def test_every_kind_of_crop_gives_batches(dataset, tmp_path, crop, distortion):
    batches = take(stream(dataset, tmp_path, crop=crop, **distortion), 3)
    assert all(b["image"].shape == (4, 32, 32, 3) for b in batches)
    assert all(b["image"].std(axis=(1, 2, 3)).min() > 0 for b in batches)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"crop": 300}, r"data.crop=300 does not fit into data.resize=256"),
        ({"augment.scale_range": (200, 512)}, r"scale_range=\(200, 512\): .*below data.crop=224"),
        ({"augment.scale_range": (512, 256)}, r"such as \(256,512\)"),
        (
            {"augment.scale_range": (256, 512), "augment.crop": "area"},
            r"no meaning with data.augment.crop=area.*scale_range=\(\)",
        ),
        ({"augment.area_range": (1.0, 0.5)}, r"area_range=\(1.0, 0.5\): the smaller first"),
        ({"augment.aspect_range": (2.0, 1.0)}, r"aspect_range=.*the smaller first"),
        ({"augment.crop": "image"}, r"data.mean=image is the mean under .*image_center or chan"),
        ({"pad": 4, "augment.crop": "area"}, r"data.pad=4 goes with .*--config.data.pad=0"),
    ],
)
def test_faults_of_the_fields_are_named(changes, message):
    config = get_config()
    choices(config.data)
    config.data.update_from_flattened_dict(changes)
    with pytest.raises(DataError, match=message):
        choices(config.data)


def test_pixel_statistics_equal_numpys(dataset, tmp_path):
    statistics = pixel_statistics(dataset.examples("train"), 40, tmp_path)
    images = np.concatenate([b["image"][b["mask"] > 0] for b in evaluated(dataset, "train")])
    assert len(images) == 10
    np.testing.assert_allclose(statistics.mean, images.mean(axis=0), rtol=1e-6)
    covariance = np.cov(images.reshape(-1, 3).T.astype(np.float64), bias=True)
    np.testing.assert_allclose(statistics.covariance, covariance, rtol=1e-9)


def test_pixel_statistics_are_kept_and_keyed(dataset, tmp_path):
    examples = dataset.examples("train")
    cache = tmp_path / "cache"
    first = pixel_statistics(examples, 40, cache)
    (saved,) = cache.iterdir()
    unreadable = dataclasses.replace(examples, read=None)  # reading any image would fail
    again = pixel_statistics(unreadable, 40, cache)
    np.testing.assert_array_equal(again.mean, first.mean)
    np.testing.assert_array_equal(again.covariance, first.covariance)
    pixel_statistics(examples, 32, cache)
    assert len(list(cache.iterdir())) == 2
    saved.write_bytes(saved.read_bytes()[:100])  # damaged: made again
    np.testing.assert_array_equal(pixel_statistics(examples, 40, cache).mean, first.mean)


def test_means(dataset, tmp_path):
    statistics = pixel_statistics(dataset.examples("train"), 40, tmp_path)

    def mean(kind, pad=0):
        normalizer = Normalizer(kind, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
        made = normalization(normalizer, 40, pad, statistics.mean if kind != "values" else None)
        np.testing.assert_array_equal(made["deviation"], [4, 5, 6])
        return made["mean"]

    channel = mean("channel")
    assert channel.shape == (40, 40, 3)
    np.testing.assert_allclose(channel[7, 9], statistics.mean.mean((0, 1)), rtol=1e-5)
    assert not mean("none").any()
    np.testing.assert_array_equal(mean("image"), statistics.mean)
    # Padding is zero once the mean is subtracted: black where the mean is of the images.
    padded = mean("image", pad=3)
    np.testing.assert_array_equal(padded[3:-3, 3:-3], statistics.mean)
    assert padded.shape == (46, 46, 3) and padded.sum() == pytest.approx(statistics.mean.sum())
    np.testing.assert_array_equal(mean("values", pad=3)[0, 0], [1, 2, 3])


def test_real_photographs(shared_data, tmp_path):
    """Mean image and covariance equal PIL's and NumPy's on the same files."""
    from PIL import Image

    dataset = open_dataset("imagenet2012", str(shared_data("imagenet_sample")), cache_dir=tmp_path)
    assert {name: split.count for name, split in dataset.splits.items()} == {
        "train": 200,
        "validation": 50,
    }
    some = subset(dataset.examples("train"), np.arange(0, 200, 10))
    statistics = pixel_statistics(some, 256, tmp_path)
    squares = []
    for index in range(some.count):
        image = Image.open(some.name(index)).convert("RGB")
        scale = 256 / min(image.size)
        image = image.resize(
            (round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR
        )
        left, top = (image.width - 256) // 2, (image.height - 256) // 2
        squares.append(np.asarray(image.crop((left, top, left + 256, top + 256))))
    # Pillow 13 goes over the columns first in tall images: one level, here and there.
    np.testing.assert_allclose(statistics.mean, np.mean(squares, axis=0), atol=0.11)
    covariance = np.cov(np.reshape(squares, (-1, 3)).T.astype(np.float64), bias=True)
    np.testing.assert_allclose(statistics.covariance, covariance, rtol=1e-4)


def test_large_and_tiny_images_together(tmp_path):
    root = write_images(tmp_path / "a", {"x": 2}, size=(3, 3))
    write_images(root, {"y": 2}, size=(2000, 30))
    dataset = open_dataset("folder", str(root), cache_dir=tmp_path)
    batch = next(stream(dataset, tmp_path, batch=2))
    assert batch["image"].shape == (2, 32, 32, 3)
