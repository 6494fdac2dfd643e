"""Several processes, on one machine or many, that train one network together."""

import contextlib
import os
import sys
import time
from collections.abc import Generator

import jax
from jax._src.distributed import global_state

from training.errors import TrainingError

# Seconds without a sign of life after which a process counts as lost; JAX's default is 100.
_HEARTBEAT = 30
# How the errors of JAX begin that have nothing to do with other processes.
_OF_ONE_ALONE = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNIMPLEMENTED")
_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def initialize_distributed(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Joins the processes of a launch; before anything else touches a device.

    What is not given is read from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID, and where these are not set asked of Cloud TPU, Slurm, Open MPI or
    Kubernetes.

    Args:
      coordinator_address: host:port of process 0.
      num_processes: in all.
      process_id: number of this process, from 0.

    Raises:
      TrainingError: not enough is known to join, or no process 0 answers.
    """
    address, *numbers = (os.environ.get(name) for name in _VARIABLES)
    for name, number in zip(_VARIABLES[1:], numbers, strict=True):
        if number is not None and not number.isdigit():
            raise TrainingError(f"{name}={number}: a number is needed")
    count, own = (None if number is None else int(number) for number in numbers)
    # JAX's own way of noticing SIGTERM would take the signal before the loop looks for it.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address or address,
            count if num_processes is None else num_processes,
            own if process_id is None else process_id,
            heartbeat_timeout_seconds=_HEARTBEAT,
            shutdown_timeout_seconds=_HEARTBEAT,
        )
    except (ValueError, RuntimeError) as error:
        raise TrainingError(
            f"--distributed: {str(error).splitlines()[0]} (give --coordinator_address=host:port, "
            "--num_processes and --process_id, or the variables "
            f"{', '.join(_VARIABLES)}, where the cluster does not tell)"
        ) from error


@contextlib.contextmanager
def ending_with_the_others() -> Generator[None, None, None]:
    """Ends this process at once, with code 1 and a word of why, when another one is lost.

    Nothing can be saved or closed in good order without the others: that would wait for them.
    JAX's own service does the same, with SIGABRT, when it is quicker to see that process 0
    is gone, and after `_HEARTBEAT` where the loss shows as a collective that never ends.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        reason = (str(error).splitlines() or ["no reason given"])[0][:200]
        process, count = _place()
        if count == 1 or reason.startswith(_OF_ONE_ALONE):
            raise
        print(
            f"error: process {process} of {count} lost the others "
            f"({reason}). Start all of them again with the same command: the run goes on from its "
            "newest checkpoint",
            file=sys.stderr,
            flush=True,
        )
        _end(1)


def leave(code: int) -> None:
    """Ends this process, which has failed and said so; the others then end as well.

    Leaving in good order would wait for processes that do not know of the failure. Where
    all have failed for one reason each has the time to say it.
    """
    process, count = _place()
    if count > 1:
        # Process 0 last: the others are aborted when it goes.
        time.sleep(1 if process else 3)
        _end(code)


def _place() -> tuple[int, int]:
    """Number of this process, and how many there are.

    As the launch told it: `jax.process_count` would wait for the others if none has touched its
    devices yet.
    """
    launch = global_state
    return launch.process_id or 0, launch.num_processes or 1


def _end(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
