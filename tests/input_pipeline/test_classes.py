"""Some classes of a dataset: which images, labelled how, and what is refused."""

import numpy as np
import pytest

from configs.alexnet import get_config
from evaluation import Images
from input_pipeline import DataError, open_data, open_dataset, prepare_data
from input_pipeline.boxes import Boxes
from input_pipeline.datasets import Chosen, classes
from input_pipeline.sources import from_arrays
from tests.conftest import write_images

SIZES = {"ant": 12, "bee": 5, "cow": 9, "dog": 7}


@pytest.fixture
def root(tmp_path):
    whole = {f"train/{name}": count for name, count in SIZES.items()}
    return write_images(tmp_path / "own", whole | {f"test/{name}": 2 for name in SIZES})


def opened(root, tmp_path, *chosen, validation_examples=6, **options):
    return open_dataset(
        "folder",
        str(root),
        cache_dir=tmp_path / "c",
        validation_examples=validation_examples,
        chosen=Chosen(chosen, **options),
    )


def listed(examples):
    """Name -> label, of every example; the labels that are known without reading agree."""
    labels = [examples.read(row)[1] for row in range(examples.count)]
    np.testing.assert_array_equal(examples.labels(), labels)
    return {examples.name(row): labels[row] for row in range(examples.count)}


@pytest.mark.quick
def test_classes_are_chosen_in_every_split_and_take_the_order_that_is_given(root, tmp_path):
    whole, some = opened(root, tmp_path), opened(root, tmp_path, 3, 1)
    assert some.class_names == ("dog", "bee")
    for split in ("train", "validation", "test"):
        everything, found = listed(whole.splits[split]), listed(some.splits[split])
        expected = {name: {3: 0, 1: 1}[label] for name, label in everything.items() if label % 2}
        assert found == expected and list(found) == list(expected)
    counts = sum(some.splits[split].count for split in ("train", "validation"))
    assert counts == SIZES["dog"] + SIZES["bee"] and some.splits["test"].count == 4


@pytest.mark.quick
def test_what_is_held_out_is_the_same_whatever_is_chosen(root, tmp_path):
    """Nothing is validated on that a network of all classes was trained on."""
    whole = listed(opened(root, tmp_path).splits["validation"])
    halves = [
        listed(opened(root, tmp_path, *half).splits["validation"]) for half in ((0, 1), (2, 3))
    ]
    assert sorted(whole) == sorted([*halves[0], *halves[1]])


@pytest.mark.quick
def test_a_dataset_of_other_classes_or_another_order_is_another(root, tmp_path):
    chosen = [(), (0, 1), (1, 0), (0, 1, 2), (0, 1, 2, 3)]
    assert len({opened(root, tmp_path, *some).fingerprint for some in chosen}) == len(chosen)
    assert opened(root, tmp_path, 0, 1).fingerprint == opened(root, tmp_path, 0, 1).fingerprint


def test_numbers_of_examples_are_those_of_the_classes(root, tmp_path):
    train = opened(root, tmp_path, 2, 1, train_examples=7).splits["train"]
    assert train.count == 7 and np.ptp(np.bincount(train.labels())) == 1
    folds = [
        opened(root, tmp_path, 0, 2, validation_examples=None, folds=3, fold=fold)
        for fold in range(3)
    ]
    held = [set(listed(dataset.splits["validation"])) for dataset in folds]
    assert sum(map(len, held)) == len(set.union(*held)) == SIZES["ant"] + SIZES["cow"]
    with pytest.raises(DataError, match=r"train_examples=20: there are 1\d training examples"):
        opened(root, tmp_path, 0, 1, train_examples=20)


@pytest.mark.parametrize(
    "chosen, message",
    [
        ((0, 4), r"data\.classes=0,4: folder has no class 4; its 4 classes are 0 to 3"),
        ((0, -1), r"data\.classes=0,-1: folder has no class -1"),
        ((2, 0, 2), r"data\.classes=2,0,2: a class is there twice"),
        ((2,), r"data\.classes=2: one class leaves nothing to tell apart"),
    ],
)
def test_classes_that_cannot_be_are_named(root, tmp_path, chosen, message):
    with pytest.raises(DataError, match=message):
        opened(root, tmp_path, *chosen)


def test_a_split_without_any_of_them_is_named(tmp_path):
    pixels, labels = np.zeros((4, 2, 2, 3), np.uint8), np.array([0, 0, 1, 1], np.int32)
    with pytest.raises(DataError, match=r"data\.classes=2,3: a split has none of these"):
        classes.chosen(from_arrays(pixels, labels, "four"), (2, 3), 4, tmp_path)


def test_boxes_of_other_classes_are_of_none(tmp_path):
    pixels, labels = np.zeros((3, 2, 2, 3), np.uint8), np.array([2, 0, 1], np.int32)
    boxes = Boxes(np.zeros((4, 4), np.float32), np.array([1, 2, 0, -1], np.int32), (2, 2))
    examples = from_arrays(pixels, labels, "three")
    examples = examples.__class__(**(vars(examples) | {"boxes": lambda row: boxes}))
    some = classes.chosen(examples, (1, 2), 3, tmp_path)
    assert some.labels().tolist() == [1, 0]
    assert some.boxes(0).labels.tolist() == [0, 1, -1, -1]


def test_a_prepared_dataset_has_all_classes(root, tmp_path):
    """They are chosen when it is read, with the images and labels of the source."""
    data = get_config("digits").data
    data.name, data.dir, data.resize, data.crop = "folder", str(root), 24, 24
    data.classes, data.mean = (3, 0), "none"

    def numbers(prepared):
        data.prepared_dir = prepared
        found = open_data(data, tmp_path / "c")
        assert found.class_names == ("dog", "ant")
        train = found.examples("train")
        return [train.read(row)[1] for row in range(train.count)], train.labels().tolist()

    data.prepared_dir = str(tmp_path / "prepared")
    assert "train 30, test 8, validation 3 images" in prepare_data(data, tmp_path / "c")
    assert numbers(str(tmp_path / "prepared")) == numbers(None)


def test_statistics_are_of_the_classes_alone(root, tmp_path):
    data = get_config("digits").data
    data.name, data.dir, data.resize, data.crop = "folder", str(root), 24, 24
    data.mean, data.classes, data.validation_examples = "channel", (1, 2), 5
    found, squares = open_data(data, tmp_path / "c"), Images(24)
    train = found.examples("train")
    (batch,) = found.evaluation("train", squares, batch_size=train.count)
    mean = found.normalization(squares)["mean"][0, 0]
    np.testing.assert_allclose(mean, batch["image"].mean((0, 1, 2)), rtol=1e-5)
    counts = np.bincount(batch["label"], minlength=2)
    np.testing.assert_array_equal(found.class_counts(), counts)
