import json
import threading
import time

import jax
import numpy as np
import pytest

from training import TrainingError
from training import workdir as workdirs
from training.classes import _classes_of_run
from training.clock import Clock
from training.pictures import picture, picture_of_kernels
from training.trained import Trained
from training.writers import MetricWriter, append_line, duration, to_json


@pytest.mark.parametrize(
    "variant, overrides, expected",
    [
        ("", {}, "runs/alexnet"),
        ("digits", {}, "runs/alexnet-digits"),
        ("", {"total_steps": 5, "data.dir": "/x", "mesh.tower": 1}, "runs/alexnet"),
        (
            "digits",
            {"model.lrn": False, "batch_size": 32},
            "runs/alexnet-digits-batch_size=32-model.lrn=False",
        ),
        ("", {"optimizer.drop_epochs": (1, 2)}, "runs/alexnet-optimizer.drop_epochs=_1,_2_"),
    ],
)
def test_default_workdir(variant, overrides, expected):
    assert str(workdirs.default_workdir("alexnet", variant, overrides)) == expected


def test_long_names_stay_apart():
    names = {
        str(workdirs.default_workdir("a", "", {f"model.field{i}": v for i in range(20)}))
        for v in (1, 2)
    }
    assert len(names) == 2
    assert max(map(len, names)) < 130


@pytest.fixture
def run(tmp_path):
    """A workdir with a saved config and a checkpoint."""
    config = {
        "seed": 0,
        "total_epochs": 3.0,
        "data": {"dir": "/a", "crop": 64},
        "mesh": {"tower": 2},
    }
    workdirs.save_config(tmp_path, config, {"fingerprint": "f", "class_names": ["a"]})
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    return tmp_path, config


def test_fields_that_came_later_do_not_stop_a_run_of_before(run):
    workdir, config = run
    later = {"data": config["data"] | {"sampling": "uniform", "fold": 0, "choice_seed": 0}}
    later["data"]["classes"] = ()
    later |= {"loss": {"class_weights": "none"}}
    workdirs.check_continuation(workdir, config | later)
    later["data"]["sampling"] = "balanced"
    with pytest.raises(TrainingError, match=r"data.sampling \(was uniform, now balanced\)"):
        workdirs.check_continuation(workdir, config | later)


def test_what_does_not_change_the_result_may_change(run):
    workdir, config = run
    other = config | {"total_epochs": 9.0, "mesh": {"tower": 1}, "data": {"dir": "/b", "crop": 64}}
    workdirs.check_continuation(workdir, other)


def test_what_does_is_named(run):
    workdir, config = run
    other = config | {"seed": 1, "data": {"dir": "/a", "crop": 32}}
    with pytest.raises(TrainingError, match=r"data.crop \(was 64, now 32\), seed \(was 0, now 1\)"):
        workdirs.check_continuation(workdir, other)
    with pytest.raises(TrainingError, match="on other data"):
        workdirs.check_dataset(workdir, "g")
    workdirs.check_dataset(workdir, "f")


def test_a_workdir_without_a_checkpoint_holds_nothing_back(run):
    workdir, config = run
    (workdir / "checkpoints" / "5").rmdir()
    workdirs.check_continuation(workdir, config | {"seed": 1})


def test_a_damaged_config_is_named(run):
    workdir, config = run
    (workdir / "config.json").write_text("{")
    with pytest.raises(TrainingError, match=r"config\.json: damaged"):
        workdirs.check_continuation(workdir, config)


def test_saved_config_says_versions_and_data(run):
    workdir, config = run
    saved = json.loads((workdir / "config.json").read_text())
    assert saved["config"] == config
    assert saved["dataset"] == {"fingerprint": "f", "classes": 1}
    assert {"jax", "flax", "python"} <= saved["versions"].keys()
    assert saved["machine"]["devices"] == {jax.devices()[0].device_kind: jax.device_count()}
    assert saved["machine"]["processes"] == 1


def test_a_workdir_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be written"):
        workdirs.save_config(tmp_path / "file" / "run", {}, {})


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_of_steps_that_come_again_are_removed(tmp_path):
    writer = MetricWriter(tmp_path, 0, 0)
    for step in (10, 20, 30):
        writer.write({"step": step, "split": "train", "loss": 1.0})
        writer.write({"step": step, "split": "validation", "loss": 2.0})
    writer.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 40, "spl')  # killed while writing
    writer = MetricWriter(tmp_path, 20, 10)
    writer.write({"step": 30, "split": "train", "loss": 3.0})
    writer.close()
    kept = [(line["step"], line["split"]) for line in lines(tmp_path / "metrics.jsonl")]
    assert kept == [(10, "train"), (10, "validation"), (20, "train"), (30, "train")]


