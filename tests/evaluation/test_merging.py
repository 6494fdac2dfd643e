"""The greedy merge of boxes against a plain loop, and cases by hand."""

import itertools
import json
import math

import numpy as np
import pytest

from evaluation import EvaluationError, commands, merge
from evaluation.localization import Names, Truth, box_files
from evaluation.localization.merging import Merging, Windows, best_box, guesses_of, merged


def apart(a, b, distance):
    """How far two boxes are apart, in plain numbers."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = [max(x[2] - x[0], 0) * max(x[3] - x[1], 0) for x in (a, b)]
    middles = [((x[0] + x[2]) / 2, (x[1] + x[3]) / 2) for x in (a, b)]
    overlap = width * height / (sum(areas) - width * height)
    return distance * math.dist(*middles) / math.sqrt(sum(areas) / 2) + 1 - overlap


def by_loops(boxes, merging):
    """Lists of boxes, each with the numbers of those that it came from."""
    left = [(list(map(float, box)), [number]) for number, box in enumerate(boxes)]
    while len(left) > 1:
        pairs = itertools.combinations(range(len(left)), 2)
        scores = {(i, j): apart(left[i][0], left[j][0], merging.distance) for i, j in pairs}
        (i, j), least = min(scores.items(), key=lambda of: of[1])
        if least > merging.threshold:
            break
        mean = [(a + b) / 2 for a, b in zip(left[i][0], left[j][0], strict=True)]
        left[i] = mean, left[i][1] + left[j][1]
        del left[j]
    return left


def drawn(rng, count):
    low = rng.uniform(0, 100, (count, 2))
    return np.concatenate([low, low + rng.uniform(5, 60, (count, 2))], axis=1)


@pytest.mark.quick
@pytest.mark.parametrize("merging", [Merging(), Merging(0.5, 1), Merging(1.5, 0.3), Merging(9, 2)])
def test_the_merge_is_that_of_a_plain_loop(merging):
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 10, 30):
        for _ in range(5):
            boxes = drawn(rng, count)
            found, group = merged(boxes, merging)
            expected = by_loops(boxes, merging)
            np.testing.assert_allclose(found, [box for box, _ in expected], rtol=1e-12)
            members = [sorted(members) for _, members in expected]
            assert [np.flatnonzero(group == n).tolist() for n in range(len(found))] == members


def test_a_merge_does_not_depend_on_units():
    boxes = drawn(np.random.default_rng(1), 20)
    found, group = merged(boxes, Merging())
    scaled, same = merged(boxes * 7, Merging())
    np.testing.assert_allclose(scaled, found * 7)
    assert (group == same).all() and 1 < len(found) < 20


def test_a_threshold_of_zero_merges_equal_boxes_alone():
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9.1]])
    found, group = merged(boxes, Merging(0))
    assert len(found) == 2 and group.tolist() == [0, 0, 1]


def test_boxes_without_area_are_no_numbers_to_divide_by():
    with np.errstate(all="raise"):
        found, _ = merged(np.array([[5, 5, 5, 5], [9, 9, 2, 2], [5, 5, 5, 5]]), Merging())
    assert np.isfinite(found).all()


def test_two_objects_and_a_false_box():
    """Two groups stay apart; a lone box loses, although no box is as sure of itself as it is."""
    shift = np.array([[0], [2], [-2]])
    groups = [np.array(box) + shift for box in ([10, 10, 50, 50], [100, 10, 140, 50])]
    boxes = np.concatenate([*groups, [[60, 100, 100, 140]]])
    sums = np.array([0.3, 0.3, 0.3, 0.4, 0.4, 0.4, 0.9])
    found, group = merged(boxes, Merging())
    assert group.tolist() == [0, 0, 0, 1, 1, 1, 2]
    box, total = best_box(boxes, sums, Merging())
    # Pairs are averaged one after another, so that the last has more weight.
    np.testing.assert_allclose(box, found[1])
    assert np.abs(box - [100, 10, 140, 50]).max() <= 2 and total == pytest.approx(1.2)
    box, _ = best_box(boxes, np.array([0.3] * 6 + [1.0]), Merging())
    np.testing.assert_array_equal(box, boxes[6])


def look(boxes, confidences, scores=(0.6, 0.3), labels=(4, 2)):
    """Windows [p, 2, 4] of one image of two classes."""
    return Windows(
        np.array([7]), np.array([labels]), np.array([scores]), np.array([len(boxes)]),
        np.array(boxes, np.float32), np.array(confidences, np.float32),
    )  # fmt: skip


LEFT, RIGHT, ELSEWHERE = [0.1, 0.1, 0.4, 0.4], [0.6, 0.6, 0.9, 0.9], [0.0, 0.6, 0.3, 0.9]


def test_scales_are_merged_together():
    """A box that each scale sees once is better than one that a single scale is surer of."""
    one = look([[LEFT, RIGHT], [RIGHT, RIGHT]], [[0.4, 0.5], [0.7, 0.5]])
    two = look([[LEFT, RIGHT]], [[0.4, 0.5]], scores=(0.2, 0.1))
    (alone,) = guesses_of([one], np.array([[50, 100]]), Merging())
    np.testing.assert_allclose(alone.boxes[0], RIGHT, atol=1e-6)
    (both,) = guesses_of([one, two], np.array([[50, 100]]), Merging())
    assert both.labels.tolist() == [4, 2]
    np.testing.assert_allclose(both.boxes, [LEFT, RIGHT], atol=1e-6)


def test_the_order_of_guesses():
    """By the mean of a class's scores over scales, or by the sums of its boxes."""
    one = look([[LEFT, RIGHT]], [[0.1, 0.9]])
    two = look([[LEFT, RIGHT]], [[0.1, 0.9]], scores=(0.5, 0.1), labels=(3, 2))
    sizes = np.array([[60, 60]])
    (by_classes,) = guesses_of([one, two], sizes, Merging())
    assert by_classes.labels.tolist() == [4, 3, 2]  # .3, .25, .2
    (by_boxes,) = guesses_of([one, two], sizes, Merging(by_boxes=True))
    assert by_boxes.labels.tolist() == [2, 4, 3]


