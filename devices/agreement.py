"""Checks that the processes of a launch agree, before anything is computed."""

import contextlib
import json
import secrets
import time
from pathlib import Path
from typing import Any

from devices.errors import DeviceError
from devices.meeting import Meeting, processes

# Number of differences in a message, and of characters of a value in it.
_SHOWN, _WIDTH = 5, 60
# Seconds within which all hosts must see a file that one wrote; NFS caches for some seconds
# that a file does not exist.
_SEEN_WITHIN = 15


def differences(brought: list[dict[str, Any]], own: int) -> list[str]:
    """The facts that differ between processes, from the point of view of process `own`.

    Args:
      brought: facts of each process, by name.
      own: number of a process.

    Returns:
      Such as `seed: 0 here, 1 at process 1`.
    """
    found = []
    for name in sorted({name for facts in brought for name in facts}):
        values: dict[str, list[int]] = {}
        for process, facts in enumerate(brought):
            values.setdefault(json.dumps(facts.get(name)), []).append(process)
        if len(values) == 1:
            continue
        here = json.dumps(brought[own].get(name))
        others = [
            f"{_shown(brought[numbers[0]].get(name))} at {processes(numbers)}"
            for value, numbers in values.items()
            if value != here
        ]
        found.append(f"{name}: {_shown(brought[own].get(name))} here, {', '.join(others)}")
    return found


def agree(meeting: Meeting, name: str, facts: dict[str, Any]) -> None:
    """Checks that all processes bring the same facts to the exchange `name`.

    Raises:
      DeviceError: the facts differ; every process raises it, and names what differs.
    """
    found = differences(meeting.exchange(name, facts), meeting.own)
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise DeviceError(
            f"the {meeting.count} processes do not agree: {'; '.join(found[:_SHOWN])}{more}. Start "
            "all of them with the same command, code and data"
        )


def prove_shared(meeting: Meeting, workdir: Path) -> None:
    """Checks that all processes see a file that process 0 writes to the workdir.

    The file has a unique name and is removed afterwards. It lies in the workdir or, if that
    does not exist yet, in the nearest directory above. The workdir's path may differ between
    hosts.

    Raises:
      DeviceError: the workdir is not shared, or cannot be written; every process raises it.
    """
    whole = workdir.absolute()
    token: dict[str, Any] = {}
    if meeting.own == 0:
        place = next(p for p in (whole, *whole.parents) if p.is_dir())
        written = place / f".shared-by-all-{secrets.token_hex(8)}"
        # Relative to an existing directory, all hosts must name the workdir alike.
        token = {"name": written.name, "below": whole.relative_to(place).parts}
        try:
            written.write_text(written.name)
        except OSError as error:
            token["fault"] = error.strerror
    try:
        token = meeting.exchange("token", token)[0]
        if "fault" in token:
            raise DeviceError(f"--workdir={workdir}: cannot be written ({token['fault']})")
        upper, below = _split(whole, len(token["below"]))
        seen = below == token["below"] and _appears(upper / token["name"], token["name"])
        reports = meeting.exchange("token seen", {"seen": seen, "workdir": str(workdir)})
    finally:
        if meeting.own == 0:
            with contextlib.suppress(OSError):
                written.unlink()
    blind = [i for i, report in enumerate(reports) if not report["seen"]]
    if blind:
        here, there = reports[0]["workdir"], reports[blind[0]]["workdir"]
        also = f" at process 0, {there} at process {blind[0]}" if there != here else ""
        raise DeviceError(
            f"--workdir={here}{also}: not one directory that all processes share; "
            f"{processes(blind)} did not see there what process 0 wrote. Name a directory on a "
            "file system that all hosts have"
        )


def _split(path: Path, names: int) -> tuple[Path, list[str]]:
    """A path without its last `names` parts, and these parts."""
    upper = Path(*path.parts[: max(len(path.parts) - names, 1)])
    return upper, list(path.relative_to(upper).parts)


def _appears(path: Path, content: str) -> bool:
    deadline = time.monotonic() + _SEEN_WITHIN
    while True:
        with contextlib.suppress(OSError):
            list(path.parent.iterdir())  # makes NFS ask the server rather than its cache
            if path.read_text(errors="replace") == content:
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."
