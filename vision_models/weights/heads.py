"""Classifiers that others have replaced or renamed."""

from collections.abc import Collection, Iterable, Mapping

from vision_models.weights.types import Tensor


def renamed(
    head: str, shape: tuple[int, ...], need: Collection[str], tensors: Mapping[str, Tensor]
) -> str | None:
    """The layer that stands for a classifier that is missing.

    Args:
      head: the name that it should have.
      shape: of its matrix, [classes, features].
      need: names of all tensors that the network needs.
      tensors: what there is.

    Returns:
      Its name, where there is one layer alone that the network has no other use for and that
      has a classifier's matrix and bias; else None.
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
    """Whether a tensor may be part of a classifier in the place of ours.

    It is, if it lies at the top or where a head lies, in a layer of which nothing else of the
    network is part: `fc.0.weight`, `classifier.6.1.bias`, `fc8_flickr.weight`.

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
