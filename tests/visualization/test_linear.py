"""Linear classifiers on features, against scikit-learn called directly."""

import errno
import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

import files
from configs.common import ConfigError
from tests.conftest import write_images
from tests.visualization.pages import opened_run
from visualization import classifiers, feature_files, linear


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):  # threads of OpenMP that wait hinder other processes
        yield


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


def by_scikit_learn(features, labels, drawn, kind, constants=(0.1, 10, 1000), folds=4):
    """Mean class accuracy with scikit-learn alone: pipelines, folds one by one."""
    x, y = features[drawn.train], labels[drawn.train]
    best, folds = None, StratifiedKFold(folds, shuffle=True, random_state=5)
    for constant in constants:
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
    opened = opened_run(run)
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
        (
            ["--per_class=9999"],
            "--per_class=9999 needs 9999 images each; 10 classes of train have fewer: 0 (1",
        ),
        (["--layers="], "--layers: an empty text names nothing"),
        (["--layer=ip1"], "'--layer=ip1' is not understood; did you mean --layers? --help says"),
        (["--split=all"], "--split=all: training and test images are drawn from it at random"),
        (["--splits=2"], "--splits is of random splits, which need --per_class=K"),
        (["--per_class=1"], "cross-validation needs two training images of every class"),
        (["--constants=0"], "argument --constants: 0: numbers above 0"),
        (["--constants=1,x"], "argument --constants: 1,x: numbers above 0"),
        (["--seed=4294967296"], "argument --seed: 4294967296: below 2^32"),
        (["--folds=1.5"], "argument --folds: 1.5: no whole number"),
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


def test_all_splits_together_with_classes_of_unequal_size(look, run, tmp_path):
    """One training image is damaged: it has no row, and its number shifts no other."""
    counts = {"train/a": 16, "train/b": 10, "val/a": 9, "val/b": 5}
    data = write_images(tmp_path / "data", counts)
    (data / "train" / "a" / "3.jpg").write_bytes(b"no JPEG")  # the tenth by name
    asked = ("--per_class=8", "--test_per_class=50", "--splits=2", "--folds=9", "--seed=5")
    asked += ("--layers=ip1,ip1", "--constants=0.1,10", f"--features={tmp_path}")
    asked += (f"--out={tmp_path}", "--data_name=folder", f"--data_dir={data}")
    code, printed, err = look("linear", run, "--split=all", *asked)
    assert code == 0, err
    assert sum(line.startswith("ip1 ") for line in printed) == 1
    kept = [feature_files.read(tmp_path / f"{split}-ip1.npy") for split in ("train", "validation")]
    assert [len(part.index) for part in kept] == [25, 14] and kept[0].unreadable.tolist() == [9]
    labels = np.repeat([0, 1, 0, 1], list(counts.values()))
    features = np.zeros((40, kept[0].values.shape[1]), np.float32)
    for part, begin in zip(kept, (0, 26), strict=True):
        features[begin + part.index] = part.values
        np.testing.assert_array_equal(labels[begin + part.index], part.label)
    drawn = []
    for number in (0, 1):
        one = classifiers.draw_images(labels, None, 8, 50, (5, number))
        drawn.append(classifiers.Drawn(one.train[one.train != 9], one.test[one.test != 9]))
    # Drawn in both splits, and counted once.
    assert "note: 1 of the images drawn cannot be read, and are left out" in printed
    report = json.loads(printed[-1])
    sizes = [report["train_examples"], report["test_examples"]]
    assert sizes == [len(drawn[0].train), len(drawn[0].test)] and sum(sizes) == 39
    for kind in classifiers.KINDS:
        found = report["layers"]["ip1"][kind]
        for one, accuracy, constant in zip(
            drawn, found["accuracies"], found["constants"], strict=True
        ):
            folds = int(np.bincount(labels[one.train]).min())  # of nine that were asked for
            expected = by_scikit_learn(features, labels, one, kind, (0.1, 10), folds)
            assert (pytest.approx(accuracy, abs=1e-12), constant) == expected
        assert found["deviation"] == pytest.approx(np.std(found["accuracies"], ddof=1))
        at_end = any(f"ip1, {name}: C=" in line for line in printed for name in TITLES[kind])
        assert at_end  # of two constants each is an end


