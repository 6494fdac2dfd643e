"""Protocols in which the network slides over the whole image."""

from collections.abc import Sequence

from evaluation.preprocessing import Preprocessing
from evaluation.protocols.crops import grids
from evaluation.protocols.protocol import Dense, Images, Look, Protocol


def dense(
    preprocessing: Preprocessing, scales: Sequence[int] = (), dense_average: str = "scores"
) -> Protocol:
    """The average over all positions in the whole image and in its mirror image.

    Simonyan and Zisserman 2015, section 3.2: fully connected layers become convolutions, the map of
    scores is averaged, and the softmax of that over mirror images and scales. For networks that
    end in a pool over all their map, it is the pool over the larger map.

    Args:
      preprocessing: of the network's images.
      scales: pixels of the shorter side; by default that of `preprocessing`.
      dense_average: what is averaged over positions: `scores`, or `probabilities`.
    """
    return Protocol("dense", _whole(scales or (preprocessing.resize,), Dense(dense_average)))


def multi_scale(
    preprocessing: Preprocessing,
    scales: Sequence[int] = (224, 256, 384, 480, 640),
    dense_average: str = "scores",
) -> Protocol:
    """He et al. 2015, section 3.4: as `dense`, at five scales.

    The paper does not say whether the scores that it averages over the scales are probabilities;
    here they are, as those of the authors' ten views.
    """
    return Protocol("multi_scale", _whole(scales, Dense(dense_average)))


def multi_scale_logits(
    preprocessing: Preprocessing,
    scales: Sequence[int] = (224, 256, 384, 480, 640),
    dense_average: str = "scores",
) -> Protocol:
    """The same with the average of the logits, the other reading of that section."""
    return Protocol("multi_scale_logits", _whole(scales, Dense(dense_average)), average="scores")


def multi_crop_and_dense(
    preprocessing: Preprocessing, scales: Sequence[int] = (), dense_average: str = "scores"
) -> Protocol:
    """The mean of `multi_crop` and `dense` (Simonyan and Zisserman 2015, section 4.3)."""
    looks = []
    for look in grids(preprocessing, scales):
        (crops,) = look.views
        # Both of the two views of the whole image weigh as much as half of the crops.
        whole = Dense(dense_average, weight=crops.count // 2)
        looks.append(Look(look.images, (crops, whole)))
    return Protocol("multi_crop_and_dense", tuple(looks))


def overfeat(
    preprocessing: Preprocessing,
    scales: Sequence[int] = (245, 281, 317, 389, 425, 461),
    dense_average: str = "scores",
) -> Protocol:
    """The largest score of each class over all positions, averaged over mirror images and scales.

    Sermanet et al. 2014, section 3.3 and table 5: the windows of the last pool begin at every
    offset below their stride (three by three there), so that positions lie as close as the pixels
    below the pool.

    Args:
      preprocessing: of the network's images.
      scales: pixels of the shorter side.
      dense_average: whose maximum over positions is taken: `scores`, or `probabilities`. The
        paper says neither.
    """
    views = Dense(dense_average, maximum=True, offsets=True)
    return Protocol("overfeat", _whole(scales, views), average=dense_average)


def _whole(scales: Sequence[int], views: Dense) -> tuple[Look, ...]:
    return tuple(Look(Images(side, whole=True), (views,)) for side in scales)
