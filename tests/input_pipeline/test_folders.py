"""Trees of class folders as people have them: what is used, and what is said of the rest."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import input_pipeline
from input_pipeline import (
    REPORTED,
    DataError,
    decode,
    folders,
    open_dataset,
    sources,
)
from input_pipeline.pixel_statistics import pixel_statistics
from tests.conftest import ROOT, write_images

COMPOSED, DECOMPOSED = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"


def opened(directory, tmp_path, name="folder", **options):
    return open_dataset(name, str(directory), cache_dir=tmp_path / "cache", **options)


def labels(examples):
    return [examples.read(index)[1] for index in range(examples.count)]


def counts(dataset):
    return {split: examples.count for split, examples in dataset.splits.items()}


@pytest.mark.parametrize(
    "train, val, test",
    [("train", "valid", "test"), ("Training", "dev", "Test"), ("TRAIN", "Val", "testing")],
)
@pytest.mark.parametrize("name", ["folder", "imagenet2012"])
def test_split_folders_in_any_spelling(tmp_path, name, train, val, test):
    sizes = {train: 3, val: 2, test: 1}
    classes = ("n01440764", "n02123597")
    root = write_images(tmp_path / "d", {f"{s}/{c}": n for s, n in sizes.items() for c in classes})
    dataset = opened(root, tmp_path, name)
    expected = {"train": 6, "validation": 4}
    if name == "folder":
        assert counts(dataset) == expected | {"test": 2}
        assert dataset.class_names == classes and not dataset.notes
    else:
        assert counts(dataset) == expected
        assert f"not used: {test}/ (2 files), without labels; " in dataset.notes[0]
        assert "--config.evaluation.split=test scores its images" in dataset.notes[0]


def damage(path, how):
    content = path.read_bytes()
    path.unlink()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "text":
        path.write_bytes(b"\xff no archive")
    elif how == "other":  # whole, and of something else
        sources.save_arrays(path, mean=np.zeros(3), covariance=np.zeros(3), state=np.zeros(2))
    elif how == "fifo":
        os.mkfifo(path)
    elif how == "directory":
        path.mkdir()
    else:
        flipped = bytearray(content)
        flipped[int(how)] ^= 4
        path.write_bytes(flipped)


@pytest.mark.parametrize(
    "how", ["cut", "text", "other", "fifo", "directory", "10", "40", "100", "-30"]
)
def test_damaged_caches_are_made_again(tmp_path, how):
    root = write_images(tmp_path / "d", {f"{s}/{c}": 3 for s in ("train", "val") for c in "ab"})
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        os.utime(folder, (1_600_000_000, 1_600_000_000))

    def result():
        train = opened(root, tmp_path).splits["train"]
        statistics = pixel_statistics(train, 16, tmp_path / "cache")
        return train.fingerprint, statistics.mean.tobytes(), statistics.covariance.tobytes()

    expected = result()
    (tmp_path / "cache" / ".DS_Store").write_bytes(b"\0")
    kept = sorted((tmp_path / "cache").glob("*.npz"))
    assert len(kept) == 3
    for path in kept:
        damage(path, how)
    assert result() == expected


def test_two_folders_of_one_split_are_named(tmp_path):
    root = write_images(tmp_path / "d", {f"{s}/{c}": 2 for s in ("train", "val", "valid")
                                         for c in "ab"})  # fmt: skip
    for name in ("folder", "imagenet2012"):
        with pytest.raises(DataError, match=r"val/ and valid/ are both the validation split"):
            opened(root, tmp_path, name)


def test_what_lies_beside_the_splits_is_named_and_counted(tmp_path):
    root = write_images(tmp_path / "d", {"train/a": 9, "train/b": 9, "holdout/a": 3, "extra": 2})
    (root / "labels.csv").write_text("")
    for clutter in (".DS_Store", "Thumbs.db", "train.zip"):
        (root / clutter).write_text("")
    (root / "__MACOSX" / "train").mkdir(parents=True)
    dataset = opened(root, tmp_path)
    assert counts(dataset) == {"train": 17, "validation": 1}
    assert dataset.notes == (f"{root}: not used: extra/ (2 files), holdout/ (3 files), labels.csv",)


def test_a_class_of_railways(tmp_path):
    """Folders of images are classes, though one is called as a split is."""
    root = write_images(tmp_path / "d", {"train": 4, "bus": 4, "foo.gz": 4})
    dataset = opened(root, tmp_path)
    assert dataset.class_names == ("bus", "foo.gz", "train")
    assert "train taken for classes, not for splits" in dataset.notes[0]
    flat = write_images(tmp_path / "flat", {"train": 4, "test": 4})
    for more in ({}, {"test1": 4}, {"images": 4}):
        write_images(flat, more)
        with pytest.raises(DataError, match="flat/train: 0 class folders, at least two are needed"):
            opened(flat, tmp_path)


def test_a_tree_one_folder_too_high(tmp_path):
    inside = tmp_path / "d" / "ILSVRC" / "Data"
    for split in ("train", "val"):
        write_images(inside / split, {"n01440764": 1, "n02123597": 1})
    for name in ("folder", "imagenet2012"):
        with pytest.raises(DataError, match=rf"Is it --config.data.dir={inside}\?"):
            opened(tmp_path / "d", tmp_path, name)


def save(path, kind, value):
    image = Image.fromarray(np.full((30, 40), value, np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        image.convert("1" if path.suffix == ".pbm" else "L").save(file, kind)


SUFFIXES = {
    ".jpg": "JPEG", ".JPEG": "JPEG", ".jfif": "JPEG", ".jpe": "JPEG", ".PNG": "PNG",
    ".gif": "GIF", ".bmp": "BMP", ".webp": "WEBP", ".avif": "AVIF", ".tif": "TIFF",
    ".TIFF": "TIFF", ".pgm": "PPM", ".pbm": "PPM", ".pnm": "PPM", ".ppm": "PPM", "": "JPEG",
}  # fmt: skip


def test_images_of_every_suffix_and_of_none_are_read(tmp_path):
    for folder in "ab":
        for number, (suffix, kind) in enumerate(SUFFIXES.items()):
            save(tmp_path / "d" / "train" / folder / f"{number:02d}{suffix}", kind, 255)
    for number, kind in enumerate(("PNG", "GIF", "BMP", "WEBP", "AVIF", "TIFF", "PPM")):
        save(tmp_path / "d" / "val" / "a" / f"n{number}_of_no_suffix", kind, 255)
    dataset = opened(tmp_path / "d", tmp_path)
    assert counts(dataset) == {"train": 2 * len(SUFFIXES), "validation": 7}
    assert not dataset.notes
    for examples in dataset.splits.values():
        for index in range(examples.count):
            pixels = decode.pixels(examples.read(index)[0])
            assert pixels.shape == (30, 40, 3) and pixels.min() >= 254, examples.name(index)


def strange_files(folder):
    """Files that are no images of the class, as people's folders have them."""
    for name in (".DS_Store", "._0.jpg", ".nfs0001", "Thumbs.db", "desktop.ini", "all.zip"):
        (folder / name).write_text("not an image")
    for name in ("@eaDir", "__MACOSX", ".ipynb_checkpoints"):
        (folder / name).mkdir()
        shutil.copy(folder / "0.jpg", folder / name / "0.jpg")


