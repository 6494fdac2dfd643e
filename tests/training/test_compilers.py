"""The training step compiled for TPUs and GPUs, by their compilers, which need no device.

Without the extras `tpu` and `compile-cuda` everything here is skipped; `.ci/run` has an environment
with both.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from devices import DeviceError
from devices.accelerators import check_installed, devices_of, target_of
from devices.programs import Program
from tests.configs.test_configs import ALL, get_config
from tests.training.test_compiling import SMALL, SPLIT
from tests.vision_models.test_models import abstract
from vision_models import response_kernel
from vision_models.analysis import layer_table
from vision_models.response import local_response_normalization

pytestmark = pytest.mark.compilers
KINDS = ["v5e", "h100"]
# Without the second names of some variants.
DIFFERENT = {str(get_config(*case)): case for case in ALL}.values()
# Classes and images of ImageNet's releases of Fall 2009 and 2011, which are read from folders.
COUNTS = "model.num_classes", "data.train_examples"
OF_FOLDERS = {"pretrain_2009": (10_184, 8_900_000), "pretrain_2011": (21_843, 15_000_000)}


@pytest.fixture
def compile_for(call, tmp_path):
    """Compiles a config for an accelerator: (its report, what was printed)."""

    def run(accelerator, *arguments):
        needs(accelerator)
        report = tmp_path / "report.json"
        code, out, err = call(
            "--mode=compile",
            f"--accelerator={accelerator}",
            "--config.compute_dtype=bfloat16",
            f"--json={report}",
            *arguments,
        )
        assert code == 0, err
        return json.loads(report.read_text()), out

    return run


@pytest.fixture
def least_effort():
    """A tenth of the time of the TPU's compiler; the program is slower, its memory another."""
    before = jax.config.jax_exec_time_optimization_effort
    jax.config.update("jax_exec_time_optimization_effort", -1.0)
    yield
    jax.config.update("jax_exec_time_optimization_effort", before)


def needs(accelerator):
    try:
        check_installed(target_of(accelerator))
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("kind", KINDS)
def test_one_device_and_several(compile_for, kind):
    """Gradients of all parameters are summed over four devices, and nothing over one."""
    alone, said = compile_for(f"{kind}:1", *SMALL)
    assert alone["collectives"] == [] and alone["devices"] == 1
    assert "it fits" in said and "nothing was run" in said and "whole run" in said
    four, _ = compile_for(f"{kind}:4", *SMALL, "--price=2")
    assert four["mesh"] == {"data": 4, "tower": 1}
    parameters = four["bytes_per_device"]["parameters"]
    (total,) = four["collectives"]
    assert total["operation"] == "all-reduce" and total["among"] == 4
    assert parameters <= total["bytes"] < parameters + 64  # and the metrics
    assert total["sent"] == pytest.approx(1.5 * total["bytes"])
    for found in (alone, four):
        estimate = found["estimate"]
        assert estimate["images_per_second"] * estimate["step_seconds"] == pytest.approx(16)
        assert sum(layer["seconds"] for layer in found["layers"]) == pytest.approx(
            estimate["computing_seconds"]
        )
        assert {"conv1_1", "update"} <= {layer["layer"] for layer in found["layers"]}
        if kind == "v5e":
            assert found["estimated_cycles"] > 10_000
        else:
            assert found["bytes_moved"] > 3 * parameters and found["kernels"] > 10
    assert four["run"]["cost"] == pytest.approx(four["run"]["hours"] * 4 * 2)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_batch_count_each_time(compile_for, kind):
    """Two parts of 16 take twice what 16 take, but for the update."""
    whole, _ = compile_for(f"{kind}:1", *SMALL)
    parts, _ = compile_for(
        f"{kind}:1", *SMALL, "--config.batch_size=32", "--config.gradient_accumulation=2"
    )
    assert not parts["loops_counted_once"]

    twice = [entry for entry in parts["operations"] if entry["times"] == 2]
    if kind == "h100":
        assert any("cudnn" in entry["opcode"] for entry in twice)
        assert parts["kernels"] > 1.3 * whole["kernels"]
    else:
        assert any(entry["layer"] == "conv1_1 backward" for entry in twice)
        assert parts["estimated_cycles"] > 1.3 * whole["estimated_cycles"]


