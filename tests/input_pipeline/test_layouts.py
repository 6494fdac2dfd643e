"""One set of photographs in every layout: labels, order, batches and fingerprints are the same."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from configs.alexnet import get_config
from input_pipeline import DataError, open_data, open_dataset, prepare_data
from tests.input_pipeline import layout_files as write


@pytest.fixture(scope="module")
def photos():
    return write.photographs()


@pytest.fixture(scope="module")
def tree(photos, tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    write.folders(root, photos)
    return root


def flat(**files):
    """A layout: flat validation images with these files beside them."""

    def layout(root, photos):
        write.folders(root, photos, flat=True)
        ids = write.kit_ids()
        contents = {
            "ground_truth": ("ILSVRC2012_validation_ground_truth.txt", write.ground_truth),
            "meta": ("meta.mat", lambda photos, ids: write.meta_mat(ids)),
            "clsloc": ("map_clsloc.txt", lambda photos, ids: write.map_clsloc(ids)),
            "caffe": ("val.txt", lambda photos, ids: write.val_txt(photos)),
            "kaggle": ("LOC_val_solution.csv", lambda photos, ids: write.solution_csv(photos)),
            "kit": ("ILSVRC2012_devkit_t12.tar.gz", write.kit),
        }
        for what, folder in files.items():
            name, content = contents[what]
            write.write(root / folder / name, content(photos, ids))

    return layout


LAYOUTS = {
    "kaggle": write.kaggle,
    "flat, ground truth and meta.mat": flat(ground_truth=".", meta="."),
    "flat, ground truth and map_clsloc.txt": flat(ground_truth="kit/data", clsloc="kit/data"),
    "flat, Caffe": flat(caffe="caffe_ilsvrc12"),
    "flat, Kaggle's solution": flat(kaggle="."),
    "flat, kit as downloaded": flat(kit="."),
    "original tars": write.original_tars,
    "original tars, unpacked once": write.synset_tars,
    "webdataset": write.webdataset,
    "parquet": write.parquet,
    "arrow": write.arrow,
}
NEED_PYARROW = {"parquet", "arrow"}


@pytest.fixture(params=LAYOUTS)
def layout(request):
    if request.param in NEED_PYARROW:
        pytest.importorskip("pyarrow")
    return request.param


def opened(root, tmp_path, **options):
    name = options.pop("name", "imagenet2012")
    return open_dataset(name, str(root), cache_dir=tmp_path / "cache", **options)


def data_fields(root):
    fields = get_config().data
    fields.dir, fields.mean, fields.resize, fields.crop = str(root), "channel", 64, 48
    return fields


def data_of(root, tmp_path):
    return open_data(data_fields(root), tmp_path / "cache")


def assert_same_batches(ours, expected):
    for batch, other in zip(ours, expected, strict=True):
        assert batch.keys() == other.keys()
        for name in other:
            np.testing.assert_array_equal(batch[name], other[name], err_msg=name)


@pytest.mark.quick
def test_the_same_examples_in_the_same_order(layout, photos, tree, tmp_path):
    root = tmp_path / "data"
    LAYOUTS[layout](root, photos)
    for _ in range(2):  # listed, then from the index
        ours, expected = opened(root, tmp_path), opened(tree, tmp_path)
        assert ours.class_names == expected.class_names
        assert ours.splits.keys() == expected.splits.keys() == {"train", "validation"}
        for split, examples in expected.splits.items():
            assert ours.splits[split].count == examples.count
            for row in range(examples.count):
                assert ours.splits[split].read(row) == examples.read(row), (split, row)
                name = ours.splits[split].name(row)
                assert name.rsplit("/", 1)[1] == examples.name(row).rsplit("/", 1)[1]
        if layout != "parquet":  # which does not tell the sizes of its images
            assert ours.fingerprint == expected.fingerprint


@pytest.mark.parametrize(
    "layout",
    [
        name if name in ("original tars", "parquet") else pytest.param(name, marks=pytest.mark.slow)
        for name in LAYOUTS
    ],
)
def test_the_same_batches_from_any_step(layout, photos, tree, tmp_path):
    if layout in NEED_PYARROW:
        pytest.importorskip("pyarrow")
    root, images = tmp_path / "data", SimpleNamespace(side=64, pad=0, whole=False)
    LAYOUTS[layout](root, photos)
    ours, expected = data_of(root, tmp_path), data_of(tree, tmp_path)
    for start in (0, 1_000_000):
        streams = [data.training(start, seed=3, batch_size=8) for data in (ours, expected)]
        assert_same_batches(*(itertools.islice(stream, 2) for stream in streams))
        for stream in streams:
            stream.close()
    passes = [data.evaluation("validation", images, batch_size=8) for data in (ours, expected)]
    assert_same_batches(*passes)
    np.testing.assert_array_equal(
        ours.normalization(images)["mean"], expected.normalization(images)["mean"]
    )


@pytest.mark.parametrize(
    "inside", ["", "ILSVRC", "ILSVRC/Data", "ILSVRC/Data/CLS-LOC", "..", "../.."]
)
def test_any_directory_of_kaggles_tree_may_be_named(inside, photos, tree, tmp_path):
    top = tmp_path / "data" / "imagenet-object-localization-challenge"
    write.kaggle(top, photos)
    if inside == "../..":
        with pytest.raises(DataError, match="not ImageNet"):
            opened(top / inside, tmp_path)
        return
    dataset = opened(top / inside, tmp_path)
    assert dataset.fingerprint == opened(tree, tmp_path).fingerprint
    assert "secret" in dataset.absent["test"]


def test_the_first_lines_of_the_ground_truth(shared_data, photos, tmp_path):
    """IDs as the challenge gives them, which are not places among the sorted synsets."""
    shared_data("ilsvrc2012_ids.txt")
    root = tmp_path / "data"
    first = sorted(write.of(photos, "val"), key=lambda photo: photo.name)[:4]
    write.folders(root, first, flat=True)
    write.write(root / "ILSVRC2012_validation_ground_truth.txt", "490\n361\n171\n822\n")
    write.write(root / "map_clsloc.txt", write.map_clsloc(write.kit_ids()))
    dataset = opened(root, tmp_path)
    examples, found = dataset.splits["validation"], {}
    for row in range(4):
        found[examples.name(row)[-13:-5]] = dataset.class_names[examples.read(row)[1]]
    assert found == {
        "00000001": "n01751748",
        "00000002": "n09193705",
        "00000003": "n02105855",
        "00000004": "n04263257",
    }
    assert not any("in the challenge" in note for note in dataset.notes)


def test_a_file_of_labels_can_be_named(photos, tree, tmp_path):
    root, labels = tmp_path / "data", tmp_path / "labels.txt"
    write.folders(root, photos, flat=True)
    labels.write_text(write.val_txt(photos))
    dataset = opened(root, tmp_path, validation_labels=str(labels))
    assert dataset.fingerprint == opened(tree, tmp_path).fingerprint
    assert any(f"labels from {labels}" in note for note in dataset.notes)
    with pytest.raises(DataError, match="has labels of its validation images; leave"):
        opened(tree, tmp_path, validation_labels=str(labels))
    with pytest.raises(DataError, match="no such file"):
        opened(root, tmp_path, validation_labels=str(tmp_path / "none.txt"))


@pytest.mark.parametrize("layout", ["original tars", "webdataset", "parquet"])
def test_validation_images_are_read_without_training_images(layout, photos, tree, tmp_path):
    if layout in NEED_PYARROW:
        pytest.importorskip("pyarrow")
    LAYOUTS[layout](tmp_path / "data", photos)
    for path in (tmp_path / "data").rglob("*train*.*"):
        path.write_bytes(b"damaged")
    ours = opened(tmp_path / "data", tmp_path, only="validation").splits["validation"]
    expected = opened(tree, tmp_path).splits["validation"]
    assert [ours.read(k) for k in range(20)] == [expected.read(k) for k in range(20)]


@pytest.mark.parametrize("layout", ["original tars", "kaggle"])
def test_missing_classes_are_said(layout, photos, tmp_path):
    LAYOUTS[layout](tmp_path / "data", photos)
    dataset = opened(tmp_path / "data", tmp_path)
    assert any("no images of 994 of the 1000 classes" in note for note in dataset.notes)


def test_parquet_without_paths_keeps_its_order(photos, tmp_path):
    pytest.importorskip("pyarrow")
    write.parquet(tmp_path / "data", photos, files=1, paths=False)
    examples = opened(tmp_path / "data", tmp_path).splits["train"]
    stored = write.of(photos, "train")
    assert [examples.read(row)[0] for row in range(examples.count)] == [p.content for p in stored]


def test_images_lie_on_the_disk_in_disk_order(photos, tmp_path):
    pytest.importorskip("pyarrow")
    write.parquet(tmp_path / "data", photos)
    examples = opened(tmp_path / "data", tmp_path).splits["train"]
    rows = write.of(photos, "train")
    lying = [photo.content for file in range(3) for photo in rows[file::3]]
    assert [examples.read(row)[0] for row in examples.disk_order] == lying


# Classes of one's own


def own_shards(root, labels, split="train"):
    members = []
    for row, label in enumerate(labels):
        members += [(f"photo{row}.png", b"image %d" % row), (f"photo{row}.cls", b"%d" % label)]
    write.write(root / f"{split}-000.tar", write.tar_bytes(members))


def test_own_classes_in_shards_are_their_numbers(tmp_path):
    own_shards(tmp_path / "data", [2, 0, 1, 0, 2])
    own_shards(tmp_path / "data", [1, 1], "val")
    dataset = opened(tmp_path / "data", tmp_path, name="folder")
    assert dataset.class_names == ("0", "1", "2")
    train = dataset.splits["train"]
    assert [train.read(row) for row in range(5)] == [
        (b"image 1", 0), (b"image 3", 0), (b"image 2", 1), (b"image 0", 2), (b"image 4", 2),
    ]  # fmt: skip
    own_shards(tmp_path / "data", [3], "val")
    with pytest.raises(DataError, match="class '3' is not one of the 3 classes"):
        opened(tmp_path / "data", tmp_path, name="folder")


def test_own_classes_of_the_hub_keep_their_names(photos, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    rows = write.of(photos, "train")[:4]
    (tmp_path / "data" / "data").mkdir(parents=True)
    for split, labels in (("train", [1, 0, 1, 0]), ("test", [0, 1, 0, 0])):
        table = write.hub_table(rows, ("dog", "cat"), labels)
        pq.write_table(table, tmp_path / "data" / "data" / f"{split}-00000-of-00001.parquet")
    dataset = opened(tmp_path / "data", tmp_path, name="folder")
    assert dataset.class_names == ("dog", "cat")
    test = dataset.splits["test"]
    assert {test.read(row) for row in range(4)} == {
        (photo.content, label) for photo, label in zip(rows, [0, 1, 0, 0], strict=True)
    }
    kept = opened(tmp_path / "data", tmp_path, name="folder", class_names=("cat", "dog"))
    assert kept.class_names == ("cat", "dog")
    assert [kept.splits["test"].read(row)[1] for row in range(4)].count(1) == 3


def test_subsets_of_imagenet_keep_its_labels(photos, tree, tmp_path):
    """Classes in an order of their own, called by words; the files' names say their synsets."""
    pq = pytest.importorskip("pyarrow.parquet")
    synsets = write.TRAIN_CLASSES[::-1]
    some = [photo for photo in photos if photo.synset in synsets]
    for words, root in ((synsets, tmp_path / "synsets"), ([*"abcdef"], tmp_path / "words")):
        root.mkdir()
        for split in ("train", "val"):
            rows = write.of(some, split)
            table = write.hub_table(rows, words, [synsets.index(photo.synset) for photo in rows])
            pq.write_table(table, root / f"{split}-00000-of-00001.parquet")
        dataset, expected = opened(root, tmp_path), opened(tree, tmp_path)
        assert dataset.class_names == expected.class_names
        ours, theirs = (dataset.splits["train"], expected.splits["train"])
        assert [ours.read(k) for k in range(ours.count)] == [theirs.read(k) for k in range(40)]
        validation = dataset.splits["validation"]
        labels = {photo.content: expected.class_names.index(photo.synset) for photo in some}
        assert validation.count == 15
        assert all(labels[image] == label for image, label in map(validation.read, range(15)))
    (tmp_path / "words" / "train-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match="'a' is no synset"):
        opened(tmp_path / "words", tmp_path)


def test_what_is_prepared_from_parquet_is_in_order(photos, tree, tmp_path):
    """Though it is written as it is quick to read; with an image that is left out."""
    pytest.importorskip("pyarrow")
    damaged = [
        photo._replace(content=b"no image") if row == 7 else photo
        for row, photo in enumerate(photos)
    ]
    write.parquet(tmp_path / "data", damaged)
    write.folders(tmp_path / "damaged", damaged)
    made = []
    for source in (tmp_path / "data", tmp_path / "damaged"):
        fields = data_fields(source)
        fields.prepared_dir = str(source) + " prepared"
        prepare_data(fields, tmp_path / "cache")
        made.append(open_data(fields, tmp_path / "cache"))
    for split in ("train", "validation"):
        ours, expected = (data.examples(split) for data in made)
        assert ours.count == expected.count
        for row in range(ours.count):
            (image, label), (other, same) = ours.read(row), expected.read(row)
            assert label == same
            np.testing.assert_array_equal(image, other)


@pytest.mark.parametrize("layout", ["original tars", "parquet"])
def test_two_hosts_read_disjoint_shares(layout, photos, tree, tmp_path):
    root, images = tmp_path / "data", SimpleNamespace(side=64, pad=0, whole=False)
    if layout in NEED_PYARROW:
        pytest.importorskip("pyarrow")
    LAYOUTS[layout](root, photos)
    whole, hosts = data_of(tree, tmp_path), [data_of(root, tmp_path) for _ in range(2)]

    def joined(batches):
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    streams = [
        data.training(5, seed=1, batch_size=8, share=(number, 2))
        for number, data in enumerate(hosts)
    ]
    expected = whole.training(5, seed=1, batch_size=8)
    assert_same_batches([joined([next(stream) for stream in streams])], [next(expected)])
    parts = [
        data.evaluation("validation", images, batch_size=8, share=(number, 2))
        for number, data in enumerate(hosts)
    ]
    together = [joined(batches) for batches in zip(*parts, strict=True)]
    assert_same_batches(together, whole.evaluation("validation", images, batch_size=8))
    seen = np.concatenate([batch["index"] for batch in together])
    assert sorted(seen[seen >= 0]) == list(range(20))
