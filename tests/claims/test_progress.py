"""What is done already, and what has to be done anew."""

import dataclasses
import json
import math

import pytest

from claims import execute, jobs, progress
from claims.claim import SUMMARY, TRAIN, Arm, Claim, Step
from claims.errors import ClaimError
from claims.measures import ENSEMBLE_ERROR, ONE_OF_ENSEMBLE
from tests.claims.planted import CLAIM, EVALUATE, NAME, job, plant


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
