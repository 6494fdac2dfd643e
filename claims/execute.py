"""Runs jobs as processes: continued where they stopped, several at a time, none twice."""

import contextlib
import ctypes
import dataclasses
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

import files
from claims import settings
from claims.claim import Step
from claims.errors import ClaimError, ClaimRunError
from claims.jobs import PYTHON, Job, Place
from claims.measures import Finished
from claims.progress import (
    Progress,
    made_of,
    mark,
    outdated,
    pending,
    prepare,
    progress,
    unfinished,
)
from process import DONE, STOPPED

_LOOK_EVERY = 1.0  # seconds


@dataclasses.dataclass(frozen=True)
class Slots:
    """Places for processes, and the runs that processes are at work on, in any thread.

    Attributes:
      places: environment variables of each.
      taken: names of runs.
      lock: of `taken`.
    """

    places: tuple[Mapping[str, str], ...] = ({},)
    taken: set[str] = dataclasses.field(default_factory=set)
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def shared(self, count: int) -> "list[Slots]":
        """Divides the places among so many claims, or as many as there are places."""
        count = min(count, len(self.places))
        return [dataclasses.replace(self, places=self.places[n::count]) for n in range(count)]

    def take(self, name: str) -> bool:
        """Whether nobody was at work on a run; now the caller is."""
        with self.lock:
            free = name not in self.taken
            self.taken.add(name)
        return free

    def give_back(self, name: str) -> None:
        """Ends the work on a run."""
        with self.lock:
            self.taken.discard(name)


