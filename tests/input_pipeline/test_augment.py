import math

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from input_pipeline import augment, order
from input_pipeline.augment import Crops

# Of ImageNet's training set, in grey levels: standard deviations along the principal
# components of RGB, and the components (from the meta data of cuda-convnet2).
IMAGENET_STDEVS = np.array([121.780, 37.094, 19.721])
IMAGENET_AXES = np.array(
    [(-0.564, -0.576, -0.592), (-0.713, -0.024, 0.701), (0.418, -0.817, 0.397)]
)
IMAGENET_COVARIANCE = (IMAGENET_AXES.T * IMAGENET_STDEVS**2) @ IMAGENET_AXES


def drawn(count=20_000, seed=0):
    return order.uniform_draws(seed, np.zeros(count, np.int64), np.arange(count), augment.DRAWS)


def photograph(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def resized(image, height, width):
    """Pillow's, in two steps: Pillow 13 itself goes over the columns of tall images first."""
    wide = Image.fromarray(image).resize((width, len(image)), Image.Resampling.BILINEAR)
    return np.asarray(wide.resize((width, height), Image.Resampling.BILINEAR))


def taken(image, crops, uniform):
    out = np.empty((crops.crop, crops.crop, 3), np.uint8)
    offset, flip = augment.take(image, crops, uniform, out, exact=True)
    return out, offset, flip


def uniformly(values, count):
    """Whether whole numbers 0 .. count - 1 are equally likely, as far as a sample tells."""
    histogram = np.bincount(values, minlength=count)
    assert len(histogram) == count
    return stats.chisquare(histogram).pvalue > 1e-4


@pytest.mark.parametrize("height, width", [(300, 400), (400, 300), (256, 256), (190, 201)])
def test_square_crops_are_slices_of_the_central_square(height, width):
    image = photograph(height, width)
    scale = 256 / min(height, width)
    whole = resized(image, round(height * scale), round(width * scale))
    top, left = (whole.shape[0] - 256) // 2, (whole.shape[1] - 256) // 2
    square = whole[top : top + 256, left : left + 256]
    for uniform in drawn(40):
        ours, (y, x), flip = taken(image, Crops(256, 224, "square", flip=True), uniform)
        assert 0 <= y <= 32 and 0 <= x <= 32
        window = square[y : y + 224, x : x + 224]
        np.testing.assert_array_equal(ours, window[:, ::-1] if flip else window)
        assert flip == (uniform[augment.FLIP] < 0.5)
    middle, offset, _ = taken(image, augment.central_square(256), uniform)
    np.testing.assert_array_equal(middle, square)
    assert offset == (0, 0)


def test_image_crops_are_slices_of_the_rescaled_image():
    """VGG's and ResNet's: shorter side S drawn, crops from all of it."""
    image = photograph(150, 210)
    crops = Crops(64, 48, "image", scale_range=(56, 90), flip=True)
    seen = set()
    for uniform in drawn(40):
        ours, (y, x), flip = taken(image, crops, uniform)
        side = 56 + math.floor(uniform[augment.SCALE] * 35)
        whole = resized(image, side, round(210 * side / 150))
        window = whole[y : y + 48, x : x + 48]
        assert window.shape == (48, 48, 3)
        np.testing.assert_array_equal(ours, window[:, ::-1] if flip else window)
        seen.add(side)
    assert min(seen) < 62 and max(seen) > 84


def test_area_crops_are_parts_of_the_image_rescaled():
    image = photograph(90, 120)
    for uniform in drawn(40):
        crops = Crops(64, 48, "area", flip=True)
        wanted = augment.view(crops, uniform, 90, 120)
        top, left, height, width = wanted.box
        part = resized(image[top : top + height, left : left + width], 48, 48)
        ours, _, flip = taken(image, crops, uniform)
        np.testing.assert_array_equal(ours, part[:, ::-1] if flip else part)


def test_padded_crops_are_slices_of_the_padded_square():
    """Those of He et al. for CIFAR-10: 4 pixels of zeros on each side."""
    image = photograph(32, 32)
    padded = np.pad(image, [(4, 4), (4, 4), (0, 0)])
    for uniform in drawn(40):
        ours, (y, x), flip = taken(image, Crops(32, 32, "square", pad=4, flip=True), uniform)
        window = padded[y : y + 32, x : x + 32]
        np.testing.assert_array_equal(ours, window[:, ::-1] if flip else window)
    ours, _, _ = taken(image, augment.central_square(32, pad=4), uniform)
    np.testing.assert_array_equal(ours, padded)


def test_padding_is_around_the_square_not_the_image():
    image = photograph(20, 30)
    ours, _, _ = taken(image, augment.central_square(20, pad=3), np.full(augment.DRAWS, 0.5))
    np.testing.assert_array_equal(ours, np.pad(image[:, 5:25], [(3, 3), (3, 3), (0, 0)]))


@pytest.mark.parametrize("kind, side", [("square", 33), ("image", 33)])
def test_offsets_and_flips_are_uniform(kind, side):
    """33 x 33 offsets, 0 to 32 inclusive, and half of the images mirrored."""
    crops = Crops(256, 224, kind, flip=True)
    views = [augment.view(crops, uniform, 256, 256) for uniform in drawn().tolist()]
    offsets = np.array([view.offset for view in views])
    assert uniformly(offsets[:, 0], side) and uniformly(offsets[:, 1], side)
    # Both together, on a coarser grid: the axes are independent.
    assert uniformly(offsets[:, 0] // 3 * 11 + offsets[:, 1] // 3, 121)
    flips = np.array([view.flip for view in views])
    assert stats.binomtest(int(flips.sum()), len(flips)).pvalue > 1e-4


def test_scales_are_uniform():
    crops = Crops(256, 224, "image", scale_range=(256, 512))
    views = [augment.view(crops, uniform, 500, 400) for uniform in drawn().tolist()]
    sides = np.array([min(view.scaled) for view in views])
    assert uniformly(sides - 256, 257)
    assert all(v.scaled == (round(500 * s / 400), s) for v, s in zip(views, sides, strict=True))
    rows = np.array([v.offset[0] / (v.scaled[0] - 224 + 1) for v in views])
    assert stats.kstest(rows + 0.5 / 200, "uniform").statistic < 0.02


def test_areas_and_aspects():
    """8% to 100% of the area and 3/4 to 4/3, uniform before those that do not fit are refused."""
    crops = Crops(256, 224, "area")
    boxes = np.array([augment.view(crops, u, 3000, 3000).box for u in drawn(5000).tolist()])
    assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= 3000).all()
    areas = boxes[:, 2] * boxes[:, 3] / 3000**2
    aspects = boxes[:, 3] / boxes[:, 2]
    assert 0.079 < areas.min() < 0.085 and 0.97 < areas.max() <= 1
    assert 0.749 < aspects.min() < 0.76 and 1.31 < aspects.max() < 1.334
    # An independent drawing of the same.
    rng = np.random.default_rng(0)
    area, aspect = rng.uniform(0.08, 1, 20_000), rng.uniform(3 / 4, 4 / 3, 20_000)
    fits = (area / aspect <= 1) & (area * aspect <= 1)
    assert stats.ks_2samp(areas, area[fits]).pvalue > 1e-4
    assert stats.ks_2samp(aspects, aspect[fits]).pvalue > 1e-4


def test_an_image_that_no_area_fits_gives_its_square():
    box = augment.view(Crops(256, 224, "area"), drawn(1)[0], 10, 4000).box
    assert box == (0, 1995, 10, 10)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 9), (7, 2), (1, 10_000), (10_000, 3)])
