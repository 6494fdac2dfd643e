"""What is counted from compiled programs and predicted from it, beside formulas."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks.collectives import collectives
from benchmarks.machines import all_reduce_seconds
from benchmarks.scaling import COUNTS, Plan, launch
from tests.conftest import ROOT


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


def test_both_notations_of_groups_and_the_bytes_of_each_operation():
    program = """
      %a = f32[8,4]{1,0} all-gather(%x), channel_id=1, replica_groups={{0,1},{2,3}}, dimensions={0}
      %b = (bf16[6]{0}, f32[]) all-reduce(%y, %z), channel_id=2, replica_groups=[2,2]<=[2,2]T(1,0)
      %c = f32[2]{0} reduce-scatter(%v), channel_id=3, replica_groups=[1,4]<=[4], dimensions={0}
      %d = f32[5]{0} all-reduce(%w), replica_groups={{0,1}}, metadata={op_name="reduce_scatter"}
    """
    gather, both, scatter, stands_for_one = collectives(program, 4)
    assert gather.groups == both_ways([0, 1], [2, 3]) and gather.sent == 8 * 4 * 4 / 2
    assert both.groups == both_ways([0, 2], [1, 3]) and both.elements == (6, 1)
    assert both.sent == 6 * 2 + 4  # twice half of it
    assert scatter.groups == both_ways([0, 1, 2, 3]) and scatter.sent == 2 * 4 * 3
    assert stands_for_one.scatters and stands_for_one.sent == 5 * 4 / 2
    (everyone,) = collectives("%e = f32[3] all-reduce(%w), replica_groups={}, x", 4)
    assert everyone.groups == both_ways([0, 1, 2, 3])
    (turned,) = collectives("%e = f32[3] all-reduce(%w), replica_groups=[4,2]<=[2,2,2]T(0,2,1)", 8)
    assert turned.groups == both_ways([0, 2], [1, 3], [4, 6], [5, 7])
    assert collectives("%f = f32[3] all-reduce-done(%e)", 4) == []
    for unknown in (
        "%e = f32[5] collective-broadcast(%w), replica_groups={{0,1}}",
        "%e = (f32[6]{0}, f32[6]{0}) collective-permute-start(%w), source_target_pairs={{0,1}}",
    ):
        with pytest.raises(ValueError, match="unknown form"):
            collectives(unknown, 2)


def both_ways(*groups):
    return frozenset(map(frozenset, groups))


@pytest.mark.slow
def test_bytes_between_the_towers_are_those_of_the_paper():
    """Half of pool2, pool5 and fc6 to the other tower, their gradients back, and the scores."""
    rows = rows_of("benchmarks.two_towers", "--batch=16")
    counted = rows["sent_per_image/alexnet"]
    maps = 13 * 13 * 128 + 6 * 6 * 128 + 2048
    assert counted["ours"] == pytest.approx(4 * (2 * maps + 1000), rel=1e-3)
    parameters = rows["memory_per_device/alexnet"]["parameters"]
    assert parameters["data"] == 60_965_224
    assert parameters["towers"] == (60_965_224 + 1000) // 2  # both have fc8's biases
    # Data parallelism sums all gradients once a step, whatever the batch.
    assert counted["peer"] * 16 == pytest.approx(4 * 60_965_224, rel=1e-3)
    assert rows["memory_per_device/alexnet"]["ratio"] > 1
    assert all(f"predicted_{machine}/alexnet" in rows for machine in ("gtx580", "h100", "v5e"))


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
    ]:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.scaling", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2 and message in done.stderr


@pytest.mark.slow
def test_two_processes_train_one_network_and_sum():
    apart = launch("cifar10_four_layer", 8, together=False)
    pair = launch("cifar10_four_layer", 8, together=True)
    assert all(found["step"] > 0 for found in apart + pair)
    assert all("sum" not in found for found in apart)
    assert all(found["sum"] > 0 for found in pair)


def test_the_calculator_prints_hours_for_every_count():
    rows = rows_of(
        "benchmarks.scaling", "--network=alexnet", "--images_per_second=6000", "--batch=512"
    )
    first = rows["scaling_1/alexnet"]
    assert first["ours"] == 6000 and first["share_of_linear"] == 1
    assert first["hours"] == pytest.approx(90 * 1_281_167 / 6000 / 3600, rel=1e-3)
    assert "scaling_128/alexnet" in rows and "scaling_256/alexnet" not in rows  # batch 128
    assert rows["scaling_batch_256/alexnet"]["batch"] == 512 * 256
