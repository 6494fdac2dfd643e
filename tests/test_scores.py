"""Scores of every example as a file: whole, in parts, on two processes, after an interruption."""

import json

import numpy as np
import pytest

from evaluation import score_files
from tests.runs import TINY, finish, start_two
from training import scoring

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
