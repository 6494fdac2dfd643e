"""What the names of accelerators mean; nothing is compiled."""

import dataclasses
import importlib.util

import pytest

from devices import DeviceError
from devices.accelerators import (
    ACCELERATORS,
    PEAKS,
    check_installed,
    devices_of,
    host_of,
    target_of,
)

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    "text, shape, hosts",
    [
        ("v5e:1", (1, 1), 1),
        ("v5e:2", (1, 2), 1),
        ("v5e:1x2", (1, 2), 1),
        ("v5e:2x2x1", (2, 2), 1),
        ("v5e:8", (2, 4), 2),
        ("v5e:4x4", (4, 4), 4),
        ("v5e:256", (16, 16), 64),
        ("v5p:1", (1, 1, 1), 1),
        ("v5p:4", (2, 2, 1), 1),
        ("v5p:2x2", (2, 2, 1), 1),
        ("v5p:32", (2, 4, 4), 8),
        ("v4:2x2x2", (2, 2, 2), 2),
        ("v3:2x2", (2, 2), 1),
        ("h100:3", (3,), 1),
        ("h200:16", (16,), 2),
        ("cpu:2", (2,), 1),
    ],
)
def test_chips_and_topologies(text, shape, hosts):
    target = target_of(text)
    assert target.shape == shape and target.hosts == hosts
    devices = target.chips * target.accelerator.devices_per_chip
    on_host = [host_of(target, device) for device in range(devices)]
    assert on_host == sorted(on_host) and set(on_host) == set(range(hosts))


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "--accelerator=KIND:CHIPS is missing; there are v2, v3, v4, v5e, v5p, v6e, a100"),
        ("tpu:1", "no such kind"),
        ("v5e", "give chips or a topology, as v5e:1 or v5e:2x2"),
        ("v5e:0", "give chips or a topology"),
        ("v5e:2x", "give chips or a topology"),
        ("v5e:6", "6 chips can be laid out in several ways"),
        ("v5e:3x3", "does not divide into hosts of 2x2"),
        ("v5e:1x4", "does not divide into hosts of 2x2"),
        ("v5e:2x2x2", "takes 2 axes"),
        ("h100", "say how many, as h100:1"),
        ("h100:12", "does not divide into hosts of 8"),
        ("h100:2x2", "takes a number"),
        ("v5e:64x64", "at most v5e:16x16"),
        ("v5e:8x32", "at most v5e:16x16"),
        ("v5p:2048x2x1", "at most v5p:16x16x24"),
        ("h100:80000", "at most h100:4096"),
        ("cpu:99999", "at most cpu:256"),
    ],
)
def test_what_cannot_be_is_said(text, message):
    with pytest.raises(DeviceError, match=message.replace("(", r"\(")) as error:
        target_of(text)
    assert f"--accelerator={text or ''}" in str(error.value)


@pytest.mark.parametrize(
    "text, module, extra", [("v5e:1", "libtpu", "tpu"), ("h100:1", "jax_plugins", "compile-cuda")]
)
def test_a_missing_compiler_is_named_with_its_extra(text, module, extra):
    if importlib.util.find_spec(module) is not None:
        pytest.skip(f"{module} is installed")
    with pytest.raises(DeviceError, match=rf"pip install -e '\.\[{extra}\]'"):
        check_installed(target_of(text))


def test_devices_of_this_process():
    assert [device.platform for device in devices_of("cpu:3")] == ["cpu"] * 3
    with pytest.raises(DeviceError, match="JAX has 4 CPU devices"):
        devices_of("cpu:5")


def test_figures_of_a_device():
    """Two cores of a chip share its figures; a GPU's memory is not all JAX's."""
    v3, h100 = ACCELERATORS["v3"], ACCELERATORS["h100"]
    assert v3.devices_per_chip == 2 and v3.flops == 61.5e12 and v3.memory == 16 * 2**30
    assert h100.usable == h100.memory * 3 // 4 and v3.usable == v3.memory
    assert "memory_bandwidth: 3352320000000" in h100.options["target_config"]
    assert PEAKS["v5 lite"] == PEAKS["v5e"] == ACCELERATORS["v5e"].flops
    # The first match counts: `v5` is part of v5e's name.
    assert list(PEAKS).index("v5 lite") < list(PEAKS).index("v5")
    assert list(PEAKS).index("v5e") < list(PEAKS).index("v5")
    assert all(dataclasses.is_dataclass(a) and a.name for a in ACCELERATORS.values())
