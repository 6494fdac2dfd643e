"""What is measured for the pictures, against independent computations."""

import numpy as np
import pytest

from configs.common import ConfigError
from visualization import neighbours, pictures, selectivity, tsne

pytestmark = pytest.mark.quick


def test_neighbours_equal_brute_force():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(503, 40)).astype(np.float32)
    vectors[100] = vectors[7]  # equally near ones come in their order
    queries = np.concatenate([rng.normal(size=(4, 40)), vectors[7:8]]).astype(np.float32)
    blocks = np.split(vectors, [100, 130, 499])
    index, distance = neighbours.nearest(queries, iter(blocks), 9)
    differences = queries[:, None].astype(np.float64) - vectors[None]
    expected = np.sqrt((differences**2).sum(axis=-1))
    order = np.argsort(expected, axis=1, kind="stable")[:, :9]
    np.testing.assert_array_equal(index, order)
    np.testing.assert_allclose(distance, np.take_along_axis(expected, order, 1), atol=1e-6)
    assert index[4, :2].tolist() == [7, 100]


def test_fewer_vectors_than_are_wanted():
    index, _ = neighbours.nearest(np.ones((2, 3)), [np.eye(3)], 9)
    assert index.shape == (2, 3)


def test_share_of_colour():
    grey, red_against_green = np.ones((5, 5, 3)), np.ones((5, 5, 3)) * [1, -1, 0]
    both = np.stack([grey, red_against_green, grey + red_against_green, 0 * grey])
    np.testing.assert_allclose(selectivity.colour_share(both), [0, 1, 2 / 5, 0], atol=1e-12)
    random = np.random.default_rng(0).normal(size=(500, 11, 11, 3))
    assert abs(selectivity.colour_share(random).mean() - 2 / 3) < 0.01


def test_a_grid_holds_each_image_once_and_keeps_places():
    steps = (np.arange(4) + 0.5) / 4
    where = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    mixed = np.random.default_rng(0).permutation(16)
    filled = tsne.cells(where[mixed], 4)
    np.testing.assert_array_equal(mixed[filled.ravel()], np.arange(16))


@pytest.mark.parametrize(
    "features, said",
    [
        (np.zeros((9, 4)), "--layer=fc7: its features are equal for all 9 images"),
        (np.full((9, 4), 0.1, np.float32), "are equal"),
        (np.arange(9.0)[:, None], "--layer=fc7: one feature"),
        (np.ones((1, 4)), "one image"),
    ],
    ids=["dead", "equal", "one feature", "one image"],
)
def test_what_tsne_cannot_lay_out(features, said):
    """The first two end scikit-learn's process: there is no error of its own to wait for."""
    with pytest.raises(ConfigError, match=said):
        tsne.check(features, 0.5, "fc7")
    tsne.check(np.eye(3, 2), 0.5, "fc7")


def test_grids_and_scales():
    tiles = np.stack([np.full((2, 3, 3), n, np.uint8) for n in range(5)])
    whole = pictures.grid(tiles, 3, gap=1, ground=9)
    assert whole.shape == (5, 11, 3)
    assert whole[:, :, 0].tolist()[3] == [3, 3, 3, 9, 4, 4, 4, 9, 9, 9, 9]
    signed = np.array([[[-2.0, 1.0]], [[0.0, 4.0]]])
    np.testing.assert_allclose(pictures.around_grey(signed), [[[0, 0.75]], [[0.5, 1]]])
    assert np.ptp(pictures.scaled(signed, each=True), axis=(1, 2)).tolist() == [1, 1]
