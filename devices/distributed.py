"""Several processes, on one machine or many, that train one network together."""

import contextlib
import ctypes
import dataclasses
import os
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

# Seconds for all processes to come: of people who start them one by one, and of a cluster that
# starts machines for them.
_BY_HAND, _BY_CLUSTER = 40, 300
# A process that has failed waits so long for the others to hear of it; for those that fail for
# the same reason there is time to say it themselves before they end because of another.
_LINGER, _GRACE = 5, 2
# Seconds that JAX waits at its own start and end, where all processes are known to be there; and
# its own heartbeat's, longer than ours.
_JAX_STARTS, _JAX_ENDS, _JAX_HEARTBEAT = 60, 30, 100
# How the errors of JAX begin that have nothing to do with other processes.
_OF_ONE_ALONE = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNIMPLEMENTED")
_FLAGS = ("--coordinator_address", "--num_processes", "--process_id")
_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@dataclasses.dataclass(frozen=True)
class Launch:
    """What a process knows of its launch.

    Attributes:
      address: host:port of process 0.
      count: of processes.
      own: number of this one.
      devices: numbers of this machine's devices that are its own; None: all.
      patience: seconds for all processes to come.
    """

    address: str
    count: int
    own: int
    devices: Sequence[int] | None
    patience: float


# Of this process; there is one launch in its life.
_meeting: Meeting | None = None
_lost, _lost_because = threading.Event(), ""
_leaving_with: int | None = None
_last_word = threading.Lock()


def launch_from(address: str | None, count: int | None, own: int | None) -> Launch:
    """What the flags say, or else JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Where neither do, Cloud TPU, Slurm, Open MPI or Kubernetes are asked, as JAX does.

    Args:
      address: host:port of process 0.
      count: of processes.
      own: number of this process, from 0.

    Raises:
      DeviceError: something is missing or out of range; the message names the flag or the
        variable.
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
    address, count, own = found
    return Launch(address, count, own, local, _BY_HAND if by_hand else _BY_CLUSTER)


def join_processes(launch: Launch, facts: dict[str, Any], workdir: Path) -> None:
    """Joins the processes of a launch, if all were started for the same run.

    Before anything else touches a device, and before anything is written.

    Args:
      launch: from `launch_from`.
      facts: what must be the same in all, by what it is called on the screen.
      workdir: of the run.

    Raises:
      DeviceError: they do not agree or do not share the workdir.
      LostProcessError: one has not come, or has failed meanwhile.
    """
    global _meeting
    _meeting = Meeting(launch.address, launch.count, launch.own, _when_lost)
    _meeting.gather(launch.patience)
    agreement.agree(_meeting, "launch", facts)
    agreement.prove_shared(_meeting, workdir)
    _end_instead_of_aborting()
    # JAX's own way of noticing SIGTERM would take the signal before the loop looks for it.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            launch.address,
            launch.count,
            launch.own,
            launch.devices,
            initialization_timeout=_JAX_STARTS,
            heartbeat_timeout_seconds=_JAX_HEARTBEAT,
            shutdown_timeout_seconds=_JAX_ENDS,
        )
    except (ValueError, RuntimeError) as error:
        raise LostProcessError(f"--distributed: {str(error).splitlines()[0]}") from error


def agree_on_inputs(facts: dict[str, Any]) -> None:
    """Goes on if all processes have the same data and weights; alone, at once.

    Args:
      facts: as in `join_processes`.

    Raises:
      DeviceError: they have not; every process names what differs.
    """
    if _meeting is not None:
        agreement.agree(_meeting, "inputs", facts)


def tell_of_failure(launch: Launch, code: int) -> None:
    """From a process that has failed before it joined the others, and said so.

    They hear of it as far as they come soon; what happens here is not worth a word more.
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
    """Ends this process at once, with code 1 and a word of why, when another one is lost.

    Nothing can be saved or closed in good order without the others: that would wait for them.
    """
    try:
        yield
    except Exception as error:
        if _meeting is None or _meeting.count == 1:
            raise
        reason = (str(error).splitlines() or ["no reason given"])[0][:200]
        alone = reason.startswith(_OF_ONE_ALONE)
        theirs = "Gloo" in reason or (isinstance(error, jax.errors.JaxRuntimeError) and not alone)
        # Which one was lost is about to be heard, if it is that.
        if _lost.wait(2 * _GRACE) or theirs:
            _end_because(reason)
        raise


def leave(code: int) -> None:
    """Ends this process, which has failed and said so; the others then end as well.

    Leaving in good order would wait for processes that do not know of the failure.
    """
    global _leaving_with
    if _meeting is None:
        return
    if _lost.is_set() and code == 1:  # that is why
        _end_because(_lost_because)
    _leaving_with = code
    _meeting.end(code)
    _silence()  # the last word was said
    _meeting.linger(_LINGER)
    os._exit(code)


def finish(code: int) -> None:
    """Waits for the others at the end of a run in good order; one may still fail."""
    global _leaving_with
    if _meeting is not None:
        _meeting.exchange("end", {})
        _leaving_with = code
        _meeting.end(0)


def _when_lost(reason: str) -> None:
    """Called in a thread: whatever the main one is at may wait for ever."""
    global _lost_because
    _lost_because = reason
    _lost.set()
    time.sleep(_GRACE)
    if _leaving_with is None:
        _end_because(reason)


def _end_because(reason: str) -> None:
    """Says that others are lost and ends with 1; the first call does."""
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
    """What libraries still say, or print at the end, does not come after the last word."""
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
    # A signal that ends all of them has the time to arrive; then the reason is known.
    time.sleep(2 * _GRACE)
    _end_because("JAX's service for several processes has ended this one")


def _end_instead_of_aborting() -> None:
    """Puts our word after JAX's C++ stack, and code 1 in the place of 134.

    The moment process 0 is gone JAX's client ends the process with SIGABRT, from a thread of its
    own. A handler of Python's would run too late, in the main thread.
    """
    if os.name == "posix":
        ctypes.CDLL(None).signal(signal.SIGABRT, _on_abort)
