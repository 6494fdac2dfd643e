"""Files that hold the labels of a challenge: where they lie, and how they are read.

- `ILSVRC2012_validation_ground_truth.txt` of the development kit: line k is the ID, 1 to 1000, of
  image k. IDs are not places among the sorted synsets: the kit's `meta.mat`, or `map_clsloc.txt`,
  says which synset each is. Also from the kit as downloaded, a .tar.gz.
- `LOC_val_solution.csv` of Kaggle: an image, then its synset and boxes.
- `val.txt` of Caffe: an image, then its place among the sorted synsets.
"""

import csv
import dataclasses
import functools
import io
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from input_pipeline.errors import DataError, first_line
from input_pipeline.names import listed, shown

# Patterns in file names by the year of the challenge; later kits are of the images of 2012.
_YEAR = {2010: "ILSVRC2010", 2012: "ILSVRC201[2-7]"}
_GROUND_TRUTH = "{}_(clsloc_)?{}_ground_truth\\.txt"
_KIT = "{}_devkit.*\\.(tar\\.gz|tgz|tar)"
_MAPS = ("meta.mat", "map_clsloc.txt")


class Labels(NamedTuple):
    """Labels by the name of an image, without its suffix.

    Attributes:
      source: the file that they are from.
      of: name -> label.
      lines: number of lines of a ground truth, which numbers its images; 0 for other sources.
    """

    source: str
    of: Mapping[str, int]
    lines: int = 0


@dataclasses.dataclass(frozen=True)
class Challenge:
    """A year's challenge.

    Attributes:
      year: 2010 or 2012.
      synsets: in the order of their labels.
    """

    year: int
    synsets: tuple[str, ...]

    @functools.cached_property
    def label_of(self) -> dict[str, int]:
        """Synset -> its label."""
        return {synset: label for label, synset in enumerate(self.synsets)}


def read(path: Path, challenge: Challenge, split: str, places: Sequence[Path]) -> Labels | None:
    """Reads the labels in a file; None if it is a development kit without labels of that split.

    Args:
      path: a source of labels.
      challenge, split: the challenge and the split that the labels are of.
      places: directories searched, with their folders, for the map of a ground truth.

    Raises:
      DataError: the file is damaged or has another form, or the map of a ground truth is missing.
    """
    if is_kit(path):
        return _from_kit(path, challenge, split)
    return _from_text(path, challenge, split, places)


def is_kit(path: Path) -> bool:
    """Whether a file is named as a development kit."""
    return re.fullmatch(_KIT.format("ILSVRC.*"), path.name) is not None


def those_there(challenge: Challenge, split: str, places: Sequence[Path]) -> list[Path]:
    """Finds the files that may hold the labels of a split, in the order in which they are tried.

    These are ground truths, Kaggle's solution, Caffe's list, and development kits.

    Args:
      challenge, split: the challenge and the split that the labels are of.
      places: directories that are searched, and the folders in them.
    """
    searched = [folder for place in places for folder in _folders(place)]
    year = _YEAR[challenge.year]
    others = [r"LOC_val_solution\.csv", r"val\.txt"] if split == "validation" else []
    patterns = [_GROUND_TRUTH.format(year, split), *others, _KIT.format(year)]
    found = [path for pattern in patterns for path in _named(searched, pattern)]
    return [path for path in dict.fromkeys(found) if not is_kit(path) or _may_hold(path, split)]


def _may_hold(kit: Path, split: str) -> bool:
    try:
        return _truth_in(_kit_files(kit), split) is not None
    except DataError:  # said when it is opened
        return True


class _NoMapError(DataError):
    """A ground truth without the map of its IDs."""


