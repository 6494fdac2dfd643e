"""Boxes follow the pixels: a drawn rectangle goes through the same crops as its box."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from configs.alexnet import get_config
from input_pipeline import DataError, augment, box_views, decode, open_data, order
from input_pipeline.augment import Crops
from input_pipeline.box_views import Wanted
from input_pipeline.boxes import Boxes, extents
from tests.conftest import write_images
from tests.input_pipeline.test_annotations import xml

CROPS = {
    "center": Crops(80, 64),
    "square": Crops(80, 64, "square", flip=True),
    "padded": Crops(70, 64, "square", pad=9, flip=True),
    "image": Crops(80, 64, "image", flip=True),
    "scales": Crops(80, 64, "image", scale_range=(66, 130), flip=True),
    "square scales": Crops(80, 64, "square", scale_range=(66, 130), flip=True),
    "area": Crops(80, 64, "area", flip=True),
    "enlarged": Crops(400, 64, "image", flip=True),
    "turned": Crops(110, 64, "image", flip=True, rotation=40.0),
    "stretched": Crops(110, 64, "image", stretch=1.4),
    "sheared": Crops(110, 64, "square", shear=0.4, flip=True),
    "pincushion and barrel": Crops(110, 64, "image", lens=0.16, flip=True),
    "all of them": Crops(
        110, 64, "image", scale_range=(80, 120), flip=True, rotation=20.0, stretch=1.2, shear=0.2,
        lens=0.1,
    ),
    "area, distorted": Crops(
        110, 64, "area", area_range=(0.7, 1.0), flip=True, rotation=20.0, lens=0.1
    ),
}  # fmt: skip


def rectangle(rng, height, width, least):
    """A rectangle of white pixels in a black image, and its box as annotators draw it."""
    size = [int(rng.integers(least, length - 4)) for length in (height, width)]
    top, left = (
        int(rng.integers(2, n - s - 1)) for n, s in zip((height, width), size, strict=True)
    )
    bottom, right = top + size[0] - 1, left + size[1] - 1
    image = np.zeros((height, width, 3), np.uint8)
    image[top : bottom + 1, left : right + 1] = 255
    edges = np.array([[left / width, top / height, right / width, bottom / height]], np.float32)
    return image, Boxes(edges, np.array([7], np.int32), (width, height))


def around(image, above=127):
    """Left, top, right and bottom of what is white, around its last pixels; None if nothing is."""
    rows, columns = np.nonzero(image[..., 0] > above)
    if not len(rows):
        return None
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize("name", CROPS)
def test_a_box_is_where_its_pixels_are(name):
    crops, rng, compared = CROPS[name], np.random.default_rng(0), 0
    uniforms = order.uniform_draws(0, np.zeros(60, np.int64), np.arange(60), augment.DRAWS)
    for number, uniform in enumerate(uniforms):
        height, width = ((150, 220), (200, 140), (160, 160))[number % 3]
        image, drawn = rectangle(rng, height, width, 24)
        view = augment.view(crops, uniform.tolist(), height, width)
        if crops.distorts and not inside(drawn, view, crops):
            continue  # what lies at the margin is repeated beyond it
        out, size = np.empty((64, 64, 3), np.uint8), []
        augment.take(
            image, crops, uniform, out, exact=True, sized=lambda *of, size=size: size.append(of)
        )
        assert size[-1] == (height, width)
        given = (extents(drawn), crops, uniform.tolist(), (height, width))
        visible, labels = box_views.in_crop(*given, Wanted(1, "visible"))
        seen = around(out)
        if seen is None:  # not so much as a pixel
            assert not len(visible) or (visible[0, 2:] - visible[0, :2]).min() * 64 <= 1
            continue
        compared += 1
        assert labels.tolist() == [7]
        box = visible[0] * 64
        if crops.distorts:  # a pointed corner is blunt in white pixels, and grey beyond it
            grey, outwards = around(out, above=0), np.array([-1, -1, 1, 1])
            assert ((seen - box) * outwards <= 1.5).all()
            assert ((box - grey) * outwards <= 1).all()
            np.testing.assert_allclose(box, seen, atol=6)
        else:
            np.testing.assert_allclose(box, seen, atol=1.0)
        whole, _ = box_views.in_crop(*given, Wanted(1))
        if not crops.distorts and not crops.pad and crops.kind == "image":
            np.testing.assert_allclose(whole.clip(0, 1), visible, atol=1e-6)
        if visible.min() > 0 and visible.max() < 1 and not crops.pad:
            np.testing.assert_allclose(whole, visible, atol=1e-6)
    assert compared > 10


def inside(drawn, view, crops):
    """Whether a box lies in the region that distorted crops are taken from."""
    top, left, rows, columns = view.box
    first, begin, lines, length = augment.region(view, crops)
    height, width = drawn.shown[::-1]
    x0, y0, x1, y1 = drawn.edges[0] * (width, height, width, height) + [0, 0, 1, 1]
    x0, x1 = ((x - left) * view.scaled[1] / columns - begin for x in (x0, x1))
    y0, y1 = ((y - top) * view.scaled[0] / rows - first for y in (y0, y1))
    return min(x0, y0) > 2 and x1 < length - 2 and y1 < lines - 2


def test_boxes_that_crops_hardly_show_are_left_out():
    drawn = Boxes(np.array([[0.0, 0, 0.39, 0.99]], np.float32), np.array([0], np.int32), (100, 100))
    crops = Crops(100, 60)  # from 20 to 80: half of the box
    draws = augment.MIDDLE.tolist()

    def seen(*options, of=drawn):
        return box_views.in_crop(extents(of), crops, draws, (100, 100), Wanted(1, *options))[0]

    np.testing.assert_allclose(seen()[0], [-1 / 3, -1 / 3, 1 / 3, 4 / 3], atol=0.01)
    np.testing.assert_allclose(seen("visible")[0], [0, 0, 1 / 3, 1], atol=0.01)
    assert len(seen("whole", 0.29)) == 1 and len(seen("whole", 0.31)) == 0
    outside = drawn._replace(edges=drawn.edges * 0.4)
    assert not len(seen(of=outside))


def test_boxes_of_the_examples_own_class_come_first():
    found = np.arange(12.0).reshape(3, 4)
    boxes, labels = box_views.arrays(found, np.array([4, 5, 5]), 5, 2)
    assert labels.tolist() == [5, 5] and boxes.tolist() == found[1:].tolist()
    boxes, labels = box_views.arrays(found[:1], np.array([4]), 5, 3)
    assert labels.tolist() == [4, -1, -1] and not boxes[1:].any() and boxes.dtype == np.float32


@pytest.fixture
def fields(tmp_path):
    """Photographs with orientation marks, in each of which a white rectangle is drawn."""
    root = write_images(tmp_path / "own", {f"{s}/{c}": 4 for s in ("train", "val") for c in "ab"})
    rng = np.random.default_rng(1)
    for number, path in enumerate(sorted(root.rglob("*.jpg"))):
        image, drawn = rectangle(rng, 120, 200, 40)
        exif = Image.Exif()
        exif[0x0112] = number % 8 + 1
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=95, exif=exif)
        path.write_bytes(file.getvalue())
        place = root / "Annotations" / path.relative_to(root).with_suffix(".xml")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(xml((path.parent.name, *drawn.corners[0]), size=(200, 120)))
    data = get_config().data
    data.name, data.dir = "folder", str(root)
    data.resize, data.crop, data.mean = 80, 64, "none"
    data.boxes.count = 2
    return data


@pytest.mark.quick
def test_batches_have_the_boxes_of_what_they_show(fields, tmp_path):
    fields.augment.crop, fields.boxes.extent = "image", "visible"
    data = open_data(fields, tmp_path / "cache")
    batch = next(data.training(0, seed=0, batch_size=16))
    assert batch["boxes"].shape == (16, 2, 4) and batch["boxes"].dtype == np.float32
    there = batch["boxes"][:, 0].any(axis=1)
    np.testing.assert_array_equal(batch["box_labels"][:, 0], np.where(there, batch["label"], -1))
    assert there.sum() > 10
    assert (batch["box_labels"][:, 1] == -1).all() and not batch["boxes"][:, 1].any()
    for image, boxes in zip(batch["image"], batch["boxes"], strict=True):
        if boxes.any():
            np.testing.assert_allclose(boxes[0] * 64, around(image), atol=1.5)
        else:
            assert around(image) is None
    square = SimpleNamespace(side=80, pad=4, whole=False)
    found = list(data.evaluation("validation", square, batch_size=6))
    assert [len(batch["boxes"]) for batch in found] == [6, 6]
    for batch in found:
        for image, boxes, mask in zip(batch["image"], batch["boxes"], batch["mask"], strict=True):
            if mask:
                expected = boxes[0].clip(4 / 88, 84 / 88) * 88  # padding is not of the image
                np.testing.assert_allclose(expected, around(image), atol=1.5)
            else:
                assert not boxes.any()
    whole = SimpleNamespace(side=80, pad=0, whole=True)
    plan = [SimpleNamespace(shape=(140, 140), rows=np.arange(8))]
    (batch,) = data.evaluation("validation", whole, batch_size=8, plan=plan)
    for image, boxes, (height, width) in zip(
        batch["image"], batch["boxes"], batch["valid"], strict=True
    ):
        np.testing.assert_allclose(
            boxes[0] * [width, height, width, height], around(image), atol=1.5
        )


def test_an_annotation_of_another_image_is_told(fields, tmp_path):
    path = next((tmp_path / "own" / "Annotations" / "val" / "a").glob("*.xml"))
    path.write_text(path.read_text().replace("<width>200", "<width>300"))
    told = []
    data = open_data(fields, tmp_path / "cache", report=lambda *line: told.append(line))
    square = SimpleNamespace(side=80, pad=0, whole=False)
    list(data.evaluation("validation", square, batch_size=8))
    ((name, what, reason),) = told
    assert path.stem in name and what == "annotated at another size" and "300 x 120" in reason


def test_without_being_asked_for_nothing_changes(fields, tmp_path):
    with_boxes = open_data(fields, tmp_path / "cache")
    fields.boxes.count = 0
    without = open_data(fields, tmp_path / "cache")
    square = SimpleNamespace(side=80, pad=0, whole=False)
    for streams in (
        [data.training(3, seed=1, batch_size=4) for data in (with_boxes, without)],
        [data.evaluation("validation", square, batch_size=4) for data in (with_boxes, without)],
    ):
        more, less = map(next, streams)
        assert more.keys() - less.keys() == {"boxes", "box_labels"}
        for name in less:
            np.testing.assert_array_equal(more[name], less[name])


def test_a_dataset_without_annotations_is_named(tmp_path):
    data = get_config().data
    data.name, data.resize, data.crop, data.boxes.count = "digits", 32, 32, 1
    with pytest.raises(DataError, match=r"data\.boxes\.count=1: there are no annotations"):
        next(open_data(data, tmp_path).training(0, seed=0, batch_size=2))


def test_large_photographs_are_decoded_coarser_with_their_boxes():
    """DCT scaling: a quarter of the size is decoded."""
    rng = np.random.default_rng(2)
    image, drawn = rectangle(rng, 900, 1200, 300)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=95)
    crops, uniform = Crops(80, 64, "image"), augment.MIDDLE
    out = np.empty((64, 64, 3), np.uint8)
    augment.take(file.getvalue(), crops, uniform, out, exact=False)
    assert decode.size(file.getvalue()) == (900, 1200)
    visible, _ = box_views.in_crop(
        extents(drawn), crops, uniform.tolist(), (900, 1200), Wanted(1, "visible")
    )
    np.testing.assert_allclose(visible[0] * 64, around(out), atol=1.0)
