"""A train state as the parts of a checkpoint; the evaluated arrays are kept once, as `model`."""

from typing import Any


def parts_of(state: dict[str, Any]) -> dict[str, Any]:
    """A train state as a flat dict of parts; those of the average are named `average_*`."""
    parts = {name: part for name, part in state.items() if name != "average"}
    return parts | {f"average_{name}": part for name, part in state.get("average", {}).items()}


def whole(parts: dict[str, Any]) -> dict[str, Any]:
    """The train state that `parts_of` makes these parts of."""
    state = {name: part for name, part in parts.items() if not name.startswith("average_")}
    if len(state) < len(parts):
        state["average"] = {name: parts[f"average_{name}"] for name in ("params", "statistics")}
    return state
