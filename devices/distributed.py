"""Several processes, on one machine or many, that train one network together."""

import contextlib
import ctypes
import dataclasses
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import jax
from jax._src import clusters

from devices import agreement
from devices.errors import DeviceError, LostProcessError
from devices.meeting import Meeting, split_address

# Seconds within which all processes must come: when people start them one by one, and when a
# cluster starts machines for them.
_BY_HAND, _BY_CLUSTER = 40, 300
# Seconds that a failed process waits for the others to hear of it; and seconds that a process
# waits after it heard, so that it can report the same fault itself.
_LINGER, _GRACE = 5, 2
# Seconds that JAX waits at its start and its end, when all processes are known to be present;
# and the timeout of its heartbeat, longer than ours.
_JAX_STARTS, _JAX_ENDS, _JAX_HEARTBEAT = 60, 30, 100
# JAX's errors that come from other processes: how they begin, or what they name. All others, such
# as those of a device or a library, are of one process alone.
_BEGIN = ("UNAVAILABLE", "ABORTED", "CANCELLED", "DEADLINE_EXCEEDED")
_NAME = ("gloo", "nccl", "coordination service", "coordinationservice", "heartbeat")
_FLAGS = ("--coordinator_address", "--num_processes", "--process_id")
_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@dataclasses.dataclass(frozen=True)
class Launch:
    """A launch, from the point of view of one of its processes.

    Attributes:
      address: host:port of process 0.
      count: number of processes.
      own: number of this process.
      devices: numbers of the devices that the process uses, among those it sees; None for all.
      patience: seconds within which all processes must come.
    """

    address: str
    count: int
    own: int
    devices: Sequence[int] | None
    patience: float


# The state of this process's launch; a process has at most one.
_meeting: Meeting | None = None
_lost, _lost_because = threading.Event(), ""
_leaving_with: int | None = None
_last_word = threading.Lock()


def launch_from(address: str | None, count: int | None, own: int | None) -> Launch:
    """The launch that the flags describe.

    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID stand in for missing flags.
    What is still missing is asked of Cloud TPU, Slurm, Open MPI or Kubernetes, as JAX does. The
    tasks of Slurm and Open MPI share the GPUs of their host, unless JAX_LOCAL_DEVICE_IDS names a
    process's own.

    Args:
      address: host:port of process 0.
      count: number of processes.
      own: number of this process, from 0.

    Raises:
      DeviceError: a value is missing or out of range; the message names the flag or variable.
    """
    named, given = list(_FLAGS), list[Any]((address, count, own))
    for i, variable in enumerate(_VARIABLES):
        text = os.environ.get(variable)
        if given[i] is None and text is not None:
            named[i], given[i] = variable, text
            if i > 0 and not (text.isascii() and text.isdigit()):
                raise DeviceError(f"{variable}={text}: a number is needed")
    devices, by_hand = os.environ.get("JAX_LOCAL_DEVICE_IDS"), given[0] is not None
    if devices and not all(number.strip().isdigit() for number in devices.split(",")):
        raise DeviceError(f"JAX_LOCAL_DEVICE_IDS={devices}: numbers are needed, such as 0,1")
    found: list[Any]
    try:
        *found, local = clusters.ClusterEnv.auto_detect_unset_distributed_params(
            given[0],
            None if given[1] is None else int(given[1]),
            None if given[2] is None else int(given[2]),
            [int(number) for number in devices.split(",")] if devices else None,
            None,
            _BY_CLUSTER,
        )
    except (ValueError, RuntimeError, LookupError) as error:
        raise DeviceError(
            f"--distributed: the cluster does not tell ({error}); give {', '.join(_FLAGS)}"
        ) from error
    missing = [i for i in range(3) if found[i] is None]
    if missing:
        told = [f"{named[i]}={given[i]}" for i in range(3) if given[i] is not None]
        raise DeviceError(
            f"--distributed: {', '.join(_FLAGS[i] for i in missing)} or the variable"
            f"{'s' * (len(missing) > 1)} {', '.join(_VARIABLES[i] for i in missing)} "
            f"{'are' if len(missing) > 1 else 'is'} missing where the cluster does not tell"
            + (f" (there is {' and '.join(told)})" if told else "")
        )
    try:
        split_address(found[0])
    except ValueError as error:
        raise DeviceError(
            f"{named[0]}={found[0]}: {error}; host:port of process 0 is needed, such as host0:9911"
        ) from error
    if found[1] < 1:
        raise DeviceError(f"{named[1]}={found[1]}: at least 1 is needed")
    if not 0 <= found[2] < found[1]:
        raise DeviceError(
            f"{named[2]}={found[2]}: of {found[1]} processes ({named[1]}) the numbers are 0 to "
            f"{found[1] - 1}"
        )
    if local is not None and not devices:
        local = _devices_of_task(*local)
    address, count, own = found
    return Launch(address, count, own, local, _BY_HAND if by_hand else _BY_CLUSTER)


