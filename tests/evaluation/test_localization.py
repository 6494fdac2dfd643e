"""The official localization error, by hand and by counting pixels; submission files."""

import numpy as np
import pytest

from evaluation import EvaluationError, localization
from evaluation.localization import Guesses, Names, Truth, official_errors
from evaluation.submission import ilsvrc_ids
from evaluation.words import synsets

TRUE = (0, 0, 9, 4)


def truth(label, *boxes, labels=None):
    labels = [label] * len(boxes) if labels is None else labels
    return Truth(label, np.array(boxes, float).reshape(-1, 4), np.array(labels, int))


def guess(*labelled):
    """Of (label, xmin, ymin, xmax, ymax) each."""
    rows = np.array(labelled, float).reshape(-1, 5)
    return Guesses(rows[:, 0].astype(int), rows[:, 1:])


def errors(guesses, true, excluded=()):
    found = official_errors([guesses], [true], excluded)
    return found["localization_errors"], found["classification_errors"]


@pytest.mark.quick
@pytest.mark.parametrize(
    "guesses, true, wrong",
    [
        # 50 of 100 pixels are common: exactly half, which is right. Without + 1: 36 of 81.
        (guess((3, 0, 0, 9, 9)), truth(3, TRUE), [0] * 5),
        (guess((3, 0, 0, 9, 10)), truth(3, TRUE), [1] * 5),
        (guess((4, *TRUE)), truth(3, TRUE), [1] * 5),
        # Any of several true boxes; those of other classes do not count.
        (guess((3, 50, 50, 60, 60)), truth(3, TRUE, (50, 50, 60, 60)), [0] * 5),
        (guess((3, 50, 50, 60, 60)), truth(3, TRUE, (50, 50, 60, 60), labels=[3, 4]), [1] * 5),
        (guess((4, 50, 50, 60, 60)), truth(3, TRUE, (50, 50, 60, 60), labels=[3, 4]), [1] * 5),
        # Label and box have to be of one guess.
        (guess((4, *TRUE), (3, 30, 30, 40, 40)), truth(3, TRUE), [1] * 5),
        (guess((1, *TRUE), (2, *TRUE), (3, *TRUE)), truth(3, TRUE), [1, 1, 0, 0, 0]),
        # The sixth guess is not looked at.
        (guess(*[(n, *TRUE) for n in (0, 1, 2, 4, 5, 3)]), truth(3, TRUE), [1] * 5),
        (guess(), truth(3, TRUE), [1] * 5),
        # A box the wrong way round has no pixels.
        (guess((3, 9, 4, 0, 0)), truth(3, TRUE), [1] * 5),
    ],
)
def test_the_kits_rules(guesses, true, wrong):
    assert errors(guesses, true)[0] == wrong


def test_no_object_has_the_class_of_an_image_without_a_label():
    """-1 stands for no label, and for objects of none of the dataset's classes."""
    with pytest.raises(EvaluationError, match="none of the 1 images has a box of its class"):
        official_errors([guess((-1, *TRUE))], [truth(-1, TRUE)])


def test_excluded_images_count_in_classification_only():
    right, other = guess((3, *TRUE)), guess((4, *TRUE))
    truths = [truth(3, TRUE), truth(3, TRUE), truth(3), truth(3, TRUE)]
    found = official_errors([right, other, other, right], truths, excluded=[1])
    assert found["localized_examples"] == 2 and found["examples"] == 4
    assert found["top1_localization_error"] == found["top5_localization_error"] == 0
    assert found["top1_error"] == found["top5_error"] == 0.5
    with pytest.raises(EvaluationError, match="none of the 1 images has a box"):
        official_errors([right], truths[:1], excluded=[0])


