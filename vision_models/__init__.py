"""The networks of the ImageNet papers, in Flax NNX, made by name.

    model = vision_models.create("alexnet", num_classes=1000, rngs=nnx.Rngs(0))
    logits = model(images)

This package knows nothing of data or training.
"""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from flax import nnx

from vision_models.alexnet import AlexNet
from vision_models.analysis import activations, count_parameters, multiply_adds

__all__ = ["activations", "count_parameters", "create", "list_models", "multiply_adds"]

# Name -> class and the options that make it that network.
_MODELS: dict[str, tuple[Callable[..., nnx.Module], dict[str, Any]]] = {
    "alexnet": (AlexNet, {}),
    # The single-GPU net of the paper's section 3.2: the convolutional layers have
    # half the kernels, conv5 and the hidden layers all (code: layers-145-half.cfg).
    "alexnet_one_gpu": (AlexNet, {"towers": 1, "kernels": (48, 128, 192, 192, 256)}),
}


def list_models() -> list[str]:
    """The names that `create` knows, sorted."""
    return sorted(_MODELS)


def create(name: str, *, num_classes: int = 1000, rngs: nnx.Rngs, **options: Any) -> nnx.Module:
    """Makes a network with freshly drawn parameters.

    Args:
      name: one of `list_models()`.
      num_classes: number of logits.
      rngs: its stream `params` draws the parameters.
      **options: arguments of that network's class, its ablations among them.

    Returns:
      A module that maps images [batch, height, width, 3] to logits
      [batch, num_classes].

    Raises:
      ValueError: an unknown name, an option that this network does not have, or
        a value that it cannot take.
    """
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no model {name!r}; {hint}There are: {', '.join(list_models())}")
    network, defaults = _MODELS[name]
    accepted = inspect.signature(getattr(network, "__init__")).parameters  # noqa: B009
    unknown = set(options) - set(accepted)
    if unknown:
        raise ValueError(f"model {name!r} has no option {', '.join(sorted(unknown))}")
    return network(num_classes=num_classes, rngs=rngs, **{**defaults, **options})
