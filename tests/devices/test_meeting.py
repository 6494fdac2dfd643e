"""Processes of one launch that meet, compare and hear of one another, as threads on loopback."""

import contextlib
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devices import DeviceError, LostProcessError, agreement, launch_from, meeting
from devices.meeting import Meeting
from tests.runs import free_port


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """An address that is taken is tried for a second."""
    monkeypatch.setattr(meeting, "_LEAVING", 1)


class Lost:
    """What a process hears of the others' end."""

    def __init__(self):
        self.heard, self.reason = threading.Event(), None

    def __call__(self, reason):
        self.reason = reason
        self.heard.set()

    def wait(self):
        assert self.heard.wait(30)
        return self.reason


def together(work, *numbers, patience=30):
    """Calls `work(meeting)` in a thread for each (number, count) of a launch.

    `patience` is of all, or of each; a count of None is that of the launch. Returns what each
    call returned or raised.
    """
    address = f"127.0.0.1:{free_port()}"
    joined = []

    def one(number, count):
        others = Meeting(address, count, number, Lost())
        joined.append(others)
        try:
            others.gather(patience)
            return work(others)
        except (DeviceError, LostProcessError) as error:
            return error

    with ThreadPoolExecutor(len(numbers)) as pool:
        answers = list(pool.map(one, *zip(*numbers, strict=True)))
    for others in joined:
        others.end(0)
    return answers


def test_what_is_brought_is_told_to_all():
    def work(others):
        first = others.exchange("first", {"own": others.own})
        return first, others.exchange("second", {"same": 1})

    expected = [{"own": 0}, {"own": 1}, {"own": 2}], [{"same": 1}] * 3
    assert together(work, (0, 3), (1, 3), (2, 3)) == [expected] * 3


def test_a_launch_of_one():
    assert together(lambda others: others.exchange("x", {"a": 1}), (0, 1)) == [[{"a": 1}]]


def test_numbers_of_processes_that_differ():
    for error in together(lambda _: None, (0, 2), (1, 3)):
        assert isinstance(error, DeviceError)
        assert "num_processes: 2 at process 0, 3 at process 1" in str(error)


def test_the_same_number_twice():
    for error in together(lambda _: None, (0, 3), (1, 3), (1, 3)):
        assert isinstance(error, DeviceError)
        assert "two processes came as process 1, from 127.0.0.1 and 127.0.0.1" in str(error)


def test_two_processes_0():
    """The second cannot listen where the first does; the first waits for one that never comes."""
    answers = together(lambda _: None, (0, 2), (0, 2), patience=3)
    said = sorted(str(error) for error in answers)
    assert "process 0 cannot listen there" in said[0]
    assert "process 1 of 2 did not come within 3 s" in said[1]


def test_a_process_that_never_comes(capsys, monkeypatch):
    monkeypatch.setattr(meeting, "_QUIET", 0)
    for error in together(lambda _: None, (0, 4), (2, 4), patience=3):
        assert isinstance(error, LostProcessError)
        assert "processes 1, 3 of 4 did not come within 3 s" in str(error)
    assert "waiting for processes 1, 3 of 4" in capsys.readouterr().out


def test_process_0_never_comes():
    (error,) = together(lambda _: None, (1, 2), patience=1)
    assert isinstance(error, LostProcessError)
    assert "no process 0 answers there" in str(error)


@pytest.mark.parametrize(
    "greets", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""], ids=["talks", "mute"]
)
def test_another_program_answers(greets):
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        server.settimeout(0.2)
        ended, kept = threading.Event(), []

        def serve():
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    kept.append(server.accept()[0])
                    kept[-1].sendall(greets)

        served = pool.submit(serve)
        others = Meeting(f"127.0.0.1:{server.getsockname()[1]}", 2, 1, Lost())
        with pytest.raises(DeviceError, match="what answers there is no process 0"):
            others.gather(30)
        ended.set()
        served.result()
        for line in kept:
            line.close()


