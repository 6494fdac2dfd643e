"""What runs open, and the classes they keep: on the command line, with trees of folders."""

import json
import os
import shutil

import pytest

import main
from input_pipeline import names
from tests.conftest import write_images
from tests.runs import assert_same_run, finish, lines, restored, start

# The two-tower network with few kernels: mean image and colour noise, as in the paper.
TINY = [
    "--config=configs/alexnet.py:digits",
    "--config.model.kernels=(8, 16, 16, 16, 16)",
    "--config.model.hidden=(32, 32)",
    "--config.batch_size=4",
    "--config.mesh.data=1",
    "--config.data.name=folder",
    "--config.log_every_steps=2",
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Twelve classes named by numbers."""
    root = tmp_path_factory.mktemp("data")
    return write_images(
        root / "tree", {f"{split}/{n}": 2 for split in ("train", "val") for n in range(12)}
    )


@pytest.mark.slow
def test_an_older_run_keeps_the_order_of_its_classes(call, tree, tmp_path, monkeypatch):
    """Before, numbers were sorted as text: continued, the same bits as if nothing had changed."""

    def as_text(named, where):
        return tuple(sorted(named)), []

    arguments = [*TINY, f"--config.data.dir={tree}", f"--config.data.cache_dir={tmp_path / 'c'}"]
    older, whole = (f"--workdir={tmp_path / name}" for name in ("older", "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(names, "class_order", as_text)
        assert call(*arguments, older, "--config.total_steps=2")[0] == 0
        assert call(*arguments, whole, "--config.total_steps=4")[0] == 0
    code, _, err = call(*arguments, older, "--config.total_steps=4")
    assert code == 0, err
    assert "labels follow the class names that the network was trained with (0, 1, 10 and" in err
    (step, ours), (_, expected) = restored(tmp_path / "older"), restored(tmp_path / "whole")
    assert step == 4
    for name in expected:
        assert (ours[name] == expected[name]).all(), name
    assert lines(tmp_path / "older")[-1]["loss"] == lines(tmp_path / "whole")[-1]["loss"]

    # Weights from it are for its order, too; a new head has none.
    from_it = [f"--config.init_from={tmp_path / 'older'}", f"--workdir={tmp_path / 'new'}"]
    code, out, err = call(*arguments, *from_it, "--mode=evaluate")
    assert code == 0 and "(0, 1, 10 and" in err
    error = json.loads(out.splitlines()[-1])["loss"]
    code, out, _ = call(*arguments, older, "--mode=evaluate")
    assert json.loads(out.splitlines()[-1])["loss"] == error
    code, _, err = call(*arguments, *from_it, "--config.init_head=new", "--config.total_steps=1")
    assert code == 0 and "labels are these numbers" in err


@pytest.mark.slow
def test_a_run_on_a_balanced_fold_goes_on_in_the_same_bits(call, tmp_path):
    """Of three of four classes. What it was trained on is fields of the run: others are refused."""
    root = write_images(tmp_path / "own", {"ant": 14, "owl": 5, "bee": 3, "cat": 9})
    arguments = [
        *TINY, f"--config.data.dir={root}", "--config.data.folds=3", "--config.data.fold=1",
        "--config.data.sampling=balanced", "--config.loss.class_weights=balanced",
        "--config.data.train_examples=12", "--config.evaluate_every_steps=2",
        "--config.data.classes=0,3,1",
    ]  # fmt: skip
    broken, whole = (f"--workdir={tmp_path / name}" for name in ("broken", "whole"))
    for steps, workdir in ((2, broken), (5, broken), (5, whole)):
        code, _, err = call(*arguments, workdir, f"--config.total_steps={steps}")
        assert code == 0, err
    assert_same_run(tmp_path / "broken", tmp_path / "whole")
    for other, said in [
        ("data.sampling=uniform", "data.sampling (was balanced, now uniform)"),
        ("loss.class_weights=none", "loss.class_weights (was balanced, now none)"),
        ("data.fold=2", "data.fold (was 1, now 2)"),
        ("data.classes=0,1,3", "data.classes (was"),
        ("data.train_examples=11", "data.train_examples (was 12, now 11)"),
    ]:
        code, _, err = call(*arguments, broken, f"--config.{other}")
        assert code == 2 and said in err
    code, out, err = call(*arguments, whole, "--mode=evaluate")
    assert code == 0 and json.loads(out.splitlines()[-1])["examples"] == 7, err


@pytest.fixture(scope="module")
def trained(tree, tmp_path_factory):
    """A run, and its weights as a file."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    arguments = [*TINY, f"--config.data.dir={tree}", f"--workdir={workdir}"]
    assert main.main(["main.py", *arguments, "--config.total_steps=2"]) == 0
    assert main.main(["main.py", *arguments, "--mode=export"]) == 0
    return workdir


@pytest.fixture
def some(tree, tmp_path):
    """Validation images of three of the classes, and nothing else."""
    for number in (3, 10, 2):
        shutil.copytree(tree / "val" / str(number), tmp_path / "some" / "Valid" / str(number))
    return tmp_path / "some"


def test_a_run_is_evaluated_without_its_training_set(call, trained, tree, some):
    evaluate = [*TINY, f"--workdir={trained}", "--mode=evaluate"]
    code, out, err = call(*evaluate, f"--config.data.dir={some}")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["examples"] == 6
    # The labels are those of the twelve classes: the mean over all is that over parts.
    losses = {}
    for number in range(12):
        part = some.parent / "parts" / str(number)
        shutil.copytree(tree / "val" / str(number), part / "val" / str(number))
        if number in (2, 3, 10):
            code, out, err = call(*evaluate, f"--config.data.dir={part}")
            losses[number] = json.loads(out.splitlines()[-1])["loss"]
    code, out, _ = call(*evaluate, f"--config.data.dir={some}")
    mean = sum(losses.values()) / 3
    assert json.loads(out.splitlines()[-1])["loss"] == pytest.approx(mean, rel=1e-5)


def test_weights_are_evaluated_without_a_training_set(call, trained, some, tmp_path):
    """Neither its mean nor its colours are asked for: the weights bring their mean."""
    cache = tmp_path / "cache"
    arguments = [
        *TINY, f"--config.data.dir={some}", f"--config.data.cache_dir={cache}",
        f"--config.init_from={trained}", f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    code, out, err = call(*arguments, "--mode=evaluate")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["examples"] == 6
    assert "mean image" not in err and not list(cache.glob("statistics-*"))

    code, _, err = call(*arguments, "--mode=evaluate", "--config.init_preprocessing=config")
    assert code == 2
    assert "data.mean=image is computed from the training set" in err
    assert "has no folder train/, training/" in err and "--config.init_preprocessing" in err
    assert len(err.split("error: ")[1].strip().splitlines()) <= 2

    code, _, err = call(*arguments, "--config.total_steps=1")
    assert code == 2
    assert "folder has no split 'train'" in err and "has no folder train/, training/" in err


def test_the_mean_is_that_of_the_training_set_where_nothing_else_gives_one(
    call, trained, tree, tmp_path
):
    """Without the colours, which are the same pass: as with the training set at hand."""
    code, out, err = call(
        *TINY, f"--config.data.dir={tree}", f"--config.init_from={trained}", "--mode=evaluate",
        "--config.init_preprocessing=config", f"--workdir={tmp_path / 'run'}",
    )  # fmt: skip
    assert code == 0, err
    code, run, _ = call(
        *TINY, f"--config.data.dir={tree}", f"--workdir={trained}", "--mode=evaluate"
    )
    assert json.loads(out.splitlines()[-1])["loss"] == json.loads(run.splitlines()[-1])["loss"]


def test_imagenet_needs_validation_images_to_train(call, tmp_path):
    root = write_images(tmp_path / "d", {"train/n01440764": 2, "train/n02123597": 2})
    code, _, err = call(
        "--config=configs/alexnet.py", f"--config.data.dir={root}", f"--workdir={tmp_path / 'run'}"
    )
    assert code == 2
    assert "imagenet2012 has no split 'validation'" in err
    assert "--config.data.validation_examples=50000" in err


@pytest.mark.slow
@pytest.mark.parametrize("locale", [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONUTF8": "1"}])
def test_names_that_are_not_utf8_in_any_locale(tmp_path, locale):
    """Classes, images, the data's and the output's directory."""
    odd = os.fsdecode(b"caf\xe9")
    root = write_images(tmp_path / "d", {"train/a": 3, "train/b": 3, "val/b": 2})
    for split in ("train", "val"):
        (root / split / "b").rename(root / split / odd)
    (root / "train" / "a" / f"{odd}.jpg").write_bytes(b"no image")
    root = root.rename(tmp_path / odd)
    out = tmp_path / f"out\N{LATIN SMALL LETTER E WITH ACUTE}{odd}"
    process = start(
        *TINY, f"--config.data.dir={root}", "--mode=prepare_data",
        f"--config.data.prepared_dir={out}", f"--config.data.cache_dir={tmp_path / 'cache'}",
        PYTHONCOERCECLOCALE="0", **locale,
    )  # fmt: skip
    said, err = finish(process)
    assert "train 6, validation 2 images" in said and r"caf\xe9" in said
    assert "Traceback" not in err
    report = (out / "report.jsonl").read_bytes().decode("utf-8")
    assert json.loads(report)["image"] == rf"{tmp_path}/caf\xe9/train/a/caf\xe9.jpg"
    assert json.loads((out / "prepared.json").read_bytes())["class_names"] == ["a", r"caf\xe9"]
