"""Sweeps: grids, random points, folds, and what they write."""

import json

import pytest

from claims import settings, sweep
from claims.errors import ClaimError
from claims.jobs import Place
from tests.claims.test_runs import plant

OPTIONS = {"trials": 4, "seed": 1, "folds": None, "measure": "training_error"}
CONFIG = "configs/alexnet.py:digits"


def parsed(grids=(), ranges=(), overrides=(), **options):
    return sweep.parse(CONFIG, overrides, grids, ranges, **(OPTIONS | options))


def test_a_grid_is_a_product():
    made = parsed(["optimizer.learning_rate=.1,.01", "optimizer.drop_epochs=(1,2),(3,)"])
    assert made.trials == [
        {"optimizer.learning_rate": rate, "optimizer.drop_epochs": drops}
        for rate in (".1", ".01")
        for drops in ("(1,2)", "(3,)")
    ]
    (job,) = made.jobs_of(made.trials[0])
    exact = settings.resolved(job.source, job.overrides)
    assert exact["optimizer.learning_rate"] == 0.1 and exact["optimizer.drop_epochs"] == [1, 2]
    assert exact["seed"] == 1


@pytest.mark.quick
def test_random_points_are_in_their_ranges_and_the_same_again():
    ranges = ["optimizer.learning_rate=1e-4..1e-1,log", "model.lrn_constants.size=3..9",
              "model.dropout=0.1..0.9"]  # fmt: skip
    made = parsed((), ranges, trials=20)
    assert made == parsed((), ranges, trials=20) != parsed((), ranges, trials=20, seed=2)
    rates = [float(trial["optimizer.learning_rate"]) for trial in made.trials]
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    assert 5 <= sum(rate < 10**-2.5 for rate in rates) <= 15  # half of them, in logarithms
    assert {trial["model.lrn_constants.size"] for trial in made.trials} <= set("3456789")
    assert all(0.1 <= float(trial["model.dropout"]) <= 0.9 for trial in made.trials)


def test_seeds_can_be_swept():
    made = parsed(["seed=0,2"])
    assert [job.overrides["seed"] for trial in made.trials for job in made.jobs_of(trial)] == [
        "0",
        "2",
    ]


def test_folds_are_runs_of_their_own():
    made = parsed(["model.dropout=0.0,0.5"], folds=3)
    jobs = made.jobs_of(made.trials[1])
    assert [job.overrides["data.fold"] for job in jobs] == [0, 1, 2]
    assert len({job.name for job in jobs}) == 3


@pytest.mark.parametrize(
    "grids, ranges, overrides, options, said",
    [
        (["model.dropuot=1"], [], [], {}, "model.dropout"),
        (["model.dropout=2.0"], [], [], {}, "0 to below 1"),
        (["model.dropout"], [], [], {}, "write FIELD=VALUE"),
        ([], [], [], {}, "sweep what"),
        ([], ["model.dropout=1"], [], {}, "LOW..HIGH"),
        ([], ["model.dropout=0..1,log"], [], {}, "LOW..HIGH"),
        (["model.dropout=0.0"], [], [], {"folds": 1}, "at least 2"),
        (["model.dropout=0.0"], [], [], {"measure": "test_error"}, "choose one of"),
        (["model.dropout=0.0"], [], ["--config.seeed=1"], {}, "seed"),
        (["model.dropout=0.0"], [], ["--config.seed=3"], {}, "of a sweep it is --seed"),
        (["data.fold=0,1"], [], [], {"folds": 3}, "data.fold: --folds=3 says it"),
        (["seed=0,1"], [], ["--config.data.folds=2"], {"folds": 3}, "data.folds: --folds=3"),
    ],
)
def test_what_is_not_understood(grids, ranges, overrides, options, said):
    with pytest.raises(ClaimError, match=said):
        parsed(grids, ranges, overrides, **options)


def test_the_table_and_the_page(tmp_path):
    made = parsed(["optimizer.learning_rate=0.0001,0.01,0.1"])
    place, said = Place(tmp_path / "runs", None), []
    for trial, error in zip(made.trials, (0.5, 0.2, float("inf")), strict=True):
        (job,) = made.jobs_of(trial)
        plant(place, job, error, reached=error)
    assert sweep.run(made, place, said.append, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert found["best"] == {"optimizer.learning_rate": "0.01"} and found["complete"]
    assert [trial["mean"] for trial in found["trials"]] == [50, 20, "diverged"]
    assert "0.01                     20%                     lowest" in said[0]
    page = (tmp_path / "out" / "sweep.html").read_text()
    assert page.count("<circle") == 2 and "log10 of optimizer.learning_rate" in page
    other = parsed(["optimizer.learning_rate=0.5"], measure="training_loss")
    with pytest.raises(ClaimError, match="of another sweep"):
        sweep.run(other, place, said.append, tmp_path / "out")


def test_absent_data_are_named(tmp_path):
    made = sweep.parse("configs/cifar10.py:figure1", [], ["seed=0"], [], **OPTIONS)
    with pytest.raises(ClaimError, match="cifar10: name"):
        sweep.run(made, Place(tmp_path, None), print, tmp_path)