def test_files_of_systems_and_archivers_change_nothing(tmp_path):
    root = write_images(tmp_path / "d", {f"{s}/{c}": 3 for s in ("train", "val") for c in "ab"})
    before = opened(root, tmp_path)
    strange_files(root / "train" / "a")
    shutil.copytree(root / "train" / "a", root / "more")
    for folder in (root, root / "train"):
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "train.tar.gz"):
            (folder / name).write_text("")
        (folder / "__MACOSX" / "train" / "a").mkdir(parents=True)
    shutil.rmtree(root / "more")
    after = opened(root, tmp_path)
    assert after.fingerprint == before.fingerprint
    assert after.class_names == before.class_names
    assert after.notes == ()
    assert after.splits["train"].ignored == 9 + 5  # in a class folder, and beside them


def test_what_else_is_in_class_folders_is_counted_by_suffix_once(tmp_path):
    root = write_images(tmp_path / "d", {"train/a": 2, "train/b": 2, "val/a": 1, "train/a/more": 3})
    for number in range(4):
        (root / "train" / "b" / f"{number}.heic").write_bytes(b"heic")
    (root / "train" / "a" / "README").write_text("a readme")
    (root / "train" / "a" / ".9.jpg").write_bytes(b"")
    (root / "train" / "a" / "x.JPEG").mkdir()
    long_ago = 1_600_000_000
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        os.utime(folder, (long_ago, long_ago))
    for _ in range(2):  # the second time from the list that is kept
        dataset = opened(root, tmp_path)
        assert counts(dataset) == {"train": 7, "validation": 1}
        assert dataset.notes == (
            f"{root}/train: not used: 4 *.heic (b/0.heic), 1 hidden (a/.9.jpg), 1 without a suffix "
            "(a/README)",
            f"{root}/train: 3 images lie in folders inside class folders (a/more/0.jpg) and are of "
            "these classes",
        )
        assert dataset.splits["train"].ignored == 1
    assert list((tmp_path / "cache").glob("images-*"))


