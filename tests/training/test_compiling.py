"""The training step compiled for named devices: the very one that training runs."""

import dataclasses
import json

import jax
import pytest

import evaluation
import input_pipeline
import training
from devices import mesh as meshes
from devices.accelerators import ACCELERATORS, Target, devices_of, target_of
from devices.programs import Collective, Operation, collectives
from tests.runs import TINY
from training import compiled_text, compiling, estimates
from training.recipe import batch_multiple
from training.step import init_state, make_train_step

COMPILE = ["--mode=compile", "--accelerator=cpu:2"]
# The smallest network of all, on digits.
SMALL = [
    "--config=configs/convnet.py:conv_relu_pool_fc",
    "--config.model.kernels=2",
    "--config.batch_size=16",
    "--config.data.name=digits",
    "--config.data.resize=12",
    "--config.data.pad=0",
    "--config.data.crop=12",
]
# The same network learns boxes.
BOXES = [
    *(argument for argument in SMALL if not argument.startswith("--config.data.name")),
    *(
        "--config.data.name=digit_canvases",
        "--config.data.boxes.count=3",
        "--config.loss.boxes=pcr",
    ),
]
# Two towers on two devices.
SPLIT = [argument for argument in TINY if not argument.startswith("--config.mesh")]


def made(config, devices):
    """Task and recipe of a config on the digits."""
    from configs.common import to_steps

    task = training.task_from_config(config, 10, devices)
    steps = lambda name: to_steps(  # noqa: E731
        config, name, batch_size=config.batch_size, examples_per_epoch=1437
    )
    return task, training.recipe_from_config(config, task, steps)


def config_of(*arguments):
    from absl import flags

    from configs import command_line

    return command_line.parse(["main.py", *arguments], flags.FlagValues()).config


@pytest.mark.parametrize(
    "arguments",
    [
        SMALL,
        pytest.param([*SPLIT, "--config.gradient_accumulation=2"], marks=pytest.mark.slow),
        pytest.param([*SPLIT, "--config.mesh.tower=1"], marks=pytest.mark.slow),
        pytest.param(BOXES, marks=pytest.mark.slow),
    ],
)
def test_memory_is_that_of_what_training_compiles(call, tmp_path, arguments):
    """With a state, a batch of the pipeline and a normalisation as training makes them."""
    report, program = tmp_path / "report.json", tmp_path / "step.hlo"
    code, out, err = call(*COMPILE, *arguments, f"--json={report}", f"--hlo={program}")
    assert code == 0, err
    found = json.loads(report.read_text())

    config = config_of(*arguments)
    task, recipe = made(config, jax.devices()[:2])
    data = input_pipeline.open_data(config.data, tmp_path, only="train")
    (look,) = evaluation.protocol_called("center_crop", task.preprocessing).looks
    normalization = {
        name: meshes.replicate(task.mesh, array)
        for name, array in data.normalization(look.images).items()
    }
    stream = data.training(0, seed=0, batch_size=recipe.batch_size)
    batch = meshes.batch_placer(task.mesh)(next(stream))
    stream.close()
    real = init_state(task.network, recipe, task.mesh), batch, normalization
    assert jax.tree.map(_form, real) == jax.tree.map(_form, compiling.abstract_inputs(task, recipe))
    compiled = make_train_step(task.network, recipe, task.mesh).lower(*real).compile()
    sizes, memory = compiled.memory_analysis(), found["bytes_per_device"]
    assert memory["arguments"] == sizes.argument_size_in_bytes
    assert memory["temporaries"] == sizes.temp_size_in_bytes > 0
    assert memory["outputs"] == sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    assert memory["total"] == sum(memory[n] for n in ("arguments", "temporaries", "outputs"))
    # What it consists of: of these arrays, each device's part.
    held = [
        sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))
        for tree in (real[0]["params"], real[0]["optimizer"], batch)
    ]
    assert [memory[n] for n in ("parameters", "optimizer", "batch")] == held
    exchanges = collectives(compiled.as_text(), 2)
    assert sum(e["times"] for e in found["collectives"]) == sum(e.times for e in exchanges)
    assert sum(e["sent"] for e in found["collectives"]) == pytest.approx(
        sum(e.sent * e.times for e in exchanges)
    )
    if recipe.micro_batches > 1:  # the towers exchange in a loop
        assert max(exchange.times for exchange in exchanges) == 2
    assert f"memory      {compiled_text.shown(memory['total'])} a device" in out
    assert program.read_text().startswith("HloModule")


