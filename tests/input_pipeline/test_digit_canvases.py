"""Canvases with digits: the box is around the ink."""

import numpy as np
import pytest

from input_pipeline import open_dataset


@pytest.mark.quick
def test_the_box_is_around_the_digit(tmp_path):
    dataset = open_dataset("digit_canvases", None, cache_dir=tmp_path)
    assert [dataset.splits[s].count for s in ("train", "validation", "test")] == [
        100_000,
        2000,
        5000,
    ]
    test = dataset.splits["test"]
    sizes = []
    for row in range(40):
        canvas, label = test.read(row)
        assert canvas.shape == (224, 224, 3) and canvas.dtype == np.uint8
        np.testing.assert_array_equal(canvas, test.read(row)[0])
        rows, columns = np.nonzero(canvas[..., 0] >= 32)
        found = [columns.min(), rows.min(), columns.max(), rows.max()]
        boxes = test.boxes(row)
        np.testing.assert_allclose(boxes.corners[0], found, atol=9)  # its rims are soft
        left, top, right, bottom = boxes.corners[0]
        outside = canvas.copy()
        outside[int(top) : int(bottom) + 1, int(left) : int(right) + 1] = 0
        assert not outside.any()
        assert boxes.labels.tolist() == [label]
        sizes.append((right - left, bottom - top))
    assert np.std(sizes, axis=0).min() > 15
    assert not np.array_equal(test.read(0)[0], dataset.splits["validation"].read(0)[0])
