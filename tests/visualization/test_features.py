"""Files of features, against other ways to compute them."""

import dataclasses
import shutil
import tracemalloc
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import files
from configs.common import ConfigError
from input_pipeline import pixels_of
from tests.conftest import write_images
from tests.runs import drawn_run
from tests.visualization.pages import opened_run
from visualization import feature_files


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):  # threads of OpenMP that wait hinder other processes
        yield


def one_by_one(run, index):
    """Activations of conv2 and ip1 for the digits held out, an image at a time, uncompiled."""
    opened = opened_run(run)
    examples, found = opened.data().examples("validation"), {"conv2": [], "ip1": []}
    top, left, _ = opened.view
    side, mean = opened.trained.preprocessing.crop, opened.trained.normalization
    for number in index:
        content, _ = examples.read(int(number))
        pixels = pixels_of(content, opened.look.images, "").astype(np.float32)
        inputs = ((pixels - mean["mean"]) / mean["deviation"])[top:, left:][:side, :side]
        record = {}
        opened.model(jnp.asarray(inputs[None]), record=record)
        for layer in found:
            found[layer].append(np.asarray(record[layer][0]))
    return {layer: np.stack(values) for layer, values in found.items()}


def test_features_are_those_of_one_image_at_a_time(look, run, tmp_path):
    """77 images in batches of 30: of each the row, in the order of the split."""
    asked = ("features", run, "--layer=conv2,ip1", "--batch_size=30")
    code, printed, err = look(*asked, f"--out={tmp_path}")
    assert code == 0, err
    names = ["validation-conv2.npy", "validation-conv2.npz"]
    names += ["validation-ip1.npy", "validation-ip1.npz"]
    assert [line for line in printed if line.startswith("/")] == [str(tmp_path / n) for n in names]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for pool in ("average", "max"):
        assert look(*asked, f"--pool={pool}", "--limit=9", f"--out={tmp_path / pool}")[0] == 0
    with np.load(tmp_path / "validation-conv2.npz") as saved:
        about = dict(saved)
    np.testing.assert_array_equal(about["index"], np.arange(77))
    assert about["network"] == "lenet_caffe" and about["class_names"].tolist()[9] == "9"
    assert len(set(about["name"].tolist())) == 77 and about["label"].shape == (77,)
    with np.load(tmp_path / "max" / "validation-conv2-max.npz") as saved:
        few = saved["index"]
    before = (tmp_path / names[0]).read_bytes()
    code, _, err = look(*asked, "--limit=9", f"--out={tmp_path}")
    assert code == 2 and "holds 77 images, 68 of them not among these 9; remove it" in err, err
    assert (tmp_path / names[0]).read_bytes() == before
    assert len(few) == 9 and few.tolist() != list(range(9))
    expected = one_by_one(run, few)
    maps, flat = expected["conv2"], expected["ip1"]
    cases = {
        "validation-conv2.npy": maps.reshape(9, -1),
        "validation-ip1.npy": flat,
        "average/validation-conv2-average.npy": maps.mean(axis=(1, 2)),
        "max/validation-conv2-max.npy": maps.max(axis=(1, 2)),
        "max/validation-ip1.npy": flat,
    }
    for name, values in cases.items():
        found = np.load(tmp_path / name)
        assert found.dtype == np.float32
        rows = found if len(found) == 9 else found[few]
        np.testing.assert_allclose(rows, values, rtol=1e-4, atol=1e-4 * np.abs(values).max())


def made_of(batches, width, stopped_at=None):
    """A network's place is taken by random numbers: 100 rows a batch."""

    def activations(layers, **which):
        for number in range(batches):
            if number == stopped_at:
                raise KeyboardInterrupt
            rows = np.full((100, width), number, np.float32)
            index = number * 100 + np.arange(100)
            yield {"fc7": rows}, {"index": index, "label": np.zeros(100, np.int32)}

    examples = SimpleNamespace(name=str)
    data = SimpleNamespace(examples=lambda split: examples, class_names=("a",))
    return SimpleNamespace(activations=activations, data=lambda split: data)


