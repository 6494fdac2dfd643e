import os
import shutil
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from input_pipeline import DataError, decode, folders, open_dataset, sources
from tests.conftest import ROOT, write_images


def opened(name, directory, tmp_path, **options):
    return open_dataset(
        name, None if directory is None else str(directory), cache_dir=tmp_path, **options
    )


def labels(examples):
    return [examples.read(index)[1] for index in range(examples.count)]


def test_digits_are_embedded(tmp_path):
    dataset = opened("digits", None, tmp_path)
    assert dataset.splits["train"].count == 1437
    assert dataset.splits["validation"].count == 360
    assert dataset.evaluation_split == "validation"
    assert dataset.class_names == tuple("0123456789")
    held = {dataset.splits["validation"].name(i) for i in range(360)}
    kept = {dataset.splits["train"].name(i) for i in range(1437)}
    assert len(held | kept) == 1797


def test_imagenet_labels_follow_the_synsets_not_the_folders(imagenet_folder, tmp_path):
    dataset = opened("imagenet2012", imagenet_folder, tmp_path)
    assert len(dataset.class_names) == 1000
    assert dataset.class_names[284] == "n02123597"
    assert labels(dataset.splits["train"]) == [0] * 4 + [284] * 3 + [999] * 3
    assert dataset.evaluation_split == "validation"


def test_synsets_equal_the_list_of_the_challenge(shared_data, tmp_path):
    listed = [line.split()[0] for line in shared_data("imagenet_synsets.txt").open()]
    dataset = opened("imagenet2012", shared_data("imagenet_sample"), tmp_path)
    assert list(dataset.class_names) == listed


def test_own_classes_in_sorted_order(tmp_path):
    root = write_images(
        tmp_path / "own",
        {"train/zebra": 2, "train/ant": 3, "val/zebra": 1, "val/ant": 1, "test/ant": 2},
    )
    (root / "train" / "ant" / "notes.txt").write_text("not an image")
    (root / "train" / ".hidden").mkdir()
    dataset = opened("folder", root, tmp_path)
    assert dataset.class_names == ("ant", "zebra")
    assert labels(dataset.splits["train"]) == [0, 0, 0, 1, 1]
    assert dataset.evaluation_split == "test"
    assert dataset.splits["test"].count == 2


def test_class_folders_alone_hold_out_a_tenth(tmp_path):
    root = write_images(tmp_path / "own", {"a": 12, "b": 8})
    dataset = opened("folder", root, tmp_path)
    assert dataset.splits["train"].count == 18
    assert dataset.splits["validation"].count == 2
    other = opened("folder", root, tmp_path, validation_examples=5)
    assert other.splits["train"].count == 15
    assert other.fingerprint != dataset.fingerprint


def test_formats_are_told_by_content(tmp_path):
    root = write_images(tmp_path / "own", {"a": 1, "b": 1})
    grey = Image.fromarray(np.full((30, 40), 77, np.uint8))
    grey.save(root / "a" / "a_png_named.JPEG", format="PNG")
    cmyk = Image.new("CMYK", (30, 40), (0, 255, 255, 0))
    cmyk.save(root / "a" / "b_cmyk.jpg", format="JPEG", quality=100)
    dataset = opened("folder", root, tmp_path, validation_examples=1)
    loaded = {}
    for split in dataset.splits.values():
        for i in range(split.count):
            loaded[split.name(i).rsplit("/", 1)[1]] = decode.pixels(split.read(i)[0])
    np.testing.assert_array_equal(loaded["a_png_named.JPEG"], np.full((30, 40, 3), 77))
    assert loaded["b_cmyk.jpg"].mean((0, 1)) == pytest.approx((255, 0, 0), abs=4)  # red


def test_fingerprint_follows_the_files(imagenet_folder, tmp_path):
    before = opened("imagenet2012", imagenet_folder, tmp_path).fingerprint
    assert opened("imagenet2012", imagenet_folder, tmp_path).fingerprint == before
    moved = shutil.move(imagenet_folder, tmp_path / "elsewhere")
    assert opened("imagenet2012", moved, tmp_path).fingerprint == before
    image = tmp_path / "elsewhere" / "train" / "n01440764" / "0.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    other = opened("imagenet2012", moved, tmp_path).fingerprint
    assert other != before
    image.unlink()
    assert opened("imagenet2012", moved, tmp_path).fingerprint not in (before, other)


