import json
import os
import subprocess
import sys

import pytest

from benchmarks import report, turns
from tests.conftest import ROOT


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.input_pipeline", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
    )


@pytest.mark.parametrize(
    "unit, ours, peer, ratio",
    [("images/s", 300.0, 100.0, 3.0), ("s", 2.0, 6.0, 3.0), ("ms", 6.0, 2.0, 1 / 3)],
)
@pytest.mark.quick
def test_a_ratio_above_one_is_faster(unit, ours, peer, ratio):
    row = report.row("case/network", unit, ours, peer, device="x")
    assert row["ratio"] == pytest.approx(ratio, rel=1e-3)


def test_the_json_lines(capsys):
    rows = [
        report.row("a/b", "images/s", 12345.678, 2.0, device="d", peer_name="p", more=[1, 2]),
        report.row("a/c", "s", 1.0, None, device="d"),
    ]
    report.show(rows)
    printed = capsys.readouterr().out.splitlines()
    parsed = [json.loads(line) for line in printed if line.startswith("{")]
    assert parsed == rows
    assert parsed[0]["ours"] == 12350.0 and parsed[0]["more"] == [1, 2]
    assert parsed[1]["peer"] is None and parsed[1]["ratio"] is None
    assert "a/c" in printed[2] and "-" in printed[2]


def test_contestants_take_turns():
    calls = []

    def contestant(name):
        return lambda: calls.append(name) or float(len(calls))

    results = report.alternate([contestant("a"), None, contestant("b")], 2)
    assert calls == ["a", "b", "a", "b"]
    assert results == [[1.0, 3.0], None, [2.0, 4.0]]
    assert [report.median(r) for r in results] == [2.0, None, 3.0]


def test_a_contestant_that_dies_leaves_the_others(tmp_path, monkeypatch):
    """It has answered once; the rounds go on without it."""
    code = (
        "import json, sys; from benchmarks import turns; "
        "case = json.loads(sys.argv[1].removeprefix('--worker='))\n"
        "def measure():\n"
        "    case['lives'] -= 1\n"
        "    if case['lives'] < 0: sys.exit('out of memory')\n"
        "    return {'lives': case['lives']}\n"
        "turns.serve(lambda: measure)"
    )
    (tmp_path / "contestant.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    found = turns.contest("contestant", {"a": {"lives": 1}, "b": {"lives": 9}}, 3, quick=False)
    assert found == {"a": [{"lives": 0}], "b": [{"lives": 8}, {"lives": 7}, {"lives": 6}]}


@pytest.mark.slow
def test_faults_are_named():
    for arguments, message in [
        (["--data=/nowhere"], "error: /nowhere/imagenet_sample/train: no such directory"),
        (["--only=fast"], "--only=fast: choose from on_the_fly/alexnet"),
    ]:
        done = run(*arguments)
        assert done.returncode == 2
        assert message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_opening_what_is_stored_is_measured():
    pytest.importorskip("pyarrow")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.layouts", "--images=3000"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [row["name"] for row in rows] == [
        "open/original_tars", "open/webdataset", "open/parquet",
    ]  # fmt: skip
    assert all(row["ours"] > 0 and row["images"] == 3000 for row in rows)


@pytest.mark.slow
def test_the_input_pipeline_is_measured(shared_data):
    cases = ["prepared_raw/alexnet", "first_batch/alexnet"]
    data = str(shared_data("", "imagenet_sample"))
    done = run("--quick", f"--only={','.join(cases)}", VISION_MODELS_DATA=data)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [row["name"] for row in rows] == cases
    assert all(row["ours"] > 0 and row["device"] and row["unit"] for row in rows)
