"""Nested dicts, such as parameters and options, as one level of paths."""

from collections.abc import Mapping, Sequence
from typing import Any


def flatten(tree: Mapping[str, Any], separator: str = "/") -> dict[str, Any]:
    """One level of paths, in order: {"conv1": {"kernel": x}} -> {"conv1/kernel": x}."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            below = flatten(value, separator)
            flat |= {f"{name}{separator}{path}": leaf for path, leaf in below.items()}
        else:
            flat[name] = value
    return flat


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of these paths: {"conv1/kernel": x} -> {"conv1": {"kernel": x}}."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, leaf = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def keys_of(path: Sequence[Any]) -> list[str]:
    """The dict keys of a path that `jax.tree_util` returns for nested dicts."""
    return [str(key.key) for key in path]
