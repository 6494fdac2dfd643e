import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from input_pipeline import order, preprocess

# Of ImageNet's training set, in grey levels: standard deviations along the principal
# components of RGB, and the components (from the meta data of cuda-convnet2).
IMAGENET_STDEVS = np.array([121.780, 37.094, 19.721])
IMAGENET_AXES = np.array(
    [(-0.564, -0.576, -0.592), (-0.713, -0.024, 0.701), (0.418, -0.817, 0.397)]
)
IMAGENET_COVARIANCE = (IMAGENET_AXES.T * IMAGENET_STDEVS**2) @ IMAGENET_AXES


def drawn(count=20_000, seed=0):
    return order.uniform_draws(seed, np.zeros(count, np.int64), np.arange(count))


def augmentation(uniform, kind="none", margin=32, **options):
    colours, scale = preprocess.colour_basis(kind, IMAGENET_COVARIANCE)
    settings = {"random_crop": True, "flip": True, **options}
    return preprocess.draw_augmentation(
        uniform, margin=margin, colours=colours, colour_scale=scale, **settings
    )


@pytest.mark.parametrize("height, width", [(300, 400), (400, 300), (256, 256), (500, 333)])
def test_resize_is_antialiased_bilinear_as_pil_does_it(height, width):
    rng = np.random.default_rng(height)
    coarse = Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8))
    image = np.asarray(coarse.resize((width, height), Image.BICUBIC))
    ours = preprocess.resize_and_center(tf.constant(image), 128).numpy().astype(int)
    scale = 128 / min(height, width)
    size = round(width * scale), round(height * scale)
    left, top = (size[0] - 128) // 2, (size[1] - 128) // 2
    pil = Image.fromarray(image).resize(size, Image.BILINEAR)
    pil = np.asarray(pil.crop((left, top, left + 128, top + 128))).astype(int)
    assert ours.shape == (128, 128, 3)
    assert np.abs(ours - pil).mean() < 0.5
    assert np.abs(ours - pil).max() <= 3


def test_one_pixel_sides_and_enlarging():
    for shape in ((1, 1, 3), (1, 9, 3), (7, 2, 3)):
        image = np.full(shape, 93, np.uint8)
        square = preprocess.resize_and_center(tf.constant(image), 32).numpy()
        np.testing.assert_array_equal(square, np.full((32, 32, 3), 93))


def test_crop_and_flip_are_slices():
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    for y, x, flip in [(0, 0, False), (4, 3, True), (8, 8, True)]:
        window = preprocess.crop_and_flip(tf.constant(image), tf.constant([y, x]), flip, 12)
        expected = image[y : y + 12, x : x + 12]
        np.testing.assert_array_equal(window, expected[:, ::-1] if flip else expected)


def test_offsets_and_flips_are_uniform():
    """33 x 33 offsets, 0 to 32 inclusive, and half of the images mirrored."""
    count = 20_000
    result = augmentation(drawn(count))
    for axis in (0, 1):
        histogram = np.bincount(result["crop_offset"][:, axis], minlength=33)
        assert len(histogram) == 33
        chi_squared = ((histogram - count / 33) ** 2 / (count / 33)).sum()
        assert chi_squared < 75  # 32 degrees of freedom: 1 in 30,000
    assert abs(result["flip"].mean() - 0.5) < 4 / np.sqrt(4 * count)


def test_switched_off():
    result = augmentation(drawn(100), random_crop=False, flip=False)
    assert np.all(result["crop_offset"] == 16)
    assert not result["flip"].any()
    assert not result["colour_shift"].any()
    assert np.all(result["colour_scale"] == 1)


@pytest.mark.parametrize("kind", ["paper", "original", "gaussian"])
def test_covariance_of_the_colour_noise(kind):
    count = 20_000
    result = augmentation(drawn(count), kind)
    if kind == "paper":
        # V (.1 a L) with L in units of pixels in 0..1, back in grey levels.
        deviations = 0.1 * (IMAGENET_STDEVS / 255) ** 2 * 255
        assert deviations[0] == pytest.approx(5.8, abs=0.05)
    else:
        deviations = 0.1 * IMAGENET_STDEVS
    axes, _ = np.linalg.qr(IMAGENET_AXES.T)
    expected = (axes * deviations**2) @ axes.T
    measured = np.cov(result["colour_shift"].T)
    # Sampling error of each entry of a covariance of Gaussians.
    diagonal = np.diag(expected)
    error = np.sqrt((expected**2 + np.outer(diagonal, diagonal)) / count)
    rounding = 0.01 * diagonal.max()  # the published axes have three digits
    assert np.all(np.abs(measured - expected) < 5 * error + rounding)
    mean = result["colour_shift"].mean(axis=0)
    assert np.all(np.abs(mean) < 5 * np.sqrt(diagonal / count))
    scale = 1 / 1.1 if kind == "original" else 1.0
    np.testing.assert_allclose(result["colour_scale"], scale)
