"""The networks that come with the project: their cards, and how they are opened by name."""

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trained_networks
import vision_models
from tests.conftest import ROOT, write_images
from tests.runs import TINY, drawn_run
from training import Trained, TrainingError, config_fields, export
from training.classes import Start, known_classes
from training.workdir import name_of_weights
from vision_models import weights
from vision_models.trees import flatten
from visualization import kernels
from visualization.command_line import run

NAMES = trained_networks.names()


@pytest.mark.quick
def test_every_network_has_a_card_and_every_card_a_network():
    folder = ROOT / "trained_networks"
    assert "lenet5-mnist" in NAMES
    assert {path.stem for path in folder.glob("*.md")} == set(NAMES)


@pytest.mark.quick
@pytest.mark.parametrize("name", NAMES)
def test_what_a_card_says_of_the_file_is_true(name):
    card, trained = trained_networks.card(name), Trained.open(name)
    assert tuple(card) == trained_networks.FIELDS
    assert all(card.values())
    content = (ROOT / "trained_networks" / f"{name}.safetensors").read_bytes()
    assert card["sha256"] == hashlib.sha256(content).hexdigest()
    assert int(card["parameters"]) == sum(array.size for array in flatten(trained.params).values())
    assert card["network"] == trained.name
    assert card["network"] in vision_models.list_models()
    assert (card["dataset"], card["protocol"]) == (trained.dataset, trained.protocol)
    assert trained.preprocessing is not None and trained.normalization is not None
    assert len(trained.class_names) == trained.num_classes
    text = (ROOT / "trained_networks" / f"{name}.md").read_text()
    assert f"--mode=evaluate --run={name}" in text
    assert "\n## Differences\n" in text


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n == "lenet5-mnist" else pytest.mark.slow) for n in NAMES],
)
def test_the_error_of_the_card_is_measured_by_one_command(name, call, shared_data, tmp_path):
    card = trained_networks.card(name)
    data = f"--config.data.dir={shared_data('tfds', card['dataset'])}"
    code, out, err = call("--mode=evaluate", f"--run={name}", data, f"--workdir={tmp_path}")
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert (card["dataset"], result["examples"]) in {("mnist", 10_000), ("cifar10", 10_000)}
    error = f"{100 * result['top1_error']:.2f}"
    assert (result["split"], card["test_error"]) == ("test", error)
    assert card["protocol"] == result["protocol"]


@pytest.mark.quick
def test_images_that_a_network_has_not_seen_are_its_validation(tmp_path):
    """A file says how many were held out; the dataset's default is 5,000 of MNIST."""
    assert config_fields("lenet5-mnist")["data"]["validation_examples"] == 1000
    trained = dataclasses.replace(Trained.open("lenet5-mnist"), validation_examples=77)
    path = export(trained, tmp_path / "copy.safetensors")
    assert Trained.open(path).validation_examples == 77
    assert config_fields(str(path))["data"]["validation_examples"] == 77


def test_other_data_are_divided_as_they_are(call, tmp_path):
    """The number held out of the network's own dataset is not of others."""
    data = write_images(
        tmp_path / "data", {f"{s}/{n}": 2 for s in ("train", "val") for n in range(10)}
    )
    asked = ("--mode=evaluate", "--run=lenet5-mnist", "--config.data.name=folder")
    asked += (f"--config.data.dir={data}", f"--workdir={tmp_path / 'run'}")
    code, out, err = call(*asked)
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["examples"] == 20
    code, _, err = call(*asked, "--config.data.validation_examples=3")
    assert code == 2 and "folder has a validation split of its own; leave that field out" in err


@pytest.mark.parametrize("card", ["", "---\nnetwork: lenet5\n---\n", None])
def test_a_card_that_is_missing_or_incomplete(call, tmp_path, monkeypatch, card):
    shutil.copy(trained_networks.path_of("lenet5-mnist"), tmp_path)
    if card is not None:
        (tmp_path / "lenet5-mnist.md").write_text(card)
    monkeypatch.setattr(trained_networks, "_HERE", tmp_path)
    for command in (["--mode=compare"], ["--mode=evaluate", "--run=lenet5-mnist"]):
        code, _, err = call(*command)
        assert code == 2 and "lenet5-mnist: its card " in err, err
        assert len(err.splitlines()) <= 2


