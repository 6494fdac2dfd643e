import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from configs.alexnet import get_config
from input_pipeline import (
    DataError,
    evaluation_batches,
    normalization,
    open_dataset,
    training_statistics,
    training_stream,
)
from tests.conftest import write_images


def stream(dataset, tmp_path, batch=4, start=0, process=(0, 1), noise_steps=None, **augment):
    data = get_config().data
    data.resize, data.crop = 40, 32
    for name, value in augment.items():
        data.augment[name] = value
    statistics = training_statistics(dataset.examples("train"), 40, tmp_path)
    return training_stream(
        dataset,
        statistics,
        data,
        seed=3,
        batch_size=batch,
        colour_noise_steps=noise_steps,
        start_step=start,
        process_index=process[0],
        process_count=process[1],
    )


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
            list(
                evaluation_batches(
                    dataset.examples("validation"),
                    batch_size=batch_size,
                    resize=40,
                    process_index=process,
                    process_count=processes,
                )
            )
            for process in range(processes)
        ]
        steps = {len(b) for b in batches}
        assert steps == {-(-5 // batch_size)}
        labels = np.concatenate(
            [b["label"][b["mask"] > 0] for step in zip(*batches, strict=True) for b in step]
        )
        assert labels.tolist() == [0, 0, 284, 284, 999]
        assert all(b["image"].shape[0] == batch_size // processes for p in batches for b in p)


def test_a_damaged_image_is_named(imagenet_folder, tmp_path):
    victim = imagenet_folder / "train" / "n02123597" / "1.jpg"
    victim.write_bytes(victim.read_bytes()[:200])
    dataset = open_dataset("imagenet2012", str(imagenet_folder), cache_dir=tmp_path)
    with pytest.raises(
        DataError, match=r"n02123597/1.jpg: cannot be read \(.+\); repair or remove"
    ):
        training_statistics(dataset.examples("train"), 40, tmp_path)
    victim.write_bytes(b"")
    with pytest.raises(DataError, match=r"n02123597/1.jpg: cannot be read"):
        training_statistics(dataset.examples("train"), 40, tmp_path)


def test_statistics_equal_numpys(dataset, tmp_path):
    statistics = training_statistics(dataset.examples("train"), 40, tmp_path)
    images = np.concatenate(
        [
            b["image"][b["mask"] > 0]
            for b in evaluation_batches(dataset.examples("train"), batch_size=4, resize=40)
        ]
    )
    assert len(images) == 10
    np.testing.assert_allclose(statistics.mean, images.mean(axis=0), rtol=1e-6)
    covariance = np.cov(images.reshape(-1, 3).T.astype(np.float64), bias=True)
    np.testing.assert_allclose(statistics.covariance, covariance, rtol=1e-9)


def test_statistics_are_kept_and_keyed(dataset, tmp_path, monkeypatch):
    examples = dataset.examples("train")
    cache = tmp_path / "cache"
    first = training_statistics(examples, 40, cache)
    (saved,) = cache.iterdir()
    unreadable = dataclasses.replace(examples, load=None)  # reading any image would fail
    again = training_statistics(unreadable, 40, cache)
    np.testing.assert_array_equal(again.mean, first.mean)
    np.testing.assert_array_equal(again.covariance, first.covariance)
    training_statistics(examples, 32, cache)
    assert len(list(cache.iterdir())) == 2
    saved.write_bytes(saved.read_bytes()[:100])  # damaged: made again
    np.testing.assert_array_equal(training_statistics(examples, 40, cache).mean, first.mean)


def test_means(dataset, tmp_path):
    statistics = training_statistics(dataset.examples("train"), 40, tmp_path)

    def mean(kind, pad=0):
        data = SimpleNamespace(
            resize=40, pad=pad, mean=kind, mean_values=(1.0, 2.0, 3.0), deviation=(4.0, 5.0, 6.0)
        )
        made = normalization(data, statistics if kind != "values" else None)
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

    from input_pipeline import preprocess, sources

    dataset = open_dataset("imagenet2012", str(shared_data / "imagenet_sample"), cache_dir=tmp_path)
    assert {name: split.count for name, split in dataset.splits.items()} == {
        "train": 200,
        "validation": 50,
    }
    some = sources.subset(dataset.examples("train"), np.arange(0, 200, 10))
    statistics = training_statistics(some, 256, tmp_path)
    total, colours = 0, []
    for index in range(some.count):
        image = np.asarray(Image.open(some.name(index)).convert("RGB"))
        square = preprocess.resize_and_center(image, 256).numpy().astype(np.float64)
        total = total + square
        colours.append(square.reshape(-1, 3))
    np.testing.assert_allclose(statistics.mean, total / some.count, rtol=1e-6)
    np.testing.assert_allclose(
        statistics.covariance, np.cov(np.concatenate(colours).T, bias=True), rtol=1e-9
    )


def test_large_and_tiny_images_together(tmp_path):
    root = write_images(tmp_path / "a", {"x": 2}, size=(3, 3))
    write_images(root, {"y": 2}, size=(2000, 30))
    dataset = open_dataset("folder", str(root), cache_dir=tmp_path)
    batch = next(stream(dataset, tmp_path, batch=2))
    assert batch["image"].shape == (2, 32, 32, 3)
