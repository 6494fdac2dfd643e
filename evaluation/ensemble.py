"""Errors of several networks, or of one network under several protocols, and of their average.

    python -m evaluation.ensemble RUN_OR_SCORES RUN_OR_SCORES ...
        [--weights=equal|search|W1,W2,...] [--error=top5|top1] [--split=SPLIT]
        [--protocol=PROTOCOL] [--out=FILE.npz]

Each member is a score file (--mode=evaluate --config.evaluation.save_scores=True), or a run with
exactly one that --split and --protocol select. The average is one of probabilities.

--weights=search finds the weights on a random half of the examples and reports all errors on the
other half. It is the coordinate search of the 2012 code (util/avg-valid.py): weights are 0 to 1 in
steps of .05 and begin at .5; each in turn takes the value with the fewest errors, for at most five
rounds. --out writes the average as a score file.

The last line of the output is a JSON object.
"""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import commands, score_files
from evaluation.errors import EvaluationError
from evaluation.score_files import Kept
from evaluation.scores import Scores

ERRORS = {"top1": 1, "top5": 5}
# Of the search; a weight of BEGIN steps is .5.
STEPS, ROUNDS, BEGIN = 20, 5, 10


def misses(scores: np.ndarray, label: np.ndarray, k: int) -> np.ndarray:
    """Whether the label is not among the k highest scores: [N, classes], [N] -> bool [N].

    As in `metrics.misses`, scores are any monotone function of the probabilities, ties rank by
    class number, and a value that is not finite is a miss.
    """
    own = scores[np.arange(len(label)), label][:, None]
    before = np.arange(scores.shape[1]) < label[:, None]
    rank = ((scores > own) | ((scores == own) & before)).sum(axis=1)
    return (rank >= k) | ~np.isfinite(own[:, 0])