TITLES = {"svm": ["linear SVM"], "logistic": ["logistic regression"]}


@pytest.mark.parametrize(
    "damaged, said",
    [(range(6), "images of one class only"), (range(5), "cross-validation needs two training")],
)
def test_too_few_images_that_can_be_read(look, run, tmp_path, damaged, said):
    data = write_images(tmp_path / "data", {"train/a": 6, "train/b": 6, "val/a": 2, "val/b": 2})
    for number in damaged:
        (data / "train" / "a" / f"{number}.jpg").write_bytes(b"no JPEG")
    named = ("--data_name=folder", f"--data_dir={data}", f"--features={tmp_path}")
    code, _, err = look("linear", run, *named, "--layers=ip1", f"--out={tmp_path}")
    assert code == 2 and "folder, without what is unreadable: " in err and said in err, err


def test_only_images_that_are_used_are_computed(look, run, tmp_path):
    """Also where a file of another layer holds more."""
    places = (f"--features={tmp_path}", f"--out={tmp_path}")
    whole = ("features", run, "--layer=ip1", "--split=train", f"--out={tmp_path}")
    assert look(*whole)[0] == 0
    asked = ("--layers=ip1,conv1", "--pool=max", "--per_class=2", "--splits=1", "--constants=1")
    code, printed, err = look("linear", run, *asked, "--test_per_class=1", *places)
    assert code == 0, err
    kept = feature_files.read(tmp_path / "train-conv1-max.npy")
    assert len(kept.index) == 20 and len(feature_files.read(tmp_path / "train-ip1.npy").index) > 999
    report = json.loads(printed[-1])
    assert (report["train_examples"], report["test_examples"]) == (20, 10)


def test_an_image_that_one_layer_lacks_is_left_out_of_all(look, run, tmp_path):
    """As when it could not be read at one time, and could at another."""
    asked = ("linear", run, "--per_class=2", "--splits=1", "--constants=1", "--pool=max")
    asked += ("--layers=conv1,ip1", f"--features={tmp_path}", f"--out={tmp_path}")
    assert look(*asked)[0] == 0
    path = tmp_path / "train-ip1.npy"
    values, of = np.load(path), dict(np.load(path.with_suffix(".npz")))
    lost, rows = of["index"][7], np.arange(len(values)) != 7
    np.save(path, values[rows])
    of |= {name: of[name][rows] for name in ("index", "label", "name")}
    of |= {"unreadable": lost[None], "rows": np.array(feature_files._digest(path))}
    np.savez(path.with_suffix(".npz"), **of)
    code, printed, err = look(*asked)
    assert code == 0, err
    assert "note: 1 of the images drawn cannot be read, and are left out" in printed
    assert json.loads(printed[-1])["train_examples"] == 19


@pytest.mark.parametrize("other", ["images", "network"])
def test_what_another_process_replaced_is_noticed(look, run, tmp_path, monkeypatch, other):
    """After this one has written it, and before it reads it."""
    compute = feature_files.compute

    def followed(opened, split, paths, chosen):
        compute(opened, split, paths, chosen)
        if other == "network":
            paths = {path: {**of, "digest": "0"} for path, of in paths.items()}
        compute(opened, split, paths, chosen if other == "network" else chosen[:5])

    monkeypatch.setattr(feature_files, "compute", followed)
    asked = ("--layers=ip1", "--per_class=2", "--splits=1", "--constants=1")
    code, _, err = look("linear", run, *asked, f"--features={tmp_path}", f"--out={tmp_path}")
    assert code == 1 and "replaced by another process; run this again" in err
    assert not (tmp_path / "linear.json").exists()


def test_a_place_that_cannot_be_written_is_said_before_the_work(look, run, tmp_path):
    (tmp_path / "linear.png").mkdir()
    code, printed, err = look(
        "linear", run, "--layers=ip1", f"--features={tmp_path}", f"--out={tmp_path}"
    )
    assert code == 1 and "linear.png: is a directory; name another place with --out" in err
    assert not printed and not list(tmp_path.glob("*.npy"))


