import itertools

import jax
import numpy as np
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


class Chip:
    """A device of a process."""

    def __init__(self, number, process):
        self.id, self.process_index, self.platform = number, process, "tpu"

    def __repr__(self):
        return f"{self.id}"


def test_each_hosts_rows_lie_together_however_devices_are_numbered():
    """As on a slice of 4 x 2 chips with hosts of 2 x 2, numbered row by row."""
    chips = [Chip(number, number % 4 // 2) for number in range(8)]
    mesh = meshes.make_mesh(1, devices=chips)
    assert [chip.id for chip in mesh.devices.flat] == [0, 1, 4, 5, 2, 3, 6, 7]
    assert [meshes.process_share(mesh, host) for host in (0, 1)] == [(0, 2), (1, 2)]


def test_what_processes_feed_is_what_their_devices_hold():
    """On any number of processes, devices of each and towers; or no process goes on."""
    refused = 0
    for processes, each, tower in itertools.product(range(1, 7), range(1, 9), (1, 2, 3, 4)):
        if processes * each % tower:
            continue
        chips = [Chip(number, number // each) for number in range(processes * each)]
        mesh = meshes.make_mesh(tower, tower=tower, devices=chips)
        rows, said, fed = np.arange(mesh.shape["data"]), [], set()
        for process in range(processes):
            try:
                share, shares = meshes.process_share(mesh, process)
            except DeviceError as error:
                said.append(str(error))
                continue
            held = [
                i for i, row in enumerate(mesh.devices) if process in [d.process_index for d in row]
            ]
            (own,) = np.split(rows, shares)[share : share + 1]
            assert list(own) == held
            fed.add((share, shares))
        refused += bool(said)
        if said:
            assert len(said) == processes
            assert each % tower and tower % each
        else:
            assert fed == {(share, len(fed)) for share in range(len(fed))}
    assert refused


@pytest.mark.parametrize("held", [(1, 3), (2, 1, 1), (4, 4, 3)])
def test_processes_with_different_numbers_of_devices(held):
    owners = [process for process, count in enumerate(held) for _ in range(count)]
    chips = [Chip(number, process) for number, process in enumerate(owners)]
    for asked in ({}, {"data": 1, "tower": 1}):
        with pytest.raises(DeviceError, match="all processes need equally many") as raised:
            meshes.make_mesh(2, devices=chips, **asked)
        assert f"process {held.index(max(held))} has {max(held)} devices" in str(raised.value)
