"""Trained networks that come with the project: a `.safetensors` file and a model card each.

The file is what `--mode=export` wrote. The card, `NAME.md`, begins with lines `field: value`
between two lines `---`: the fields of `FIELDS`. The rest of it says how the network was trained.
"""

import difflib
import hashlib
from pathlib import Path

_HERE = Path(__file__).parent
# What the front matter of a card says.
FIELDS = (
    "network",
    "dataset",
    "test_error",  # percent, as --mode=evaluate measures it
    "protocol",  # which --mode=evaluate uses then
    "parameters",
    "sha256",  # of the file
    "license",  # of the weights
    "data_license",
    "data_source",
)


def names() -> list[str]:
    """The names of the networks, sorted."""
    return sorted(path.stem for path in _HERE.glob("[!.]*.safetensors"))


def path_of(name: str) -> Path:
    """The file of a network, after its checksum has been compared with the card's.

    Raises:
      ValueError: there is no such network, or its file or card is damaged; the message lists the
        networks, or says what is wrong with the file.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"{name}: there is no such file or run, nor a trained network of that name; {hint}"
            f"there are {', '.join(names())}"
        )
    path = _HERE / f"{name}.safetensors"
    try:
        digest, expected = hashlib.sha256(path.read_bytes()).hexdigest(), card(name)["sha256"]
    except OSError as error:
        raise ValueError(f"{name}: {path} cannot be read ({error.strerror})") from error
    if digest != expected:
        raise ValueError(
            f"{name}: {path} is damaged, or is not the file of its card (SHA-256 {digest[:12]}..., "
            f"in the card {expected[:12]}...); install the project again, or git checkout {path}"
        )
    return path


def card(name: str) -> dict[str, str]:
    """The front matter of a network's card: field -> value, as text.

    Raises:
      ValueError: there is no such card, or its front matter lacks a field.
    """
    path = _HERE / f"{name}.md"
    try:
        _, front, _ = path.read_text(encoding="utf-8").split("---\n", 2)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else "no lines between two of ---"
        raise ValueError(f"{name}: its card {path} cannot be read ({said})") from error
    pairs = (line.partition(": ") for line in front.splitlines())
    found = {field: value for field, _, value in pairs}
    if lacking := [field for field in FIELDS if field not in found]:
        raise ValueError(f"{name}: its card {path} lacks {', '.join(lacking)}")
    return found