def test_tensorboard_events_can_be_read(tmp_path):
    import tensorflow as tf
    from tensorboardX.proto.event_pb2 import Event

    writer = MetricWriter(tmp_path, 0, 0)
    writer.write({"step": 7, "epoch": 0.5, "split": "train", "loss": 1.25})
    writer.close()
    (file,) = tmp_path.glob("events*")
    events = [Event.FromString(r) for r in tf.data.TFRecordDataset(str(file)).as_numpy_iterator()]
    scalars = {(e.step, v.tag): v.simple_value for e in events for v in e.summary.value}
    assert scalars == {(7, "train/epoch"): 0.5, (7, "train/loss"): 1.25}


def test_the_run_goes_on_without_tensorboard_when_its_events_cannot_be_written(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("training.writers._events_lost", [])
    writer = MetricWriter(tmp_path, 0, 0)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer._events.file_writer.event_writer._ev_writer, "write_event", full)
    for step in range(50):
        writer.write({"step": step, "split": "train", "loss": 1.0, "top1_error": 0.5})
        writer.write_picture("seen", np.zeros((2, 2, 3), np.uint8), step)
        time.sleep(0.01)
    writer.close()
    assert len(lines(tmp_path / "metrics.jsonl")) == 50
    assert "no more TensorBoard events" in capsys.readouterr().err


def test_pictures():
    """Images on one scale; kernels each on its own, the maps of one tower after the other's."""
    images = np.zeros((3, 2, 2, 3), np.float32)
    images[1] = 4.0
    images[2, 0, 0] = 2.0
    shown = picture(images)
    assert shown.dtype == np.uint8
    side = 48  # each pixel is enlarged to 24
    assert shown.shape == (2 * side + 2, 2 * side + 2, 3)
    assert shown[:side, :side].max() == 0
    assert shown[:side, -side:].min() == 255
    assert (shown[-side, 0] == 128).all()
    kernels = np.random.default_rng(0).normal(size=(2, 3, 3, 3, 4))
    both = picture_of_kernels(kernels)
    joined = np.concatenate(list(kernels), axis=-1)
    np.testing.assert_array_equal(both, picture_of_kernels(joined))
    np.testing.assert_array_equal(both, picture_of_kernels(joined * np.arange(1, 9)))
    grey = picture_of_kernels(joined[:, :, :1])
    assert (grey[..., 0] == grey[..., 1]).all()
    assert picture_of_kernels(np.ones((5, 5, 3, 2))).max() == 255  # the ground between flat kernels
    connected = joined.reshape(3 * 3 * 3, -1)
    np.testing.assert_array_equal(picture_of_kernels(connected), picture_of_kernels(joined))
    # As many maps as colours are maps.
    few, all_of_them = picture_of_kernels(connected[:, :3]), picture_of_kernels(joined)
    np.testing.assert_array_equal(few[:48, :98], all_of_them[:48, :98])


def test_no_number_is_null_in_json():
    line = to_json({"loss": float("nan"), "rate": float("inf"), "step": 3, "error": 0.5})
    assert json.loads(line) == {"loss": None, "rate": None, "step": 3, "error": 0.5}
    assert "NaN" not in line


@pytest.mark.parametrize(
    "seconds, text",
    [(0.2, "0 s"), (59.6, "1 min 0 s"), (3700, "1 h 1 min"), (90_000, "1 d 1 h")],
)
def test_durations_for_people(seconds, text):
    assert duration(seconds) == text


def test_a_clock_measures_only_training(monkeypatch):
    """Model FLOP utilisation is that of the steps: neither stops nor the first step count."""
    now = [0.0]
    monkeypatch.setattr("training.clock.time.perf_counter", lambda: now[0])
    clock = Clock(batch_size=10, flops=3e9, peak=100e9)
    assert clock.read() == {"images_per_second": 0.0, "data_wait": 0.0, "mfu": 0.0}
    now[0] += 60  # compiles
    clock.tick()
    for _ in range(4):
        with clock.waiting_for_data():
            now[0] += 0.1
        now[0] += 0.4
        clock.tick()
    with clock.stopped():
        now[0] += 100
    values = clock.read()
    assert values["images_per_second"] == pytest.approx(20)
    assert values["data_wait"] == pytest.approx(0.2)
    assert values["mfu"] == pytest.approx(20 * 3 / 100)
    for seconds, share in ((0.1, 1.0), (0.2, 0.5)):  # beyond the peak, then half of that
        now[0] += seconds
        clock.tick()
        assert clock.read()["mfu"] == pytest.approx(share)


STRANGE = [
    b"\xff\xfe no text",
    b"[1, 2]",
    b"7",
    b"{}",
    b'{"step": 5}',
    b'{"split": "train"}',
    b'{"step": "5", "split": "train"}',
    b'{"step": true, "split": "train"}',
    b'{"step": 5, "split": ["train"]}',
    b'{"step": 5, "spl',
    b"\x00\x00\x00",
    b"[" * 100_000,
]


