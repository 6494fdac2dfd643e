"""Scores of every example as a file: whole, in parts, on two processes, after an interruption."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from evaluation import Scores, protocol_called, score_files
from evaluation.preprocessing import Preprocessing
from tests.conftest import ROOT
from tests.runs import TINY, finish, free_port, start_two
from training import RunError, scoring

CENTER = protocol_called("center_crop", Preprocessing(8, 8))
EVALUATE = ["--mode=evaluate", "--config.evaluation.save_scores=True"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps."""
    import main

    workdir = tmp_path_factory.mktemp("scores") / "run"
    assert main.main(["main.py", *TINY, "--config.total_steps=2", f"--workdir={workdir}"]) == 0
    return workdir


def evaluated(call, workdir, *arguments):
    code, out, err = call(*TINY, f"--workdir={workdir}", *EVALUATE, *arguments)
    assert code == 0, err
    (path,) = (workdir / "scores").iterdir()
    with np.load(path) as saved:
        return json.loads(out.splitlines()[-1]), dict(saved), path


def test_scores_are_those_that_were_measured(call, trained):
    report, saved, path = evaluated(call, trained, "--config.evaluation.protocol=ten_view")
    assert path.name == "validation-ten_view.npz"
    assert saved["scores"].dtype == np.float32 and saved["scores"].shape == (77, 10)
    assert saved["index"].dtype == saved["label"].dtype == np.int32
    assert saved["index"].tolist() == list(range(77))
    assert len(set(saved["name"].tolist())) == 77
    assert saved["checkpoint"] == report["checkpoint"] == 2
    np.testing.assert_allclose(np.exp(saved["scores"]).sum(axis=1), 1, rtol=1e-5)
    wrong = saved["scores"].argmax(axis=1) != saved["label"]
    assert wrong.mean() == report["top1_error"]
    loss = -saved["scores"][np.arange(77), saved["label"]].mean(dtype=np.float64)
    assert loss == pytest.approx(report["loss"], rel=1e-6)
    path.unlink()


def test_an_evaluation_goes_on_from_its_parts(call, trained, monkeypatch):
    """Parts of 16; only those that are missing, damaged or of other weights are computed."""
    report, whole, path = evaluated(call, trained)
    monkeypatch.setattr(scoring, "_PART", 16)
    steps = []
    read = score_files.read_part

    def stop_at(number):
        def write(part, scores, digest):
            if part == score_files.part_path(path, 0, number):
                raise KeyboardInterrupt
            steps.append(part.name)
            write_part(part, scores, digest)

        return write

    write_part = score_files.write_part
    monkeypatch.setattr(score_files, "write_part", stop_at(3))
    path.unlink()
    with pytest.raises(AssertionError, match="interrupted"):
        evaluated(call, trained)
    assert steps == [f"validation-center_crop.part-0-{number}.npz" for number in range(3)]
    second = score_files.part_path(path, 0, 1)
    second.write_bytes(second.read_bytes()[:-200])  # cut short: this one and those after it
    assert read(second, str(whole["digest"])) is None
    monkeypatch.setattr(score_files, "write_part", stop_at(None))
    steps.clear()
    again, saved, _ = evaluated(call, trained)
    assert steps == [f"validation-center_crop.part-0-{number}.npz" for number in range(1, 5)]
    assert again == report
    assert saved.keys() == whole.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(saved[name], values, err_msg=name)
    path.unlink()


@pytest.mark.slow
def test_looks_at_several_sizes_go_on_from_their_parts(call, trained, monkeypatch):
    """Whole images of two sizes, in batches by shape: stopped in the second, the same file."""
    asked = ["--config.evaluation.protocol=multi_crop_and_dense"]
    asked.append("--config.evaluation.scales=(64,72)")
    report, whole, path = evaluated(call, trained, *asked)
    assert path.name == "validation-multi_crop_and_dense-64-72.npz"
    assert report["protocol"] == "multi_crop_and_dense-64-72" and report["examples"] == 77
    assert whole["index"].tolist() == list(range(77))
    path.unlink()
    monkeypatch.setattr(scoring, "_PART", 16)  # of costly looks parts are smaller
    written, write_part = [], score_files.write_part

    def stop_at(name):
        def write(part, scores, digest):
            if part.name == name:
                raise KeyboardInterrupt
            written.append(part.name)
            write_part(part, scores, digest)

        return write

    of_look = "validation-multi_crop_and_dense-64-72.{}.part-0-{}.npz".format
    monkeypatch.setattr(score_files, "write_part", stop_at(of_look(72, 2)))
    with pytest.raises(AssertionError, match="interrupted"):
        evaluated(call, trained, *asked)
    assert written == [*(of_look(64, n) for n in range(5)), of_look(72, 0), of_look(72, 1)]
    monkeypatch.setattr(score_files, "write_part", stop_at(None))
    written.clear()
    again, saved, _ = evaluated(call, trained, *asked)
    assert written == [of_look(72, n) for n in range(2, 5)]
    assert again == report
    for name, values in whole.items():
        np.testing.assert_array_equal(saved[name], values, err_msg=name)
    path.unlink()