def test_the_list_of_excluded_images(tmp_path):
    path = tmp_path / "blacklist.txt"
    path.write_text("3\n12\n\n")
    numbered = [f"val/n1/ILSVRC2012_val_{n:08d}.JPEG" for n in (12, 3, 4)]
    assert localization.excluded_images(path, numbered) == [0, 1]
    assert localization.excluded_images(path, ["x/d", "x/c", "x/b", "x/a"]) == [1]
    path.write_text("3\nx\n")
    with pytest.raises(EvaluationError, match=r"blacklist.txt, line 2: 'x' is not the number"):
        localization.excluded_images(path, numbered)
    with pytest.raises(EvaluationError, match="cannot be read"):
        localization.excluded_images(tmp_path / "none", numbered)


def counted(a, b):
    """The overlap of two boxes of whole pixels, by counting them."""
    masks = np.zeros((2, 24, 24), bool)
    for mask, (left, top, right, bottom) in zip(masks, (a, b), strict=True):
        mask[top : bottom + 1, left : right + 1] = True
    common = masks.all(axis=0).sum()
    return common / masks.any(axis=0).sum() if common else -1


def test_equal_to_counting_pixels():
    """Random images, whose error is found by loops over guesses, objects and pixels."""
    rng = np.random.default_rng(0)

    def boxes(count):
        corners = np.sort(rng.integers(0, 24, (count, 2, 2)), axis=1)
        return corners.reshape(count, 4)

    guesses, truths, wrong = [], [], np.ones((2, 60, 5))
    for row in range(60):
        true = Truth(int(rng.integers(3)), boxes(rng.integers(1, 4)), rng.integers(0, 3, 3))
        true = true._replace(labels=true.labels[: len(true.boxes)])
        many = rng.integers(0, 8)
        near = true.boxes[rng.integers(len(true.boxes), size=many)] + rng.integers(-2, 3, (many, 4))
        guesses.append(Guesses(rng.integers(0, 3, many), np.clip(near, 0, 23)))
        truths.append(true)
        for count in range(1, 6):
            for label, box in zip(*(part[:count] for part in guesses[-1]), strict=True):
                wrong[0, row, count - 1] *= label != true.label
                for object_label, object_box in zip(true.labels, true.boxes, strict=True):
                    if object_label == label == true.label and counted(box, object_box) >= 0.5:
                        wrong[1, row, count - 1] = 0
    excluded = [3, 10]
    found = official_errors(guesses, truths, excluded)
    kept = [
        row
        for row, true in enumerate(truths)
        if row not in excluded and true.label in true.labels.tolist()
    ]
    assert 0 < len(kept) < 58 and found["localized_examples"] == len(kept)
    np.testing.assert_allclose(found["classification_errors"], wrong[0].mean(axis=0))
    np.testing.assert_allclose(found["localization_errors"], wrong[1][kept].mean(axis=0))
    assert 0 < found["top5_localization_error"] < 1


IMAGENET = tuple(synsets())
FOX, TENCH = IMAGENET.index("n02119789"), IMAGENET.index("n01440764")
NAMES = Names(["val/b.JPEG", "val/a.JPEG", "val/c.JPEG"], IMAGENET)
GUESSED = [
    guess((FOX, 1, 2, 30, 40.4)),
    guess(*[(label, 0, 0, label, 9) for label in (5, TENCH, 7, 8, 9)]),
    guess(),
]


@pytest.mark.parametrize("form", ["ilsvrc", "kaggle"])
def test_what_is_written_is_read_again(form, tmp_path):
    path = tmp_path / "guesses.txt"
    localization.write(path, form, GUESSED, NAMES)
    lines = path.read_text().splitlines()
    if form == "kaggle":
        assert lines[0] == "ImageId,PredictionString"
        fox = sorted(IMAGENET).index("n02119789") + 1
        assert lines[2] == f"b,{fox} 1 2 30 40" and lines[3] == "c,"
    else:
        assert ilsvrc_ids()["n02119789"] == 1
        assert lines[1] == "1 1 2 30 40" and lines[2] == "" and len(lines[0].split()) == 25
    found, notes = localization.read(path, NAMES)
    assert not notes
    for mine, theirs in zip(GUESSED, found, strict=True):
        assert mine.labels.tolist() == theirs.labels.tolist()
        np.testing.assert_array_equal(np.rint(mine.boxes), theirs.boxes)