def averaged(scores: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """The logarithm of the weighted mean of probabilities, float64 [N, classes].

    Args:
      scores: logarithms of each member's, [N, classes]. No probability is too small.
      weights: [members], 0 or more, and not all of them 0.
    """
    terms = (
        np.log(share) + of_member.astype(np.float64)
        for share, of_member in zip(weights / weights.sum(), scores, strict=True)
        if share
    )
    total: np.ndarray = functools.reduce(np.logaddexp, terms)
    return total


def search(
    probabilities: Sequence[np.ndarray], errors_of: Callable[[np.ndarray], int]
) -> np.ndarray:
    """Weights with few errors, by the coordinate search of 2012.

    Args:
      probabilities: float64 [N, classes] of each member.
      errors_of: weighted sum of them, float64 [N, classes] -> number of wrong examples.

    Returns:
      float64 [members], 0 to 1.
    """
    weights = np.full(len(probabilities), BEGIN)  # in steps
    fewest = errors_of(_sum(weights, probabilities))
    for _ in range(ROUNDS):
        before = weights.copy()
        for member, own in enumerate(probabilities):
            # Added up anew: what is small beside a member would be lost in a difference from it.
            others = _sum(np.where(np.arange(len(weights)) == member, 0, weights), probabilities)
            for step in range(STEPS + 1):
                if step == weights[member] or not (step or np.delete(weights, member).any()):
                    continue
                errors = errors_of(others + step * own)
                if errors < fewest:
                    fewest, weights[member] = errors, step
        if (weights == before).all():
            break
    return weights / STEPS


def _sum(weights: np.ndarray, probabilities: Sequence[np.ndarray]) -> np.ndarray:
    total = np.zeros(probabilities[0].shape)
    for weight, of_member in zip(weights, probabilities, strict=True):
        if weight:
            total += weight * of_member
    return total


def check_alike(members: Sequence[Kept]) -> None:
    """Checks that all scores are of the same split, examples and classes, each file once.

    Raises:
      EvaluationError: they are not; the message names two files and the difference.
    """
    first, paths = members[0], [member.path.resolve() for member in members]
    for path in paths:
        if paths.count(path) > 1:
            raise EvaluationError(f"{path}: named twice; give it a larger weight instead")
    for other in members[1:]:
        pair = f"{first.path} and {other.path}"
        if first.split != other.split:
            raise EvaluationError(
                f"{pair}: of the splits {first.split} and {other.split}; choose one with --split"
            )
        widths = [m.scores.scores.shape[1] for m in (first, other)]
        if widths[0] != widths[1]:
            raise EvaluationError(f"{pair}: scores of {widths[0]} and {widths[1]} classes")
        named = [m.class_names for m in (first, other)]
        if None not in named and named[0] != named[1]:
            ours, theirs = next((a, b) for a, b in zip(*named, strict=True) if a != b)
            raise EvaluationError(f"{pair}: other classes, or in another order ({ours}, {theirs})")
        _check_examples(first, other, pair)


def _check_examples(first: Kept, other: Kept, pair: str) -> None:
    one, two = first.scores, other.scores
    if not np.array_equal(one.index, two.index):
        missing = np.setxor1d(one.index, two.index)
        raise EvaluationError(
            f"{pair}: of other examples ({len(one.index)} and {len(two.index)}; {missing[0]} is in "
            "one of them alone)"
        )
    ours, theirs = _file_names(first), _file_names(other)
    differing = one.label != two.label
    if ours is not None and theirs is not None:
        differing |= ours != theirs
    if differing.any():
        at = int(differing.argmax())
        raise EvaluationError(
            f"{pair}: of other examples; number {one.index[at]} is {first.name[at]} of class "
            f"{one.label[at]}, and {other.name[at]} of class {two.label[at]}"
        )


def _file_names(kept: Kept) -> np.ndarray | None:
    """The images' file names without directories, [N]; None if an image is not from a file."""
    names = score_files.file_names(kept)
    return (
        np.array(names) if all(n.lower().endswith(commands.IMAGE_SUFFIXES) for n in names) else None
    )


def _given_weights(text: str, members: int) -> np.ndarray:
    try:
        weights = np.array([float(part) for part in text.split(",")])
    except ValueError:
        weights = np.array([np.nan])
    if len(weights) != members or not (np.isfinite(weights) & (weights >= 0)).all():
        raise EvaluationError(
            f"--weights={text}: equal, search, or {members} numbers of 0 and more with commas"
        )
    if not weights.any():
        raise EvaluationError(f"--weights={text}: all are 0")
    return weights


def _labels(members: Sequence[Kept]) -> list[str]:
    """The members' names in the table: short ones, or whole paths if short ones are ambiguous."""
    whole = [m.path.with_suffix("").parts for m in members]
    short = ["/".join(p for p in parts[-3:] if p != "scores") for parts in whole]
    return short if len(set(short)) == len(short) else [str(m.path) for m in members]


def run(arguments: Sequence[str]) -> None:
    """Runs the command.

    Args:
      arguments: of the command line, without the program's name.

    Raises:
      EvaluationError: scores of different examples or classes, or invalid arguments.
      OSError: --out cannot be written; the errors are printed all the same.
    """
    parser = commands.parser(__doc__)
    parser.add_argument("scores", nargs="+", metavar="RUN_OR_SCORES", type=commands.path)
    parser.add_argument("--weights", default="equal")
    parser.add_argument("--error", default="top5", choices=ERRORS, help="that search makes small")
    parser.add_argument("--out", type=commands.path)
    flags = parser.parse_args(arguments)
    members = [score_files.scores_of(s, flags.split, flags.protocol) for s in flags.scores]
    check_alike(members)
    label = members[0].scores.label
    scores = [m.scores.scores for m in members]
    labelled = bool((label >= 0).all())
    searched = flags.weights == "search"
    if searched and not labelled:
        raise EvaluationError(
            f"{members[0].path}: no labels to find weights by; find them on validation and give "
            "them here (--weights=W1,W2,...)"
        )
    weights, reported = np.ones(len(members)), np.arange(len(label))
    if searched:
        order = np.random.default_rng(0).permutation(len(label))
        half, reported = order[: len(label) // 2], np.sort(order[len(label) // 2 :])
        k, own = ERRORS[flags.error], label[half]
        # In float32 many would be 0, and rank by class number.
        probabilities = [np.exp(s[half].astype(np.float64)) for s in scores]
        weights = search(probabilities, lambda p: int(misses(p, own, k).sum()))
    elif flags.weights != "equal":
        weights = _given_weights(flags.weights, len(members))
    result: dict[str, Any] = {
        "split": members[0].split,
        "examples": len(reported),
        "weights": weights.tolist(),
    }
    if labelled:
        result |= _errors(members, weights, label, reported)
    try:
        if flags.out is not None:
            _keep(flags.out, members, weights)
            print(f"{flags.out}: the average")
    finally:
        print(json.dumps(result))


def _errors(
    members: Sequence[Kept],
    weights: np.ndarray,
    label: np.ndarray,
    rows: np.ndarray,
) -> dict[str, Any]:
    """Prints a table of errors on the examples at `rows`; returns them for the JSON object."""

    def errors(values: np.ndarray) -> dict[str, float]:
        return {
            f"{name}_error": float(misses(values, label[rows], k).mean())
            for name, k in ERRORS.items()
        }

    labels, scores = _labels(members), [m.scores.scores[rows] for m in members]
    table = {name: errors(of_member) for name, of_member in zip(labels, scores, strict=True)}
    found: dict[str, Any] = {"members": [{"scores": name, **table[name]} for name in labels]}
    table["mean"] = found["mean"] = errors(averaged(scores, np.ones(len(weights))))
    if (weights != weights[0]).any():
        said = ", ".join(f"{w:g}" for w in weights)
        table[f"weighted by {said}"] = found["weighted"] = errors(averaged(scores, weights))
    width = max(map(len, table))
    print(f"{members[0].split}, {len(rows)} examples".ljust(width), "  top-1   top-5")
    for name, e in table.items():
        print(name.ljust(width), f"{e['top1_error']:7.2%} {e['top5_error']:7.2%}")
    return found


def _keep(path: Path, members: Sequence[Kept], weights: np.ndarray) -> None:
    """Writes the average as a score file, log-probabilities again."""
    scores = averaged([m.scores.scores for m in members], weights).astype(np.float32)
    first = members[0]
    names = dict(zip(first.scores.index.tolist(), first.name.tolist(), strict=True))
    said = "+".join(f"{w:g}*{name}" for w, name in zip(weights, _labels(members), strict=True))
    score_files.write_scores(
        path, Scores(first.scores.index, scores, first.scores.label), names.__getitem__, said, "",
        split=first.split, protocol="ensemble", class_names=first.class_names or (),
    )  # fmt: skip


if __name__ == "__main__":
    commands.main(run)
