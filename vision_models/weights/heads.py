"""Classifiers that others have replaced or renamed."""

from collections.abc import Collection, Iterable, Mapping

from vision_models.weights.types import Tensor


def renamed(
    head: str, shape: tuple[int, ...], need: Collection[str], tensors: Mapping[str, Tensor]
) -> str | None:
    """Finds a missing classifier under another name.

    Args:
      head: the name that it should have.
      shape: of its matrix, [classes, features].
      need: names of all tensors that the network needs.
      tensors: those in the file, by name.

    Returns:
      The name of the only layer that has a classifier's matrix and bias and that the network
      does not need otherwise; None if `head` is present, or no or several layers qualify.
    """
    if f"{head}.weight" in tensors:
        return None
    found = []
    for name, tensor in tensors.items():
        layer, _, variable = name.rpartition(".")
        matrix = tensor.shape in (shape, (*shape, 1, 1)) and variable == "weight"
        bias = tensors.get(f"{layer}.bias")
        if matrix and name not in need and bias and bias.shape == shape[:1]:
            found.append(layer)
    return found[0] if len(found) == 1 else None


def is_of_a_head(
    name: str, shape: tuple[int, ...], body: Iterable[str], heads: Iterable[str]
) -> bool:
    """Whether a tensor may belong to a classifier that replaces ours.

    It may if its layer lies at the top or beside a head and holds no other tensor of the
    network: `fc.0.weight`, `classifier.6.1.bias`, `fc8_flickr.weight`.

    Args:
      name, shape: of a tensor that the network does not have.
      body: names of the tensors that it needs besides its heads.
      heads: names of its heads in the file.
    """
    if len(shape) == 4 and shape[2:] != (1, 1):
        return False

    def step(tensor: str, parent: str) -> str | None:
        inside = tensor.startswith(parent)
        return tensor[len(parent) :].partition(".")[0] if inside else None

    parents = {"", *(f"{head.rpartition('.')[0]}." for head in heads if "." in head)}
    return any(
        step(name, parent) is not None
        and step(name, parent) not in {step(tensor, parent) for tensor in body}
        for parent in parents
    )
