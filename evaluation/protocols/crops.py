"""Protocols that average over crops of the square that training took its crops from."""

import numpy as np

from evaluation.preprocessing import Preprocessing
from evaluation.protocols.protocol import Images, Protocol


def center_crop(preprocessing: Preprocessing) -> Protocol:
    """The central crop."""
    _, middle, _ = _places(preprocessing)
    return _protocol("center_crop", preprocessing, [(middle, middle, 0)])


def ten_view(preprocessing: Preprocessing) -> Protocol:
    """Four corners, the centre, and their mirror images (Krizhevsky et al. 2012, section 4.1)."""
    near, middle, far = _places(preprocessing)
    corners = [(near, near), (near, far), (middle, middle), (far, near), (far, far)]
    views = [(y, x, flip) for flip in (0, 1) for y, x in corners]
    return _protocol("ten_view", preprocessing, views)


def nine_crop(preprocessing: Preprocessing) -> Protocol:
    """A grid of three by three (cuda-convnet's CIFAR-10 test)."""
    places = _places(preprocessing)
    return _protocol("nine_crop", preprocessing, [(y, x, 0) for y in places for x in places])


def _places(preprocessing: Preprocessing) -> tuple[int, int, int]:
    """Offsets of a crop at the near edge, in the middle, and at the far edge."""
    far = preprocessing.square - preprocessing.crop
    return 0, far // 2, far


def _protocol(
    name: str, preprocessing: Preprocessing, views: list[tuple[int, int, int]]
) -> Protocol:
    images = Images(preprocessing.resize, preprocessing.pad)
    return Protocol(name, images, np.array(views, np.int32))
