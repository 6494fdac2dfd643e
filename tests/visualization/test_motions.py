"""What squares hide and what moves, against images made by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from visualization import invariance, occlusion

pytestmark = pytest.mark.quick
_GREY = 128


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (12, 12, 3)).astype(np.uint8)


def test_a_square_goes_everywhere(image):
    """From end to end in even steps, and all else is as it was."""
    assert occlusion.places(32, 12, 1).tolist() == list(range(21))
    assert occlusion.places(10, 10, 3).tolist() == [0]
    steps = np.diff(occlusion.places(224, 50, 10))
    assert steps.sum() == 174 and set(steps) <= {9, 10}
    firsts = occlusion.places(10, 4, 4)
    assert firsts.tolist() == [0, 3, 6]
    shown = list(occlusion.hidden(image, np.array([1, 2]), firsts, 4))
    assert len(shown) == 9
    for one, (row, column) in zip(shown, np.ndindex(3, 3), strict=True):
        expected = image.copy()
        top, left = 1 + firsts[row], 2 + firsts[column]
        expected[top : top + 4, left : left + 4] = _GREY
        np.testing.assert_array_equal(one, expected)


def test_measured_by_themselves(run, image):
    """A batch gives each image what it has alone."""
    from visualization import command_line
    from visualization.opening import open_run_or_file

    arguments = command_line.make_parser("").parse_args([str(run), "--batch_size=2"])
    opened = open_run_or_file(arguments)
    images = next(opened.images(2))["image"]
    squares = [images[0], images[1], 255 - images[0]]
    sums, chances = occlusion.measured(opened, "conv2", 1, iter(squares))
    for number, square in enumerate(squares):
        logits, record = opened.recorder(["conv2"])(opened.inputs(np.stack([square] * 2)))
        np.testing.assert_allclose(sums[number], record["conv2"][0, :, :, 1].sum(), rtol=1e-5)
        raised = np.exp(np.asarray(logits[0], np.float64))
        np.testing.assert_allclose(chances[number], raised / raised.sum(), rtol=1e-5)


def test_other_images_beside_one_of_the_dataset():
    """A weights file may name its dataset; a photograph alone needs none."""
    file = SimpleNamespace(workdir=None)
    for said, opened, count in [
        ({}, file, 3),
        ({"image": "x.png"}, file, 0),
        ({"image": "x.png"}, SimpleNamespace(workdir="run"), 3),
        ({"image": "x.png", "data_name": "digits"}, file, 3),
        ({"image": "x.png", "data_dir": "."}, file, 3),
        ({"others": 0}, file, 0),
        ({"image": "x.png", "others": 5}, file, 5),
    ]:
        named = dict.fromkeys(("others", "image", "data_name", "data_dir", "config"))
        assert occlusion.count_others(SimpleNamespace(**named | said), opened) == count, said


def test_nothing_moves_by_default(image):
    np.testing.assert_array_equal(invariance.moved(image), image)


def test_shifts_go_downwards(image):
    down = invariance.moved(image, shift=3)
    np.testing.assert_array_equal(down[3:], image[:-3])
    assert (down[:3] == _GREY).all()


def test_turns_go_against_the_clock(image):
    turned = invariance.moved(image, degrees=90).astype(int)
    difference = turned - np.rot90(image)
    assert np.abs(difference[1:-1, 1:-1]).max() <= 1  # Pillow cuts fractions off


def test_scales_keep_the_middle():
    """Half a pixel would be 2.5; Pillow's cubic bends slopes by 1.5."""
    slope = np.arange(16, dtype=np.uint8)[:, None, None] * np.full((1, 16, 3), 10, np.uint8)
    large = invariance.moved(slope, scale=2)[4:12, 8, 0].astype(float)
    np.testing.assert_allclose(large, 75 + 5 * (np.arange(4, 12) - 7.5), atol=2)


@pytest.mark.parametrize(
    "labels, said",
    [([0, 5], "true class"), ([-1], "first guess"), ([-1, 0, -1], "true class or first guess")],
    ids=str,
)
def test_whose_probability_is_drawn(labels, said):
    assert invariance.whose(np.array(labels)) == said


def test_distances_are_euclidean():
    features = np.random.default_rng(1).normal(size=(4, 3, 3, 2))
    expected = [np.linalg.norm((f - features[0]).ravel()) for f in features]
    np.testing.assert_allclose(invariance.distances(features, features[0]), expected)