def _devices_of_task(number: int) -> list[int] | None:
    """The devices of the task with this number on its host; None for all that it sees.

    JAX takes the one device of this number. That leaves devices out on a host with fewer tasks
    than devices, and is none where a task sees its own devices alone, numbered from 0.
    """
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = len(seen.split(",")) if seen else 0
    # A number, or Slurm's form of it for several hosts that are all alike, such as 8(x2).
    told = os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE")
    by_slurm = told is None  # else its variables may be those of the job around
    told = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "") if by_slurm else told
    alike = re.fullmatch(r"(\d+)(\(x\d+\))?", told or "")
    tasks = int(alike[1]) if alike else 0
    asked = os.environ.get("SLURM_GPUS_PER_TASK", "").rpartition(":")[2]  # such as 2 or h100:2
    of_host = os.environ.get("SLURM_GPUS_ON_NODE", "")
    own = asked == str(visible) or (of_host.isdecimal() and 0 < visible < int(of_host))
    if tasks == 1 or visible == 1 or 0 < visible < tasks or (by_slurm and own):
        return None
    each = max(visible // tasks, 1) if tasks else 1
    return list(range(number * each, (number + 1) * each))


def join_processes(launch: Launch, facts: dict[str, Any], workdir: Path) -> None:
    """Joins the processes of a launch, if all were started for the same run.

    Must be called before anything touches a device or is written.

    Args:
      launch: from `launch_from`.
      facts: facts that must be equal in all processes, by their names on the screen.
      workdir: the run's.

    Raises:
      DeviceError: the processes do not agree, or do not share the workdir.
      LostProcessError: a process has not come, or has failed.
    """
    global _meeting
    _meeting = Meeting(launch.address, launch.count, launch.own, _when_lost)
    _meeting.gather(launch.patience)
    agreement.agree(_meeting, "launch", facts)
    agreement.prove_shared(_meeting, workdir)
    _end_instead_of_aborting()
    # JAX's own handler of SIGTERM would take the signal from the training loop.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        with ending_with_the_others():
            jax.distributed.initialize(
                launch.address,
                launch.count,
                launch.own,
                launch.devices,
                cluster_detection_method="deactivate",  # else it looks for devices again
                initialization_timeout=_JAX_STARTS,
                heartbeat_timeout_seconds=_JAX_HEARTBEAT,
                shutdown_timeout_seconds=_JAX_ENDS,
            )
    except (ValueError, RuntimeError) as error:
        raise LostProcessError(f"--distributed: {str(error).splitlines()[0]}") from error


def agree_on_inputs(facts: dict[str, Any]) -> None:
    """Checks that all processes have the same data and weights; does nothing in a single process.

    Args:
      facts: as in `join_processes`.

    Raises:
      DeviceError: the facts differ; every process names what differs.
    """
    if _meeting is not None:
        agreement.agree(_meeting, "inputs", facts)


def tell_of_failure(launch: Launch, code: int) -> None:
    """Tells the others that this process failed before it joined them, and has reported it.

    Processes hear of it if they come soon. Nothing more is printed here.
    """
    global _meeting
    _silence()
    _meeting = Meeting(launch.address, launch.count, launch.own, lambda _: None)
    with contextlib.suppress(DeviceError, LostProcessError):
        _meeting.gather(2 * _LINGER, ended=code)
    if launch.count > 1:
        _meeting.linger(2 * _LINGER)


@contextlib.contextmanager
def ending_with_the_others() -> Generator[None, None, None]:
    """Inside, the loss of another process ends this one at once, with code 1 and a message.

    Saving or closing in an orderly way would wait for the lost process. This process's own errors
    are raised.
    """
    try:
        yield
    except Exception as error:
        if _meeting is None or _meeting.count == 1:
            raise
        reason = (str(error).splitlines() or ["no reason given"])[0]
        # If another process was lost, its number arrives within this time.
        if _lost.wait(2 * _GRACE) or _is_of_others(error, reason):
            _end_because(reason[:200])
        raise


def _is_of_others(error: Exception, reason: str) -> bool:
    if not isinstance(error, jax.errors.JaxRuntimeError):
        return "Gloo" in reason
    return reason.startswith(_BEGIN) or any(name in reason.lower() for name in _NAME)


def leave(code: int) -> None:
    """Ends this process, which has failed and reported it; the others then end as well.

    An orderly end would wait for processes that do not know of the failure. Nothing more is
    printed: that others have ended as well, perhaps with the same error, is not why this one does.
    """
    global _leaving_with
    if _meeting is None:
        return
    _leaving_with = code
    _meeting.end(code)
    _silence()  # the last word was said
    _meeting.linger(_LINGER)
    os._exit(code)


def finish(code: int) -> None:
    """Waits for the others at the end of a run without a fault; one may still fail."""
    global _leaving_with
    if _meeting is not None:
        _meeting.exchange("end", {})
        _leaving_with = code
        _meeting.end(0)


def _when_lost(reason: str) -> None:
    """Ends the process, from a thread: the main thread may wait for ever."""
    global _lost_because
    _lost_because = reason
    _lost.set()
    time.sleep(_GRACE)
    if _leaving_with is None:
        _end_because(reason)


def _end_because(reason: str) -> None:
    """Prints that others are lost and ends the process with 1; only the first call does."""
    _last_word.acquire()
    place = "" if _meeting is None else f"process {_meeting.own} of {_meeting.count} "
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        print(
            f"error: {place}lost the others ({_lost_because or reason}). Start all of them again "
            "with the same command: the run goes on from its newest checkpoint",
            file=sys.stderr,
            flush=True,
        )
    os._exit(1)


def _silence() -> None:
    """Redirects both streams to /dev/null, so that libraries print nothing after our message."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(number: int) -> None:
    if _leaving_with is not None:
        os._exit(_leaving_with)
    # A signal that ends all processes has time to arrive here and to name the reason.
    time.sleep(2 * _GRACE)
    _end_because("JAX's service for several processes has ended this one")


def _end_instead_of_aborting() -> None:
    """Prints our message after JAX's C++ stack, and ends with code 1 in place of 134.

    When process 0 is gone, JAX's client ends the process with SIGABRT from its own thread.
    A Python handler would run too late, in the main thread.
    """
    if os.name == "posix":
        ctypes.CDLL(None).signal(signal.SIGABRT, _on_abort)