def test_boxes_come_with_each_example(call, tmp_path):
    report = tmp_path / "report.json"
    held = []
    for arguments in (SMALL, BOXES):
        code, out, err = call(*COMPILE, *arguments, f"--json={report}", "--price=2")
        assert code == 0, err
        assert "--price=2 gives no cost, for cpu:2 has no estimate of time" in out
        held.append(json.loads(report.read_text())["bytes_per_device"]["batch"])
    assert held[1] - held[0] == 8 * 3 * (4 * 4 + 4)  # edges and label of three boxes


def test_devices_that_the_mesh_leaves_over_are_said(call):
    for mesh, said in ((1, True), (2, False)):
        code, out, err = call(*COMPILE, *SMALL, f"--config.mesh.data={mesh}")
        assert code == 0, err
        assert ("note: mesh.* takes 1 of 2 devices\n" in out) == said


def _form(array):
    return array.shape, array.dtype, array.sharding.spec


@pytest.mark.quick
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--mode=compile"], "--accelerator=KIND:CHIPS is missing; there are v2"),
        (["--mode=compile", "--accelerator=v5e:3x3"], "does not divide into hosts of 2x2"),
        ([*COMPILE, "--price=0"], "--price=0.0: dollars"),
        ([*COMPILE, "--config.batch_size=33"], "batch_size=33 is not a multiple of 2 (mesh.data=2"),
        ([*COMPILE, "--config.mesh.data=8"], "the mesh needs 8 devices (mesh.data=8 x mesh.tower"),
        ([*COMPILE, "--config.data.name=folder"], "touches no data"),
        ([*COMPILE, "--json=."], "--json=.: is a directory; name a file"),
        ([*COMPILE, "--hlo=README.md/x"], "--hlo=README.md/x: README.md is no directory"),
        ([*COMPILE, "--json=x", "--hlo=x"], "--json and --hlo are one file"),
        ([*COMPILE, "--out=x"], "--mode=compile takes no --out"),
        ([*COMPILE, "--workdir=x"], "--mode=compile takes no --workdir; files are named by"),
        ([*COMPILE, "--run=lenet5-mnist"], "--mode=compile takes no --run"),
        (["--json=x"], "--mode=train takes no --json; it is for --mode=compile"),
        (["--mode=summary", "--find_batch"], "--mode=summary takes no --find_batch"),
    ],
)
def test_bad_input_is_said_in_two_lines(call, arguments, message):
    code, _, err = call("--config=configs/alexnet.py:one_gpu", *arguments)
    assert code == 2 and message in err, err
    assert len([line for line in err.splitlines() if not line.startswith("note:")]) <= 2


def small(memory):
    """A target of two devices with so many bytes."""
    accelerator = dataclasses.replace(ACCELERATORS["cpu"], memory=memory)
    return Target("cpu:2", accelerator, (2,))


