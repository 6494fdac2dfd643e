"""Variants of configs/localization.py, tiny, from a classifier: what is learned, what stays."""

import json

import jax
import numpy as np
import pytest

from evaluation.localization import regression
from input_pipeline.datasets import digit_canvases
from tests.conftest import write_images
from tests.input_pipeline.test_annotations import xml
from training.trained import Trained

SYNSETS = ("n01440764", "n02123597", "n15075141")
SMALL = ("--config.data.resize=36", "--config.data.crop=32")
# Of each variant: the classifier's config, options that make it small, its fully connected layers,
# and what leaves only them to be trained.
VARIANTS = {
    "vgg_d": (
        "vgg.py:d",
        (*SMALL, "--config.model.hidden=(16,16)"),
        ("fc6", "fc7", "fc8"),
        "--config.optimizer.frozen=conv",
    ),
    "alexnet": (
        "alexnet.py",
        (
            "--config.data.resize=68",
            "--config.data.crop=64",
            "--config.model.kernels=(8,8,8,8,8)",
            "--config.model.hidden=(16,16)",
        ),
        ("fc6", "fc7", "fc8"),
        "--config.optimizer.frozen=conv",
    ),
    "resnet50": (
        "resnet.py:50",
        (*SMALL, "--config.batch_norm.recompute_examples=16"),
        ("fc",),
        "--config.optimizer.train_last=1",
    ),
    "digits": (
        "localization.py:digits",
        (
            "--config.data.resize=68",
            "--config.data.crop=68",
            "--config.model.kernels=(8,8,8,8,8)",
            "--config.model.hidden=(16,16)",
        ),
        ("fc6", "fc7", "fc8"),
        "--config.optimizer.frozen=conv",
    ),
}
OF_CLASSES = (
    "--config.loss.boxes=none",
    "--config.data.boxes.count=0",
    "--config.evaluation.protocol=center_crop",
    "--config.evaluation.validation_protocol=center_crop",
)


@pytest.fixture
def ilsvrc(tmp_path):
    """Kaggle's tree of three synsets, whose images of 90 x 60 pixels have a box each."""
    root = tmp_path / "ILSVRC"
    images = root / "Data" / "CLS-LOC"
    counts = {f"{split}/{name}": n for split, n in (("train", 6), ("val", 3)) for name in SYNSETS}
    write_images(images, counts, size=(90, 60))
    for number, path in enumerate(sorted(images.rglob("*.jpg"))):
        split, wnid = path.relative_to(images).parts[:2]
        stem = f"{wnid}_{number}" if split == "train" else f"ILSVRC2012_val_{number:08d}"
        path.rename(path.with_name(f"{stem}.JPEG"))
        place = root / "Annotations" / "CLS-LOC" / split / (wnid if split == "train" else "")
        place.mkdir(parents=True, exist_ok=True)
        drawn = xml((wnid, number % 7, number % 5, 50 + number, 55), size=(90, 60))
        (place / f"{stem}.xml").write_text(drawn)
    return images


def leaves(tree):
    return {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_regressor_learns_from_a_classifier(variant, call, ilsvrc, tmp_path, monkeypatch):
    monkeypatch.setattr(digit_canvases, "COUNTS", {"train": 64, "validation": 9, "test": 9})
    classifier, small, connected, only = VARIANTS[variant]
    common = [
        f"--config.data.cache_dir={tmp_path / 'cache'}",
        *([] if variant == "digits" else [f"--config.data.dir={ilsvrc}"]),
        *small,
        "--config.batch_size=6",
        "--config.total_steps=2",
        "--config.optimizer.learning_rate=1e-4",
        "--config.mesh.data=1",
    ]
    begun = tmp_path / "classifier"
    code, _, err = call(
        f"--config=configs/{classifier}",
        *common,
        *(OF_CLASSES if variant == "digits" else ()),
        f"--workdir={begun}",
    )
    assert code == 0, err
    start = Trained.open(begun)
    for boxes in ("pcr", "scr"):
        for chosen in ((), (only,)):
            run = tmp_path / f"{boxes}-{len(chosen)}"
            arguments = [
                f"--config=configs/localization.py:{variant}",
                *common,
                *chosen,
                f"--config.loss.boxes={boxes}",
                f"--config.init_from={begun}",
                "--config.init_head=new",
                f"--workdir={run}",
            ]
            code, out, err = call(*arguments)
            assert code == 0 and f"{connected[-1]} start fresh" in out, err
            code, out, err = call(*arguments, "--mode=evaluate")
            assert code == 0, err
            report = json.loads(out.splitlines()[-1])
            assert report["localized_examples"] == 9 and 0 <= report["localization_error"] <= 1
            found = Trained.open(run)
            head = found.params[connected[-1]]
            assert head["bias"].shape == (regression.outputs(boxes, len(found.class_names)),)
            assert 0 < np.abs(head["bias"] - 0.5).max() < 0.1
            for kind in ("params", "statistics"):
                before, after = (leaves(getattr(x, kind)) for x in (start, found))
                same = {
                    path: np.array_equal(value, after[path])
                    for path, value in before.items()
                    if not path.startswith(f"['{connected[-1]}']")
                }
                learned = {path for path, equal in same.items() if not equal}
                if chosen:
                    expected = set(connected[:-1]) if kind == "params" else set()
                    assert {path.split("'")[1] for path in learned} == expected
                elif same:
                    assert len(learned) > len(same) / 2
