"""PyTorch's names: torchvision's, timm's, and the CIFAR-10 ResNets' that are in wide use."""

import re
from collections.abc import Mapping
from typing import Any

from vision_models import resnet
from vision_models.modules import BatchNorm, Conv, Pool
from vision_models.network import Branches, Network
from vision_models.weights.convert import layers_with_variables
from vision_models.weights.types import COMMON, Source, Tensor, vgg_by_convolutions

# A tensor that every network of a family has: it shows where in a file a network lies.
ANCHORS = (
    "features.0.weight",
    "inception3a.branch1.conv.weight",
    "layer1.0.conv1.weight",
    "Mixed_5b.branch1x1.conv.weight",
    "features.0.conv.weight",
)
_VARIABLES = {"kernel": "weight", "scale": "weight", "mean": "running_mean"}
_VARIABLES |= {"bias": "bias", "variance": "running_var"}


def recognise(source: Source) -> tuple[str, dict[str, Any]] | None:
    """Name and options of the network in a file; None if it is not a known one.

    The options hold every setting that no tensor shows.
    """
    tensors = source.tensors
    shapes = {name: value.shape for name, value in tensors.items()}
    if shapes.get("features.0.weight") == (64, 3, 11, 11):
        return "alexnet_owt", {"neuron": "relu"}
    if shapes.get("features.0.weight") == (64, 3, 3, 3):
        name = vgg_by_convolutions([s for n, s in shapes.items() if n.startswith("features")])
        normalized = any("running_mean" in n for n in tensors)
        settings = {**COMMON, "lrn": False, "batch_norm": normalized}
        return (name, settings) if name else None
    if "inception3a.branch1.conv.weight" in tensors:
        sides = any(n.startswith("aux") for n in tensors)
        return "googlenet_bn", {**COMMON, "auxiliary": sides}
    if "Mixed_5b.branch1x1.conv.weight" in tensors:
        sides = any(n.startswith("AuxLogits") for n in tensors)
        return "inception_v3", {"neuron": "relu", "auxiliary": sides, "count_padding": True}
    if {"features.3.conv.conv.weight", "features.21.branch2_3b.conv.weight"} <= set(tensors):
        return "inception_v4", {"neuron": "relu"}
    if "layer1.0.conv1.weight" in tensors:
        blocks = {m[0] for n in tensors if (m := re.match(r"layer\d+\.\d+\.", n))}
        counts = tuple(sum(b.startswith(f"layer{s}.") for b in blocks) for s in (1, 2, 3, 4))
        bottleneck = "layer1.0.conv3.weight" in tensors
        options: dict[str, Any] = {"neuron": "relu", "preactivation": False}
        if not counts[3]:
            if len(set(counts[:3])) > 1:
                return None
            projections = any("downsample" in n for n in _shortcuts_renamed(tensors))
            shortcut = "projection" if projections else "pad"
            return f"resnet{6 * counts[0] + 2}", {**options, "shortcut": shortcut}
        for depth, blocks_of in resnet.DEPTHS.items():
            if counts == blocks_of and bottleneck == (depth >= resnet.BOTTLENECKS_FROM):
                settings = {"shortcut": "projection", "pool1_padded": True}
                stride = {"stride_in": "3x3"} if bottleneck else {}
                return f"resnet{depth}", {**options, **settings, **stride}
    return None


def layer_names(name: str, model: Network, source: Source) -> dict[str, str]:
    """Path of each of our layers -> its name in PyTorch."""
    layers = list(layers_with_variables(model))
    if name == "alexnet_owt" or name.startswith("vgg"):
        return _features(model, "head.fc.weight" in source.tensors)
    if name == "googlenet_bn":
        return {layer: _googlenet(layer) for layer in layers}
    if name.startswith("inception"):
        named = _inception_v3 if name == "inception_v3" else _inception_v4
        return {layer: named(layer, model) for layer in layers}
    head = "linear" if "linear.weight" in source.tensors else "fc"
    return {layer: _resnet(layer, head) for layer in layers}


def tensor_name(layer: str, variable: str) -> str:
    """The name of a layer's tensor, such as `bn1.running_mean`."""
    return f"{layer}.{_VARIABLES[variable]}"


def prepare(source: Source) -> dict[str, Tensor]:
    """The network's tensors, with shortcuts under torchvision's names.

    BatchNorm's count of batches is left out.
    """
    counting = {n: v for n, v in source.tensors.items() if not n.endswith("num_batches_tracked")}
    return _shortcuts_renamed(counting) if "layer1.0.conv1.weight" in counting else counting


