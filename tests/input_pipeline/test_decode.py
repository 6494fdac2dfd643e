"""Files as they are found in the wild, made by a library and then damaged."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from input_pipeline import augment, decode, order
from input_pipeline.augment import Crops
from input_pipeline.decode import UnreadableError


def photograph(height=120, width=160, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def saved(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}) | options)
    return buffer.getvalue()


def difference(ours, theirs):
    return np.abs(np.asarray(ours).astype(int) - np.asarray(theirs).astype(int)).mean()


def read(encoded):
    """Pixels, and what was repaired."""
    repairs = []
    return decode.pixels(encoded, repairs.append), repairs


def views_of(encoded, exact=False):
    """A square and an area crop through the quick path, and the same of all the pixels."""
    whole = decode.pixels(encoded)
    for crops in (Crops(64, 48, "square", flip=True), Crops(64, 48, "area")):
        for uniform in order.uniform_draws(0, np.zeros(4, np.int64), np.arange(4)):
            ours, theirs = np.empty((48, 48, 3), np.uint8), np.empty((48, 48, 3), np.uint8)
            augment.take(encoded, crops, uniform, ours, exact=exact)
            augment.take(whole, crops, uniform, theirs, exact=True)
            yield ours, theirs


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(120, 160), (97, 101), (64, 64), (250, 70)])
def test_windows_are_parts_of_the_whole(size, subsampling, progressive):
    """To the last bit, whatever the edges of what is decoded."""
    encoded = saved(photograph(*size), subsampling=subsampling, progressive=progressive)
    frame = decode._plain_jpeg(encoded)
    assert frame is not None and (frame.height, frame.width) == size
    np.testing.assert_array_equal(
        decode.pixels(encoded), np.asarray(Image.open(io.BytesIO(encoded)))
    )
    for ours, theirs in views_of(encoded, exact=True):
        np.testing.assert_array_equal(ours, theirs)


def test_windows_of_real_photographs(shared_data):
    """Bit for bit with Pillow's decoding and our rescaling, and that within a level of Pillow's."""
    uniform = order.uniform_draws(0, np.zeros(250, np.int64), np.arange(250))
    differences = []
    paths = sorted(shared_data("imagenet_sample").glob("*/*/*.JPEG"))
    assert len(paths) == 250
    for path, draws in zip(paths, uniform, strict=True):
        encoded = path.read_bytes()
        crops = Crops(256, 224, "square", flip=True)
        ours, theirs = np.empty((224, 224, 3), np.uint8), np.empty((224, 224, 3), np.uint8)
        (y, x), flip = augment.take(encoded, crops, draws, ours, exact=True)
        augment.take(decode.pixels(encoded), crops, draws, theirs, exact=True)
        np.testing.assert_array_equal(ours, theirs)
        augment.take(encoded, crops, draws, ours, exact=False)
        image = Image.open(path).convert("RGB")
        if image.getexif().get(0x112, 1) == 1:
            scale = 256 / min(image.size)
            image = image.resize(
                (round(image.width * scale), round(image.height * scale)),
                Image.Resampling.BILINEAR,
            )
            left, top = (image.width - 256) // 2 + x, (image.height - 256) // 2 + y
            window = np.asarray(image.crop((left, top, left + 224, top + 224)))
            differences.append(difference(ours, window[:, ::-1] if flip else window))
    assert len(differences) >= 245
    assert max(differences) < 1 and np.mean(differences) < 0.05


def test_scaled_decoding_of_large_photographs(shared_data):
    """DCT scaling stays within a grey level of Pillow on average, and is exact when asked to be."""
    differences = []
    for path in sorted(shared_data("imagenet_sample").glob("train/*/*.JPEG")):
        encoded = path.read_bytes()
        if min(Image.open(path).size) < 4 * 66 or Image.open(path).mode != "RGB":
            continue
        crops, draws = Crops(64, 56), np.full(augment.DRAWS, 0.5)
        fast, exact = np.empty((56, 56, 3), np.uint8), np.empty((56, 56, 3), np.uint8)
        augment.take(encoded, crops, draws, fast, exact=False)
        augment.take(encoded, crops, draws, exact, exact=True)
        differences.append(difference(fast, exact))
    assert len(differences) > 100
    assert np.median(differences) > 0  # it was used
    assert np.mean(differences) < 1


def test_gray_and_cmyk_and_ycck():
    gray = saved(photograph().convert("L"))
    assert read(gray)[0].shape == (120, 160, 3)
    for ours, theirs in views_of(gray):
        np.testing.assert_array_equal(ours, theirs)
    red = Image.new("CMYK", (30, 40), (0, 255, 255, 0))
    cmyk = saved(red, quality=100)
    assert read(cmyk)[0].mean((0, 1)) == pytest.approx((255, 0, 0), abs=4)
    # Adobe's marker says whether the four channels are CMYK or YCCK; Pillow writes CMYK's 0.
    ycck = cmyk.replace(b"Adobe\x00\x64\x00\x00\x00\x00\x00", b"Adobe\x00\x64\x00\x00\x00\x00\x02")
    assert ycck != cmyk
    np.testing.assert_array_equal(
        read(ycck)[0], np.asarray(Image.open(io.BytesIO(ycck)).convert("RGB"))
    )


def test_sixteen_bits():
    ramp = np.linspace(0, 65535, 30 * 40).reshape(30, 40).astype(np.uint16)
    image = Image.fromarray(ramp)
    pixels, repairs = read(saved(image, "PNG"))
    assert difference(pixels[..., 0], ramp / 257) <= 0.5 and not repairs
    assert pixels.min() == 0 and pixels.max() == 255
    tiff = read(saved(image, "TIFF"))[0]
    np.testing.assert_array_equal(tiff, pixels)


def test_a_dark_image_of_sixteen_bits_stays_dark():
    dark = Image.fromarray(np.full((20, 30), 200, np.uint16))
    assert set(read(saved(dark, "PNG"))[0].ravel().tolist()) == {1}


def png_of_16_bit_rgb(values):
    """Pillow does not write these."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_sixteen_bits_of_each_colour():
    values = np.random.default_rng(0).integers(0, 65536, (20, 30, 3)).astype(np.uint16)
    pixels, _ = read(png_of_16_bit_rgb(values))
    assert np.abs(pixels.astype(int) - values // 256).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_other_formats_told_by_their_bytes(mode, kind):
    image = photograph().convert(mode)
    encoded = saved(image, kind)
    expected = Image.open(io.BytesIO(encoded)).convert("RGB")
    np.testing.assert_array_equal(read(encoded)[0], np.asarray(expected))
    for ours, theirs in views_of(encoded):
        np.testing.assert_array_equal(ours, theirs)


def test_what_is_transparent_is_put_on_white():
    clear = Image.new("RGBA", (20, 10), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 10, 10))
    half = Image.new("LA", (20, 10), (0, 128))
    palette = photograph().convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    pixels = read(saved(clear, "PNG"))[0]
    assert pixels[5, 5].tolist() == [0, 0, 255] and pixels[5, 15].tolist() == [255, 255, 255]
    assert read(saved(half, "PNG"))[0][5, 5].tolist() == pytest.approx([127] * 3, abs=1)
    assert read(saved(palette, "PNG", transparency=palette.getpixel((0, 0))))[0][0, 0].tolist() == [
        255,
        255,
        255,
    ]


