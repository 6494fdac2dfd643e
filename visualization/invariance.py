"""How features respond to transformed images, as in Zeiler and Fergus 2014, Figure 5.

There is a row each for vertical shifts, enlargement and rotation. Its columns show (1) the images;
(2, 3) the Euclidean distance between the features of the transformed and of the original image, in
the first and in the last hidden layer; (4) the probability of the true class, or of the first guess
if the true class is unknown. Each curve is one image. Shifts are whole pixels, up to 60 of 224 in
proportion to the image's side. Areas outside the padded image are grey.
"""

import argparse
from collections.abc import Generator
from pathlib import Path

import numpy as np
from PIL import Image

from configs.common import ConfigError
from evaluation.words import words
from visualization import command_line, pictures
from visualization.command_line import at_least, positive
from visualization.guesses import short
from visualization.occlusion import probabilities
from visualization.opening import Opened

_GREY = (128, 128, 128)
_SHIFT = 60 / 224  # of what the network sees
_LARGEST = 1.8
_PIXELS = 64


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("--layers", help="Two, FIRST,LAST; the first and last hidden by default.")
    parser.add_argument("--count", type=positive, default=5, help="Images.")
    parser.add_argument("--steps", type=at_least(2), default=31, help="Of each kind of motion.")
    command_line.add_seed(parser, "Of the choice of images.")


def moved(
    image: np.ndarray, *, shift: float = 0.0, scale: float = 1.0, degrees: float = 0.0
) -> np.ndarray:
    """Transforms an image about its centre, by cubic interpolation; the defaults change nothing.

    Args:
      image: uint8 [s, s, 3].
      shift: pixels downwards.
      scale: above 1 enlarges.
      degrees: against the clock.
    """
    middle, turn = len(image) / 2, np.deg2rad(degrees)
    # Where each pixel of the result comes from.
    back = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) / scale
    offset = middle - back @ [middle, middle + shift]
    coefficients = (*back[0], offset[0], *back[1], offset[1])
    return np.asarray(
        Image.fromarray(image).transform(
            image.shape[1::-1],
            Image.Transform.AFFINE,
            coefficients,
            resample=Image.Resampling.BICUBIC,
            fillcolor=_GREY,
        )
    )


def distances(features: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Euclidean distance of each of [n, ...] from [...]."""
    difference = (features - original).reshape(len(features), -1).astype(np.float64)
    return np.sqrt((difference**2).sum(axis=1))


def chosen_layers(said: str | None, opened: Opened) -> tuple[str, str]:
    """The two layers that are looked at.

    Raises:
      ConfigError: --layers names others than two that there are.
    """
    if said is None:
        return opened.first_trained, opened.last_hidden
    names = said.split(",")
    if len(names) != 2:
        raise ConfigError(f"--layers={said}: two names, with a comma between")
    return opened.layer(names[0], flag="layers"), opened.layer(names[1], flag="layers")


def whose(labels: np.ndarray) -> str:
    """The class whose probability is shown, in words; labels [n] are -1 where there is none."""
    known = set((labels >= 0).tolist())
    return " or ".join({True: "true class", False: "first guess"}[k] for k in sorted(known)[::-1])


def draw(arguments: argparse.Namespace, opened: Opened) -> Generator[Path, None, None]:
    """Writes invariance.png; images are numbered from the top."""
    layers = chosen_layers(arguments.layers, opened)
    names = opened.named_classes()
    batches = list(opened.images(arguments.count, seed=arguments.seed))
    images, labels = (
        np.concatenate([batch[name] for batch in batches]) for name in ("image", "label")
    )
    ends = round(len(opened.shown(images[:1])[0]) * _SHIFT)
    kinds = [
        ("shift", "pixels downwards", np.unique(np.linspace(-ends, ends, arguments.steps).round())),
        ("scale", "times as large", np.linspace(1, _LARGEST, arguments.steps)),
        ("degrees", "degrees", np.linspace(0, 360, arguments.steps)),
    ]
    figure = pictures.figure(11, 7)
    rows = figure.subplots(3, 4, width_ratios=[1.1, 1, 1, 1])
    titles = (
        f"distance in {layers[0]}", f"distance in {layers[1]}", f"probability of {whose(labels)}"
    )  # fmt: skip
    for (kind, unit, amounts), axes in zip(kinds, rows, strict=True):
        examples = _examples(opened, images, kind, amounts)
        axes[0].imshow(examples)
        middles = (np.arange(len(images)) + 0.5) * len(examples) / len(images)
        axes[0].set_yticks(middles, [str(n) for n in range(1, len(images) + 1)])
        axes[0].set_xticks([])
        axes[0].tick_params(length=0)
        axes[0].spines[:].set_visible(False)
        for number, (image, label) in enumerate(zip(images, labels, strict=True), 1):
            squares = [image, *(moved(image, **{kind: float(amount)}) for amount in amounts)]
            parts = list(opened.recorded(layers, squares))
            chances = probabilities(np.concatenate([logits for _, logits, _ in parts]))
            truth = int(label) if label >= 0 else int(chances[0].argmax())
            said = f"{number} {short(words([names[truth]])[0])}"
            for axis, layer in zip(axes[1:3], layers, strict=True):
                features = np.concatenate([record[layer] for _, _, record in parts])
                axis.plot(amounts, distances(features[1:], features[0]), label=said)
            axes[3].plot(amounts, chances[1:, truth], label=said)
        for axis, title in zip(axes[1:], titles, strict=True):
            axis.set_xlim(amounts[0], amounts[-1])
            axis.set_ylim(bottom=0)
            axis.set_xlabel(unit)
            if kind == "shift":
                axis.set_title(title, fontsize=9)
        axes[3].set_ylim(0, 1.02)
    figure.legend(
        *rows[0][3].get_legend_handles_labels(),
        loc="outside lower center", ncols=8, frameon=False,
    )  # fmt: skip
    yield pictures.save_figure(figure, opened.out("invariance.png"))


def _examples(opened: Opened, images: np.ndarray, kind: str, amounts: np.ndarray) -> np.ndarray:
    """A row for each image: at the beginning, in the middle and at the end of the motion."""
    shown = amounts[[0, len(amounts) // 4, len(amounts) // 2, 3 * len(amounts) // 4, -1]]
    tiles = np.stack([moved(image, **{kind: float(a)}) for image in images for a in shown])
    tiles = pictures.enlarged(opened.shown(tiles), _PIXELS)
    return pictures.grid(tiles, len(shown), gap=2)


if __name__ == "__main__":
    command_line.main(__doc__, add_flags, draw)
