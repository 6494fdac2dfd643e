"""Neighbouring layers that are computed together, to pass over fewer or smaller maps."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from jax import Array

from vision_models import layers, modules, towers
from vision_models.convolution import convolve_by_each
from vision_models.forward import Pass

# Neurons that keep the order of numbers: the largest of a window is the same before and after.
_IN_ORDER = ("identity", "relu")


def with_next(layer: Any, after: Any, run: Pass) -> dict[str, Any]:
    """What a layer is called with to do the work of the one after it as well; {} if it cannot.

    - A convolution takes a max pool before its bias and neuron, which then see the smaller map.
      Results are the same numbers, for adding a bias keeps the order of rounded numbers too. So
      are gradients, but for the order of the bias's sum, and for which of the pixels of a window
      that differ only before the bias is taken for its maximum.
    - A convolution with a ReLU leaves bias and ReLU to the response normalisation after it, whose
      gradient on TPUs is also that by the bias. The numbers are the same.
    - In training, a BatchNorm computes the ReLU after it in its own passes over maps.

    Not where activations are recorded: those between the two would be missing.
    """
    if _in_full(run):
        return {}
    if isinstance(layer, modules.BatchNorm):
        return {"relu": True} if run.training and after == modules.Neuron("relu") else {}
    if isinstance(layer, modules.Conv | towers.TowerConv) and layer.neuron in _IN_ORDER:
        relu = layer.neuron == "relu"
        if isinstance(after, modules.Pool) and after.kind == "max":
            return {"pool": after.of_whole_maps}
        if isinstance(after, modules.LocalResponseNorm) and after.across == 1:
            return {"norm": after.of_maps} if hasattr(layer, "bias") and relu else {}
    return {}


def of_same_maps(heads: Mapping[str, Any], x: Array, run: Pass) -> dict[str, Array]:
    """The results, under their names, of those convolutions that slide equal windows over `x`.

    Their gradients may then be one convolution; see `convolution.convolve_by_each`.

    Args:
      heads: layers that all read `x`, such as the first of each branch of an Inception module.
      x: [B, H, W, C].
    """
    alike: dict[Any, list[str]] = defaultdict(list)
    for name, layer in heads.items() if not _in_full(run) else ():
        if isinstance(layer, modules.Conv):
            alike[layer.window, layer.stride, layer.padding].append(name)
    found = {}
    for (_, stride, padding), names in alike.items():
        if len(names) > 1:
            convs = [heads[name] for name in names]
            kernels = [conv.kernel[...] for conv in convs]
            biases = [conv.bias[...] if hasattr(conv, "bias") else None for conv in convs]
            maps = convolve_by_each(x, kernels, biases, stride=stride, padding=padding)
            for name, conv, out in zip(names, convs, maps, strict=True):
                found[name] = run.neuron(conv.neuron)(out)
    return found


def _in_full(run: Pass) -> bool:
    """Whether every layer has to be computed by itself."""
    return run.record is not None or run.valid is not None or run.neuron is not layers.neuron
