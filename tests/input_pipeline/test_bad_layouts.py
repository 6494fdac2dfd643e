"""What is wrong with a layout is named, with what was looked for and the way out."""

import gzip

import pytest

from input_pipeline.datasets.imagenet import imagenet_synsets
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


def test_labels_off_by_a_place_are_doubted(root, photos, tmp_path):
    """A file of all lengths and names right: known are the first four."""
    lines = [line.split() for line in write.val_txt(photos).splitlines()]
    lines.sort()
    shifted = [f"{a[0]} {b[1]}" for a, b in zip(lines, lines[1:] + lines[:1], strict=True)]
    flat(root, photos, val__txt="\n".join(shifted))
    notes = opened(root, tmp_path).notes
    assert any("ILSVRC2012_val_00000001 is n01751748 in the challenge" in n for n in notes)
    (root / "val.txt").write_text(write.val_txt(photos))
    assert not any("in the challenge" in n for n in opened(root, tmp_path).notes)


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