@pytest.mark.parametrize("kind", ["square", "image", "area", "center"])
def test_one_pixel_sides_and_enlarging(height, width, kind):
    image = np.full((height, width, 3), 93, np.uint8)
    for uniform in drawn(3):
        ours, _, _ = taken(image, Crops(40, 32, kind), uniform)
        np.testing.assert_array_equal(ours, np.full((32, 32, 3), 93))


def test_switched_off():
    uniform = drawn(50)
    for row in uniform:
        assert taken(photograph(60, 80), Crops(40, 32), row)[1:] == ((4, 4), False)
    colours = augment.draw_colours(uniform, basis=None, scale=0.5, cast=0)
    assert not colours["colour_shift"].any() and np.all(colours["colour_scale"] == 1)


def bilinear(image, y, x):
    """The image at (y, x), in pixels from the first one's middle; edges go on."""
    y, x = np.clip(y, 0, image.shape[0] - 1), np.clip(x, 0, image.shape[1] - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, image.shape[0] - 1), min(x0 + 1, image.shape[1] - 1)
    image = image.astype(float)
    upper = image[y0, x0] * (1 - (x - x0)) + image[y0, x1] * (x - x0)
    lower = image[y1, x0] * (1 - (x - x0)) + image[y1, x1] * (x - x0)
    return upper * (1 - (y - y0)) + lower * (y - y0)


