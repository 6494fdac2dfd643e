"""JPEGs that break off, are filled up, ended early, or have flipped bits.

Whatever is used is compared with the undamaged file.
"""

import collections
import io
import re
import struct

import numpy as np
import pytest
from PIL import Image

from input_pipeline import augment, decode, formats, jpeg
from input_pipeline.augment import Crops
from input_pipeline.decode import UnreadableError
from tests.input_pipeline.test_decode import photograph, saved

END = b"\xff\xd9"
CUTS = (5, 30, 60, 95)
HEIGHT = 240


def exif(orientation):
    mark = Image.Exif()
    mark[0x0112] = orientation
    return mark


def noisy(seed=3):
    """Detail everywhere, so that every row needs its data."""
    noise = np.random.default_rng(seed).integers(-20, 20, (HEIGHT, 180, 3))
    image = 64 + np.asarray(photograph(HEIGHT, 180, seed)) // 2 + noise
    return Image.fromarray(image.astype(np.uint8))


KINDS = {
    "4:2:0": {},
    "4:2:2": {"subsampling": 1},
    "4:4:4": {"subsampling": 0},
    "own codes": {"optimize": True},
    "restarts": {"restart_marker_rows": 1},
    "restarts inside rows": {"restart_marker_blocks": 5},
    "progressive": {"progressive": True},
    "turned": {"exif": exif(3)},
    "gray": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
}


def made(kind):
    options = dict(KINDS[kind])
    return saved(noisy().convert(options.pop("mode", "RGB")), **options)


