"""The networks of the ImageNet papers, in Flax NNX, made by name.

    model = vision_models.create("alexnet", num_classes=1000, rngs=nnx.Rngs(0))
    logits = model(images)

This package knows nothing of data or training.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx

from vision_models import (
    alexnet,
    all_convolutional,
    cifar10,
    convnet,
    googlenet,
    inception,
    lenet,
    nin,
    overfeat,
    resnet,
    vgg,
    zfnet,
)
from vision_models.analysis import activations, count_parameters, layer_table, multiply_adds
from vision_models.network import Network
from vision_models.transform import fully_convolutional, replace_head

__all__ = [
    "activations",
    "count_parameters",
    "create",
    "default_options",
    "definition",
    "fully_convolutional",
    "layer_table",
    "list_models",
    "multiply_adds",
    "name_of",
    "replace_head",
]

# Name -> function and its definition: the options that make it that network.
_MODELS: dict[str, tuple[Callable[..., Network], dict[str, Any]]] = {
    "lenet5": (lenet.lenet5, {}),
    "lenet5_linear": (lenet.lenet5, {"head": "linear"}),
    "lenet_caffe": (lenet.lenet_caffe, {}),
    "alexnet": (alexnet.alexnet, {}),
    # The single-GPU net of the paper's section 3.2: conv1 to conv4 have half the kernels,
    # conv5 and the hidden layers their full size (code: layers-145-half.cfg).
    "alexnet_one_gpu": (alexnet.alexnet, {"towers": 1, "kernels": (48, 128, 192, 192, 256)}),
    # "1 CNN*" of the paper's Table 2 (code: layers-146).
    "alexnet_six_conv": (alexnet.alexnet, {"conv6": 256}),
    "alexnet_owt": (alexnet.alexnet_owt, {}),
    "zfnet": (zfnet.zfnet, {}),
    # The lectures' larger variant, 14.8% top-5 error in the 2013 competition.
    "zfnet_wide": (zfnet.zfnet, {"kernels": (96, 256, 512, 1024, 512)}),
    # Pyramid pooling of He et al. 2014 over ZFNet's body.
    "zfnet_spp": (zfnet.zfnet, {"pyramid": (6, 3, 2, 1)}),
    "overfeat_fast": (overfeat.overfeat_fast, {}),
    "overfeat_accurate": (overfeat.overfeat_accurate, {}),
    "vgg_a": (vgg.vgg, {"configuration": "a"}),
    "vgg_a_lrn": (vgg.vgg, {"configuration": "a", "lrn": True}),
    "vgg_b": (vgg.vgg, {"configuration": "b"}),
    "vgg_b_5x5": (vgg.vgg, {"configuration": "b_5x5"}),
    "vgg_c": (vgg.vgg, {"configuration": "c"}),
    "vgg_d": (vgg.vgg, {"configuration": "d"}),
    "vgg_e": (vgg.vgg, {"configuration": "e"}),
    # Without fc6 and fc7: an average over the last maps, then the classifier.
    "vgg_d_no_fc": (vgg.vgg, {"configuration": "d", "hidden": ()}),
    # torchvision's vgg11_bn, vgg13_bn, vgg16_bn and vgg19_bn.
    **{f"vgg_{c}_bn": (vgg.vgg, {"configuration": c, "batch_norm": True}) for c in vgg.NORMALIZED},
    "googlenet": (googlenet.googlenet, {}),
    "googlenet_bn": (googlenet.googlenet, {"batch_norm": True}),
    "inception_v3": (inception.inception_v3, {}),
    "inception_v4": (inception.inception_v4, {}),
    **{f"resnet{n}": (resnet.resnet, {"depth": n}) for n in resnet.DEPTHS if n != 200},
    **{
        f"preact_resnet{n}": (resnet.resnet, {"depth": n, "preactivation": True})
        for n in resnet.DEPTHS
    },
    **{f"plain{n}": (resnet.resnet, {"depth": n, "shortcut": "none"}) for n in resnet.PLAIN_DEPTHS},
    **{f"resnet{n}": (resnet.cifar_resnet, {"depth": n}) for n in resnet.CIFAR_DEPTHS},
    **{
        f"plain{n}": (resnet.cifar_resnet, {"depth": n, "shortcut": "none"})
        for n in resnet.CIFAR_PLAIN_DEPTHS
    },
    **{
        f"preact_resnet{n}": (resnet.cifar_resnet, {"depth": n, "preactivation": True})
        for n in resnet.CIFAR_PREACTIVATION_DEPTHS
    },
    "preact_resnet164": (
        resnet.cifar_resnet,
        {"depth": 164, "preactivation": True, "bottleneck": True, "shortcut": "projection"},
    ),
    "cifar10_four_layer": (cifar10.four_layer, {}),
    "cifar10_18pct": (cifar10.four_layer, {"norm": True}),
    "cifar10_13pct": (cifar10.conv_local, {}),
    "cifar10_11pct": (cifar10.conv_local, {"norm": True, "local3": 64}),
    **{
        f"{name}_{base}": (
            all_convolutional.all_convolutional,
            {"base": base, "reduction": reduction},
        )
        for name, reduction in all_convolutional.NAMES.items()
        for base in "abc"
    },
    "nin_cifar10": (nin.nin_cifar10, {}),
    "nin_imagenet": (nin.nin_imagenet, {}),
    "convnet": (convnet.convnet, {}),
    # The smallest of the pattern: [CONV-RELU-POOL-FC], 12 kernels.
    "conv_relu_pool_fc": (
        convnet.convnet,
        {"convolutions": 1, "stages": 1, "hidden_layers": 0, "kernels": 12, "window": 5},
    ),
}
# The same networks under the number of their layers.
_MODELS |= {f"vgg{n}": _MODELS[f"vgg_{c}"] for n, c in ((11, "a"), (13, "b"), (16, "d"), (19, "e"))}

# Defaults that go with a name but do not define it: another value is still that network.
_USUAL: dict[str, dict[str, Any]] = {"googlenet_bn": {"dropout": 0.2}}


def list_models() -> list[str]:
    """The names that `create` knows, sorted."""
    return sorted(_MODELS)


def create(name: str, *, num_classes: int | None = None, rngs: nnx.Rngs, **options: Any) -> Network:
    """Makes a network with freshly drawn parameters.

    Args:
      name: one of `list_models()`.
      num_classes: number of logits; None for as many as in the paper.
      rngs: its stream `params` draws the parameters.
      **options: arguments of the network's function, its ablations among them.

    Returns:
      A module that maps images [batch, height, width, 3] to logits
      [batch, num_classes].

    Raises:
      ValueError: an unknown name, an option that this network does not have, or
        a value that it cannot take.
    """
    network, _ = _find(name)
    defaults = default_options(name)
    unknown = set(options) - set(defaults)
    if unknown:
        raise ValueError(f"model {name!r} has no option {', '.join(sorted(unknown))}")
    if num_classes is not None:
        options["num_classes"] = num_classes
    return network(rngs=rngs, **{**defaults, **options})


def default_options(name: str) -> dict[str, Any]:
    """The options of a network with their default values, `num_classes` among them.

    Raises:
      ValueError: an unknown name.
    """
    network, definition = _find(name)
    parameters = inspect.signature(network).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.name != "rngs"}
    return defaults | _USUAL.get(name, {}) | definition


def definition(name: str) -> dict[str, Any]:
    """The options that make a network what its name says.

    Raises:
      ValueError: an unknown name.
    """
    return dict(_find(name)[1])


def name_of(name: str, options: Mapping[str, Any]) -> str:
    """The most specific name of a network: `vgg_d_bn` for `vgg_d` with batch_norm=True.

    Args:
      name: the name that it was created by.
      options: the options that it was created with; lists count as tuples.

    Raises:
      ValueError: an unknown name.
    """
    network, _ = _find(name)
    made = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    made = default_options(name) | made
    fitting = [
        other
        for other, (function, defining) in _MODELS.items()
        if function is network and defining.items() <= made.items()
    ]
    return max(fitting, key=lambda other: len(_MODELS[other][1]))


def _find(name: str) -> tuple[Callable[..., Network], dict[str, Any]]:
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no model {name!r}; {hint}There are: {', '.join(list_models())}")
    return _MODELS[name]
