"""Weights from elsewhere on the command line: evaluated, started from, exported; and summaries."""

import json
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image

import vision_models
from input_pipeline import Data
from tests.conftest import ROOT, write_images
from vision_models import weights
from vision_models.functional import variables

# A small network on the digits: a run of seconds. `caffe` has no mean image.
DIGITS = [
    "--config=configs/lenet5.py:caffe",
    "--config.data.name=digits",
    "--config.batch_size=16",
    "--config.total_steps=3",
    "--config.mesh.data=1",
    "--config.evaluation.split=validation",
]


def last_json(out):
    return json.loads(out.strip().splitlines()[-1])


def lenet(path, seed=0, **options):
    model = vision_models.create("lenet_caffe", rngs=nnx.Rngs(seed), **options)
    images = {"mean": np.full(3, 7, np.float32), "deviation": np.full(3, 100, np.float32)}
    weights.save(path, "lenet_caffe", options, *variables(model), images)
    return path


def test_published_weights_have_their_published_errors(call, shared_data, tmp_path):
    """Caffe's LeNet on MNIST: 99.14% correct."""
    code, out, err = call(
        "--config=configs/lenet5.py:caffe",
        "--mode=evaluate",
        f"--config.data.dir={shared_data('tfds', 'mnist')}",
        f"--config.init_from={shared_data('weights/lenet_iter_10000.caffemodel')}",
        "--config.evaluation.batch_size=500",
        f"--workdir={tmp_path / 'run'}",
    )
    assert code == 0, err
    result = last_json(out)
    assert (result["examples"], result["top1_error"]) == (10_000, pytest.approx(0.0086))
    assert result["checkpoint"].endswith("lenet_iter_10000.caffemodel")
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text()) == result
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_a_published_resnet_has_its_published_error(call, shared_data, tmp_path):
    """ResNet-20 trained in PyTorch by others: 8.27% on CIFAR-10's test set, to .02 points.

    Five guesses for images written as files are those of the saved scores.
    """
    file = shared_data("weights/resnet20-12fca82f.th")
    code, out, err = call(
        "--config=configs/cifar10.py:resnet20",
        "--mode=evaluate",
        f"--config.data.dir={shared_data('tfds', 'cifar10')}",
        f"--config.init_from={file}",
        "--config.evaluation.batch_size=500",
        "--config.evaluation.save_scores=True",
        f"--workdir={tmp_path / 'run'}",
    )
    assert code == 0, err
    result = last_json(out)
    assert result["examples"] == 10_000
    assert result["top1_error"] == pytest.approx(0.0827, abs=0.0002)
    with np.load(tmp_path / "run" / "scores" / "test-center_crop.npz") as saved:
        scores = saved["scores"][:10]
    folders = write_images_of_cifar10(shared_data, tmp_path)
    found = {}
    for folder in folders:
        code, _, err = call(
            "--mode=predict", f"--run={file}", "--network=resnet20", f"--images={folder}",
            f"--out={folder}",
        )  # fmt: skip
        assert code == 0, err
        lines = (folder / "predictions.jsonl").read_text().splitlines()
        found[folder.name] = [json.loads(line)["guesses"] for line in lines]
    best = np.argsort(-scores, axis=1)[:, :5]
    guessed = [[int(guess["class"]) for guess in guesses] for guesses in found["png"]]
    assert guessed == best.tolist()
    np.testing.assert_allclose(
        [[guess["probability"] for guess in guesses] for guesses in found["png"]],
        np.exp(np.take_along_axis(scores, best, axis=1)),
        rtol=1e-4,
        atol=1e-6,
    )
    assert found["jpeg"] == found["decoded"] != found["png"]


def write_images_of_cifar10(shared_data, directory):
    """The first ten test images as PNG, as JPEG, and what Pillow decodes of these as PNG."""
    from evaluation.protocols import Images
    from input_pipeline import open_dataset, pixels_of

    dataset = open_dataset("cifar10", str(shared_data("tfds", "cifar10")), only="test")
    folders = [directory / name for name in ("png", "jpeg", "decoded")]
    for folder in folders:
        folder.mkdir()
    for number in range(10):
        content, _ = dataset.examples("test").read(number)
        image = Image.fromarray(pixels_of(content, Images(32), f"image {number}"))
        image.save(directory / "png" / f"{number}.png")
        image.save(directory / "jpeg" / f"{number}.jpg", quality=90)
        with Image.open(directory / "jpeg" / f"{number}.jpg") as decoded:
            decoded.convert("RGB").save(directory / "decoded" / f"{number}.png")
    return folders


