"""What is wrong with a layout is named, with what was looked for and the way out."""

import gzip
import shutil

import pytest

from input_pipeline.datasets.imagenet import imagenet_synsets
from input_pipeline.layouts import webdataset
from tests.input_pipeline import layout_files as write
from tests.input_pipeline.test_layouts import opened


@pytest.fixture(scope="module")
def photos():
    return write.photographs(12, 8)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def refused(root, tmp_path, capsys):
    """Opening it is refused, in a line or two that have all of these in them."""

    def check(*said, **options):
        from input_pipeline import DataError

        with pytest.raises(DataError) as error:
            opened(root, tmp_path, **options)
        message = str(error.value)
        assert all(part in message for part in said), message
        assert len(message.splitlines()) <= 2
        return message

    return check


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def test_a_tar_cut_short(root, photos, refused):
    write.original_tars(root, photos)
    tar = root / "ILSVRC2012_img_val.tar"
    whole = tar.read_bytes()
    for size in (len(whole) - 10_240, len(whole) // 2, 700):
        tar.write_bytes(whole[:size])
        refused(str(tar), "cut short", "get it again")
    tar.write_bytes(b"")
    refused(str(tar), "not a tar")
    tar.write_bytes(whole[:100] + b"\xff" * 20 + whole[120:])
    refused(str(tar), "damaged at byte 0")


def test_the_outer_tar_cut_short_names_the_synset(root, photos, refused):
    write.original_tars(root, photos)
    tar = root / "ILSVRC2012_img_train.tar"
    cut(tar, tar.stat().st_size * 2 // 3)
    refused(str(tar), "cut short", "in n0")


def test_an_inner_tar_that_breaks_off_names_the_synset(root, photos, refused):
    inner = [(p.name, p.content) for p in write.of(photos, "train") if p.synset == "n01440764"]
    broken = write.tar_bytes(inner)
    outer = [("n01440764.tar", broken[: len(broken) // 1024 * 512])]
    write.write(root / "ILSVRC2012_img_train.tar", write.tar_bytes(outer))
    refused("n01440764.tar in it", "cut short")


@pytest.mark.parametrize("name", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_train.tar.gz"])
def test_a_compressed_tar(root, photos, refused, name):
    write.original_tars(root, photos)
    tar = root / "ILSVRC2012_img_train.tar"
    content = gzip.compress(tar.read_bytes())
    tar.unlink()
    write.write(root / name, content)
    refused(name, "compressed", "decompress it")


def test_an_inner_tar_of_no_synset(root, photos, refused):
    tar = write.tar_bytes([("a.JPEG", photos[0].content)])
    write.write(root / "ILSVRC2012_img_train.tar", write.tar_bytes([("cats.tar", tar)]))
    refused("'cats' is no synset", "data.name=folder")


def test_two_layouts_of_one_split(root, photos, refused):
    pytest.importorskip("pyarrow")
    write.parquet(root, photos)
    write.webdataset(root, photos)
    refused("train split is there twice", "Parquet files (3)", "WebDataset shards (2)")


def test_folders_beside_parquet(root, photos, refused):
    pytest.importorskip("pyarrow")
    write.parquet(root, photos)
    write.folders(root, photos)
    refused("train split is there twice", "Parquet files (3)", "train/")


def test_folders_win_over_the_tars_that_they_are_from(root, photos, tmp_path):
    write.folders(root, photos)
    write.original_tars(root, photos)
    dataset = opened(root, tmp_path)
    assert any(
        "ILSVRC2012_img_train.tar: not used: its images are in train/" in n for n in dataset.notes
    )


@pytest.mark.parametrize("name", ["ILSVRC2012_img_test.tar", "ILSVRC2012_img_test_v10102019.tar"])
def test_test_images_in_their_tar_and_beside_it(root, photos, tmp_path, name):
    write.original_tars(root, photos)
    contents = [photo.content for photo in photos[:3]]
    images = [(f"test/ILSVRC2012_test_{n:08d}.JPEG", of) for n, of in enumerate(contents, 1)]
    write.write(root / name, write.tar_bytes(images))
    assert opened(root, tmp_path).splits.keys() == {"train", "validation"}
    test = opened(root, tmp_path, only="test").splits["test"]
    assert [test.read(row) for row in range(test.count)] == [(of, -1) for of in contents]
    for path, content in images:
        write.write(root / path, content)
    notes = opened(root, tmp_path).notes
    assert f"{root / name}: not used: its images are in test/" in notes
    (root / "ILSVRC2012_img_train.tar").unlink()
    assert (
        opened(root, tmp_path)
        .absent["train"]
        .endswith("train/, training/, ILSVRC2012_img_train.tar")
    )


def test_the_challenges_tars_are_no_shards(tmp_path):
    official = (
        *("2012_img_test_v10102019", "2012_img_train_t3", "2012_devkit_t12", "2010_images_train"),
        *("2012_bbox_train_v2", "2013_DET_train_extra10"),
    )
    for name in official:
        write.write(tmp_path / f"ILSVRC{name}.tar", b"of any content")
    assert webdataset.find(tmp_path) == ({}, [])
    for name in ("img_train-000147", "val-000"):
        write.write(tmp_path / f"ILSVRC2012_{name}.tar", b"of one's own making")
    assert webdataset.find(tmp_path)[0].keys() == {"train", "validation"}


@pytest.mark.parametrize("of", ["tar", "tars"])
def test_a_folder_unpacked_in_part(root, photos, refused, tmp_path, of):
    """Beside the tars that it is from."""
    write.folders(root, photos)
    (write.original_tars if of == "tar" else write.synset_tars)(root, photos)
    shutil.rmtree(root / "train" / "n02123597")
    shutil.rmtree(root / "train" / "n01751748")
    refused("train: not unpacked wholly", "2 of the 6 synsets in it (n01751748, n02123597)")
    write.folders(root, photos)
    (root / "val" / "n02105855" / "ILSVRC2012_val_00000003.JPEG").unlink()
    refused("val: not unpacked wholly", "1 of the 8 images in it are not there")
    write.folders(root, photos)
    notes = opened(root, tmp_path).notes
    assert [n.partition("not used: ")[2] for n in notes if ".tar" in n and "train" in n] == [
        "its images are in train/"
    ]


# What lies in tars beside images


def test_what_is_no_image_in_tars_is_counted(root, photos, tmp_path):
    """AppleDouble files of images, and of the tars of synsets; what is hidden, text, folders."""
    expected = tmp_path / "expected"
    write.folders(expected, photos)
    junk = b"\0\5\x16\7junk"
    inner = {}
    for photo in write.of(photos, "train"):
        here = inner.setdefault(photo.synset, [])
        here += [(f"._{photo.name}", junk), (f"./{photo.name}", photo.content)]
    inner["n01440764"].append(("read me.txt", b"text"))
    outer = [(f"{synset}.tar", write.tar_bytes(members)) for synset, members in inner.items()]
    outer += [("._n01440764.tar", junk), ("list.txt", b"text")]
    write.write(root / "ILSVRC2012_img_train.tar", write.tar_bytes(outer))
    val = [(f"val/{photo.name}", photo.content) for photo in write.of(photos, "val")]
    val += [(f"__MACOSX/val/._{photo.name}", junk) for photo in write.of(photos, "val")]
    val += [("val/.hidden.JPEG", photos[0].content), ("val/Thumbs.db", junk)]
    write.write(root / "ILSVRC2012_img_val.tar", write.tar_bytes(val))
    write.write(root / "ILSVRC2012_devkit_t12.tar.gz", write.kit(photos, write.kit_ids()))
    for _ in range(2):  # listed, then from the index
        dataset = opened(root, tmp_path)
        assert dataset.fingerprint == opened(expected, tmp_path).fingerprint
        assert dataset.splits["train"].ignored == 12 + 1
        assert dataset.splits["validation"].ignored == 8 + 2
        assert dataset.ignored == 0  # the tars are in use
        said = [n.partition("not used: ")[2] for n in dataset.notes if "not used" in n]
        assert said == ["2 *.txt (list.txt)", "1 hidden (val/.hidden.JPEG)"]
        assert "ILSVRC2012_img_test.tar" in dataset.absent["test"]


def test_an_index_replaces_the_older_one_of_the_same_files(root, photos, tmp_path):
    write.original_tars(root, photos)
    opened(root, tmp_path)
    before = sorted((tmp_path / "cache").glob("members-*"))
    some = [photo for photo in photos if photo.split == "val" or photo.name.endswith("_2.JPEG")]
    write.original_tars(root, some)
    assert opened(root, tmp_path).splits["train"].count == 1
    assert sorted((tmp_path / "cache").glob("members-*")) == before and len(before) == 2


# Labels of validation images


def flat(root, photos, **files):
    write.folders(root, photos, flat=True)
    for name, content in files.items():
        write.write(root / name.replace("__", "."), content)


TRUTH = "ILSVRC2012_validation_ground_truth__txt"


def test_a_flat_folder_without_labels(root, photos, refused):
    flat(root, photos)
    refused("val", "no labels of its images", "LOC_val_solution.csv", "devkit", "val.txt")


def test_tars_without_labels(root, photos, refused):
    write.original_tars(root, photos)
    (root / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    refused("ILSVRC2012_img_val.tar", "no labels of its images", "devkit")


def test_a_ground_truth_without_its_map(root, photos, refused):
    flat(root, photos, **{TRUTH: write.ground_truth(photos, write.kit_ids())})
    refused("ILSVRC2012_validation_ground_truth.txt", "meta.mat or map_clsloc.txt", "devkit")


@pytest.mark.parametrize("count", [49_999, 50_001])
def test_a_ground_truth_of_another_length(root, photos, refused, count):
    ids = write.kit_ids()
    truth = write.ground_truth(photos, ids, count)
    flat(root, photos, **{TRUTH: truth, "meta__mat": write.meta_mat(ids)})
    refused("ILSVRC2012_validation_ground_truth.txt", f"{count:,} lines", "50,000")


@pytest.mark.parametrize("wrong", ["0", "1001", "-1", "cat"])
def test_ids_out_of_range(root, photos, refused, wrong):
    ids = write.kit_ids()
    lines = write.ground_truth(photos, ids).splitlines()
    lines[6] = wrong
    flat(root, photos, **{TRUTH: "\n".join(lines), "meta__mat": write.meta_mat(ids)})
    refused("1 of 50,000 lines are no IDs", f"line 7: {wrong}")


def test_images_of_other_names(root, photos, refused):
    flat(root, photos, val__txt=write.val_txt(photos))
    (root / "val" / "ILSVRC2012_val_00000001.JPEG").rename(root / "val" / "cat.JPEG")
    refused("val.txt", "no label for 1 of 8 images (cat.JPEG)")


def test_labels_that_are_known_to_be_wrong(root, photos, tmp_path, refused):
    """A file of all lengths and names right: known are the first four."""
    lines = [line.split() for line in write.val_txt(photos).splitlines()]
    lines.sort()
    shifted = [f"{a[0]} {b[1]}" for a, b in zip(lines, lines[1:] + lines[:1], strict=True)]
    flat(root, photos, val__txt="\n".join(shifted))
    refused("ILSVRC2012_val_00000001 is n01751748 in the challenge", "move it elsewhere")
    # Of the images that are not there it says something that is known to be wrong, too.
    for number in range(1, 5):
        (root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG").unlink()
    notes = opened(root, tmp_path).notes
    assert any("ILSVRC2012_val_00000001 is n01751748 in the challenge" in n for n in notes)
    flat(root, photos, val__txt=write.val_txt(photos))
    assert not any("in the challenge" in n for n in opened(root, tmp_path).notes)


def test_stored_labels_that_are_known_to_be_wrong(root, photos, refused):
    first = next(photo for photo in photos if photo.name == "ILSVRC2012_val_00000001.JPEG")
    members = [
        ("ILSVRC2012_val_00000001.jpg", first.content),
        ("ILSVRC2012_val_00000001.cls", b"5"),
    ]
    write.write(root / "val-0000.tar", write.tar_bytes(members))
    refused("val-0000.tar", "ILSVRC2012_val_00000001 is n01751748 in the challenge")


def test_two_labels_of_one_image(root, photos, refused):
    lines = write.val_txt(photos)
    flat(root, photos, val__txt=f"{lines}ILSVRC2012_val_00000002.JPEG 5\n")
    refused("val.txt: two labels of ILSVRC2012_val_00000002, n09193705 and n01496331")


def test_a_short_ground_truth_of_images_with_gaps(root, photos, refused):
    """As many lines as images, whose numbers are not those of the lines."""
    ids = write.kit_ids()
    truth = write.ground_truth(photos, ids, 8)
    flat(root, photos, **{TRUTH: truth, "meta__mat": write.meta_mat(ids)})
    refused("8 lines for 8 images, whose numbers are not 1 to 8 (ILSVRC2012_val_00011555.JPEG")


@pytest.mark.parametrize("stranger", ["one\ntwo\n", "cat.jpg 3\n", None])
def test_the_search_goes_on_after_a_file_that_does_not_fit(
    root, photos, tmp_path, refused, stranger
):
    """A stranger's list, that of other images, and one off by a place; the kit lies there, too."""
    lines = sorted(line.split() for line in write.val_txt(photos).splitlines())
    if stranger is None:
        shifted = zip(lines, lines[1:] + lines[:1], strict=True)
        stranger = "".join(f"{a[0]} {b[1]}\n" for a, b in shifted)
    flat(root, photos, ILSVRC2012_devkit_t12__tar__gz=write.kit(photos, write.kit_ids()))
    write.write(root / "other" / "val.txt", stranger)
    dataset = opened(root, tmp_path)
    assert any("labels from" in n and "devkit_t12.tar.gz/" in n for n in dataset.notes)
    assert any("other/val.txt: not used: " in n for n in dataset.notes)
    assert "the first that fits of " in dataset.labels_from
    validation = dataset.splits["validation"]
    of_name = {photo.name: photo.synset for photo in photos}
    for row in range(validation.count):
        name = validation.name(row).rsplit("/", 1)[1]
        assert dataset.class_names[validation.read(row)[1]] == of_name[name]
    write.write(root / "ILSVRC2012_devkit_t12.tar.gz", b"damaged")
    refused("other/val.txt: ", "(others do not fit either: ", "ILSVRC2012_devkit_t12.tar.gz")


def test_kaggles_solution_without_the_names_of_its_columns(root, photos, tmp_path):
    flat(root, photos, LOC_val_solution__csv=write.solution_csv(photos).partition("\n")[2])
    dataset = opened(root, tmp_path)
    assert dataset.splits["validation"].count == 8
    assert dataset.labels_from.endswith(f"validation: {root / 'LOC_val_solution.csv'}")


def test_labels_out_of_range(root, photos, refused):
    flat(root, photos, val__txt=write.val_txt(photos).replace("\n", "000\n", 1))
    refused("val.txt", "1 of 8 images are neither synsets nor 0 to 999")


def test_a_kit_of_another_year(root, photos, refused):
    ids = [f"n{number:08d}" for number in range(1000)]
    truth = "1\n" * 50_000
    flat(root, photos, **{TRUTH: truth, "map_clsloc__txt": write.map_clsloc(ids)})
    refused("the map of its IDs is of another challenge")


def test_a_damaged_kit(root, photos, refused):
    flat(root, photos, **{"ILSVRC2012_devkit_t12__tar__gz": b"\x1f\x8b damaged"})
    refused("ILSVRC2012_devkit_t12.tar.gz", "damaged")
    flat_map = root / "meta.mat"
    write.write(flat_map, b"damaged")
    write.write(root / TRUTH.replace("__", "."), "1\n" * 50_000)
    refused("meta.mat", "damaged")


# WebDataset


def test_a_sample_without_its_class(root, photos, refused):
    write.write(root / "train-0000.tar", write.tar_bytes([("a.jpg", photos[0].content)]))
    refused("train-0000.tar", "1 of its samples", "a has no .cls")
    write.write(root / "train-0000.tar", write.tar_bytes([("a.cls", b"1")]))
    refused("train-0000.tar", "a has no image")


@pytest.mark.parametrize("content", [b"cat", b"-1", b"1.5", b""])
def test_a_class_that_is_no_number(root, photos, refused, content):
    members = [("a.jpg", photos[0].content), ("a.cls", content)]
    write.write(root / "train-0000.tar", write.tar_bytes(members))
    refused("train-0000.tar", "the .cls of a", repr(content.decode()))


def test_a_shard_is_missing(root, photos, refused):
    write.webdataset(root, photos, size=2)
    (root / "imagenet-train-000002.tar").unlink()
    refused("imagenet-train-*.tar: 1 of 6 shards are missing (2)")


def test_a_tar_that_is_no_shard(root, photos, tmp_path, refused):
    """Its number may be a date: all numbers below it are not gone through."""
    write.write(root / "images_20240131.tar", b"")
    refused(str(root / "images_20240131.tar"), "not a tar file")
    write.folders(root, photos)
    notes = opened(root, tmp_path).notes
    assert f"{root}/images_20240131.tar: not used: train/ is there" in notes
    write.write(root / "old-01.tar", b"")
    assert (
        f"{root}: not used: images_20240131.tar, old-01.tar (of no split)"
        in opened(root, tmp_path).notes
    )
    shutil.rmtree(root)
    write.webdataset(root, photos)
    expected = opened(root, tmp_path).fingerprint
    write.write(root / "images_20240131.tar", write.tar_bytes([("a.txt", b"")]))
    dataset = opened(root, tmp_path)
    assert dataset.fingerprint == expected
    assert f"{root}: not used: images_20240131.tar (of no split)" in dataset.notes
    write.write(root / "imagenet-train-20240131.tar", b"")
    refused("20240129 of 20240132 shards are missing (2, 3, 4, 5, 6 and 20240124 more)")


def test_labels_of_another_order(root, photos, refused):
    """ImageNet-100 and the like count their own classes."""
    members = [("n02123597_7.jpg", photos[0].content), ("n02123597_7.cls", b"4")]
    write.write(root / "train-0000.tar", write.tar_bytes(members))
    refused("n02123597_7.JPEG has label 4", "data.name=folder")


# Parquet and Arrow


@pytest.fixture
def table(photos):
    pytest.importorskip("pyarrow")

    def make(classes=None, labels=None):
        rows = write.of(photos, "train")
        names = [f"word {k}" for k in range(1000)] if classes is None else classes
        synsets = imagenet_synsets()
        return write.hub_table(rows, names, labels or [synsets.index(p.synset) for p in rows])

    return make


def save(root, table, name="train-00000-of-00001.parquet"):
    import pyarrow.parquet as pq

    root.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, root / name)


def test_parquet_without_the_columns(root, table, refused):
    save(root, table().rename_columns(["picture", "label"]))
    refused("looked for the columns image", "found picture (struct", "label (int64)")
    save(root, table().rename_columns(["image", "text"]))
    refused("looked for the columns image", "text (int64)")


def test_parquet_labels_out_of_range(root, table, refused):
    count = table().num_rows
    save(root, table(classes=(), labels=[7] * (count - 1) + [1000]))
    refused("label 1000, where those of ILSVRC are 0 to 999", "data.name=folder")


def test_classes_that_are_no_synsets(root, table, refused):
    save(root, table(classes=("cat", "dog"), labels=[0, 1] * (table().num_rows // 2)))
    refused("'cat' is no synset", "data.name=folder")


def test_parquet_cut_short(root, table, refused):
    save(root, table())
    path = root / "train-00000-of-00001.parquet"
    cut(path, path.stat().st_size // 2)
    refused(str(path), "damaged or cut short", "get it again")


def test_parquet_files_missing(root, photos, refused):
    pytest.importorskip("pyarrow")
    write.parquet(root, photos)
    (root / "data" / "train-00001-of-00003.parquet").unlink()
    refused("2 files of 00003", "missing")


def test_two_sets_of_parquet_files(root, photos, table, refused):
    write.parquet(root, photos)
    copy = root / "data" / "train-00000-of-00003-0badcafe.parquet"
    shutil.copy(root / "data" / "train-00000-of-00003.parquet", copy)
    refused("train-00000-of-00003-0badcafe.parquet and train-00000-of-00003.parquet are two sets")
    copy.rename(root / "data" / "train-00000-of-00001.parquet")
    refused("train-00000-of-00001.parquet and train-00000-of-00003.parquet are two sets")
    shutil.rmtree(root / "data")
    for name in ("val", "valid"):
        save(root, table(), f"{name}.parquet")
    refused("val.parquet and valid.parquet are two sets of Parquet files of the validation split")


def test_schemas_that_name_other_classes(root, table, refused):
    words = [f"word {k}" for k in range(1000)]
    save(root, table())
    save(root, table(classes=words[::-1]), "validation-00000-of-00001.parquet")
    refused("class 0 is 'word 999' in its schema, and 'word 0' in that of train-00000-of-00001")
    save(root, table(classes=["a", "b"], labels=[0, 1] * 6), "validation-00000-of-00001.parquet")
    refused("its schema names 2 classes, 2 of them not in these", name="folder")


@pytest.mark.parametrize("wrong", [-2, 2**32])
def test_parquet_labels_that_are_no_numbers_of_classes(root, table, refused, wrong):
    save(root, table(classes=(), labels=[7] * 11 + [wrong]))
    refused(str(wrong), "can be", name="folder")


def test_parquet_of_no_split_is_noted(root, photos, table, tmp_path, refused):
    save(root, table(), "imagenet-train-00000-of-00001.parquet")
    refused("not ImageNet", "not used: imagenet-train-00000-of-00001.parquet")
    save(root, table())
    dataset = opened(root, tmp_path)
    assert any("not used: imagenet-train-00000-of-00001.parquet" in n for n in dataset.notes)
    assert "test-*.parquet" in dataset.absent["test"]


def test_folders_of_save_to_disk_of_no_split_or_of_the_same(root, photos, tmp_path, refused):
    pytest.importorskip("pyarrow")
    write.arrow(root, photos)
    expected = opened(root, tmp_path).fingerprint
    shutil.copytree(root / "validation", root / "unsupervised")
    refused("the validation split is there twice, as unsupervised/ and as validation/")
    state = root / "unsupervised" / "state.json"
    state.write_text(state.read_text().replace('"validation"', '"unsupervised"'))
    dataset = opened(root, tmp_path)
    assert dataset.fingerprint == expected
    assert any("not used: unsupervised/" in note for note in dataset.notes)
    # Alone it is for training, as ever.
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "validation")
    assert opened(root, tmp_path).splits.keys() == {"train"}


def test_arrow_files_missing_or_cut_short(root, photos, refused):
    pytest.importorskip("pyarrow")
    write.arrow(root, photos)
    path = root / "train" / "data-00000-of-00002.arrow"
    cut(path, path.stat().st_size // 2)
    refused(str(path), "damaged or cut short")
    path.unlink()
    refused("data-00000-of-00002.arrow missing")


def test_without_pyarrow_the_extra_is_named(root, table, refused, monkeypatch):
    save(root, table())
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    refused("need pyarrow: pip install 'vision-models[parquet]'")
