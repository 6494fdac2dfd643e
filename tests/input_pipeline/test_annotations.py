"""Annotation files as they are: their layouts, and the traps in them."""

import io
import json
import os
import re
import tarfile

import numpy as np
import pytest
from PIL import Image

from input_pipeline import DataError, annotations, decode, open_dataset
from input_pipeline.boxes import NONE, Boxes, as_read, normalized
from tests.conftest import write_images

TENCH, CAT = "n01440764", "n02123597"


def xml(*objects, size=(200, 100), filename="%s"):
    """An annotation; of each object its name and xmin, ymin, xmax, ymax."""
    corners = ("xmin", "ymin", "xmax", "ymax")
    drawn = "".join(
        f"<object><name>{name}</name><pose>Unspecified</pose><bndbox>"
        + "".join(f"<{of}>{value}</{of}>" for of, value in zip(corners, box, strict=True))
        + "</bndbox></object>"
        for name, *box in objects
    )
    width, height = size
    return (
        f"<annotation><folder>x</folder><filename>{filename}</filename><size><width>{width}"
        f"</width><height>{height}</height><depth>3</depth></size>{drawn}</annotation>"
    )


def opened(root, tmp_path, name="imagenet2012", **options):
    return open_dataset(name, str(root), cache_dir=tmp_path / "cache", **options)


@pytest.fixture
def root(tmp_path):
    """An ILSVRC tree whose files are named as ImageNet's are: 4 + 3 for training, 2 + 2 others."""
    counts = {f"train/{TENCH}": 4, f"train/{CAT}": 3, f"val/{TENCH}": 2, f"val/{CAT}": 2}
    root = write_images(tmp_path / "data" / "ILSVRC" / "Data" / "CLS-LOC", counts)
    for number, path in enumerate(sorted(root.glob("val/*/*.jpg")), 1):
        path.rename(path.with_name(f"ILSVRC2012_val_{number:08d}.JPEG"))
    for path in root.glob("train/*/*.jpg"):
        path.rename(path.with_name(f"{path.parent.name}_{path.stem}.JPEG"))
    return root


FILES = {
    f"train/{TENCH}/{TENCH}_0.xml": xml((TENCH, 20, 10, 100, 60), (CAT, 0, 0, 200, 100)),
    f"train/{TENCH}/{TENCH}_2.xml": xml((TENCH, 50, 50, 60, 75), filename="wrong"),
    f"train/{CAT}/{CAT}_1.xml": xml(("n99999999", 0, 0, 100, 100)),
    "val/ILSVRC2012_val_00000003.xml": xml((CAT, 100, 0, 150, 50)),
}
EXPECTED = {
    f"{TENCH}_0": ([[0.1, 0.1, 0.5, 0.6], [0, 0, 1, 1]], [0, 284]),
    f"{TENCH}_2": ([[0.25, 0.5, 0.3, 0.75]], [0]),
    f"{CAT}_1": ([[0, 0, 0.5, 1]], [-1]),
    "ILSVRC2012_val_00000003": ([[0.5, 0, 0.75, 0.5]], [284]),
}


def assert_expected(dataset, split, found=EXPECTED):
    examples, seen = dataset.splits[split], 0
    for index in range(examples.count):
        stem = examples.name(index).rsplit("/", 1)[1].partition(".")[0]
        edges, labels = found.get(stem, (np.zeros((0, 4)), []))
        boxes = examples.boxes(index)
        np.testing.assert_allclose(boxes.edges, edges, rtol=1e-6)
        assert boxes.labels.tolist() == labels and boxes.edges.dtype == np.float32
        assert boxes.shown == ((200, 100) if stem in found else (0, 0))
        seen += len(labels)
    return seen


def written(directory):
    for name, content in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)
    return directory


def tarred(path, files, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            content = content if isinstance(content, bytes) else content.encode()
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def in_a_tree(root):
    """As Kaggle's archive has it."""
    written(root.parent.parent / "Annotations" / "CLS-LOC")


def beside_the_splits(root):
    written(root / "Annotations")


def all_in_one_folder(root):
    for name, content in FILES.items():
        path = root / "Annotations" / name.rsplit("/", 1)[1]
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)


