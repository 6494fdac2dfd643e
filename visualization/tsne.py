"""Images laid out so that those with similar features lie together: t-SNE of a layer.

The pictures follow Karpathy's (cs.stanford.edu/people/karpathy/cnnembed): thumbnails at their
places (tsne.png) and on a filled grid (tsne_grid.png). Karpathy fills each cell with the nearest
image; here every image gets one cell at most, such that the sum of squared distances is minimal.
The embedding is scikit-learn's Barnes-Hut t-SNE (van der Maaten 2014) on Euclidean distances.
"""

import argparse
import math
from collections.abc import Generator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment
from sklearn.manifold import TSNE

from configs.common import ConfigError
from visualization import command_line, pictures
from visualization.command_line import at_least, positive
from visualization.opening import Opened

_THUMB = 4  # pixels of an image's side, at least


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("--layer", help="The last hidden layer by default.")
    parser.add_argument("--limit", type=positive, default=1000, help="Images, drawn at random.")
    parser.add_argument("--perplexity", type=float, default=30.0, help="See scikit-learn.")
    parser.add_argument(
        "--size", type=at_least(_THUMB), default=1000, help="Pixels of a picture's side."
    )
    command_line.add_seed(parser, "Of the choice, and of t-SNE.")


def check(features: np.ndarray, perplexity: float, layer: str) -> None:
    """Checks what t-SNE, which begins with two principal components, cannot do without.

    Args:
      features: [n, d].
      perplexity: see scikit-learn.
      layer: name of the features' layer.

    Raises:
      ConfigError: too few or equal images or features, or a perplexity for more images.
    """
    count, width = features.shape
    if not 0 < perplexity < count:
        raise ConfigError(
            f"--perplexity={perplexity:g}: above 0 and below the number of images, "
            f"which is {count}; change it, or --limit"
        )
    if count < 2:
        raise ConfigError("one image has no place among others; choose a larger --limit")
    if width < 2:
        raise ConfigError(f"--layer={layer}: one feature, and two are needed; choose another layer")
    if (features == features[0]).all():
        raise ConfigError(
            f"--layer={layer}: its features are equal for all {count} images, which nothing can "
            "lay out; choose another layer, or a larger --limit"
        )


def places(features: np.ndarray, *, perplexity: float, seed: int) -> np.ndarray:
    """t-SNE of features [n, d]: float64 [n, 2], each axis in 0..1."""
    found = TSNE(perplexity=perplexity, random_state=seed, init="pca").fit_transform(features)
    low, high = found.min(axis=0), found.max(axis=0)
    return ((found - low) / np.maximum(high - low, 1e-12)).astype(np.float64)


def cells(where: np.ndarray, side: int) -> np.ndarray:
    """Fills a grid of side x side with images near their places, each at most once.

    Args:
      where: [n, 2] in 0..1, (x, y), of at least side * side images.
      side: cells along each axis.

    Returns:
      int [side, side], the image in each cell.
    """
    steps = (np.arange(side) + 0.5) / side
    centres = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    cost = ((centres[:, None] - where[None]) ** 2).sum(axis=-1)
    return linear_sum_assignment(cost)[1].reshape(side, side)


def draw(arguments: argparse.Namespace, opened: Opened) -> Generator[Path, None, None]:
    """Writes tsne.png and tsne_grid.png."""
    layer = opened.layer(arguments.layer or opened.last_hidden)
    found = list(opened.features(layer, limit=arguments.limit, seed=arguments.seed))
    features = np.concatenate([values for values, _ in found])
    images = opened.shown(np.concatenate([batch["image"] for _, batch in found]))
    check(features, arguments.perplexity, layer)
    where = places(features, perplexity=arguments.perplexity, seed=arguments.seed)
    side = math.isqrt(len(images))
    thumb = max(arguments.size // side, _THUMB)
    small = np.stack([np.asarray(Image.fromarray(i).resize((thumb, thumb))) for i in images])
    canvas = np.full((arguments.size, arguments.size, 3), 255, np.uint8)
    for image, (x, y) in zip(small, where, strict=True):
        left, top = (round(v * (arguments.size - thumb)) for v in (x, y))
        canvas[top : top + thumb, left : left + thumb] = image
    yield pictures.save(canvas, opened.out("tsne.png"))
    filled = small[cells(where, side).ravel()]
    yield pictures.save(pictures.grid(filled, side, gap=0), opened.out("tsne_grid.png"))


if __name__ == "__main__":
    command_line.main(__doc__, add_flags, draw)
