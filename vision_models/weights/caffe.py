"""Caffe's networks: the layers of a `.caffemodel` and their names in the well-known ones."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from vision_models import resnet
from vision_models.network import Network
from vision_models.weights.convert import is_norm, layers_with_variables
from vision_models.weights.types import COMMON, Source, Tensor, WeightsError, vgg_by_convolutions

# Fields of caffe.proto that are read: message -> field -> (number, type, repeated).
# Types are protobuf's names, or that of another message here.
_SCHEMA: dict[str, dict[str, tuple[int, str, bool]]] = {
    "NetParameter": {
        "name": (1, "string", False),
        "layers": (2, "V1LayerParameter", True),
        "layer": (100, "LayerParameter", True),
    },
    "LayerParameter": {
        "name": (1, "string", False),
        "type": (2, "string", False),
        "blobs": (7, "BlobProto", True),
        "lrn_param": (118, "LRNParameter", False),
    },
    "V1LayerParameter": {
        "name": (4, "string", False),
        "type": (5, "int32", False),
        "blobs": (6, "BlobProto", True),
        "lrn_param": (18, "LRNParameter", False),
    },
    "LRNParameter": {
        "local_size": (1, "uint32", False),
        "alpha": (2, "float", False),
        "beta": (3, "float", False),
        "k": (5, "float", False),
    },
    "BlobShape": {"dim": (1, "int64", True)},
    "BlobProto": {
        "num": (1, "int32", False),
        "channels": (2, "int32", False),
        "height": (3, "int32", False),
        "width": (4, "int32", False),
        "data": (5, "float", True),
        "shape": (7, "BlobShape", False),
        "double_data": (8, "double", True),
    },
}
# Numbers of V1LayerParameter.LayerType.
_V1_TYPES = {4: "Convolution", 14: "InnerProduct", 15: "LRN", 17: "Pooling"}


# The longest message of protobuf, in bytes.
_LONGEST = 2**31


def read(path: Path) -> Source:
    """Reads a file that holds a NetParameter.

    Raises:
      WeightsError: the file is no such message, or cut short.
    """
    size = path.stat().st_size
    if size > _LONGEST:
        raise WeightsError(f"{path}: {size:,} bytes, longer than any .caffemodel can be")
    return parse(path.read_bytes(), str(path))


def parse(data: bytes, path: str) -> Source:
    """Reads a serialised NetParameter.

    Returns:
      A source whose tensors are called `<layer>.weight` and `<layer>.bias`, of BatchNorm
      `running_mean` and `running_var`.

    Raises:
      WeightsError: no such message, or cut short.
    """
    from google.protobuf.message import DecodeError

    net = _message_class("NetParameter")()
    try:
        net.ParseFromString(data)
    except DecodeError as error:
        raise WeightsError(f"{path}: no .caffemodel, or cut short") from error
    layers: list[tuple[str, str, dict[str, Any]]] = []
    tensors: dict[str, np.ndarray] = {}
    for layer in (*net.layer, *net.layers):
        kind = layer.type if isinstance(layer.type, str) else _V1_TYPES.get(layer.type, "")
        settings = {}
        if kind == "LRN":
            lrn = layer.lrn_param
            settings = {
                "size": lrn.local_size if lrn.HasField("local_size") else 5,
                "alpha": round(lrn.alpha, 9) if lrn.HasField("alpha") else 1.0,
                "beta": round(lrn.beta, 6) if lrn.HasField("beta") else 0.75,
                "k": round(lrn.k, 6) if lrn.HasField("k") else 1.0,
            }
        layers.append((layer.name, kind, settings))
        arrays = [_array(blob, layer.name, path) for blob in layer.blobs]
        tensors |= _tensors(layer.name, kind, arrays)
    if not tensors:
        raise WeightsError(f"{path}: no layer with weights; is it a .caffemodel?")
    found = {name: Tensor.of(array) for name, array in tensors.items()}
    return Source("caffe", found, path, layers=layers)


def recognise(source: Source) -> tuple[str, dict[str, Any]] | None:
    """Name and options of the network in a file; None if it is not a known one.

    The options hold every setting that no tensor shows.
    """
    names, kinds = set(source.tensors), [kind for _, kind, _ in source.layers]
    if {"ip1.weight", "conv1.weight", "conv2.weight"} <= names:
        return "lenet_caffe", COMMON
    if {"cccp1.weight", "conv4-1024.weight"} <= names:
        return "nin_imagenet", COMMON
    if {"conv5.weight", "fc6.weight"} <= names:
        lrn = next((s for _, kind, s in source.layers if kind == "LRN"), None)
        options: dict[str, Any] = {
            **COMMON, "towers": 2, "inverted_dropout": True, "pool_window": 3,
            "lrn": lrn is not None, "lcn": False, "norm1_before_neuron": False,
            "spatial_norm2": False,
        }  # fmt: skip
        if {"LRN", "Pooling"} <= set(kinds):
            options["pool_before_norm"] = kinds.index("Pooling") < kinds.index("LRN")
        if lrn is not None:
            options["lrn_constants"] = {**lrn, "average": True}
            options["lrn_across_towers"] = True
        return "alexnet", options
    if "conv1_1.weight" in names:
        shapes = [v.shape for n, v in source.tensors.items() if n.startswith("conv")]
        name = vgg_by_convolutions(shapes)
        return (name, {**COMMON, "lrn": False, "batch_norm": False}) if name else None
    if "inception_3a/1x1.weight" in names:
        return "googlenet", {
            **COMMON, "lrn": "LRN" in kinds, "batch_norm": False,
            "auxiliary": "loss1/fc.weight" in names,
        }  # fmt: skip
    if "res2a_branch2a.weight" in names:
        blocks = {n.partition("_")[0] for n in names if n.startswith("res")}
        counts = tuple(sum(b.startswith(f"res{s}") for b in blocks) for s in (2, 3, 4, 5))
        for depth in (50, 101, 152):
            if counts == resnet.DEPTHS[depth]:
                settings = {"shortcut": "projection", "stride_in": "1x1", "pool1_padded": False}
                return f"resnet{depth}", {"neuron": "relu", "preactivation": False, **settings}
    return None


def layer_names(name: str, model: Network, source: Source) -> dict[str, str]:
    """Path of each of our layers -> its name in Caffe."""
    layers = list(layers_with_variables(model))
    if name == "googlenet":
        return {layer: _googlenet(layer) for layer in layers}
    if name.startswith("resnet"):
        # Stages of many blocks are numbered b1, b2, ... there, others lettered.
        deep = {"3", "4"} if name in ("resnet101", "resnet152") else set()
        return {layer: _resnet(layer, deep) for layer in layers}
    if name == "nin_imagenet":
        wide = ("conv4", "cccp7", "cccp8")
        return {layer: f"{layer}-1024" if layer in wide else layer for layer in layers}
    return {layer: layer for layer in layers}


def tensor_name(layer: str, variable: str) -> str:
    """The name of a layer's tensor, as `parse` gives it."""
    if variable in ("mean", "variance"):
        return f"{layer}.running_{'mean' if variable == 'mean' else 'var'}"
    return f"{layer}.{'bias' if variable == 'bias' else 'weight'}"


