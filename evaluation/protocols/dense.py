"""Protocols in which the network slides over the whole image."""

from collections.abc import Sequence

from evaluation.preprocessing import Preprocessing
from evaluation.protocols.crops import grids
from evaluation.protocols.protocol import Dense, Images, Look, Protocol


def dense(
    preprocessing: Preprocessing, scales: Sequence[int] = (), dense_average: str = "scores"
) -> Protocol:
    """Averages over all positions in the whole image and in its mirror image.

    Simonyan and Zisserman 2015, section 3.2: fully connected layers become convolutions, the map
    of scores is averaged over positions, and the softmax of that average is averaged over mirror
    images and scales. A network that ends in global average pooling pools the larger map instead.

    Args:
      preprocessing: how the network's input images are made.
      scales: shorter sides of the rescaled images, in pixels; () for that of `preprocessing`.
      dense_average: what is averaged over positions: `scores` or `probabilities`.
    """
    return Protocol("dense", _whole(scales or (preprocessing.resize,), Dense(dense_average)))


def multi_scale(
    preprocessing: Preprocessing,
    scales: Sequence[int] = (224, 256, 384, 480, 640),
    dense_average: str = "scores",
) -> Protocol:
    """`dense` at five scales, averaging probabilities (He et al. 2015, section 3.4).

    The paper does not say whether the scores that it averages over scales are probabilities or
    logits. Here they are probabilities; `multi_scale_logits` is the other reading. See `dense`
    for the arguments.
    """
    return Protocol("multi_scale", _whole(scales, Dense(dense_average)))


def multi_scale_logits(
    preprocessing: Preprocessing,
    scales: Sequence[int] = (224, 256, 384, 480, 640),
    dense_average: str = "scores",
) -> Protocol:
    """`multi_scale` with logits averaged in place of probabilities."""
    return Protocol("multi_scale_logits", _whole(scales, Dense(dense_average)), average="scores")


def multi_crop_and_dense(
    preprocessing: Preprocessing, scales: Sequence[int] = (), dense_average: str = "scores"
) -> Protocol:
    """The mean of `multi_crop` and `dense` (Simonyan and Zisserman 2015, section 4.3).

    See `dense` for the arguments.
    """
    looks = []
    for look in grids(preprocessing, scales):
        (crops,) = look.views
        # The image and its mirror image each weigh as much as half of the crops, so that `dense`
        # and `multi_crop` weigh the same.
        whole = Dense(dense_average, weight=crops.count // 2)
        looks.append(Look(look.images, (crops, whole)))
    return Protocol("multi_crop_and_dense", tuple(looks))


def overfeat(
    preprocessing: Preprocessing,
    scales: Sequence[int] = (245, 281, 317, 389, 425, 461),
    dense_average: str = "scores",
) -> Protocol:
    """The largest score of each class over all positions, averaged over mirror images and scales.

    Sermanet et al. 2014, section 3.3 and table 5: the windows of the last pool start at every
    offset below the pool's stride (three by three offsets in the paper). The positions are then as
    dense as the pool's input.

    Args:
      preprocessing: how the network's input images are made.
      scales: shorter sides of the rescaled images, in pixels.
      dense_average: what the maximum is taken of, `scores` or `probabilities`. The average over
        mirror images and scales is of the same. The paper specifies neither.
    """
    views = Dense(dense_average, maximum=True, offsets=True)
    return Protocol("overfeat", _whole(scales, views), average=dense_average)


def dense_boxes(
    preprocessing: Preprocessing, scales: Sequence[int] = (), dense_average: str = "scores"
) -> Protocol:
    """Boxes of the five most probable classes at all positions in the whole image, merged.

    Simonyan and Zisserman 2015, appendix A.1. For networks that regress boxes, beside a classifier.

    Args:
      preprocessing: how the regressor's input images are made.
      scales: shorter sides of the rescaled images, in pixels; () for that of `preprocessing`.
      dense_average: as in `dense`, of the classifier. Without mirror images.
    """
    looks = _whole(scales or (preprocessing.resize,), Dense(dense_average))
    return Protocol("dense_boxes", looks, average="outputs")


def dense_boxes_true_class(preprocessing: Preprocessing, scales: Sequence[int] = ()) -> Protocol:
    """`dense_boxes` of the true class alone; a classifier is not needed, but weighs the windows."""
    looks = _whole(scales or (preprocessing.resize,), Dense())
    return Protocol("dense_boxes_true_class", looks, average="outputs")


def overfeat_boxes(
    preprocessing: Preprocessing,
    scales: Sequence[int] = (245, 281, 389, 461),
    dense_average: str = "scores",
) -> Protocol:
    """`dense_boxes` with the windows of the last pool at every offset, and of each class's maximum.

    Sermanet et al. 2014, section 4.3, whose four scales of localization are not published: here
    those of its classification (table 2).
    """
    views = Dense(dense_average, maximum=True, offsets=True)
    return Protocol("overfeat_boxes", _whole(scales, views), average="outputs")


def _whole(scales: Sequence[int], views: Dense) -> tuple[Look, ...]:
    return tuple(Look(Images(side, whole=True), (views,)) for side in scales)
