"""The few shapes that whole images are padded to, and the batches of each."""

import itertools

import numpy as np
import pytest

from evaluation import protocol_called, whole
from evaluation.preprocessing import Preprocessing

pytestmark = pytest.mark.quick


def random_sizes(seed, count, side=64):
    rng = np.random.default_rng(seed)
    sizes = np.stack([np.full(count, side), side + rng.integers(0, 60, count)], axis=1)
    stands = rng.random(count) < 0.3
    sizes[stands] = sizes[stands, ::-1]
    return sizes


def padded(sizes, shapes):
    """Pixels of the images, each in the smallest shape that holds it."""
    return sum(min(h * w for h, w in shapes if h >= a and w >= b) for a, b in sizes)


@pytest.mark.parametrize("seed, most", [(0, 2), (1, 3), (2, 4), (3, 5)])
def test_no_other_shapes_waste_less(seed, most):
    sizes = random_sizes(seed, 12)
    shapes = whole.widths(sizes, most, enough=1.0)
    assert len(shapes) <= most
    longest = [
        tuple(group[group.max(axis=1).argmax()].tolist())
        for group in (sizes[sizes[:, 0] <= sizes[:, 1]], sizes[sizes[:, 0] > sizes[:, 1]])
    ]
    there = sorted({tuple(size) for size in sizes.tolist()} - set(longest))
    others = itertools.combinations(there, min(most - 2, len(there)))
    least = min(padded(sizes, [*longest, *other]) for other in others)
    assert padded(sizes, shapes) == least


def test_fewer_shapes_where_they_are_enough():
    sizes = random_sizes(4, 200)
    few, many = (whole.widths(sizes, 16, enough=share) for share in (1.1, 1.0))
    assert 2 < len(few) < len(many) == 16
    true = sizes.prod(axis=1).sum()
    assert padded(sizes, many) < padded(sizes, few) <= 1.1 * true
    assert padded(sizes, whole.widths(sizes, len(few) - 1, enough=1.1)) > 1.1 * true


def test_images_of_one_orientation_and_of_one_size():
    assert whole.widths(np.array([[8, 12], [8, 9]]), 1) == [(8, 12)]
    assert whole.widths(np.array([[8, 8]] * 3)) == [(8, 8)]
    assert whole.widths(np.array([[12, 8], [12, 8]])) == [(12, 8)]
    with pytest.raises(ValueError, match="need 2 shapes"):
        whole.widths(np.array([[8, 12], [12, 8]]), 1)


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_every_image_is_in_one_batch_that_holds_it(batch_size):
    sizes = random_sizes(5, 101)
    shapes = whole.widths(sizes, 6, enough=1.0)
    found = whole.batches(sizes, shapes, batch_size)
    rows = np.concatenate([batch.rows for batch in found])
    assert sorted(rows.tolist()) == list(range(101))
    for batch in found:
        assert batch.shape in shapes and 0 < len(batch.rows) <= batch_size
        assert (sizes[batch.rows] <= batch.shape).all()
    assert sum(len(batch.rows) < batch_size for batch in found) <= 2
    if batch_size == 1:
        assert sum(h * w for h, w in (b.shape for b in found)) == padded(sizes, shapes)


def test_an_image_that_no_shape_holds_is_named():
    with pytest.raises(ValueError, match=r"image 1 of \(8, 14\) pixels"):
        whole.batches(np.array([[8, 9], [8, 14]]), [(8, 12)], 2)


@pytest.mark.parametrize("side", [256, 384, 512])
def test_the_photographs(side, shared_data):
    """At most 16 shapes and 1.15 times the pixels, those of rows without an image among them.

    In batches of what a device has memory for, however many the config asks for.
    """
    image = pytest.importorskip("PIL.Image")
    files = sorted(shared_data("imagenet_sample").glob("*/*/*.JPEG"))
    assert len(files) == 250
    there = np.array([image.open(file).size[::-1] for file in files])
    sizes = np.rint(there * (side / there.min(axis=1, keepdims=True))).astype(int)
    shapes = whole.widths(sizes)
    (look,) = protocol_called("dense", Preprocessing(side, 224)).looks
    rows = look.batch_size(256, devices=1)
    batches = whole.batches(sizes, shapes, rows)
    assert len(shapes) <= 16
    assert sum(rows * h * w for h, w in (b.shape for b in batches)) <= 1.15 * sizes.prod(1).sum()


def test_batches_of_whole_images_fit_into_memory():
    """Where the network slides; crops are as large as any others."""

    def rows(name, side, most=256, devices=1):
        look = protocol_called(name, Preprocessing(256, 224), (side,)).looks[0]
        return look.batch_size(most, devices)

    assert [rows("dense", side) for side in (256, 384, 512, 2000)] == [16, 8, 4, 1]
    assert rows("multi_crop_and_dense", 384) == 8 and rows("multi_crop", 384) == 256
    assert rows("dense", 384, most=5) == 5
    assert rows("dense", 384, devices=4) == 32 and rows("dense", 384, most=20, devices=4) == 20
