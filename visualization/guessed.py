"""What a run's network says of a dataset: guesses, mistakes and confusion, as HTML."""

import argparse
import contextlib
import dataclasses
import functools

import numpy as np

import evaluation
from configs.common import ConfigError
from evaluation import Scores
from evaluation.errors import EvaluationError
from evaluation.protocols.protocol import log_softmax
from evaluation.score_files import Kept, finished, read_scores, subject
from evaluation.words import first_words
from visualization import page
from visualization.opening import Opened, open_run_or_file
from visualization.records import Record

# Cards of images; the most classes of a matrix that can be read; rows of a table.
_SHOWN, _MATRIX, _CONFUSED = 8, 20, 12


@dataclasses.dataclass(frozen=True, eq=False)
class Guessed:
    """What a network says of images of a split.

    Attributes:
      scores: log-probabilities.
      names: of the classes, such as synsets.
      split: its name.
      said: which images and which views they are of, in words.
    """

    scores: Scores
    names: tuple[str, ...]
    split: str
    said: str

    @property
    def first(self) -> np.ndarray:
        """The most probable class of each image, int [n]."""
        return self.scores.scores.argmax(axis=1)

    @property
    def wrong(self) -> np.ndarray:
        """The places of the mistakes, those with the highest probability first."""
        label, first = self.scores.label, self.first
        places = np.flatnonzero((label >= 0) & (label != first))
        sureness = self.scores.scores[places, first[places]]
        return places[np.argsort(-sureness, kind="stable")]


class Run:
    """A run with its network and its guesses, each made when it is first asked for."""

    def __init__(self, arguments: argparse.Namespace, record: Record):
        self.arguments, self.record = arguments, record

    @functools.cached_property
    def opened(self) -> Opened:
        """The network.

        Raises:
          ConfigError, DataError, TrainingError: it cannot be opened.
        """
        if not self.record.checkpoints:
            raise ConfigError("there is no checkpoint yet")
        return open_run_or_file(self.arguments)

    def check_flags(self) -> None:
        """Checks that there is what the command line asks for: checkpoint, dataset, split.

        What it does not ask for may be missing.

        Raises:
          ConfigError, DataError, EvaluationError, TrainingError: there is not.
        """
        asked = self.arguments
        if asked.checkpoint != "latest":
            _ = self.opened
        if not (asked.split or asked.data_name or asked.data_dir) or not self.record.checkpoints:
            return
        kept = None
        if not asked.data_dir:
            with contextlib.suppress(EvaluationError):  # files that were not asked for
                kept = self._kept
        if kept is None:
            self.opened.data()

    @functools.cached_property
    def guessed(self) -> Guessed:
        """The guesses: those in the newest file of scores of what was asked for, or computed.

        Raises:
          ConfigError, DataError, EvaluationError, TrainingError: see `opened` and `read_scores`;
            the network gives boxes.
        """
        if self._kept is None:
            return self._computed()
        name, kept = self._kept
        return Guessed(
            kept.scores,
            tuple(kept.class_names or self.opened.named_classes()),
            kept.split,
            f"{len(kept.scores.index):,} images of {kept.split}, {kept.protocol}, "
            f"checkpoint {kept.checkpoint} ({name})",
        )

    @functools.cached_property
    def _kept(self) -> tuple[str, Kept] | None:
        """Name and content of the newest file of scores of what was asked for."""
        asked = self.arguments
        if asked.data_name not in (None, self.record.data):
            return None
        written = finished(self.record.workdir / "scores")
        for path in sorted(written, key=lambda path: path.stat().st_mtime, reverse=True):
            if asked.split in (None, subject(path)[0]):
                kept = read_scores(path)
                if asked.checkpoint == "latest" or kept.checkpoint == self.opened.trained.step:
                    return path.name, kept
        return None

    def _computed(self) -> Guessed:
        opened, arguments = self.opened, self.arguments
        names, data = opened.named_classes(), opened.data()
        split = arguments.split or data.evaluation_split
        count, run = data.examples(split).count, opened.recorder([])
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for batch in opened.images(arguments.limit, seed=arguments.seed):
            images = batch["image"]
            more = arguments.batch_size - len(images)  # padded, so that one shape is compiled
            logits, _ = run(opened.inputs(np.pad(images, [(0, more), (0, 0), (0, 0), (0, 0)])))
            scores = log_softmax(np.asarray(logits[: len(images)], np.float32))
            found.append((batch["index"], scores, batch["label"]))
        if not found:
            raise ConfigError(f"no image of {split} can be read")
        whole = Scores(*(np.concatenate(part) for part in zip(*found, strict=True)))
        seen = len(whole.index)
        some = f"all {seen:,}" if seen == count else f"{seen:,} of {count:,}"
        other = arguments.data_name not in (None, self.record.data)
        where = f"{arguments.data_name}, {split}" if other else split
        return Guessed(
            whole,
            tuple(names),
            split,
            f"{some} images of {where}, center_crop, checkpoint {opened.trained.step}",
        )

    def images(self, places: np.ndarray) -> dict[int, np.ndarray]:
        """The images at these places of the guesses, uint8 [crop, crop, 3], by place."""
        where = {int(self.guessed.scores.index[place]): int(place) for place in places}
        chosen = np.array(list(where), np.int64)
        found: dict[int, np.ndarray] = {}
        for batch in self.opened.images(only=self.guessed.split, chosen=chosen):
            shown = self.opened.shown(batch["image"])
            found |= {where[int(i)]: image for i, image in zip(batch["index"], shown, strict=True)}
        return found


