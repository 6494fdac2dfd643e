import jax
import pytest

from devices import DeviceError
from devices import mesh as meshes

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    "towers, devices, asked, expected",
    [
        (2, 1, {}, (1, 1)),
        (2, 2, {}, (1, 2)),
        (2, 4, {}, (2, 2)),
        (2, 3, {}, (3, 1)),
        (2, 4, {"tower": 1}, (4, 1)),
        (2, 4, {"data": 1}, (1, 2)),
        (2, 4, {"data": 4}, (4, 1)),
        (2, 4, {"data": 3}, (3, 1)),
        (1, 4, {}, (4, 1)),
    ],
)
def test_default_meshes(towers, devices, asked, expected):
    mesh = meshes.make_mesh(towers, devices=jax.devices()[:devices], **asked)
    assert (mesh.shape["data"], mesh.shape["tower"]) == expected


@pytest.mark.parametrize(
    "towers, asked, message",
    [
        (
            2,
            {"data": 3, "tower": 2},
            r"needs 6 devices \(mesh.data=3 x mesh.tower=2\).*there are 4",
        ),
        (1, {"tower": 2}, "mesh.tower=2: a network of 1 tower cannot be split over 2"),
        (2, {"tower": 0}, "mesh.tower=0"),
        (2, {"data": 0}, "mesh.data=0"),
    ],
)
def test_impossible_meshes_are_named(towers, asked, message):
    with pytest.raises(DeviceError, match=message):
        meshes.make_mesh(towers, **asked)


def test_each_hosts_rows_lie_together_however_devices_are_numbered():
    """As on a slice of 4 x 2 chips with hosts of 2 x 2."""

    class Chip:
        """A device of a slice, numbered row by row."""

        def __init__(self, number):
            self.id, self.process_index, self.platform = number, number % 4 // 2, "tpu"

        def __repr__(self):
            return f"{self.id}"

    mesh = meshes.make_mesh(1, devices=[Chip(number) for number in range(8)])
    assert [chip.id for chip in mesh.devices.flat] == [0, 1, 4, 5, 2, 3, 6, 7]
    assert [meshes.process_share(mesh, host) for host in (0, 1)] == [(0, 2), (1, 2)]