def test_parts_of_other_settings_are_not_taken(call, trained, monkeypatch):
    _, whole, path = evaluated(call, trained)
    of_others = score_files.part_path(path, 0, 0)
    parts = score_files.Scores(*(whole[name][:40] for name in ("index", "scores", "label")))
    score_files.write_part(of_others, parts, "of other weights")
    assert score_files.read_part(of_others, str(whole["digest"])) is None
    path.unlink()
    _, saved, _ = evaluated(call, trained)
    np.testing.assert_array_equal(saved["scores"], whole["scores"])
    path.unlink()


def test_scores_that_cannot_be_written_are_named(call, trained):
    (trained / "scores").rmdir()
    (trained / "scores").write_text("a file")
    code, _, err = call(*TINY, f"--workdir={trained}", *EVALUATE)
    assert code == 1
    assert "validation-center_crop.npz: cannot be written" in err and "save_scores=False" in err
    (trained / "scores").unlink()


def test_a_workdir_that_cannot_be_made_is_named(call, trained, tmp_path):
    assert call(*TINY, f"--workdir={trained}", "--mode=export")[0] == 0
    weights = f"--config.init_from={trained / 'weights.safetensors'}"
    (tmp_path / "file").write_text("no directory")
    workdir = tmp_path / "file" / "run"
    code, _, err = call(*TINY, f"--workdir={workdir}", *EVALUATE, weights)
    assert code == 1
    (line,) = err.splitlines()
    assert line.startswith(f"error: {workdir}/scores/") and "Not a directory" in line


def test_a_full_disk_keeps_the_parts_that_were_written(tmp_path, small_disk):
    """1.5 MB hold one part of 1 MB and not the next; with more room it goes on."""
    place, remount = small_disk
    path, steps = place / "scores" / "test-center_crop.npz", []

    def of_batches(batches):
        (batch,) = batches
        index = np.arange(batch * 1000, (batch + 1) * 1000, dtype=np.int32)
        steps.append(batch)
        return Scores(index, np.full((1000, 250), batch, np.float32), index % 250)

    def evaluate():
        return scoring.scores_in_parts(
            of_batches, lambda first: iter(range(first, 3)), scoring._PART, path, "digest"
        )

    with pytest.raises(RunError, match=r"test-center_crop.npz: cannot be written \(No space left"):
        evaluate()
    assert steps == [0, 1]
    assert [part.name for part in path.parent.iterdir()] == ["test-center_crop.part-0-0.npz"]
    remount("size=20m")
    steps.clear()
    assert evaluate().index.tolist() == list(range(3000))
    assert steps == [1, 2]
    scoring.join_parts(path, CENTER, "digest", 3000, 0, str, split="test", class_names="abc")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("there", [(), (0, 2)])
def test_scores_are_not_joined_without_all_their_parts(tmp_path, there):
    """Another evaluation has removed them, or another host keeps them on a disk of its own."""
    path = tmp_path / "scores" / "test-center_crop.npz"
    path.parent.mkdir()
    for number in there:
        index = np.arange(4, dtype=np.int32) + 4 * number
        part = Scores(index, np.zeros((4, 2), np.float32), np.zeros(4, np.int32))
        score_files.write_part(score_files.part_path(path, 0, number), part, "digest")
    kept = sorted(path.parent.iterdir())
    with pytest.raises(RunError, match=f"hold {4 * bool(there)} of 12 examples"):
        scoring.join_parts(path, CENTER, "digest", 12, 0, str, split="test", class_names="ab")
    assert sorted(path.parent.iterdir()) == kept


def test_other_settings_have_another_digest(call, trained, tmp_path):
    """Of the same weights: what changes the pixels, or the network and none of its shapes."""
    found = set()
    assert call(*TINY, f"--workdir={trained}", "--mode=export")[0] == 0
    for number, changed in enumerate(
        ([], ["--config.data.decode=exact"], ["--config.evaluation.batch_size=11"])
    ):
        weights = f"--config.init_from={trained / 'weights.safetensors'}"
        _, saved, _ = evaluated(call, tmp_path / str(number), weights, *changed)
        found.add(str(saved["digest"]))
    assert len(found) == 3


# As main.py, but in parts of four examples.
IN_SMALL_PARTS = """
import sys
import main
from training import scoring
scoring._PART = 4
sys.exit(main.main(["main.py", *sys.argv[1:]]))
"""


