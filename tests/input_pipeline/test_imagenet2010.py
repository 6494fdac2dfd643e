"""ILSVRC-2010: labels in the order of its kit, a labelled test set, damaged images replaced."""

import numpy as np
import pytest

from input_pipeline import DataError
from input_pipeline.datasets.imagenet import imagenet_synsets
from tests.input_pipeline import layout_files as write
from tests.input_pipeline.test_layouts import opened


@pytest.fixture(scope="module")
def photos():
    return write.photographs(12, 8)


@pytest.fixture(scope="module")
def ids():
    """Any order; that of 2010 is not the sorted one either."""
    return [str(synset) for synset in np.random.default_rng(5).permutation(imagenet_synsets())]


@pytest.fixture
def root(photos, ids, tmp_path):
    write.imagenet2010(tmp_path / "data", photos, ids)
    return tmp_path / "data"


def opened_2010(root, tmp_path, **options):
    return opened(root, tmp_path, name="imagenet2010", **options)


def test_labels_are_the_ids_of_the_kit(root, photos, ids, tmp_path):
    dataset = opened_2010(root, tmp_path)
    assert dataset.class_names == tuple(ids)
    assert dataset.evaluation_split == "test"
    label_of = {photo.content: ids.index(photo.synset) for photo in photos}
    for split, count in (("train", 12), ("validation", 8), ("test", 8)):
        examples = dataset.splits[split]
        assert examples.count == count
        for row in range(count):
            content, label = examples.read(row)
            assert label_of[content] == label, split  # the damaged one is replaced as well


def test_the_same_from_folders(root, photos, ids, tmp_path):
    renamed = [p._replace(name=p.name.replace("2012", "2010")) for p in photos]
    write.folders(tmp_path / "tree", renamed)
    write.write(tmp_path / "tree" / "devkit-1.0" / "data" / "meta.mat", write.meta_mat(ids, 2010))
    ours, expected = (opened_2010(path, tmp_path) for path in (root, tmp_path / "tree"))
    assert expected.splits.keys() == {"train", "validation"}
    for split, examples in expected.splits.items():
        assert ours.splits[split].fingerprint == examples.fingerprint


def test_test_images_without_labels_are_not_used(root, tmp_path):
    (root / "ILSVRC2010_test_ground_truth.txt").unlink()
    dataset = opened_2010(root, tmp_path)
    assert dataset.evaluation_split == "validation"
    assert "ILSVRC2010_test_ground_truth.txt" in dataset.absent["test"]


def test_without_the_kit_its_order_is_not_known(root, tmp_path):
    (root / "ILSVRC2010_devkit-1.0.tar.gz").unlink()
    with pytest.raises(DataError, match="looked for ILSVRC2010_devkit"):
        opened_2010(root, tmp_path)


def test_nothing_is_held_out_unasked(root, tmp_path):
    (root / "ILSVRC2010_images_val.tar").unlink()
    dataset = opened_2010(root, tmp_path)
    assert {k: of.count for k, of in dataset.splits.items()} == {"train": 12, "test": 8}
    assert "is held out by --config.data.validation_examples=" in dataset.absent["validation"]
    held = opened_2010(root, tmp_path, validation_examples=3)
    assert {k: of.count for k, of in held.splits.items()} == {
        "train": 9,
        "validation": 3,
        "test": 8,
    }
