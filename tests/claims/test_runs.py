"""Runs of claims: done once, stopped and continued, moved aside; their results."""

import dataclasses
import json
import math
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
from claims import execute, jobs, progress, registry, results, running, settings, tuning
from claims.claim import SUMMARY, TRAIN, Arm, Claim, Order, Step, Value
from claims.errors import ClaimError
from claims.jobs import Place
from claims.measures import (
    ENSEMBLE_ERROR,
    ONE_OF_ENSEMBLE,
    TEST_ERROR,
    epochs_to,
    evaluating,
    printed,
)
from evaluation import Scores
from evaluation.score_files import write_scores
from tests.conftest import ROOT
from tests.runs import lines

# Processes that end at once, that wait for a signal, and that fail.
NAME = Step("name", module="platform", flags=())
FOREVER = Step("forever", module="http.server", flags=("--bind=127.0.0.1", "0"))
EVALUATE = evaluating()
FAILING = Step("failing", module="json.tool", flags=("/nowhere/at.all",))


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "runs", None)


def job(*steps, source="alexnet:digits", overrides=None):
    return jobs.make(source, overrides or {}, steps)


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


CLAIM = Claim(
    "test-order", "1", "Said.", "alexnet:digits",
    (Arm("high rate", tune={"optimizer.learning_rate": (0.01, 0.02)}),
     Arm("low rate", {"optimizer.learning_rate": 0.001})),
    TEST_ERROR, (Order("high rate", "low rate"),), fraction=0.1, tuned_by=epochs_to(0.5),
)  # fmt: skip


def plant(place, job, error, reached=0.6):
    """A finished run: what main.py and the mark leave, with errors that are told."""
    directory = job.directory(place)
    directory.mkdir(parents=True)
    fields = settings.resolved(job.source, job.overrides)
    (directory / "config.json").write_text(
        json.dumps({"config": fields, "versions": {"jax": "1"}, "git_commit": "c" * 40})
    )
    points = [(0.5, 0.9), (1.0, reached)]
    train = [
        {"split": "train", "epoch": epoch, "step": n, "top1_error": e, "loss": 1.0}
        for n, (epoch, e) in enumerate(points)
    ]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in train))
    evaluation = {"protocol": "center_crop", "top1_error": error, "top5_error": 0.0}
    (directory / "claims-evaluate.txt").write_text(json.dumps(evaluation) + "\na warning\n")
    mark = {"done": ["train", "evaluate"], "diverged": math.isinf(error), "seconds": 60.0}
    (directory / progress.MARK).write_text(json.dumps(mark))


def planted(place):
    (_, first), (_, second) = jobs.tunings(CLAIM, CLAIM.arms[0])
    plant(place, first, 0.3, reached=0.6)
    plant(place, second, 0.2, reached=0.4)
    for seed in (1, 2):
        chosen = {"optimizer.learning_rate": 0.02}
        plant(place, jobs.job_of(CLAIM, CLAIM.arms[0], seed, chosen), 0.2 + seed / 100)
    for seed in range(3):
        plant(place, jobs.job_of(CLAIM, CLAIM.arms[1], seed), 0.5 + seed / 100)


def test_a_claim_whose_runs_are_done_runs_nothing(place, tmp_path):
    planted(place)
    said = []
    assert running.run(CLAIM, place, said.append, where=tmp_path)
    assert said == [f"{CLAIM.id}: confirmed (high rate below low rate: 30)",
                    str(tmp_path / "test-order.json")]  # fmt: skip
    result = json.loads((tmp_path / "test-order.json").read_text())
    high = result["arms"]["high rate"]
    assert high["chosen"] == {"optimizer.learning_rate": 0.02}
    assert high["values"] == {"0": 20, "1": 21, "2": 22} and high["mean"] == 21
    assert high["spread"] == 1 and result["seconds"] == 420
    assert high["curves"]["0"] == {"train": [[0.5, 90], [1.0, 40]]}
    assert result["length"] == "1 epochs, 0.1 of the whole length"
    assert result["versions"] == {"jax": "1"} and result["git_commits"] == [12 * "c"]
    tried = {one["settings"]["optimizer.learning_rate"]: one["value"] for one in high["tried"]}
    assert tried == {0.01: "at least 1", 0.02: pytest.approx(0.9)}
    assert "--config.total_epochs=1.0" in high["commands"][0]
    full = high["full_commands"]
    assert "total_epochs" not in full[0] and "learning_rate" not in full[0]
    assert full[-1] == "# optimizer.learning_rate: one of 0.01, 0.02"
    written = (tmp_path / "test-order.json").stat().st_mtime_ns
    assert running.run(CLAIM, place, said.append, where=tmp_path)
    assert (tmp_path / "test-order.json").stat().st_mtime_ns == written
    assert results.out_of_date(CLAIM, result) == ""
    paper = (dataclasses.replace(CLAIM.arms[0], paper=3.0), CLAIM.arms[1])
    for change in ({"fraction": 0.2}, {"arms": paper}, {"tuned_by": epochs_to(0.4)}):
        other = dataclasses.replace(CLAIM, **change)
        assert "another version of this claim" in results.out_of_date(other, result)