@pytest.mark.quick
def test_a_name_is_opened_where_a_file_is(call, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    shutil.copy(trained_networks.path_of("lenet5-mnist"), tmp_path / "copy.safetensors")
    found = []
    for source in ("lenet5-mnist", tmp_path / "copy.safetensors"):
        predict = ["--mode=predict", f"--run={source}", f"--images={tmp_path / 'digit.png'}"]
        code, out, err = call(*predict, f"--out={tmp_path}")
        assert code == 0, err
        found.append(out)
    assert found[0] == found[1]
    assert known_classes(Start("lenet5-mnist"), tmp_path, False) == tuple("0123456789")


def test_its_kernels_are_drawn(tmp_path, capsys):
    assert run(["lenet5-mnist", f"--out={tmp_path}"], "", kernels.add_flags, kernels.draw) == 0
    assert (tmp_path / "kernels.png").exists()


@pytest.mark.quick
def test_a_directory_or_file_of_the_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lenet5-mnist").mkdir()
    with pytest.raises(TrainingError, match="lenet5-mnist: a directory that is no weights file"):
        Trained.open("lenet5-mnist")


@pytest.mark.quick
@pytest.mark.parametrize(
    "arguments",
    [
        ["--mode=predict", "--run=lenet-mnist", "--images=setup.cfg"],
        ["--mode=evaluate", "--run=lenet-mnist"],
        ["--config=configs/alexnet.py:digits", "--config.init_from=lenet-mnist"],
    ],
)
def test_a_name_that_does_not_exist_lists_those_that_do(arguments, call, tmp_path):
    code, _, err = call(*arguments, f"--workdir={tmp_path}")
    assert code == 2
    said = "lenet-mnist: there is no such file or run, nor a trained network of that name"
    assert f"{said}; did you mean lenet5-mnist? there are {', '.join(NAMES)}" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.quick
def test_a_damaged_file_is_noticed(call, tmp_path, monkeypatch):
    """A flipped bit, other weights in a file that is sound by its own checksum, and no card."""
    folder = tmp_path / "networks"
    folder.mkdir()
    path = Path(shutil.copy(trained_networks.path_of("lenet5-mnist"), folder))
    shutil.copy(ROOT / "trained_networks" / "lenet5-mnist.md", folder)
    monkeypatch.setattr(trained_networks, "_HERE", folder)
    trained = Trained.open("lenet5-mnist")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    code, _, err = call("--mode=evaluate", "--run=lenet5-mnist", f"--workdir={tmp_path}")
    assert code == 2
    assert "lenet5-mnist.safetensors is damaged, or is not the file of its card (SHA-256" in err
    assert len(err.strip().splitlines()) == 1
    weights.save(path, trained.name, trained.options, trained.params, trained.statistics)
    with pytest.raises(TrainingError, match="is not the file of its card"):
        Trained.open("lenet5-mnist")
    (folder / "lenet5-mnist.md").unlink()
    with pytest.raises(TrainingError, match=r"its card \S+ cannot be read \(No such file"):
        Trained.open("lenet5-mnist")


@pytest.mark.quick
def test_another_network_than_the_configs(call, tmp_path):
    code, _, err = call(
        "--config=configs/alexnet.py:digits",
        "--config.init_from=lenet5-mnist",
        f"--workdir={tmp_path}",
    )
    assert code == 2
    assert re.search(r"lenet5-mnist\S* holds a lenet5, the config's network is alexnet", err)


def test_a_run_and_its_file_are_evaluated_without_a_config(call, tmp_path, monkeypatch):
    """Equal to --config and --workdir, by the run's protocol; its evaluation lies in the run."""
    workdir = drawn_run(tmp_path / "run", *TINY, "--config.evaluation.protocol=nine_crop")
    code, out, err = call(*TINY, "--mode=export", f"--workdir={workdir}")
    assert code == 0, err
    exported, results = out.strip(), []
    for arguments in (
        [*TINY, "--config.evaluation.protocol=nine_crop", f"--workdir={workdir}"],
        [f"--run={workdir}"],
        [
            f"--run={exported}",
            "--config.data.validation_examples=77",
            f"--workdir={tmp_path / 'other'}",
        ],
    ):
        code, out, err = call("--mode=evaluate", "--config.batch_size=16", *arguments)
        assert code == 0, err
        results.append(json.loads(out.splitlines()[-1]))
    assert results[0] == results[1]
    assert results[0]["protocol"] == "nine_crop"
    assert results[2] | {"checkpoint": 1} == pytest.approx(results[0])
    lines = (workdir / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == results[:2]
    # One place for a run's evaluations, and one checkpoint in a file.
    elsewhere = f"--workdir={tmp_path / 'elsewhere'}"
    code, _, err = call("--mode=evaluate", f"--run={workdir}", elsewhere)
    assert code == 2 and "is a run, and its evaluation goes into it" in err
    best = "--config.evaluation.checkpoint=best"
    code, _, err = call("--mode=evaluate", f"--run={exported}", elsewhere, best)
    assert code == 2 and f"evaluation.checkpoint=best: {exported} is a file" in err
    code, _, err = call(*TINY, "--mode=evaluate", f"--config.init_from={workdir}", elsewhere, best)
    assert code == 2 and "no checkpoint of" in err and "has been evaluated" in err


def test_files_of_one_name_are_evaluated_in_places_of_their_own(tmp_path):
    """Exported files are all called weights.safetensors."""
    (tmp_path / "b").mkdir()
    one = Path(shutil.copy(trained_networks.path_of("lenet5-mnist"), tmp_path / "w.safetensors"))
    other = Path(shutil.copy(one, tmp_path / "b"))
    assert name_of_weights(str(one)) == name_of_weights(str(other)) != "w"
    other.write_bytes(one.read_bytes() + b"x")
    assert name_of_weights(str(one)) != name_of_weights(str(other))
    assert name_of_weights("lenet5-mnist") == "lenet5-mnist"


@pytest.mark.quick
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--mode=evaluate"], "--mode=evaluate needs --config=FILE"),
        (["--mode=evaluate", "--run=tests"], "tests: a directory without config.json, so no run"),
        (["--mode=evaluate", "--run=setup.cfg"], "setup.cfg: weights are read from .pth"),
        (
            ["--mode=evaluate", "--config=configs/lenet5.py", "--run=lenet5-mnist"],
            "--run=lenet5-mnist brings its own config: leave out --config",
        ),
        (
            ["--config=configs/lenet5.py", "--run=lenet5-mnist"],
            "--mode=train takes no --run; a run is named by --workdir",
        ),
    ],
)
def test_runs_that_cannot_be_evaluated(arguments, message, call, tmp_path):
    code, _, err = call(*arguments, f"--workdir={tmp_path}")
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) <= 2
