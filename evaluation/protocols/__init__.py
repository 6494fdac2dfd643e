"""Test-time protocols by name. A new one is a function in a file here, and a line below."""

import dataclasses
from collections.abc import Callable

from evaluation.errors import EvaluationError
from evaluation.preprocessing import Preprocessing
from evaluation.protocols.crops import center_crop, nine_crop, ten_view
from evaluation.protocols.protocol import Images, Protocol

__all__ = ["PROTOCOLS", "Images", "Protocol", "center_crop", "check_protocol", "protocol_called"]

# How a network's images come about -> the protocol for it.
PROTOCOLS: dict[str, Callable[[Preprocessing], Protocol]] = {
    "center_crop": center_crop,
    "ten_view": ten_view,
    "nine_crop": nine_crop,
}


def protocol_called(name: str, preprocessing: Preprocessing) -> Protocol:
    """The protocol of a name, for a network's images.

    Raises:
      EvaluationError: see `check_protocol`.
    """
    check_protocol(name)
    protocol = PROTOCOLS[name](preprocessing)
    far = protocol.images.square - preprocessing.crop
    outside = [view.tolist() for view in protocol.views if min(view[:2]) < 0 or max(view[:2]) > far]
    if outside:
        raise EvaluationError(
            f"evaluation.protocol={name}: a view at {outside[0]} is not in its image (crops of "
            f"{preprocessing.crop} pixels begin at 0 to {far})"
        )
    return dataclasses.replace(protocol, name=name)


def check_protocol(name: str) -> None:
    """Raises EvaluationError if there is no protocol of this name."""
    if name not in PROTOCOLS:
        raise EvaluationError(f"evaluation.protocol={name}: choose one of {', '.join(PROTOCOLS)}")