def test_a_result_of_more_runs_is_kept(place, tmp_path):
    """As on a fresh clone, which has results but no runs."""
    planted(place)
    assert running.run(CLAIM, place, lambda line: None, where=tmp_path)
    written = (tmp_path / "test-order.json").read_text()
    said, stop = [], threading.Event()
    stop.set()
    elsewhere = Place(tmp_path / "elsewhere", None)
    assert not running.run(CLAIM, elsewhere, said.append, stop=stop, where=tmp_path)
    assert said[-1].endswith("kept, for it is of 7 runs and this one of 0")
    assert (tmp_path / "test-order.json").read_text() == written


def test_tuning_takes_what_reached_its_level_first(place):
    planted(place)
    assert tuning.chosen(CLAIM, place) == {"high rate": {"optimizer.learning_rate": 0.02}}


def test_a_changed_config_is_run_anew(place):
    one = jobs.job_of(CLAIM, CLAIM.arms[1], 0)
    plant(place, one, 0.5)
    path = one.directory(place) / "config.json"
    saved = json.loads(path.read_text())
    saved["config"]["optimizer.weight_decay"] = 0.5
    saved["config"]["data.dir"] = "/elsewhere"
    path.write_text(json.dumps(saved))
    assert progress.finished(one, place) is None
    said = []
    progress.prepare(one, place, said.append)
    assert "(optimizer.weight_decay); it is run anew" in said[0]
    aside = one.directory(place).with_name(f"{one.name}.changed1")
    assert (aside / "config.json").exists() and not one.directory(place).exists()
    assert progress.pending(one, place) == list(one.steps)


def test_a_changed_recipe_is_told_from_a_later_field(monkeypatch):
    """A result is out of date when its config says something else, not when all configs grow."""
    before, read, usual = results.digest(CLAIM), settings.fields_of, settings.usual()

    def grown(changes):
        monkeypatch.setattr(settings, "fields_of", lambda *asked: {**read(*asked), **changes})
        return results.digest(CLAIM)

    monkeypatch.setattr(settings, "usual", lambda: {**usual, "later": 1})
    assert grown({"later": 1}) == before == grown({"data.threads": 7})
    others = ({"later": 2}, {"optimizer.momentum": 0.5}, {"evaluation.protocol": "ten_view"})
    assert before not in map(grown, others)
    result = {"digest": grown({}), "defaults": {"later": 1, "gone": 3}}
    assert results.out_of_date(CLAIM, result) == ""
    monkeypatch.setattr(settings, "usual", lambda: {**usual, "later": 2})
    assert "another version" in results.out_of_date(CLAIM, {**result, "digest": grown({})})


def test_what_builds_on_a_run_is_done_anew_with_it(place):
    members = [job(NAME, overrides={"seed": n}) for n in range(2)]
    joint = jobs.make("alexnet:digits", {}, (Step("join", module="platform"),), members=members)
    for rate, anew in ((0.1, True), (0.1, False), (0.2, True)):
        for member in members:
            member.directory(place).mkdir(parents=True, exist_ok=True)
            config = {"config": {"optimizer.learning_rate": rate, "data.dir": f"/{anew}"}}
            (member.directory(place) / "config.json").write_text(json.dumps(config))
        said = []
        assert execute.run(jobs.every([joint]), place, said.append)
        assert (f"{joint.name}: join" in said) is anew, (rate, said)
        assert progress.finished(joint, place) is not None
    assert f"{members[0].name}, {members[1].name} has changed since" in said[0]


