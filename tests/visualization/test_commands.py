"""Every command, on a small run whose dataset is embedded."""

import jax
import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_limits

from tests.conftest import write_images
from tests.runs import drawn_run

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    "command, arguments, pictures",
    [
        ("guesses", ["--mistakes"], ["guesses"]),
        ("neighbours", ["--limit=100", "--neighbours=3"], ["neighbours"]),
        ("tsne", ["--limit=40", "--perplexity=5", "--size=200"], ["tsne", "tsne_grid"]),
        ("activations", ["--layer=conv2"], ["activations_conv2"]),
        pytest.param("activations", ["--layer=ip1"], ["activations_ip1"], marks=pytest.mark.slow),
        ("responses", ["--limit=20"], ["responses"]),
        ("occlusion", ["--limit=20", "--stride=12"], ["occlusion"]),
        ("invariance", ["--count=2", "--steps=3"], ["invariance"]),
        pytest.param("gradients", ["--limit=20"], ["gradients"], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_writes_its_pictures(look, run, tmp_path, command, arguments, pictures):
    with threadpool_limits(1):  # threads of OpenMP that wait hinder other processes
        check_pictures(look, run, tmp_path, command, arguments, pictures)


@pytest.mark.parametrize(
    "command, arguments, pictures",
    [
        ("kernels", ["--history", "--each"], ["kernels_history"]),
        ("selectivity", [], ["selectivity"]),
        pytest.param(
            "activations", ["--layer=conv3"], ["activations_conv3"], marks=pytest.mark.slow
        ),
        ("augmentation", [], ["augmentation"]),
    ],
    ids=str,
)
def test_of_two_towers(look, towers, tmp_path, command, arguments, pictures):
    check_pictures(look, towers, tmp_path, command, arguments, pictures)


def test_a_run_with_boxes_is_shown_images_without(look, private_cache, tmp_path):
    from visualization import command_line
    from visualization.opening import open_run_or_file

    root = write_images(tmp_path / "own", {f"{s}/{c}": 3 for s in ("train", "val") for c in "ab"})
    workdir = drawn_run(
        tmp_path / "run",
        "--config=configs/convnet.py:conv_relu_pool_fc",
        *("--config.model.kernels=2", "--config.data.boxes.count=3"),
        *("--config.data.name=folder", f"--config.data.dir={root}"),
        *("--config.data.resize=12", "--config.data.pad=0", "--config.data.crop=12"),
    )
    opened = open_run_or_file(command_line.make_parser("").parse_args([str(workdir)]))
    (batch,) = opened.images(2)
    assert len(batch["image"]) == 2 and "boxes" not in batch
    check_pictures(look, workdir, tmp_path, "augmentation", [], ["augmentation"])


def test_which_layers_are_of_towers(towers):
    """All from the first with parameters to the one before the scores, which are of both."""
    from visualization import command_line
    from visualization.opening import open_run_or_file

    opened = open_run_or_file(command_line.make_parser("").parse_args([str(towers)]))
    found = {layer: opened.towers(layer) for layer in opened.layers}
    assert found.pop("fc8") == 1
    assert {"conv1", "norm1", "pool5", "fc7"} <= set(found) and set(found.values()) == {2}


def check_pictures(look, run, out, command, arguments, pictures):
    code, printed, err = look(command, run, f"--out={out}", *arguments)
    assert code == 0, err
    assert [line for line in printed if line.endswith(".png")] == [
        str(out / f"{name}.png") for name in pictures
    ]
    for name in pictures:
        with Image.open(out / f"{name}.png") as image:
            assert np.ptp(np.asarray(image.convert("L"))) > 50


@pytest.mark.parametrize(
    "command, arguments, message",
    [
        (
            "activations",
            ["--layer=conv9"],
            "--layer=conv9: no such layer; did you mean conv2? there are grey, conv1",
        ),
        ("activations", ["--index=99999"], "images are numbered 0 to"),
        ("activations", ["--image=setup.cfg"], "setup.cfg"),
        ("activations", ["--image=nothing.jpg"], "nothing.jpg"),
        ("neighbours", ["--limit=5"], "--neighbours=6: there are 5 images"),
        ("tsne", ["--limit=10"], "--perplexity=30"),
        ("occlusion", ["--layer=ip1"], "--layer=ip1: makes no maps; there are"),
        ("occlusion", ["--square=9999"], "--square=9999: the network sees"),
        ("occlusion", ["--truth=dragon"], "--truth=dragon: no such class; there are 10"),
        ("occlusion", ["--others=-1"], "--others=-1: at least 0"),
        ("invariance", ["--layers=conv1"], "two names"),
        ("invariance", ["--layers=conv1,conv9"], "did you mean conv"),
        ("guesses", ["--batch_size=0"], "at least 1"),
        ("guesses", ["--split=x"], "no split 'x'; --split can be"),
        ("guesses", ["--protocol=x"], "--protocol=x: choose one of center_crop"),
        (
            "guesses",
            ["--data_name=mnist", "--data_dir=nowhere"],
            "--data_dir=nowhere: there is no such",
        ),
        ("guesses", ["--data_name=mnist", "--data_dir=docs"], "or choose --data_name=folder"),
        ("guesses", ["--data_name=mnist"], "needs a directory: --data_dir=DIR"),
        ("selectivity", [], "its first layer reads 1 channel(s)"),
    ],
    ids=str,
)
def test_faults_are_named(look, run, tmp_path, command, arguments, message):
    code, _, err = look(command, run, f"--out={tmp_path}", *arguments)
    assert code == 2 and message in err, err
    assert len(err.splitlines()) <= 2


def test_norms_are_those_of_the_gradient(look, run, tmp_path):
    """Of the bias of the classifier the gradient is known: the mean of probability less truth.

    The gradient is computed in two parts.
    """
    from visualization import command_line, gradients
    from visualization.opening import open_run_or_file

    arguments = command_line.make_parser("").parse_args([str(run), "--batch_size=4"])
    opened = open_run_or_file(arguments)
    batches = list(opened.images(8, seed=1))
    batch = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    found = gradients.norms(opened, batch["image"], batch["label"])
    logits, record = opened.recorder([opened.last_hidden])(opened.inputs(batch["image"]))
    error = jax.nn.softmax(logits) - jax.nn.one_hot(batch["label"], logits.shape[1])
    assert opened.last_hidden == "ip1"
    bias = np.asarray(error).mean(axis=0)
    weights = np.einsum("bi,bo->io", np.asarray(record["ip1"]), np.asarray(error)) / 8
    expected = np.sqrt((bias**2).sum() + (weights**2).sum())
    np.testing.assert_allclose(found["ip2"], expected, rtol=1e-4)


def test_a_file_needs_a_dataset_by_name(look, shared_data, tmp_path):
    file = shared_data / "weights" / "resnet20-12fca82f.th"
    asked = (file, "--network=resnet20", f"--out={tmp_path}")
    code, _, err = look("guesses", *asked)
    assert code == 2 and "--data_name=NAME" in err
    code, _, err = look("augmentation", *asked)
    assert code == 2 and "--config" in err


@pytest.mark.slow
def test_a_file_beside_a_dataset(look, shared_data, tmp_path):
    file = shared_data / "weights" / "resnet20-12fca82f.th"
    asked = (file, "--network=resnet20", f"--out={tmp_path}")
    tfds = (f"--data_dir={shared_data / 'tfds'}", "--data_name=cifar10")
    code, _, err = look("guesses", *asked, *tfds)
    assert code == 0, err
