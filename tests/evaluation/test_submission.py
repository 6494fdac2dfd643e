"""Files for ILSVRC's and Kaggle's servers, from scores and from images without labels."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation import Scores, commands, score_files, submission
from evaluation.words import synsets
from tests.conftest import ROOT


def write(path, scores, names, class_names=None):
    index = np.arange(len(scores), dtype=np.int32)
    class_names = tuple(synsets()) if class_names is None else class_names
    score_files.write_scores(
        path, Scores(index, scores, -np.ones(len(scores), np.int32)), names.__getitem__, 7, "",
        split="test", protocol="ten_view", class_names=class_names,
    )  # fmt: skip
    return str(path)


@pytest.fixture
def scores(tmp_path):
    """Two images, not in the order of their names; kit fox, English setter, ... come first."""
    known = list(synsets())
    best = ["n02119789", "n02100735", "n02110185", "n01440764", "n15075141"]
    values = np.full((2, 1000), -20, np.float32)
    values[0, [known.index(synset) for synset in best]] = [-1, -2, -3, -4, -5]
    values[1, [known.index(synset) for synset in best]] = [-5, -4, -3, -2, -1]
    return write(tmp_path / "s.npz", values, ["/test/b_02.JPEG", "/test/a_01.JPEG"])


def said(capsys, *arguments):
    code = commands.ended(submission.run, arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_ilsvrc(scores, capsys, tmp_path):
    code, out, err = said(capsys, scores, "--format=ilsvrc")
    assert code == 0 and "2 images; ILSVRC's test set has 100,000" in err
    assert out == f"{tmp_path / 's.txt'}\n"
    last = submission.ilsvrc_ids()["n15075141"], submission.ilsvrc_ids()["n01440764"]
    assert (tmp_path / "s.txt").read_text() == (
        f"{last[0]} {last[1]} 3 2 1\n1 2 3 {last[1]} {last[0]}\n"
    )


def test_kaggle(scores, capsys, tmp_path):
    out = tmp_path / "s.csv"
    assert said(capsys, scores, "--format=kaggle")[0] == 0
    header, first, second = out.read_text().splitlines()
    assert header == "ImageId,PredictionString"
    number = sorted(synsets()).index("n02119789") + 1
    assert second.startswith(f"b_02,{number} 0 0 0 0 ") and len(second.split()) == 25
    assert first.startswith("a_01,1000 0 0 0 0 1 0 0 0 0 ")
    for name, size in (("a_01", (30, 20)), ("b_02", (10, 40))):
        (tmp_path / "images" / "deeper").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(tmp_path / "images" / "deeper" / f"{name}.JPEG")
    assert said(capsys, scores, "--format=kaggle", f"--images={tmp_path / 'images'}")[0] == 0
    assert out.read_text().splitlines()[1].startswith("a_01,1000 0 0 29 19 1 0 0 29 19 ")


def test_homes_are_put_into_every_path(scores, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (30, 20)).save(tmp_path / "a_01.JPEG")
    Image.new("RGB", (30, 20)).save(tmp_path / "b_02.JPEG")
    code, out, err = said(capsys, "~/s.npz", "--format=kaggle", "--out=~/new/s.csv", "--images=~/")
    assert code == 0, err
    assert out == f"{tmp_path}/new/s.csv\n" and "0 0 29 19" in (tmp_path / "new/s.csv").read_text()
    assert not (tmp_path / "~").exists()
    for path, message in (
        ("~nobody-of-this-name/x", "~nobody-of-this-name is no home directory"),
        ("gs://bucket/x", "gs://bucket/x: a URL"),
    ):
        with pytest.raises(SystemExit) as ended:
            said(capsys, scores, "--format=ilsvrc", f"--out={path}")
        assert ended.value.code == 2 and message in capsys.readouterr().err


def test_no_command_takes_a_path_as_it_is_written():
    """A shell leaves the ~ of --out=~/x to the command."""
    for room in ("evaluation", "claims", "visualization"):
        for source in (ROOT / room).rglob("*.py"):
            assert "type=Path" not in source.read_text(), source


def test_nobody_reads_the_notes_and_the_path_is_not_utf8(scores, tmp_path):
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    try:
        place.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    read, write_end = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "evaluation.submission", scores, "--format=ilsvrc"]
    answer = subprocess.run(
        [*command, f"--out={place / 's.txt'}"], cwd=ROOT, stdout=subprocess.PIPE, stderr=write_end
    )
    os.close(write_end)
    assert answer.returncode == 0 and (place / "s.txt").exists()
    assert answer.stdout.decode() == f"{tmp_path}/\\udcff/s.txt\n"


def test_ids_are_those_of_the_synsets():
    """ID 1 is kit fox, and each of the 1000 has one."""
    ids = submission.ilsvrc_ids()
    assert ids.keys() == synsets().keys()
    assert sorted(ids.values()) == list(range(1, 1001))
    assert [synset for synset in ids if ids[synset] <= 3] == ["n02119789", "n02100735", "n02110185"]


def test_what_no_submission_can_be_made_of_is_named(scores, capsys, tmp_path):
    values = np.zeros((2, 1000), np.float32)
    cases = {
        "no names of files": write(tmp_path / "a.npz", values, ["shard record 1", "x record 2"]),
        "2 images are called 1.JPEG": write(tmp_path / "b.npz", values, ["a/1.JPEG", "b/1.JPEG"]),
        "images are no numbers (the first is 2.JPEG)": write(
            tmp_path / "d.npz", values + np.array([[0], [np.nan]]), ["1.JPEG", "2.JPEG"]
        ),
        "does not say its classes": write(tmp_path / "e.npz", values, ["1.JPEG", "2.JPEG"], []),
        "has other classes": write(tmp_path / "c.npz", values[:, :2], ["1.JPEG", "2.JPEG"], "ab"),
    }
    for message, path in cases.items():
        code, _, err = said(capsys, path, "--format=ilsvrc")
        assert code == 2 and message in err and path in err, err
    code, _, err = said(capsys, scores, "--format=kaggle", f"--images={tmp_path}")
    assert code == 2 and "a_01.JPEG is not there" in err


def test_images_without_labels_are_scored(imagenet_folder, call, capsys, tmp_path):
    """The test split as it is published: a folder of images, which nobody reports errors on."""
    (imagenet_folder / "test").mkdir()
    for name in ("ILSVRC2012_test_00000002.JPEG", "ILSVRC2012_test_00000001.JPEG"):
        Image.new("RGB", (90, 70), (200, int(name[-6]) * 60, 0)).save(
            imagenet_folder / "test" / name
        )
    run = [
        "--config=configs/alexnet.py:one_gpu", f"--config.data.dir={imagenet_folder}",
        "--config.data.resize=68", "--config.data.crop=64", "--config.model.hidden=(8,8)",
        "--config.model.kernels=(8,8,8,8,8)", "--config.batch_size=4", "--config.total_steps=1",
        "--config.mesh.data=1", f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    assert call(*run)[0] == 0
    evaluate = [*run, "--mode=evaluate", "--config.evaluation.save_scores=True"]
    code, out, err = call(*evaluate, "--config.evaluation.split=test")
    assert code == 0, err
    assert '"examples": 2' in out and '"top1_error": null' in out
    assert call(*evaluate)[1].count('"split": "validation"') == 1
    kept = score_files.scores_of(tmp_path / "run", split="test")
    assert kept.scores.label.tolist() == [-1, -1]
    code, _, err = said(capsys, str(tmp_path / "run"), "--split=test", "--format=ilsvrc")
    assert code == 0, err
    lines = (tmp_path / "run" / "scores" / "test-ten_view.txt").read_text().splitlines()
    assert [len(set(line.split())) for line in lines] == [5, 5]