def test_a_tool_measures_other_code_anew(place, monkeypatch):
    one, said = job(SUMMARY), []
    for commit, times in (("a", 1), ("a", 1), ("b", 2)):
        monkeypatch.setattr(progress, "_commit", lambda c=commit: c)
        assert execute.run([one], place, said.append)
        assert said.count(f"{one.name}: summary") == times
    assert progress.made_of(job(TRAIN, SUMMARY), place) == {}
    mark = {"done": ["summary"], "diverged": False, "seconds": 1.0}  # of an earlier version
    (one.directory(place) / progress.MARK).write_text(json.dumps(mark))
    assert progress.finished(one, place) is None


def test_an_evaluation_by_another_default_protocol_is_done_anew(place):
    """And the training is not; nor does another claim's evaluation stand for it."""
    one = jobs.make("alexnet:digits", {}, (TRAIN, EVALUATE))
    plant(place, one, 0.5)
    assert progress.pending(one, place) == []
    path = one.directory(place) / progress.MARK
    mark = {**json.loads(path.read_text()), "of": {"evaluate's protocol": "ten_view"}}
    path.write_text(json.dumps(mark))
    assert progress.pending(one, place) == [EVALUATE] and progress.outdated(one, place) == ""
    other = dataclasses.replace(one, steps=(TRAIN, NAME))
    assert execute.run([other], place, print)
    assert progress.pending(one, place) == [EVALUATE]
    mark["of"]["evaluate's protocol"] = "center_crop"
    path.write_text(json.dumps(mark))
    assert progress.pending(one, place) == []


def test_what_builds_on_a_run_that_diverged_has_diverged(place):
    arms = (Arm("one", measure=ONE_OF_ENSEMBLE), Arm("two", members=2))
    claim = Claim("x-y", "1", "Said.", "alexnet:digits", arms, ENSEMBLE_ERROR, (), fraction=0.1)
    joint = jobs.job_of(claim, arms[1], 0)
    for member in joint.members:
        plant(place, member, math.inf)
    said = []
    assert execute.run(jobs.every([joint]), place, said.append) and not said
    assert progress.finished(joint, place).diverged


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


def test_what_changes_while_a_claim_runs_ends_it(place):
    """A run is neither moved aside nor begun anew, time after time."""
    parent = jobs.make("alexnet:digits", {"seed": 5}, (NAME,))
    child = jobs.make("alexnet:digits", {}, (NAME, Step("more", module="platform")), parent)
    config, said = parent.directory(place) / "config.json", []
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"config": {"optimizer.momentum": 0.9}}))

    def say(line):
        said.append(line)
        if line == f"{child.name}: name":  # another process runs the parent anew
            config.write_text(json.dumps({"config": {"optimizer.momentum": 0.1}}))

    with pytest.raises(ClaimError, match=f"{parent.name} has changed since, while it ran; start"):
        execute.run(jobs.every([child]), place, say)
    assert said == [f"{parent.name}: name", f"{child.name}: name"]
    assert execute.run(jobs.every([child]), place, said.append)
    assert said[2:] == [
        f"{child.name}: {parent.name} has changed since; it is run anew",
        f"{child.name}: name", f"{child.name}: more",
    ]  # fmt: skip


def test_other_files_are_in_the_way(place):
    one = job(NAME)
    one.directory(place).mkdir(parents=True)
    (one.directory(place) / "letter.txt").write_text("Dear")
    with pytest.raises(ClaimError, match="in the way"):
        execute.run([one], place, print)


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
    "text",
    ["{", "[]", '{"claim": "test-order", "arms": []}', '{"claim": "test-order", "arms": {}}'],
)
def test_a_damaged_result_is_said(tmp_path, text):
    results.path_of(CLAIM, full=False, results=tmp_path).write_text(text)
    with pytest.raises(ClaimError, match="damaged"):
        results.read(CLAIM, results=tmp_path)


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
