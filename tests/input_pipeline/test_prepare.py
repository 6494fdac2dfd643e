import itertools
import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import input_pipeline
from configs.alexnet import get_config
from input_pipeline import DataError, decode, open_data, prepare
from tests.conftest import write_images


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A folder of 23 + 9 images, to be prepared in shards of 5."""
    monkeypatch.setattr(prepare, "EXAMPLES_PER_SHARD", 5)
    root = write_images(tmp_path / "images", {"train/a": 12, "train/b": 11, "val/a": 5, "val/b": 4})
    config = get_config()
    config.data.name, config.data.dir = "folder", str(root)
    config.data.prepared_dir = str(tmp_path / "prepared")
    config.data.resize, config.data.crop = 40, 32
    config.data.mean, config.data.augment.colour_noise = "channel", "none"
    return config


def prepared(config, tmp_path):
    said = input_pipeline.prepare_data(config.data, tmp_path / "cache")
    return json.loads((tmp_path / "prepared" / "prepared.json").read_text()), said


def on_the_fly(config):
    data = config.data.copy_and_resolve_references()
    data.prepared_dir = None
    return data


def square(side):
    return SimpleNamespace(side=side, pad=0, whole=False)


def batches(data, tmp_path, count=8):
    opened = open_data(data, tmp_path / "cache")
    stream = opened.training(0, seed=1, batch_size=6)
    evaluated = opened.evaluation("validation", square(data.resize), batch_size=4)
    return [*itertools.islice(stream, count), *evaluated]


@pytest.mark.parametrize("decoding", ["fast", "exact"])
@pytest.mark.parametrize("crop", ["square", "image"])
def test_raw_pixels_train_as_the_images_themselves(config, tmp_path, decoding, crop):
    """Bit for bit, and in the same order."""
    config.data.decode, config.data.augment.crop = decoding, crop
    about, said = prepared(config, tmp_path)
    assert about["complete"] and (about["left_out"], about["repaired"]) == (0, 0)
    assert "train 23, validation 9 images" in said
    for ours, theirs in zip(
        batches(config.data, tmp_path), batches(on_the_fly(config), tmp_path), strict=True
    ):
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_real_photographs_prepared_raw(shared_data, config, tmp_path):
    folders = sorted(shared_data("imagenet_sample/train").iterdir())[::20]
    for split in ("train", "val"):
        for folder in folders:
            shutil.copytree(folder, tmp_path / "photographs" / split / folder.name)
    config.data.dir = str(tmp_path / "photographs")
    config.data.resize, config.data.crop = 256, 224
    prepared(config, tmp_path)
    for ours, theirs in zip(
        batches(config.data, tmp_path, 3), batches(on_the_fly(config), tmp_path, 3), strict=True
    ):
        np.testing.assert_array_equal(ours["image"], theirs["image"])


@pytest.mark.parametrize("quality, most", [(95, 4), (50, 12)])
def test_jpegs_of_chosen_quality(config, tmp_path, quality, most):
    config.data.prepare.format, config.data.prepare.quality = "jpeg", quality
    prepared(config, tmp_path)
    differences = [
        np.abs(ours["image"].astype(int) - theirs["image"]).mean()
        for ours, theirs in zip(
            batches(config.data, tmp_path), batches(on_the_fly(config), tmp_path), strict=True
        )
    ]
    assert 0 < max(differences) < most
    if quality == 50:
        assert max(differences) > 1


def test_other_tools_read_it(config, tmp_path):
    import tensorflow_datasets as tfds

    prepared(config, tmp_path)
    ours = open_data(config.data, tmp_path / "cache").examples("train")
    builder = tfds.builder_from_directory(tmp_path / "prepared")
    source = builder.as_data_source("train")
    assert len(source) == ours.count == 23
    for index in (0, 4, 5, 22):
        pixels, label = ours.read(index)
        np.testing.assert_array_equal(source[index]["image"], pixels)
        assert source[index]["label"] == label
    name = source[22]["file_name"]
    assert (name.decode() if isinstance(name, bytes) else name) == "b/9.jpg"  # 0, 1, 10, 2, ...
    assert builder.info.features["label"].names == ["a", "b"]


def test_the_largest_scale_is_kept_whole(config, tmp_path):
    """For scale jitter: rescaled once more from there when it is used."""
    config.data.augment.crop, config.data.augment.scale_range = "image", (36, 60)
    about, _ = prepared(config, tmp_path)
    assert (about["settings"]["size"], about["settings"]["image"]) == (60, "whole")
    examples = open_data(config.data, tmp_path / "cache").examples("train")
    shapes = {examples.read(i)[0].shape for i in range(examples.count)}
    assert {min(shape[:2]) for shape in shapes} == {60} and len(shapes) > 5
    for batch in batches(config.data, tmp_path, 2):
        assert batch["image"].std() > 0


class StoppedError(Exception):
    """As a signal would come."""


@pytest.mark.parametrize("after", [1, 3, 6])
def test_a_stopped_preparation_goes_on(config, tmp_path, monkeypatch, after):
    write, calls = prepare._write_shard, []

    def stopping(path, *arguments):
        if len(calls) == after:
            (path.parent / f".{path.name}.tmp").write_bytes(b"half a shard")
            raise StoppedError
        calls.append(path.name)
        return write(path, *arguments)

    monkeypatch.setattr(prepare, "_write_shard", stopping)
    with pytest.raises(StoppedError):
        prepared(config, tmp_path)
    with pytest.raises(DataError, match=r"prepared in part.*--mode=prepare_data.*goes on with it"):
        open_data(config.data, tmp_path / "cache")
    monkeypatch.setattr(prepare, "_write_shard", lambda *a: calls.append(a[0].name) or write(*a))
    about, _ = prepared(config, tmp_path)
    assert len(calls) == len(set(calls)) == 7  # no shard twice: 5 of train, 2 of validation
    monkeypatch.undo()
    monkeypatch.setattr(prepare, "EXAMPLES_PER_SHARD", 5)
    fresh = config.copy_and_resolve_references()
    fresh.data.prepared_dir = str(tmp_path / "at_once")
    input_pipeline.prepare_data(fresh.data, tmp_path / "cache")
    at_once = json.loads((tmp_path / "at_once" / "prepared.json").read_text())
    assert at_once == about
    assert not list((tmp_path / "prepared").glob(".*tmp"))


def test_what_is_done_is_left_alone(config, tmp_path, monkeypatch):
    about, said = prepared(config, tmp_path)
    monkeypatch.setattr(prepare, "_write_shard", None)
    assert prepared(config, tmp_path) == (about, said)


def test_a_shard_that_was_damaged_is_named_and_mended(config, tmp_path):
    about, _ = prepared(config, tmp_path)
    shard = tmp_path / "prepared" / "folder-train.array_record-00002-of-00005"
    content = shard.read_bytes()
    shard.write_bytes(content[:-500])
    with pytest.raises(DataError, match=r"00002-of-00005: missing or cut short.*mends it"):
        open_data(config.data, tmp_path / "cache")
    assert prepared(config, tmp_path)[0] == about
    assert shard.read_bytes() == content
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 16
    shard.write_bytes(flipped)
    examples = open_data(config.data, tmp_path / "cache").examples("train")
    with pytest.raises(DataError, match=r"record \d cannot be read"):
        for index in range(10, 15):
            examples.read(index)
    assert prepared(config, tmp_path)[0] == about
    assert shard.read_bytes() == content
    (tmp_path / "prepared" / "features.json").unlink()
    with pytest.raises(DataError, match=r"features.json: missing or cut short.*mends it"):
        open_data(config.data, tmp_path / "cache")
    assert prepared(config, tmp_path)[0] == about
    assert open_data(config.data, tmp_path / "cache").examples("train").count == 23


def test_one_at_a_time(config, tmp_path):
    (tmp_path / "prepared").mkdir()
    message = r"another process is preparing there; wait for it"
    with prepare._locked(tmp_path / "prepared"), pytest.raises(DataError, match=message):
        prepared(config, tmp_path)
    assert prepared(config, tmp_path)[0]["complete"]


@pytest.mark.parametrize(
    "form, crop, same",
    [
        ("raw", "square", True),
        ("raw", "image", True),
        ("raw", "area", False),
        ("jpeg", "square", False),
    ],
)
def test_the_same_pixels_are_the_same_data(config, tmp_path, form, crop, same):
    """A run that began with the images goes on with them prepared."""
    config.data.prepare.format, config.data.augment.crop = form, crop
    _, said = prepared(config, tmp_path)
    ours = open_data(config.data, tmp_path / "cache").fingerprint
    theirs = open_data(on_the_fly(config), tmp_path / "cache").fingerprint
    assert (ours == theirs) is same
    assert ("rescale them once more" in said) is (crop == "area")


def test_a_split_of_nothing_but_damage_is_named(config, tmp_path):
    for path in (tmp_path / "images" / "val").glob("*/*"):
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"no image of split validation could be read; .*report"):
        prepared(config, tmp_path)
    with pytest.raises(DataError, match=r"none of the 9 images, .*val/a/0.jpg the first"):
        batches(on_the_fly(config), tmp_path, 1)


def test_an_image_too_long_for_jpeg_is_left_out(config, tmp_path):
    Image.new("RGB", (30_000, 8), "red").save(tmp_path / "images" / "train" / "a" / "long.png")
    config.data.prepare.format, config.data.augment.crop = "jpeg", "image"
    about, _ = prepared(config, tmp_path)
    assert about["left_out"] == 1 and about["complete"]


def test_a_shard_that_does_not_read_back_is_refused(config, tmp_path, monkeypatch):
    from array_record.python import array_record_module

    class Forgetful:
        def __init__(self, *arguments):
            self.writer = array_record_module_writer(*arguments)

        def write(self, record):
            self.writer.write(record[:-1] + b"x")

        def close(self):
            self.writer.close()

    array_record_module_writer = array_record_module.ArrayRecordWriter
    monkeypatch.setattr(array_record_module, "ArrayRecordWriter", Forgetful)
    with pytest.raises(DataError, match=r"does not read back as it was written"):
        prepared(config, tmp_path)


def test_repaired_and_left_out_images_are_reported(config, tmp_path):
    folder = tmp_path / "images" / "train" / "a"
    (folder / "3.jpg").write_bytes(b"")
    tall = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 60, 3), np.uint8))
    tall.save(folder / "5.jpg")
    (folder / "5.jpg").write_bytes((folder / "5.jpg").read_bytes()[:-1500])
    about, said = prepared(config, tmp_path)
    assert (about["left_out"], about["repaired"]) == (1, 1)
    assert "train 22" in said and "1 repaired and 1 left out (report.jsonl)" in said
    report = (tmp_path / "prepared" / "report.jsonl").read_text().splitlines()
    notes = {note["image"]: note for note in map(json.loads, report)}
    assert notes[str(folder / "3.jpg")]["what"] == "left out"
    assert notes[str(folder / "3.jpg")]["reason"] == "the file is empty"
    assert notes[str(folder / "5.jpg")]["what"] == "repaired"
    reports = {tuple(note.values()) for note in notes.values()}
    for exact in (False, True):  # the same is said to whoever reads the images themselves
        said_now: set[tuple[str, ...]] = set()
        fields = on_the_fly(config)
        fields.decode = "exact" if exact else "fast"
        data = open_data(fields, tmp_path / "cache", report=lambda *note, to=said_now: to.add(note))
        list(data.evaluation("train", square(40), batch_size=4))
        assert said_now == reports
        said_now.clear()
        list(itertools.islice(data.training(0, seed=1, batch_size=23), 2))
        assert said_now == reports
    assert open_data(config.data, tmp_path / "cache").examples("train").count == 22
    config.data.prepared_dir, config.data.unreadable = str(tmp_path / "strict"), "fail"
    with pytest.raises(DataError, match=r"a/3.jpg: the file is empty; repair or remove it"):
        input_pipeline.prepare_data(config.data, tmp_path / "cache")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"resize": 48}, "size is 40, and 48 is needed"),
        ({"augment.scale_range": (36, 60)}, "size is 40, and 60 is needed"),
        ({"augment.crop": "image"}, "image is square, and whole is needed"),
        ({"decode": "exact"}, "decode is fast, and exact is needed"),
        ({"validation_examples": 3}, "validation_examples is None, and 3 is needed"),
    ],
)
def test_other_settings_are_named(config, tmp_path, changes, message):
    prepared(config, tmp_path)
    config.data.update_from_flattened_dict(changes)
    with pytest.raises(DataError, match=rf"prepared with other settings: {message}.*another dir"):
        open_data(config.data, tmp_path / "cache")
    if "augment.crop" not in changes and "validation_examples" not in changes:
        with pytest.raises(DataError, match=r"begun with other settings: \w+ \(was "):
            prepared(config, tmp_path)


@pytest.mark.parametrize(
    "crop, side, message",
    [
        ("square", 40, r"prepared as central squares, and this protocol needs whole images"),
        ("image", 48, r"prepared with other settings: size is 40, and 48 is needed"),
    ],
)
def test_whole_images_that_were_not_prepared(config, tmp_path, crop, side, message):
    """Named before any is read, with the command that prepares them."""
    config.data.augment.crop = crop
    prepared(config, tmp_path)
    data, wanted = open_data(config.data, tmp_path / "cache"), SimpleNamespace(side=side, pad=0)
    wanted.whole = True
    command = rf"--mode=prepare_data --config.data.augment.crop=image --config.data.resize={side} "
    for asked in (
        lambda: data.sizes("validation", wanted),
        lambda: data.evaluation("validation", wanted, batch_size=4, plan=()),
    ):
        with pytest.raises(DataError, match=rf"{message}\. .*{command}.*or use the images thems"):
            asked()
    if crop == "image":  # as prepared, or smaller: all of them are there
        wanted.side = 36
        assert (data.sizes("validation", wanted).min(axis=1) == 36).all()


def test_faults_of_the_directory_are_named(config, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"no prepared dataset there.*--mode=prepare_data"):
        open_data(config.data, tmp_path / "cache")
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "diary.txt").write_text("")
    with pytest.raises(DataError, match=r"not empty, and not a prepared dataset"):
        prepared(config, tmp_path)
    (tmp_path / "prepared" / "diary.txt").unlink()
    with monkeypatch.context() as patch:
        usage = shutil.disk_usage(tmp_path)
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(DataError, match=r"0.0 GB are needed and 0.0 GB free.*format=jpeg"):
            prepared(config, tmp_path)
    prepared(config, tmp_path)
    (tmp_path / "images" / "train" / "a" / "0.jpg").unlink()
    with pytest.raises(DataError, match=r"begun with other settings: the images themselves"):
        prepared(config, tmp_path)
    for content in ("{", "{}", "[]", '{"settings": 1}'):
        (tmp_path / "prepared" / "prepared.json").write_text(content)
        for use in (lambda: open_data(config.data, tmp_path), lambda: prepared(config, tmp_path)):
            with pytest.raises(DataError, match=r"prepared.json: damaged"):
                use()
    config.data.prepared_dir = None
    with pytest.raises(DataError, match=r"a directory to write to: --config.data.prepared_dir=DIR"):
        prepared(config, tmp_path)
    config.data.prepared_dir = str(tmp_path / "images" / "train" / "b" / "0.jpg")
    with pytest.raises(DataError, match=r"cannot be written"):
        prepared(config, tmp_path)


def test_a_full_disk_is_named(config, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare.os, "replace", full)
    with pytest.raises(DataError, match=r"the disk is full.*run the same command again"):
        prepared(config, tmp_path)


def test_labels_of_every_class_and_order(config, tmp_path):
    prepared(config, tmp_path)
    ours = open_data(config.data, tmp_path / "cache")
    theirs = open_data(on_the_fly(config), tmp_path / "cache")
    assert ours.class_names == theirs.class_names
    for split, examples in theirs.dataset.splits.items():
        labels = [examples.read(i)[1] for i in range(examples.count)]
        assert [ours.examples(split).read(i)[1] for i in range(examples.count)] == labels
    assert decode.pixels(theirs.examples("train").read(0)[0]).shape[2] == 3


def test_files_of_systems_in_the_directory_change_nothing(config, tmp_path):
    (tmp_path / "prepared" / "lost+found").mkdir(parents=True)  # a new disk
    (tmp_path / "prepared" / ".DS_Store").write_bytes(b"\0")
    about, said = prepared(config, tmp_path)
    before = open_data(config.data, tmp_path / "cache").fingerprint
    for name in ("._prepared.json", "Thumbs.db", "notes.txt", ".folder.tmp"):
        (tmp_path / "prepared" / name).write_bytes(b"\xff")
    (tmp_path / "prepared" / "@eaDir").mkdir()
    assert open_data(config.data, tmp_path / "cache").fingerprint == before
    assert prepared(config, tmp_path) == (about, said)
    assert (tmp_path / "prepared" / "notes.txt").exists()


def test_nothing_that_may_be_good_is_to_be_removed(config, tmp_path):
    """What TFDS needs beside the shards is written again; the shards are not."""
    about, _ = prepared(config, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "prepared").glob("*array*")}
    for file in ("dataset_info.json", "features.json"):
        (tmp_path / "prepared" / file).write_text("{")
        with pytest.raises(DataError, match=r"is damaged .*mends it and keeps the shards"):
            open_data(config.data, tmp_path / "cache")
        assert prepared(config, tmp_path)[0] == about
        assert open_data(config.data, tmp_path / "cache").examples("train").count == 23
    whole = (tmp_path / "prepared" / "prepared.json").read_text()
    for content in (b"{", b"\xff\xfe", b"[]", json.dumps(about | {"shards": {"a": 1}}).encode()):
        (tmp_path / "prepared" / "prepared.json").write_bytes(content)
        for use in (lambda: open_data(config.data, tmp_path), lambda: prepared(config, tmp_path)):
            with pytest.raises(DataError, match=r"shards beside it may be good.*from a copy") as e:
                use()
            assert "remove" not in str(e.value)
    (tmp_path / "prepared" / "prepared.json").write_text(whole)
    assert open_data(config.data, tmp_path / "cache").examples("train").count == 23
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_only_what_is_evaluated_has_to_be_there(config, tmp_path):
    prepared(config, tmp_path)
    for shard in (tmp_path / "prepared").glob("*-train.*"):
        shard.unlink()
    data = open_data(config.data, tmp_path / "cache", only=input_pipeline.REPORTED)
    assert {k: v.count for k, v in data.dataset.splits.items()} == {"validation": 9}
    with pytest.raises(DataError, match=r"train.array.*missing or cut short"):
        open_data(config.data, tmp_path / "cache", only="train")
    with pytest.raises(DataError, match=r"no split 'test' was prepared; evaluation.split can be t"):
        open_data(config.data, tmp_path / "cache", only="test")


def test_what_is_there_is_prepared(config, tmp_path):
    """Validation images alone, for evaluation."""
    shutil.rmtree(tmp_path / "images" / "train")
    _, said = prepared(config, tmp_path)
    assert "prepared: validation 9 images" in said
    dataset = open_data(config.data, tmp_path / "cache", only=input_pipeline.REPORTED)
    assert dataset.examples("validation").count == 9
    with pytest.raises(DataError, match=r"folder has no split 'train': .*prepared has none"):
        open_data(config.data, tmp_path / "cache").examples("train")


@pytest.mark.parametrize("name", [b"caf\xe9", "café".encode(), b" b ", b"two\nlines", b"a#b"])
def test_names_of_any_bytes(config, tmp_path, name):
    """Of a class, an image and the directory itself."""
    train = tmp_path / "images" / "train"
    (train / "a").rename(train / os.fsdecode(name))
    (tmp_path / "images" / "val" / "a").rename(tmp_path / "images" / "val" / os.fsdecode(name))
    image = train / os.fsdecode(name) / os.fsdecode(b"0" + name + b".jpg")
    (train / os.fsdecode(name) / "0.jpg").rename(image)
    directory = tmp_path / os.fsdecode(b"out" + name)
    config.data.prepared_dir = str(directory)
    said = input_pipeline.prepare_data(config.data, tmp_path / "cache")
    said.encode()  # can be printed
    ours, theirs = (open_data(d, tmp_path / "cache") for d in (config.data, on_the_fly(config)))
    assert ours.class_names == theirs.class_names and len(ours.class_names) == 2
    assert ours.fingerprint == theirs.fingerprint
    for index in (0, 22):
        assert ours.examples("train").read(index)[1] == theirs.examples("train").read(index)[1]
        ours.examples("train").name(index).encode()
    report = json.loads((directory / "prepared.json").read_text())
    assert report["complete"] and report["class_names"] == list(theirs.class_names)


def test_a_configuration_of_tfds_is_prepared(config, tmp_path):
    from tests.input_pipeline.test_tfds_directories import prepare as prepare_tfds

    prepare_tfds(tmp_path / "tfds", "resized", config="8x8")
    config.data.name, config.data.dir = "resized/8x8", str(tmp_path / "tfds")
    _, said = prepared(config, tmp_path)
    assert "train 6, validation 3 images" in said
    assert (tmp_path / "prepared" / "resized_8x8-train.array_record-00000-of-00002").exists()
    ours = open_data(config.data, tmp_path / "cache")
    assert ours.examples("train").count == 6
    assert ours.fingerprint == open_data(on_the_fly(config), tmp_path / "cache").fingerprint