def write(path, batches, width, **options):
    about = {path: {"layer": "fc7", "pool": "none"}}
    chosen = np.arange(batches * 100)
    feature_files.compute(made_of(batches, width, **options), "test", about, chosen)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_split(tmp_path):
    """NumPy's allocations while 4 and 64 batches of 2 MB are written."""
    path, peaks = tmp_path / "test-fc7.npy", {}
    for batches in (4, 64):
        tracemalloc.start()
        write(path, batches, 5000)
        _, peaks[batches] = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert path.stat().st_size > 64 * 2e6
    # Of each image its number, label and name are kept.
    assert peaks[64] - peaks[4] < 6000 * 500, peaks
    kept = feature_files.read(path)
    assert kept.values.shape == (6400, 5000)
    np.testing.assert_array_equal(kept.values[:, 0], kept.index // 100)
    np.testing.assert_array_equal(kept.rows(np.array([6399, 200]))[:, -1], [63, 2])


@pytest.mark.quick
def test_what_is_interrupted_leaves_the_files_that_were_there(tmp_path):
    path = tmp_path / "test-fc7.npy"
    with pytest.raises(KeyboardInterrupt):
        write(path, 3, 4, stopped_at=2)
    assert not list(tmp_path.iterdir())
    write(path, 2, 4)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write(path, 3, 4, stopped_at=1)
    assert path.read_bytes() == before and len(feature_files.read(path).index) == 200
    assert len(list(tmp_path.iterdir())) == 2


def test_features_of_another_network_or_of_other_data(look, tmp_path, private_cache):
    network = drawn_run(
        tmp_path / "run",
        "--config=configs/lenet5.py:caffe",
        "--config.data.name=digits",
        "--config.data.validation_examples=77",
        steps=(1, 2),
    )
    assert look("features", network, "--layer=ip1", "--split=train", "--limit=8")[0] == 0
    assert (network / "features" / "train-ip1.npy").exists()
    asked = ("linear", network, "--per_class=2", "--layers=ip1", "--constants=1")
    code, _, err = look(*asked, "--checkpoint=1")
    assert code == 2 and f"features of another network, lenet_caffe of {network} at step 2" in err
    assert f"and this is lenet_caffe of {network} at step 1" in err
    data = write_images(tmp_path / "data", {"train/a": 5, "train/b": 5})
    code, _, err = look(*asked, "--data_name=folder", f"--data_dir={data}")
    assert (
        code == 2 and "features of other data, train of digits, and this is train of folder" in err
    )
    code, _, err = look(*asked, "--splits=1")  # more images: those that were there stay
    assert code == 0, err
    assert len(feature_files.read(network / "features" / "train-ip1.npy").index) > 20
    (network / "features" / "train-ip1.npz").unlink()
    code, _, err = look(*asked)
    assert code == 2 and "no features with their description" in err


@pytest.mark.quick
def test_a_description_of_other_rows_is_refused(tmp_path):
    """As when a process is killed between its two files, or two write at once."""
    one, other = tmp_path / "one" / "test-fc7.npy", tmp_path / "other" / "test-fc7.npy"
    for path, width in ((one, 4), (other, 5)):
        path.parent.mkdir()
        write(path, 2, width)
    shutil.copy(other, one)
    with pytest.raises(ConfigError, match="no features with their description"):
        feature_files.read(one)


@pytest.mark.quick
def test_one_process_writes_features_at_a_time(tmp_path):
    path = tmp_path / "test-fc7.npy"
    write(path, 2, 4)
    before = path.read_bytes()
    with (
        files.locked(tmp_path, directory=True),
        pytest.raises(ConfigError, match="another process is writing features there; wait"),
    ):
        write(path, 3, 4)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 2
    write(path, 3, 4)
    assert len(feature_files.read(path).index) == 300


def test_features_are_told_apart_by_crop_layer_and_pool(look, run, tmp_path):
    opened = opened_run(run)
    made = opened.trained.preprocessing
    trained = dataclasses.replace(opened.trained, preprocessing=dataclasses.replace(made, pad=1))
    other = dataclasses.replace(opened, trained=trained)
    digests = [feature_files.about(o, "train", "conv2", "max")["digest"] for o in (opened, other)]
    assert len(set(digests)) == 2
    asked = ("features", run, "--layer=conv2", "--limit=3", f"--out={tmp_path}")
    assert look(*asked, "--pool=max")[0] == 0
    for suffix in ("npy", "npz"):
        (tmp_path / f"validation-conv2-max.{suffix}").rename(
            tmp_path / f"validation-conv2-average.{suffix}"
        )
    with pytest.raises(ConfigError, match="features of layer conv2 with --pool=max"):
        of = feature_files.about(opened, "validation", "conv2", "average")
        feature_files.check(feature_files.read(tmp_path / feature_files.file_name(of)), of)


def test_choices_of_the_runs_own_images_are_not_made_of_others(look, tmp_path, private_cache):
    """Five a class, three of ten classes, folds: of the digits alone."""
    network = drawn_run(
        tmp_path / "run",
        "--config=configs/lenet5.py:caffe",
        "--config.data.name=digits",
        "--config.data.classes=(3, 5, 7)",
        "--config.data.train_examples_per_class=5",
    )
    counts = {"train/a": 8, "train/b": 7, "train/c": 1, "train/d": 2, "val/a": 2}
    data = write_images(tmp_path / "data", counts)
    named = ("--data_name=folder", f"--data_dir={data}", "--split=train")
    code, _, err = look("features", network, *named, "--layer=ip1", f"--out={tmp_path}")
    assert code == 0, err
    labels = feature_files.read(tmp_path / "train-ip1.npy").label
    assert np.bincount(labels).tolist() == [8, 7, 1, 2]
    assert opened_run(network).data("train").examples("train").count == 15


def test_a_missing_path_is_no_file(look, tmp_path):
    code, _, err = look("features", tmp_path / "typo", "--checkpoint=best")
    assert code == 2 and "is a file" not in err and "typo" in err
    code, _, err = look("features", "lenet5-mnist", "--checkpoint=best")
    assert code == 2 and "is a file; leave it out" in err
