"""The list of ILSVRC's synsets, and the words of classes."""

import re

import pytest

from evaluation.words import first_words, synsets, words
from tests.conftest import ROOT

pytestmark = pytest.mark.quick


def lines():
    return (ROOT / "evaluation" / "synsets.txt").read_text(encoding="utf-8").splitlines()


def test_a_line_a_label():
    assert len(lines()) == 1000
    assert all(re.fullmatch(r"n\d{8} \S+( \S+)*", line) for line in lines())
    assert not any("_" in line for line in lines())


def test_labels_are_the_synsets_in_ascending_order():
    names = list(synsets())
    assert names == sorted(set(names)) == [line[:9] for line in lines()]


def test_order_equals_that_of_tfds():
    from input_pipeline.datasets.imagenet import imagenet_synsets

    assert tuple(synsets()) == tuple(imagenet_synsets())


def test_facts_equal_the_list_of_the_challenge(shared_data):
    listed = shared_data("imagenet_synsets.txt").read_text().replace("_", " ").splitlines()
    assert lines() == listed


def test_words_of_synsets_and_of_other_classes():
    assert words(["n01484850", "cat", "n00000000", "n01440764"]) == (
        "great white shark", "cat", "n00000000", "tench",
    )  # fmt: skip
    assert words([]) == ()


def test_first_words():
    """Two synsets have the same; a class of one's own is not cut at its comma."""
    names = ["n02012849", "n03126707", "n01443537", "red, small"]
    assert first_words(names) == ("crane", "crane", "goldfish", "red, small")
