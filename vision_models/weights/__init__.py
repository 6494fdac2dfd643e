"""Weights from elsewhere, and for elsewhere.

    loaded = load("resnet50.pth", "resnet50", {"stride_in": "3x3", "pool1_padded": True})
    set_weights(model, loaded)

Reads PyTorch files (`.pth`, `.pt`, `.th`; torchvision's and timm's names), Caffe's
(`.caffemodel`) and `.safetensors` (either PyTorch's names or ours). Nothing in a file is
executed. The network is recognised from the file's tensors. Every one of them has to fit:
a network is filled whole or not at all.

Our own `.safetensors` hold `<layer>/<variable>` in our layout, such as `conv1/kernel` [height,
width, in, out] or `norm1/variance` [maps]; `normalization/mean` and
`normalization/deviation`; and as metadata `format` ("vision_models"), `model` (name),
`options` (JSON), `class_names` and `images` (JSON, where known; `images` says how images are
cropped), `dataset` and `protocol` (names, where known: what they were trained on, and how their
error is measured), `validation_examples` (a number, where known: how many training images were
held out) and `sha256`, the checksum of all of this.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import vision_models
from vision_models.functional import set_variables
from vision_models.network import Network
from vision_models.transform import is_head
from vision_models.trees import nested
from vision_models.weights import caffe, files, heads, pytorch, wrappers
from vision_models.weights.convert import convert, layers_with_variables
from vision_models.weights.files import SUFFIXES, class_names, named_network
from vision_models.weights.fitting import (
    abstract,
    another_network,
    check,
    check_known,
    check_options,
    count,
    fit,
    grows,
    same,
    thousand,
)
from vision_models.weights.types import Source, Weights, WeightsError, some
from vision_models.weights.values import check_normalization, read_values

__all__ = [
    "PREPROCESSING",
    "SUFFIXES",
    "Weights",
    "WeightsError",
    "class_names",
    "fit",
    "load",
    "named_network",
    "preprocessing",
    "save",
    "set_weights",
]


# Normalisation of the images that weights expect, RGB in 0..255: (mean, standard deviation).
PREPROCESSING: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    # Mean and deviation of ImageNet's images in 0..1, as in torchvision and timm.
    "torchvision": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    # The mean of ImageNet's colours, as with Caffe's VGG, GoogLeNet and ResNet.
    "caffe": ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0)),
    # -1 to 1: what torchvision turns images into for its GoogLeNet.
    "unit": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    # 0 to 1 (Caffe's LeNet divides by 256).
    "mnist": ((0.0, 0.0, 0.0), (256.0, 256.0, 256.0)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def preprocessing(name: str) -> dict[str, np.ndarray]:
    """`mean` [3] and `deviation` [3] of a preprocessing by name.

    Raises:
      WeightsError: no such name.
    """
    if name not in PREPROCESSING:
        raise WeightsError(
            f"--config.init_preprocessing={name}: choose config or one of "
            f"{', '.join(PREPROCESSING)}"
        )
    mean, deviation = PREPROCESSING[name]
    return {"mean": np.array(mean, np.float32), "deviation": np.array(deviation, np.float32)}


def load(
    path: str | Path, name: str, options: Mapping[str, Any] | None = None, *, new_head: bool = False
) -> Weights:
    """Reads a file for a network.

    Args:
      path: of the file.
      name, options: of the network to be filled, as for `vision_models.create`.
      new_head: leave out the classifiers, which then keep their initial values
        (`Weights.fresh`).

    Returns:
      Weights in our layout.

    Raises:
      WeightsError: the file cannot be read, holds another network, or has missing, extra or
        misshapen tensors; the message names them.
    """
    path = Path(path)
    source = files.read(path)
    if source.format == "vision_models":
        params, statistics, normalization = files.from_ours(source)
        made, settings, names = files.network_of(source)
        check_normalization(path, normalization)
        ours = Weights(
            made, settings, params, statistics, normalization, str(path),
            class_names=names, imagenet=names is None, images=files.images_of(source),
            dataset=source.metadata.get("dataset"), protocol=source.metadata.get("protocol"),
            validation_examples=files.held_out_of(source),
        )  # fmt: skip
        return fit(ours, name, options or {}, new_head=new_head, verify=source.verify)

    naming = {"pytorch": pytorch, "caffe": caffe}[source.format]
    group, notes = _network_in(source, naming, name)
    if group is None or (found := naming.recognise(source)) is None:
        raise WeightsError(
            f"{path}: tensors of no network that is known here ({some(source.tensors)})"
        )
    found_name, found_options = found
    check_known(path, found_name)
    if same(found_name, name):
        wanted = dict(options or {})
        check_options(path, name, wanted, found_options)
    elif grows(found_name, name):
        wanted = {**(options or {}), **found_options}
    else:
        raise another_network(path, found_name, name)
    weights = _translate(source, group, naming, found_name, wanted, new_head)
    weights = dataclasses.replace(weights, notes=(*source.notes, *notes, *weights.notes))
    if same(found_name, name):
        return weights
    return fit(weights, name, options or {}, new_head=new_head)


def set_weights(model: Network, weights: Weights) -> None:
    """Puts weights into a module; layers in `weights.fresh` stay as they are."""
    set_variables(model, weights.params, weights.statistics)


def save(
    path: str | Path,
    name: str,
    options: Mapping[str, Any],
    params: Any,
    statistics: Any,
    normalization: Mapping[str, np.ndarray] | None = None,
    class_names: Sequence[str] | None = None,
    images: Mapping[str, Any] | None = None,
    dataset: str | None = None,
    protocol: str | None = None,
    validation_examples: int | None = None,
) -> None:
    """Writes a `.safetensors` file, named as this module's docstring says.

    Args:
      path: of the file; replaced whole, or not at all.
      name, options: of the network.
      params, statistics: nested dicts of arrays.
      normalization: `mean` and `deviation` of the images that the weights expect.
      class_names: name of each logit's class.
      images: how images are cropped, as JSON.
      dataset: name of the dataset that they were trained on.
      protocol: name of the evaluation protocol that their error belongs to.
      validation_examples: number of the dataset's training images that were held out.

    Raises:
      WeightsError: the file cannot be written.
    """
    files.write_ours(
        Path(path), name, options, params, statistics, normalization, class_names, images, dataset,
        protocol, validation_examples,
    )  # fmt: skip


def _network_in(
    source: Source, naming: Any, name: str
) -> tuple[wrappers.Group | None, tuple[str, ...]]:
    """Finds the network's tensors in a foreign file, and reduces `source` to them."""
    if source.format == "caffe":
        return wrappers.Group("", source.tensors, {}), ()

    def fits(group: wrappers.Group) -> bool:
        found = naming.recognise(dataclasses.replace(source, tensors=group.tensors))
        return (
            bool(found)
            and found[0] in vision_models.list_models()
            and (same(found[0], name) or grows(found[0], name))
        )

    found = wrappers.groups(source.tensors, naming.ANCHORS)
    if not found:
        return None, ()
    group, notes = wrappers.choose(found, fits)
    source.tensors = group.tensors
    return group, notes


