"""Forms of PNG, TIFF, PNM and others: the right pixels, or refused."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, features

from input_pipeline import decode
from input_pipeline.decode import UnreadableError
from tests.input_pipeline.image_files import (
    MINISBLACK,
    MINISWHITE,
    PALETTE,
    RGB,
    SEPARATED,
    png,
    tiff,
)

HEIGHT, WIDTH = 37, 45
# Where two roundings meet: 16 bits become 8, and then a colour is mixed with white or black.
MIXED = 3
needs_avif = pytest.mark.skipif(
    "avif" not in features.modules or not features.check("avif"), reason="Pillow without AVIF"
)


def ramps(channels, bits):
    """Another slope in every channel, from 0 to the largest value."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    top = (1 << bits) - 1
    slopes = [(y * (k + 1) + x * (4 - k)) for k in range(channels)]
    return np.stack([np.round(slope / slope.max() * top) for slope in slopes], -1).astype(int)


def levels(values, bits):
    return np.broadcast_to(values / ((1 << bits) - 1) * 255.0, (*values.shape[:2], 3))


def on_white(colours, alpha):
    return colours * alpha + 255 * (1 - alpha)


def meant(values, photometric, bits):
    """Grey levels that a TIFF's values stand for."""
    if photometric == SEPARATED:
        inks = 255 - values / ((1 << bits) - 1) * 255
        return inks[..., :3] * inks[..., 3:] / 255
    shown = levels(values, bits)
    return 255 - shown if photometric == MINISWHITE else shown


def accepted(encoded, expected, tolerance=1.0):
    """Whether a file is read; if it is, it is read rightly."""
    try:
        pixels = decode.pixels(encoded)
    except UnreadableError:
        return False
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).max() <= tolerance
    return True


LAYOUTS = [
    {},
    {"tile": 16},
    {"rows_per_strip": 7},
    {"deflate": True},
    {"deflate": True, "predictor": True},
    {"deflate": True, "tile": 32},
]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_tiffs(layout, order):
    """Every depth, colour and arrangement is read rightly or not at all."""
    read = set()
    for bits in (1, 2, 4, 8, 12, 16, 32):
        if "predictor" in layout and bits not in (8, 16):
            continue
        for photometric, channels in ((MINISWHITE, 1), (MINISBLACK, 1), (RGB, 3), (SEPARATED, 4)):
            values = ramps(channels, bits)
            if bits == 32:
                values = values.astype(np.uint32)
            for planar in {False, channels > 1}:
                content = tiff(values, photometric, bits, order=order, planar=planar, **layout)
                tolerance = MIXED if photometric == SEPARATED and bits > 8 else 1
                if accepted(content, meant(values, photometric, bits), tolerance):
                    read.add((photometric, bits, planar))
    assert {(MINISBLACK, 8, False), (MINISBLACK, 16, False), (MINISWHITE, 8, False)} <= read
    assert {(RGB, 8, False), (RGB, 8, True), (RGB, 16, False), (SEPARATED, 8, False)} <= read
    if order == "<":
        assert (MINISWHITE, 16, False) in read
    if "predictor" not in layout:
        assert {(MINISWHITE, 1, False), (MINISBLACK, 1, False), (MINISBLACK, 4, False)} <= read
    assert not {form for form in read if form[1] == 32}  # of no known range


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_tiffs_with_more_channels(bits, planar, deflate):
    top = (1 << bits) - 1
    read = set()
    for order in "<>":
        for extra in (0, 1, 2):  # no meaning; alpha that colours are multiplied by; alpha
            values = ramps(4, bits)
            values[..., 3] = ramps(1, bits)[::-1, ::-1, 0]
            alpha = values[..., 3:] / top
            if extra == 1:
                values[..., :3] = np.round(values[..., :3] * alpha)
            for colours, photometric in ((3, RGB), (1, MINISBLACK), (1, MINISWHITE)):
                shown = meant(values[..., :colours], photometric, bits)
                if extra == 1 and photometric == MINISWHITE:
                    continue  # whether white is 0 before or after that, nobody says
                expected = (shown, shown + 255 * (1 - alpha), on_white(shown, alpha))[extra]
                chosen = np.concatenate([values[..., :colours], values[..., 3:]], -1)
                content = tiff(
                    chosen,
                    photometric,
                    bits,
                    order=order,
                    planar=planar,
                    deflate=deflate,
                    extra=(extra,),
                )
                if accepted(content, expected, MIXED):
                    read.add((photometric, extra))
    if not planar:
        assert {(RGB, 0), (RGB, 1), (RGB, 2)} <= read
    if bits == 8 and not planar:
        assert {(MINISBLACK, 1), (MINISBLACK, 2)} <= read