@pytest.mark.slow
def test_ten_views_of_a_published_resnet_are_those_of_pytorch(call, shared_data, tmp_path):
    """Crops of 28 pixels of CIFAR-10's test images, averaged as probabilities; to .01 points."""
    torch = pytest.importorskip("torch")
    from benchmarks.torch_networks import resnet20
    from configs.cifar10 import get_config
    from evaluation.protocols import Images
    from input_pipeline import open_data

    source = shared_data("weights/resnet20-12fca82f.th")
    fields = get_config("resnet20").data
    fields.dir = str(shared_data("tfds", "cifar10"))
    data = open_data(fields, tmp_path / "cache", only="test")
    stream = list(data.evaluation("test", Images(32), batch_size=500))
    model = resnet20(10).eval().to(memory_format=torch.channels_last)
    saved = torch.load(source, map_location="cpu", weights_only=True)["state_dict"]
    named = [name for name in model.state_dict() if "num_batches" not in name]
    model.load_state_dict(dict(zip(named, saved.values(), strict=True)), strict=False)
    colours = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as these weights were trained
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in colours)
    wrong = loss = 0
    with torch.inference_mode():
        for batch in stream:
            pixels = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2) / 255
            images, labels = (pixels - mean) / deviation, torch.from_numpy(batch["label"]).long()
            total = torch.zeros(len(labels), 10)
            for y, x in [(0, 0), (0, 4), (2, 2), (4, 0), (4, 4)]:
                crops = images[:, :, y : y + 28, x : x + 28]
                total += model(crops).softmax(1) + model(crops.flip(3)).softmax(1)
            wrong += int((total.argmax(1) != labels).sum())
            loss -= float((total / 10).log()[torch.arange(len(labels)), labels].sum())
    code, out, err = call(
        "--config=configs/cifar10.py:resnet20", "--mode=evaluate", f"--config.init_from={source}",
        f"--config.data.dir={fields.dir}", "--config.data.crop=28",
        "--config.data.pad=0", "--config.evaluation.protocol=ten_view",
        f"--workdir={tmp_path / 'run'}",
    )  # fmt: skip
    assert code == 0, err
    result = last_json(out)
    assert result["examples"] == 10_000 and result["protocol"] == "ten_view"
    assert result["top1_error"] == pytest.approx(wrong / 10_000, abs=1e-4)
    assert result["loss"] == pytest.approx(loss / 10_000, rel=1e-4)