def test_strangers_do_not_disturb():
    """A port scanner connects while processes come."""
    address = f"127.0.0.1:{free_port()}"
    first, second = (Meeting(address, 2, own, Lost()) for own in range(2))
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first.gather, 30)
        line, _ = meeting._connect(address, 1, 1e9)
        line.sendall(b"GET / HTTP/1.1\r\n\r\n")
        pool.submit(second.gather, 30).result()
        one.result()
        line.close()
        facts = list(pool.map(lambda m: m.exchange("x", {}), (first, second)))
    assert facts == [[{}, {}]] * 2
    for others in (first, second):
        others.end(0)


def test_a_process_that_failed_before_it_came():
    address = f"127.0.0.1:{free_port()}"
    for failed in (0, 1):
        address = f"127.0.0.1:{free_port()}"
        pair = [Meeting(address, 2, own, Lost()) for own in range(2)]
        with ThreadPoolExecutor(2) as pool:
            telling = pool.submit(pair[failed].gather, 30, 2)
            with pytest.raises(LostProcessError, match=f"process {failed} has ended with code 2"):
                pair[1 - failed].gather(30)
            with pytest.raises(LostProcessError):
                telling.result()


def met(count):
    address = f"127.0.0.1:{free_port()}"
    all_of_them = [Meeting(address, count, own, Lost()) for own in range(count)]
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda m: m.gather(30), all_of_them))
    return all_of_them


def cut(others):
    """As if the process were killed."""
    others._line.shutdown(socket.SHUT_RDWR)


def test_the_others_hear_of_one_that_is_killed():
    first, second, third = met(3)
    cut(second)
    for others in (first, third):
        assert others._lost.wait() == "process 1 is gone"
    for others in (first, third):
        others.end(0)


def test_the_others_hear_of_one_that_fails():
    first, second, third = met(3)
    third.end(1)
    for others in (first, second):
        assert "process 2 has ended with code 1" in others._lost.wait()
    assert not third._lost.heard.is_set()
    for others in (first, second):
        others.end(0)


def test_one_that_stands_still_is_lost(monkeypatch):
    monkeypatch.setattr(meeting, "SILENCE", 3)
    monkeypatch.setattr(meeting, "_SIGN", 1)
    first, second = met(2)
    second._ended = True  # it gives no more signs
    assert first._lost.wait() == "process 1 has given no sign of life for 3 s"
    first.end(0)


def test_who_ends_in_good_order_is_not_missed():
    first, second, third = met(3)
    third.end(0)
    cut(third)
    with ThreadPoolExecutor(2) as pool:
        pool.submit(second.end, 0).result()
        second._line.shutdown(socket.SHUT_RDWR)
    assert first._host.gone.wait(30)
    assert not any(others._lost.heard.is_set() for others in (first, second, third))
    first.end(0)


def prove(workdirs):
    def work(others):
        return agreement.prove_shared(others, workdirs[others.own])

    return together(work, *((own, len(workdirs)) for own in range(len(workdirs))))


