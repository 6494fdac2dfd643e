"""Runs of claims: done once, side by side, stopped and continued."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import files
from claims import execute, jobs, progress, registry, running, settings, tuning
from claims.claim import TRAIN, Arm, Claim, Step, Value
from claims.errors import ClaimError
from claims.jobs import Place
from claims.measures import ENSEMBLE_ERROR, ONE_OF_ENSEMBLE, printed
from evaluation import Scores
from evaluation.score_files import write_scores
from tests.claims.planted import CLAIM, EVALUATE, NAME, job, plant, planted
from tests.conftest import ROOT
from tests.runs import lines

# Processes that wait for a signal, and that fail.
FOREVER = Step("forever", module="http.server", flags=("--bind=127.0.0.1", "0"))
FAILING = Step("failing", module="json.tool", flags=("/nowhere/at.all",))


def test_a_process_is_run_once(place):
    said, one = [], job(NAME)
    assert execute.run([one], place, said.append)
    assert said == [f"{one.name}: name"]
    assert progress.finished(one, place).output(NAME).startswith("Linux")
    assert execute.run([one], place, said.append) and len(said) == 1
    more = dataclasses.replace(one, steps=(NAME, Step("again", module="platform")))
    assert execute.run([more], place, said.append)
    assert said[1:] == [f"{one.name}: again"]


@pytest.mark.quick
def test_what_is_stopped_is_pending(place):
    said, one = [], job(FOREVER)
    assert not execute.run([one], place, said.append, until=time.monotonic() + 1)
    assert progress.unfinished([one], place) == [one]
    assert said[-1].endswith("the same command goes on")
    stop = threading.Event()
    stop.set()
    assert not execute.run([one], place, said.append, stop=stop)


def test_a_process_ends_where_that_is_enough(place):
    """As a training does at the error that it is timed to; what is not enough goes on."""
    said, asked = [], []
    one = job(dataclasses.replace(FOREVER, enough=lambda run: not asked.append(run)), NAME)
    assert one.name == job(FOREVER, NAME).name
    assert execute.run([one], place, said.append, until=time.monotonic() + 60)
    assert said == [f"{one.name}: forever", f"{one.name}: name"]
    assert progress.progress(one, place).done == ("forever", "name")
    assert [run.directory for run in asked] == [one.directory(place)]
    other = job(dataclasses.replace(FOREVER, enough=lambda run: False), overrides={"seed": 1})
    assert not execute.run([other], place, said.append, until=time.monotonic() + 1.5)
    assert progress.progress(other, place).done == ()


def test_a_failure_is_said_and_ends_the_others(place):
    with pytest.raises(ClaimError, match=r"failing failed: .*at\.all"):
        execute.run(
            [job(FOREVER), job(FAILING)], place, lambda line: None, slots=execute.free_slots(2)
        )
    assert progress.progress(job(FAILING), place).done == ()


def test_jobs_wait_for_those_that_they_build_on(place):
    members = [job(NAME, overrides={"seed": n}) for n in range(2)]
    joint = jobs.make("alexnet:digits", {}, (Step("join", module="platform"),), members=members)
    said = []
    assert execute.run(jobs.every([joint]), place, said.append, slots=execute.free_slots(3))
    assert said[-1] == f"{joint.name}: join" and len(said) == 3


def test_what_two_claims_share_is_run_once(place):
    """Both wait for the same run; the second one finds it finished."""
    said, one, shared = [], job(NAME), execute.free_slots(2).shared(2)
    assert len(shared) == 2
    with ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda s: execute.run([one], place, said.append, slots=s), shared))
    assert both == [True, True] and said == [f"{one.name}: name"]


def test_claims_are_run_side_by_side(place, tmp_path, monkeypatch):
    """Two at a time, each with a place of its own; one that fails does not end the others."""
    together, begun, said = threading.Barrier(2, timeout=20), [], []

    def run(claim, place, say, *, until, stop, slots, seeds):
        begun.append((claim.id, slots.places))
        if claim.id in "ab":
            together.wait()
        if claim.id == "c":
            raise ClaimError("why")
        assert until == 7 and seeds == 3
        return claim.id != "b"

    monkeypatch.setattr(running, "run", run)

    def everything(names):
        begun.clear()
        return running.run_all(
            [types.SimpleNamespace(id=name) for name in names], place, said.append,
            until=lambda: 7, stop=threading.Event(), slots=execute.free_slots(2), seeds=3,
        )  # fmt: skip

    assert not everything("ab") and sorted(begun) == [("a", ({},)), ("b", ({},))]
    assert everything("x") and begun == [("x", ({}, {}))]
    with pytest.raises(ClaimError, match=r"^why$"):
        everything("c")
    assert not said
    with pytest.raises(ClaimError, match=r"^1 of 4 claims failed: c$"):
        everything("cxyz")
    assert said == ["c: why"] and {claim for claim, _ in begun} == set("cxyz")


def test_each_gpu_takes_a_process(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    two = execute.free_slots(None)
    assert two.places == ({"CUDA_VISIBLE_DEVICES": "4"}, {"CUDA_VISIBLE_DEVICES": "7"})
    assert [part.places for part in two.shared(5)] == [two.places[:1], two.places[1:]]
    assert two.shared(1)[0].places == two.places and two.shared(2)[0].taken is two.taken
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert execute.free_slots(None).places == ({},) and execute.free_slots(2).places == ({}, {})


def test_names_are_of_settings():
    one = jobs.make("cifar10:plain20", {"seed": 1, "total_steps": 5}, (TRAIN,))
    same = jobs.make("cifar10:plain20", {"total_steps": 5, "seed": 1}, (TRAIN, EVALUATE))
    other = jobs.make("cifar10:plain20", {"seed": 2, "total_steps": 5}, (TRAIN,))
    assert one.name == same.name != other.name
    (merged,) = jobs.every([one, same])
    assert merged.steps == (TRAIN, EVALUATE)


def test_a_shorter_length_keeps_the_fractions():
    short = settings.shortened("cifar10:resnet110", {"seed": 3}, 1 / 100)
    assert short == {
        "seed": 3, "total_steps": 640, "optimizer.drop_steps": (320, 480),
        "optimizer.warmup_steps": 4,
    }  # fmt: skip
    assert settings.shortened("cifar10:figure1", {}, 0.1) == {"total_epochs": 4.0}
    # Every length and moment that the exact config has, groups' too.
    exact = settings.resolved("alexnet:original", settings.shortened("alexnet:original", {}, 0.1))
    assert exact["total_epochs"] == 9.1
    assert exact["optimizer.groups.conv1.drop_epochs"] == [2.5, 5.1, 6.7]
    assert exact["optimizer.groups.conv1.freeze_epochs"] == 7.2
    assert exact["data.augment.colour_noise_until_epochs"] == 6.7
    assert exact["optimizer.groups.biases.drop_epochs"] == []


def test_tuning_takes_what_reached_its_level_first(place):
    planted(place)
    assert tuning.chosen(CLAIM, place) == {"high rate": {"optimizer.learning_rate": 0.02}}


@pytest.mark.parametrize("place_of_lock", [".lock", "a claim's"])
def test_a_run_of_another_process_is_waited_for(place, place_of_lock):
    """Others go on meanwhile, and a stop is heard."""
    busy, free, said, stop = job(NAME), job(NAME, overrides={"seed": 1}), [], threading.Event()
    directory = busy.directory(place)
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    (place.runs / ".locks").mkdir()
    lock = directory / ".lock" if place_of_lock == ".lock" else place.runs / ".locks" / busy.name
    with files.locked(lock), ThreadPoolExecutor(1) as thread:
        running = thread.submit(execute.run, [busy, free], place, said.append, stop=stop)
        while not progress.finished(free, place):
            time.sleep(0.01)
        stop.set()
        assert running.result(timeout=20) is False
    assert said.count(f"{busy.name}: another process is at work there; waiting for its end") == 1
    assert execute.run([busy, free], place, said.append)


def test_an_ensemble_is_the_average_of_its_members(place):
    """A process of evaluation.ensemble reads what the members' evaluations kept."""
    arms = (Arm("one", measure=ONE_OF_ENSEMBLE), Arm("two", members=2))
    claim = Claim("x-y", "1", "Said.", "alexnet:digits", arms, ENSEMBLE_ERROR, (), fraction=0.1)
    joint = jobs.job_of(claim, arms[1], 1)
    assert [member.overrides["seed"] for member in joint.members] == [2, 3]
    assert jobs.job_of(claim, arms[0], 2).name == joint.members[0].name  # nothing twice
    label = np.arange(10, dtype=np.int32) % 2
    wrong = (np.arange(10) < 4, np.arange(10) >= 8)  # of each member
    for member, bad, sure in zip(joint.members, wrong, (0.6, 0.9), strict=True):
        plant(place, member, 0.0)
        mark = {"done": ["train", "scores"], "diverged": False, "seconds": 1.0}
        (member.directory(place) / progress.MARK).write_text(json.dumps(mark))
        right = np.where(bad, 1 - sure, sure)
        given = np.stack([np.where(label == n, right, 1 - right) for n in (0, 1)], axis=1)
        path = member.directory(place) / "scores" / "test-center_crop.npz"
        path.parent.mkdir()
        scores = Scores(np.arange(10, dtype=np.int32), np.log(given).astype(np.float32), label)
        write_scores(path, scores, str, 1, "", split="test", protocol="center_crop",
                     class_names=["a", "b"])  # fmt: skip
    assert execute.run(jobs.every([joint]), place, print)
    # The surer member wins where the two disagree: only its two mistakes are left.
    run = progress.finished(joint, place)
    assert ENSEMBLE_ERROR.read(run) == Value(20)