def test_what_does_not_fit_says_what_helps():
    task, recipe = made(config_of(*SMALL, "--config.batch_size=64"), devices_of("cpu:2"))
    program = compiling.compiled(task, recipe)
    sizes = compiling.bytes_per_device(program, task, recipe)
    state = sizes["parameters"] + sizes["optimizer"]
    assert compiling.report(program, task, recipe, small(sizes["total"]))["bytes_per_device"]
    # Of what depends on the batch, 3/8 fit: 24 images, or a third of the batch at a time.
    memory = state + (sizes["total"] - state) * 3 // 8 + 100
    with pytest.raises(compiling.DoesNotFitError) as error:
        compiling.report(program, task, recipe, small(memory))
    said = str(error.value).splitlines()
    assert len(said) == 2 and "KiB too much" in said[0] and error.value.exit_code == 2
    assert said[1].startswith(
        "What helps: --config.batch_size=24 or so, --config.gradient_accumula"
    )
    assert "gradient_accumulation=4, more devices along mesh.data" in said[1]
    # BatchNorm's groups take no part of themselves.
    grouped = dataclasses.replace(recipe, statistics_group=16)
    with pytest.raises(compiling.DoesNotFitError, match="batch_size=32 or so"):
        compiling.report(program, task, grouped, small(memory + (sizes["total"] - state) // 8))
    with pytest.raises(compiling.DoesNotFitError, match="alone take"):
        compiling.report(program, task, recipe, small(state // 2))


@pytest.mark.slow
def test_the_largest_batch_is_found(capsys):
    task, recipe = made(config_of(*SMALL), devices_of("cpu:2"))

    def at(batch):
        return dataclasses.replace(recipe, batch_size=batch)

    def total(batch):
        program = compiling.compiled(task, at(batch))
        return compiling.bytes_per_device(program, task, at(batch))["total"]

    memory = total(24)
    found = compiling.find_batch(at, task, small(memory), 16, 2)
    assert total(found) <= memory < total(found + 2) and found % 2 == 0
    tries = capsys.readouterr().out.splitlines()
    assert tries[0].startswith("batch 16: fits") and "batch 32: does not fit" in tries[1]
    with pytest.raises(compiling.DoesNotFitError, match="alone take"):
        compiling.find_batch(at, task, small(100), 2, 2)


@pytest.mark.slow
def test_only_batches_that_devices_parts_and_groups_take_are_tried(capsys):
    config = config_of(*SMALL, "--config.gradient_accumulation=2", "--config.batch_norm.group=4")
    devices = devices_of("cpu:3")

    def at(batch):
        config.batch_size = batch
        return made(config, devices)[1]

    with pytest.raises(training.TrainingError, match="batch_size=16 is not a multiple of 6"):
        at(16)
    task, recipe = made(config, devices) if at(24) else ()
    multiple = batch_multiple(task.mesh, recipe.micro_batches, recipe.statistics_group)
    program = compiling.compiled(task, recipe)
    limit = small(compiling.bytes_per_device(program, task, recipe)["total"] * 3)
    capsys.readouterr()
    found = compiling.find_batch(at, task, limit, 16, multiple)
    tries = [int(line.split()[1][:-1]) for line in capsys.readouterr().out.splitlines()]
    assert found in tries and tries[0] == 24 and len(tries) > 3
    assert multiple == 24 and all(batch % 24 == 0 for batch in tries)


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 7, 20, 63, 64, 65, 999, 5000])
@pytest.mark.parametrize("first", [1, 5, 64])
def test_a_limit_is_found_by_doubling_and_bisection(limit, first):
    tried = []

    def fits(number):
        tried.append(number)
        return number <= limit

    found = compiling.largest(fits, first, most=1000)
    expected = min(limit, 1000)
    assert expected - expected // 32 <= found <= expected
    assert all(1 <= number <= 1000 for number in tried) and len(tried) <= 20


@pytest.mark.parametrize(
    "text, sizes",
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (20.26G) exceeds available HBM (15.75G).",
            (20.26, 15.75),
        ),
        ("RESOURCE_EXHAUSTED: ... Used 20.5G of 15.75G hbm. Exceeded hbm", (20.5, 15.75)),
    ],
)
def test_both_forms_of_the_compilers_refusal(text, sizes):
    found = compiling._USED.search(text)
    assert tuple(float(found[n]) for n in (1, 3)) == sizes and found[2] == found[4] == "G"


def kernel(seconds, target, times=1, **other):
    cycles = round(seconds * target.accelerator.clock)
    return Operation("k", "fusion", "jit(step)/jvp(conv1)/add", times, 0, 0.0, cycles, **other)


def exchange(target, sent, begun=None, times=1):
    found = Collective(
        "collective-permute", (1,), sent, frozenset({frozenset({0, 1})}), False, times
    )
    return Operation("e", "x", "", times, sent, 0.0, 0, collective=found, begun=begun)


def test_time_adds_up_and_computing_hides_exchanges():
    target = target_of("v5e:2")
    accelerator = target.accelerator
    wait = accelerator.latency + 1e6 / accelerator.link
    ms = 1e-3
    work = [kernel(2 * ms, target), kernel(1 * ms, target, times=4)]
    times = estimates.times_of([*work, exchange(target, 10**6)], target)
    assert times.computing == pytest.approx(6 * ms)
    assert times.step == pytest.approx(6 * ms + wait) and times.exchanging == times.waiting
    # Begun before the second kernel of 4 ms, an exchange of .025 ms is hidden; one of 6 ms is not.
    assert estimates.times_of([*work, exchange(target, 10**6, begun=1)], target).waiting == 0
    long = int(6 * ms * accelerator.link)
    times = estimates.times_of([*work, exchange(target, long, begun=1)], target)
    assert times.waiting == pytest.approx(2 * ms + accelerator.latency)
    # In a loop of two, each time a kernel of 1 ms hides a part.
    loop = [kernel(1 * ms, target, times=2), exchange(target, long, begun=0, times=2)]
    assert estimates.times_of(loop, target).waiting == pytest.approx(
        10 * ms + 2 * accelerator.latency
    )


