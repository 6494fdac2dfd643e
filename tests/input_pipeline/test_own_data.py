"""Classes of one's own as lists of files, and in several places at once."""

import json
import os
import shutil

import numpy as np
import pytest

from input_pipeline import REPORTED, DataError, open_dataset
from input_pipeline.datasets import own_lists
from tests.conftest import write_images

CLASSES = {"train/zebra": 3, "train/ant": 4, "train/10": 2, "val/ant": 2, "val/zebra": 1}


def opened(directory, tmp_path, **options):
    return open_dataset("folder", str(directory), cache_dir=tmp_path / "cache", **options)


def content(examples):
    return [examples.read(index) for index in range(examples.count)]


@pytest.fixture
def tree(tmp_path):
    return write_images(tmp_path / "tree", CLASSES)


def entries(tree, split=""):
    """Of every image of a split: path below `tree`, label, split."""
    return [
        (str(path.relative_to(tree)), path.parent.name, path.parent.parent.name)
        for path in sorted(tree.glob(f"{split}*/*/*.jpg"), key=lambda path: path.stem)
    ]


def csv(rows, header="path,label"):
    return "\n".join([header, *(",".join(row) for row in rows)]) + "\n"


def as_csv_with_splits(tree):
    (tree / "all.csv").write_text("\ufeff" + csv(entries(tree), "path,label,split"), "utf-8")
    return tree / "all.csv"


