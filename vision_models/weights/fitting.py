"""Whether weights fit a network of ours, and which of them it takes."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

import vision_models
from vision_models import vgg
from vision_models.network import Network
from vision_models.transform import is_head
from vision_models.trees import flatten, nested
from vision_models.weights.convert import layers_with_variables
from vision_models.weights.types import Weights, WeightsError, some
from vision_models.weights.values import read_values

# Options that may differ between the network in the file and the one to be filled: the
# shapes of variables show them, or they matter in training only.
_FREE_OPTIONS = ("num_classes", "image_size", "hidden", "kernels", "towers", "auxiliary", "conv6")


def fit(
    weights: Weights,
    name: str,
    options: Mapping[str, Any],
    *,
    new_head: bool = False,
    verify: Callable[[], None] = lambda: None,
) -> Weights:
    """Weights in our layout, made to fit a network of ours.

    All are taken. The exception is VGG network A for a deeper one: as in the paper, only its
    first four convolutions and the fully connected layers are taken.

    Args:
      weights: `params` and `statistics` are nested dicts of arrays, or of tensors in a file.
      name, options: of the network to be filled.
      new_head: leave out the classifiers.
      verify: called once the shapes fit; raises WeightsError.

    Raises:
      WeightsError: they do not fit; the message names the variables.
    """
    grown = False
    check_known(Path(weights.source), weights.name)
    if not same(weights.name, name):
        grown = grows(weights.name, name)
        if not grown:
            raise another_network(Path(weights.source), weights.name, name)
    made = _all_options(weights.name, weights.options)
    if grown:
        made.pop("configuration")
        made.pop("lrn")
    check_options(Path(weights.source), name, options, made)
    model = abstract(name, options)
    skip = model.heads if new_head else ()
    from_a = tuple(layer for layer in vgg.FROM_A if hasattr(model, layer))

    def wanted(variable: str) -> bool:
        return not is_head(variable, skip) and (not grown or is_head(variable, from_a))

    params, statistics = (flatten(tree) for tree in (weights.params, weights.statistics))
    have = params | statistics
    need = {
        f"{path}/{variable}": shape
        for path, layer in layers_with_variables(model).items()
        for variable, shape in layer.shapes.items()
        if wanted(f"{path}/{variable}")
    }
    extra = [] if grown else [n for n in have if n not in need and not is_head(n, skip)]
    check(weights.source, need, {n: v.shape for n, v in have.items()}, extra, model)
    verify()
    values = read_values(weights.source, {n: have[n] for n in need})
    normalization = weights.normalization and read_values(
        weights.source, weights.normalization, "normalization/"
    )
    fresh = {
        path
        for path, layer in layers_with_variables(model).items()
        if not any(f"{path}/{variable}" in need for variable in layer.shapes)
    }
    return dataclasses.replace(
        weights,
        name=name,
        options=dict(options),
        params=nested({n: values[n] for n in params if n in need}),
        statistics=nested({n: values[n] for n in statistics if n in need}),
        normalization=normalization,
        fresh=tuple(sorted(fresh)),
        class_names=None if new_head else weights.class_names,
        imagenet=weights.imagenet and thousand(values, model),
    )


def thousand(variables: Mapping[str, np.ndarray], model: Network) -> bool:
    """Whether the classifier is present with 1,000 logits, as for ImageNet's classes."""
    bias = variables.get(f"{model.heads[0]}/bias")
    return bias is not None and bias.shape[-1:] == (1000,)


def check(
    source: str,
    need: Mapping[str, tuple[int, ...]],
    have: Mapping[str, tuple[int, ...]],
    extra: Iterable[str],
    model: Network,
    ours: Mapping[str, str] | None = None,
    of_heads: Collection[str] = (),
) -> None:
    """Raises WeightsError unless `have` is exactly what is needed, in the right shapes."""
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


def check_options(
    path: Path, name: str, wanted: Mapping[str, Any], found: Mapping[str, Any]
) -> None:
    """Raises WeightsError if networks differ in options that tensors do not show."""
    flat_found = _flat_options(found)
    flat_wanted = _all_options(name, wanted)
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


def _all_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a network that is created with `options`, as `lrn_constants.k` where nested."""
    return _flat_options(vision_models.default_options(name)) | _flat_options(options)


def _flat_options(options: Mapping[str, Any]) -> dict[str, Any]:
    flat = flatten(options, ".")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in flat.items()}


def check_known(path: Path, name: str) -> None:
    """Raises WeightsError unless there is a network of this name."""
    if name not in vision_models.list_models():
        raise WeightsError(f"{path} holds a {name}, which is no network of this project")


def another_network(path: Path, found: str, name: str) -> WeightsError:
    """The error for a file that holds another network than the config's."""
    return WeightsError(
        f"{path} holds a {found}, the config's network is {name}; choose the config of {found}"
    )


def same(one: str, other: str) -> bool:
    """Whether two names mean the same network, up to options such as the number of towers."""
    families = [
        {"alexnet", "alexnet_one_gpu", "alexnet_six_conv"},
        {"lenet5", "lenet5_linear"},
        {"vgg_a", "vgg_a_lrn", "vgg_a_bn"},
        *({f"vgg_{letter}", f"vgg_{letter}_bn"} for letter in vgg.NORMALIZED),
    ]
    one, other = vision_models.name_of(one, {}), vision_models.name_of(other, {})
    return one == other or any({one, other} <= family for family in families)


def grows(source: str, target: str) -> bool:
    """Whether the target is a VGG network that starts from a trained A."""
    is_a = same(source, "vgg_a")
    return is_a and any(same(target, f"vgg_{letter}") for letter in "bcde")


def abstract(name: str, options: Mapping[str, Any]) -> Network:
    """A network without its values.

    Raises:
      WeightsError: options that it does not take.
    """
    try:
        return nnx.eval_shape(lambda: vision_models.create(name, rngs=nnx.Rngs(0), **options))
    except ValueError as error:
        raise WeightsError(f"model: {error}") from error


def count(names: Sequence[str]) -> str:
    """How many tensors, and a few of their names."""
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({some(names)})"


def _size(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a number"