def damaged(encoded, seed=0):
    """(form, how much of it) -> bytes."""
    forms = {}
    end = encoded.rindex(END)
    for percent in CUTS:
        rest = len(encoded) - len(encoded) * percent // 100
        forms["cut", f"{percent}%"] = encoded[:-rest]
        forms["zeros", f"{percent}%"] = encoded[:-rest] + bytes(rest)
        # Erased flash memory; long, for time that grows with its square would never end.
        forms["erased", f"{percent}%"] = encoded[:-rest] + b"\xff" * (rest + 100_000)
        forms["end mark", f"{percent}%"] = encoded[:-rest] + END
    forms["no end mark", ""] = encoded[:end]
    forms["half an end mark", ""] = encoded[: end + 1]
    forms["zeros", "for the end mark"] = encoded[:end] + bytes(500)
    forms["bytes after the end", ""] = encoded[:end] + END + b"more" * 100
    rng = np.random.default_rng(seed)
    for bits in (1, 8):
        values = np.frombuffer(encoded, np.uint8).copy()
        for bit in rng.choice(8 * len(values), bits, replace=False):
            values[bit // 8] ^= 1 << (bit % 8)
        forms["flipped bits", str(bits)] = values.tobytes()
    return forms


def verdict(encoded):
    """Pixels, or None; and what is said."""
    notes = []
    try:
        pixels = decode.pixels(encoded, notes.append)
    except UnreadableError as error:
        return None, f"unreadable: {error}"
    assert len(notes) <= 1
    return pixels, notes[0] if notes else "fine"


def verdicts_of_views(encoded):
    """What is said to those who want a part, of any size, exactly or quickly."""
    for crops, exact, draw in (
        (Crops(40, 8, "square"), False, 0.01),  # at a quarter of the size, above
        (Crops(40, 8, "square"), True, 0.99),  # below
        (Crops(200, 180), False, 0.5),
        (Crops(64, 64, "area"), True, 0.01),
    ):
        notes = []
        out = np.empty((crops.crop, crops.crop, 3), np.uint8)
        draws = np.full(augment.DRAWS, draw)
        try:
            augment.take(encoded, crops, draws, out, exact=exact, repaired=notes.append)
            yield notes[0] if notes else "fine"
        except UnreadableError as error:
            yield f"unreadable: {error}"


def check(encoded, whole, form, progressive):
    """The verdict in a word, after a look at every pixel that is used."""
    pixels, said = verdict(encoded)
    if pixels is None:
        assert form not in ("no end mark", "half an end mark", "bytes after the end"), said
        return "unreadable"
    if said == "fine":
        assert form in ("bytes after the end", "flipped bits")
        if not np.array_equal(pixels, whole):
            assert form == "flipped bits"  # nothing tells
            return "fine, though other pixels"
    elif said == "cut short: coarser than it was":
        assert progressive and pixels.shape == whole.shape
        means = [block_means(image) for image in (pixels, whole)]
        assert np.abs(means[0] - means[1]).max() < 16 and np.abs(means[0] - means[1]).mean() < 1.5
        return "repaired: coarser"
    elif len(pixels) == len(whole):
        np.testing.assert_array_equal(pixels, whole)
        assert "all" in said and form in ("no end mark", "half an end mark", "zeros", "erased")
        return "repaired: all rows"
    else:
        assert said == (
            f"cut short: the {len(pixels)} of {len(whole)} rows that are there are used"
        )
        assert form in ("cut", "zeros", "erased") and 2 * len(pixels) >= len(whole)
        np.testing.assert_array_equal(pixels, whole[: len(pixels)])
        return "repaired: rows kept"
    return said


def block_means(image):
    height, width = (length // 16 * 16 for length in image.shape[:2])
    blocks = image[:height, :width].reshape(height // 16, 16, width // 16, 16, 3)
    return blocks.astype(float).mean((1, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_every_pixel_that_is_used_comes_from_the_file(kind, capfd):
    encoded = made(kind)
    whole, said = verdict(encoded)
    assert said == "fine"
    outcomes = {}
    for (form, degree), content in damaged(encoded).items():
        if kind == "turned":  # upside down: rows are missing at the top
            pixels, said = verdict(content)
            if pixels is not None and form != "flipped bits":
                np.testing.assert_array_equal(pixels, whole[len(whole) - len(pixels) :])
        else:
            outcomes[form, degree] = check(content, whole, form, kind == "progressive")
        assert set(verdicts_of_views(content)) == {verdict(content)[1]}
    assert capfd.readouterr().err == ""  # libjpeg has nothing to say on its own
    if kind not in ("turned", "progressive"):
        for form in ("cut", "zeros"):
            assert outcomes[form, "95%"] == outcomes[form, "60%"] == "repaired: rows kept"
            assert outcomes[form, "30%"] == "unreadable"


@pytest.mark.parametrize("kind", ["4:2:0", "4:4:4", "gray", "restarts inside rows"])
def test_no_more_rows_are_dropped_than_the_row_of_blocks_that_breaks_off(kind):
    """Of data that breaks off at byte n, rows are those that no change after n can touch."""
    encoded = made(kind)
    whole = decode.pixels(encoded)
    size = 16 if kind in ("4:2:0", "restarts inside rows") else 8
    start = encoded.index(b"\xff\xda")
    for percent in range(61, 100, 6):
        cut = start + (len(encoded) - start) * percent // 100
        cut += encoded[cut - 1] == 0xFF
        pixels, _ = verdict(encoded[:cut])
        other = bytearray(encoded)
        other[cut : cut + 100] = b"\x55" * 100
        changed = np.asarray(Image.open(io.BytesIO(bytes(other))).convert("RGB"))
        first = int((changed != whole).any((1, 2)).argmax())
        assert first - size - 2 < len(pixels) <= first + 1


def test_flipped_bits_of_small_files_are_judged_alike_for_every_view():
    rng = np.random.default_rng(0)
    said = set()
    for kind in ("4:2:0", "progressive", "restarts"):
        encoded = saved(photograph(), **KINDS[kind])
        for _ in range(60):
            other = bytearray(encoded)
            other[rng.integers(len(other))] ^= 1 << rng.integers(8)
            verdicts = set(verdicts_of_views(bytes(other))) | {verdict(bytes(other))[1]}
            assert len(verdicts) == 1
            said |= {re.sub(r"\d+", "N", text) for text in verdicts}
    assert "fine" in said and len(said) > 5


def photographs(shared_data):
    return sorted(shared_data("imagenet_sample").glob("*/*/*.JPEG"))


def table(paths):
    """Counts of verdicts, and rows kept, by form."""
    counts = collections.defaultdict(collections.Counter)
    rows = collections.defaultdict(list)
    for seed, path in enumerate(paths):
        encoded = path.read_bytes()
        whole, said = verdict(encoded)
        assert said == "fine"
        progressive = b"\xff\xc2" in encoded[: encoded.index(b"\xff\xda")]
        turned = formats.orientation(Image.open(path)) != 1
        for key, content in damaged(encoded, seed).items():
            if turned and key[0] in ("cut", "zeros"):
                continue
            counts[key][check(content, whole, key[0], progressive)] += 1
            pixels, said = verdict(content)
            if seed % 25 == 0:
                assert set(verdicts_of_views(content)) == {said}
            if pixels is not None and len(pixels) < len(whole) and key[0] in ("cut", "zeros"):
                rows[key].append(len(pixels) / len(whole))
    for key, outcomes in counts.items():
        kept = f" ({100 * np.mean(rows[key]):.0f}% of rows on average)" if rows[key] else ""
        listing = ", ".join(f"{n} {outcome}" for outcome, n in sorted(outcomes.items()))
        print(f"{' '.join(key):<24}{listing}{kept}")
    return counts


def test_damaged_photographs(shared_data):
    counts = table(photographs(shared_data)[::25])
    assert counts["cut", "95%"] == counts["zeros", "95%"] == {"repaired: rows kept": 10}
    assert counts["no end mark", ""] == {"repaired: all rows": 10}
    assert counts["bytes after the end", ""] == {"fine": 10}


@pytest.mark.slow
def test_all_damaged_photographs(shared_data):
    """Prints the table: pytest -n 0 -rP -m slow tests/input_pipeline/test_jpeg.py."""
    paths = photographs(shared_data)
    assert len(paths) == 250
    counts = table(paths)
    for percent in CUTS:
        assert set(counts["end mark", f"{percent}%"]) == {"unreadable"}
    assert sum(counts["flipped bits", "8"].values()) == 250
    assert counts["flipped bits", "8"]["unreadable"] > 125


def with_frame(encoded, **fields):
    """Other values in the frame header."""
    at = re.search(rb"\xff[\xc0\xc2]\x00[\x0b\x11\x14]", encoded).start()
    changed = bytearray(encoded)
    height, width = struct.unpack(">HH", changed[at + 5 : at + 9])
    values = fields.get("height", height), fields.get("width", width)
    changed[at + 5 : at + 9] = struct.pack(">HH", *values)
    changed[at + 4] = fields.get("bits", 8)
    return bytes(changed)


@pytest.mark.parametrize(
    "change",
    [
        {"height": 600},
        {"height": 120},
        {"width": 600},
        {"width": 100},
        {"height": 0},  # to be told after the first scan (DNL)
        {"width": 0},
        {"height": 65_535, "width": 2_000},
        {"bits": 12},
        {"bits": 0},
    ],
)
@pytest.mark.parametrize("kind", ["4:2:0", "progressive", "turned"])
def test_frames_that_the_data_does_not_fill(change, kind):
    content = with_frame(made(kind), **change)
    pixels, said = verdict(content)
    assert pixels is None and said.startswith("unreadable")
    assert set(verdicts_of_views(content)) == {said}


def test_a_frame_that_comes_twice():
    encoded = made("4:2:0")
    at, scan = encoded.index(b"\xff\xc0"), encoded.index(b"\xff\xda")
    twice = encoded[:scan] + encoded[at : at + 19] + encoded[scan:]
    assert verdict(twice)[1].startswith("unreadable: damaged")


def test_files_that_ask_for_far_more_than_they_are():
    """Refused before memory is taken for their pixels."""
    huge = with_frame(saved(Image.new("RGB", (8, 8))), height=13_000, width=13_000)
    pixels, said = verdict(huge)
    assert pixels is None and "bytes cannot hold half of 13000 x 13000 pixels" in said
    encoded = saved(photograph(), progressive=True)
    last = encoded.rindex(b"\xff\xda")
    many = encoded[:last] + encoded[last:-2] * 600 + END
    assert verdict(many) == (None, "unreadable: more than 500 scans")


def test_what_libjpeg_says_of_headers_alone_is_no_damage():
    encoded = made("4:2:0")
    whole = decode.pixels(encoded)
    version = encoded.replace(b"JFIF\0\1", b"JFIF\0\7", 1)
    empty = encoded.replace(b"\0\x3f\0", b"\0\0\0", 1)  # as some cameras write
    for content in (version, empty):
        assert content != encoded and jpeg.complaint_of(content)
        pixels, said = verdict(content)
        assert said == "fine"
        np.testing.assert_array_equal(pixels, whole)
        assert set(verdicts_of_views(content)) == {"fine"}


def test_filling_before_the_end_mark():
    encoded = made("4:2:0")
    pixels, said = verdict(encoded[:-2] + bytes(100) + END)
    assert said == "100 bytes too many before the end mark; all rows used"
    np.testing.assert_array_equal(pixels, decode.pixels(encoded))
    assert verdict(encoded[:-2] + b"between" * 20 + END)[0] is None


def test_a_progressive_file_that_breaks_off():
    """All of it, coarser, once every colour had its first scan; before that, nothing."""
    encoded = made("progressive")
    scans = [match.start() for match in re.finditer(rb"\xff\xda", encoded)]
    whole = decode.pixels(encoded)
    for content in (encoded[: scans[1] - 40], encoded[: scans[0] + 300]):
        assert re.fullmatch("unreadable: cut short: 0 of 240 rows are there", verdict(content)[1])
    errors = []
    for scan in scans[2:]:
        for content in (encoded[:scan], encoded[: scan + 4], encoded[: scan + 60]):
            pixels, said = verdict(content)
            assert said == "cut short: coarser than it was"
        errors.append(np.abs(pixels.astype(int) - whole).mean())
    assert errors == sorted(errors, reverse=True) and errors[0] > 1.5 * errors[-1]


def flat_blocks(sampling, seed=0):
    """A JPEG of 64 x 64 pixels whose blocks are flat, with any sampling of its components."""
    rng = np.random.default_rng(seed)
    bits = ""
    previous = [0] * len(sampling)
    across, down = max(h for h, _ in sampling), max(v for _, v in sampling)
    for _ in range(-(-64 // (8 * across)) * -(-64 // (8 * down))):
        for part, (h, v) in enumerate(sampling):
            for _ in range(h * v):
                value = int(rng.integers(-60, 60))
                change, previous[part] = value - previous[part], value
                size = abs(change).bit_length()
                bits += f"{size:04b}"  # the code of a size is the size
                if size:
                    bits += f"{change if change > 0 else change + (1 << size) - 1:0{size}b}"
                bits += "0"  # no more in this block
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")

    def segment(marker, payload):
        return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload

    parts = b"".join(bytes([n + 1, h << 4 | v, 0]) for n, (h, v) in enumerate(sampling))
    uses = b"".join(bytes([n + 1, 0]) for n in range(len(sampling)))
    return (
        b"\xff\xd8"
        + segment(0xDB, bytes([0]) + bytes([16] * 64))
        + segment(0xC0, struct.pack(">BHHB", 8, 64, 64, len(sampling)) + parts)
        + segment(0xC4, bytes([0, 0, 0, 0, 12, *[0] * 12, *range(12)]))
        + segment(0xC4, bytes([0x10, 1, *[0] * 15, 0]))
        + segment(0xDA, bytes([len(sampling)]) + uses + b"\0\x3f\0")
        + data
        + END
    )


@pytest.mark.parametrize(
    "sampling", [((2, 2), (1, 1), (1, 1)), ((4, 2), (1, 1), (1, 1)), ((2, 2), (2, 1), (1, 1))]
)
def test_unusual_sampling(sampling):
    encoded = flat_blocks(sampling)
    pixels, said = verdict(encoded)
    assert said == "fine" and len(np.unique(pixels)) > 50
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(encoded))))
    assert set(verdicts_of_views(encoded)) == {"fine"}
    for share in (0.7, 0.9):
        cut = encoded[: int(len(encoded) * share)]
        check(cut, pixels, "cut", False)
        assert verdict(cut + END)[0] is None
    check(encoded[:-2], pixels, "no end mark", False)