def as_jsonl_with_splits(tree):
    lines = [
        {"split": {"train": "Training", "val": "dev"}[split], "label": label, "path": path}
        for path, label, split in entries(tree)
    ]
    (tree / "all.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tree / "all.jsonl"


def as_a_list_each(tree):
    """Without a line of names, in another directory, and paths that are not the shortest."""
    lists = tree.parent / "lists"
    lists.mkdir()
    for split in ("train", "val"):
        rows = [(f"./../tree/{path}", label) for path, label, _ in entries(tree, split)]
        (lists / f"{split}.CSV").write_text(csv(rows).partition("\n")[2].replace("\n", "\r\n"))
    return lists


@pytest.mark.quick
@pytest.mark.parametrize("written", [as_csv_with_splits, as_jsonl_with_splits, as_a_list_each])
def test_a_list_is_the_tree_that_it_lists(tree, tmp_path, written):
    expected = opened(tree, tmp_path)
    dataset = opened(written(tree), tmp_path)
    assert dataset.class_names == expected.class_names == ("10", "ant", "zebra")
    assert dataset.splits.keys() == expected.splits.keys() == {"train", "validation"}
    for split, examples in dataset.splits.items():
        assert content(examples) == content(expected.splits[split])
        np.testing.assert_array_equal(examples.labels(), [label for _, label in content(examples)])
    assert not dataset.notes and "lists no image" in dataset.absent["test"]


def test_a_list_alone_is_for_training_and_moves_with_its_images(tree, tmp_path):
    rows = [(path, "Ünlabelled, or not" if label == "10" else label)
            for path, label, _ in entries(tree)]  # fmt: skip
    lines = [json.dumps({"path": path, "label": label}) for path, label in rows]
    (tree / "own.jsonl").write_text("\n".join([*lines, "", lines[0]]))
    before = opened(tree / "own.jsonl", tmp_path)
    assert {k: v.count for k, v in before.splits.items()} == {"train": 11, "validation": 1}
    assert before.class_names == ("ant", "zebra", "Ünlabelled, or not")
    assert before.notes == (f"{tree}/own.jsonl: 1 lines that stand twice count once",)
    moved = shutil.move(tree, tmp_path / "elsewhere") / "own.jsonl"
    assert opened(moved, tmp_path).fingerprint == before.fingerprint
    moved.write_text(moved.read_text().replace('zebra"', 'bear"'))
    assert opened(moved, tmp_path).fingerprint != before.fingerprint


def test_what_a_list_says_is_kept_until_it_or_a_folder_changes(tree, tmp_path, monkeypatch):
    file = as_csv_with_splits(tree)
    for folder in tree.glob("**/"):
        os.utime(folder, (1_600_000_000, 1_600_000_000))
    before = opened(file, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(own_lists, "_read", None)  # reading it anew would fail
        patch.setattr(own_lists, "of_each", None)  # and asking for the files
        again = opened(file, tmp_path)
    assert again.fingerprint == before.fingerprint and again.class_names == before.class_names
    assert content(again.splits["train"]) == content(before.splits["train"])
    (tree / "train" / "ant" / "3.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 9 paths are no files: train/ant/3.jpg \(line 13\)"):
        opened(file, tmp_path)
    file.write_text(file.read_text("utf-8").replace("train/ant/3.jpg,ant,train", ""), "utf-8")
    assert opened(file, tmp_path).splits["train"].count == 8


def test_numbers_absolute_paths_and_links(tree, tmp_path):
    (tmp_path / "link.JPG").symlink_to(tree / "train" / "ant" / "0.jpg")
    rows = [
        (str(tree / "train" / "zebra" / "1.jpg"), 10),
        ("link.JPG", 9),
        ("tree/val/ant/1.jpg", 9),
    ]
    file = tmp_path / "list.jsonl"
    file.write_text("\n".join(json.dumps({"path": p, "label": n}) for p, n in rows))
    dataset = opened(file, tmp_path)
    assert dataset.class_names == ("10", "9")
    assert dataset.splits["train"].count + dataset.splits["validation"].count == 3


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.csv", "path,label\nx.jpg,a\ny/z.jpg,b\n\nw.jpg,b\n",
         r"a.csv: 3 of 3 paths are no files: x.jpg \(line 2\), y/z.jpg \(line 3\), w.jpg "
         r"\(line 5\). Paths are relative to .*/; mend or remove these lines"),
        ("a.csv", "", r"a.csv: lists no images; a CSV begins with the line path,label"),
        ("a.csv", "path,label\n", r"a.csv: lists no images"),
        ("a.csv", "file,class\nx.jpg,a\n",
         r"a.csv: line 1: columns file, class: none is called path or label \(a CSV begins"),
        ("a.csv", "path;label\nx.jpg;a\n", r"line 1: columns path;label: parted by semicolons"),
        ("a.jsonl", '{"path": "x.jpg", "label": 1.0}', r"line 1: label 1.0 is neither text nor a"),
        ("a.jsonl", '{"path": "x.jpg", "label": "\\ud800"}', r"line 1: half a letter in 'x.jpg', "),
        ("a.jsonl", '{"path": "\\ud800.jpg", "label": "a"}', r"line 1: half a letter in '.ud800"),
        ("a.csv", "path,label\nx.jpg\n", r"a.csv: line 2: 1 cells, and 2 columns"),
        ("a.csv", "path,label\nx.jpg,\n", r"a.csv: line 2: no path, or no label"),
        ("a.csv", 'path,label\n"x.jpg,a\n', r"a.csv: line 2: unexpected end of data"),
        ("a.csv", "path,label,split\nx.jpg,a,holdout\n", r"line 2: split 'holdout' is none of"),
        ("a.csv", "path,label\nx.jpg,a\nx.jpg,b\n",
         r"line 3: x.jpg is 'b' in train, and 'a' in train by line 2 of a.csv"),
        ("a.csv", "path,label,split\nx.jpg,a,train\n./x.jpg,a,val\n",
         r"line 3: x.jpg is 'a' in validation, and 'a' in train by line 2"),
        ("a.csv", "path,label\nx.jpg,a\n", r"1 classes, at least two are needed"),
        ("a.csv", "path,label\nx.jpg,caf\xe9\n", r"a.csv: line 2: no UTF-8"),
        ("a.jsonl", '{"path": "x.jpg", "label": "a"}\n{"path"\n', r"a.jsonl: line 2: no JSON"),
        ("a.jsonl", '["x.jpg", "a"]\n', r"a.jsonl: line 1: no JSON object"),
        ("a.jsonl", '{"file": "x.jpg", "label": "a"}\n', r"line 1: no path, or no label"),
        ("a.txt", "x.jpg 1\n", r"a.txt: a file, not a directory, and no list of images \(\*.csv"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_list_is_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, "latin-1")
    with pytest.raises(DataError, match=message):
        opened(tmp_path / name, tmp_path)


def test_a_list_of_test_images_without_labels(tree, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    rows = [(f"../tree/{path}", label) for path, label, _ in entries(tree, "train")]
    (lists / "train.csv").write_text(csv(rows))
    paths = [f"../tree/val/{name}.jpg" for name in ("zebra/0", "ant/1", "ant/0", "ant/1")]
    forms = {
        "test.csv": "path\n" + "\n".join(paths),
        "test.jsonl": "\n".join(json.dumps({"path": path}) for path in paths),
    }
    for name, text in forms.items():
        (lists / name).write_text(text)
        dataset = opened(lists, tmp_path)
        assert dataset.splits.keys() == {"train", "validation"}
        assert f"{lists / name} has no labels. It is not used" in dataset.notes
        test = opened(lists, tmp_path, only="test").splits["test"]
        expected = [tree / "val" / f"{name}.jpg" for name in ("ant/0", "ant/1", "zebra/0")]
        assert content(test) == [(path.read_bytes(), -1) for path in expected]
        assert test.labels().tolist() == [-1] * 3
        (lists / name).unlink()
    (lists / "train.csv").rename(lists / "val.csv")
    (lists / "train.csv").write_text(forms["test.csv"])
    with pytest.raises(DataError, match=r"train.csv: line 1: columns path: none is called label"):
        opened(lists, tmp_path)
    (lists / "train.csv").rename(lists / "test.csv")
    with open(lists / "test.csv", "a") as file:
        file.write("\nx.jpg,a\n")
    with pytest.raises(DataError, match=r"test.csv: line 6: 2 cells, and 1 columns"):
        opened(lists, tmp_path)


def test_a_class_that_is_not_trained_is_named(tree, tmp_path):
    rows = entries(tree)
    rows[-1] = (rows[-1][0], "owl", "val")
    (tree / "all.csv").write_text(csv(rows, "path,label,split"))
    with pytest.raises(
        DataError, match=r"all.csv: line 13: 'owl' is not one of the 3 classes \(10, ant, zebra\)"
    ):
        opened(tree / "all.csv", tmp_path)


def test_lists_beside_folders(tree, tmp_path):
    (tree / "train.csv").write_text("path,label\nx.jpg,a\n")
    assert opened(tree, tmp_path).notes == (f"{tree}: not used: train.csv",)
    lists = tmp_path / "lists"
    (lists / "images").mkdir(parents=True)
    (lists / "labels.csv").write_text("")
    with pytest.raises(DataError, match=r"Is it --config.data.dir=.*lists/labels.csv\?"):
        opened(lists, tmp_path)
    for name in ("val.csv", "valid.jsonl"):
        (lists / name).write_text("")
    with pytest.raises(DataError, match=r"val.csv and valid.jsonl are both the validation split"):
        opened(lists, tmp_path)


def test_several_places_are_one_training_set(tree, tmp_path):
    more = write_images(tmp_path / "more, of them", {"ant": 2, "bear": 3}, seed=1)
    (tmp_path / "third.csv").write_text(csv([("tree/val/zebra/0.jpg", "owl")]))
    places = [tree, more, tmp_path / "third.csv"]
    with pytest.raises(DataError, match="there is no such directory"):  # the comma in a name
        opened(",".join(map(str, places)), tmp_path)
    places[1] = more.rename(tmp_path / "more")
    dataset = opened(",".join(map(str, places)), tmp_path)
    assert dataset.class_names == ("10", "ant", "bear", "owl", "zebra")
    train = dataset.splits["train"]
    kept = dict(enumerate(dataset.class_names))
    read = [(data, kept[label]) for data, label in content(train)]
    alone = opened(tree, tmp_path)
    expected = [(data, alone.class_names[label]) for data, label in content(alone.splits["train"])]
    assert read[: len(expected)] == expected
    assert [name for _, name in read[9:]] == ["ant"] * 2 + ["bear"] * 3 + ["owl"]
    assert train.name(9) == f"{tmp_path}/more/ant/0.jpg"
    np.testing.assert_array_equal(train.labels(), [label for _, label in content(train)])
    assert dataset.splits["validation"].count == 3
    assert dataset.fingerprint not in (alone.fingerprint, opened(places[1], tmp_path).fingerprint)
    other = opened(",".join(map(str, reversed(places))), tmp_path)
    assert other.class_names == dataset.class_names and other.fingerprint != dataset.fingerprint
    evaluated = opened(
        ",".join(map(str, places)), tmp_path, only=REPORTED, class_names=("zebra", "owl", *"xy")
    )
    assert evaluated.splits["validation"].count == 3


def test_test_images_without_labels_in_several_places(tree, tmp_path):
    more = write_images(tmp_path / "more", {"train/ant": 2, "train/10": 1, "test": 2}, seed=1)
    write_images(tree, {"test/all": 3}, seed=2)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.csv").write_text(csv([("../tree/train/ant/0.jpg", "ant")]))
    (tmp_path / "lists" / "test.csv").write_text("path\n../tree/val/zebra/0.jpg")
    places = ",".join(map(str, (more, tmp_path / "lists", tree)))
    dataset = opened(places, tmp_path)
    assert "test" not in dataset.splits
    said = [
        f"{more}/test (2 files) has no labels: no folder of a class",
        f"{tmp_path}/lists/test.csv has no labels",
        f"{tree}/test (3 files) has no labels: no folder of a class",
    ]
    assert dataset.absent["test"] == "; ".join(said)
    assert [note for note in dataset.notes if "labels" in note] == [
        f"{why}. It is not used" for why in said
    ]
    paths = [*sorted((more / "test").iterdir()), tree / "val" / "zebra" / "0.jpg"]
    paths += sorted((tree / "test" / "all").iterdir())
    test = opened(places, tmp_path, only="test").splits["test"]
    assert content(test) == [(path.read_bytes(), -1) for path in paths]
    # Where one place has labels, the split is that place's images.
    (more / "test").rename(more / "ant")
    (more / "test").mkdir()
    (more / "ant").rename(more / "test" / "ant")
    assert opened(places, tmp_path).splits["test"].count == 2


def test_what_is_wrong_with_several_places_is_named(tree, tmp_path):
    (tmp_path / "again").symlink_to(tree)
    for places, message in [
        (f"{tree},{tmp_path / 'again'}", r"again is named twice|tree is named twice"),
        (f"{tree},/nowhere", r"data.dir=/nowhere: there is no such directory"),
    ]:
        with pytest.raises(DataError, match=message):
            opened(places, tmp_path)
    many = ",".join([str(tree), *(f"/nowhere/{n}" for n in range(500))])  # no path is so long
    with pytest.raises(DataError, match=r"data.dir=/nowhere/0: there is no such directory"):
        opened(many, tmp_path)
    with pytest.raises(DataError, match=r"2 directories; several are for classes of your own"):
        open_dataset("imagenet2012", f"{tree},{tree}", cache_dir=tmp_path / "cache")


def test_a_link_to_nowhere_is_named(tree, tmp_path):
    (tree / "train" / "ant" / "x.jpg").symlink_to("/nowhere")
    with pytest.raises(DataError, match=r"train/ant/x.jpg: a link to nowhere"):
        opened(tree, tmp_path)


def test_folders_links_and_suffixes_as_people_have_them(tmp_path):
    """Nested folders, links to files, folders and back, upper case, what systems leave behind."""
    root = write_images(tmp_path / "d", {"cat": 2, "cat/2024/june": 2, "dog/__MACOSX": 1})
    store = write_images(tmp_path / "store", {"dogs": 3, "more": 1})
    (root / "cat" / "9.JPG").symlink_to(store / "more" / "0.jpg")
    shutil.copy(store / "more" / "0.jpg", root / "dog" / "0.JPEG")
    (root / "dog" / "linked").symlink_to(store / "dogs")
    (root / "dog" / "back").symlink_to(root / "dog")
    (root / "owl").symlink_to(store / "dogs")
    for name in (".DS_Store", "Thumbs.db", "._0.JPEG"):
        (root / "dog" / name).write_bytes(b"\0")
    long_ago = 1_600_000_000
    for folder in [root, *root.glob("**/"), *store.glob("**/")]:
        os.utime(folder, (long_ago, long_ago))
    for again in (False, True):
        dataset = opened(root, tmp_path, validation_examples=1)
        assert bool(again) == bool(again and list((tmp_path / "cache").glob("images-*")))
        train, held = dataset.splits["train"], dataset.splits["validation"]
        paths = {e.name(i).removeprefix(f"{root}/") for e in (train, held) for i in range(e.count)}
        assert paths == {
            "cat/0.jpg", "cat/1.jpg", "cat/2024/june/0.jpg", "cat/2024/june/1.jpg", "cat/9.JPG",
            "dog/0.JPEG", *(f"dog/linked/{n}.jpg" for n in range(3)),
            *(f"owl/{n}.jpg" for n in range(3)),
        }  # fmt: skip
        assert dataset.class_names == ("cat", "dog", "owl") and train.ignored == 4
        assert dataset.notes == (
            f"{root}: not used: 1 link to a folder that holds it (dog/back)",
            f"{root}: 5 images lie in folders inside class folders (cat/2024/june/0.jpg) and are "
            "of these classes",
        )
    # A new image deep inside is noticed.
    shutil.copy(store / "more" / "0.jpg", root / "cat" / "2024" / "june" / "new.jpg")
    assert opened(root, tmp_path, validation_examples=1).splits["train"].count == 12


@pytest.mark.parametrize(
    "counts, moves, alone",
    [
        (
            {"seg_train/a": 2, "seg_train/b": 2, "seg_test/a": 1, "seg_test/b": 1, "seg_pred": 3},
            "seg_train to train, seg_test to test",
            "seg_train",
        ),
        (
            {f"seg_{s}/seg_{s}/{c}": 1 for s in ("train", "test") for c in "ab"}
            | {"seg_pred/seg_pred": 2},
            "seg_train/seg_train to train, seg_test/seg_test to test",
            "seg_train/seg_train",
        ),
        (
            {"TrainImages/a": 2, "TrainImages/b": 2, "val2017/a": 1, "testset_1": 3},
            "TrainImages to train, val2017 to validation, testset_1 to test",
            "TrainImages",
        ),
    ],
)
def test_folders_called_like_splits_are_no_classes(tmp_path, counts, moves, alone):
    root = write_images(tmp_path / "d", counts)
    (root / ".cache").mkdir()
    with pytest.raises(DataError) as raised:
        opened(root, tmp_path)
    said = str(raised.value)
    assert f"{root}: " in said and ", ".join(sorted({n.split("/")[0] for n in counts})) in said
    assert f"Move (or link) {moves}; or" in said
    assert said.endswith(f"--config.data.dir={root / alone}")
    for move in moves.split(", "):
        source, split = move.split(" to ")
        (root / split).symlink_to(source)
    dataset = opened(root, tmp_path)  # links will do
    assert dataset.class_names == ("a", "b") and "train" in dataset.splits
    assert opened(root / alone, tmp_path).class_names == ("a", "b")


def test_splits_without_classes_are_no_classes(tmp_path):
    """COCO as it is unpacked."""
    root = write_images(tmp_path / "coco", {"train2017": 2, "val2017": 1})
    with pytest.raises(DataError, match="train2017, val2017 are called as splits are and hold no"):
        opened(root, tmp_path)


@pytest.mark.parametrize(
    "counts, noted",
    [
        # Words that begin or end as those of splits, and folders in which all are alike.
        ({f"{c}/{d}": 1 for c in ("trains", "valleys", "contest") for d in "ab"}, ""),
        ({f"{c}/{d}": 1 for c in ("bullet_train", "freight train") for d in "ab"}, ""),
        ({f"{c}/{d}": 1 for c in ("bullet_train", "test_tube", "cat") for d in "ab"},
         "bullet_train, test_tube taken for classes"),
        ({"bullet train": 2, "test tube": 2}, "bullet train, test tube taken for classes"),
        ({"bullet train/old": 2, "test tube": 2}, "bullet train, test tube taken for classes"),
    ],
)  # fmt: skip
def test_classes_whose_names_sound_like_splits(tmp_path, counts, noted):
    dataset = opened(write_images(tmp_path / "d", counts), tmp_path)
    assert dataset.class_names == tuple(sorted({name.split("/")[0] for name in counts}))
    taken = [note for note in dataset.notes if "taken for classes, not for splits" in note]
    assert bool(taken) == bool(noted) and noted in "".join(taken)