def test_at_most_five_guesses_inside_the_image():
    labels, boxes = range(7), [[[-0.2, 0.1, 0.5, 1.3]] * 7]
    many = look(boxes, [[0.5] * 7], np.linspace(0.2, 0.1, 7), labels)
    (found,) = guesses_of([many], np.array([[10, 10]]), Merging())
    assert found.labels.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found.boxes, [[0, 0.1, 0.5, 1]] * 5, atol=1e-6)
    nothing = look(np.zeros((0, 2, 4)), np.zeros((0, 2)))
    (found,) = guesses_of([nothing], np.array([[10, 10]]), Merging())
    assert len(found.labels) == 0


SUBJECT = box_files.Subject(
    Names([f"val/{n}.jpg" for n in range(8)], list("abcde")), "validation",
    np.full((8, 2), 100, np.int32), np.ones(8, np.int32), np.full((8, 2), 50, np.int32),
    [Truth(4, np.array([[5.0, 5, 19, 19]]), np.array([4])) for _ in range(8)],
)  # fmt: skip


def test_files_of_boxes_are_merged_again(tmp_path, capsys):
    """What was written is read; the union of two files is that of two scales."""
    one = look([[LEFT, RIGHT], [RIGHT, RIGHT]], [[0.4, 0.5], [0.7, 0.5]])
    two = look([[LEFT, RIGHT]], [[0.4, 0.5]])
    paths = [tmp_path / "boxes" / f"{name}.npz" for name in "ab"]
    for path, of in zip(paths, (one, two), strict=True):
        box_files.write(path, [of], SUBJECT, {"source": "here"})
    looks, subject = box_files.read(paths[0])
    assert subject.names == SUBJECT.names and subject.truths[7].label == 4
    np.testing.assert_array_equal(looks[0].boxes, one.boxes)
    merge.run([str(paths[0]), f"--out={tmp_path / 'alone'}"])
    alone = json.loads(capsys.readouterr().out)
    assert alone["localization_errors"] == [1.0] * 5 and alone["overlap"] == 0
    merge.run([*map(str, paths), f"--out={tmp_path / 'both'}"])
    both = json.loads(capsys.readouterr().out)
    assert both["localization_errors"] == [0.875] * 5 and both["overlap"] == pytest.approx(1 / 8)
    assert (tmp_path / "both.csv").read_text().splitlines()[8] == "7,5 5 5 19 19 3 30 30 44 44"
    assert (tmp_path / "both.txt").read_text().splitlines()[7] == "5 5 5 19 19 3 30 30 44 44"
    (tmp_path / "list.txt").write_text("1\n2\n3\n4\n")
    merge.run([*map(str, paths), f"--excluded={tmp_path / 'list.txt'}"])
    assert json.loads(capsys.readouterr().out)["localization_errors"] == [0.75] * 5
    for flag in ("--threshold=nan", "--distance=-1"):
        with pytest.raises(EvaluationError, match=f"{flag}: a number of 0 or more"):
            merge.run([*map(str, paths), flag])
    (tmp_path / "file").write_text("")
    arguments = [*map(str, paths), f"--out={tmp_path / 'file' / 'both'}"]
    assert commands.ended(merge.run, arguments) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["localization_errors"] == both["localization_errors"]
    assert "cannot be written" in printed.err
    box_files.write(paths[1], [two], box_files.dataclasses.replace(SUBJECT, split="test"), {})
    with pytest.raises(EvaluationError, match="of other splits"):
        merge.run(list(map(str, paths)))
    fewer = box_files.dataclasses.replace(two, index=np.array([6]))
    box_files.write(paths[1], [fewer], SUBJECT, {})
    with pytest.raises(EvaluationError, match=r"a.npz and .*b.npz: of other readable images"):
        merge.run(list(map(str, paths)))
    paths[1].write_bytes(paths[0].read_bytes()[:300])
    assert commands.ended(merge.run, [str(paths[1])]) == 2
    assert "no file of boxes, or damaged" in capsys.readouterr().err


def test_what_is_wrong_is_said_before_boxes_are_merged(tmp_path, monkeypatch):
    monkeypatch.setattr(box_files, "guesses", None)
    one, path = look([[LEFT, RIGHT]], [[0.4, 0.5]]), tmp_path / "a.npz"
    box_files.write(path, [one], SUBJECT, {})
    (tmp_path / "list.txt").write_text("".join(f"{number}\n" for number in range(1, 9)))
    with pytest.raises(EvaluationError, match="none of the 8 images has a box"):
        merge.run([str(path), f"--excluded={tmp_path / 'list.txt'}"])
    alike = Names([f"val/{n}/0.jpg" for n in range(8)], SUBJECT.names.classes)
    box_files.write(path, [one], box_files.dataclasses.replace(SUBJECT, names=alike), {})
    with pytest.raises(EvaluationError, match="8 images are called 0"):
        merge.run([str(path), f"--out={tmp_path / 'out'}"])
