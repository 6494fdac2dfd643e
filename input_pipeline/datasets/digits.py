"""scikit-learn's 1,797 handwritten digits, 8x8 pixels of 17 grey levels."""

import numpy as np

from input_pipeline import sources
from input_pipeline.datasets.layout import Asked, Found
from input_pipeline.sources import Examples


def find(asked: Asked) -> Found:
    """Finds the digits, which need no directory. All of them are in `train`."""
    from sklearn.datasets import load_digits

    def opened() -> Examples:
        data = load_digits()
        grey = np.rint(data.images * (255 / 16)).astype(np.uint8)
        images = np.repeat(grey[..., None], 3, axis=-1)
        return sources.from_arrays(images, data.target.astype(np.int32), "digits")

    return Found(
        {"train": opened},
        tuple(str(digit) for digit in range(10)),
        layout="embedded in scikit-learn",
        labels_from="scikit-learn",
    )
