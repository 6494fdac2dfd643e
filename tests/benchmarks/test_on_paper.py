"""What is counted from compiled programs and predicted from it, beside formulas."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks.machines import all_reduce_seconds
from benchmarks.scaling import COUNTS, Plan, launch
from tests.conftest import ROOT
from tests.training.test_compilers import needs


def rows_of(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {row["name"]: row for row in rows}


@pytest.mark.slow
def test_bytes_between_the_towers_are_those_of_the_paper():
    """Half of pool2, pool5 and fc6 to the other tower, their gradients back, and the scores."""
    rows = rows_of("benchmarks.two_towers", "--quick", "--batch=16")
    counted = rows["sent_per_image/alexnet"]
    maps = 13 * 13 * 128 + 6 * 6 * 128 + 2048
    assert counted["ours"] == pytest.approx(4 * (2 * maps + 1000), rel=1e-3)
    parameters = rows["memory_per_device/alexnet"]["parameters"]
    assert parameters["data"] == 60_965_224
    assert parameters["towers"] == (60_965_224 + 1000) // 2  # both have fc8's biases
    # Data parallelism sums all gradients once a step, whatever the batch.
    assert counted["peer"] * 16 == pytest.approx(4 * 60_965_224, rel=1e-3)
    assert rows["memory_per_device/alexnet"]["ratio"] > 1
    assert "predicted_gtx580/alexnet" in rows


def test_a_ring_sends_everything_nearly_twice():
    assert all_reduce_seconds(1e6, 1, 1e6, 1.0) == 0
    assert all_reduce_seconds(1e6, 2, 1e6, 0.0) == pytest.approx(1.0)
    assert all_reduce_seconds(1e6, 256, 1e6, 0.0) == pytest.approx(2 * 255 / 256)
    assert all_reduce_seconds(0, 4, 1e6, 0.5) == pytest.approx(3.0)


def test_what_bounds_a_step():
    plan = Plan(100.0, 1e6, link=1e6, latency=0.0, per_host=8, input_images_per_second=1e9)
    assert plan.step(1, 200) == (2.0, "computing")
    assert plan.step(2, 400) == (2.0, "computing")  # a second's sum, behind 4/3 of backward
    seconds, bound = plan.step(2, 100)
    assert bound == "exchange" and seconds == pytest.approx(0.5 + 1.0 - 1 / 3)
    slow = Plan(100.0, 1e6, link=1e6, latency=0.0, per_host=8, input_images_per_second=10.0)
    assert slow.step(1, 200) == (20.0, "input")
    assert slow.step(16, 200) == (10.0, "input")  # two hosts


def test_more_accelerators_never_take_longer_for_more_images():
    plan = Plan(1000.0, 1e8, link=1e10, latency=1e-5, per_host=8, input_images_per_second=5000.0)
    speeds = [256 * count / plan.step(count, 256 * count)[0] for count in COUNTS]
    assert speeds == sorted(speeds)
    assert all(speed <= 1000.0 * count + 1e-6 for speed, count in zip(speeds, COUNTS, strict=True))


def test_the_calculator_names_what_it_needs():
    for arguments, message in [
        (["--images_per_second=100"], "at which --batch?"),
        (["--images_per_second=0", "--batch=1"], "number above 0"),
        (["--per_host=0"], "number above 0"),
        (["--chips=3"], "can be laid out in several ways"),
    ]:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.scaling", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2 and message in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="each needs a core")
def test_two_processes_train_one_network_and_sum():
    apart = launch("cifar10_four_layer", 8, together=False)
    pair = launch("cifar10_four_layer", 8, together=True)
    assert all(found["step"] > 0 for found in apart + pair)
    assert all("sum" not in found for found in apart)
    assert all(found["sum"] > 0 for found in pair)


@pytest.mark.slow
@pytest.mark.compilers
def test_compiled_steps_of_more_cards_take_less_time():
    needs("h100:8")
    rows = rows_of(
        *("benchmarks.scaling", "--network=cifar10_four_layer", "--accelerator=h100"),
        *("--chips=1,8", "--batch=1024", "--config.gradient_accumulation=2"),
    )
    one, eight = rows["scaling_1/cifar10_four_layer"], rows["scaling_8/cifar10_four_layer"]
    assert (one["batch"], one["collectives"], one["share_of_linear"]) == (128, 0, 1)
    assert eight["batch"] == 128 and eight["collectives"] > 0
    assert eight["sent_bytes"] >= 2 * 7 / 8 * 4 * 89_578  # all gradients, around a ring
    assert eight["hours"] == pytest.approx(140 * 50_000 / 128 * eight["step_ms"] / 3.6e6, rel=2e-3)
    grown = rows["scaling_batch_8/cifar10_four_layer"]
    assert grown["batch"] == 8 * 1024 and grown["ours"] > eight["ours"]
    assert 0.5 < grown["share_of_linear"] < 1


def test_the_calculator_prints_hours_for_every_count():
    rows = rows_of(
        "benchmarks.scaling", "--network=alexnet", "--images_per_second=6000", "--batch=512"
    )
    first = rows["scaling_1/alexnet"]
    assert first["ours"] == 6000 and first["share_of_linear"] == 1
    assert first["hours"] == pytest.approx(90 * 1_281_167 / 6000 / 3600, rel=1e-3)
    assert "scaling_128/alexnet" in rows and "scaling_256/alexnet" not in rows  # batch 128
    assert rows["scaling_batch_256/alexnet"]["batch"] == 512 * 256
