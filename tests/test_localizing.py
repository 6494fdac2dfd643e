"""Boxes from the command line: submission files against a dataset's annotations."""

import json

import pytest

from input_pipeline.datasets import digit_canvases
from tests.conftest import write_images
from tests.input_pipeline.test_annotations import xml

MODE = "--mode=evaluate_guesses"


@pytest.fixture
def root(tmp_path):
    """Four validation images of 200 x 100 pixels as they were shown, three with boxes."""
    root = write_images(
        tmp_path / "own", {"train/ant": 1, "train/bee": 1, "val/ant": 2, "val/bee": 2}
    )
    drawn = {
        "ant/0": xml(("ant", 0, 0, 9, 4), ("bee", 100, 50, 150, 80)),
        "ant/1": xml(("ant", 20, 10, 61, 60), ("ant", 100, 0, 137, 70)),
        "bee/0": xml(("bee", 0, 0, 200, 100)),
    }
    for number, (stem, content) in enumerate(drawn.items()):
        for place in (root / "val", root / "Annotations" / "val"):
            (place / stem).parent.mkdir(parents=True, exist_ok=True)
        named = f"{stem.split('/')[0]}/{number}x"
        next(root.glob(f"val/{stem}.*")).rename(root / "val" / f"{named}.jpg")
        (root / "Annotations" / "val" / f"{named}.xml").write_text(content)
    return root


def evaluated(call, root, tmp_path, content, *arguments):
    (tmp_path / "guesses.csv").write_text("ImageId,PredictionString\n" + content)
    code, out, err = call(
        MODE,
        "--config.data.name=folder",
        f"--config.data.dir={root}",
        f"--config.data.cache_dir={tmp_path / 'cache'}",
        f"--guesses={tmp_path / 'guesses.csv'}",
        *arguments,
    )
    return code, json.loads(out.splitlines()[-1]) if code == 0 else out, err


def test_a_submission_against_annotations(call, root, tmp_path):
    """One image exactly at half, one by its second box, one with a bad box, one without boxes."""
    said = "0x,1 0 0 9 9\n1x,2 100 0 137 70 ant 100 0 137 70\n2x,bee 0 0 20 20\n"
    code, report, err = evaluated(call, root, tmp_path, said)
    assert code == 0 and report["examples"] == 4 and report["localized_examples"] == 3
    assert report["localization_errors"] == pytest.approx([2 / 3, *[1 / 3] * 4])
    assert report["classification_errors"] == pytest.approx([0.5, *[0.25] * 4])
    assert "1 of 4 images have no line" in err and "no box of their class" in err
    excluded = tmp_path / "blacklist.txt"
    excluded.write_text("3\n")  # of 0x, 1, 1x, 2x: by the order of their names
    _, report, err = evaluated(
        call, root, tmp_path, said, f"--config.evaluation.excluded={excluded}"
    )
    assert report["localized_examples"] == 2 and "leaves out 1 images" in err
    assert report["top1_localization_error"] == 0.5 and report["top1_error"] == 0.5


TINY = [
    "--config=configs/localization.py:digits",
    "--config.model.kernels=(4, 8, 8, 8, 8)",
    "--config.model.hidden=(16, 16)",
    "--config.batch_size=8",
    "--config.total_steps=3",
    "--config.data.train_examples=64",
    "--config.mesh.data=1",
]


@pytest.mark.slow
def test_a_regressor_is_trained_and_evaluated(call, tmp_path, monkeypatch):
    """The error of a run is that of the boxes it writes, as the kit counts it."""
    monkeypatch.setattr(
        digit_canvases, "COUNTS", {"train": 64, "validation": 16, "test": 24}, raising=True
    )
    places = [f"--config.data.cache_dir={tmp_path / 'cache'}", f"--workdir={tmp_path / 'run'}"]
    code, _, err = call(*TINY, *places)
    assert code == 0, err
    written = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in written]
    found = [line["localization_error"] for line in lines if line["split"] == "validation"]
    assert 0 <= found[-1] <= 1 and "top1_error" not in lines[-1]
    code, out, err = call(*TINY, *places, "--mode=evaluate")
    assert code == 0, err
    report = json.loads(out.splitlines()[-1])
    assert report["protocol"] == "center_crop_true_class" and report["localized_examples"] == 24
    assert 0 < report["mean_box_error"] <= 1
    guesses = f"--guesses={report['guesses']}"
    code, out, err = call(MODE, "--config.data.name=digit_canvases", places[0], guesses)
    assert code == 0, err
    official = json.loads(out.splitlines()[-1])
    assert official["top1_error"] == 0
    # Guesses are clipped to the image, and rounded.
    assert abs(official["top1_localization_error"] - report["localization_error"]) <= 2 / 24
    excluded = tmp_path / "blacklist.txt"
    excluded.write_text("1\n2\n24\n")
    leave_out = f"--config.evaluation.excluded={excluded}"
    code, out, err = call(*TINY, *places, "--mode=evaluate", leave_out)
    assert code == 0 and "leaves out 3 images" in err, err
    fewer = json.loads(out.splitlines()[-1])
    assert fewer["examples"] == 24 and fewer["localized_examples"] == 21
    # The guesses are those of all images: the kit's count of them agrees.
    name = "--config.data.name=digit_canvases"
    code, out, err = call(MODE, name, places[0], f"--guesses={fewer['guesses']}", leave_out)
    assert code == 0, err
    official = json.loads(out.splitlines()[-1])
    assert official["localized_examples"] == 21
    assert abs(official["top1_localization_error"] - fewer["localization_error"]) <= 2 / 21
    assert fewer["overlap"] != report["overlap"]
    code, _, err = call(*TINY, *places, "--mode=evaluate", "--config.evaluation.protocol=dense")
    assert code == 2 and "this network gives boxes (loss.boxes=pcr)" in err
    code, _, err = call("--mode=predict", f"--run={tmp_path / 'run'}", f"--images={__file__}")
    assert code == 2 and "regresses boxes (loss.boxes=pcr) and knows no classes" in err
    code, _, err = call(*TINY, *places, "--mode=export")
    assert code == 2 and "regresses boxes" in err