def test_what_is_no_regular_file_never_hangs(tmp_path):
    root = write_images(tmp_path / "d", {"train/a": 2, "train/b": 2, "val/a": 1})
    folder = root / "train" / "a"
    os.mkfifo(folder / "1.JPEG")
    os.mkfifo(folder / "fifo_of_no_suffix")
    (folder / "2.JPEG").symlink_to("/dev/zero")
    held = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(folder)  # an address has to be short
    try:
        held.bind("3.JPEG")
    finally:
        os.chdir(here)
    dataset = opened(root, tmp_path)
    held.close()
    assert dataset.splits["train"].count == 4
    for said in ("1 FIFO (a/1.JPEG)", "1 device (a/2.JPEG)", "1 socket (a/3.JPEG)"):
        assert said in dataset.notes[0]
    for name in ("1.JPEG", "2.JPEG"):
        with pytest.raises(DataError, match=rf"a/{name}: a (FIFO|device), not a file"):
            folders.read_file(os.fsencode(folder / name))
    (folder / "4.JPEG").symlink_to("4.JPEG")
    with pytest.raises(DataError, match=r"a/4.JPEG: cannot be read \(Too many levels"):
        opened(root, tmp_path)


def test_what_may_not_be_read_is_named(tmp_path):
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as place:  # tmp_path is its user's alone
        Path(place).chmod(0o755)
        root = write_images(Path(place) / "d", {"train/a": 2, "train/b": 2})
        closed = root / "train" / "a"
        closed.chmod(0)
        if user == 0:
            os.seteuid(65534)  # nobody: root may read everything
        try:
            with pytest.raises(DataError, match=rf"{closed}: cannot be read \(Permission denied\)"):
                opened(root, tmp_path)
        finally:
            os.seteuid(user)
            closed.chmod(0o755)


@pytest.mark.parametrize("name", ["folder", "imagenet2012", "cifar10"])
def test_a_path_longer_than_the_system_takes(tmp_path, name):
    with pytest.raises(DataError, match=r"cannot be read \(File name too long\)"):
        opened(tmp_path / ("x" * 5000), tmp_path, name)


def raw(path):
    """A path under bytes that are no UTF-8."""
    return os.fsdecode(os.fsencode(path) + b"\xe9")


def test_names_that_are_not_utf8(tmp_path):
    root = Path(raw(tmp_path / "d"))
    write_images(tmp_path / "e", {"train/a": 2, "train/b": 2, "val/b": 1}).rename(root)
    for path in (root / "train" / "b", root / "val" / "b", root / "train" / "a" / "1.jpg"):
        path.rename(raw(path.with_suffix("")) + path.suffix)
    dataset = opened(root, tmp_path)
    assert dataset.class_names == ("a", r"b\xe9")
    assert counts(dataset) == {"train": 4, "validation": 1}
    assert labels(dataset.splits["train"]) == [0, 0, 1, 1]
    assert dataset.splits["train"].name(1) == rf"{tmp_path}/d\xe9/train/a/1\xe9.jpg"
    with pytest.raises(DataError, match=r"d\\xe9/train/c: no images"):
        (root / "train" / "c").mkdir()
        opened(root, tmp_path)