@pytest.mark.parametrize("kind", KINDS)
def test_towers_exchange_what_they_do_elsewhere(compile_for, kind):
    """Pool2, pool5 and fc6 go to the other tower, in bfloat16; on the chips as on CPUs."""
    found, _ = compile_for(f"{kind}:2", *SPLIT)
    assert found["mesh"] == {"data": 1, "tower": 2}
    gathers = [e for e in found["collectives"] if e["operation"] == "all-gather"]
    assert sum(e["times"] for e in gathers) == 3


def test_a_program_that_does_not_fit_a_tpu(call):
    needs("v5e:1")
    code, _, err = call(
        "--mode=compile",
        "--accelerator=v5e:1",
        *SMALL,
        "--config.data.resize=256",
        "--config.data.crop=224",
        "--config.batch_size=131072",
    )
    assert code == 2 and "does not fit a device's memory: " in err
    assert "of 15.75 GiB" in err and "too much" in err and len(err.splitlines()) == 2


def test_a_kernel_by_hand_counts_what_its_author_says():
    needs("v5e:1")
    pl = pytest.importorskip("jax.experimental.pallas")
    sharding = NamedSharding(Mesh(np.array(devices_of("v5e:1")), ("x",)), PartitionSpec())

    def double(x, out):
        out[...] = 2 * x[...]

    def compiled(cost):
        work = jax.jit(
            pl.pallas_call(
                double,
                out_shape=jax.ShapeDtypeStruct((256, 128), jnp.float32),
                cost_estimate=cost,
            )
        )
        like = jax.ShapeDtypeStruct((256, 128), jnp.float32, sharding=sharding)
        text = work.lower(like).compile().as_text()
        (kernel,) = [o for o in Program(text, 1).run() if o.hand_written]
        return kernel

    assert compiled(None).bytes == 2 * 256 * 128 * 4
    said = compiled(pl.CostEstimate(flops=7_000, transcendentals=0, bytes_accessed=123))
    assert said.flops == 7_000 and said.bytes == 123


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_response_normalisation_is_a_kernel_each_way(dtype):
    """With 128 images on each of two chips; it reads and writes maps once, and moves none."""
    needs("v5e:1x2")
    mesh = Mesh(np.array(devices_of("v5e:1x2")), ("data",))
    rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    x = jax.ShapeDtypeStruct((256, 13, 13, 48), dtype, sharding=rows)
    bias = jax.ShapeDtypeStruct((48,), dtype, sharding=whole)

    def gradients(x, bias):
        def normalized(x, bias):
            return local_response_normalization(
                x, size=5, k=2.0, alpha=1e-4, beta=0.75, average=False, bias=bias
            )

        out, back = jax.vjp(normalized, x, jax.lax.pcast(bias, "data", to="varying"))
        return out, *back(out)

    split, same = PartitionSpec("data"), PartitionSpec()
    each = jax.shard_map(gradients, mesh=mesh, in_specs=(split, same), out_specs=split)
    program = Program(jax.jit(each).lower(x, bias).compile().as_text(), 2)
    kernels = [operation for operation in program.run() if operation.hand_written]
    nbytes = x.size // 2 * np.dtype(dtype).itemsize
    assert sorted(kernel.bytes for kernel in kernels) == [2 * nbytes, 3 * nbytes]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("images, channels", [(1024, 128), (8192, 48), (256, 256)])