def prepare(source: Source) -> dict[str, Tensor]:
    """The tensors, with Caffe's separate BatchNorm and Scale layers joined.

    A bias before a normalisation is subtracted from its mean.

    Raises:
      WeightsError: that bias and mean have different shapes.
    """
    tensors = dict(source.tensors)
    for name in list(tensors):
        layer, _, variable = name.rpartition(".")
        if layer.startswith("scale"):
            tensors[f"bn{layer.removeprefix('scale')}.{variable}"] = tensors.pop(name)
    bias = tensors.pop("conv1.bias", None) if "bn_conv1.running_mean" in tensors else None
    if bias is not None:
        if bias.shape != tensors["bn_conv1.running_mean"].shape:
            raise WeightsError(
                f"{source.path}: conv1.bias is {bias.shape}, and the mean of its normalisation "
                f"{tensors['bn_conv1.running_mean'].shape}"
            )
        mean = tensors["bn_conv1.running_mean"].read() - bias.read()
        tensors["bn_conv1.running_mean"] = Tensor.of(mean)
    return tensors


def preprocessing_of(name: str, source: Source) -> str | None:
    """What the weights of Caffe's networks expect."""
    return "mnist" if name == "lenet_caffe" else "caffe"


def to_rgb(variables: dict[str, np.ndarray], model: Network) -> None:
    """Reorders the first convolution's inputs from Caffe's blue, green, red to RGB."""
    for layer, variables_of in layers_with_variables(model).items():
        if not is_norm(variables_of):
            kernel = f"{layer}/kernel"
            if variables[kernel].shape[-2] == 3:
                variables[kernel] = variables[kernel][..., ::-1, :]
            return


