"""What is held out of a training set, and which part of it is trained on: to the example."""

import dataclasses
import itertools

import numpy as np
import pytest

from configs.alexnet import get_config
from input_pipeline import DataError, open_data, open_dataset, prepare_data, sources
from input_pipeline.datasets import Chosen
from tests.conftest import write_images

SIZES = {"a": 20, "b": 3, "c": 9}


@pytest.fixture
def root(tmp_path):
    return write_images(tmp_path / "own", SIZES, size=(24, 24))


def opened(root, tmp_path, **options):
    held = {k: options.pop(k) for k in ("validation_examples", "only") if k in options}
    return open_dataset(
        "folder", str(root), cache_dir=tmp_path / "c", chosen=Chosen(**options), **held
    )


def names(examples):
    return [examples.name(index) for index in range(examples.count)]


def sizes(examples):
    labels = np.array([examples.read(index)[1] for index in range(examples.count)])
    np.testing.assert_array_equal(examples.labels(), labels)
    return np.bincount(labels, minlength=3).tolist()


@pytest.mark.quick
def test_folds_part_the_training_set_class_by_class(root, tmp_path):
    folds = [opened(root, tmp_path, folds=5, fold=fold) for fold in range(5)]
    held = [names(dataset.splits["validation"]) for dataset in folds]
    assert sorted(itertools.chain(*held)) == sorted(str(p) for p in root.rglob("*.jpg"))
    assert sorted(map(len, held)) == [6, 6, 6, 7, 7]
    for dataset, part in zip(folds, held, strict=True):
        train = names(dataset.splits["train"])
        assert not set(train) & set(part) and len(train) + len(part) == 32
        for count, whole in zip(sizes(dataset.splits["validation"]), SIZES.values(), strict=True):
            assert count in (whole // 5, -(-whole // 5))
    assert len({dataset.fingerprint for dataset in folds}) == 5
    again = opened(root, tmp_path, folds=5, fold=2)
    assert again.fingerprint == folds[2].fingerprint
    assert opened(root, tmp_path, folds=5, fold=2, choice_seed=1).fingerprint != again.fingerprint
    alone = opened(root, tmp_path, folds=5, fold=2, only="validation")
    assert names(alone.splits["validation"]) == held[2]


@pytest.mark.parametrize(
    "wanted, expected",
    [(1, None), (3, [1, 1, 1]), (7, None), (8, [3, 2, 3]), (16, [7, 2, 7]), (27, [17, 2, 8])],
)
def test_a_choice_is_balanced_and_comes_after_what_is_held_out(root, tmp_path, wanted, expected):
    whole = opened(root, tmp_path, validation_examples=4)
    assert sizes(whole.splits["train"]) == [18, 2, 8]  # by the fixed order of the 32
    dataset = opened(root, tmp_path, validation_examples=4, train_examples=wanted)
    assert names(dataset.splits["validation"]) == names(whole.splits["validation"])
    train = dataset.splits["train"]
    assert train.count == wanted
    assert set(names(train)) <= set(names(whole.splits["train"]))
    if expected is None:
        assert np.ptp(sizes(train)) == 1
    else:
        assert sizes(train) == expected


def test_a_smaller_choice_is_part_of_a_larger_one(root, tmp_path):
    chosen = [
        set(names(opened(root, tmp_path, train_examples=wanted).splits["train"]))
        for wanted in range(1, 30)
    ]
    assert all(few < many for few, many in itertools.pairwise(chosen))
    other = opened(root, tmp_path, train_examples=6, choice_seed=1).splits["train"]
    assert sizes(other) == [2, 2, 2] and set(names(other)) != chosen[5]


def test_so_many_of_each_class(root, tmp_path):
    dataset = opened(root, tmp_path, validation_examples=4, train_examples_per_class=5)
    assert sizes(dataset.splits["train"]) == [5, 2, 5]
    assert dataset.notes == ("data.train_examples_per_class=5: 1 class of fewer examples: b (2)",)
    with_folds = opened(root, tmp_path, folds=4, fold=3, train_examples_per_class=2)
    assert sizes(with_folds.splits["train"]) == [2, 2, 2] and not with_folds.notes
    assert with_folds.splits["validation"].count == 8


def test_datasets_that_have_to_be_read_for_their_labels(tmp_path):
    """The digits' labels are known; without, they are read once and kept."""
    digits = open_dataset("digits", None, cache_dir=tmp_path).splits["train"]
    read = []

    def counted(row):
        read.append(row)
        return digits.read(row)

    blind = dataclasses.replace(digits, labels=None, read=counted)
    for _ in range(2):
        np.testing.assert_array_equal(sources.labels_of(blind, tmp_path), digits.labels())
    assert len(read) == digits.count == 1437


@pytest.mark.parametrize(
    "options, message",
    [
        ({"train_examples": 30}, r"train_examples=30: there are 29 training examples, without"),
        ({"train_examples": 3, "train_examples_per_class": 2}, "both say how many to train on"),
        ({"folds": 3, "validation_examples": 4}, "both say what is held out"),
        ({"folds": 3, "fold": 3}, r"data.fold=3: with data.folds=3 choose 0 to 2"),
        ({"folds": 33}, r"data.folds=33: choose between 2 and 32, the training examples"),
    ],
)
def test_what_cannot_be_divided_is_named(root, tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        opened(root, tmp_path, **options)


def test_folds_need_a_training_set_without_a_validation_split(tmp_path):
    root = write_images(tmp_path / "own", {f"{s}/{c}": 2 for s in ("train", "val") for c in "ab"})
    with pytest.raises(DataError, match=r"data.folds=2: folder has a validation split of its own"):
        opened(root, tmp_path, folds=2)
    (root / "train").rename(root / "test")
    (root / "val").rename(tmp_path / "gone")
    with pytest.raises(DataError, match=r"data.folds=2: folder has no training split to divide"):
        opened(root, tmp_path, folds=2)


@pytest.fixture
def fields(root, tmp_path):
    data = get_config().data
    data.name, data.dir, data.prepared_dir = "folder", str(root), str(tmp_path / "prepared")
    data.resize, data.crop, data.mean = 24, 20, "image"
    return data


def the_images_themselves(fields):
    fields = fields.copy_and_resolve_references()
    fields.prepared_dir = None
    return fields


def test_prepared_images_are_chosen_from_as_the_images_themselves(fields, tmp_path):
    """All of train is prepared; a choice from it has the fingerprint of that from the images."""
    fields.train_examples = 5
    prepare_data(fields, tmp_path / "cache")
    for count in (5, 12, None):
        fields.train_examples = count
        prepared = open_data(fields, tmp_path / "cache")
        images = open_data(the_images_themselves(fields), tmp_path / "cache")
        assert prepared.examples("train").count == count or 29
        assert prepared.fingerprint == images.fingerprint
        np.testing.assert_array_equal(prepared.class_counts(), images.class_counts())


def test_prepared_folds_are_not_taken_for_others(fields, tmp_path):
    fields.folds, fields.fold = 4, 1
    prepare_data(fields, tmp_path / "cache")
    prepared = open_data(fields, tmp_path / "cache")
    images = open_data(the_images_themselves(fields), tmp_path / "cache")
    assert prepared.fingerprint == images.fingerprint
    for folds, fold, seed in ((4, 2, 0), (4, 1, 1), (None, 1, 0)):
        fields.folds, fields.fold, fields.choice_seed = folds, fold, seed
        with pytest.raises(DataError, match=r"folds is \[4, 1, 0\], and .* is needed"):
            open_data(fields, tmp_path / "cache")


def test_balanced_batches_repeat_images_with_crops_of_their_own(fields, tmp_path):
    fields.prepared_dir, fields.validation_examples, fields.sampling = None, 4, "balanced"
    data = open_data(fields, tmp_path / "cache")
    batches = data.training(0, seed=0, batch_size=28)
    seen = []
    for batch in (next(batches), next(batches)):
        assert sorted(np.bincount(batch["label"])) == [9, 9, 10]
        for row in range(28):
            where = (*batch["crop_offset"][row], batch["flip"][row])
            seen.append((int(batch["index"][row]), where))
    assert len(set(seen)) > 50  # of 56; an index comes up to seven times
    later = next(data.training(1, seed=0, batch_size=28))
    np.testing.assert_array_equal(later["image"], batch["image"])
    # Two hosts have a half of it each.
    halves = [
        next(data.training(1, seed=0, batch_size=28, share=(number, 2)))["image"]
        for number in range(2)
    ]
    np.testing.assert_array_equal(np.concatenate(halves), batch["image"])