def as_the_kits_tars(root):
    train = {name: text for name, text in FILES.items() if name.startswith("train")}
    val = {name: text for name, text in FILES.items() if name.startswith("val")}
    tarred(root / "ILSVRC2012_bbox_val_v3.tgz", val)
    (root / "train.tmp").mkdir()
    for wnid in (TENCH, CAT):  # a tar of tars, as ImageNet's own archive of boxes
        own = {f"Annotation/{wnid}/{k.rsplit('/', 1)[1]}": v for k, v in train.items() if wnid in k}
        tarred(root / "train.tmp" / f"{wnid}.tar.gz", own)
    inner = {path.name: path.read_bytes() for path in (root / "train.tmp").iterdir()}
    tarred(root / "ILSVRC2012_bbox_train_v2.tar", inner, "w")
    for path in [*(root / "train.tmp").iterdir()]:
        path.unlink()
    (root / "train.tmp").rmdir()


@pytest.mark.quick
@pytest.mark.parametrize("lay", [in_a_tree, beside_the_splits, all_in_one_folder, as_the_kits_tars])
def test_boxes_of_every_layout_are_the_same(root, tmp_path, lay):
    lay(root)
    for _ in range(2):  # the second time from the index that is kept
        dataset = opened(root, tmp_path)
        assert assert_expected(dataset, "train") == 4
        assert assert_expected(dataset, "validation") == 1
        assert all("no images of 99" in note for note in dataset.notes)  # and none "not used"
    assert len(list((tmp_path / "cache").glob("boxes-*.npz"))) in (1, 2)


def test_boxes_go_with_their_image_into_what_is_held_out(root, tmp_path):
    in_a_tree(root)
    plain = opened(root, tmp_path).splits["train"]
    (root / "val").rename(root.parent.parent / "val")
    dataset = opened(root, tmp_path, validation_examples=3)
    assert assert_expected(dataset, "train") + assert_expected(dataset, "validation") == 4
    bare = root.parent.parent / "Annotations"
    bare.rename(tmp_path / "gone")
    assert opened(root, tmp_path, validation_examples=3).splits["train"].boxes is None
    assert opened(root, tmp_path, validation_examples=3).fingerprint == dataset.fingerprint
    assert plain.boxes is not None


def test_the_index_follows_the_files(root, tmp_path):
    in_a_tree(root)
    assert_expected(opened(root, tmp_path), "train")
    folder = root.parent.parent / "Annotations" / "CLS-LOC" / "train" / CAT
    (folder / f"{CAT}_2.xml").write_text(xml((CAT, 0, 0, 20, 10)))
    os.utime(folder, (1_600_000_000, 1_600_000_000))
    more = EXPECTED | {f"{CAT}_2": ([[0, 0, 0.1, 0.1]], [284])}
    assert assert_expected(opened(root, tmp_path), "train", more) == 5


@pytest.mark.parametrize(
    "corners, expected",
    [
        ((20, 10, 100, 60), [0.1, 0.1, 0.5, 0.6]),
        ((100, 60, 20, 10), [0.1, 0.1, 0.5, 0.6]),  # the wrong way round
        ((-20, -1, 250, 101), [0, 0, 1, 1]),  # beyond every edge
        ((150, 50, 350, 75), [0.75, 0.5, 1, 0.75]),
        ((201, 0, 300, 50), None),  # outside
        ((0, 0, 50, 0), None),
    ],
)
def test_corners_as_files_have_them(corners, expected):
    found = normalized(corners, 200, 100)
    assert found == expected if expected is None else found == pytest.approx(expected)


def test_dogs_that_are_named_in_words_and_files_of_no_use(root, tmp_path, capsys):
    folder = root / "Annotations" / "train"
    folder.mkdir(parents=True)
    (folder / f"{CAT}_0.xml").write_text(xml(("Scottish_deerhound", 0, 0, 200, 100)))
    (folder / f"{CAT}_1.xml").write_text(xml((CAT, 0, 0, 9, 9), size=(0, 0)))
    (folder / f"{CAT}_2.xml").write_text("<annotation>")
    (folder / f"{TENCH}_0.xml").write_text(xml((TENCH, 1, 1, "x", 9)))
    (folder / f"{TENCH}_1.xml").write_text(xml((TENCH, 300, 1, 400, 9)))
    (folder / f"{CAT}_3.xml").write_text(xml((CAT, 1, 1, 2, 2), size=("1e400", 9)))
    (folder / f"{CAT}_4.xml").write_text('<?xml version="1.0" encoding="x"?><a/>')
    (folder / ".DS_Store").write_text("")
    (folder / "._a.xml").write_text("")
    dataset = opened(root, tmp_path)
    index = dataset.class_names.index("n02092002")
    found = {f"{CAT}_0": ([[0, 0, 1, 1]], [index]), f"{TENCH}_1": (np.zeros((0, 4)), [])}
    for _ in range(2):  # the second time from the index that is kept
        assert assert_expected(dataset, "train", found) == 1
        err = capsys.readouterr().err
        assert "5 annotations are not used: " in err and "it does not say the size" in err
        assert "1 boxes lie outside of their image" in err and f"{TENCH}_1.xml (300 1 400 9)" in err
        dataset = opened(root, tmp_path)
    assert f"{TENCH}_0.xml (xmax is 'x', no number)" in err
    assert dataset.splits["validation"].boxes is None


