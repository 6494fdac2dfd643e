"""What tells the processes of a run apart."""

import dataclasses
import json

import numpy as np
import pytest

import main
import modes
from configs import command_line
from devices import agreement
from tests.conftest import ROOT
from tests.test_architecture import MAY_IMPORT
from training import facts as run_facts
from training.trained import Trained

pytestmark = pytest.mark.quick


def facts(*overrides, mode="train", config="configs/alexnet.py:digits"):
    arguments = command_line.parse(
        ["main.py", f"--config={config}", *(f"--config.{o}" for o in overrides)],
        main.define_flags(),
    )
    return run_facts.facts_of_launch(mode, modes.plain(arguments.config))


def said(first, second):
    """The names of what differs, as process 0 says it; process 1 says the same."""
    brought = json.loads(json.dumps([first, second]))
    names = [
        [line.split(": ")[0] for line in agreement.differences(brought, own)] for own in (0, 1)
    ]
    assert names[0] == names[1]
    return names[0]


def test_the_same_command_agrees():
    assert said(facts(), facts()) == []


# An override of one process, and what both then name.
DIFFERENT = {
    "optimizer.learning_rate=0.02": ["optimizer.learning_rate"],
    "seed=1": ["seed"],
    "model.dropout=0": ["model.dropout"],
    "model.lrn=False": ["model.lrn"],
    "compute_dtype=bfloat16": ["compute_dtype"],
    "data.augment.flip=True": ["data.augment.flip"],
    "data.mean=none": ["data.mean"],
    "batch_size=96": ["batch_size", "evaluation.batch_size", "optimizer.learning_rate"],
    "total_steps=7": ["total_epochs", "total_steps"],
    "model.name=vgg_d": ["model.name"],
    "model.hidden=(64, 64)": ["model.hidden"],
    "evaluation.checkpoint=best": ["evaluation.checkpoint"],
    "mesh.tower=1": ["mesh.tower"],
    "log_every_steps=3": ["log_every_steps"],
    "checkpoint_every_steps=3": ["checkpoint_every_epochs", "checkpoint_every_steps"],
    "nonfinite=skip": ["nonfinite"],
    "init_head=new": ["init_head"],
    "data.unreadable=fail": ["data.unreadable"],
}


@pytest.mark.parametrize("override, names", DIFFERENT.items(), ids=DIFFERENT)
def test_every_field_that_differs_is_named(override, names):
    assert set(said(facts(), facts(override))) == set(names)


def test_every_field_is_compared_but_those_of_the_host():
    """Where things lie and how many threads read them: what lies there is compared later."""
    arguments = command_line.parse(
        ["main.py", "--config=configs/alexnet.py:digits"], main.define_flags()
    )
    fields = set(command_line.field_names(arguments.config))
    of_the_host = {f"data.{place}" for place in ("dir", "cache_dir", "prepared_dir", "threads")}
    of_the_host |= {"data.validation_labels", "init_from"}
    assert fields - of_the_host == fields & facts().keys()
    assert said(facts(), facts("data.dir=/a", "data.cache_dir=/b", "data.threads=3")) == []


def test_what_is_no_field_is_compared_too():
    here = facts()
    assert said(here, facts(mode="evaluate")) == ["--mode"]
    assert said(here, here | {"version of jax": "0.0"}) == ["version of jax"]
    assert said(here, here | {"JAX_ENABLE_X64": True}) == ["JAX_ENABLE_X64"]
    assert said(here, here | {"our code": "0"}) == ["our code"]
    assert {"version of jaxlib", "version of flax", "version of numpy"} <= here.keys()
    without = {name: value for name, value in here.items() if name != "seed"}
    assert said(here, without) == ["seed"]


def test_the_digest_of_the_code(tmp_path):
    """Names and contents of modules are in it; strange files are not."""
    for room in ("training", "configs"):
        (tmp_path / room).mkdir()
    (tmp_path / "training" / "loop.py").write_text("a = 1")
    before = run_facts.code_digest(tmp_path)
    (tmp_path / "training" / ".DS_Store").write_text("?")
    (tmp_path / "notes.py").write_text("")
    assert run_facts.code_digest(tmp_path) == before
    (tmp_path / "configs" / "own.py").write_text("")
    added = run_facts.code_digest(tmp_path)
    (tmp_path / "training" / "loop.py").write_text("a = 2")
    assert len({before, added, run_facts.code_digest(tmp_path)}) == 3


def test_every_module_that_makes_a_run_is_in_the_digest():
    """What `main.py` may import, without what only other modes do."""
    rooms, reached = set(), ["main"]
    while reached:
        room = reached.pop()
        rooms.add(room)
        reached += MAY_IMPORT[room] - rooms - {"predicting", "visualization", "claims"}
    files = {f"{room}.py" for room in rooms if (ROOT / f"{room}.py").is_file()}
    assert files == set(run_facts._FILES)
    assert {room for room in rooms if f"{room}.py" not in files} == set(run_facts._ROOMS)


def weights(value=1.0, mean=None, name="kernel"):
    params = {"fc": {name: np.full((2, 3), value, np.float32)}}
    normalization = None if mean is None else {"mean": np.full(3, mean, np.float32)}
    return Trained("lenet5", {}, params, {}, normalization, "file")


def test_other_weights_and_data_are_told_apart():
    """By their values, not by the file's name."""
    same = run_facts.facts_of_inputs("ab", weights(), False)
    assert said(same, run_facts.facts_of_inputs("ab", weights(), False)) == []
    of_weights = ["the weights of init_from"]
    for other in (weights(np.nextafter(1, 2, dtype=np.float32)), weights(mean=1), None):
        assert said(same, run_facts.facts_of_inputs("ab", other, False)) == of_weights
    assert said(same, run_facts.facts_of_inputs("ab", weights(name="scale"), False)) == of_weights
    of_data = ["the dataset's files, labels or splits"]
    assert said(same, run_facts.facts_of_inputs("cd", weights(), False)) == of_data
    begun = run_facts.facts_of_inputs("ab", None, True)
    assert said(run_facts.facts_of_inputs("ab", None, False), begun) == [
        "a checkpoint in --workdir"
    ]
    early, late = (
        run_facts.facts_of_inputs("ab", dataclasses.replace(weights(), step=step), True)
        for step in (500, 1000)
    )
    assert said(early, late) == ["the step of that checkpoint"]