def free_slots(parallel: int | None) -> Slots:
    """A place for a process on each GPU, else one for the machine.

    Args:
      parallel: number of processes at a time; None for as many as there are GPUs.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        gpus = [text for text in named.split(",") if text.strip()]
    else:
        gpus = [str(number) for number in range(_gpus())]
    if parallel is None:
        parallel = max(len(gpus), 1)
    return Slots(
        tuple(
            {"CUDA_VISIBLE_DEVICES": gpus[n % len(gpus)]} if gpus else {} for n in range(parallel)
        )
    )


def _gpus() -> int:
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


@dataclasses.dataclass
class _Running:
    job: Job
    step: Step
    process: "subprocess.Popen[bytes]"
    output: IO[bytes]
    of: Mapping[str, str]
    held: contextlib.ExitStack
    begun: float
    looked: float  # when it was last seen whether that is enough
    enough: bool = False


def run(
    jobs: Sequence[Job],
    place: Place,
    say: Callable[[str], None],
    *,
    until: float | None = None,
    stop: threading.Event | None = None,
    slots: Slots | None = None,
) -> bool:
    """Runs what is pending of jobs; what another thread is at work on is waited for.

    Args:
      jobs: with those that they build on before them (`jobs.every`).
      place: of runs and data.
      say: gets a line for each beginning and end.
      until: moment of `time.monotonic` at which everything is stopped, to be continued.
      stop: set where a signal asks for the same.
      slots: places for processes; None for one.

    Returns:
      Whether all jobs are finished.

    Raises:
      ClaimError, ClaimRunError: a process failed; the others are stopped first.
    """
    if not (settings.ROOT / "main.py").exists():
        raise ClaimError(f"no main.py in {settings.ROOT}: claims are run in a checkout of the code")
    slots = slots or Slots()
    free, running = list(slots.places), list[tuple[Mapping[str, str], _Running]]()
    waiting, left = list(jobs), {job.name for job in jobs}
    begun, told = set[str](), set[str]()
    stopping = False

    def over() -> bool:
        late = until is not None and time.monotonic() >= until
        return late or (stop is not None and stop.is_set())

    def next_job() -> tuple[Job, contextlib.ExitStack] | None:
        """One whose turn it is and that nobody else is at work on, with what holds it."""
        for job in list(waiting):
            if any(other.name in left for other in job.before):
                continue
            with contextlib.ExitStack() as held:
                try:
                    _hold(job, place, slots, held)
                except BlockingIOError:
                    if job.name not in told:
                        say(f"{job.name}: another process is at work there; waiting for its end")
                        told.add(job.name)
                    continue
                except _TakenError:
                    continue
                if job.name not in begun:
                    prepare(job, place, say)
                    begun.add(job.name)
                elif why := outdated(job, place):
                    raise ClaimError(f"{job.name}: {why}, while it ran; start again")
                waiting.remove(job)
                if any(progress(before, place).diverged for before in job.before):
                    _mark_diverged(job, place)
                if pending(job, place):
                    return job, held.pop_all()
                left.discard(job.name)
        return None

    try:
        while waiting or running:
            stopping = stopping or over()
            if stopping and running:
                _stop([item for _, item in running])
            for slot, item in list(running):
                if item.process.poll() is None:
                    _end_where_enough(item, place)
                    continue
                running.remove((slot, item))
                free.append(slot)
                with item.held:
                    _ended(item, place, say)
                if not pending(item.job, place):
                    left.discard(item.job.name)
                elif not stopping:
                    waiting.insert(0, item.job)
            if stopping and not running:
                break
            while free and not stopping and (ready := next_job()):
                job, held = ready
                try:
                    running.append((slot := free.pop(0), _begin(job, place, slot, held, say)))
                except BaseException:
                    held.close()
                    raise
            time.sleep(0.05)
    except OSError as error:  # such as a full disk
        raise ClaimRunError(f"{place.runs}: {error}; then the same command goes on") from error
    finally:
        _stop([item for _, item in running])
        for _, item in running:
            item.process.wait()
            item.output.close()
            item.held.close()
    return not unfinished(jobs, place)


def _mark_diverged(job: Job, place: Place) -> None:
    """Counts a run as diverged that builds on one that has: there is nothing to begin with."""
    directory = job.directory(place)
    directory.mkdir(parents=True, exist_ok=True)
    mark(directory, Progress((), True, 0.0, made_of(job, place)))


class _TakenError(Exception):
    """Another thread is at work on a run."""


def _hold(job: Job, place: Place, slots: Slots, held: contextlib.ExitStack) -> None:
    """Holds a run against other threads and other processes.

    Raises:
      _TakenError: a thread is at work on it.
      BlockingIOError: a process is.
      ClaimError: there can be no directory for runs.
    """
    if not slots.take(job.name):
        raise _TakenError
    held.callback(slots.give_back, job.name)
    locks = place.runs / ".locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        held.enter_context(files.locked(locks / job.name))
    except BlockingIOError:
        raise
    except OSError as error:
        raise ClaimError(
            f"{place.runs}: no directory for runs ({error.strerror}); choose another --runs"
        ) from error
    if files.is_locked(job.directory(place) / ".lock"):  # a training whose parent was killed
        raise BlockingIOError


def _begin(
    job: Job,
    place: Place,
    slot: Mapping[str, str],
    held: contextlib.ExitStack,
    say: Callable[[str], None],
) -> _Running:
    (step, *others), directory = pending(job, place), job.directory(place)
    directory.mkdir(parents=True, exist_ok=True)
    before = progress(job, place)
    later = {f"{other.name}'s protocol" for other in others}
    of = {**before.of, **{k: v for k, v in made_of(job, place).items() if k not in later}}
    done = tuple(name for name in before.done if name != step.name)
    mark(directory, dataclasses.replace(before, done=done, of=of))
    say(f"{job.name}: {step.name}")
    output = (directory / f"claims-{step.name}.txt").open("wb")
    child = subprocess.Popen(
        [PYTHON, *job.command(step, place)],
        cwd=settings.ROOT,
        env=os.environ | slot,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches this process alone, which stops its children
        preexec_fn=_end_with_parent,
    )
    now = time.monotonic()
    return _Running(job, step, child, output, of, held, now, now)


def _end_where_enough(item: _Running, place: Place) -> None:
    """Asks a process to save and end where its step has all that it is for."""
    now = time.monotonic()
    if item.step.enough is None or item.enough or now - item.looked < _LOOK_EVERY:
        return
    item.looked = now
    item.enough = item.step.enough(Finished(item.job.directory(place)))
    if item.enough:
        item.process.terminate()


def _end_with_parent() -> None:
    """Asks Linux to send SIGTERM to this process when its parent ends, however it does."""
    with contextlib.suppress(Exception):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _stop(items: Sequence[_Running]) -> None:
    for item in items:
        if item.process.poll() is None:
            item.process.terminate()
    for item in items:
        item.process.wait()


def _ended(item: _Running, place: Place, say: Callable[[str], None]) -> None:
    """Marks a process as done, or says why it failed."""
    item.output.close()
    directory, code = item.job.directory(place), item.process.returncode
    before = progress(item.job, place)
    seconds = before.seconds + time.monotonic() - item.begun
    done = tuple(dict.fromkeys((*before.done, item.step.name)))
    stopped = code in (STOPPED, -signal.SIGTERM)
    if code in (DONE, *item.step.codes) or (stopped and item.enough):
        mark(directory, Progress(done, False, seconds, item.of))
        return
    if stopped:
        mark(directory, dataclasses.replace(before, seconds=seconds))
        say(f"{item.job.name}: stopped in {item.step.name}; the same command goes on")
        return
    if item.step.mode == "train" and (directory / "nonfinite.json").exists():
        mark(directory, Progress(done, True, seconds, item.of))
        say(f"{item.job.name}: diverged")
        return
    text = Finished(directory).output(item.step).strip().splitlines()
    errors = [line for line in text if line.startswith("error: ")] or text[-1:]
    said = " ".join(errors).removeprefix("error: ") or f"ended with {code}"
    error = ClaimError if code == ClaimError.exit_code else ClaimRunError
    raise error(f"{item.job.name}: {item.step.name} failed: {said}")
