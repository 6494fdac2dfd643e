"""Test-time protocols by name. To add one, write its function here and list it in `PROTOCOLS`."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.masks import NONE, Masks
from evaluation.objective import CLASSES, Objective
from evaluation.preprocessing import Preprocessing
from evaluation.protocols.crops import (
    center_crop,
    center_crop_true_class,
    crops_144,
    multi_crop,
    nine_crop,
    ten_view,
    ten_view_logits,
)
from evaluation.protocols.dense import (
    dense,
    dense_boxes,
    dense_boxes_true_class,
    multi_crop_and_dense,
    multi_scale,
    multi_scale_logits,
    overfeat,
    overfeat_boxes,
)
from evaluation.protocols.protocol import Crops, Dense, Images, Look, Protocol

__all__ = [
    "PROTOCOLS",
    "Crops",
    "Dense",
    "Images",
    "Look",
    "Protocol",
    "center_crop",
    "center_crop_true_class",
    "check_objective",
    "check_protocol",
    "protocol_called",
    "training_protocol",
]

# Each function takes the network's preprocessing and returns a protocol. Its further arguments,
# which have defaults, are the protocol's options.
PROTOCOLS: dict[str, Callable[..., Protocol]] = {
    "center_crop": center_crop,
    "ten_view": ten_view,
    "nine_crop": nine_crop,
    "ten_view_logits": ten_view_logits,
    "multi_crop": multi_crop,
    "crops_144": crops_144,
    "dense": dense,
    "multi_crop_and_dense": multi_crop_and_dense,
    "multi_scale": multi_scale,
    "multi_scale_logits": multi_scale_logits,
    "overfeat": overfeat,
    "center_crop_true_class": center_crop_true_class,
    "dense_boxes": dense_boxes,
    "dense_boxes_true_class": dense_boxes_true_class,
    "overfeat_boxes": overfeat_boxes,
}


def protocol_called(
    name: str,
    preprocessing: Preprocessing,
    scales: Sequence[int] = (),
    dense_average: str = "scores",
    masks: Masks = NONE,
) -> Protocol:
    """Builds the protocol with this name for a network.

    Args:
      name: one of `PROTOCOLS`.
      preprocessing: how the network's input images are made.
      scales: shorter sides of the rescaled images, in pixels; () for the protocol's defaults.
      dense_average: what a dense protocol averages over positions: `scores` or `probabilities`.
        Other protocols ignore it.
      masks: of dropout, over which probabilities are averaged.

    Raises:
      EvaluationError: see `check_protocol`; masks for a protocol that does not average
        probabilities of crops; or a view lies outside its image.
    """
    check_protocol(name, scales)
    options: dict[str, Any] = {"scales": tuple(scales)} if scales else {}
    said = [name, *map(str, scales)]
    if "dense_average" in _options(name):
        options["dense_average"] = dense_average
        said += [dense_average] * (dense_average != "scores")
    protocol = PROTOCOLS[name](preprocessing, **options)
    if masks.count:
        said.append(masks.label)
        slides = any(isinstance(v, Dense) for look in protocol.looks for v in look.views)
        if slides or protocol.average != "probabilities":
            raise EvaluationError(
                f"evaluation.dropout_masks={masks.count}: {name} does not average probabilities of "
                "crops; choose center_crop, ten_view or another protocol that does"
            )
    for look in protocol.looks:
        _check_look(name, look, preprocessing, given=bool(scales))
    return dataclasses.replace(protocol, name=name, masks=masks, label="-".join(said))


def check_protocol(name: str, scales: Sequence[int] = ()) -> None:
    """Checks a protocol's name and scales as far as possible without a network.

    Args:
      name: of the protocol.
      scales: shorter sides of the rescaled images, in pixels; () for the protocol's defaults.

    Raises:
      EvaluationError: no protocol has this name, scales are given to a protocol that takes none,
        or a scale is given twice.
    """
    if name not in PROTOCOLS:
        raise EvaluationError(f"evaluation.protocol={name}: choose one of {', '.join(PROTOCOLS)}")
    if scales and "scales" not in _options(name):
        others = ", ".join(other for other in PROTOCOLS if "scales" in _options(other))
        raise EvaluationError(
            f"evaluation.scales={tuple(scales)}: {name} has one scale, data.resize; leave it out, "
            f"or choose a protocol that has several ({others})"
        )
    if len(set(scales)) < len(scales):
        raise EvaluationError(f"evaluation.scales={tuple(scales)}: a scale is there twice")


def check_objective(protocol: Protocol, objective: Objective) -> None:
    """Checks that a protocol evaluates what a network learns: classes, or boxes.

    Raises:
      EvaluationError: it does not.
    """
    boxes = objective is not CLASSES
    if protocol.of_boxes and not boxes:
        raise EvaluationError(
            f"evaluation.protocol={protocol.name}: it is for networks that regress boxes, and this "
            "one gives classes (loss.boxes=none); configs/localization.py trains one"
        )
    if boxes and not protocol.of_boxes:
        raise EvaluationError(
            f"evaluation.protocol={protocol.name}: it is for classes, and this network gives boxes "
            f"(loss.boxes={objective.name}); choose center_crop_true_class (in training "
            "evaluation.validation_protocol)"
        )


def training_protocol(name: str, preprocessing: Preprocessing) -> Protocol:
    """Builds a protocol for validation during training.

    Such a protocol uses only the square images from which training takes its crops.

    Raises:
      EvaluationError: no protocol has this name, or it needs other images.
    """
    squares = [Images(preprocessing.resize, preprocessing.pad)]
    fine = [
        other
        for other, make in PROTOCOLS.items()
        if [look.images for look in make(preprocessing).looks] == squares
    ]
    if name in fine:
        return protocol_called(name, preprocessing)
    raise EvaluationError(
        f"evaluation.validation_protocol={name}: training is watched by one of {', '.join(fine)}"
    )


def _options(name: str) -> list[str]:
    return list(inspect.signature(PROTOCOLS[name]).parameters)[1:]


def _check_look(name: str, look: Look, preprocessing: Preprocessing, *, given: bool) -> None:
    side = look.images.square
    crops = [views for views in look.views if isinstance(views, Crops)]
    smallest = max([preprocessing.crop, *(c.size for c in crops)])
    if side < smallest:
        scale = f"evaluation.scales: {side}" if given else f"a scale of {side} pixels"
        way_out = f"; choose --config.evaluation.scales of {smallest} and more"
        raise EvaluationError(
            f"evaluation.protocol={name}: {scale} is below the {smallest} pixels of a crop"
            + way_out * look.images.whole
        )
    for views in crops:
        outside = [v.tolist() for v in views.views if min(v[:2]) < 0 or max(v[:2]) >= views.places]
        if outside:
            raise EvaluationError(
                f"evaluation.protocol={name}: a view at {outside[0]} is not in its image (places "
                f"are 0 to {views.places - 1})"
            )
