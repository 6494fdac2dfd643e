import unicodedata

import pytest

from input_pipeline import DataError, names

pytestmark = pytest.mark.quick

COMPOSED, DECOMPOSED = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"


@pytest.mark.parametrize(
    "spellings, split",
    [
        ("train Train TRAIN training Training train_set Training-Set trainset", "train"),
        ("val Val valid Valid validation VALIDATION dev Dev val_set validset", "validation"),
        ("test Test testing TESTING test_set testset", "test"),
        ("trainer values tests cat eval 0 set", None),
    ],
)
def test_splits_in_any_spelling(spellings, split):
    assert {names.split_of(name) for name in spellings.split()} == {split}


def test_names_are_shown_as_text_that_utf8_takes():
    assert names.shown(b"caf\xe9/1.jpg") == names.shown("caf\udce9/1.jpg") == r"caf\xe9/1.jpg"
    assert names.shown(COMPOSED) == names.shown(COMPOSED.encode()) == COMPOSED


def test_what_systems_and_archivers_leave_is_clutter():
    for name in (
        ".DS_Store", "._1.jpg", ".nfs0001", ".ipynb_checkpoints", "Thumbs.db", "desktop.ini",
        "@eaDir", "__MACOSX", "lost+found", "images.zip", "train.tar", "train.tar.gz", "a.jpg~",
    ):  # fmt: skip
        assert names.is_clutter(name), name
    for name in ("1.jpg", "notes.txt", "cat", "macosx", "labels.csv"):
        assert not names.is_clutter(name), name


@pytest.mark.parametrize(
    "given, ordered",
    [
        ([str(n) for n in range(12)], [str(n) for n in range(12)]),
        (["00", "01", "02", "10", "3", "4", "5", "6", "7", "8", "9"], None),
        (["1", "10", "2", "3"], ["1", "10", "2", "3"]),  # as text: not 0 to 3
        (["0", "1", "10", "b"], ["0", "1", "10", "b"]),
        (["zebra", "ant", "Ant eater"], ["Ant eater", "ant", "zebra"]),
        ([DECOMPOSED, "cafz"], ["cafz", DECOMPOSED]),  # where the composed name would stand
    ],
)
def test_order_of_labels(given, ordered):
    found, notes = names.class_order(sorted(given), "DIR")
    assert list(found) == (ordered or sorted(given, key=int))
    if all(name.isdigit() for name in given):
        exactly = sorted(map(int, given)) == list(range(len(given)))
        assert len(notes) == 1
        assert ("labels are these numbers" in notes[0]) is exactly
        assert ("names as text" in notes[0]) is not exactly
    else:
        assert not notes


def test_two_spellings_of_one_class():
    with pytest.raises(DataError, match=r"(?s)DIR: two folders are both named.*two Unicode spell"):
        names.class_order([COMPOSED, DECOMPOSED, "tea"], "DIR")
    assert unicodedata.normalize("NFC", DECOMPOSED) == COMPOSED
    with pytest.raises(DataError, match="DIR: the folders 01 and 1 are one number"):
        names.class_order(["0", "01", "1"], "DIR")
    _, notes = names.class_order(["Cat", "cat", "hot dog", "hot_dog"], "DIR")
    assert [("'Cat' and 'cat'" in n, "'hot dog' and 'hot_dog'" in n) for n in notes] == [
        (True, False),
        (False, True),
    ]