def class_map(places: Sequence[Path], year: int) -> tuple[tuple[str, ...], str]:
    """The synsets of a challenge in the order of their IDs, and the file that gives this order.

    Raises:
      DataError: no file gives it.
    """
    searched = [folder for place in places for folder in _folders(place)]
    for name in _MAPS:
        for path in _named(searched, re.escape(name)):
            return _ids(path.name, path.read_bytes(), shown(path)), shown(path)
    for path in _named(searched, _KIT.format(_YEAR[year])):
        files = _kit_files(path)
        for name in _MAPS:
            if name in files:
                source = f"{shown(path)}/{name}"
                return _ids(name, files[name], source), source
    raise _NoMapError(
        f"{shown(places[0])}: the order of the classes of ILSVRC-{year} is in its development kit; "
        f"looked for ILSVRC{year}_devkit*.tar.gz and meta.mat there. Put it beside the images"
    )


def _folders(place: Path) -> list[Path]:
    """A directory, its folders, and the folder `data` of each: kits and lists may lie there."""
    if not place.is_dir():
        return []
    inside = sorted(path for path in place.glob("*") if path.is_dir() and not path.is_symlink())
    return [place, *inside, *(path / "data" for path in inside if (path / "data").is_dir())]


def _named(folders: Iterable[Path], pattern: str) -> list[Path]:
    """Files in these folders whose whole name matches a regular expression."""
    found = []
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                matching = [entry.name for entry in entries if re.fullmatch(pattern, entry.name)]
        except OSError:
            continue
        found += [folder / name for name in sorted(matching)]
    return [path for path in found if path.is_file()]