@pytest.mark.parametrize(
    "name, train, test", [("cifar10", 45_000, 10_000), ("mnist", 55_000, 10_000)]
)
def test_tfds(shared_data, tmp_path, name, train, test):
    dataset = opened(name, shared_data("tfds", name), tmp_path)
    assert {k: v.count for k, v in dataset.splits.items()} == {
        "train": train,
        "test": test,
        "validation": 5000,
    }
    assert dataset.evaluation_split == "test"
    assert len(dataset.class_names) == 10
    known = sources.labels_of(dataset.splits["test"], tmp_path)
    assert len(known) == test
    assert known[::500].tolist() == [dataset.splits["test"].read(n)[1] for n in range(0, test, 500)]
    from_index = opened(name, shared_data("tfds", name), tmp_path)  # the index is kept by now
    assert from_index.fingerprint == dataset.fingerprint


def test_tfds_records_are_those_that_tfds_reads(shared_data, tmp_path):
    import tensorflow_datasets as tfds

    dataset = opened("cifar10", shared_data("tfds", "cifar10"), tmp_path)
    test = dataset.splits["test"]
    theirs = tfds.load("cifar10", data_dir=shared_data("tfds"), split="test", download=False)
    by_image = {
        bytes(e["image"].tobytes()): int(e["label"]) for e in theirs.take(50).as_numpy_iterator()
    }
    ours = [test.read(index) for index in range(50)]
    assert {decode.pixels(image).tobytes(): label for image, label in ours} == by_image


