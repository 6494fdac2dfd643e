"""Real photographs in Kaggle's layout with boxes drawn by hand: trained, evaluated, shown."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.input_pipeline.test_annotations import xml

# Photograph -> its width and height, and boxes (xmin, ymin, xmax, ymax), drawn by eye.
DRAWN = {
    "n01774750_19": ((500, 374), [(93, 30, 431, 370)]),
    "n01843383_24": ((500, 375), [(128, 104, 499, 352)]),
    "n02017213_34": ((500, 375), [(72, 17, 499, 350)]),
    "n02111277_64": ((500, 400), [(20, 14, 474, 399)]),
    "n02134084_74": ((375, 500), [(0, 177, 257, 314)]),
    "n02256656_79": ((464, 500), [(22, 27, 367, 275)]),
    "n02361337_84": ((500, 375), [(156, 124, 300, 220)]),
    "n02814533_109": ((500, 333), [(12, 64, 491, 275)]),
    "n03447447_144": ((500, 375), [(50, 118, 378, 374), (119, 90, 499, 305)]),
    "n03770679_164": ((640, 480), [(46, 87, 613, 415)]),
}


@pytest.fixture
def kaggle(shared_data, tmp_path):
    """Kaggle's tree with links to ten photographs, which are both its splits, and their XML."""
    root = tmp_path / "kaggle"
    data, notes = (root / "ILSVRC" / name / "CLS-LOC" for name in ("Data", "Annotations"))
    solution = ["ImageId,PredictionString"]
    for number, (stem, (size, boxes)) in enumerate(
        DRAWN.items(), 101
    ):  # not images whose classes are known
        synset = stem.partition("_")[0]
        source = shared_data(f"imagenet_sample/val/{synset}/{stem}.JPEG")
        with Image.open(source) as image:
            assert image.size == size, "boxes are of another photograph"
        name = f"ILSVRC2012_val_{number:08d}"
        content = xml(*((synset, *box) for box in boxes), size=size)
        for place in (f"train/{synset}/{stem}", f"val/{name}"):
            for file in (data / f"{place}.JPEG", notes / f"{place}.xml"):
                file.parent.mkdir(parents=True, exist_ok=True)
            (data / f"{place}.JPEG").symlink_to(source)
            (notes / f"{place}.xml").write_text(content)
        said = " ".join(f"{synset} {' '.join(map(str, box))}" for box in boxes)
        solution.append(f"{name},{said}")
    (root / "LOC_val_solution.csv").write_text("\n".join(solution) + "\n")
    return root


SMALL = [
    "--config=configs/localization.py:alexnet",
    "--config.model.kernels=(8, 8, 8, 8, 8)",
    "--config.model.hidden=(16, 16)",
    "--config.loss.boxes=scr",
    "--config.batch_size=5",
    "--config.total_steps=4",
    "--config.evaluate_every_steps=4",
    "--config.checkpoint_every_steps=4",
    "--config.data.resize=160",
    "--config.data.crop=128",
    "--config.mesh.data=1",
    "--config.mesh.tower=1",
]


@pytest.mark.slow
def test_from_photographs_to_a_picture_of_boxes(call, kaggle, tmp_path, capsys):
    from visualization import boxes, command_line

    places = [f"--config.data.dir={kaggle}", f"--config.data.cache_dir={tmp_path / 'cache'}"]
    run = tmp_path / "run"
    code, _, err = call(*SMALL, *places, f"--workdir={run}")
    assert code == 0, err
    reports = {}
    for protocol in ("center_crop_true_class", "dense_boxes_true_class"):
        code, out, err = call(
            "--mode=evaluate", f"--run={run}", *places, f"--config.evaluation.protocol={protocol}"
        )
        assert code == 0, err
        reports[protocol] = json.loads(out.splitlines()[-1])
        assert reports[protocol]["localized_examples"] == 10
    found = reports["dense_boxes_true_class"]
    code, out, err = call(
        "--mode=evaluate_guesses", "--config.data.name=imagenet2012", *places,
        f"--guesses={found['guesses']}",
    )  # fmt: skip
    assert code == 0, err
    official = json.loads(out.splitlines()[-1])
    assert official["top1_error"] == 0
    assert official["top1_localization_error"] == found["localization_error"]

    # What is true, as a submission: no error; its second gondola is right as well.
    solution = kaggle / "LOC_val_solution.csv"
    code, out, err = call(
        "--mode=evaluate_guesses", "--config.data.name=imagenet2012", *places,
        f"--guesses={solution}",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["localization_errors"] == [0] * 5

    def look(*arguments):
        code = command_line.run(
            list(map(str, arguments)), boxes.__doc__, boxes.add_flags, boxes.draw, boxes.opener,
            boxes.SHARED,
        )  # fmt: skip
        return code, capsys.readouterr()

    stray = run / "guesses" / f"._{Path(found['guesses']).name}"  # the newest
    stray.write_bytes(b"\0\5\26\7")
    code, printed = look(run)
    assert code == 0, printed.err
    picture, page = printed.out.splitlines()
    assert picture == str(run / "pictures" / "boxes.png")
    with Image.open(picture) as image:
        assert np.ptp(np.asarray(image.convert("L"))) > 200
    assert "toucan" in Path(page).read_text()
    data = ["--data_name=imagenet2012", f"--data_dir={kaggle}", f"--out={tmp_path / 'out'}"]
    code, printed = look(solution, *data)
    assert (
        code == 0
        and "10 of 10 images of validation have a right guess"
        in (tmp_path / "out" / "boxes.html").read_text()
    ), printed.err
    # A box that is half as wide and one pixel less; a right box of another class; a right one.
    guesses = tmp_path / "guesses.csv"
    guesses.write_text(
        "ImageId,PredictionString\nILSVRC2012_val_00000102,n01843383 128 104 312 352 "
        "n01774750 128 104 499 352 n01843383 100 104 499 370\n"
        "ILSVRC2012_val_00000103,n01843383 72 17 499 350\n"
    )
    code, printed = look(guesses, *data, "--guesses=2")
    assert code == 0, printed.err
    text = (tmp_path / "out" / "boxes.html").read_text()
    for line in ("1  box misses: toucan, IoU 0.49", "2  other class: tarantula, IoU 1.00"):
        assert f"<p>{line}</p>" in text
    assert "<h3>toucan: right</h3>" in text and "3  right" not in text
    assert text.count("no guess</h3>") == 8 and "8 of 10 images have no line" in text
    code, printed = look(solution, *data, "--misses")
    assert code == 2 and "--misses: there are none" in printed.err
