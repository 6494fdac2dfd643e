"""What --mode=describe_data says of directories as people have them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from input_pipeline import samples
from tests.conftest import write_images
from tests.input_pipeline import layout_files

DESCRIBE = "--mode=describe_data"


@pytest.fixture
def described(call, tmp_path):
    """Runs the mode on a directory: (exit code, lines by their first word, standard error)."""

    def run(directory, *arguments):
        code, out, err = call(
            DESCRIBE,
            f"--config.data.dir={directory}",
            f"--config.data.cache_dir={tmp_path / 'cache'}",
            f"--out={tmp_path / 'out'}",
            *arguments,
        )
        lines = [line for line in out.splitlines() if line]
        return code, {line.split(":")[0].split("  ")[0]: line for line in lines}, err

    return run


@pytest.mark.quick
def test_a_tree_of_ones_own(described, tmp_path):
    root = write_images(
        tmp_path / "own", {"train/ant": 5, "train/owl": 2, "train/bee": 3, "val/owl": 1}
    )
    for place in (root, root / "train", root / "train" / "ant"):
        (place / ".DS_Store").write_bytes(b"\0")
    (root / "train" / "ant" / "a.txt").write_text("")
    code, said, err = described(root)
    assert code == 0 and not err  # a note is said once, with the rest
    assert said["recognised"].endswith(
        "class folders: train/<class>/*, val/<class>/* (data.name=folder)"
    )
    assert said["labels"].endswith("the names of the class folders")
    assert said["classes"].split() == ["classes", "3:", "ant,", "bee,", "owl"]
    assert said["train"].split() == ["train", "10", "3", "2", "(owl)", "3", "5", "(ant)"]
    assert said["validation"].split() == ["validation", "1", "1", "1", "(owl)", "1", "1", "(owl)"]
    assert said["test"].endswith(f"none: {root} has no folder test/, testing/")
    assert said["ignored"].split()[1] == "3"
    assert said["note"].endswith("not used: 1 *.txt (ant/a.txt)")
    assert said["for training"] == "for training: nothing is missing"
    assert said["for evaluation"] == "for evaluation: nothing is missing"
    sheet = np.asarray(Image.open(tmp_path / "out" / "samples.png"))
    assert said["samples"].endswith("out/samples.png")
    # A line a class, five images at most: what is not white lies where images are.
    assert sheet.shape[1] == 5 * (samples._SIDE + 2) + 12
    rows = [6 + n * (samples._SIDE + samples._TEXT + 8) + samples._TEXT + 40 for n in range(3)]
    for row, images in zip(rows, (5, 3, 2), strict=True):
        middles = [6 + n * (samples._SIDE + 2) + samples._SIDE // 2 for n in range(5)]
        assert [(sheet[row, x] < 255).any() for x in middles] == [n < images for n in range(5)]


@pytest.mark.parametrize("images", [{"test/ant": 2, "test/owl": 1}, {"test": 3}])
def test_a_tree_with_test_images(described, tmp_path, images):
    """Also where they have no labels, it is not taken for ImageNet, whose have none."""
    root = write_images(tmp_path / "own", {"train/ant": 5, "train/owl": 2, "val/owl": 1} | images)
    code, said, err = described(root)
    assert code == 0 and not err
    assert said["recognised"].endswith("(data.name=folder)")
    assert said["classes"].split() == ["classes", "2:", "ant,", "owl"]
    assert said["train"].split()[1] == "7" and said["validation"].split()[1] == "1"
    if "test" in images:
        assert said["test"].endswith(
            f"none: {root}/test (3 files) has no labels: no folder of a class"
        )
        (root / "val" / "fox").mkdir()
        code, said, _ = described(root)
        assert code == 0 and said["train"].split()[1] == "7"
        assert "val/fox: 'fox' is not one of" in said["validation"]
        assert "has no labels" in said["test"]
    else:
        assert said["test"].split()[1:3] == ["3", "2"]


def test_what_save_to_disk_wrote(described, tmp_path):
    pytest.importorskip("pyarrow")
    layout_files.arrow(tmp_path / "hub", layout_files.photographs(8, 4))
    code, said, _ = described(tmp_path / "hub")
    assert code == 0 and "train: Arrow files of save_to_disk (2)" in said["recognised"]
    assert said["train"].split()[1] == "8" and said["validation"].split()[1] == "4"
    code, said, _ = described(tmp_path / "hub" / "train")
    assert code == 0 and said["train"].split()[1] == "8"


def test_imagenet_in_part_and_with_a_fault(described, imagenet_folder):
    write_images(imagenet_folder, {"test": 2})
    shutil.rmtree(imagenet_folder / "val" / "n15075141")
    code, said, _ = described(imagenet_folder)
    assert code == 0 and "(data.name=imagenet2012)" in said["recognised"]
    assert said["classes"].split()[1] == "1,000:"
    assert said["for training"].startswith("for training: 997 classes have no image in train: n014")
    assert said["for training"].endswith("--config.data.name=folder makes 3 classes)")
    (imagenet_folder / "val" / "cat").mkdir()
    code, said, _ = described(imagenet_folder)
    assert code == 0 and said["train"].split()[1] == "10"
    assert "the labels of ImageNet's test images are secret" in said["test"]
    assert "none: " in said["validation"] and "val/cat: no synset" in said["validation"]
    assert said["for training"].startswith("for training: no validation split; 997 classes")
    assert said["for evaluation"] == "for evaluation: no validation split"


def test_why_it_was_not_taken_for_imagenet(described, imagenet_folder):
    shutil.rmtree(imagenet_folder / "val")
    shutil.copytree(
        imagenet_folder / "train" / "n15075141", imagenet_folder / "train" / "n15075141_old"
    )
    code, said, _ = described(imagenet_folder)
    assert code == 0 and "(data.name=folder)" in said["recognised"]
    assert "not taken for ImageNet: " in said["note"]
    assert "n15075141_old: no synset" in said["note"]


def test_boxes_are_counted(described, imagenet_folder):
    assert (
        "for localization: no boxes (looked for Annotations/CLS-LOC/<split>/"
        in (described(imagenet_folder)[1]["for localization"])
    )
    place = imagenet_folder / "Annotations" / "train" / "n02123597"
    place.mkdir(parents=True)
    drawn = "<object><name>n02123597</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>"
    drawn = (drawn + "<ymax>9</ymax></bndbox></object>") * 2
    for number in (0, 2):
        size = "<size><width>20</width><height>30</height></size>"
        (place / f"{number}.xml").write_text(f"<annotation>{size}{drawn}</annotation>")
    said = described(imagenet_folder)[1]
    assert said["boxes"].endswith(f"train: 2 images have 4 boxes ({place.parent})")
    assert said["for localization"] == "for localization: no boxes for validation"


def test_the_same_with_a_config_and_its_choices(described, tmp_path):
    root = write_images(tmp_path / "own", {"ant": 10, "owl": 10})
    options = ["--config=configs/alexnet.py", "--config.data.name=folder"]
    (root / "Thumbs.db").write_bytes(b"\0")
    code, said, _ = described(root, *options, "--config.data.folds=4", "--config.data.fold=3")
    assert code == 0 and said["ignored"].split()[1] == "1"
    assert said["train"].split()[1] == "15" and said["validation"].split()[1] == "5"
    code, said, _ = described(root, *options, "--config.data.train_examples=6")
    assert said["train"].split()[1:] == ["6", "2", "3", "(ant)", "3", "3", "(ant)"]


def test_lists_prepared_images_and_tfds(described, call, tmp_path, shared_data):
    mnist = shared_data("tfds/mnist")
    root = write_images(tmp_path / "own", {"ant": 10, "owl": 10}, size=(30, 30))
    (root / "own.csv").write_text(
        "\n".join(f"{path.relative_to(root)},{path.parent.name}" for path in root.rglob("*.jpg"))
    )
    code, said, _ = described(root / "own.csv")
    assert code == 0 and "lists of files: own.csv (data.name=folder)" in said["recognised"]
    assert said["labels"].endswith("label in own.csv")
    code, _, _ = call(
        "--mode=prepare_data", "--config=configs/alexnet.py", "--config.data.name=folder",
        f"--config.data.dir={root / 'own.csv'}", f"--config.data.prepared_dir={tmp_path / 'p'}",
        "--config.data.resize=64", "--config.data.crop=64",
    )  # fmt: skip
    assert code == 0
    code, said, _ = described(tmp_path / "p")
    assert code == 0 and "prepared by --mode=prepare_data: 64 pixels, raw" in said["recognised"]
    assert said["train"].split()[1:3] == ["18", "2"]
    code, said, _ = described(mnist)
    assert code == 0 and "prepared by TFDS: mnist/3.0.1, tfrecord" in said["recognised"]
    assert said["test"].split()[1:5] == ["10,000", "10", "892", "(5)"]


def test_every_image_is_read_if_asked(described, tmp_path):
    root = write_images(tmp_path / "own", {"train/ant": 5, "train/owl": 5, "val/owl": 3})
    good = (root / "train" / "ant" / "1.jpg").read_bytes()
    (root / "train" / "ant" / "2.jpg").write_bytes(b"damaged")
    (root / "val" / "owl" / "0.jpg").write_bytes(good[: len(good) // 3])
    (root / "val" / "owl" / "1.jpg").write_bytes(good[:-2])
    assert described(root)[0] == 0
    code, said, err = described(root, "--verify")
    assert code == 1
    assert said["read"].endswith("validation: 3 images, 1 cannot be read")
    assert "train/ant/2.jpg: left out" in err
    lines = (tmp_path / "out" / "images.jsonl").read_text().splitlines()
    found = {(e["image"].removeprefix(f"{root}/"), e["what"]) for e in map(json.loads, lines)}
    assert found == {
        ("train/ant/2.jpg", "left out"),
        ("val/owl/0.jpg", "left out"),
        ("val/owl/1.jpg", "repaired"),
    }


def test_what_cannot_be_described_is_one_error(described, call, tmp_path, shared_data):
    tfds = shared_data("tfds", "cifar10", "mnist")
    (tmp_path / "one" / "train" / "cat").mkdir(parents=True)
    for arguments, message in [
        ([], "error: what is to be described? --config.data.dir=DIR"),
        ([f"--config.data.dir={tmp_path / 'no'}"], "no: there is no such directory\n"),
        ([f"--config.data.dir={tmp_path / 'one'}"], "1 class folders, at least two are needed"),
        ([f"--config.data.dir={tfds}"], "holds cifar10, mnist, as TFDS prepares"),
        ([f"--config.data.dir=/{'x' * 5000}"], "cannot be read (File name too long)"),
        ([f"--config.data.prepared_dir={tmp_path}"], "no prepared dataset there"),
        (["--config.data.dirr=/x"], "did you mean --config.data.dir?"),
        (["--config.data.folds=1"], "data.folds=1: 2 to 2147483647, whole"),
        (["--distributed"], "--mode=describe_data is for one process"),
    ]:
        code, out, err = call(DESCRIBE, f"--out={tmp_path / 'out'}", *arguments)
        assert (code, out) == (2, "") and message in err and err.count("\n") <= 2, err
    root = write_images(tmp_path / "own", {"ant": 2, "owl": 2})
    (tmp_path / "out").write_text("a file")
    code, _, err = described(root)
    assert code == 2 and "samples.png: cannot be written" in err
