"""Every benchmark prints rows of one form, whatever is installed and wherever it runs."""

import ast
import json
import os
import subprocess
import sys

import pytest

from benchmarks import cifar10_error, protocols, report, sides
from tests.conftest import ROOT

KEYS = ["name", "device", "unit", "ours", "peer", "ratio"]


def printed(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def calls(path):
    """The functions that a module calls, as they are written."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}


@pytest.mark.quick
def test_every_benchmark_shows_rows_of_one_form():
    """What else prints JSON (workers, for their parents) does so beside it."""
    shows = {"report.show", "sides.main"}
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        if "main()" in path.read_text() and path.stem not in ("report", "sides"):
            assert calls(path) & shows, path
    assert list(report.row("a/b", "s", 1.0, None, device="d")) == KEYS


def test_rows_of_the_protocols(monkeypatch, capsys, tmp_path):
    """Named by protocol and network; the speed is that of the additional photographs."""
    monkeypatch.setattr(protocols, "random_weights", lambda name, path: path.touch())
    monkeypatch.setattr(protocols, "linked", lambda data, count, copies, place: (count, copies))

    def evaluated(arguments):
        count, copies = ast.literal_eval(arguments[-1].removeprefix("--config.data.dir="))
        return 10 + 0.5 * count * copies, count * copies

    monkeypatch.setattr(protocols, "evaluated", evaluated)
    command = ["protocols", f"--data={tmp_path}", "--only", "alexnet", "googlenet"]
    monkeypatch.setattr(sys, "argv", command)
    protocols.main()
    rows = printed(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [
        f"evaluate_{protocol}/{network}"
        for network, chosen in (
            ("alexnet", ("center_crop", "ten_view", "overfeat")),
            ("googlenet", ("center_crop", "ten_view", "crops_144")),
        )
        for protocol in chosen
    ]
    for row in rows:
        assert list(row)[:6] == KEYS
        assert (row["unit"], row["ours"], row["peer"], row["ratio"]) == ("images/s", 2, None, None)
    assert rows[0]["photographs"] == 48 * 15


def test_an_error_without_a_peer(monkeypatch, capsys):
    """Where PyTorch is not installed, a row is printed all the same once ours has been trained."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(cifar10_error, "load", lambda directory: {})
    monkeypatch.setattr(cifar10_error, "ours", lambda directory, epochs, seed: 0.25)
    monkeypatch.setattr(sys, "argv", ["cifar10_error", "--data=/nowhere", "--seeds", "3"])
    cifar10_error.main()
    out, err = capsys.readouterr()
    (row,) = printed(out)
    assert list(row)[:6] == KEYS and "PyTorch is not installed" in err
    assert (row["ours"], row["peer"], row["ratio"], row["seed"]) == (0.25, None, None, 3)


def test_a_peer_computes_on_a_device_of_the_same_kind(monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    assert sides.has_peer("cpu") and capsys.readouterr().err == ""
    assert not sides.has_peer("tpu")
    assert (
        capsys.readouterr().err == "JAX computes on tpu, where PyTorch is not measured: no peer\n"
    )
    assert sides.has_peer("gpu") == torch.cuda.is_available()
    assert ("PyTorch has none" in capsys.readouterr().err) != torch.cuda.is_available()
    monkeypatch.setitem(sys.modules, "torch", None)
    assert not sides.has_peer("cpu")
    assert "pip install -e '.[torch]'): no peer" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_two_processes_of_a_core_each_need_two_cores():
    script = (
        "import os, runpy; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "runpy.run_module('benchmarks.scaling', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--check", "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "--check: two processes need a core each" in done.stderr
