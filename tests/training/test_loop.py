import contextlib
import itertools

import jax
import pytest
from jax._src.array import ArrayImpl

import main
from tests.conftest import ROOT
from tests.runs import TINY
from training import loop


@contextlib.contextmanager
def counted(monkeypatch):
    """Counts programs compiled and arrays fetched; forbids copies to devices that nobody asked for.

    From the first training step on: what comes before may compile and copy as it likes.
    """
    counts = {"compiled": 0, "fetched": 0}
    make_train_step, fetch = loop.make_train_step, ArrayImpl._value

    def count(event, duration, **_):
        counts["compiled"] += event == "/jax/core/compile/backend_compile_duration"

    def fetched(array):
        counts["fetched"] += 1
        return fetch.fget(array)

    def make(*arguments):
        step = make_train_step(*arguments)

        def guarded(*arguments):
            jax.config.update("jax_transfer_guard_host_to_device", "disallow")
            counts.setdefault("before", counts["fetched"])
            return step(*arguments)

        return guarded

    monkeypatch.setattr(loop, "make_train_step", make)
    monkeypatch.setattr(ArrayImpl, "_value", property(fetched))
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        yield counts
    finally:
        jax.config.update("jax_transfer_guard_host_to_device", "allow")
        jax.monitoring.unregister_event_duration_listener(count)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the tiny network in this process: (programs compiled, arrays fetched in the loop)."""
    workdirs = (tmp_path / str(number) for number in itertools.count())

    def run(*arguments):
        with monkeypatch.context() as patch, counted(patch) as counts:
            patch.chdir(ROOT)
            line = ["main.py", *TINY, f"--workdir={next(workdirs)}", *arguments]
            assert main.main(line) == 0
        return counts["compiled"], counts["fetched"] - counts["before"]

    return run


SELDOM = ("--config.log_every_steps=1000", "--config.checkpoint_every_steps=1000")


def test_nothing_is_compiled_or_copied_unasked_after_the_first_step(run):
    """More steps, lines, evaluations and checkpoints compile no more programs."""
    run("--config.total_steps=3", "--config.evaluate_every_steps=2")  # what runs share
    few, _ = run("--config.total_steps=4", "--config.evaluate_every_steps=2")
    many, _ = run(
        "--config.total_steps=24", "--config.evaluate_every_steps=2", "--config.log_every_steps=3"
    )
    assert few == many > 0


def test_a_step_fetches_one_number(run):
    """Whether its update was finite; all else comes with the lines of the log."""
    evaluations = "--config.evaluate_every_steps=1000"
    _, few = run("--config.total_steps=5", evaluations, *SELDOM)
    _, many = run("--config.total_steps=25", evaluations, *SELDOM)
    assert many - few == 20


@pytest.mark.slow
def test_an_evaluation_fetches_the_scores_of_each_batch(run):
    """And nothing else: metrics are computed of all of them at the end."""
    ends = ("--config.total_steps=2", "--config.evaluate_every_steps=1000", *SELDOM)
    _, few = run(*ends, "--config.data.validation_examples=16")
    _, many = run(*ends, "--config.data.validation_examples=160")
    assert many - few == 9
