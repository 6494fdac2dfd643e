"""Runs jobs as processes: continued where they stopped, several at a time, none twice."""

import contextlib
import ctypes
import dataclasses
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import files
from claims import settings
from claims.claim import Step
from claims.errors import ClaimError, ClaimRunError
from claims.jobs import PYTHON, Job, Place
from claims.measures import Finished
from process import DONE, STOPPED

# In a run's directory: the processes that have ended, and their seconds.
MARK = "claims.json"
_LOOK_EVERY = 1.0  # seconds


@dataclasses.dataclass(frozen=True)
class Progress:
    """What has been done of a job.

    Attributes:
      done: names of the processes that have ended.
      diverged: whether training ended with a loss or parameters that are not finite.
      seconds: that all its processes took.
      of: what the work is of, where that may change: see `_made_of`.
    """

    done: tuple[str, ...] = ()
    diverged: bool = False
    seconds: float = 0.0
    of: Mapping[str, str] = dataclasses.field(default_factory=dict)


def progress(job: Job, place: Place) -> Progress:
    """Reads what has been done of a job."""
    try:
        found = json.loads((job.directory(place) / MARK).read_text())
        return Progress(
            tuple(found["done"]), found["diverged"], found["seconds"], found.get("of", {})
        )
    except (OSError, ValueError, LookupError, TypeError):
        return Progress()


def _made_of(job: Job, place: Place) -> dict[str, str]:
    """Of the runs that a job builds on, digests of their configs; of a tool's, the code's commit.

    Both change under the same name: a run of a changed config is run anew, and tools change.
    """
    found = {}
    for before in job.before:
        if saved := _saved(before, place):
            text = json.dumps([kv for kv in sorted(settings.flat(saved)) if settings.counts(kv[0])])
            found[before.name] = hashlib.sha256(text.encode()).hexdigest()[:12]
    if not job.before and not any(step.mode in ("train", "evaluate") for step in job.steps):
        found["commit"] = _commit()
    return found


def _saved(job: Job, place: Place) -> dict[str, Any]:
    """The config with which the run in a job's directory began; empty where there is none."""
    try:
        return dict(json.loads((job.directory(place) / "config.json").read_text())["config"])
    except (OSError, ValueError, LookupError, TypeError):
        return {}


@functools.cache
def _commit() -> str:
    """The commit of the checkout, and whether it is changed; "" where git does not tell."""
    try:
        said = [
            subprocess.run(
                ["git", *words], cwd=settings.ROOT, capture_output=True, text=True, check=True
            ).stdout
            for words in (["rev-parse", "HEAD"], ["diff", "HEAD", "--", "*.py"])
        ]
    except (OSError, subprocess.SubprocessError):
        return ""
    return said[0][:12] + (f"+{hashlib.sha256(said[1].encode()).hexdigest()[:6]}" * bool(said[1]))


def outdated(job: Job, place: Place) -> str:
    """What has changed since the work in a job's directory was done; "" for nothing."""
    if changed := changed_fields(job, place):
        return f"the config has changed since ({', '.join(changed[:4])})"
    was, now = progress(job, place).of, _made_of(job, place)
    if others := [name for name, of in was.items() if now.get(name, of) != of]:
        return f"{', '.join(others)} has changed since"
    return ""


def pending(job: Job, place: Place) -> list[Step]:
    """The processes of a job that have not ended yet."""
    now = progress(job, place)
    return [] if now.diverged else [step for step in job.steps if step.name not in now.done]


def finished(job: Job, place: Place) -> Finished | None:
    """The run of a job; None as long as one of its processes is pending or it is outdated."""
    if pending(job, place) or outdated(job, place):
        return None
    return Finished(job.directory(place), progress(job, place).diverged)


def unfinished(jobs: Sequence[Job], place: Place) -> list[Job]:
    """Those of several jobs that are not finished."""
    return [job for job in jobs if finished(job, place) is None]


def changed_fields(job: Job, place: Place) -> list[str]:
    """Fields in which the config has changed since the run in the job's directory began."""
    saved = _saved(job, place)
    fields = settings.resolved(job.source, job.overrides) if job.trains else {}
    return settings.changed(fields, saved)