def _googlenet(layer: str) -> str:
    fixed = {
        "conv1": "conv1/7x7_s2",
        "conv2_reduce": "conv2/3x3_reduce",
        "conv2": "conv2/3x3",
        "classifier": "loss3/classifier",
    }
    if layer in fixed:
        return fixed[layer]
    block, *rest = layer.split("/")
    if block.startswith("aux"):
        return f"loss{block[-1]}/{rest[0]}"
    return f"{block}/{rest[-1]}"


def _resnet(layer: str, deep: set[str]) -> str:
    fixed = {"conv1": "conv1", "norm1": "bn_conv1", "fc": "fc1000"}
    if layer in fixed:
        return fixed[layer]
    block, branch, own_name = layer.split("/")
    stage, number = block.removeprefix("conv").split("_")
    place = int(number) - 1
    letter = chr(ord("a") + place) if stage not in deep else f"b{place}" if place else "a"
    prefix = "res" if own_name.startswith("conv") else "bn"
    end = "branch1" if branch == "shortcut" else "branch2" + "abc"[int(own_name[-1]) - 1]
    return f"{prefix}{stage}{letter}_{end}"


def _tensors(name: str, kind: str, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    if not arrays:
        return {}
    if kind == "BatchNorm":
        mean, variance, count = arrays
        factor = 1.0 / count.item() if count.item() else 0.0
        return {f"{name}.running_mean": mean * factor, f"{name}.running_var": variance * factor}
    weight, *rest = arrays
    if kind == "InnerProduct":
        weight = weight.reshape(weight.shape[-2:])
    found = {f"{name}.weight": weight}
    if rest:
        found[f"{name}.bias"] = rest[0].reshape(-1)
    return found


def _array(blob: Any, layer: str, path: str) -> np.ndarray:
    values = np.array(blob.data or blob.double_data, np.float32)
    shape = (
        tuple(blob.shape.dim)
        if blob.HasField("shape")
        else (blob.num, blob.channels, blob.height, blob.width)
    )
    if math.prod(shape) != values.size or min(shape, default=0) < 0:
        raise WeightsError(
            f"{path}: damaged or cut short, {layer} has {values.size} numbers for {shape}"
        )
    return values.reshape(shape)


def _message_class(name: str) -> Any:
    """A protobuf class for one of `_SCHEMA`'s messages."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="vision_models/caffe.proto", package="vision_models.caffe", syntax="proto2"
    )
    field_type = descriptor_pb2.FieldDescriptorProto
    for message, fields in _SCHEMA.items():
        described = file.message_type.add(name=message)
        for field, (number, kind, repeated) in fields.items():
            label = field_type.LABEL_REPEATED if repeated else field_type.LABEL_OPTIONAL
            entry = described.field.add(name=field, number=number, label=label)
            if kind in _SCHEMA:
                entry.type = field_type.TYPE_MESSAGE
                entry.type_name = f".vision_models.caffe.{kind}"
            else:
                entry.type = getattr(field_type, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName(f"vision_models.caffe.{name}")
    )
