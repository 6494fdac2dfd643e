"""Weights from elsewhere, and for elsewhere.

    loaded = load("resnet50.pth", "resnet50", {"stride_in": "3x3", "pool1_padded": True})
    set_weights(model, loaded)

Reads PyTorch files (`.pth`, `.pt`, `.th`; torchvision's and timm's names), Caffe's
(`.caffemodel`) and `.safetensors` (either PyTorch's names or ours). Nothing in a file is
executed. What is in it is recognised from its tensors, and has to fit to the last one:
a network is filled whole or not at all.

Our own `.safetensors` hold `<layer>/<variable>` in our layout, such as `conv1/kernel` [height,
width, in, out] or `norm1/variance` [maps]; `normalization/mean` and
`normalization/deviation`; and as metadata `format` ("vision_models"), `model` (name),
`options` (JSON), `class_names` and `images` (JSON, where they are known; the latter how images
are cropped) and `sha256` of it all.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

import vision_models
from vision_models import vgg
from vision_models.functional import set_variables
from vision_models.network import Network
from vision_models.transform import is_head
from vision_models.weights import caffe, files, heads, pytorch, wrappers
from vision_models.weights.convert import convert, layers_with_variables
from vision_models.weights.files import SUFFIXES, class_names, named_network
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


# What images are like when weights expect them, RGB in 0..255: (mean, deviation).
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

# Options that may differ between the network that weights are from and the one they go
# to: where the shapes of variables tell, and what matters in training only.
_FREE_OPTIONS = ("num_classes", "image_size", "hidden", "kernels", "towers", "auxiliary", "conv6")


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
      new_head: leave out the classifiers, which then start fresh (`Weights.fresh`).

    Returns:
      Weights in our layout.

    Raises:
      WeightsError: the file cannot be read, is of another network, or lacks tensors, has
        others or has them in other shapes; the message names them.
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
        )  # fmt: skip
        return fit(ours, name, options or {}, new_head=new_head, verify=source.verify)

    naming = {"pytorch": pytorch, "caffe": caffe}[source.format]
    group, notes = _network_in(source, naming, name)
    if group is None or (found := naming.recognise(source)) is None:
        raise WeightsError(
            f"{path}: tensors of no network that is known here ({some(source.tensors)})"
        )
    found_name, found_options = found
    _check_known(path, found_name)
    if _same(found_name, name):
        wanted = dict(options or {})
        _check_options(path, name, wanted, found_options)
    elif _grows(found_name, name):
        wanted = {**(options or {}), **found_options}
    else:
        raise _another_network(path, found_name, name)
    weights = _translate(source, group, naming, found_name, wanted, new_head)
    weights = dataclasses.replace(weights, notes=(*source.notes, *notes, *weights.notes))
    if _same(found_name, name):
        return weights
    return fit(weights, name, options or {}, new_head=new_head)


def fit(
    weights: Weights,
    name: str,
    options: Mapping[str, Any],
    *,
    new_head: bool = False,
    verify: Callable[[], None] = lambda: None,
) -> Weights:
    """Weights in our layout, made to fit a network of ours.

    They are taken over whole; of a VGG network for a deeper one, as its paper has it, the
    first four convolutions and the fully connected layers.

    Args:
      weights: `params` and `statistics` are nested dicts of arrays, or of tensors in a file.
      name, options: of the network to be filled.
      new_head: leave out the classifiers.
      verify: called once the shapes fit; raises WeightsError.

    Raises:
      WeightsError: they do not fit; the message names the variables.
    """
    grows = False
    _check_known(Path(weights.source), weights.name)
    if not _same(weights.name, name):
        grows = _grows(weights.name, name)
        if not grows:
            raise _another_network(Path(weights.source), weights.name, name)
    made = {**vision_models.default_options(weights.name), **weights.options}
    if grows:
        made.pop("configuration")
        made.pop("lrn")
    _check_options(Path(weights.source), name, options, made)
    model = _abstract(name, options)
    skip = model.heads if new_head else ()
    from_a = tuple(layer for layer in vgg.FROM_A if hasattr(model, layer))

    def wanted(variable: str) -> bool:
        return not is_head(variable, skip) and (not grows or is_head(variable, from_a))

    params, statistics = (_flat(tree) for tree in (weights.params, weights.statistics))
    have = params | statistics
    need = {
        f"{path}/{variable}": shape
        for path, part in layers_with_variables(model).items()
        for variable, shape in part.shapes.items()
        if wanted(f"{path}/{variable}")
    }
    extra = [] if grows else [n for n in have if n not in need and not is_head(n, skip)]
    _check(weights.source, need, {n: v.shape for n, v in have.items()}, extra, model)
    verify()
    values = read_values(weights.source, {n: have[n] for n in need})
    normalization = weights.normalization and read_values(
        weights.source, weights.normalization, "normalization/"
    )
    fresh = {
        path
        for path, part in layers_with_variables(model).items()
        if not any(f"{path}/{variable}" in need for variable in part.shapes)
    }
    return dataclasses.replace(
        weights,
        name=name,
        options=dict(options),
        params=_nested({n: values[n] for n in params if n in need}),
        statistics=_nested({n: values[n] for n in statistics if n in need}),
        normalization=normalization,
        fresh=tuple(sorted(fresh)),
        class_names=None if new_head else weights.class_names,
        imagenet=weights.imagenet and _thousand(values, model),
    )


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
) -> None:
    """Writes a `.safetensors` file, named as this module's docstring says.

    Args:
      path: of the file; replaced whole, or not at all.
      name, options: of the network.
      params, statistics: nested dicts of arrays.
      normalization: `mean` and `deviation` of the images that the weights expect.
      class_names: name of each logit's class.
      images: how images are cropped, as JSON.

    Raises:
      WeightsError: the file cannot be written.
    """
    files.write_ours(
        Path(path), name, options, params, statistics, normalization, class_names, images
    )


def _network_in(
    source: Source, naming: Any, name: str
) -> tuple[wrappers.Group | None, tuple[str, ...]]:
    """Where in a foreign file the network is; the source is left with its tensors alone."""
    if source.format == "caffe":
        return wrappers.Group("", source.tensors, {}), ()

    def fits(group: wrappers.Group) -> bool:
        found = naming.recognise(dataclasses.replace(source, tensors=group.tensors))
        return (
            bool(found)
            and found[0] in vision_models.list_models()
            and (_same(found[0], name) or _grows(found[0], name))
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
    model = _abstract(name, options)
    skip = model.heads if new_head else ()
    parts = layers_with_variables(model)
    layers = naming.layer_names(name, model, source)
    tensors, beside, notes = naming.prepare(source), dict(group.beside), []

    def key_of(layer: str, variable: str) -> str:
        return naming.tensor_name(layers[layer], variable)

    body = [
        key_of(layer, variable)
        for layer, part in parts.items()
        for variable in part.shapes
        if not is_head(f"{layer}/", model.heads)
    ]
    their_heads = [layers[layer] for layer in parts if is_head(f"{layer}/", model.heads)]
    main = model.heads[0]
    if not new_head and main in parts:
        shape, _ = convert(parts[main], "kernel", None)
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
    for layer, part in parts.items():
        if is_head(f"{layer}/", skip):
            continue
        for variable in part.shapes:
            key = key_of(layer, variable)
            need[key], makers[key] = convert(part, variable, tensors.get(key))
            ours[key] = f"{layer}/{variable}"
    extra = [n for n in tensors if n not in need]
    of_heads = [n for n in extra if heads.is_of_a_head(n, tensors[n].shape, body, their_heads)]
    if new_head:
        extra = [n for n in extra if n not in of_heads]
        if of_heads:
            notes.append(f"left out, the classifier of the file: {_count(of_heads)}")
    have = {n: v.shape for n, v in tensors.items()}
    _check(source.path, need, have, extra, model, ours, of_heads)
    if beside:
        notes.append(f"left out, no part of the network: {_count(list(beside))}")
    values = read_values(source.path, {key: tensors[key] for key in need})
    made = {ours[key]: makers[key](values[key]) for key in need}
    if source.format == "caffe":
        caffe.to_rgb(made, model)
    expected = naming.preprocessing_of(name, source)
    statistics = {n for n in made if n.rpartition("/")[2] in ("mean", "variance")}
    return Weights(
        name,
        options,
        _nested({n: v for n, v in made.items() if n not in statistics}),
        _nested({n: v for n, v in made.items() if n in statistics}),
        preprocessing(expected) if expected else None,
        source.path,
        tuple(skip),
        imagenet=_thousand(made, model),
        notes=tuple(notes),
    )


def _thousand(variables: Mapping[str, np.ndarray], model: Network) -> bool:
    """Whether the classifier is there, and has as many logits as ImageNet classes."""
    bias = variables.get(f"{model.heads[0]}/bias")
    return bias is not None and bias.shape[-1:] == (1000,)


def _check(
    source: str,
    need: Mapping[str, tuple[int, ...]],
    have: Mapping[str, tuple[int, ...]],
    extra: Iterable[str],
    model: Network,
    ours: Mapping[str, str] | None = None,
    of_heads: Collection[str] = (),
) -> None:
    """Raises WeightsError unless `have` gives all that is needed, in its shape, and no more."""
    wrong = [n for n in need if n in have and tuple(have[n]) != tuple(need[n])]
    misshapen = [n for n in wrong if is_head((ours or {}).get(n, n), model.heads)]
    if misshapen and len(misshapen) == len(wrong):
        main = [n for n in misshapen if is_head((ours or {}).get(n, n), model.heads[:1])]
        head = max(main or misshapen, key=lambda n: len(need[n]))
        raise WeightsError(
            f"{source}: another number of classes ({head} is {_size(have[head])} there, "
            f"{_size(need[head])} here). --config.init_head=new draws a new classifier to "
            "train; --config.model.num_classes=N keeps the file's"
        )
    missing = [n for n in need if n not in have]
    of_ours = [n for n in missing if is_head((ours or {}).get(n, n), model.heads)]
    main = [n for n in of_ours if is_head((ours or {}).get(n, n), model.heads[:1])]
    strange = list(extra)
    if main and of_ours == missing and not wrong and set(strange) <= set(of_heads):
        matrix = max(main, key=lambda n: len(need[n]))
        theirs = (
            f"another classifier ({some(strange)} there, {matrix} here)"
            if strange
            else f"no classifier ({matrix} is missing)"
        )
        raise WeightsError(f"{source}: {theirs}. --config.init_head=new draws a new one to train")
    said = []
    if missing:
        said.append(f"missing {some(missing)}")
    if wrong:
        first = wrong[0]
        said.append(
            f"of another shape {some(wrong)} ({first} is {_size(have[first])} there, "
            f"{_size(need[first])} here)"
        )
    if strange:
        said.append(f"not of this network {some(strange)}")
    if said:
        hint = ""
        if missing and all("aux" in n or "loss" in n for n in missing):
            hint = "; --config.model.auxiliary=False leaves the auxiliary classifiers out"
        raise WeightsError(f"{source} does not fit: {'; '.join(said)}{hint}. Nothing was loaded")


def _check_options(
    path: Path, name: str, wanted: Mapping[str, Any], found: Mapping[str, Any]
) -> None:
    """Raises WeightsError where a network differs in what its tensors do not show."""
    flat_found = _flat_options(found)
    flat_wanted = _flat_options({**vision_models.default_options(name), **wanted})
    rescales = flat_wanted.get("inverted_dropout", True)  # then dropout is for training alone

    def free(option: str) -> bool:
        if option.endswith("dropout") and option != "inverted_dropout":
            return bool(rescales)
        return option.startswith("init") or option in _FREE_OPTIONS

    differing = {
        k: v
        for k, v in flat_found.items()
        if not free(k) and k in flat_wanted and flat_wanted[k] != v
    }
    if differing:
        overrides = " ".join(f"--config.model.{k}={v}" for k, v in differing.items())
        raise WeightsError(f"{path} holds a {name} of other settings, which need {overrides}")


def _flat_options(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            flat |= _flat_options(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = tuple(value) if isinstance(value, list) else value
    return flat


def _check_known(path: Path, name: str) -> None:
    if name not in vision_models.list_models():
        raise WeightsError(f"{path} holds a {name}, which is no network of this project")


def _another_network(path: Path, found: str, name: str) -> WeightsError:
    return WeightsError(
        f"{path} holds a {found}, the config's network is {name}; choose the config of {found}"
    )


def _same(one: str, other: str) -> bool:
    """Whether two names mean one network; options such as the number of towers aside."""
    families = [
        {"alexnet", "alexnet_one_gpu", "alexnet_six_conv"},
        {"lenet5", "lenet5_linear"},
        {"vgg_a", "vgg_a_lrn", "vgg_a_bn"},
        *({f"vgg_{letter}", f"vgg_{letter}_bn"} for letter in "bde"),
    ]
    one, other = vision_models.name_of(one, {}), vision_models.name_of(other, {})
    return one == other or any({one, other} <= family for family in families)


def _grows(source: str, target: str) -> bool:
    """Whether the target is a VGG network that starts from a trained A."""
    is_a = _same(source, "vgg_a")
    return is_a and any(_same(target, f"vgg_{letter}") for letter in "bcde")


def _abstract(name: str, options: Mapping[str, Any]) -> Network:
    try:
        return nnx.eval_shape(lambda: vision_models.create(name, rngs=nnx.Rngs(0), **options))
    except ValueError as error:
        raise WeightsError(f"model: {error}") from error


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        else:
            flat[prefix + name] = value
    return flat


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, leaf = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({some(names)})"


def _size(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a number"