def start_in_small_parts(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", IN_SMALL_PARTS, *arguments],
        cwd=ROOT,
        # As many threads as in this process, for the same bits; see tests/runs.py.
        env=os.environ
        | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1", "PJRT_NPROC": "4"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
def test_an_evaluation_that_is_killed_goes_on(call, trained, monkeypatch):
    """SIGKILL, which nothing can catch; the file is that of an evaluation in one go."""
    report, whole, path = evaluated(call, trained, "--config.evaluation.batch_size=4")
    path.unlink()
    arguments = [*TINY, f"--workdir={trained}", *EVALUATE, "--config.evaluation.batch_size=4"]
    process = start_in_small_parts(*arguments)
    third = score_files.part_path(path, 0, 2)
    while process.poll() is None and not third.exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not path.exists()
    kept = {part.name for part in path.parent.glob("*.npz")}
    assert 3 <= len(kept) < 20
    monkeypatch.setattr(scoring, "_PART", 4)
    written, write_part = [], score_files.write_part

    def noting(part, scores, digest):
        written.append(part.name)
        write_part(part, scores, digest)

    monkeypatch.setattr(score_files, "write_part", noting)
    again, saved, _ = evaluated(call, trained, "--config.evaluation.batch_size=4")
    assert not kept & set(written) and len(kept) + len(written) == 20
    assert again == report
    assert saved.keys() == whole.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(saved[name], values, err_msg=name)
    path.unlink()


@pytest.mark.slow
def test_two_processes_write_the_same_scores(call, trained):
    _, alone, path = evaluated(call, trained)
    path.unlink()
    both = start_two(
        *(a for a in TINY if "mesh" not in a), "--config.mesh.data=2", "--config.mesh.tower=1",
        f"--workdir={trained}", *EVALUATE, devices=1,
    )  # fmt: skip
    for process in both:
        finish(process)
    assert [p.name for p in (trained / "scores").iterdir()] == [path.name]
    with np.load(path) as saved:
        assert saved["index"].tolist() == list(range(77))
        np.testing.assert_allclose(saved["scores"], alone["scores"], rtol=1e-4, atol=1e-5)
        assert saved["name"].tolist() == alone["name"].tolist()
    path.unlink()


@pytest.mark.slow
def test_two_processes_write_the_same_scores_of_several_looks(call, trained):
    """Of whole images at two scales: a process has other examples in each."""
    asked = ["--config.evaluation.protocol=multi_crop_and_dense"]
    asked.append("--config.evaluation.scales=(64,72)")
    report, alone, path = evaluated(call, trained, *asked)
    path.unlink()
    both = start_two(
        *(a for a in TINY if "mesh" not in a), "--config.mesh.data=2", "--config.mesh.tower=1",
        f"--workdir={trained}", *EVALUATE, *asked, devices=1,
    )  # fmt: skip
    (first, _), _ = [finish(process) for process in both]
    again = json.loads(first.splitlines()[-1])
    assert again["protocol"] == report["protocol"] and again["examples"] == 77
    assert again["top1_error"] == report["top1_error"]
    assert [p.name for p in (trained / "scores").iterdir()] == [path.name]
    with np.load(path) as saved:
        for name in ("index", "label", "name"):
            np.testing.assert_array_equal(saved[name], alone[name], err_msg=name)
        np.testing.assert_allclose(saved["scores"], alone["scores"], rtol=1e-4, atol=1e-5)
    path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_two_processes_go_on_after_one_was_killed(trained, killed):
    """What one has and the other has not is computed again by both."""
    path = trained / "scores" / "validation-center_crop.npz"
    run = [
        *(a for a in TINY if "mesh" not in a), "--config.mesh.data=2", "--config.mesh.tower=1",
        f"--workdir={trained}", *EVALUATE, "--config.evaluation.batch_size=4", "--distributed",
        "--num_processes=2",
    ]  # fmt: skip

    def start_both():
        address = f"--coordinator_address=127.0.0.1:{free_port()}"
        return [start_in_small_parts(*run, address, f"--process_id={i}") for i in range(2)]

    def scores():
        with np.load(path) as saved:
            return dict(saved)

    for process in start_both():
        finish(process)
    whole = scores()
    path.unlink()
    both = start_both()
    third = score_files.part_path(path, killed, 2)
    while both[killed].poll() is None and not third.exists():
        time.sleep(0.001)
    both[killed].kill()
    assert both[killed].wait(60) == -signal.SIGKILL
    _, err = finish(both[1 - killed], code=1)
    assert err.splitlines()[-1].startswith("error: ") and "Traceback" not in err
    assert not path.exists() and third.exists()
    ahead = score_files.part_path(path, 1 - killed, 2)
    ahead.unlink(missing_ok=True)  # one has fewer parts than the other
    for process in start_both():
        finish(process)
    assert list(path.parent.iterdir()) == [path]
    for name, values in scores().items():
        np.testing.assert_array_equal(values, whole[name], err_msg=name)
    path.unlink()