def _from_text(path: Path, challenge: Challenge, split: str, places: Sequence[Path]) -> Labels:
    """Labels from a file of any of the three kinds; its first line tells which."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{shown(path)}: cannot be read ({first_line(error)})") from error
    return _parse(
        text, shown(path), challenge, split, lambda: _map_beside(path, places, challenge.year)
    )


def _map_beside(path: Path, places: Sequence[Path], year: int) -> tuple[str, ...]:
    try:
        return class_map([path.parent, *places], year)[0]
    except _NoMapError as error:
        raise _NoMapError(
            f"{shown(path)}: its numbers are IDs of the development kit, which are not in the "
            f"order of the synsets: looked for {' or '.join(_MAPS)} beside it. Both are in "
            f"ILSVRC{year}_devkit*.tar.gz, which can lie there as it is"
        ) from error


def _parse(text: str, source: str, challenge: Challenge, split: str, ids: Any) -> Labels:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{source}: empty")
    if lines[0].lstrip("-").isdecimal():
        return _ground_truth(lines, source, challenge, split, ids())
    known = challenge.label_of | {str(label): label for label in range(len(challenge.synsets))}
    if "," in lines[0]:
        try:
            rows = [row for row in csv.reader(io.StringIO(text)) if row]
        except csv.Error as error:
            raise DataError(f"{source}: damaged ({error}); get it again") from error
        entries = [(row[0], row[1].split()) for row in rows if len(row) > 1]
        if entries and not (entries[0][1] and entries[0][1][0] in known):  # column names
            rows, entries = rows[1:], entries[1:]
        pairs = [(name, words[0]) for name, words in entries if words]
        invalid = len(rows) - len(pairs)
    else:
        split_lines = [line.split() for line in lines]
        pairs = [(words[0], words[1]) for words in split_lines if len(words) == 2]
        invalid = len(lines) - len(pairs)
    if invalid or not pairs:
        raise DataError(
            f"{source}: {invalid} lines are no image and label, such as {lines[-1][:60]!r}; known "
            "are a ground truth (a number a line), `IMAGE LABEL`, and Kaggle's solution"
        )
    unknown = [f"{name} {label}" for name, label in pairs if label not in known]
    if unknown:
        raise DataError(
            f"{source}: labels of {len(unknown):,} of {len(pairs):,} images are neither synsets "
            f"nor 0 to {len(challenge.synsets) - 1}, places among these ({listed(unknown, 3)})"
        )
    label_of: dict[str, int] = {}
    for name, label in pairs:
        earlier = label_of.setdefault(_stem(name), known[label])
        if earlier != known[label]:
            raise DataError(
                f"{source}: two labels of {_stem(name)}, {challenge.synsets[earlier]} and "
                f"{challenge.synsets[known[label]]}; leave one of them there"
            )
    return Labels(source, label_of)


def _stem(name: str) -> str:
    return re.sub(r"\.jpe?g$", "", re.split(r"[/\\]", name)[-1], flags=re.IGNORECASE)


def _ground_truth(
    lines: Sequence[str], source: str, challenge: Challenge, split: str, ids: tuple[str, ...]
) -> Labels:
    count = len(challenge.synsets)
    invalid = [
        f"line {number}: {line[:20]}"
        for number, line in enumerate(lines, 1)
        if not line.isdecimal() or not 1 <= int(line) <= count
    ]
    if invalid:
        raise DataError(
            f"{source}: {len(invalid):,} of {len(lines):,} lines are no IDs, 1 to {count} "
            f"({listed(invalid, 3)}); get it again"
        )
    unknown = [synset for synset in ids[:count] if synset not in challenge.label_of]
    if unknown or len(ids) < count:
        raise DataError(
            f"{source}: the map of its IDs is of another challenge ({len(ids)} classes, "
            f"{listed(unknown, 3)} not of ILSVRC-{challenge.year})"
        )
    prefix = f"ILSVRC{challenge.year}_{'val' if split == 'validation' else 'test'}"
    return Labels(
        source,
        {
            f"{prefix}_{number:08d}": challenge.label_of[ids[int(line) - 1]]
            for number, line in enumerate(lines, 1)
        },
        len(lines),
    )


def _ids(name: str, content: bytes, source: str) -> tuple[str, ...]:
    """The synsets of a map in the order of their IDs.

    The array `synsets` of meta.mat has the fields ILSVRC<year>_ID and WNID. IDs 1 to 1000 are the
    classes; the synsets above them in WordNet have higher IDs. A line of map_clsloc.txt is WNID,
    ID, word.
    """
    try:
        if name.endswith(".mat"):
            from scipy.io import loadmat

            synsets = loadmat(io.BytesIO(content), squeeze_me=True)["synsets"]
            (field,) = (f for f in synsets.dtype.names if re.fullmatch(r"ILSVRC\d{4}_ID", f))
            pairs = [(int(i), str(w)) for i, w in zip(synsets[field], synsets["WNID"], strict=True)]
        else:
            rows = [line.split() for line in content.decode().splitlines() if line.strip()]
            pairs = [(int(row[1]), row[0]) for row in rows]
    except Exception as error:  # SciPy's reader fails on damage in many ways
        raise DataError(f"{source}: damaged ({first_line(error)}); get the kit again") from error
    synset_of = dict(pairs)
    classes = tuple(synset_of.get(number, "") for number in range(1, 1001))
    return tuple(synset for synset in classes if synset)


def _from_kit(path: Path, challenge: Challenge, split: str) -> Labels | None:
    """Labels from a development kit as downloaded; None if it has no labels of that split."""
    files = _kit_files(path)
    truth = _truth_in(files, split)
    if truth is None:
        return None
    source = f"{shown(path)}/{truth}"

    def ids() -> tuple[str, ...]:
        for name in _MAPS:
            if name in files:
                return _ids(name, files[name], f"{shown(path)}/{name}")
        raise DataError(f"{shown(path)}: neither {' nor '.join(_MAPS)} in it; get it again")

    return _parse(files[truth].decode(errors="replace"), source, challenge, split, ids)


def _truth_in(files: Iterable[str], split: str) -> str | None:
    """The name of a split's ground truth among the files of a kit; None if it is missing."""
    pattern = _GROUND_TRUTH.format("ILSVRC.*", split)
    return next((name for name in files if re.fullmatch(pattern, name)), None)


def _kit_files(path: Path) -> dict[str, bytes]:
    """The content of a development kit's ground truths and maps, by file name."""
    wanted = "|".join([r"ILSVRC.*_ground_truth\.txt", *map(re.escape, _MAPS)])
    found = {}
    try:
        with tarfile.open(path) as kit:
            for member in kit:
                name = member.name.rsplit("/", 1)[-1]
                if member.isfile() and re.fullmatch(wanted, name):
                    content = kit.extractfile(member)
                    assert content is not None
                    found[name] = content.read()
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{shown(path)}: damaged ({first_line(error)}); get it again") from error
    return found
