"""What an evaluation of boxes keeps where files, names or annotations are in its way."""

import json

import numpy as np
import pytest

from tests.conftest import write_images
from tests.input_pipeline.test_annotations import xml
from tests.runs import drawn_run

TINY = [
    "--config.data.name=folder",
    "--config.model.kernels=(4, 8, 8, 8, 8)",
    "--config.model.hidden=(16, 16)",
    "--config.data.resize=112",
    "--config.data.crop=112",
    "--config.mesh.data=1",
    "--config.mesh.tower=1",
]
CENTER, DENSE = "center_crop_true_class", "dense_boxes_true_class"


@pytest.fixture
def evaluated(call, tmp_path):
    """A function that evaluates a regressor with random weights.

    `Annotations/` is of all splits. Both validation images are called 0; those of test are called
    as no annotation is.
    """
    splits = {f"{split}/{name}": 1 for split in ("train", "val", "test") for name in ("ant", "bee")}
    root = write_images(tmp_path / "own", splits, size=(64, 48))
    for name, number in (("ant", 0), ("bee", 0), ("bee", 1)):
        path = root / "Annotations" / name / f"{number}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(xml((name, 10, 10, 50, 40), size=(64, 48)))
    for place, number in (("train/bee", 1), ("test/ant", 7), ("test/bee", 8)):
        (root / place / "0.jpg").rename(root / place / f"{number}.jpg")
    data = [f"--config.data.dir={root}", f"--config.data.cache_dir={tmp_path / 'cache'}"]
    run = drawn_run(tmp_path / "run", "--config=configs/localization.py:alexnet", *TINY, *data)

    def evaluate(protocol, split, *arguments):
        code, out, err = call(
            "--mode=evaluate", f"--run={run}", *data, f"--config.evaluation.split={split}",
            f"--config.evaluation.protocol={protocol}", *arguments,
        )  # fmt: skip
        return code, json.loads(out.splitlines()[-1]) if code == 0 else out, err

    return run, evaluate


KEEP = "--config.evaluation.save_scores=True"


@pytest.mark.parametrize("protocol", [CENTER, DENSE])
def test_images_of_one_name_have_errors_and_no_submission(evaluated, protocol):
    run, evaluate = evaluated
    code, report, err = evaluate(protocol, "validation", *[KEEP] * (protocol == DENSE))
    assert code == 0, err
    assert "note: no file of guesses is written: 2 images are called 0" in err
    assert report["guesses"] is None and report["localized_examples"] == 2
    assert 0 <= report["localization_error"] <= 1
    assert json.loads((run / "evaluation.json").read_text()) == report
    assert not (run / "guesses").exists()
    assert (run / "boxes" / f"validation-{DENSE}.npz").exists() == (protocol == DENSE)


def test_a_split_without_boxes_has_its_files_alone(evaluated, tmp_path):
    run, evaluate = evaluated
    code, report, err = evaluate(DENSE, "test", KEEP)
    assert code == 0, err
    assert "none of the 2 images of test" in err and "there are no errors" in err
    assert "localization_error" not in report and report["examples"] == 2
    lines = (run / "guesses" / f"test-{DENSE}.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["ImageId", "7", "8"]
    with np.load(run / "boxes" / f"test-{DENSE}.npz") as kept:
        assert "true_label" not in kept
    excluded = tmp_path / "list.txt"
    excluded.write_text("1\n2\n")
    for protocol in (DENSE, CENTER):
        code, _, err = evaluate(protocol, "train", f"--config.evaluation.excluded={excluded}")
        assert code == 2 and "none of the 2 images has a box of its class that counts" in err


@pytest.mark.parametrize(
    "protocol, blocked", [(CENTER, "guesses"), (DENSE, "guesses"), (DENSE, "boxes")]
)
def test_a_result_that_cannot_be_written_is_said(evaluated, protocol, blocked):
    """And of the files those are there that can be."""
    run, evaluate = evaluated
    (run / blocked).write_text("no directory")
    code, _, err = evaluate(protocol, "train", *[KEEP] * (protocol == DENSE))
    last = err.splitlines()[-1]
    assert code == 1 and f"--workdir={run}: cannot be written" in last
    report = json.loads(last.partition("the result is ")[2])
    assert report["localized_examples"] == 2 and 0 <= report["localization_error"] <= 1
    assert not (run / "evaluation.json").exists()
    assert (run / "guesses").is_dir() == (blocked != "guesses")
    assert (run / "boxes").is_dir() == (protocol == DENSE and blocked != "boxes")