def test_a_classifier_gives_no_boxes(call, tmp_path):
    code, _, err = call(
        "--config=configs/alexnet.py:digits",
        "--config.evaluation.validation_protocol=center_crop_true_class",
        f"--workdir={tmp_path / 'run'}",
    )
    assert code == 2 and "it is for networks that regress boxes" in err
    code, _, err = call(*TINY, "--config.data.boxes.count=0", f"--workdir={tmp_path / 'run'}")
    assert code == 2 and "loss.boxes=pcr needs the boxes of each example" in err


@pytest.mark.slow
def test_a_small_regressor_beats_the_mean_box(call, tmp_path, monkeypatch):
    """Half a minute of training at half the canvases' size, with either kind of last layer."""
    counts = {"train": 100_000, "validation": 16, "test": 300}
    monkeypatch.setattr(digit_canvases, "COUNTS", counts)
    for boxes in ("pcr", "scr"):
        arguments = (
            "--config=configs/localization.py:digits",
            f"--config.loss.boxes={boxes}",
            "--config.data.resize=112",
            "--config.data.crop=112",
            "--config.total_steps=160",
            "--config.optimizer.drop_steps=(140,)",
            "--config.mesh.data=1",
            f"--config.data.cache_dir={tmp_path / 'cache'}",
            f"--workdir={tmp_path / boxes}",
        )
        code, _, err = call(*arguments)
        assert code == 0, err
        code, out, err = call(*arguments, "--mode=evaluate")
        assert code == 0, err
        report = json.loads(out.splitlines()[-1])
        assert report["localization_error"] < report["mean_box_error"] / 2
        assert report["overlap"] > 0.5


def test_boxes_are_missed_before_anything_is_computed(call, root, tmp_path):
    """Of a split, of a class's images, and of a last layer that gives classes."""
    for split in ("train", "val"):
        (root / "Annotations" / split).mkdir(exist_ok=True)
    arguments = (
        "--config=configs/localization.py:alexnet",
        "--config.data.name=folder",
        f"--config.data.dir={root}",
        f"--config.data.cache_dir={tmp_path / 'cache'}",
        f"--workdir={tmp_path / 'run'}",
    )
    drawn = root / "Annotations" / "train" / "ant" / "0.xml"
    drawn.parent.mkdir()
    drawn.write_text(xml(("wasp", 0, 0, 9, 9)))
    code, _, err = call(*arguments)
    assert code == 2 and "none of the 2 images of train" in err
    assert "such as ant" in err and "wasp in" in err
    drawn.write_text(xml(("ant", 0, 0, 9, 9)))
    for path in (root / "Annotations" / "val").rglob("*.xml"):
        path.unlink()
    code, _, err = call(*arguments)
    assert code == 2 and "none of the 4 images of validation" in err
    (root / "Annotations").rename(root / "elsewhere")
    code, _, err = call(*arguments)
    assert code == 2 and "data.boxes.count=32, train: there are no annotations of" in err
    assert str(root / "train" / "ant" / "0.jpg") in err


def test_what_is_wrong_is_named(call, root, tmp_path):
    code, _, err = evaluated(call, root, tmp_path, "0x,1 0 0 9\n")
    assert code == 2 and "guesses.csv, line 2: 4 numbers; a guess has 5" in err
    code, _, err = evaluated(call, root, tmp_path, "", "--config.evaluation.split=train")
    assert (
        code == 2
        and "no annotations of" in err
        and "looked for Annotations/CLS-LOC/<split>/" in err
    )
    code, _, err = call(MODE, f"--config.data.dir={root}")
    assert code == 2 and "--mode=evaluate_guesses needs --guesses=FILE" in err
