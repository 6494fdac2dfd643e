"""Test-time protocols: which views of an image are averaged."""

import numpy as np

PROTOCOLS = ("center_crop", "ten_view", "nine_crop")


def views(protocol: str, resize: int, crop: int) -> np.ndarray:
    """The views of a protocol.

    Args:
      protocol: `center_crop`, or `ten_view` for the four corners and the centre and
        their mirror images (Krizhevsky et al. 2012, section 4.1), or `nine_crop` for a grid
        of three by three (cuda-convnet's CIFAR-10 test).
      resize: pixels of the square image.
      crop: pixels of a view.

    Returns:
      int32 [views, 3]: y, x, and 1 if mirrored.

    Raises:
      ValueError: an unknown protocol.
    """
    far, middle = resize - crop, (resize - crop) // 2
    if protocol == "center_crop":
        return np.array([[middle, middle, 0]], np.int32)
    if protocol == "ten_view":
        corners = [(0, 0), (0, far), (middle, middle), (far, 0), (far, far)]
        return np.array([(y, x, flip) for flip in (0, 1) for y, x in corners], np.int32)
    if protocol == "nine_crop":
        places = (0, middle, far)
        return np.array([(y, x, 0) for y in places for x in places], np.int32)
    raise ValueError(f"evaluation.protocol={protocol}: choose one of {', '.join(PROTOCOLS)}")