@pytest.mark.slow
def test_every_locale_has_the_same_labels_and_fingerprint(tmp_path):
    root = write_images(tmp_path / "d", {"a": 2, COMPOSED: 2, "\N{CJK UNIFIED IDEOGRAPH-732B}": 2})
    Path(root / "a").rename(raw(root / "a"))
    script = f"""
import os, sys
from pathlib import Path
from input_pipeline import open_dataset
d = open_dataset("folder", sys.argv[1], cache_dir=Path({str(tmp_path / "cache")!r}))
print(ascii(d.class_names), d.fingerprint, ascii(d.splits["train"].name(4)))
"""
    answers = {
        subprocess.run(
            [sys.executable, "-c", script, str(root)],
            cwd=ROOT, check=True, capture_output=True, env=os.environ | variables,
        ).stdout
        for variables in (
            {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            {"PYTHONUTF8": "1"},
        )
    }  # fmt: skip
    assert len(answers) == 1
    assert rb"a\\xe9" in answers.pop()


def test_unicode_spellings_of_a_class_are_one(tmp_path):
    """As a tree is that was made on two systems."""
    root = write_images(
        tmp_path / "d", {f"train/{COMPOSED}": 2, "train/tea": 3, f"val/{DECOMPOSED}": 1}
    )
    dataset = opened(root, tmp_path)
    assert dataset.class_names == (COMPOSED, "tea")
    assert labels(dataset.splits["validation"]) == [0]
    write_images(root / "train" / "more", {DECOMPOSED: 1})
    (root / "train" / "more" / DECOMPOSED).rename(root / "train" / DECOMPOSED)
    (root / "train" / "more").rmdir()
    with pytest.raises(DataError, match="two Unicode spellings"):
        opened(root, tmp_path)


def test_another_case_is_another_class_and_said(tmp_path):
    root = write_images(tmp_path / "d", {"train/Cat": 2, "train/dog": 2, "val/cat": 1})
    with pytest.raises(DataError, match=r"val/cat: 'cat' is not one.*; is it 'Cat'\?"):
        opened(root, tmp_path)
    (root / "val" / "cat").rename(root / "train" / "cat")
    (root / "val").rmdir()
    dataset = opened(root, tmp_path)
    assert len(dataset.class_names) == 3
    assert "'Cat' and 'cat' are two classes, alike but for case" in dataset.notes[0]


def test_classes_that_are_numbers(tmp_path):
    root = write_images(tmp_path / "d", {f"train/{n}": 1 for n in range(12)} | {"val/10": 1})
    dataset = opened(root, tmp_path)
    assert dataset.class_names == tuple(map(str, range(12)))
    assert labels(dataset.splits["validation"]) == [10]
    assert "numbers 0 to 11: labels are these numbers" in dataset.notes[0]
    as_text = sorted(map(str, range(12)))
    kept = opened(root, tmp_path, class_names=as_text)
    assert kept.class_names == tuple(as_text)
    assert labels(kept.splits["validation"]) == [2]
    assert "labels follow the class names that the network was trained with" in kept.notes[0]
    # What runs before this order was known had.
    expected = folders.from_folders(root / "train", as_text, tmp_path / "cache").fingerprint
    assert kept.splits["train"].fingerprint == expected != dataset.splits["train"].fingerprint
    (root / "train" / "11").rename(root / "train" / "12")
    dataset = opened(root, tmp_path)
    assert dataset.class_names == tuple(sorted(dataset.class_names))
    assert "numbers, but not 0 to 11: labels follow their names as text" in dataset.notes[0]


def test_classes_of_others_are_not_taken_over(tmp_path):
    root = write_images(tmp_path / "d", {"train/a": 2, "train/b": 2, "val/b": 1})
    assert opened(root, tmp_path, class_names=("b", "c", "a")).class_names == ("a", "b")
    evaluated = opened(root, tmp_path, class_names=("b", "c", "a"), only=REPORTED)
    assert evaluated.class_names == ("b", "c", "a")
    assert labels(evaluated.splits["validation"]) == [0]


@pytest.mark.parametrize("name", ["folder", "imagenet2012"])
def test_evaluation_needs_no_training_set(tmp_path, name):
    root = write_images(tmp_path / "d", {"val/n01440764": 1, "val/n02123597": 2})
    dataset = opened(root, tmp_path, name, only=REPORTED)
    assert counts(dataset) == {"validation": 3} and dataset.evaluation_split == "validation"
    assert len(dataset.class_names) == (1000 if name == "imagenet2012" else 2)
    assert labels(dataset.splits["validation"]) == (
        [0, 284, 284] if name == "imagenet2012" else [0, 1, 1]
    )
    assert counts(opened(root, tmp_path, name)) == {"validation": 3}  # to be prepared
    with pytest.raises(DataError, match=r"has no split 'train': .*d has no folder train/, train"):
        opened(root, tmp_path, name).examples("train")
    with pytest.raises(DataError, match=r"has no split 'train': .*d has no folder train/, train"):
        opened(root, tmp_path, name, only="train")


def test_classes_without_a_training_set_are_the_networks(tmp_path):
    root = write_images(tmp_path / "d", {"Test/fox": 1, "Test/cat": 2})
    known = ("zebra", "fox", "ant", "cat")
    dataset = opened(root, tmp_path, only=REPORTED, class_names=known)
    assert dataset.class_names == known
    assert labels(dataset.splits["test"]) == [3, 3, 1]
    assert opened(root, tmp_path, only=REPORTED).class_names == ("cat", "fox")
    with pytest.raises(
        DataError, match=r"d/Test/cat: 'cat' is not one of the 2 classes \(dog, fox"
    ):
        folders.from_folders(root / "Test", ("dog", "fox"), tmp_path / "cache")


def test_evaluation_opens_what_it_reads(tmp_path):
    """A training set that is damaged or half copied is nothing to it."""
    root = write_images(tmp_path / "d", {"train/a": 1, "train/b": 1, "val/a": 1, "val/b": 1})
    (root / "train" / "b" / "0.jpg").unlink()
    with pytest.raises(DataError, match="train/b: no images"):
        opened(root, tmp_path)
    assert counts(opened(root, tmp_path, only=REPORTED)) == {"validation": 2}
    with pytest.raises(
        DataError, match=r"has no split 'test': .*no folder test/.*can be train, va"
    ):
        opened(root, tmp_path, only="test")


@pytest.mark.parametrize("unlabelled", [{"test": 5}, {"test/all": 5}, {"test/1": 2, "test/2": 3}])
def test_a_test_folder_without_labels_stops_nothing(tmp_path, unlabelled):
    images = {f"{split}/{c}": 2 for split in ("train", "val") for c in "ab"}
    root = write_images(tmp_path / "d", images | unlabelled)
    dataset = opened(root, tmp_path)
    assert counts(dataset) == {"train": 4, "validation": 4}
    assert dataset.evaluation_split == "validation"
    said = f"{root}/test (5 files) has no labels: no folder of a class"
    assert dataset.notes == (f"{said}. It is not used",)
    test = opened(root, tmp_path, only="test").splits["test"]  # to be scored, not to be tested on
    below = [test.name(row).removeprefix(f"{root}/") for row in range(test.count)]
    assert below == sorted(f"{d}/{i}.jpg" for d, n in unlabelled.items() for i in range(n))
    assert labels(test) == [-1] * 5


def test_what_is_not_used_is_said_on_the_screen(tmp_path, capsys):
    from configs.alexnet import get_config

    root = write_images(tmp_path / "d", {"train/a": 9, "train/b": 9, "holdout/a": 3})
    config = get_config()
    config.data.name, config.data.dir = "folder", str(root)
    input_pipeline.open_data(config.data, tmp_path / "cache")
    assert capsys.readouterr().err == f"note: {root}: not used: holdout/ (3 files)\n"