def _translate(
    source: Source,
    group: wrappers.Group,
    naming: Any,
    name: str,
    options: dict[str, Any],
    new_head: bool,
) -> Weights:
    """A foreign file in our layout."""
    model = abstract(name, options)
    skip = model.heads if new_head else ()
    ours_by_layer = layers_with_variables(model)
    layers = naming.layer_names(name, model, source)
    tensors, beside, notes = naming.prepare(source), dict(group.beside), []

    def key_of(layer: str, variable: str) -> str:
        return naming.tensor_name(layers[layer], variable)

    body = [
        key_of(layer, variable)
        for layer, held in ours_by_layer.items()
        for variable in held.shapes
        if not is_head(f"{layer}/", model.heads)
    ]
    their_heads = [layers[layer] for layer in ours_by_layer if is_head(f"{layer}/", model.heads)]
    main = model.heads[0]
    if not new_head and main in ours_by_layer:
        shape, _ = convert(ours_by_layer[main], "kernel", None)
        called = heads.renamed(layers[main], shape, body, {**beside, **tensors})
        if called is not None:
            notes.append(f"taken for the classifier: {called}")
            for variable in ("weight", "bias"):
                old = f"{called}.{variable}"
                where = tensors if old in tensors else beside
                tensors[f"{layers[main]}.{variable}"] = where.pop(old)

    need: dict[str, tuple[int, ...]] = {}
    makers: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    ours: dict[str, str] = {}
    for layer, held in ours_by_layer.items():
        if is_head(f"{layer}/", skip):
            continue
        for variable in held.shapes:
            key = key_of(layer, variable)
            need[key], makers[key] = convert(held, variable, tensors.get(key))
            ours[key] = f"{layer}/{variable}"
    extra = [n for n in tensors if n not in need]
    of_heads = [n for n in extra if heads.is_of_a_head(n, tensors[n].shape, body, their_heads)]
    if new_head:
        extra = [n for n in extra if n not in of_heads]
        if of_heads:
            notes.append(f"left out, the classifier of the file: {count(of_heads)}")
    have = {n: v.shape for n, v in tensors.items()}
    check(source.path, need, have, extra, model, ours, of_heads)
    if beside:
        notes.append(f"left out, no part of the network: {count(list(beside))}")
    values = read_values(source.path, {key: tensors[key] for key in need})
    made = {ours[key]: makers[key](values[key]) for key in need}
    if source.format == "caffe":
        caffe.to_rgb(made, model)
    expected = naming.preprocessing_of(name, source)
    statistics = {n for n in made if n.rpartition("/")[2] in ("mean", "variance")}
    return Weights(
        name,
        options,
        nested({n: v for n, v in made.items() if n not in statistics}),
        nested({n: v for n, v in made.items() if n in statistics}),
        preprocessing(expected) if expected else None,
        source.path,
        tuple(skip),
        imagenet=thousand(made, model),
        notes=tuple(notes),
    )