def test_the_first_picture_of_an_animation():
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    encoded = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read(encoded)[0][5, 5].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_cameras_orientation_is_followed(orientation, kind):
    image = photograph(60, 90)
    plain, _ = read(saved(image, kind))
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned, _ = read(saved(image, kind, exif=exif))
    how = [None, None, 0, 3, 1, 5, 4, 6, 2][orientation]  # of Image.Transpose
    expected = Image.fromarray(plain)
    expected = expected if how is None else expected.transpose(Image.Transpose(how))
    np.testing.assert_array_equal(turned, np.asarray(expected))
    for ours, theirs in views_of(saved(image, kind, exif=exif)):
        np.testing.assert_array_equal(ours, theirs)


def test_orientation_in_xmp_is_followed_on_every_path():
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    encoded = saved(photograph(60, 90), xmp=xmp)
    assert b"tiff:Orientation" in encoded
    for ours, theirs in views_of(encoded):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("damage", ["cut", "noise", "nonsense"])
def test_broken_exif_is_ignored(damage):
    image = photograph(60, 90)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = bytearray(exif.tobytes())
    if damage == "cut":
        data = data[:20]
    elif damage == "noise":
        data[10:] = b"\xff" * (len(data) - 10)
    else:
        exif[0x0112] = 77
        data = exif.tobytes()
    plain, _ = read(saved(image))
    np.testing.assert_array_equal(read(saved(image, exif=bytes(data)))[0], plain)
    for ours, theirs in views_of(saved(image, exif=bytes(data))):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("share", [0.6, 0.8, 0.97])
def test_a_jpeg_that_breaks_off_keeps_the_rows_that_are_there(share):
    image = photograph(400, 300, seed=3)
    encoded = saved(image)
    whole, _ = read(encoded)
    pixels, repairs = read(encoded[: int(len(encoded) * share)])
    assert 200 <= len(pixels) <= 400 and pixels.shape[1:] == (300, 3)
    assert len(repairs) == 1 and f"the {len(pixels)} of 400 rows" in repairs[0]
    np.testing.assert_array_equal(pixels[:-16], whole[: len(pixels) - 16])
    assert pixels[-1].any()
    # And through the path of training, wherever the window lies.
    for ours, theirs in views_of(encoded[: int(len(encoded) * share)]):
        np.testing.assert_array_equal(ours, theirs)