@pytest.mark.parametrize(
    "distortion",
    [
        {"rotation": 30.0},
        {"shear": 0.3},
        {"stretch": 1.5},
        {"lens": 0.2},
        {"stretch": 2.0, "shear": 1.0, "rotation": 180.0},
        {"rotation": 20.0, "shear": 0.2, "stretch": 1.3, "lens": 0.1},
    ],
)
def test_distortions_against_a_loop(distortion):
    """Turned, sheared, stretched, then bent, about the crop's middle."""
    image = photograph(40, 60)
    square = image[:, 10:50]
    crops = Crops(40, 24, "square", flip=True, **distortion)
    for uniform in drawn(4, seed=2):
        ours, (top, left), flip = taken(image, crops, uniform)
        angle, shear, tall, wide, lens = 2 * uniform[augment.DISTORTION] - 1
        angle = math.radians(crops.rotation * angle)
        expected = np.empty_like(ours)
        for y in range(24):
            for x in range(24):
                dy, dx = y + 0.5 - 12, x + 0.5 - 12
                dy, dx = dy / crops.stretch**tall, dx / crops.stretch**wide
                dx = dx + crops.shear * shear * dy
                dy, dx = (
                    math.cos(angle) * dy - math.sin(angle) * dx,
                    math.sin(angle) * dy + math.cos(angle) * dx,
                )
                bend = 1 + crops.lens * lens * (dy**2 + dx**2) / 12**2
                value = bilinear(square, top + 11.5 + bend * dy, left + 11.5 + bend * dx)
                expected[y, x] = np.floor(value + 0.5)
        if flip:
            expected = expected[:, ::-1]
        assert np.abs(ours.astype(int) - expected).max() <= 1
        assert (ours != expected).mean() < 0.01


@pytest.mark.parametrize("kind, size", [("center", 32), ("square", 24), ("square", 32)])
def test_what_is_padded_and_distorted_is_a_padded_image_distorted(kind, size):
    """The zeros around the central square are turned with it."""
    image = photograph(28, 40)
    framed = np.pad(image[:, 6:34], ((2, 2), (2, 2), (0, 0)))
    options = {"rotation": 30.0, "shear": 0.3, "stretch": 1.4, "flip": True}
    for uniform in drawn(6, seed=3):
        ours, offset, flip = taken(image, Crops(28, size, kind, pad=2, **options), uniform)
        expected = taken(framed, Crops(32, size, kind, **options), uniform)
        np.testing.assert_array_equal(ours, expected[0])
        assert (offset, flip) == expected[1:]


def test_rotations_are_uniform():
    crops = Crops(40, 24, "square", rotation=30.0)
    angles = []
    for uniform in drawn(3000).tolist():
        matrix, _ = augment.distortion(crops, uniform[augment.DISTORTION])
        assert np.linalg.det(matrix) == pytest.approx(1)
        angles.append(math.degrees(math.atan2(matrix[1, 0], matrix[0, 0])))
    assert stats.kstest(angles, stats.uniform(-30, 60).cdf).pvalue > 1e-4


def test_colour_casts():
    """One channel in two, by -20 to 20, each as likely."""
    cast = augment.draw_colours(drawn(), basis=None, scale=1.0, cast=20)["colour_shift"]
    assert np.array_equal(cast, np.rint(cast)) and np.abs(cast).max() == 20
    for channel in cast.T:
        changed = channel != 0
        # Half are altered, one of these in 41 by nothing.
        assert stats.binomtest(int(changed.sum()), len(channel), 0.5 * 40 / 41).pvalue > 1e-4
        amounts = channel[changed].astype(int) + 20
        assert uniformly(amounts - (amounts > 20), 40)
    assert np.abs(np.corrcoef(cast.T) - np.eye(3)).max() < 5 / np.sqrt(len(cast))


@pytest.mark.parametrize("kind", ["paper", "original", "gaussian"])
def test_covariance_of_the_colour_noise(kind):
    count = 20_000
    basis, factor = augment.colour_basis(kind, IMAGENET_COVARIANCE)
    result = augment.draw_colours(drawn(count), basis=basis, scale=factor, cast=0)
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