def prepare(job: Job, place: Place, say: Callable[[str], None]) -> None:
    """Sees that the directory of a job holds its own run, or none.

    What is outdated is run anew; a training is moved aside first.

    Raises:
      ClaimError: other files are in the way, or another process is at work there.
    """
    directory = job.directory(place)
    if not directory.exists():
        return
    if why := outdated(job, place):
        if files.is_locked(directory / ".lock"):
            raise ClaimError(f"{directory}: {why}, and another process is at work there; end it")
        if not job.trains:  # its output is written anew
            (directory / MARK).unlink()
            say(f"{job.name}: {why}; it is run anew")
            return
        number = 1
        while (aside := directory.with_name(f"{directory.name}.changed{number}")).exists():
            number += 1
        directory.rename(aside)
        say(f"{job.name}: {why}; it is run anew, the old run is {aside.name}")
        return
    known = {MARK, "config.json", "checkpoints", ".lock", "metrics.jsonl"}
    inside = {path.name for path in directory.iterdir()}
    if inside and not inside & known and not any(name.startswith("claims-") for name in inside):
        raise ClaimError(
            f"{directory}: in the way, and no run of this claim; move it, or choose another --runs"
        )


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
    for job in jobs:
        if slots.take(job.name):
            try:
                prepare(job, place, say)
            finally:
                slots.give_back(job.name)
    free, running = list(slots.places), list[tuple[Mapping[str, str], _Running]]()
    waiting, unfinished = list[Job](), set[str]()
    for job in jobs:
        if pending(job, place) or any(before.name in unfinished for before in job.before):
            waiting.append(job)
            unfinished.add(job.name)
    told: set[str] = set()
    stopping = False

    def over() -> bool:
        late = until is not None and time.monotonic() >= until
        return late or (stop is not None and stop.is_set())

    def next_job() -> Job | None:
        """One whose turn it is and that nobody else is at work on."""
        for job in list(waiting):
            if any(other.name in unfinished for other in job.before) or not slots.take(job.name):
                continue
            if files.is_locked(job.directory(place) / ".lock"):
                if job.name not in told:
                    say(f"{job.name}: another process is at work there; waiting for its end")
                    told.add(job.name)
                slots.give_back(job.name)
                continue
            prepare(job, place, say)  # what it builds on may have been run anew just now
            waiting.remove(job)
            if pending(job, place):
                return job
            slots.give_back(job.name)  # another thread has finished it
            unfinished.discard(job.name)
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
                slots.give_back(item.job.name)
                _ended(item, place, say)
                if not pending(item.job, place):
                    unfinished.discard(item.job.name)
                elif not stopping:
                    waiting.insert(0, item.job)
            if stopping and not running:
                return not any(pending(job, place) for job in jobs)
            while free and not stopping and (ready := next_job()):
                running.append((slot := free.pop(0), _begin(ready, place, slot, say)))
            time.sleep(0.05)
    finally:
        _stop([item for _, item in running])
        for _, item in running:
            item.process.wait()
            item.output.close()
            slots.give_back(item.job.name)
    return True


def _begin(job: Job, place: Place, slot: Mapping[str, str], say: Callable[[str], None]) -> _Running:
    step, directory = pending(job, place)[0], job.directory(place)
    directory.mkdir(parents=True, exist_ok=True)
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
    return _Running(job, step, child, output, time.monotonic(), time.monotonic())


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
    made_of = _made_of(item.job, place)
    stopped = code in (STOPPED, -signal.SIGTERM)
    if code in (DONE, *item.step.codes) or (stopped and item.enough):
        _mark(directory, Progress((*before.done, item.step.name), False, seconds, made_of))
        return
    if stopped:
        _mark(directory, dataclasses.replace(before, seconds=seconds, of=made_of))
        say(f"{item.job.name}: stopped in {item.step.name}; the same command goes on")
        return
    if item.step.mode == "train" and (directory / "nonfinite.json").exists():
        _mark(directory, Progress((*before.done, item.step.name), True, seconds, made_of))
        say(f"{item.job.name}: diverged")
        return
    text = Finished(directory).output(item.step).strip().splitlines()
    errors = [line for line in text if line.startswith("error: ")] or text[-1:]
    said = " ".join(errors).removeprefix("error: ") or f"ended with {code}"
    error = ClaimError if code == ClaimError.exit_code else ClaimRunError
    raise error(f"{item.job.name}: {item.step.name} failed: {said}")


def _mark(directory: Path, now: Progress) -> None:
    content: dict[str, Any] = {
        "done": list(now.done),
        "diverged": now.diverged,
        "seconds": round(now.seconds, 1),
        **({"of": dict(now.of)} if now.of else {}),
    }
    with files.replacing(directory / MARK) as temporary:
        temporary.write_text(json.dumps(content) + "\n")