def guesses(run: Run) -> list[str]:
    """Images drawn at random, with five guesses each."""
    guessed = run.guessed
    order = np.random.default_rng(run.arguments.seed).permutation(len(guessed.scores.index))
    said = f"Drawn at random from {guessed.said}. The bar of the true class is blue."
    return [page.text(said, "soft"), _cards(run, order[:_SHOWN])]


def mistakes(run: Run) -> list[str]:
    """The wrong guesses of the highest probability."""
    guessed = run.guessed
    if not (guessed.scores.label >= 0).any():
        raise ConfigError(f"the images of {guessed.split} have no labels")
    wrong, count = guessed.wrong, int((guessed.scores.label >= 0).sum())
    said = f"{len(wrong):,} wrong first guesses ({len(wrong) / count:.2%}) among {guessed.said}."
    if not len(wrong):
        return [page.text(said, "soft")]
    said += " Those that the network is surest of come first."
    return [page.text(said, "soft"), _cards(run, wrong[:_SHOWN])]


def _cards(run: Run, places: np.ndarray) -> str:
    guessed, images = run.guessed, run.images(places)
    items = []
    for place in places.tolist():
        label = int(guessed.scores.label[place])
        truth = guessed.names[label] if label >= 0 else ""
        (short,) = first_words([truth])
        index = int(guessed.scores.index[place])
        if place in images:
            alt = f"Image {index} of {guessed.split}" + (f": {short}" if truth else "")
            found = evaluation.guesses(guessed.scores.scores[place], guessed.names)
            found = [guess | {"words": first_words([guess["class"]])[0]} for guess in found]
            heading = short or f"image {index}"
            if truth and found[0]["class"] != truth:
                heading = f"{short}, taken for {found[0]['words']}"
            items.append(page.card(page.image(images[place], alt), heading, found, truth))
    return page.cards(items)


def confusion(run: Run) -> list[str]:
    """Counts of true and guessed classes, and the pairs that are taken for each other most."""
    guessed = run.guessed
    label, names = guessed.scores.label, first_words(guessed.names)
    known = label >= 0
    if not known.any():
        raise ConfigError(f"the images of {guessed.split} have no labels")
    size = len(names)
    flat = np.bincount(label[known] * size + guessed.first[known], minlength=size * size)
    counts = flat.reshape(size, size)
    parts = [
        page.text(f"Of {guessed.said}. A row is a true class, a column a guessed one.", "soft")
    ]
    if size <= _MATRIX:
        parts.append(page.matrix("images by true and guessed class", names, counts))
    off = counts * (1 - np.eye(size, dtype=counts.dtype))
    pairs = [p for p in np.argsort(-off, axis=None, kind="stable")[:_CONFUSED] if off.flat[p]]
    rows = [
        [names[p // size], names[p % size], f"{off.flat[p]:,}",
         f"{off.flat[p] / counts[p // size].sum():.1%}"]
        for p in map(int, pairs)
    ]  # fmt: skip
    if rows:
        columns = ["true class", "taken for", "images", "share of the class"]
        made = page.table(
            "the most frequent confusions", columns, rows, numbers=(2, 3), long=(0, 1)
        )
        parts.append(made if size > _MATRIX else page.details("The most frequent confusions", made))
    return parts