@pytest.mark.parametrize("count", [1, 2])
def test_ones_own_classes_and_names_that_come_twice(tmp_path, count):
    """An image in a folder of another class is not meant."""
    root = write_images(tmp_path / "own", {f"{s}/{c}": 2 for s in ("train", "val") for c in "ab"})
    for number, name in enumerate("ab"[:count]):
        folder = root / "Annotations" / "train" / name
        folder.mkdir(parents=True)
        (folder / "1.xml").write_text(xml((name, 0, 0, 100 + 50 * number, 100)))
    train = opened(root, tmp_path, "folder").splits["train"]
    boxes = [train.boxes(index) for index in range(4)]
    assert [of.labels.tolist() for of in boxes] == [[], [0], [], [1] * (count - 1)]
    assert [of.edges[:, 2].tolist() for of in boxes] == [[], [0.5], [], [0.75] * (count - 1)]


def coco(*images, categories=("a", "b")):
    """COCO's JSON; of each image its path and the category and the bbox of each object."""
    of = {name: number for number, name in enumerate(categories, 1)}
    return json.dumps(
        {
            "categories": [{"id": number, "name": name} for name, number in of.items()],
            "images": [
                {"id": 10 + n, "file_name": name, "width": 200, "height": 100}
                for n, (name, *_) in enumerate(images)
            ],
            "annotations": [
                {"image_id": 10 + n, "category_id": of[category], "bbox": bbox}
                for n, (_, *objects) in enumerate(images)
                for category, *bbox in objects
            ],
        }
    )


@pytest.mark.parametrize("place", ["annotations/instances_{}2017.json", "{}.coco.json"])
def test_cocos_files(place, tmp_path, capsys):
    """A box of width 20 from 10 on has its last pixel at 29."""
    root = write_images(tmp_path / "own", {f"{s}/{c}": 2 for s in ("train", "val") for c in "ab"})
    for split, name in (("train", "a/1.jpg"), ("val", "b/0.jpg")):
        path = root / place.format(split)
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            coco((name, ("a", 10, 20, 20, 50), ("dog", 0, 0, 9, 9)), categories=("a", "b", "dog"))
        )
    dataset = opened(root, tmp_path, "folder")
    assert not dataset.notes
    for split, index in (("train", 1), ("validation", 2)):
        boxes = [dataset.splits[split].boxes(row) for row in range(4)]
        assert [len(of.edges) for of in boxes] == [2 * (row == index) for row in range(4)]
        np.testing.assert_array_equal(boxes[index].corners, [[10, 20, 29, 69], [0, 0, 8, 8]])
        assert boxes[index].labels.tolist() == [0, -1] and boxes[index].shown == (200, 100)
    assert "1 objects are called as none of the classes is (dog in" in capsys.readouterr().err
    assert path.name in dataset.splits["validation"].boxes_from


@pytest.mark.parametrize(
    "content, said",
    [
        ("{", "instances.json: no JSON (Expecting"),
        ('{"images": []}', "instances.json: no annotations of COCO: no 'categories'"),
        ("[]", "instances.json: no annotations of COCO"),
    ],
)
def test_a_file_that_is_not_cocos_is_named(content, said, tmp_path):
    root = write_images(tmp_path / "own", {"train/a": 2, "train/b": 2})
    (root / "instances.json").write_text(content)
    train = opened(root, tmp_path, "folder").splits["train"]
    with pytest.raises(DataError, match=re.escape(said)):
        train.boxes(0)


def test_cocos_images_without_a_size_are_named(tmp_path, capsys):
    root = write_images(tmp_path / "own", {"train/a": 2, "train/b": 2})
    broken = coco(("a/0.jpg", ("a", 1, 1, 5, 5)), ("b/1.jpg", ("b", 1, 1, 5)))
    (root / "annotations_train.json").write_text(broken.replace('"width": 200', '"width": 0', 1))
    train = opened(root, tmp_path, "folder").splits["train"]
    assert not any(len(train.boxes(row).edges) for row in range(train.count))
    err = capsys.readouterr().err
    assert "2 annotations are not used: a/0.jpg (it does not say the size of the image)" in err
    assert "b/1.jpg" in err