def test_absent_data_are_named(tmp_path):
    claim = registry.find("alexnet-relu")
    with pytest.raises(ClaimError, match="cifar10: name the directory"):
        running.check(claim, Place(tmp_path, None), full=False)
    with pytest.raises(ClaimError, match=f"cifar10: nothing in {tmp_path}"):
        running.check(claim, Place(tmp_path, tmp_path), full=False)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["run", "alexnet-reluu"], "did you mean alexnet-relu"),
        (["run", "alexnet-relu", "--budget=0.1"], "a run needs a minute"),
        (["run", "alexnet-relu", "--budget=nan"], "a run needs a minute"),
        (["run", "alexnet-error"], "needs imagenet2012"),
        (["run", "alexnet-six-conv"], "waits for the images of ImageNet Fall"),
        (["run"], "name claims"),
        (["run", "--paper=nin"], "--full --data_dir=DIR runs it"),
        (["run", "lenet5-error", "--runs=~nosuch/x"], "--runs=~nosuch/x: ~nosuch is no home"),
        (
            ["run", "googlenet-parameters", "--runs=/dev/null/x"],
            "/dev/null/x: no directory for runs",
        ),
        (["run", "--paper=nin", "--full"], "cifar10: nothing in /nowhere"),
        (["run", "alexnet-relu", "--seeds=0"], "at least 1"),
        (["list", "--paper=x"], "no such paper"),
        (["list", "--papers=alexnet"], "--papers=alexnet"),
        (["sing"], "invalid choice"),
        (["report", "--out=~nobody-of-this-name/x"], "~nobody-of-this-name is no home directory"),
        (
            ["sweep", "--config=configs/alexnet.py:digits", "--out=gs://bucket/x"],
            "--out=gs://bucket/x: a URL",
        ),
    ],
)
def test_bad_input_is_a_line_and_exit_code_2(arguments, said, monkeypatch, capsys):
    from claims.__main__ import main

    monkeypatch.setenv("VISION_MODELS_DATA", "/nowhere")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") <= 2


