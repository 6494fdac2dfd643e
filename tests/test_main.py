"""The command line as a user meets it: real processes, real runs, real interruptions."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from evaluation.metrics import METRICS
from tests.conftest import ROOT, write_images
from tests.runs import TINY, finish, lines, restored, start, start_two, without_times


@pytest.mark.parametrize(
    "signals",
    [[signal.SIGTERM], pytest.param([signal.SIGINT, signal.SIGTERM], marks=pytest.mark.slow)],
)
def test_interrupted_runs_end_in_the_same_bits(tmp_path, signals):
    """Stopped by Ctrl-C and by SIGTERM, continued each time; dropout and momentum included."""
    total = "--config.total_steps=40"
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(*TINY, total, f"--workdir={whole}"))
    stops = 0
    for number in signals:
        process = start(*TINY, total, f"--workdir={broken}")
        seen = len(lines(broken)) if stops else 0
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            if (broken / "metrics.jsonl").exists() and len(lines(broken)) > seen + 1:
                break
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=300)
        if process.returncode == 75:
            stops += 1
            assert f"{number.name}: saving a checkpoint" in out
            assert "Traceback" not in err
        else:
            assert process.returncode == 0, err  # it was faster
    assert stops >= 1
    finish(start(*TINY, total, f"--workdir={broken}"))
    step, expected = restored(whole)
    again, ours = restored(broken)
    assert step == again == 40
    assert ours.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(ours[name], expected[name], err_msg=name)
    assert without_times(lines(broken)) == without_times(lines(whole))
    places = [(line["step"], line["split"]) for line in lines(broken)]
    assert len(set(places)) == len(places)
    assert [s for s, split in places if split == "train"] == list(range(4, 41, 4))
    assert [s for s, split in places if split == "validation"] == [10, 20, 30, 40]


@pytest.mark.slow
@pytest.mark.parametrize("devices, told_by", [(1, "slurm"), (2, "variables")])
def test_two_processes_equal_one_of_as_many_devices(call, tmp_path, devices, told_by):
    """Two processes of one device share a batch and split towers; of two, they split both."""
    run = [a for a in TINY if not a.startswith("--config.mesh")] + ["--config.total_steps=12"]
    together = start_two(*run, f"--workdir={tmp_path / 'two'}", devices=devices, told_by=told_by)
    for process in together:
        finish(process)
    mesh = [f"--config.mesh.data={devices}", "--config.mesh.tower=2"]
    assert call(*run, *mesh, f"--workdir={tmp_path / 'one'}")[0] == 0
    two, one = lines(tmp_path / "two"), lines(tmp_path / "one")
    assert [(a["step"], a["split"]) for a in two] == [(b["step"], b["split"]) for b in one]
    for a, b in zip(two, one, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["top1_error"] == b["top1_error"]
        assert a.get("examples") == b.get("examples")


@pytest.mark.slow
def test_all_processes_stop_where_one_is_asked_to(tmp_path):
    run = [a for a in TINY if "_every_" not in a and "mesh" not in a]
    workdir = tmp_path / "run"
    together = start_two(*run, "--config.total_steps=100000", f"--workdir={workdir}")
    deadline = time.monotonic() + 300
    while not (workdir / "metrics.jsonl").exists() or not lines(workdir):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    together[1].send_signal(signal.SIGTERM)
    for process in together:
        finish(process, code=75)
    saved = [int(path.name) for path in (workdir / "checkpoints").iterdir()]
    assert max(saved) % 10 == 0
    assert 0 < max(saved) < 100_000


def test_what_a_run_leaves_behind(call, tmp_path):
    workdir = tmp_path / "run"
    code, out, _ = call(*TINY, "--config.total_steps=10", f"--workdir={workdir}")
    assert code == 0
    assert "training on 2 of 4 devices (cpu): mesh.data=1 x mesh.tower=2\n" in out
    assert "step 10/10 | epoch 0.09 | loss" in out
    assert "validation: loss" in out
    names = {path.name.split(".")[0] for path in workdir.iterdir()}
    assert {"config", "metrics", "checkpoints", "events"} <= names
    train = [line for line in lines(workdir) if line["split"] == "train"]
    assert train[0].keys() == {
        "step", "epoch", "split", *METRICS, "learning_rate", "images_per_second", "data_wait",
        "mfu",
    }  # fmt: skip
    assert {"loss", "top1_error", "top5_error"} <= METRICS.keys()
    assert train[0]["epoch"] == pytest.approx(4 * 16 / 1720)
    assert 0 <= train[0]["top1_error"] <= 1

    evaluate = [*TINY, f"--workdir={workdir}", "--mode=evaluate"]
    for checkpoint, protocol in (
        ("latest", "center_crop"),
        ("best", "ten_view"),
        ("10", "center_crop"),
    ):
        code, out, _ = call(
            *evaluate,
            f"--config.evaluation.checkpoint={checkpoint}",
            f"--config.evaluation.protocol={protocol}",
            "--config.mesh.data=2",  # another mesh than in training
        )
        assert code == 0
        report = json.loads(out.splitlines()[-1])
        assert report == json.loads((workdir / "evaluation.json").read_text())
        assert list(report) == [
            "protocol", "split", "checkpoint", "examples", *METRICS,
        ]  # fmt: skip
        assert (report["protocol"], report["split"], report["checkpoint"]) == (
            protocol, "validation", 10,
        )  # fmt: skip
        assert report["examples"] == 77
    assert len((workdir / "evaluations.jsonl").read_text().splitlines()) == 3
    # The same errors as at the end of training, on the other mesh.
    last = [line for line in lines(workdir) if line["split"] == "validation"][-1]
    assert report["top1_error"] == last["top1_error"]
    assert report["loss"] == pytest.approx(last["loss"], rel=1e-4)


def test_faults_exit_2_with_a_word_about_the_way_out(call, tmp_path):
    digits = ["--config=configs/alexnet.py:digits", f"--workdir={tmp_path / 'run'}"]
    imagenet = ["--config=configs/alexnet.py", f"--workdir={tmp_path / 'run'}"]
    (tmp_path / "empty").mkdir()
    strange = write_images(tmp_path / "strange", {"train/cats": 1, "val/n01440764": 1})
    for arguments, message in [
        ([], "no --config"),
        (imagenet, "--config.data.dir=DIR"),
        ([*imagenet, "--config.data.dir=/nowhere"], "no such directory"),
        ([*imagenet, f"--config.data.dir={tmp_path / 'empty'}"], "is empty"),
        ([*imagenet, f"--config.data.dir={strange}"], "no synset of ImageNet"),
        (["--config=configs/none.py"], "no file configs/none.py"),
        (["--config=configs/alexnet.py:none"], "no variant :none"),
        ([*digits, "--config.mesh.data=64"], "the mesh needs 64 devices"),
        (
            [*digits, "--config.batch_size=7", "--config.mesh.data=2"],
            "batch_size=7 is not a multiple",
        ),
        ([*digits, "--config.model.num_classes=3"], "the dataset has 10 classes"),
        ([*digits, "--config.model.name=alexnte"], "did you mean 'alexnet'"),
        ([*digits, "--config.model.without=conv9"], "without=conv9: empty, or some of conv3,"),
        ([*digits, "--config.data.crop=100"], "data.crop=100 does not fit"),
        ([*digits, "--config.data.mean=median"], "data.mean=median: choose one of image"),
        ([*digits, "--config.data.augment.colour_noise=red"], "colour_noise=red: choose one of"),
        ([*digits, "--config.compute_dtype=int8"], "compute_dtype=int8: choose one of float32"),
        ([*digits, "--config.seed=-1"], "--config.seed=-1: 0 to 4294967295"),
        ([*digits, "--config.batch_size=0"], "--config.batch_size=0: 1 to 131072"),
        ([*digits, "--config.total_epochs=0"], "nothing to train: set --config.total_epochs"),
        ([*digits, "--config.total_epochs=nan"], "--config.total_epochs=nan: 0 to 2147483647"),
        (
            [*digits, "--config.optimizer.drop_steps=(-3,)"],
            "drop_steps=(-3,): up to 1000 values, for each 0 to",
        ),
        ([*digits, "--config.evaluation.protocol=one"], "evaluation.protocol=one: choose one"),
        (
            [*digits, "--config.model.pool_window=0"],
            "--config.model.pool_window=0: 1 to 64",
        ),
        ([*digits, "--config.model.lrn_constants.size=0"], "lrn_constants.size=0"),
        ([*digits, "--mode=evaluate"], "no checkpoint to evaluate; train first"),
        (
            [*digits, "--mode=tarin"],
            "should be one of <train|evaluate|export|summary|prepare_data|describe_data|predict|"
            "compile|compare|evaluate_guesses>",
        ),
    ]:
        code, _, err = call(*arguments)
        assert code == 2, arguments
        assert message in err
        assert len(err.strip().splitlines()) <= 2, err
        assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_a_workdir_of_another_config_is_left_alone(call, tmp_path):
    workdir = tmp_path / "run"
    run = [*TINY, f"--workdir={workdir}", "--config.total_steps=2"]
    assert call(*run)[0] == 0
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    code, _, err = call(*run, "--config.model.dropout=0.25")
    assert code == 2
    assert "model.dropout (was 0.5, now 0.25)" in err
    code, _, err = call(*run, "--mode=evaluate", "--config.evaluation.checkpoint=9")
    assert code == 2
    assert "evaluation.checkpoint=9: choose latest, best or one of the steps 2" in err
    code, _, err = call(*run, "--mode=evaluate", "--config.evaluation.protocol=nine_view")
    assert code == 2
    assert "evaluation.protocol=nine_view: choose one of" in err
    code, _, err = call(*run, "--mode=evaluate", "--config.evaluation.split=test")
    assert code == 2
    assert "digits has no split 'test'" in err
    assert before == {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}


def test_a_finished_run_can_be_run_again_and_prolonged(call, tmp_path):
    run = [*TINY, f"--workdir={tmp_path / 'run'}"]
    assert call(*run, "--config.total_steps=4")[0] == 0
    written = lines(tmp_path / "run")
    assert call(*run, "--config.total_steps=4")[0] == 0
    assert lines(tmp_path / "run") == written
    assert call(*run, "--config.total_steps=8")[0] == 0
    steps = [line["step"] for line in lines(tmp_path / "run") if line["split"] == "train"]
    assert steps == [4, 8]


@pytest.mark.slow
def test_checkpoints_are_of_their_step_though_training_goes_on_while_they_are_written(
    call, tmp_path
):
    """Large hidden layers: the writing takes longer than the next steps."""
    run = [*TINY, "--config.model.hidden=(2048, 2048)", "--config.checkpoint_keep=9"]
    long, short = tmp_path / "long", tmp_path / "short"
    assert call(*run, f"--workdir={long}", "--config.total_steps=20")[0] == 0
    assert call(*run, f"--workdir={short}", "--config.total_steps=7")[0] == 0
    _, ours = restored(long, 7)
    _, expected = restored(short, 7)
    for name in expected:
        if "interval" not in name:  # the short run has logged its last step
            np.testing.assert_array_equal(ours[name], expected[name], err_msg=name)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--config=configs/alexnet.py", "--config.sede=1"]]
)
def test_heavy_packages_wait_until_they_are_needed(arguments):
    script = (
        "import sys, main; code = main.main(['main.py', *sys.argv[1:]]);"
        "heavy = [m for m in ('jax', 'tensorflow', 'flax', 'numpy') if m in sys.modules];"
        "print(code, heavy)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, text=True, capture_output=True
    )
    assert answer.stdout.splitlines()[-1] == ("0 []" if arguments == ["--help"] else "2 []")


def test_networks_and_training_need_neither_tensorflow_nor_ml_collections():
    script = (
        "import sys\n"
        "for name in ('tensorflow', 'tensorflow_datasets', 'ml_collections', 'tensorboardX'):\n"
        "    sys.modules[name] = None\n"
        "import vision_models, evaluation, training, training.step, training.optimizer\n"
        "print('imported')"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, text=True, capture_output=True
    )
    assert answer.stdout == "imported\n", answer.stderr


@pytest.mark.slow
def test_cifar10_by_overrides_alone(shared_data, call, tmp_path):
    workdir = tmp_path / "run"
    code, _, err = call(
        "--config=configs/alexnet.py", "--config.data.name=cifar10",
        f"--config.data.dir={shared_data('tfds', 'cifar10')}", "--config.data.resize=68",
        "--config.data.crop=64", "--config.model.kernels=(16, 32, 32, 32, 32)",
        "--config.model.hidden=(64, 64)", "--config.batch_size=16", "--config.mesh.data=1",
        "--config.mesh.tower=1", "--config.log_every_steps=2", "--config.total_steps=4",
        "--config.data.validation_examples=40", f"--workdir={workdir}",
    )  # fmt: skip
    assert code == 0, err
    counts = {line["split"]: line.get("examples") for line in lines(workdir)}
    assert counts == {"train": None, "validation": 40}


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_preparing_is_stopped_and_continued_and_trained_from(call, tmp_path, by):
    """Between shards and inside one; the run from the result is the run from the images."""
    root = write_images(tmp_path / "images", {"train/a": 2, "train/b": 2, "val/a": 1})
    for folder in (root / "train" / "a", root / "train" / "b"):
        for number in range(6000):
            os.link(folder / "0.jpg", folder / f"again{number}.jpg")
    arguments = [
        *TINY[:3],
        "--config.data.name=folder",
        f"--config.data.dir={root}",
        f"--config.data.cache_dir={tmp_path / 'cache'}",
        "--config.data.resize=40",
        "--config.data.crop=32",
        "--config.model.without=conv3",
    ]
    prepare = [
        *arguments, "--mode=prepare_data", f"--config.data.prepared_dir={tmp_path / 'out'}",
    ]  # fmt: skip
    process = start(*prepare)
    about = tmp_path / "out" / "prepared.json"
    while process.poll() is None and not (about.exists() and '"records"' in about.read_text()):
        time.sleep(0.02)
    process.send_signal(by)
    _, err = finish(process, 75)
    assert "the same command goes on from here" in err
    done = json.loads(about.read_text())
    assert not done["complete"] and 1 <= len(done["shards"]) < 4
    code, out, _ = call(*prepare)
    assert code == 0
    assert "train 12004, validation 1 images" in out
    now = json.loads(about.read_text())
    assert now["complete"] and len(now["shards"]) == 4
    assert now["shards"].items() >= done["shards"].items()