def test_features_are_read_where_nothing_can_be_written(look, run, tmp_path, monkeypatch):
    """As those in the run of somebody else; what is missing there cannot be added."""
    features, out = tmp_path / "features", tmp_path / "out"
    asked = ("linear", run, "--per_class=2", "--splits=1", "--constants=1", f"--out={out}")
    asked += (f"--features={features}",)
    assert look(*asked, "--layers=ip1")[0] == 0
    check = files.check_writable

    def read_only(directory):
        if directory == features:
            raise OSError(errno.EROFS, "Read-only file system")
        check(directory)

    monkeypatch.setattr(files, "check_writable", read_only)
    assert look(*asked, "--layers=ip1")[0] == 0
    code, _, err = look(*asked, "--layers=conv1")
    assert code == 1 and "features: cannot be written (Read-only file system)" in err
    assert "name a place with --features" in err


def test_a_network_that_gives_no_numbers(look, run, tmp_path):
    features = tmp_path
    asked = ("linear", run, "--layers=ip1", "--per_class=2", "--splits=1", "--constants=1")
    asked += (f"--features={tmp_path}", f"--out={tmp_path}")
    assert look(*asked)[0] == 0
    for split in ("validation", "train"):
        path = features / f"{split}-ip1.npy"
        values = np.load(path)
        values[5:] = np.nan
        np.save(path, values)
        of = dict(np.load(path.with_suffix(".npz")))
        of["rows"] = np.array(feature_files._digest(path))
        np.savez(path.with_suffix(".npz"), **of)
        code, _, err = look(*asked)
        assert code == 1 and f"{split}-ip1.npy: features that are infinite or no numbers" in err


def test_memory_is_counted_before_the_work(monkeypatch):
    """40 bytes a number: of 1 GiB, 5,000 rows take 5,368 numbers each."""
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**18}
    monkeypatch.setattr(linear.os, "sysconf", sizes.get)
    linear.check_size(5000, 5368, "fc7")
    with pytest.raises(ConfigError, match="training on 5,000 x 5,369 numbers takes about 1 GiB"):
        linear.check_size(5000, 5369, "fc7")


@pytest.mark.quick
@pytest.mark.parametrize("kind", classifiers.KINDS)
def test_the_constant_is_that_of_the_highest_mean_class_accuracy(kind):
    """Of 80 and 20 images: plain accuracy would choose one that always says the first class."""
    rng, constants = np.random.default_rng(2), (0.01, 1.0, 100.0)
    labels = np.repeat([0, 1], [80, 20]).astype(np.int32)
    angle = rng.normal(np.where(labels == 0, 0.0, 0.5), 0.35)
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    folds, best = StratifiedKFold(4, shuffle=True, random_state=0), {}
    for scoring in ("accuracy", "balanced_accuracy"):
        found = [
            cross_val_score(
                classifiers.classifier(kind, c), features, labels, cv=folds, scoring=scoring
            ).mean()
            for c in constants
        ]
        best[scoring] = constants[int(np.argmax(found))]
    assert best["accuracy"] != best["balanced_accuracy"]
    chosen = classifiers.fit(kind, features, labels, constants, 4, 0)
    assert chosen.constant == best["balanced_accuracy"] and chosen.converged


@pytest.mark.parametrize("kind", classifiers.KINDS)
def test_a_training_that_ends_before_it_converged_is_said(look, run, tmp_path, monkeypatch, kind):
    monkeypatch.setitem(classifiers._STEPS, kind, 1)
    asked = ("--layers=ip1", "--per_class=20", "--splits=1", "--constants=0.1")
    code, printed, err = look("linear", run, *asked, f"--features={tmp_path}", f"--out={tmp_path}")
    assert code == 0, err
    said = [line for line in printed if line.endswith("a training ended before it converged")]
    assert said == [f"note: ip1, {TITLES[kind][0]}: a training ended before it converged"]
    assert json.loads(printed[-1])["layers"]["ip1"][kind]["converged"] is False
