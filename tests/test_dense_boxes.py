"""Boxes of many windows, merged, from the command line."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from evaluation import merge
from input_pipeline.datasets import digit_canvases

TINY = [
    "--config=configs/localization.py:digits",
    "--config.model.kernels=(4, 8, 8, 8, 8)",
    "--config.model.hidden=(16, 16)",
    "--config.batch_size=8",
    "--config.total_steps=3",
    "--config.data.resize=112",
    "--config.data.crop=112",
    "--config.data.train_examples=64",
    "--config.mesh.data=1",
]
CLASSES = [
    "--config.loss.boxes=none",
    "--config.data.boxes.count=0",
    "--config.evaluation.validation_protocol=center_crop",
]


@pytest.fixture
def runs(call, tmp_path, monkeypatch):
    """A regressor and a classifier, trained for three steps, and flags for both."""
    counts = {"train": 64, "validation": 16, "test": 24}
    monkeypatch.setattr(digit_canvases, "COUNTS", counts)
    cache = f"--config.data.cache_dir={tmp_path / 'cache'}"
    found = {}
    for name, more in (("boxes", []), ("classes", CLASSES)):
        found[name] = str(tmp_path / name)
        code, _, err = call(*TINY, *more, cache, f"--workdir={found[name]}")
        assert code == 0, err
    return found, cache


@pytest.mark.slow
def test_boxes_are_merged_and_written(call, runs, tmp_path, capsys):
    found, cache = runs
    both = ["--mode=evaluate", f"--run={found['boxes']}", cache]
    scales = "--config.evaluation.scales=(128, 176)"
    classifier = f"--config.evaluation.classifier={found['classes']}"
    keep = "--config.evaluation.save_scores=True"

    code, out, err = call(
        *both, "--config.evaluation.protocol=dense_boxes", scales, classifier, keep
    )
    assert code == 0, err
    report = json.loads(out.splitlines()[-1])
    assert report["protocol"] == "dense_boxes-128-176" and report["examples"] == 24
    assert report["classifier"] == found["classes"] and report["localized_examples"] == 24
    assert report["top1_localization_error"] >= report["top5_localization_error"]
    written = (tmp_path / "boxes" / "evaluations.jsonl").read_text().splitlines()
    assert json.loads(written[-1]) == report

    # Both files give the errors that were reported.
    for suffix in (".csv", ".txt"):
        path = report["guesses"].removesuffix(".csv") + suffix
        code, out, err = call(
            "--mode=evaluate_guesses", "--config.data.name=digit_canvases", cache,
            f"--guesses={path}",
        )  # fmt: skip
        assert code == 0, err
        official = json.loads(out.splitlines()[-1])
        for name in ("localization_errors", "classification_errors"):
            assert official[name] == report[name]
    with open(report["guesses"], newline="") as file:
        rows = list(csv.DictReader(file))
    assert {len(row["PredictionString"].split()) for row in rows} == {25}

    # Without the network, from what was kept; and with other constants.
    kept = str(tmp_path / "boxes" / "boxes" / "test-dense_boxes-128-176.npz")
    merge.run([kept])
    again = json.loads(capsys.readouterr().out)
    assert again["localization_errors"] == report["localization_errors"]
    merge.run([kept, "--threshold=9", f"--out={tmp_path / 'together'}"])
    capsys.readouterr()
    path = report["guesses"]
    assert (tmp_path / "together.csv").read_text() != Path(path).read_text()

    code, out, err = call(*both, "--config.evaluation.protocol=dense_boxes_true_class", scales)
    assert code == 0, err
    report = json.loads(out.splitlines()[-1])
    assert report["top1_error"] == 0 and report["localization_error"] <= 1
    code, _, err = call(*both, "--config.evaluation.protocol=dense_boxes")
    assert code == 2 and "name a run, a file or a trained network with" in err
    code, _, err = call(
        *both, "--config.evaluation.protocol=dense_boxes",
        f"--config.evaluation.classifier={found['boxes']}",
    )  # fmt: skip
    assert code == 2 and "it regresses boxes (loss.boxes=pcr) and knows no classes" in err


@pytest.mark.slow
def test_one_window_is_the_central_crop(call, runs):
    """At the scale of the crop there is one window, which is the whole canvas."""
    found, cache = runs
    both = ["--mode=evaluate", f"--run={found['boxes']}", cache]
    errors = []
    for name in ("dense_boxes_true_class", "center_crop_true_class"):
        code, out, err = call(*both, f"--config.evaluation.protocol={name}")
        assert code == 0, err
        errors.append(json.loads(out.splitlines()[-1]))
    # Boxes are rounded to pixels here, and clipped.
    assert errors[0]["overlap"] == pytest.approx(errors[1]["overlap"], abs=0.03)
    assert abs(errors[0]["localization_error"] - errors[1]["localization_error"]) <= 1.5 / 24


def test_classes_have_no_boxes_to_merge(call, tmp_path):
    image = tmp_path / "zero.png"
    Image.new("L", (28, 28)).save(image)
    code, _, err = call(
        "--mode=predict", "--run=lenet5-mnist", f"--images={image}",
        "--protocol=center_crop_true_class",
        f"--out={tmp_path}",
    )  # fmt: skip
    assert code == 2 and "it is for networks that regress boxes" in err


def test_fields_of_the_merge_are_checked(call, tmp_path):
    place = f"--workdir={tmp_path / 'run'}"
    code, _, err = call(*TINY, place, "--config.evaluation.merge.threshold=-1")
    assert code == 2 and "evaluation.merge.threshold=-1.0: 0 to" in err
    code, _, err = call(*TINY, place, "--mode=evaluate", "--config.evaluation.merge.threshold=2")
    assert code == 2 and "has no effect: only with" in err and "no checkpoint" in err