def test_kernels_of_large_batches_fit_the_fast_memory(dtype, images, channels):
    needs("v5e:1")
    sharding = NamedSharding(Mesh(np.array(devices_of("v5e:1")), ("x",)), PartitionSpec())
    x = jax.ShapeDtypeStruct((images, 27, 27, channels), dtype, sharding=sharding)

    def both(x, gradient):
        constants = 5, 2.0, 1e-4, 0.75
        out = response_kernel.normalized(*constants, x)
        return out, response_kernel.gradient(*constants, True, x, gradient)

    program = Program(jax.jit(both).lower(x, x).compile().as_text(), 1)
    assert len([operation for operation in program.run() if operation.hand_written]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("accelerator", ["v5e:2x2", "h100:2"])
@pytest.mark.parametrize("name, variant", DIFFERENT)
@pytest.mark.usefixtures("least_effort")
def test_every_config_compiles(compile_for, name, variant, accelerator):
    size = [
        f"--config.{field}={number}"
        for field, number in zip(COUNTS, OF_FOLDERS.get(variant, ()), strict=False)
    ]
    found, _ = compile_for(accelerator, f"--config=configs/{name}.py:{variant}".rstrip(":"), *size)
    assert found["bytes_per_device"]["total"] < found["bytes_per_device"]["available"]
    assert found["collectives"] and not found["loops_counted_once"]


@pytest.mark.slow
@pytest.mark.parametrize("accelerator, data", [("v5e:1x2", 1), ("v5e:2x2", 2), ("h100:2", 1)])
@pytest.mark.usefixtures("least_effort")
def test_the_two_towers_compile(compile_for, accelerator, data):
    found, _ = compile_for(accelerator, "--config=configs/alexnet.py")
    assert found["mesh"] == {"data": data, "tower": 2}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet.py:one_gpu", "resnet.py:50"])
@pytest.mark.usefixtures("least_effort")
def test_several_hosts_compile(compile_for, name):
    found, _ = compile_for("v5e:4x4", f"--config=configs/{name}")
    assert found["hosts"] == 4 and found["devices"] == 16
    assert max(entry["among"] for entry in found["collectives"]) == 16


@pytest.mark.slow
@pytest.mark.parametrize("accelerator", ["v5e:2x2", "h100:4"])
@pytest.mark.usefixtures("least_effort")
def test_alexnet_on_four_devices_exchanges_what_its_summary_says(compile_for, accelerator):
    """Gradients go along `data`, and maps along `tower`: forward, and as much backward."""
    found, _ = compile_for(accelerator, "--config=configs/alexnet.py")
    assert found["mesh"] == {"data": 2, "tower": 2} and found["batch_size"] == 128
    assert {entry["along"] for entry in found["collectives"]} == {"data", "tower"}
    (summed,) = (entry for entry in found["collectives"] if entry["along"] == "data")
    parameters = found["bytes_per_device"]["parameters"]
    assert parameters == 4 * (60_965_224 + 1000) // 2
    assert summed["operation"] == "all-reduce" and summed["among"] == 2
    assert parameters < summed["bytes"] < parameters + 64  # and the metrics

    sent = {row.name: row.exchanged_bytes for row in layer_table(abstract("alexnet"))}
    scores = sent.pop("fc8") // 2  # of a tower, for an image
    maps = sum(sent.values()) // 2 // 2  # in bfloat16
    assert (scores, maps) == (4 * 1000, 2 * (13 * 13 * 128 + 6 * 6 * 128 + 2048))
    along = [entry for entry in found["collectives"] if entry["along"] == "tower"]
    # The TPU's compiler sums the gradients of pool2 and pool5 whole: each half is sent once more.
    whole = 2 * (13 * 13 * 128 + 6 * 6 * 128) if found["platform"] == "tpu" else 0
    expected = 64 * (2 * maps + whole + scores)
    assert sum(e["sent"] for e in along) == pytest.approx(expected, abs=64)
    (gathers,) = (entry for entry in along if entry["operation"] == "all-gather")
    assert gathers["times"] == 3 and gathers["bytes"] == 64 * 2 * maps


@pytest.mark.slow
@pytest.mark.usefixtures("least_effort")
def test_resnet_on_256_chips_sums_gradients_and_moments(compile_for):
    """An image a chip: gradients are summed over all, BatchNorm's moments over groups of 32."""
    found, _ = compile_for("v5e:16x16", "--config=configs/resnet.py:50")
    assert (found["devices"], found["hosts"], found["batch_size"]) == (256, 64, 256)
    assert {entry["along"] for entry in found["collectives"]} == {"data"}
    assert {entry["operation"] for entry in found["collectives"]} <= {"all-reduce", "all-gather"}
    gradients = found["bytes_per_device"]["optimizer"]  # the velocity; a parameter, a gradient
    assert gradients == 4 * 25_557_032
    # Of all channels that are normalised: the running moments, and from every chip of a group two
    # sums forward and two backward, of which the compiler finds some to be the same.
    channels = 26_560
    (gathers,) = (e for e in found["collectives"] if e["operation"] == "all-gather")
    assert gathers["among"] == 32
    of_moments = sum(e["bytes"] for e in found["collectives"]) - gradients
    most = 4 * channels * (2 + 4 * 32)
    assert 0.9 * most < of_moments < 1.1 * most