@pytest.mark.parametrize("strange", STRANGE, ids=lambda line: repr(line[:20]))
def test_lines_that_are_no_metrics_are_kept_aside(tmp_path, capsys, strange):
    path = tmp_path / "metrics.jsonl"
    good = [
        {"step": 3, "split": "train", "loss": 1.0},
        {"step": 9, "split": "by hand", "note": "é"},  # nothing that comes again
    ]
    late = {"step": 6, "split": "train"}
    before = b"\n".join([*(json.dumps(line).encode() for line in (*good, late)), strange, b""])
    path.write_bytes(before)
    for _ in range(2):
        MetricWriter(tmp_path, 5, 0).close()
        assert lines(path) == good
    assert (tmp_path / "metrics-damaged-1.jsonl").read_bytes() == before
    assert not (tmp_path / "metrics-damaged-2.jsonl").exists()
    assert capsys.readouterr().out.count("metrics-damaged-1.jsonl") == 1


def test_a_last_line_that_only_lacks_its_end_counts(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 3, "split": "train"}')
    writer = MetricWriter(tmp_path, 5, 0)
    writer.write({"step": 6, "split": "train"})
    writer.close()
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == [3, 6]
    assert [path.name for path in tmp_path.glob("metrics*")] == ["metrics.jsonl"]
    path = tmp_path / "evaluations.jsonl"
    path.write_text('{"examples": 1}\n{"exam')
    append_line(path, '{"examples": 2}')
    assert path.read_text().splitlines() == ['{"examples": 1}', '{"exam', '{"examples": 2}']


@pytest.mark.parametrize(
    "content",
    [b"[]", b"", b"7", b'{"config": {"see', b"\xff\xfe", b'{"config": []}', b"[" * 100_000,
     b'{"config": {}, "dataset": [1]}', b"{}"],
    ids=lambda content: repr(content[:20]),
)  # fmt: skip
def test_a_config_that_is_none_is_named_and_stays(run, content):
    workdir, config = run
    (workdir / "config.json").write_bytes(content)
    for refused in (
        lambda: workdirs.check_continuation(workdir, config),
        lambda: workdirs.check_dataset(workdir, "f"),
        lambda: Trained.open(workdir),
    ):
        with pytest.raises(TrainingError, match=r"config\.json: damaged") as caught:
            refused()
        assert len(str(caught.value).splitlines()) == 1
    assert (workdir / "config.json").read_bytes() == content


def test_a_run_without_its_config_goes_on_and_that_is_said(run, capsys):
    workdir, config = run
    (workdir / "config.json").unlink()
    workdirs.check_continuation(workdir, config)
    assert "no config.json" in capsys.readouterr().out
    with pytest.raises(TrainingError, match="is needed to know the network"):
        Trained.open(workdir)


def test_a_run_whose_checkpoints_are_all_damaged_keeps_its_config(run):
    workdir, config = run
    (workdir / "damaged").mkdir()
    (workdir / "checkpoints" / "5").rename(workdir / "damaged" / "5")
    with pytest.raises(TrainingError, match="another config: seed"):
        workdirs.check_continuation(workdir, config | {"seed": 1})


@pytest.mark.parametrize(
    "name", [".DS_Store", "12 copy", "007", "step_5", "5 (conflicted copy)", "²", "5.replaced.bak"]
)
def test_what_is_no_checkpoint_is_none(tmp_path, name):
    (tmp_path / "checkpoints" / name).mkdir(parents=True)
    (tmp_path / "checkpoints" / "6").write_text("a file")
    (tmp_path / "damaged" / name).mkdir(parents=True)
    assert _classes_of_run(tmp_path) is None
    assert not workdirs.has_checkpoint(tmp_path)
    assert not workdirs.damaged_in(tmp_path)
    (tmp_path / "checkpoints" / "5.replaced").mkdir()
    assert workdirs.has_checkpoint(tmp_path)


def test_a_workdir_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "run" / ".lock").mkdir(parents=True)
    for workdir, message in (
        (tmp_path / "file", "file: a file, not a directory"),
        (tmp_path / "run", r"run: \.lock in it cannot be written"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(TrainingError, match=message), workdirs.locked(workdir):
            pass
    with pytest.raises(TrainingError, match=r"cannot be read \(File name too long"):
        workdirs.has_checkpoint(tmp_path / ("x" * 300))


def test_a_run_begins_although_another_process_looks_at_its_lock(tmp_path):
    """For an instant a report shares the lock, to know whether the run is in training."""
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / ".lock").touch()
    with open(tmp_path / ".lock", "rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        end = threading.Timer(0.1, fcntl.flock, (looking, fcntl.LOCK_UN))
        end.start()
        with workdirs.locked(tmp_path):
            assert workdirs.in_training(tmp_path)
        end.join()
    assert not workdirs.in_training(tmp_path)