def right_edges(root, tmp_path):
    """Of every image that has boxes, by the end of its path: their right edges."""
    found = {}
    for examples in opened(root, tmp_path, "folder", validation_examples=1).splits.values():
        for row in range(examples.count):
            edges = examples.boxes(row).edges
            if len(edges):
                found["/".join(examples.name(row).split("/")[-3:])] = edges[:, 2].tolist()
    return found


@pytest.mark.parametrize("wrapper", ["Annotations", "Annotations/pictures of mine"])
def test_annotations_in_folders_inside_class_folders(tmp_path, wrapper):
    """The whole path tells; also where all lie in a folder of another name."""
    root = write_images(tmp_path / "own", {"cat/a": 2, "dog/a": 2})
    for name, right in (("cat", 100), ("dog", 50)):
        (root / wrapper / name / "a").mkdir(parents=True)
        (root / wrapper / name / "a" / "1.xml").write_text(xml((name, 0, 0, right, 100)))
    assert right_edges(root, tmp_path) == {"cat/a/1.jpg": [0.5], "dog/a/1.jpg": [0.25]}
    (root / wrapper / "dog" / "a" / "1.xml").unlink()
    assert right_edges(root, tmp_path) == {"cat/a/1.jpg": [0.5]}


@pytest.mark.parametrize(
    "place", ["instances.json", "annotations/instances.json", "Annotations/_annotations.coco.json",
              "annotations/cat/1.xml"]
)  # fmt: skip
def test_annotations_beside_class_folders(tmp_path, place):
    """They are no class, and no file that is not used."""
    root = write_images(tmp_path / "own", {"cat": 2, "dog": 1})
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    text = xml(("cat", 0, 0, 100, 100))
    if place.endswith("json"):
        text = coco(("cat/1.jpg", ("cat", 0, 0, 101, 100)), categories=("cat", "dog"))
    (root / place).write_text(text)
    assert right_edges(root, tmp_path) == {"own/cat/1.jpg": [0.5]}
    dataset = opened(root, tmp_path, "folder")
    assert dataset.class_names == ("cat", "dog") and not dataset.notes


def test_annotations_that_are_linked(tmp_path):
    """The folders of splits, and one that holds itself."""
    root = write_images(tmp_path / "own", {f"{s}/{c}": 2 for s in ("train", "test") for c in "ab"})
    (root / "Annotations").mkdir()
    for split in ("train", "test"):
        elsewhere = tmp_path / "boxes" / split / "a"
        elsewhere.mkdir(parents=True)
        (elsewhere / "again").symlink_to(elsewhere)
        (elsewhere / "1.xml").write_text(xml(("a", 0, 0, 100, 100)))
        (root / "Annotations" / split).symlink_to(elsewhere.parent)
    assert right_edges(root, tmp_path) == {"train/a/1.jpg": [0.5], "test/a/1.jpg": [0.5]}


def test_annotations_in_the_folder_of_a_split(tmp_path):
    """They are not used, and so it is said; they are where that folder is all."""
    root = write_images(tmp_path / "own", {"train/cat": 2, "train/dog": 1})
    (root / "train" / "instances.json").write_text(coco(categories=("cat", "dog")))
    note = f"{root / 'train'}: not used: 1 *.json (instances.json)"
    for folder in (root / "train", root, root / "train"):
        dataset = opened(folder, tmp_path, "folder")
        assert dataset.notes == (note,) * (folder == root)
        assert (dataset.splits["train"].boxes is None) == (folder == root)
    long_ago = 1_600_000_000
    for folder in (root, *root.glob("**/")):
        os.utime(folder, (long_ago, long_ago))
    for folder in (root / "train", root, root / "train"):  # from the list that is kept
        assert opened(folder, tmp_path, "folder").notes == (note,) * (folder == root)


def test_an_annotation_of_two_images_is_of_none(tmp_path, capsys):
    root = write_images(tmp_path / "own", {"cat": 2, "dog": 1})
    (root / "Annotations").mkdir()
    for number in range(2):
        (root / "Annotations" / f"{number}.xml").write_text(xml(("cat", 0, 0, 100, 100)))
    assert right_edges(root, tmp_path) == {"own/cat/1.jpg": [0.5]}
    said = "1 annotations are not used: each may be of several images (0)"
    assert said in capsys.readouterr().err


def test_directories_with_images_of_the_same_names(tmp_path):
    roots = [write_images(tmp_path / name, {"cat": 1, "dog": 2}) for name in ("one", "two")]
    for number, root in enumerate(roots):
        (root / "Annotations" / "cat").mkdir(parents=True)
        right = 100 - 50 * number
        (root / "Annotations" / "cat" / "0.xml").write_text(xml(("cat", 0, 0, right, 100)))
    found = right_edges(",".join(map(str, roots)), tmp_path)
    assert found == {"one/cat/0.jpg": [0.5], "two/cat/0.jpg": [0.25]}


