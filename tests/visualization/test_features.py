"""Files of features and linear classifiers on them, against other ways to compute both."""

import json
import tracemalloc
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from input_pipeline import pixels_of
from tests.conftest import write_images
from tests.runs import drawn_run
from visualization import classifiers, feature_files


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):  # threads of OpenMP that wait hinder other processes
        yield


def one_by_one(run, index):
    """Activations of conv2 and ip1 for the digits held out, an image at a time, uncompiled."""
    from visualization import command_line
    from visualization.opening import open_run_or_file

    opened = open_run_or_file(command_line.make_parser("").parse_args([str(run)]))
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


@pytest.mark.quick
def test_random_splits():
    """Of each class so many, disjoint, at most so many to test on; fewer are among more."""
    labels = np.random.default_rng(0).permutation(np.repeat([0, 3, 4], [9, 20, 70]))
    few = classifiers.draw_images(labels, None, 5, 10, (7, 0))
    assert np.bincount(labels[few.train]).tolist() == [5, 0, 0, 5, 5]
    assert np.bincount(labels[few.test]).tolist() == [4, 0, 0, 10, 10]
    assert not np.intersect1d(few.train, few.test).size
    more = classifiers.draw_images(labels, labels, 8, 10, (7, 0))
    assert np.isin(few.train, more.train).all()
    other = classifiers.draw_images(labels, None, 5, 10, (7, 1))
    assert not np.array_equal(other.train, few.train)


def by_scikit_learn(features, labels, drawn, kind):
    """Mean class accuracy with scikit-learn alone: pipelines, folds one by one."""
    x, y = features[drawn.train], labels[drawn.train]
    best, folds = None, StratifiedKFold(4, shuffle=True, random_state=5)
    for constant in (0.1, 10, 1000):
        model = LinearSVC(C=constant, random_state=5, max_iter=20_000)
        if kind == "logistic":
            model = LogisticRegression(C=constant, max_iter=2_000)
        whole = make_pipeline(Normalizer(), model)
        score = cross_val_score(whole, x, y, cv=folds, scoring="balanced_accuracy").mean()
        if best is None or score > best[0]:
            best = score, constant, whole
    predicted = best[2].fit(x, y).predict(features[drawn.test])
    return balanced_accuracy_score(labels[drawn.test], predicted), best[1]


def test_accuracies_are_those_of_scikit_learn(look, run, tmp_path):
    """Two random splits of the digits that are not held out; then from the files that they made."""
    asked = (
        "--per_class=12",
        "--test_per_class=30",
        "--splits=2",
        "--folds=4",
        "--constants=0.1,10,1000",
        "--seed=5",
    )
    asked += ("--layers=conv2", "--pool=max", f"--features={tmp_path}", f"--out={tmp_path}")
    code, printed, err = look("linear", run, "--split=train", *asked)
    assert code == 0, err
    report = json.loads(printed[-1])
    assert report == json.loads((tmp_path / "linear.json").read_text())
    assert report["train_examples"] == 120 and report["splits"] == 2
    kept = feature_files.read(tmp_path / "train-conv2-max.npy")
    whole = digits_of(run)
    features = np.zeros((len(whole), kept.values.shape[1]), np.float32)
    features[kept.index] = kept.values
    np.testing.assert_array_equal(whole[kept.index], kept.label)
    for kind in classifiers.KINDS:
        found = report["layers"]["conv2"][kind]
        for number in (0, 1):
            drawn = classifiers.draw_images(whole, None, 12, 30, (5, number))
            accuracy, constant = by_scikit_learn(features, whole, drawn, kind)
            assert found["constants"][number] == constant
            assert found["accuracies"][number] == pytest.approx(accuracy, abs=1e-12)
        assert found["accuracy"] == pytest.approx(np.mean(found["accuracies"]))
    stored = (tmp_path / "train-conv2-max.npy").read_bytes()
    assert look("linear", run, "--split=train", *asked)[1][-1] == printed[-1]
    assert (tmp_path / "train-conv2-max.npy").read_bytes() == stored


def digits_of(run):
    """Labels of the digits that are not held out."""
    from visualization import command_line
    from visualization.opening import open_run_or_file

    opened = open_run_or_file(command_line.make_parser("").parse_args([str(run)]))
    examples = opened.data("train").examples("train")
    return np.array([examples.read(number)[1] for number in range(examples.count)])


@pytest.mark.slow
def test_train_and_test_as_they_are(look, run, tmp_path):
    """Without --per_class: trained on all of train, tested on what is held out."""
    places = (f"--features={tmp_path}", f"--out={tmp_path}")
    code, printed, err = look("linear", run, "--layers=ip1", "--constants=1", *places)
    assert code == 0, err
    report = json.loads(printed[-1])
    train, test = (feature_files.read(tmp_path / f"{n}-ip1.npy") for n in ("train", "validation"))
    assert (report["train_examples"], report["test_examples"]) == (1720, 77)
    assert len(train.index) == 1720 and len(test.index) == 77
    model = make_pipeline(Normalizer(), LinearSVC(C=1, random_state=0)).fit(
        train.values, train.label
    )
    expected = balanced_accuracy_score(test.label, model.predict(test.values))
    found = report["layers"]["ip1"]["svm"]
    assert found["accuracy"] == pytest.approx(expected) and found["deviation"] is None


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--layers=conv9"], "--layers=conv9: no such layer; did you mean conv2? there are grey"),
        (["--per_class=9999"], "--per_class=9999: 10 classes of train have fewer images: 0 (1"),
        (["--split=all"], "--split=all: training and test images are drawn from it at random"),
        (["--splits=2"], "--splits is of random splits, which need --per_class=K"),
        (["--per_class=1"], "cross-validation needs two training images of every class"),
        (["--constants=0"], "argument --constants: 0: numbers above 0"),
    ],
    ids=str,
)
def test_faults_are_named(look, run, tmp_path, arguments, message):
    code, _, err = look("linear", run, f"--out={tmp_path}", f"--features={tmp_path}", *arguments)
    assert code == 2 and message in err, err
    assert len(err.splitlines()) <= 2
    assert not list(tmp_path.iterdir())


def test_images_without_labels(look, run, tmp_path):
    data = write_images(tmp_path / "data", {"train/a": 3, "train/b": 3, "test": 2})
    named = ("--data_name=folder", f"--data_dir={data}", "--split=test")
    code, _, err = look("features", run, *named, "--layer=ip1", f"--out={tmp_path}")
    assert code == 0, err
    assert feature_files.read(tmp_path / "test-ip1.npy").label.tolist() == [-1, -1]
    code, _, err = look("linear", run, *named, f"--out={tmp_path}")
    assert code == 2 and "2 of 2 images of test have no label; choose another --split" in err, err


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