def test_lines_as_others_write_them(tmp_path):
    """Zeros that fill up a line, six guesses, names for labels, missing lines."""
    path = tmp_path / "a.txt"
    path.write_text("1 1 2 30 40  0 0 0 0 0\n" + "1.0,0,0,9,9," * 6 + "\n")
    found, notes = localization.read(path, NAMES)
    assert [len(guess.labels) for guess in found] == [5, 1, 0]  # b, a and c
    assert len(notes) == 1 and "1 of 3 images have no line" in notes[0] and "c.JPEG" in notes[0]
    path.write_text("0 0 0 0 0 1 0 0 9 9 0 0 0 0 0\n")  # the second guess is right, not the first
    assert localization.read(path, NAMES)[0][1].labels.tolist() == [-1, FOX]
    path.write_text('"ImageId","PredictionString"\na,n02119789 1 2 3 4 n99 1 1 1 1\n')
    with pytest.raises(EvaluationError, match="line 2: no class has the label n99"):
        localization.read(path, NAMES)
    path.write_text("ImageId,PredictionString\na,n02119789 1 2 3 4 \n")
    assert localization.read(path, NAMES)[0][1].labels.tolist() == [FOX]
    few = Names(NAMES.images, ("n02119789", "n01440764"))  # a part of ImageNet's classes
    path.write_text("1 0 0 9 9 3 0 0 9 9\n")
    assert localization.read(path, few)[0][1].labels.tolist() == [0, -1]
    digits = Names(NAMES.images, ("0", "1", "2"))
    localization.write(path, "kaggle", [guess((1, 0, 0, 9, 9)), guess(), guess()], digits)
    assert localization.read(path, digits)[0][0].labels.tolist() == [1]
    path.write_text("1 2 3 1 9 1 0 0 9 9\n\n1 9 9 9 8\n")
    assert "2 boxes end before they begin" in localization.read(path, NAMES)[1][0]
    own = Names(NAMES.images, ("cat", "dog"))
    path.write_text("2 0 0 9 9 1 0 0 9 9\n")
    assert localization.read(path, own)[0][1].labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("a.txt", "1 0 0 9 9\n1 0 0 9\n", "a.txt, line 2: 4 numbers; a guess has 5"),
        ("a.txt", "1 0 0 9 x\n", "a.txt, line 1: 'x' is not a number"),
        ("a.txt", "1 0 0 9 nan\n", "a.txt, line 1: 'nan' is not a number"),
        ("a.txt", "1001 0 0 9 9\n", "a.txt, line 1: no class has the label 1001"),
        ("a.txt", "0 0 0 9 9\n", "a.txt, line 1: no class has the label 0"),
        ("a.txt", "1.5 0 0 9 9\n", "a.txt, line 1: no class has the label 1.5"),
        ("a.txt", "1 0 0 9 9\n" * 4, "a.txt, line 4: the split has 3 images, and the file 4"),
        ("a.csv", "1 0 0 9 9\n", "a.csv, line 1: not the header ImageId,PredictionString"),
        ("a.csv", "ImageId,PredictionString\nx,1 0 0 9 9\n", "line 2: the split has no image 'x'"),
        ("a.csv", "ImageId,PredictionString\na,\na,\n", "line 3: a second line of a"),
        ("a.csv", "ImageId,PredictionString\na\n", "line 2: 1 columns; there are 2"),
        ("a.csv", "ImageId,PredictionString\na,1 0 0 9\n", "line 2: 4 numbers"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(name, content, said, tmp_path):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(EvaluationError, match=said):
        localization.read(path, NAMES)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(EvaluationError, match="cannot be read"):
        localization.read(tmp_path / "none.txt", NAMES)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EvaluationError, match="cannot be read"):
        localization.read(tmp_path / "a.txt", NAMES)
    with pytest.raises(EvaluationError, match="2 images are called a;"):
        localization.write(tmp_path / "a", "ilsvrc", GUESSED, Names(["a.x", "b/a.x", "c"], "ab"))