def listing(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.mark.parametrize("there", [True, False])
def test_a_workdir_that_is_shared(tmp_path, there):
    """By one name or by two; there is nothing left of the proof."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    if there:
        (tmp_path / "disk" / "runs" / "a").mkdir(parents=True)
    before = listing(tmp_path)
    assert (
        prove([tmp_path / name / "runs" / "a" for name in ("disk", "disk", "link")]) == [None] * 3
    )
    assert listing(tmp_path) == before


@pytest.mark.parametrize("there", [True, False])
def test_a_workdir_that_is_not_shared(tmp_path, monkeypatch, there):
    """Two hosts with directories of their own; or one that has other names."""
    monkeypatch.setattr(agreement, "_SEEN_WITHIN", 0)
    for host in ("host0", "host1"):
        (tmp_path / host / ("runs/a" if there else "")).mkdir(parents=True)
    before = listing(tmp_path)
    for error in prove([tmp_path / "host0/runs/a", tmp_path / "host1/runs/a"]):
        assert "not one directory that all processes share; process 1 did not see" in str(error)
        assert "host1/runs/a at process 1" in str(error)
    for error in prove([tmp_path / "host0/runs/a", tmp_path / "host0/runs/b"]):
        assert "not one directory that all processes share" in str(error)
    assert listing(tmp_path) == before


def test_a_workdir_that_cannot_be_written():
    nowhere = Path("/proc/none/run")
    if not nowhere.parents[1].is_dir():
        pytest.skip("no /proc")
    for error in prove([nowhere, nowhere]):
        assert "--workdir=/proc/none/run: cannot be written" in str(error)


LAUNCHES = {
    "a host without a port": (("host0", 2, 0), "--coordinator_address=host0: no port"),
    "a port without a host": ((":9911", 2, 0), "--coordinator_address=:9911: no host"),
    "no number": (("host0:http", 2, 0), "http is no port"),
    "port 0": (("host0:0", 2, 0), "0 is no port"),
    "a port too high": (("host0:65536", 2, 0), "65536 is no port (1 to 65535)"),
    "an URL": (("http://host0:9911", 2, 0), "http://host0 is no host"),
    "IPv6 without brackets": (("fe80::1:9911", 2, 0), "is no host"),
    "brackets without a port": (("[::1]", 2, 0), "no port"),
    "empty": (("", 2, 0), "--coordinator_address=: no port"),
    "no processes": (("host0:9911", 0, 0), "--num_processes=0: at least 1"),
    "fewer than none": (("host0:9911", -2, 0), "--num_processes=-2: at least 1"),
    "a number too high": (("host0:9911", 2, 2), "--process_id=2: of 2 processes"),
    "a negative number": (("host0:9911", 2, -1), "the numbers are 0 to 1"),
    "nothing": ((None, None, None), "--coordinator_address, --num_processes, --process_id or"),
    "an address alone": (("host0:9911", None, None), "--num_processes, --process_id or the"),
    "no address": ((None, 2, 0), "--coordinator_address or the variable JAX_COORDINATOR_ADDRESS"),
    "no number of this one": (("host0:9911", 2, None), "variable JAX_PROCESS_ID is missing"),
}
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@pytest.fixture
def no_cluster(monkeypatch):
    for name in os.environ:
        if name in VARIABLES or name.startswith(("JAX_LOCAL", "SLURM_", "OMPI_", "CUDA_VISIBLE")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("given, said", LAUNCHES.values(), ids=LAUNCHES)
def test_a_launch_that_cannot_be(no_cluster, given, said):
    with pytest.raises(DeviceError) as raised:
        launch_from(*given)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_launch_by_variables(no_cluster, monkeypatch):
    """A flag counts before its variable; half of them are not enough, and are named."""
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "[::1]:9911")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
    with pytest.raises(DeviceError, match=r"JAX_PROCESS_ID is missing .*JAX_NUM_PROCESSES=4"):
        launch_from(None, None, None)
    monkeypatch.setenv("JAX_PROCESS_ID", "3")
    launch = launch_from(None, None, 2)
    assert (launch.address, launch.count, launch.own) == ("[::1]:9911", 4, 2)
    assert launch_from(None, None, None).own == 3
    for name, value in (
        ("JAX_PROCESS_ID", "-1"),
        ("JAX_PROCESS_ID", "4"),
        ("JAX_NUM_PROCESSES", "two"),
        ("JAX_LOCAL_DEVICE_IDS", "0,x"),
    ):
        with monkeypatch.context() as one, pytest.raises(DeviceError, match=f"{name}={value}"):
            one.setenv(name, value)
            launch_from(None, None, None)


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[003-004]",
    "SLURM_NTASKS": "16",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_NODES": "2",
}


def test_a_launch_by_slurm(no_cluster, monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    by_slurm = launch_from(None, None, None)
    assert by_slurm.address.startswith("node003:")
    assert (by_slurm.count, by_slurm.own, by_slurm.devices) == (16, 9, [1])
    assert by_slurm.patience > launch_from("node003:9911", None, None).patience


ALL = None
GPUS = {
    # Tasks of each host, the GPUs that a task sees, --gpus-per-task; the devices of each task.
    "a GPU for each": ("8(x2)", 8, None, [[0], [1], [2], [3], [4], [5], [6], [7]]),
    "each sees its own alone": ("8(x2)", 1, "1", [ALL] * 8),
    "each sees its own alone, on one host": ("8", 1, None, [ALL] * 8),
    "one for all of the host": ("1(x2)", 8, None, [ALL]),
    "one that is told no GPUs": ("1(x2)", None, None, [ALL]),
    "two for each": ("4(x2)", 8, None, [[0, 1], [2, 3], [4, 5], [6, 7]]),
    "two for each, which it sees alone": ("4(x2)", 2, None, [ALL] * 4),
    "two of two for each": ("2(x2)", 2, "h100:2", [ALL] * 2),
    "two of four for each": ("2(x2)", 4, "2", [[0, 1], [2, 3]]),
    "not for all": ("3(x2)", 8, None, [[0, 1], [2, 3], [4, 5]]),
    "hosts that differ": ("3,1", 8, None, [[0], [1], [2]]),
    "hosts that differ, each sees its own": ("3,1", 1, "1", [ALL] * 3),
    "no GPUs": ("8(x2)", None, None, [[0], [1], [2], [3], [4], [5], [6], [7]]),
    "it does not say": (None, 8, None, [[0], [1]]),
}


@pytest.mark.parametrize("tasks, seen, asked, expected", GPUS.values(), ids=GPUS)
@pytest.mark.parametrize("named", ["numbers", "UUIDs"])
def test_tasks_of_a_host_share_its_gpus(
    no_cluster, monkeypatch, named, tasks, seen, asked, expected
):
    told = dict(SLURM)
    if tasks is not None:
        told["SLURM_STEP_TASKS_PER_NODE"] = tasks
    if asked is not None:
        told["SLURM_GPUS_PER_TASK"] = asked
    if seen is not None:  # never those that are numbered from 0
        first = "GPU-" if named == "UUIDs" else ""
        told["CUDA_VISIBLE_DEVICES"] = ",".join(f"{first}{5 + i}" for i in range(seen))
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    for number, devices in enumerate(expected):
        monkeypatch.setenv("SLURM_LOCALID", str(number))
        assert launch_from(None, None, None).devices == devices
        assert launch_from("node003:9911", 16, 9).devices == devices
    monkeypatch.setenv("JAX_LOCAL_DEVICE_IDS", "1,0")
    assert launch_from(None, None, None).devices == [1, 0]


def test_tasks_that_see_a_part_of_their_host_use_all_of_it(no_cluster, monkeypatch):
    """Four of eight GPUs are a task's own, bound to it by whatever means."""
    told = {
        **SLURM,
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
        "SLURM_GPUS_ON_NODE": "8",
        "CUDA_VISIBLE_DEVICES": "0,1,2,3",
        "SLURM_LOCALID": "1",
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert launch_from(None, None, None).devices is ALL
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "4")
    assert launch_from(None, None, None).devices == [2, 3]


def test_one_process_of_open_mpi_uses_all_of_its_host(no_cluster, monkeypatch):
    for name, value in {
        "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": "1",
        "OMPI_COMM_WORLD_LOCAL_RANK": "0",
        "SLURM_GPUS_PER_TASK": "4",  # of the job that mpirun is started in
        "CUDA_VISIBLE_DEVICES": "0,1,2,3",
    }.items():
        monkeypatch.setenv(name, value)
    for processes, devices in ((1, None), (2, [0, 1]), (4, [0])):
        monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", str(processes))
        assert launch_from(None, None, None).devices == devices