@pytest.fixture(params=["tfrecord", "array_record"])
def imagenet_of_tfds(request, tmp_path):
    """A directory as TFDS prepares imagenet2012: JPEGs in records, secret test labels."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    with registered.skip_registration():  # the real one has this name

        class Imagenet2012(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("5.1.0")

            def _info(self):
                features = {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(
                        names=["n01440764", "n02123394", "n15075141"]
                    ),
                    "file_name": tfds.features.Text(),
                }
                return self.dataset_info_from_configs(
                    features=tfds.features.FeaturesDict(features),
                    supervised_keys=("image", "label"),
                )

            def _split_generators(self, manager):
                return {
                    "train": self._generate_examples(7, False),
                    "validation": self._generate_examples(3, False),
                    "test": self._generate_examples(2, True),
                }

            def _generate_examples(self, count, secret):
                for number in range(count):
                    image = np.full((30, 40, 3), 20 * number + 5, np.uint8)
                    label = -1 if secret else number % 3
                    yield number, {"image": image, "label": label, "file_name": f"{number}.JPEG"}

    Imagenet2012(data_dir=tmp_path / "tfds", file_format=request.param).download_and_prepare()
    return tmp_path / "tfds"


def test_imagenet_as_tfds_prepares_it(imagenet_of_tfds, tmp_path):
    dataset = opened("imagenet2012", imagenet_of_tfds, tmp_path)
    assert {k: v.count for k, v in dataset.splits.items()} == {"train": 7, "validation": 3}
    assert dataset.class_names == ("n01440764", "n02123394", "n15075141")
    train = dataset.splits["train"]
    read = [train.read(index) for index in range(7)]
    known = sources.labels_of(train, tmp_path / "labels").tolist()
    assert known == [label for _, label in read]
    loaded = {int(decode.pixels(image)[0, 0, 0]) // 20: label for image, label in read}
    assert loaded == {number: number % 3 for number in range(7)}


def test_the_version_directory_itself(shared_data, tmp_path):
    direct = opened("mnist", shared_data("tfds/mnist/3.0.1"), tmp_path)
    assert direct.splits["test"].count == 10_000


def test_a_version_directory_of_another_dataset_is_named(shared_data, tmp_path):
    directory = shared_data("tfds/mnist/3.0.1")
    with pytest.raises(DataError, match=r"holds mnist, not imagenet2012.*data.name=mnist"):
        opened("imagenet2012", directory, tmp_path)


def test_a_damaged_index_is_made_again(shared_data, tmp_path):
    first = opened("mnist", shared_data("tfds", "mnist"), tmp_path)
    for index in tmp_path.glob("records-*.npz"):
        index.write_bytes(index.read_bytes()[:1000])
    again = opened("mnist", shared_data("tfds", "mnist"), tmp_path)
    for index in range(5):
        assert again.splits["test"].read(index) == first.splits["test"].read(index)


def test_a_cache_that_cannot_be_written_is_done_without(shared_data, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    dataset = open_dataset("mnist", str(shared_data("tfds", "mnist")), cache_dir=tmp_path / "file")
    assert dataset.splits["test"].count == 10_000
    assert "could not be kept" in capsys.readouterr().err


def test_a_tfrecord_cut_short_is_named(shared_data, tmp_path):
    copy = tmp_path / "tfds" / "mnist" / "3.0.1"
    shutil.copytree(shared_data("tfds/mnist/3.0.1"), copy)
    for path in [copy, *copy.iterdir()]:
        path.chmod(0o755)
    file = next(copy.glob("*test.tfrecord*"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"mnist-test.tfrecord.*cut short at byte"):
        opened("mnist", tmp_path / "tfds", tmp_path)


def test_the_list_of_a_folder_is_kept_until_the_folder_changes(tmp_path, monkeypatch):
    root = write_images(tmp_path / "own", {"train/a": 3, "train/b": 2, "val/a": 1, "val/b": 1})
    long_ago = 1_600_000_000
    for folder in [root / "train", root / "val", *root.glob("*/*")]:
        os.utime(folder, (long_ago, long_ago))
    cache = tmp_path / "cache"
    first = opened("folder", root, cache)
    assert len(list(cache.glob("images-*.npz"))) == 2
    with monkeypatch.context() as patch:
        patch.setattr(folders, "Listing", None)  # listing any folder would fail
        again = opened("folder", root, cache)
    assert again.fingerprint == first.fingerprint
    assert again.splits["train"].read(4) == first.splits["train"].read(4)
    shutil.copy(root / "train" / "a" / "0.jpg", root / "train" / "b" / "new.jpg")
    os.utime(root / "train" / "b", (long_ago + 1, long_ago + 1))
    assert opened("folder", root, cache).splits["train"].count == 6


def test_a_folder_that_has_just_changed_is_listed_again(tmp_path):
    """Its time stamp may be that of the listing."""
    root = write_images(tmp_path / "own", {"a": 3, "b": 2})
    opened("folder", root, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("images-*.npz"))


def test_a_file_that_is_gone_is_named(tmp_path):
    root = write_images(tmp_path / "own", {"train/a": 2, "train/b": 2, "val/a": 1})
    train = opened("folder", root, tmp_path).splits["train"]
    (root / "train" / "a" / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"train/a/1.jpg: cannot be read \(No such file"):
        train.read(1)
    (root / "train" / "a" / "1.jpg").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"a/1.jpg: a link to nowhere; remove it"):
        opened("folder", root, tmp_path)


def test_an_array_record_cut_short_is_named(imagenet_of_tfds, tmp_path):
    files = list(imagenet_of_tfds.glob("**/*train.array_record*"))
    if not files:
        pytest.skip("TFRecords have their own test")
    files[0].write_bytes(files[0].read_bytes()[:-3000])
    train = opened("imagenet2012", imagenet_of_tfds, tmp_path).splits["train"]
    with pytest.raises(DataError, match=r"train.array_record.*record 0 cannot be read"):
        train.read(0)


def test_a_dataset_of_a_million_files(tmp_path):
    """The list of ImageNet's files: little memory, read again in no time."""
    names = [f"c{number:03d}" for number in range(1000)]
    per_class = 1281
    paths = np.array(
        [f"{name}/{name}_{i:05d}.JPEG".encode() for name in names for i in range(per_class)]
    )
    for name in names:
        (tmp_path / "data" / name).mkdir(parents=True)
    changed = {n: (tmp_path / "data" / n).stat().st_mtime_ns for n in (".", *names)}
    sources.save_arrays(
        folders.index_path(tmp_path / "data", tmp_path),
        state=np.array(folders.index_state(changed, names)),
        notes=np.array([], np.str_),
        paths=paths,
        sizes=np.full(len(paths), 110_000),
        labels=np.repeat(np.arange(1000, dtype=np.int32), per_class),
    )
    tracemalloc.start()
    try:
        examples = folders.from_folders(tmp_path / "data", names, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert examples.count == 1_281_000
    assert examples.name(1_280_999).endswith("data/c999/c999_01280.JPEG")
    assert paths.nbytes < peak < 5 * paths.nbytes  # an object of Python for each would be more


def test_faults_of_a_directory_are_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    (tmp_path / "empty").mkdir()
    strange = write_images(tmp_path / "strange", {"cats": 1, "dogs": 1})
    flat = write_images(tmp_path / "flat", {"train/n01440764": 1, "val": 2})
    cats = write_images(tmp_path / "cats", {"train/cats": 1, "val/n01440764": 1})
    no_images = tmp_path / "none"
    for folder in ("train/n01440764", "val/n01440764"):
        (no_images / folder).mkdir(parents=True)
    other = write_images(tmp_path / "other", {"train/a": 1, "train/b": 1, "val/c": 1})
    beside = write_images(tmp_path / "beside", {"a": 1, "b": 1})
    shutil.copy(beside / "a" / "0.jpg", beside / "stray.jpg")
    deep = write_images(tmp_path / "deep", {"a": 1, "b/.images": 1})
    unfinished, foreign = tmp_path / "unfinished", tmp_path / "foreign"
    for folder in (unfinished / "cifar10" / "3.0.2.incompleteXYZ", foreign / "cifar10" / "3.0.2"):
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text('{"name": "cifar10"}')
    for name, directory, message in [
        ("imagenet2012", None, r"(?s)needs ImageNet.*--config.data.dir=DIR.*:digits"),
        ("cifar10", None, "cifar10 needs a directory"),
        ("imagenet2012", tmp_path / "nowhere", "no such directory"),
        ("imagenet2012", file, "a file, not a directory"),
        ("imagenet2012", tmp_path / "empty", "is empty"),
        ("imagenet2012", strange, r"looked for train/<wnid>/ and val/<wnid>/"),
        ("imagenet2012", flat, r"val: no class folders"),
        ("imagenet2012", cats, r"train/cats: no synset.*data.name=folder"),
        ("imagenet2012", no_images, r"train/n01440764: no images \(looked for.*Fill or remove"),
        ("cifar10", strange, r"looked for cifar10/<version>/dataset_info.json"),
        ("folder", tmp_path / "flat", r"1 class folders, at least two"),
        ("folder", other, r"val/c: 'c' is not one of the 2 classes"),
        ("folder", beside, r"beside/stray.jpg: an image beside the class folders"),
        ("folder", deep, r"deep/b: no images \(looked for.*Fill or remove"),
        ("cifar10", unfinished, r"3.0.2.incompleteXYZ.*: a preparation by TFDS that was not fin"),
        ("cifar10", foreign, r"cifar10/3.0.2: not a dataset as this version of TFDS"),
    ]:
        with pytest.raises(DataError, match=message):
            opened(name, directory, tmp_path)
    with pytest.raises(DataError, match=r"between 1 and 1 of the 2 training"):
        opened("folder", strange, tmp_path, validation_examples=2)
    with pytest.raises(DataError, match=r"has no split 'test'"):
        opened("digits", None, tmp_path).examples("test")


@pytest.mark.slow
def test_a_folder_of_imagenets_size(tmp_path):
    """1.28 million files, listed once; in processes of their own, whose memory is nobody else's."""
    for number in range(1000):
        folder = tmp_path / "train" / f"n{number:08d}"
        folder.mkdir(parents=True)
        for image in range(1281):
            (folder / f"{folder.name}_{image}.JPEG").touch()
    script = f"""
import pathlib, resource, sys, time
from input_pipeline import folders

sys.stderr.isatty = lambda: True  # a file gets a line of progress every half minute
root = pathlib.Path({str(tmp_path)!r})
names = list(folders.class_folders(root / "train"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
examples = folders.from_folders(root / "train", names, root / "cache")
passed = time.perf_counter() - start
kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(examples.count, examples.fingerprint, kilobytes, round(passed, 2))
"""
    time.sleep(2)  # a folder that has just changed is not kept
    runs = [
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
        )
        for _ in range(2)
    ]
    print([run.stdout for run in runs])  # the seconds, for those who ask
    (count, fingerprint, kilobytes, _), again = (run.stdout.split() for run in runs)
    assert int(count) == 1_281_000 and again[:2] == [count, fingerprint]
    assert max(int(kilobytes), int(again[2])) < 500_000
    assert "1000/1000" in runs[0].stderr  # a line of progress
    assert "1000" not in runs[1].stderr  # from the cache
