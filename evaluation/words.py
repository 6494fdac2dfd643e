"""The English names of ILSVRC's classes."""

import functools
from collections.abc import Sequence
from importlib import resources


@functools.cache
def synsets() -> dict[str, str]:
    """The 1,000 synsets of ILSVRC-2012 in the order of their labels -> their words."""
    text = resources.files("evaluation").joinpath("synsets.txt").read_text(encoding="utf-8")
    pairs = (line.partition(" ") for line in text.splitlines())
    return {synset: said for synset, _, said in pairs}


def words(class_names: Sequence[str]) -> tuple[str, ...]:
    """The words of each class: those of ILSVRC's list for a synset, else the class's own name."""
    known = synsets()
    return tuple(known.get(name, name) for name in class_names)


def first_words(class_names: Sequence[str]) -> tuple[str, ...]:
    """As `words`, but of a synset's words, which commas separate, the first alone.

    Synsets can have the same first words (`crane`): classes are compared by their own names.
    """
    known = synsets()
    return tuple(known[name].split(",")[0] if name in known else name for name in class_names)