TINY = {
    "model.kernels": (8, 16, 16, 16, 16),
    "model.hidden": (32, 32),
    "batch_size": 16,
    "total_steps": 400,
    "optimizer.drop_steps": (),
    "log_every_steps": 5,
    "evaluate_every_steps": 50,
    "checkpoint_every_steps": 10,
}
LAST = printed(EVALUATE, r'"top1_error": ([\d.]+)', "error")


@pytest.mark.slow
def test_a_killed_claim_goes_on(tmp_path):
    script = (
        "import sys; from pathlib import Path; from claims import execute, jobs;"
        "from claims.claim import TRAIN; from tests.claims.test_runs import EVALUATE, TINY;"
        "one = jobs.make('alexnet:digits', TINY, (TRAIN, EVALUATE));"
        "execute.run([one], jobs.Place(Path(sys.argv[1]), None), print)"
    )
    place = Place(tmp_path / "runs", None)
    one = jobs.make("alexnet:digits", TINY, (TRAIN, EVALUATE))
    directory = one.directory(place)
    begun = subprocess.Popen([sys.executable, "-c", script, str(place.runs)], cwd=ROOT)
    for _ in range(1200):
        if (directory / "metrics.jsonl").exists() and len(lines(directory)) > 5:
            break
        time.sleep(0.1)
    os.kill(begun.pid, signal.SIGKILL)
    begun.wait()
    before = lines(directory)
    assert len(before) > 5 and before[-1]["step"] < 400
    while files.is_locked(directory / ".lock"):  # main.py saves, for its parent has ended
        time.sleep(0.1)
    assert execute.run([one], place, print)
    assert "continuing" in progress.finished(one, place).output(TRAIN)
    steps = [line["step"] for line in lines(directory) if line["split"] == "train"]
    assert steps == sorted(set(steps)) and steps[-1] == 400
    assert 0 <= LAST.read(progress.finished(one, place)).number <= 1