def test_an_annotation_that_is_edited_is_read_anew(tmp_path):
    root = write_images(tmp_path / "own", {"cat": 1, "dog": 1})
    file = root / "Annotations" / "cat" / "0.xml"
    file.parent.mkdir(parents=True)
    for right in (100, 50):
        file.write_text(xml(("cat", 0, 0, right, 100)))
        os.utime(file, (1_600_000_000 + right,) * 2)
        assert right_edges(root, tmp_path) == {"own/cat/0.jpg": [right / 200]}
    assert len(list((tmp_path / "cache").glob("boxes-*"))) == 1


def test_classes_without_a_folder_of_their_split(tmp_path):
    root = write_images(tmp_path / "own", {"a": 2, "b": 2})
    folder = root / "Annotations" / "b"
    folder.mkdir(parents=True)
    (folder / "0.xml").write_text(xml(("b", 0, 0, 100, 100)))
    dataset = opened(root, tmp_path, "folder", validation_examples=1)
    assert dataset.class_names == ("a", "b")
    found = [
        examples.name(row)
        for examples in dataset.splits.values()
        for row in range(examples.count)
        if len(examples.boxes(row).edges)
    ]
    assert found == [f"{root}/b/0.jpg"]
    (root / "Annotations").rename(root / "b" / "Annotations")  # inside a class: nothing to do
    write_images(root, {"Annotations": 3, "annotations": 2})
    (root / "annotations" / "_annotations.coco.json").write_text(coco())
    classes = ("Annotations", "a", "annotations", "b")
    assert opened(root, tmp_path, "folder").class_names == classes


@pytest.mark.parametrize("where", ["start", "half", "between", "end"])
@pytest.mark.parametrize("name, mode", [("bbox_val.tgz", "w:gz"), ("bbox_val.tar", "w")])
def test_a_tar_that_breaks_off_is_named(root, tmp_path, name, mode, where):
    drawn = [(CAT, n, n, n + 9, 2 * n) for n in range(40)]
    files = {f"{n:03d}.xml": xml(*drawn[n:]) for n in range(40)}
    content = tarred(root / name, files, mode).read_bytes()
    first = len(content) // 3 if mode == "w:gz" else 512 + -(-len(files["000.xml"]) // 512) * 512
    cut = {"start": 100, "half": len(content) // 2, "between": first, "end": -9}[where]
    if where == "end" and mode == "w":
        cut = content.rindex(b"</annotation>")
    (root / name).write_bytes(content[:cut])
    val = opened(root, tmp_path).splits["validation"]
    with pytest.raises(DataError, match=rf"{name}: damaged or cut short .*; download it again"):
        val.boxes(0)


@pytest.mark.parametrize("mark", range(1, 9))
def test_boxes_and_pixels_agree_whatever_the_orientation_mark(mark):
    """A white rectangle in a black image, marked as cameras do; its box is where it is read."""
    stored = np.zeros((100, 200, 3), np.uint8)
    stored[10:60, 20:100] = 255
    exif = Image.Exif()
    exif[0x0112] = mark
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "PNG", exif=exif)
    pixels = decode.pixels(file.getvalue())
    edges = np.array([[20 / 200, 10 / 100, 100 / 200, 60 / 100]], np.float32)
    boxes = as_read(Boxes(edges, np.array([3], np.int32), (400, 200)), file.getvalue())
    height, width = pixels.shape[:2]
    left, top, right, bottom = np.rint(boxes.edges[0] * (width, height, width, height)).astype(int)
    inside = np.zeros((height, width), bool)
    inside[top:bottom, left:right] = True
    np.testing.assert_array_equal(pixels[..., 0] > 127, inside)
    assert boxes.labels.tolist() == [3]
    assert (boxes.shown[0] > boxes.shown[1]) == (width > height)
    if mark >= 5:  # an annotator who saw it upright
        upright = Boxes(boxes.edges, boxes.labels, boxes.shown)
        assert as_read(upright, file.getvalue()) is upright
    assert as_read(NONE, b"no image") is NONE
    assert as_read(boxes, pixels) is boxes


def test_nothing_is_found_where_nothing_is(tmp_path):
    root = write_images(tmp_path / "own", {"a": 1, "b": 1})
    assert annotations.beside(root) == {}
    assert annotations.beside(root / "list.csv") == {}
