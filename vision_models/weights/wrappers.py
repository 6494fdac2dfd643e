"""Finds a network behind the prefixes that training scripts add to tensor names.

A network may lie in nested dicts or behind prefixes such as `module.`, `_orig_mod.` or
`encoder_q.`; the names of all its tensors then begin with the same words. Its anchor, a tensor
that every network of its family has, shows which words these are.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from vision_models.weights.types import Tensor, some

# Words that wrappers of PyTorch put between the names of modules, at any depth.
_INSIDE = {
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
}
# Words, or parts of them, for parameters that are averages over training. MoCo's encoder_k
# follows encoder_q slowly.
_AVERAGES = {
    "ema", "average", "averaged", "avg", "swa", "polyak", "shadow",
    "teacher", "target", "momentum", "k",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Group:
    """Tensors that may be a network.

    Attributes:
      prefix: the beginning of their names in the file, such as `state_dict.encoder_q.`.
      tensors: by name, without the prefix.
      beside: tensors of the file that belong to no group, by name.
    """

    prefix: str
    tensors: dict[str, Tensor]
    beside: dict[str, Tensor]

    @property
    def is_average(self) -> bool:
        """Whether its prefix says that it is an average of another group."""
        return bool(set(re.split(r"[._\-/]", self.prefix.lower())) & _AVERAGES)


def groups(tensors: Mapping[str, Tensor], anchors: Iterable[str]) -> list[Group]:
    """Candidate networks of a file in its order, but averages after all others."""
    prefixes: dict[str, None] = {}
    for name in tensors:
        for anchor in anchors:
            prefix = _before(name, anchor)
            if prefix is not None:
                prefixes[prefix] = None

    def owner(name: str) -> str | None:
        return max((p for p in prefixes if name.startswith(p)), key=len, default=None)

    owners = {name: owner(name) for name in tensors}
    found = []
    for prefix in prefixes:
        inside = {n: t for n, t in tensors.items() if owners[n] == prefix}
        named = {_without_wrappers(n.removeprefix(prefix)): t for n, t in inside.items()}
        beside = {n: t for n, t in tensors.items() if owners[n] is None}
        found.append(Group(prefix, named, beside))
    return sorted(found, key=lambda group: group.is_average)


def choose(found: list[Group], fits: Callable[[Group], Any]) -> tuple[Group, tuple[str, ...]]:
    """The first group that fits, else the first, and notes about the other fitting ones.

    Args:
      found: at least one group, from `groups`.
      fits: whether a group is the wanted network.
    """
    taken, *others = [group for group in found if fits(group)] or found[:1]
    if not others:
        return taken, ()
    names = some(_called(group) for group in others)
    if others[0].is_average and not taken.is_average:
        return taken, (f"taken: {_called(taken)}, and not the average beside it ({names})",)
    return taken, (f"taken: {_called(taken)}, the first of several, and not {names}",)


def _called(group: Group) -> str:
    return group.prefix.rstrip(".") or "the network without a prefix"


def _before(name: str, anchor: str) -> str | None:
    """The prefix of a name that ends in an anchor, ignoring wrappers inside; else None."""
    words, wanted = name.split("."), anchor.split(".")
    while words and wanted:
        word = words.pop()
        if word == wanted[-1]:
            wanted.pop()
        elif word not in _INSIDE:
            return None
    return None if wanted else "".join(f"{word}." for word in words)


def _without_wrappers(name: str) -> str:
    return ".".join(word for word in name.split(".") if word not in _INSIDE)