def test_what_has_no_estimate_takes_its_flop_or_bytes():
    v5e, h100 = target_of("v5e:1"), target_of("h100:16")
    bare = Operation("k", "x", "", 1, 819_000, 0.0, None)
    assert estimates.seconds_of(bare, v5e) == pytest.approx(1e-6)
    busy = dataclasses.replace(bare, flops=197e12)
    assert estimates.seconds_of(busy, v5e) == pytest.approx(1.0)
    assert estimates.seconds_of(dataclasses.replace(busy, cycles=15), v5e) == pytest.approx(1e-8)
    assert estimates.seconds_of(dataclasses.replace(busy, cycles=15), h100) == pytest.approx(
        197 / 989
    )
    # Between hosts of eight a GPU sends over the network.
    near, far = (
        dataclasses.replace(exchange(h100, 10**9).collective, groups=frozenset({frozenset(group)}))
        for group in ((0, 1), (0, 8))
    )
    link = [
        estimates.seconds_of(dataclasses.replace(bare, collective=one), h100) for one in (near, far)
    ]
    assert link == pytest.approx([1 / 450 + 1e-5, 1 / 50 + 1e-5])
    # Among all chips of a slice along both of its axes, in a part of it along one.
    slice_, everyone = target_of("v5e:4x4"), frozenset({frozenset(range(16))})
    alike = exchange(slice_, 10**9)
    whole = dataclasses.replace(alike.collective, groups=everyone)
    assert estimates.seconds_of(alike, slice_) == pytest.approx(1 / 50 + 5e-6)
    whole = dataclasses.replace(alike, collective=whole)
    assert estimates.seconds_of(whole, slice_) == pytest.approx(1 / 100 + 5e-6)


def test_exchanges_lie_along_an_axis_of_the_mesh():
    """Of 2 x 2 devices, towers numbered first; alike ones are added up."""
    target, pairs = target_of("v5e:4"), [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 1), (2, 3))]
    found = [
        dataclasses.replace(
            exchange(target, 10, times=3),
            collective=Collective(
                "all-reduce", (5,), 10, frozenset(map(frozenset, groups)), False, times=3
            ),
        )
        for groups in [*pairs, ((0, 1, 2, 3),)]
    ]
    towers, whole, rows = estimates.collectives(found, target, 2)
    assert (towers["along"], towers["among"], towers["times"]) == ("tower", 2, 6)
    assert towers["bytes"] == 60 and towers["sent"] == 60
    assert (whole["along"], whole["among"], whole["sent"]) == ("data x tower", 4, 45)
    assert (rows["along"], rows["among"], rows["times"]) == ("data", 2, 3)


@pytest.mark.parametrize(
    "path, layer",
    [
        ("jit(step)/shard_map/jvp(conv1)/cond/branch_0_fun/conv", ("conv1", "forward")),
        ("jit(step)/shard_map/transpose(jvp(conv2_1))/residual/norm1/mul", ("conv2_1", "backward")),
        ("jit(step)/shard_map/jvp(jit(log_softmax))/exp", ("loss", "forward")),
        ("jit(step)/update/mul", ("update", "")),
        ("jit(step)/check/shard_map/reduce_or", ("check", "")),
        ("jit(step)/shard_map/psum_invariant", ("other", "")),
        ("", ("other", "")),
    ],
)
def test_the_layer_of_an_operation(path, layer):
    assert estimates.layer_of(path) == layer


def test_a_run_costs_its_hours_on_every_chip():
    found = {"estimate": {"step_seconds": 0.36}, "chips": 4}
    run = compiled_text.run_of(found, 10_000, 2.5)
    assert run["hours"] == pytest.approx(1) and run["chip_hours"] == pytest.approx(4)
    assert run["cost"] == pytest.approx(10)
    assert compiled_text.run_of(found, None, 2.5) == {}


@pytest.mark.parametrize(
    "hours, text", [(2.046, "2.05 hours"), (0.5, "30.0 minutes"), (0.005, "18.0 seconds")]
)
def test_a_short_run_is_not_zero_hours(hours, text):
    assert compiled_text._hours(hours) == text