@pytest.mark.parametrize("deflate", [False, True])
def test_tiffs_of_other_kinds(deflate):
    for bits in (1, 2, 4, 8):
        palette = np.random.default_rng(bits).integers(0, 65536, (3, 1 << bits))
        values = ramps(1, bits)
        tag = (320, 3, tuple(palette.reshape(-1).tolist()))
        expected = palette.T[values[..., 0]] / 257
        read = accepted(tiff(values, PALETTE, bits, deflate=deflate, more=(tag,)), expected)
        assert read or bits < 8
    values = ramps(1, 16)
    for number, (dtype, form) in enumerate([("i4", 2), ("f2", 3), ("f4", 3), ("f8", 3)]):
        content = tiff(
            (values / (65535 if number else 1)).astype(dtype),
            MINISBLACK,
            8 * np.dtype(dtype).itemsize,
            sample_format=form,
            deflate=deflate,
        )
        with pytest.raises(UnreadableError):
            decode.pixels(content)
    for bits in (8, 16):
        signed = (ramps(1, bits) - (1 << (bits - 1))) % (1 << bits)
        with pytest.raises(UnreadableError, match="unknown range"):
            decode.pixels(tiff(signed, MINISBLACK, bits, sample_format=2, deflate=deflate))


def test_tiffs_bits_in_reverse_order():
    values = ramps(3, 8)
    turned = np.packbits(np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., ::-1], -1)
    assert accepted(tiff(turned[..., 0], RGB, 8, more=((266, 3, (2,)),)), levels(values, 8))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_pngs(bits):
    gray = ramps(1, bits)
    assert accepted(png(gray, 0, bits), levels(gray, bits))
    for clear in {int(gray[0, 0, 0]), int(gray[15, 17, 0]), int(gray.max())}:
        expected = np.where(gray == clear, 255, levels(gray, bits))
        assert accepted(png(gray, 0, bits, ((b"tRNS", struct.pack(">H", clear)),)), expected)
    if bits <= 8:
        rng = np.random.default_rng(bits)
        palette = rng.integers(0, 256, (1 << bits, 3), np.uint8)
        shown = palette[gray[..., 0]].astype(float)
        chunks = ((b"PLTE", palette.tobytes()),)
        assert accepted(png(gray, 3, bits, chunks), shown)
        alphas = rng.integers(0, 256, 1 << bits, np.uint8)
        clear_chunks = (*chunks, (b"tRNS", alphas.tobytes()))
        alpha = alphas[gray[..., 0]][..., None] / 255
        assert accepted(png(gray, 3, bits, clear_chunks), on_white(shown, alpha))
    if bits >= 8:
        values = ramps(3, bits)
        assert accepted(png(values, 2, bits), levels(values, bits))
        clear = tuple(values[15, 17].tolist())
        expected = np.where((values == clear).all(-1, keepdims=True), 255, levels(values, bits))
        read = accepted(png(values, 2, bits, ((b"tRNS", struct.pack(">3H", *clear)),)), expected)
        assert read == (bits == 8)
        values = np.concatenate([values, ramps(1, bits)[::-1, ::-1]], -1)
        alpha = values[..., 3:] / ((1 << bits) - 1)
        assert accepted(png(values, 6, bits), on_white(levels(values[..., :3], bits), alpha), MIXED)
        gray_alpha = values[..., [0, 3]]
        expected = on_white(levels(gray_alpha[..., :1], bits), alpha)
        assert accepted(png(gray_alpha, 4, bits), expected, MIXED)


@pytest.mark.parametrize("top", [1, 3, 100, 200, 255, 256, 1000, 4095, 65535])
def test_portable_maps(top):
    """Binary and in digits, gray and of colours, with any largest value."""
    for channels, number in ((1, 5), (3, 6)):
        values = np.round(ramps(channels, 16) / 65535 * top).astype(int)
        for shown in (values, np.minimum(values, 200)):  # dark, with a large scale
            expected = np.broadcast_to(shown / top * 255, (HEIGHT, WIDTH, 3))
            header = f"{WIDTH} {HEIGHT}\n{top}\n".encode()
            binary = shown.astype(">u2" if top > 255 else "u1").tobytes()
            digits = " ".join(map(str, shown.reshape(-1))).encode()
            assert accepted(f"P{number}\n".encode() + header + binary, expected)
            assert accepted(f"P{number - 3}\n".encode() + header + digits, expected)


def test_portable_bitmaps():
    ink = ramps(1, 1)
    header = f"{WIDTH} {HEIGHT}\n".encode()
    binary = np.packbits(ink[..., 0].astype(np.uint8), axis=1).tobytes()
    digits = "".join(map(str, ink.reshape(-1))).encode()
    assert accepted(b"P4\n" + header + binary, 255 - levels(ink, 1))
    assert accepted(b"P1\n" + header + digits, 255 - levels(ink, 1))


