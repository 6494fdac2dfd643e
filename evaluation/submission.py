"""Writes the file that ILSVRC's or Kaggle's server accepts, from scores of the test images.

    python -m evaluation.submission RUN_OR_SCORES --format=ilsvrc|kaggle [--out=FILE]
        [--split=SPLIT] [--protocol=PROTOCOL] [--images=DIR]

--mode=evaluate --config.evaluation.split=test --config.evaluation.save_scores=True writes the
scores; evaluation.ensemble --out writes an average of several.

ilsvrc: a line for each image, sorted by file name: five labels, the most probable first, as
ILSVRC-2012 IDs 1 to 1000 (the development kit's readme; they do not follow the synsets' order).
kaggle: for "imagenet-object-localization-challenge". After the header ImageId,PredictionString
a line for each image has up to five pairs of a label (its line in LOC_synset_mapping.txt, from 1)
and a box. Since this is classification, the box is the whole image, whose size is read from
--images; without --images it is 0 0 0 0.
"""

import collections
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path, PurePosixPath

import numpy as np

import files
from evaluation import commands, score_files
from evaluation.errors import EvaluationError
from evaluation.guesses import GUESSES
from evaluation.score_files import Kept
from evaluation.words import synsets

TEST_IMAGES = 100_000
SUFFIXES = {"ilsvrc": ".txt", "kaggle": ".csv"}


@functools.cache
def ilsvrc_ids() -> dict[str, int]:
    """Synset -> its ILSVRC-2012 ID, 1 to 1000."""
    text = resources.files("evaluation").joinpath("ilsvrc2012_ids.txt").read_text(encoding="utf-8")
    pairs = (line.split() for line in text.splitlines())
    return {synset: int(number) for number, synset in pairs}


def guesses(kept: Kept) -> dict[str, list[str]]:
    """File name of each image, sorted -> its five most probable synsets, the best first.

    Raises:
      EvaluationError: the classes are not ILSVRC's, images have no file names, or two images
        have the same one.
    """
    known = ilsvrc_ids()
    if kept.class_names is None or set(kept.class_names) != set(known):
        what = "does not say its classes" if kept.class_names is None else "has other classes"
        raise EvaluationError(
            f"{kept.path}: {what}; a submission has ILSVRC's 1000 synsets. Write the scores anew "
            "with --mode=evaluate on ImageNet (data.name=imagenet2012)"
        )
    names = score_files.file_names(kept)
    strange = [n for n in names if not n.lower().endswith(commands.IMAGE_SUFFIXES)]
    if strange:
        raise EvaluationError(
            f"{kept.path}: its images have no names of files ({strange[0]}), and a submission goes "
            "by these; write the scores from a folder of images (DIR/test/*.JPEG), not from "
            "prepared data"
        )
    if len(set(names)) < len(names):
        twice, count = collections.Counter(names).most_common(1)[0]
        raise EvaluationError(f"{kept.path}: {count} images are called {twice}")
    best = np.argsort(-kept.scores.scores, axis=1, kind="stable")[:, :GUESSES]
    return {
        names[row]: [kept.class_names[label] for label in best[row]]
        for row in sorted(range(len(names)), key=names.__getitem__)
    }


def ilsvrc(found: dict[str, list[str]]) -> Iterator[str]:
    """Lines of the file that ILSVRC's server accepts.

    Args:
      found: from `guesses`.
    """
    ids = ilsvrc_ids()
    for best in found.values():
        yield " ".join(str(ids[synset]) for synset in best)


def kaggle(found: dict[str, list[str]], images: Path | None) -> Iterator[str]:
    """Lines of the file that Kaggle's server accepts.

    Args:
      found: from `guesses`.
      images: directory of the images, searched with its subdirectories; None for boxes of 0.

    Raises:
      EvaluationError: an image is not in `images`, or cannot be read.
    """
    line_of = {synset: number for number, synset in enumerate(sorted(synsets()), 1)}
    places = {} if images is None else _files_below(images)
    yield "ImageId,PredictionString"
    for name, best in found.items():
        box = "0 0 0 0" if images is None else _whole(name, places, images)
        guesses = " ".join(f"{line_of[synset]} {box}" for synset in best)
        yield f"{PurePosixPath(name).stem},{guesses}"


def _files_below(directory: Path) -> dict[str, Path]:
    walk = os.walk(directory)
    return {name: Path(folder) / name for folder, _, names in walk for name in names}


def _whole(name: str, places: dict[str, Path], images: Path) -> str:
    """The box of a whole image: x and y of its first pixel, x and y of its last."""
    from PIL import Image

    try:
        with Image.open(places[name]) as image:
            return f"0 0 {image.width - 1} {image.height - 1}"
    except (KeyError, OSError) as error:
        raise EvaluationError(f"--images={images}: {name} is not there, or no image") from error


def run(arguments: Sequence[str]) -> None:
    """Runs the command.

    Args:
      arguments: of the command line, without the program's name.

    Raises:
      EvaluationError: no scores from which a submission can be made.
      OSError: the file cannot be written.
    """
    parser = commands.parser(__doc__)
    parser.add_argument("scores", metavar="RUN_OR_SCORES", type=commands.path)
    parser.add_argument("--format", required=True, choices=SUFFIXES)
    parser.add_argument("--out", type=commands.path, help="by default beside the scores")
    parser.add_argument("--images", type=commands.path, help="of kaggle: where the images are")
    flags = parser.parse_args(arguments)
    kept = score_files.scores_of(flags.scores, flags.split, flags.protocol)
    found = guesses(kept)
    lines = ilsvrc(found) if flags.format == "ilsvrc" else kaggle(found, flags.images)
    out = flags.out or kept.path.with_suffix(SUFFIXES[flags.format])
    content = "".join(f"{line}\n" for line in lines)
    out.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(out) as temporary:
        temporary.write_text(content)
    if kept.split != "test":
        print(f"note: these are images of the {kept.split} split, not of test", file=sys.stderr)
    if len(found) != TEST_IMAGES:
        print(f"note: {len(found)} images; ILSVRC's test set has {TEST_IMAGES:,}", file=sys.stderr)
    print(out)


if __name__ == "__main__":
    commands.main(run)