def _shortcuts_renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ResNet's projections under torchvision's names.

    Whatever their names, `shortcut.0` or `skip.conv`, they are the one 1x1 convolution and
    the one normalisation of a block besides conv1, bn1, conv2, ...
    """
    others: dict[str, dict[str, list[str]]] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(layer\d+\.\d+)\.((?!conv\d\.|bn\d\.).+)\.weight", name)
        if match:
            kind = "1" if len(tensor.shape) == 1 else "0" if tensor.shape[2:] == (1, 1) else ""
            others.setdefault(match[1], {}).setdefault(kind, []).append(match[2])
    renamed: dict[str, str] = {}
    for block, kinds in others.items():
        alone = all(len(layers) == 1 for layers in kinds.values())
        if alone and "0" in kinds and kinds.keys() <= {"0", "1"}:
            renamed |= {f"{block}.{la}": f"{block}.downsample.{k}" for k, (la,) in kinds.items()}
    split = ((*name.rpartition("."), tensor) for name, tensor in tensors.items())
    return {f"{renamed.get(layer, layer)}{dot}{v}": tensor for layer, dot, v, tensor in split}


def preprocessing_of(name: str, source: Source) -> str | None:
    """The preprocessing that torchvision's weights of a network expect; None if unknown.

    CIFAR-10 ResNets are in use with ImageNet's mean and deviation (if their head is called
    `linear`) and with CIFAR's.
    """
    if "layer1.0.conv1.weight" in source.tensors and "layer4.0.conv1.weight" not in source.tensors:
        return "torchvision" if "linear.weight" in source.tensors else None
    unit = name == "googlenet_bn" or name.startswith("inception")
    return "unit" if unit else "torchvision"


def _features(model: Network, timm: bool) -> dict[str, str]:
    """Numbers of modules; torchvision counts convolutions, normalisations, neurons and pools."""
    names, number = {}, 0
    for layer in model.names:
        module = getattr(model, layer)
        if isinstance(module, Conv):
            names[layer] = f"features.{number}"
            number += 1 if module.neuron == "identity" else 2
        elif isinstance(module, BatchNorm):
            names[layer] = f"features.{number}"
            number += 2
        elif isinstance(module, Pool):
            number += 1
    places = (1, 4, 6) if hasattr(model, "drop5") else (0, 3, 6)
    for layer, place in zip(("fc6", "fc7", "fc8"), places, strict=True):
        names[layer] = f"classifier.{place}"
    if timm:
        names |= {"fc6": "pre_logits.fc1", "fc7": "pre_logits.fc2", "fc8": "head.fc"}
    return names


def _googlenet(layer: str) -> str:
    kind = "bn" if layer.endswith("_norm") else "conv"
    layer = layer.removesuffix("_norm")
    fixed = {
        "conv1": f"conv1.{kind}",
        "conv2_reduce": f"conv2.{kind}",
        "conv2": f"conv3.{kind}",
        "classifier": "fc",
    }
    if layer in fixed:
        return fixed[layer]
    block, *rest = layer.split("/")
    if block.startswith("aux"):
        return f"{block}." + {"conv": f"conv.{kind}", "fc": "fc1", "classifier": "fc2"}[rest[0]]
    branch, conv = rest
    place = {"1x1": "", "pool_proj": ".1"}.get(conv, ".0" if conv.endswith("_reduce") else ".1")
    return f"{block.replace('_', '')}.{branch}{place}.{kind}"


# torchvision's Inception-v3: the convolutions before its modules, and the side classifier.
_V3 = {
    "conv1a": "Conv2d_1a_3x3", "conv2a": "Conv2d_2a_3x3", "conv2b": "Conv2d_2b_3x3",
    "conv3b": "Conv2d_3b_1x1", "conv4a": "Conv2d_4a_3x3",
    "aux/conv1": "AuxLogits.conv0", "aux/conv2": "AuxLogits.conv1",
    "aux/classifier": "AuxLogits.fc",
}  # fmt: skip


def _inception_v3(layer: str, model: Network) -> str:
    if layer.endswith("classifier"):
        return _V3.get(layer, "fc")
    layer, kind = layer.removesuffix("_norm"), "bn" if layer.endswith("_norm") else "conv"
    if layer in _V3:
        return f"{_V3[layer]}.{kind}"
    number, count, letter = _place(layer, model)
    block, branch = layer.split("/")[:2]
    place = f"_{number + 1}{letter}" if count > 1 else ""
    return f"{block.capitalize()}.{branch}{place}.{kind}"


def _inception_v4(layer: str, model: Network) -> str:
    """Timm's, which numbers the parts of the network, and in most branches the layers."""
    if layer == "classifier":
        return "last_linear"
    layer, kind = layer.removesuffix("_norm"), "bn" if layer.endswith("_norm") else "conv"
    parts = [name for name in model.names if isinstance(getattr(model, name), Conv | Branches)]
    block, *path = layer.split("/")
    module = f"features.{parts.index(block)}"
    if not path:
        return f"{module}.{kind}"
    number, count, letter = _place(layer, model)
    names = getattr(getattr(model, block), path[0]).names
    pooled, split = "pool" in names, "split" in names
    if count == 1 and not pooled:
        return f"{module}.{'conv' if block.startswith('stem') else path[0]}.{kind}"
    return f"{module}.{path[0]}{'_' if split else '.'}{number + pooled}{letter}.{kind}"


def _place(layer: str, model: Network) -> tuple[int, int, str]:
    """The number of a convolution in its branch, how many there are, and the letter of a split."""
    block, branch, name, *rest = layer.split("/")
    layers = getattr(getattr(model, block), branch)
    steps = [n for n in layers.names if n == "split" or isinstance(getattr(layers, n), Conv)]
    return steps.index(name), len(steps), rest[0] if rest else ""


def _resnet(layer: str, head: str) -> str:
    fixed = {"conv1": "conv1", "norm1": "bn1", "fc": head}
    if layer in fixed:
        return fixed[layer]
    block, branch, own_name = layer.split("/")
    stage, number = block.removeprefix("conv").split("_")
    inner = own_name.replace("norm", "bn")
    if branch == "shortcut":
        inner = "downsample." + {"conv": "0", "norm": "1"}[own_name]
    return f"layer{int(stage) - 1}.{int(number) - 1}.{inner}"
