"""Mesh, several processes, collectives, XLA's options. Knows nothing of networks or data."""

from devices.distributed import (
    agree_on_inputs,
    ending_with_the_others,
    finish,
    join_processes,
    launch_from,
    leave,
    tell_of_failure,
)
from devices.errors import DeviceError, LostProcessError
from devices.mesh import check_platform, process_share

__all__ = [
    "DeviceError",
    "LostProcessError",
    "agree_on_inputs",
    "check_platform",
    "ending_with_the_others",
    "finish",
    "join_processes",
    "launch_from",
    "leave",
    "process_share",
    "tell_of_failure",
]