def test_a_progressive_jpeg_that_breaks_off_is_coarser():
    image = photograph(400, 300, seed=3)
    encoded = saved(image, progressive=True)
    pixels, repairs = read(encoded[: len(encoded) * 2 // 3])
    assert pixels.shape == (400, 300, 3) and repairs == ["cut short: coarser than it was"]
    assert difference(pixels, image) < 20


def test_a_telephones_jpeg_that_breaks_off():
    """Several pictures in a file (MPO), cut inside the first."""
    first, second = photograph(400, 300, seed=3), photograph(40, 30)
    encoded = saved(first, "MPO", quality=95, save_all=True, append_images=[second])
    end = len(saved(first))
    pixels, repairs = read(encoded[: end * 4 // 5])
    assert 200 <= len(pixels) < 400 and f"the {len(pixels)} of 400 rows" in repairs[0]


def test_bytes_after_the_end_do_no_harm():
    encoded = saved(photograph())
    plain, _ = read(encoded)
    for rest in (b"\0", b"\r\n", b"more than an image" * 100):
        pixels, repairs = read(encoded + rest)
        np.testing.assert_array_equal(pixels, plain)
        assert not repairs
        for ours, theirs in views_of(encoded + rest):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "encoded, message",
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "not an image"),
        (b"\xff\xd8\xff", "not an image"),
        (saved(photograph(400, 300))[:700], "cut short: [01] of 400 rows"),
        (saved(photograph(400, 300))[: len(saved(photograph(400, 300))) // 3], "cut short: "),
        (saved(photograph(), "PNG")[:5000], "damaged"),
        (saved(photograph(), "PNG")[:60], "(damaged|not an image)"),
        (saved(photograph(), "GIF")[:3000], "damaged"),
    ],
)
def test_what_cannot_be_read_is_refused(encoded, message):
    with pytest.raises(UnreadableError, match=message):
        read(encoded)
    out = np.empty((48, 48, 3), np.uint8)
    with pytest.raises(UnreadableError, match=message):
        augment.take(encoded, Crops(64, 48), np.full(augment.DRAWS, 0.5), out, exact=False)


@pytest.mark.parametrize(
    "mode, kind",
    [("RGB", "JPEG"), ("P", "PNG"), ("LA", "TIFF"), ("P", "TIFF"), ("P", "GIF"), ("RGB", "BMP")],
)
def test_every_flipped_byte_is_survived(mode, kind):
    """Pixels or a reason, never another exception."""
    encoded = saved(photograph(90, 120).convert(mode), kind)
    rng = np.random.default_rng(0)
    outcomes = []
    for _ in range(150):
        damaged = bytearray(encoded)
        damaged[rng.integers(0, len(encoded))] ^= 1 << rng.integers(0, 8)
        out = np.empty((48, 48, 3), np.uint8)
        try:
            augment.take(
                bytes(damaged), Crops(64, 48), np.full(augment.DRAWS, 0.5), out, exact=False
            )
            outcomes.append(True)
        except UnreadableError:
            outcomes.append(False)
    assert kind == "PNG" or True in outcomes  # PNG's checksums notice all


def test_decompression_bombs_are_refused_unread():
    def header_only(width, height):
        encoded = bytearray(saved(Image.new("1", (8, 8)), "PNG"))
        encoded[16:24] = struct.pack(">II", width, height)
        encoded[29:33] = struct.pack(">I", zlib.crc32(bytes(encoded[12:29])))
        return bytes(encoded)

    for size in ((60_000, 60_000), (200_000, 1_000)):
        with pytest.raises(UnreadableError, match=r"more than 178,956,970 pixels"):
            read(header_only(*size))
    jpeg = bytearray(saved(photograph()))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(UnreadableError, match=r"more than 178,956,970 pixels"):
        read(bytes(jpeg))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (10_000, 20), (20, 10_000)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_one_pixel_and_ten_thousand_pixel_sides(size, kind):
    image = photograph(*size)
    encoded = saved(image, kind)
    assert read(encoded)[0].shape == (*size, 3)
    for ours, theirs in views_of(encoded, exact=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_square_of_ten_thousand_pixels():
    """A hundred megapixels: scaled down while it is decoded."""
    encoded = saved(photograph(10_000, 10_000), quality=60)
    out = np.empty((224, 224, 3), np.uint8)
    augment.take(encoded, Crops(256, 224), np.full(augment.DRAWS, 0.5), out, exact=False)
    reference = photograph(256, 256).crop((16, 16, 240, 240))
    assert difference(out, reference) < 4


def test_pillow_is_left_as_it_was():
    """Other code in the process may rely on it."""
    with pytest.raises(UnreadableError):
        read(saved(photograph())[:500])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert Image.MAX_IMAGE_PIXELS == 89_478_485
