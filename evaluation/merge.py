"""Merges the boxes of one or several networks, and prints the localization error.

    python -m evaluation.merge BOXES [BOXES ...] [--threshold=.4] [--distance=1] [--by_boxes]
        [--excluded=FILE] [--out=FILE]

BOXES are files in the `boxes/` of a run: --mode=evaluate --config.evaluation.save_scores=True with
--config.evaluation.protocol=dense_boxes, dense_boxes_true_class or overfeat_boxes writes them. The
boxes of all files are merged together (Simonyan and Zisserman 2015, appendix A.1; the constants are
those of `evaluation.merge` in a config). --by_boxes orders guesses by the scores of their boxes, as
OverFeat does, in place of those of their classes. --excluded names the kit's list of images that
localization errors leave out.

--out=FILE writes the guesses, FILE.csv in Kaggle's form and FILE.txt in that of ILSVRC's task 2.
The last line of the output is a JSON object.
"""

import json
import math
from collections.abc import Sequence

from evaluation import commands
from evaluation.errors import EvaluationError
from evaluation.localization import box_files, excluded_images, localized, stems
from evaluation.localization.merging import Merging


def run(arguments: Sequence[str]) -> None:
    """Runs the command.

    Args:
      arguments: of the command line, without the program's name.

    Raises:
      EvaluationError: files of different images or classes, or none of boxes; a flag out of range;
        no box counts; of --out, two images have the same file name.
      OSError: --out cannot be written; the errors are printed all the same.
    """
    parser = commands.plain_parser(__doc__)
    parser.add_argument("boxes", nargs="+", metavar="BOXES", type=commands.path)
    parser.add_argument("--threshold", type=float, default=Merging().threshold)
    parser.add_argument("--distance", type=float, default=Merging().distance)
    parser.add_argument("--by_boxes", action="store_true")
    parser.add_argument("--excluded", type=commands.path)
    parser.add_argument("--out", type=commands.path)
    flags = parser.parse_args(arguments)
    for name in ("threshold", "distance"):
        value = getattr(flags, name)
        if not 0 <= value < math.inf:
            raise EvaluationError(f"--{name}={value:g}: a number of 0 or more")
    merging = Merging(flags.threshold, flags.distance, flags.by_boxes)
    read = [box_files.read(path) for path in flags.boxes]
    subject = read[0][1]
    for path, (others, other) in zip(flags.boxes, read, strict=True):
        for what, ours, theirs in (
            ("splits", subject.split, other.split),
            ("images", subject.names.images, other.names.images),
            ("classes", subject.names.classes, other.names.classes),
            ("readable images", read[0][0][0].index.tolist(), others[0].index.tolist()),
        ):
            if ours != theirs:
                raise EvaluationError(f"{flags.boxes[0]} and {path}: of other {what}")
    rows = excluded_images(flags.excluded, subject.names.images) if flags.excluded else []
    # Merging may take hours: what is wrong with the rest is said before.
    if subject.truths is not None:
        localized(subject.truths, rows)
    if flags.out is not None:
        stems(subject.names.images)
    looks = [look for of_file, _ in read for look in of_file]
    found = box_files.guesses(looks, subject, merging)
    errors = box_files.errors(found, subject, rows)
    result = {"split": subject.split, **merging._asdict(), **errors}
    try:
        if flags.out is not None:
            result["guesses"] = str(box_files.write_guesses(flags.out, found, subject.names))
    finally:
        print(json.dumps(result))


if __name__ == "__main__":
    commands.main(run)
