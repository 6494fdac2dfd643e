"""Protocols that average over crops."""

from collections.abc import Sequence

import numpy as np

from evaluation.preprocessing import Preprocessing
from evaluation.protocols.protocol import Crops, Images, Look, Protocol

# (row, column) in a grid of three by three places.
_CENTRE = (1, 1)
_CORNERS = [(0, 0), (0, 2), (2, 0), (2, 2)]
_FIVE = [*_CORNERS[:2], _CENTRE, *_CORNERS[2:]]


def center_crop(preprocessing: Preprocessing) -> Protocol:
    """The central crop."""
    return _of_square("center_crop", preprocessing, [(*_CENTRE, 0)])


def center_crop_true_class(preprocessing: Preprocessing) -> Protocol:
    """The box of the true class in the central crop; for networks that regress boxes.

    Simonyan and Zisserman 2015, appendix A.1, compare their networks so.
    """
    return _of_square("center_crop_true_class", preprocessing, [(*_CENTRE, 0)], average="outputs")


def ten_view(preprocessing: Preprocessing) -> Protocol:
    """Four corners, the centre, and their mirror images (Krizhevsky et al. 2012, section 4.1).

    The order is that of the released code: the upper corners, the centre, the lower corners; then
    the mirror images in the same order.
    """
    return _of_square("ten_view", preprocessing, _and_mirrored(_FIVE))


def ten_view_logits(preprocessing: Preprocessing) -> Protocol:
    """The ten views of fb.resnet.torch (datasets/transforms.lua, train.lua), which averages logits.

    The order is the centre and the corners of the image, then the centre and the corners of the
    mirrored image, whose left corners are the original's right corners. The corners are those of
    the whole rescaled image, not of its central square. Difference: where an odd number of pixels
    is left, the centre may begin one pixel earlier than there.
    """
    mirrored = [(y, 2 - x, 1) for y, x in (_CENTRE, *_CORNERS)]
    views = [(y, x, 0) for y, x in (_CENTRE, *_CORNERS)] + mirrored
    look = Look(
        Images(preprocessing.resize, whole=True), (Crops(preprocessing.crop, _views(views)),)
    )
    return Protocol("ten_view_logits", (look,), average="scores")


def nine_crop(preprocessing: Preprocessing) -> Protocol:
    """A grid of three by three crops, without mirror images (cuda-convnet2's CIFAR-10 test)."""
    views = [(y, x, 0) for y in range(3) for x in range(3)]
    return _of_square("nine_crop", preprocessing, views)


def multi_crop(preprocessing: Preprocessing, scales: Sequence[int] = ()) -> Protocol:
    """Five by five crops over the whole image, with their mirror images, at each scale.

    Simonyan and Zisserman 2015, section 3.2: 50 crops per scale, 150 at three scales.

    Args:
      preprocessing: how the network's input images are made.
      scales: shorter sides of the rescaled images, in pixels; () for that of `preprocessing`.
    """
    return Protocol("multi_crop", grids(preprocessing, scales))


def grids(preprocessing: Preprocessing, scales: Sequence[int]) -> tuple[Look, ...]:
    """The looks of `multi_crop`, one per scale; its arguments are the same."""
    views = _views(_and_mirrored([(y, x) for y in range(5) for x in range(5)]))
    return tuple(
        Look(Images(side, whole=True), (Crops(preprocessing.crop, views, places=5),))
        for side in scales or (preprocessing.resize,)
    )


def crops_144(
    preprocessing: Preprocessing, scales: Sequence[int] = (256, 288, 320, 352)
) -> Protocol:
    """The 144 crops of Szegedy et al. 2015, section 7: twelve views of three squares per scale.

    The squares are the left, central and right ones of a landscape image, or the upper, central
    and lower ones of a portrait image. The views of a square are the ten of `ten_view` in its
    order, then the whole square rescaled to the crop size, and its mirror image.

    Args:
      preprocessing: how the network's input images are made.
      scales: shorter sides of the rescaled images, in pixels.
    """
    ten, whole = _views(_and_mirrored(_FIVE)), _views([(0, 0, 0), (0, 0, 1)])

    def squares(side: int) -> tuple[Crops, ...]:
        return tuple(
            Crops(size, views, square=square)
            for square in range(3)
            for size, views in ((preprocessing.crop, ten), (side, whole))
        )

    looks = tuple(Look(Images(side, whole=True), squares(side)) for side in scales)
    return Protocol("crops_144", looks)


def _and_mirrored(places: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    return [(y, x, flip) for flip in (0, 1) for y, x in places]


def _views(views: list[tuple[int, int, int]]) -> np.ndarray:
    return np.array(views, np.int32)


def _of_square(
    name: str,
    preprocessing: Preprocessing,
    views: list[tuple[int, int, int]],
    average: str = "probabilities",
) -> Protocol:
    """Crops of the square that training takes its crops from, at three places along each axis."""
    images = Images(preprocessing.resize, preprocessing.pad)
    look = Look(images, (Crops(preprocessing.crop, _views(views)),))
    return Protocol(name, (look,), average)
