"""Regressed boxes: the loss, overlaps and errors, by loops over examples."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import ExifTags, Image

import vision_models
from evaluation import (
    CLASSES,
    EvaluationError,
    Scores,
    check_objective,
    protocol_called,
)
from evaluation.localization import in_pixels, of_image, overlaps, regression
from evaluation.preprocessing import Preprocessing
from input_pipeline.boxes import Boxes, as_read, extents
from training.optimizer import Rate
from training.recipe import Recipe
from training.step import init_function
from vision_models.functional import functional


def drawn(name="pcr", count=40, classes=3):
    """Outputs, and a batch of which some examples have no box of their class."""
    rng = np.random.default_rng(0)
    low = rng.uniform(-0.2, 0.5, (count, 4, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.1, 0.8, low.shape)], axis=-1)
    labels = rng.integers(-1, classes, (count, 4))
    boxes[labels < 0] = 0
    outputs = np.tile(regression.centred(jnp.asarray(boxes[:, 0])), (1, classes))
    outputs = outputs[:, : regression.outputs(name, classes)]
    outputs = outputs + rng.normal(scale=0.1, size=outputs.shape)
    batch = {
        "boxes": boxes.astype(np.float32),
        "box_labels": labels.astype(np.int32),
        "label": rng.integers(0, classes, count).astype(np.int32),
    }
    return jnp.asarray(outputs, jnp.float32), batch


def by_hand(name, outputs, batch):
    """Loss and best overlap of each example; NaN where there is no box."""
    found = []
    for row, label in enumerate(batch["label"]):
        own = [
            b
            for b, of in zip(batch["boxes"][row], batch["box_labels"][row], strict=True)
            if of == label
        ]
        four = np.asarray(outputs[row]).reshape(-1, 4)[label if name == "pcr" else 0]
        if not own:
            found.append((np.nan, np.nan))
            continue
        shown = [np.clip(b, 0, 1) for b in own]
        left, top, right, bottom = own[int(np.argmax([(c - a) * (d - b) for a, b, c, d in shown]))]
        middle = ((left + right) / 2, (top + bottom) / 2)
        target = np.array([*middle, right - left, bottom - top])
        guess = [four[0] - four[2] / 2, four[1] - four[3] / 2]
        guess += [four[0] + four[2] / 2, four[1] + four[3] / 2]
        best = max(region_overlap(guess, other) for other in own)
        found.append((((four - target) ** 2).sum() / 2, best))
    return np.array(found).T


def region_overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    areas = [max(x[2] - x[0], 0) * max(x[3] - x[1], 0) for x in (a, b)]
    return common / (sum(areas) - common)


@pytest.mark.quick
@pytest.mark.parametrize("name", ["scr", "pcr"])
def test_losses_and_errors(name):
    outputs, batch = drawn(name)
    loss, best = by_hand(name, outputs, batch)
    there = ~np.isnan(loss)
    assert 5 < there.sum() < 40
    on_device = {k: jnp.asarray(v) for k, v in batch.items()}
    np.testing.assert_allclose(
        regression.losses(outputs, on_device), np.where(there, loss, 0), rtol=1e-4, atol=1e-6
    )
    sums = regression.totals(outputs, on_device)
    assert sums.keys() == set(regression.SUMS) and sums["examples"] == there.sum()
    np.testing.assert_allclose(sums["loss"], loss[there].sum(), rtol=1e-4)
    np.testing.assert_allclose(sums["overlap"], best[there].sum(), rtol=1e-4)
    assert 0 < sums["localization_error"] == (best[there] < 0.5).sum()
    # The same of a square whose central half is the crop.
    square = batch | {"boxes": batch["boxes"] / 2 + 0.25}
    objective = regression.objective(name, (0.25, 0.5))
    rows = objective.rows(square, np.asarray(outputs))
    np.testing.assert_allclose(rows[:, 4], best, rtol=1e-3)
    np.testing.assert_allclose(rows[:, 5], loss, rtol=1e-3, atol=1e-6)
    means = objective.means(Scores(np.arange(40, dtype=np.int32), rows, batch["label"]))
    assert means["examples"] == 40 and means["localized_examples"] == there.sum()
    assert means["localization_error"] == pytest.approx((best[there] < 0.5).mean())


@pytest.mark.slow
def test_a_new_last_layer_answers_the_box_in_the_middle():
    network = functional(
        lambda rngs: vision_models.create(
            "googlenet", num_classes=12, image_size=80, auxiliary=True, rngs=rngs
        )
    )
    kept = {}
    for objective in (CLASSES, regression.objective("pcr", (0, 1))):
        recipe = Recipe((Rate("", 0.1),), 8, objective=objective)
        kept[objective.name] = init_function(network, recipe)(jax.random.key(0))["params"]
    assert len(network.heads) == 3
    for head in network.heads:
        layer = kept["pcr"]
        for name in head.split("/"):
            layer = layer[name]
        assert set(layer) == {"kernel", "bias"} and (np.asarray(layer["bias"]) == 0.5).all()
        assert np.std(layer["kernel"]) == pytest.approx(0.01, rel=0.1)
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), kept["classes"], kept["pcr"])
    assert sum(jax.tree.leaves(changed)) == 2 * 3  # all other layers start as a classifier's


def test_regions_overlap_as_the_kits_pixels_do():
    rng = np.random.default_rng(1)
    corners = np.sort(rng.integers(0, 20, (2, 30, 2, 2)), axis=2).reshape(2, 30, 4)
    regions = corners + np.array([0, 0, 1, 1])
    found = regression.overlap(
        regions[0].astype(float), regions[1][None].repeat(30, 0).astype(float)
    )
    np.testing.assert_allclose(found, overlaps(corners[0], corners[1]).clip(0), atol=1e-9)


def test_boxes_go_back_to_the_pixels_of_the_image():
    """A photograph of 400 x 200 pixels, annotated at half of that; its square has 100 + 2 x 10."""
    box = np.array([[(0 + 10) / 120, (20 + 10) / 120, (100 + 10) / 120, (150 + 10) / 120]])
    shares = of_image(box, np.array([[100, 200]]), 100, 10)  # the square begins at column 50
    np.testing.assert_allclose(shares, [[0.25, 0.2, 0.75, 1.0]])
    sizes = np.array([[200, 400]])
    for annotated, expected in (
        ((200, 100), [50, 20, 149, 99]),
        ((0, 0), [100, 40, 299, 199]),
        ((100, 100), [25, 20, 74, 99]),  # whatever the aspect
    ):
        found = in_pixels(shares, sizes, np.array([annotated]), np.array([1]))
        np.testing.assert_allclose(found, [expected])


def test_a_guess_of_the_true_region_is_the_true_box():
    """A JPEG of 1000 x 500 pixels, annotated at 500 x 375, and any other sizes and marks."""
    rng = np.random.default_rng(2)
    drawn = [((1000, 500), (500, 375), 1, [250.0, 0, 499, 374])]
    for _ in range(100):
        stored, shown = rng.integers(20, 60, (2, 2)).tolist()
        corners = np.sort(rng.integers(0, np.repeat([shown], 2, axis=0)), axis=0).ravel()
        drawn.append((tuple(stored), tuple(shown), int(rng.integers(1, 9)), corners))
    for stored, shown, mark, corners in drawn:
        file, exif = io.BytesIO(), Image.Exif()
        exif[ExifTags.Base.Orientation] = mark
        Image.new("RGB", stored).save(file, "JPEG", exif=exif)
        boxes = Boxes(np.array([corners]) / np.tile(shown, 2), np.array([0]), shown)
        read = as_read(extents(boxes), file.getvalue())
        upright = stored[::-1] if mark >= 5 else stored
        found = in_pixels(
            read.edges, np.array([upright[::-1]]), np.array([shown]), np.array([mark])
        )
        np.testing.assert_allclose(found, boxes.corners, atol=1e-3)


@pytest.mark.parametrize("mark", range(1, 9))
@pytest.mark.parametrize("stored", [(400, 200), (30, 30), (200, 400)])
def test_boxes_go_back_to_the_image_as_it_is_stored(mark, stored):
    """What the input pipeline turns upright; also where the annotator saw the upright image."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[ExifTags.Base.Orientation] = mark
    Image.new("RGB", stored).save(file, "JPEG", exif=exif)
    width, height = stored
    corners = np.array([[3.0, 5, 17, 25]])
    upright = stored[::-1] if mark >= 5 else stored
    for shown in (stored, upright):
        edges = np.add(corners, [0, 0, 1, 1]) / np.tile(shown, 2)
        read = as_read(Boxes(edges, np.array([0]), shown), file.getvalue())
        assert read.shown == upright
        marks, sizes = np.array([mark]), np.array([upright[::-1]])
        found = in_pixels(read.edges, sizes, np.array([shown]), marks)
        np.testing.assert_allclose(found, corners, atol=1e-9)
    if mark != 1 and width != height:
        edges = np.add(corners, [0, 0, 1, 1]) / np.tile(stored, 2)
        read = as_read(Boxes(edges, np.array([0]), stored), file.getvalue())
        found = in_pixels(read.edges, sizes, np.array([[0, 0]]), marks)  # without an annotation
        np.testing.assert_allclose(found, corners, atol=1e-9)


def test_protocols_and_objectives_that_do_not_go_together():
    preprocessing = Preprocessing(40, 32)
    boxes, classes = (
        protocol_called(name, preprocessing) for name in ("center_crop_true_class", "center_crop")
    )
    scr = regression.objective("scr", (0.1, 0.8))
    check_objective(boxes, scr)
    check_objective(classes, CLASSES)
    with pytest.raises(EvaluationError, match="for networks that regress boxes"):
        check_objective(boxes, CLASSES)
    with pytest.raises(EvaluationError, match=r"loss\.boxes=scr"):
        check_objective(classes, scr)
