import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from input_pipeline import kernels

sides = st.integers(1, 70)


def resample(image, scaled, offset, size, flip=False):
    """A window of a rescaled image, made from no more of it than the window needs."""
    spans = [
        kernels.needed(0.0, float(image.shape[axis]), scaled[axis], offset[axis], size[axis])
        for axis in (0, 1)
    ]
    (top, bottom), (left, right) = spans
    out = np.empty((*size, 3), np.uint8)
    kernels.resample(
        np.ascontiguousarray(image[top:bottom, left:right]),
        (top, left),
        (0.0, 0.0),
        (float(image.shape[0]), float(image.shape[1])),
        scaled,
        offset,
        flip,
        out,
    )
    return out


@settings(deadline=None, max_examples=200)
@given(st.data(), sides, sides, sides, sides, st.booleans(), st.integers(0, 2**32 - 1))
def test_resampling_is_pillows(data, height, width, rows, columns, flip, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    y, x = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    size = data.draw(st.integers(1, rows - y)), data.draw(st.integers(1, columns - x))
    ours = resample(image, (rows, columns), (y, x), size, flip)
    # Pillow goes over the rows first, but Pillow 13 not always; so in two steps.
    wide = Image.fromarray(image).resize((columns, height), Image.Resampling.BILINEAR)
    whole = np.asarray(wide.resize((columns, rows), Image.Resampling.BILINEAR))
    window = whole[y : y + size[0], x : x + size[1]]
    np.testing.assert_array_equal(ours, window[:, ::-1] if flip else window)


def test_a_fraction_of_a_pixel_at_the_start():
    """A ramp that begins inside a pixel goes on as one."""
    ramp = np.repeat(np.arange(0, 200, 2, np.uint8)[None, :, None], 3, axis=2)
    ramp = np.repeat(ramp, 4, axis=0)
    out = np.empty((4, 40, 3), np.uint8)
    kernels.resample(
        np.ascontiguousarray(ramp), (0, 0), (0.0, 0.5), (4.0, 80.0), (4, 40), (0, 0), False, out
    )
    # Output x is the middle of source pixels 2x + .5 to 2x + 2.5, whose values are twice that.
    expected = 4 * np.arange(40) + 2
    assert np.abs(out[1, 1:-1, 0].astype(int) - expected[1:-1]).max() <= 1


@settings(deadline=None, max_examples=100)
@given(sides, sides, sides, sides, st.integers(-9, 9), st.integers(-9, 9), st.booleans())
def test_crops_are_slices_of_a_padded_image(height, width, rows, columns, y, x, flip):
    image = np.random.default_rng(height).integers(1, 256, (height, width, 3), np.uint8)
    out = np.empty((rows, columns, 3), np.uint8)
    kernels.crop(image, (y, x), flip, out)
    padded = np.pad(image, [(80, 80), (80, 80), (0, 0)])
    window = padded[80 + y : 80 + y + rows, 80 + x : 80 + x + columns]
    np.testing.assert_array_equal(out, window[:, ::-1] if flip else window)