def picture():
    """Ramps and noise: every form of compression has something to do."""
    noise = np.random.default_rng(0).integers(-9, 9, (HEIGHT, WIDTH, 3))
    return Image.fromarray((20 + ramps(3, 8) * 4 // 5 + noise).astype(np.uint8))


def saved(mode, kind, **options):
    buffer = io.BytesIO()
    picture().convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_the_same_pixels_as_tensorflow(mode, kind):
    encoded = saved(mode, kind)
    theirs = tf.io.decode_image(
        encoded, channels=0 if kind == "BMP" else 3, expand_animations=False
    )
    if (mode, kind) in {("L", "BMP"), ("P", "BMP")}:
        return  # palettes, which TensorFlow takes for gray
    np.testing.assert_array_equal(decode.pixels(encoded), theirs.numpy())


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "1"])
@pytest.mark.parametrize(
    "compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd", "group4"]
)
def test_compressed_tiffs(mode, compression):
    if (compression == "group4") != (mode == "1"):
        return
    expected = np.asarray(picture().convert(mode).convert("RGB"))
    for more in ({}, {"big_tiff": True}):
        np.testing.assert_array_equal(
            decode.pixels(saved(mode, "TIFF", compression=compression, **more)), expected
        )


def test_webp_and_avif_with_alpha():
    image = picture().convert("RGBA")
    alpha = ramps(1, 8)[::-1, ::-1]
    image.putalpha(Image.fromarray(alpha[..., 0].astype(np.uint8)))
    expected = on_white(np.asarray(picture()).astype(float), alpha / 255)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, exact=True)
    assert accepted(buffer.getvalue(), expected)


@needs_avif
def test_avif():
    pixels = decode.pixels(saved("RGB", "AVIF", quality=95))
    assert np.abs(pixels.astype(int) - np.asarray(picture())).mean() < 4
    assert (decode.pixels(saved("RGBA", "AVIF", quality=95)) == pixels).all()


COMPRESSED = {
    "PNG": {},
    "PNG L": {"mode": "L"},
    "PNG P": {"mode": "P"},
    "GIF": {},
    "WEBP": {},
    "WEBP lossless": {"lossless": True},
    "TIFF lzw": {"compression": "tiff_lzw"},
    "TIFF deflate": {"compression": "tiff_adobe_deflate"},
    "TIFF jpeg": {"compression": "jpeg"},
    "TIFF zstd": {"compression": "zstd"},
    "TIFF group4": {"compression": "group4", "mode": "1"},
    "AVIF": {},
}


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("filled", [False, True])
def test_what_breaks_off_is_refused(name, filled):
    """Or, if only marks at the end are gone, read as it was."""
    options = dict(COMPRESSED[name])
    kind = name.split(" ", 1)[0]
    if kind not in decode.FORMATS:
        pytest.skip(f"Pillow without {kind}")
    encoded = saved(options.pop("mode", "RGB"), kind, **options)
    whole = decode.pixels(encoded).astype(float)
    for percent in (10, 30, 50, 70, 90):
        rest = len(encoded) - len(encoded) * percent // 100
        content = encoded[:-rest] + bytes(rest * filled)
        assert not accepted(content, whole, 0) or percent == 90
    assert accepted(encoded + b"\0" * 40, whole, 0)  # padding after the end


@pytest.mark.parametrize("kind", ["BMP", "PPM", "TIFF"])
def test_plain_pixels_that_break_off_are_refused(kind):
    encoded = saved("RGB", kind)
    for percent in (1, 10, 50, 90, 99):
        with pytest.raises(UnreadableError):
            decode.pixels(encoded[: len(encoded) * percent // 100])


def test_pngs_checksums():
    """Every flipped bit of the pixels is noticed; an end mark that is gone is said."""
    encoded = saved("RGB", "PNG")
    start, end = encoded.index(b"IDAT") + 4, encoded.index(b"IEND") - 8
    rng = np.random.default_rng(0)
    for at in rng.integers(start, end, 50):
        damaged = bytearray(encoded)
        damaged[at] ^= 1 << rng.integers(8)
        with pytest.raises(UnreadableError, match="damaged"):
            decode.pixels(bytes(damaged))
    notes = []
    pixels = decode.pixels(encoded[: end + 4], notes.append)
    assert notes == ["no end mark; all pixels are there"]
    np.testing.assert_array_equal(pixels, np.asarray(picture()))


def test_a_jpeg_in_a_tiff_has_to_be_whole():
    encoded = saved("RGB", "TIFF", compression="jpeg")
    end = encoded.rindex(b"\xff\xd9")
    start = encoded.index(b"\xff\xda")
    damaged = bytearray(encoded)
    damaged[(start + end) // 2 : (start + end) // 2 + 2] = b"\xff\xd9"
    with pytest.raises(UnreadableError, match="damaged"):
        decode.pixels(bytes(damaged))


def test_a_file_that_begins_well_is_named():
    with pytest.raises(UnreadableError, match="begins as a TIFF"):
        decode.pixels(saved("RGB", "TIFF")[:6])
