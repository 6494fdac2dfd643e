"""Weights from elsewhere, and for elsewhere.

    loaded = load("resnet50.pth", "resnet50", {"stride_in": "3x3", "pool1_padded": True})
    set_weights(model, loaded)

Reads PyTorch files (`.pth`, `.pt`, `.th`; torchvision's and timm's names), Caffe's
(`.caffemodel`) and `.safetensors` (either PyTorch's names or ours). Nothing in a file is
executed. What is in it is recognised from its tensors, and has to fit to the last one:
a network is filled whole or not at all.

Our own `.safetensors` hold `<layer>/<variable>` in our layout, such as `conv1/kernel` [height,
width, in, out] or `norm1/variance` [maps]; `normalization/mean` and
`normalization/deviation`; and as metadata `format` ("vision_models"), `model` (name) and
`options` (JSON).
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

import vision_models
from vision_models import vgg
from vision_models.functional import set_variables
from vision_models.network import Network
from vision_models.transform import is_head
from vision_models.weights import caffe, files, pytorch
from vision_models.weights.convert import convert, layers_with_variables
from vision_models.weights.types import Source, Weights, WeightsError

__all__ = [
    "PREPROCESSING",
    "Weights",
    "WeightsError",
    "fit",
    "load",
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
        made, settings = files.network_of(source)
        ours = Weights(made, settings, params, statistics, normalization, str(path))
        return fit(ours, name, options or {}, new_head=new_head)

    naming = {"pytorch": pytorch, "caffe": caffe}[source.format]
    found = naming.recognise(source)
    if found is None:
        raise WeightsError(
            f"{path}: tensors of no network that is known here ({_some(source.tensors)})"
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
    weights = _translate(path, source, naming, found_name, wanted, new_head)
    if _same(found_name, name):
        return weights
    return fit(weights, name, options or {}, new_head=new_head)


def fit(
    weights: Weights, name: str, options: Mapping[str, Any], *, new_head: bool = False
) -> Weights:
    """Weights in our layout, made to fit a network of ours.

    They are taken over whole; of a VGG network for a deeper one, as its paper has it, the
    first four convolutions and the fully connected layers.

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
    fresh = {
        path
        for path, part in layers_with_variables(model).items()
        if not any(f"{path}/{variable}" in need for variable in part.shapes)
    }
    return Weights(
        name,
        dict(options),
        _nested({n: v for n, v in params.items() if n in need}),
        _nested({n: v for n, v in statistics.items() if n in need}),
        weights.normalization,
        weights.source,
        tuple(sorted(fresh)),
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
) -> None:
    """Writes a `.safetensors` file, named as this module's docstring says.

    Args:
      path: of the file; replaced whole, or not at all.
      name, options: of the network.
      params, statistics: nested dicts of arrays.
      normalization: `mean` and `deviation` of the images that the weights expect.

    Raises:
      WeightsError: the file cannot be written.
    """
    files.write_ours(Path(path), name, options, params, statistics, normalization)


def _translate(
    path: Path, source: Source, naming: Any, name: str, options: dict[str, Any], new_head: bool
) -> Weights:
    """A foreign file in our layout."""
    model = _abstract(name, options)
    skip = model.heads if new_head else ()
    parts = layers_with_variables(model)
    prefixes = naming.layer_names(name, model, source)
    tensors = naming.prepare(source)
    need: dict[str, tuple[int, ...]] = {}
    makers: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    ours: dict[str, str] = {}
    for layer, part in parts.items():
        if is_head(f"{layer}/", skip):
            continue
        for variable in part.shapes:
            key = naming.tensor_name(prefixes[layer], variable)
            need[key], makers[key] = convert(part, variable, tensors.get(key))
            ours[key] = f"{layer}/{variable}"
    skipped = {prefixes[layer] for layer in parts if is_head(f"{layer}/", skip)}
    extra = [n for n in tensors if n not in need and n.rpartition(".")[0] not in skipped]
    _check(str(path), need, {n: v.shape for n, v in tensors.items()}, extra, model, ours)
    made = {ours[key]: makers[key](tensors[key]) for key in need}
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
        str(path),
        tuple(skip),
    )


def _check(
    source: str,
    need: Mapping[str, tuple[int, ...]],
    have: Mapping[str, tuple[int, ...]],
    extra: Iterable[str],
    model: Network,
    ours: Mapping[str, str] | None = None,
) -> None:
    """Raises WeightsError unless `have` gives all that is needed, in its shape, and no more."""
    wrong = [n for n in need if n in have and tuple(have[n]) != tuple(need[n])]
    heads = [n for n in wrong if is_head((ours or {}).get(n, n), model.heads)]
    if heads and len(heads) == len(wrong):
        main = [n for n in heads if is_head((ours or {}).get(n, n), model.heads[:1])]
        head = max(main or heads, key=lambda n: len(need[n]))
        raise WeightsError(
            f"{source}: another number of classes ({head} is {_size(have[head])} there, "
            f"{_size(need[head])} here). --config.init_head=new draws a new classifier to "
            "train; --config.model.num_classes=N keeps the file's"
        )
    missing = [n for n in need if n not in have]
    said = []
    if missing:
        said.append(f"missing {_some(missing)}")
    if wrong:
        first = wrong[0]
        said.append(
            f"of another shape {_some(wrong)} ({first} is {_size(have[first])} there, "
            f"{_size(need[first])} here)"
        )
    strange = list(extra)
    if strange:
        said.append(f"not of this network {_some(strange)}")
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


def _some(names: Iterable[str]) -> str:
    """A few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _size(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a number"