def test_a_run_starts_from_a_file_and_an_export_gives_it_back(call, tmp_path, monkeypatch):
    path, first, second = (tmp_path / n for n in ("w.safetensors", "first", "second"))
    lenet(path)
    frozen = [*DIGITS, "--config.optimizer.learning_rate=0"]
    code, out, err = call(*frozen, f"--config.init_from={path}", f"--workdir={first}")
    assert code == 0, err
    assert f"weights from {path}" in out
    code, out, _ = call(*frozen, "--mode=export", f"--workdir={first}")
    assert code == 0
    assert out.strip() == str(first / "weights.safetensors")
    back = weights.load(out.strip(), "lenet_caffe")
    expected = weights.load(path, "lenet_caffe")
    for a, b in zip(variables_of(back), variables_of(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    # The preprocessing that the weights expect has travelled with them.
    np.testing.assert_array_equal(back.normalization["mean"], np.full((28, 28, 3), 7))
    np.testing.assert_array_equal(back.normalization["deviation"], [100] * 3)

    # A run as a source, and its evaluation: the same network on the same images.
    code, out, err = call(*frozen, "--mode=evaluate", f"--workdir={first}")
    assert code == 0, err
    evaluated = last_json(out)
    again = [*DIGITS, "--mode=evaluate", f"--config.init_from={first}", f"--workdir={second}"]
    code, out, err = call(*again)
    assert code == 0, err
    assert {**last_json(out), "checkpoint": 3} == evaluated
    # With another preprocessing it is another network.
    code, out, _ = call(*again, "--config.init_preprocessing=config")
    assert last_json(out)["loss"] != evaluated["loss"]
    # A run that goes on has its preprocessing, and reads no training set for another.
    monkeypatch.setattr(Data, "normalization", None)
    code, out, err = call(*frozen, "--config.total_steps=4", f"--workdir={first}")
    assert code == 0, err
    assert "done after 4 steps" in out


def variables_of(loaded):
    import jax

    return jax.tree.leaves((loaded.params, loaded.statistics))


def test_a_checkpoint_wins_over_init_from(call, tmp_path):
    workdir = f"--workdir={tmp_path / 'run'}"
    assert call(*DIGITS, workdir)[0] == 0
    before = call(*DIGITS, workdir, "--mode=evaluate")[1]
    lenet(tmp_path / "w.safetensors", seed=5)
    source = f"--config.init_from={tmp_path / 'w.safetensors'}"
    code, out, err = call(*DIGITS, workdir, source, "--mode=evaluate")
    assert code == 0, err
    assert f"holds a checkpoint: it counts, and not {tmp_path / 'w.safetensors'}" in out
    assert last_json(out) == last_json(before)


def test_a_new_head_trains_and_the_rest_is_taken(call, tmp_path):
    path = lenet(tmp_path / "w.safetensors", num_classes=5)
    run = [*DIGITS, f"--config.init_from={path}"]
    code, _, err = call(*run, f"--workdir={tmp_path / 'refused'}")
    assert code == 2
    assert "ip2/kernel is 500x5 there, 500x10 here" in err
    assert "--config.init_head=new" in err
    assert not (tmp_path / "refused" / "checkpoints").exists()
    code, out, err = call(
        *run,
        "--config.init_head=new",
        "--config.optimizer.learning_rate=0",
        f"--workdir={tmp_path / 'run'}",
    )
    assert code == 0, err
    assert "ip2 start fresh" in out
    call(
        *DIGITS,
        "--config.optimizer.learning_rate=0",
        "--mode=export",
        f"--workdir={tmp_path / 'run'}",
    )
    trained = weights.load(tmp_path / "run" / "weights.safetensors", "lenet_caffe")
    source = weights.load(path, "lenet_caffe", {"num_classes": 5})
    np.testing.assert_array_equal(trained.params["ip1"]["kernel"], source.params["ip1"]["kernel"])
    assert trained.params["ip2"]["kernel"].std() > 0


def test_weights_that_do_not_fit_never_train(call, tmp_path):
    path = lenet(tmp_path / "w.safetensors")
    other = vision_models.create("lenet5", rngs=nnx.Rngs(0))
    weights.save(tmp_path / "lenet5.safetensors", "lenet5", {}, *variables(other))
    (tmp_path / "no_run").mkdir()
    for source, more, message in [
        ("/nowhere/w.pth", [], "init_from: /nowhere/w.pth: there is no such file"),
        (tmp_path / "lenet5.safetensors", [], "holds a lenet5, the config's network is lenet_caf"),
        (tmp_path / "no_run", [], "no weights file, and no run with a checkpoint"),
        (path, ["--config.init_head=fresh"], "init_head=fresh: choose one of file, new"),
        (path, ["--config.init_preprocessing=imagenet"], "choose one of config, torchvision"),
        (
            path,
            ["--config.init_head=new", "--mode=evaluate"],
            "ip2 would start from random numbers; train first",
        ),
    ]:
        run = [*DIGITS, f"--config.init_from={source}", f"--workdir={tmp_path / 'run'}", *more]
        code, _, err = call(*run)
        assert code == 2, source
        assert message in err
        assert len(err.strip().splitlines()) <= 2
        assert not (tmp_path / "run" / "checkpoints").exists()


def test_logits_that_are_no_numbers_are_no_evaluation(call, tmp_path):
    """Weights that are finite, and logits that are not: exit code 1, and the last one is kept."""
    path, run = lenet(tmp_path / "w.safetensors"), tmp_path / "run"
    good = [*DIGITS, "--mode=evaluate", f"--workdir={run}"]
    assert call(*good, f"--config.init_from={path}")[0] == 0
    before = [(run / name).read_bytes() for name in ("evaluation.json", "evaluations.jsonl")]
    model = vision_models.create("lenet_caffe", rngs=nnx.Rngs(0))
    params, statistics = variables(model)
    params["ip1"]["kernel"] = np.full_like(params["ip1"]["kernel"], 3e38)
    images = {"mean": np.zeros(3, np.float32), "deviation": np.ones(3, np.float32)}
    weights.save(tmp_path / "bad.safetensors", "lenet_caffe", {}, params, statistics, images)
    code, out, err = call(*good, f"--config.init_from={tmp_path / 'bad.safetensors'}")
    assert code == 1
    assert "logits on validation are no numbers" in err
    assert len(err.strip().splitlines()) == 1
    assert "NaN" not in out and "{" not in out
    after = [(run / name).read_bytes() for name in ("evaluation.json", "evaluations.jsonl")]
    assert after == before


def test_class_names_travel_and_are_compared(call, tmp_path):
    """An exported run on classes in another order: as they were for folders, or refused."""
    images = write_images(tmp_path / "data", {f"train/{name}": 6 for name in ("ape", "bee")})
    folder = [
        *(argument for argument in DIGITS if "digits" not in argument),
        "--config.data.name=folder",
        "--config.data.validation_examples=2",
        "--config.batch_size=4",
    ]
    run = [*folder, f"--config.data.dir={images}", f"--workdir={tmp_path / 'run'}"]
    code, _, err = call(*run)
    assert code == 0, err
    code, out, _ = call(*run, "--mode=export")
    exported = Path(out.strip())
    assert weights.load(exported, "lenet_caffe", {"num_classes": 2}).class_names == ("ape", "bee")
    plain = weights.load(exported, "lenet_caffe", {"num_classes": 2})
    weights.save(
        exported, "lenet_caffe", {"num_classes": 2}, plain.params, plain.statistics,
        plain.normalization, ["cow", "bee"],
    )  # fmt: skip
    evaluation = [
        *folder,
        f"--config.data.dir={images}",
        f"--workdir={tmp_path / 'other'}",
        f"--config.init_from={exported}",
    ]
    code, out, err = call(*evaluation, "--mode=evaluate")
    assert code == 2
    assert "1 are not here, such as 'cow'; 1 were not there, such as 'ape'" in err
    assert not (tmp_path / "other" / "evaluation.json").exists()
    # Training goes on from them, and says so.
    code, out, err = call(*evaluation, "--config.total_steps=1")
    assert code == 0, err
    assert f"weights from {exported}: trained on 2 other classes" in out


@pytest.mark.parametrize("name", ["with a space.safetensors", "\udcff.safetensors", "none"])
def test_paths_of_weights(name, call, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    lenet(tmp_path / name)
    code, _, err = call(
        *DIGITS, "--mode=export", f"--config.init_from=~/{name}", f"--workdir={tmp_path / 'run'}"
    )
    assert code == 0, err
    assert weights.load(tmp_path / "run" / "weights.safetensors", "lenet_caffe").fresh == ()


def test_directories_in_the_place_of_files(call, tmp_path):
    folder = tmp_path / "w.safetensors"
    folder.mkdir()
    run = [*DIGITS, f"--config.init_from={folder}", f"--workdir={tmp_path / 'run'}"]
    code, _, err = call(*run, "--mode=evaluate")
    assert code == 2
    assert "a directory that is no weights file, and no run with a checkpoint" in err
    lenet(folder / "inside.safetensors")
    code, _, err = call(*run, "--mode=evaluate")
    assert "name a file in it, such as inside.safetensors" in err


def test_summaries(call):
    code, out, _ = call("--config=configs/vgg.py:d", "--mode=summary")
    assert code == 0
    assert "parameters        138,357,544" in out
    assert "multiply-adds     15,470,264,320" in out
    code, out, _ = call("--config=configs/alexnet.py", "--config.model.towers=1", "--mode=summary")
    assert "multiply-adds     1,135,256,096" in out
    code, _, err = call("--config=configs/vgg.py:d", "--mode=summary", "--config.model.pool=min")
    assert code == 2
    kinds = "max, average, padded_average, sum, l2"
    assert err == f"error: --config.model.pool=min: choose one of {kinds}\n"


@pytest.mark.parametrize(
    "config", ["vgg.py:e", pytest.param("resnet.py:152", marks=pytest.mark.slow)]
)
def test_a_summary_needs_neither_tensorflow_nor_memory(config):
    """What is traced is shapes."""
    import subprocess
    import sys

    program = (
        "import sys, main\n"
        f"code = main.main(['main.py', '--config=configs/{config}', '--mode=summary'])\n"
        "assert code == 0\n"
        "assert 'tensorflow' not in sys.modules\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    # The weights alone are 575 and 241 MB.
    assert int(done.stdout.splitlines()[-1]) < 450_000
