"""Averages of scores, weights that are searched for, and what does not go together."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from evaluation import Scores, commands, ensemble, metrics, score_files

pytestmark = pytest.mark.quick


def log_probabilities(values):
    powers = np.exp(values)
    return np.log(powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def write(path, scores, label, *, split="validation", names=None, class_names="abcdefghij"):
    index = np.arange(len(label), dtype=np.int32)
    names = names or [f"/data/{i}.jpg" for i in index]
    score_files.write_scores(
        path, Scores(index, scores, label.astype(np.int32)), names.__getitem__, 7, "digest",
        split=split, protocol="center_crop", class_names=class_names,
    )  # fmt: skip
    return str(path)


@pytest.fixture
def three(tmp_path):
    """Two networks that know something, and one that is noise and sure of it."""
    rng, count = np.random.default_rng(0), 400
    label = rng.integers(0, 10, count)
    known = 2.0 * np.eye(10)[label]
    strength = (1.0, 1.0, 6.0)
    values = [
        log_probabilities(known * (s < 2) + s * rng.normal(size=(count, 10))) for s in strength
    ]
    runs = []
    for number, scores in enumerate(values):
        runs.append(tmp_path / f"run{number}")
        (runs[-1] / "scores").mkdir(parents=True)
        write(runs[-1] / "scores" / "validation-center_crop.npz", scores, label)
    return [str(run) for run in runs], values, label


def said(capsys, *arguments):
    code = commands.ended(ensemble.run, arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_errors_of_each_and_of_the_mean(three, capsys, tmp_path):
    runs, values, label = three
    out = tmp_path / "mean.npz"
    code, printed, _ = said(capsys, *runs, f"--out={out}")
    assert code == 0
    found = json.loads(printed.splitlines()[-1])
    for member, scores in zip(found["members"], values, strict=True):
        order = np.argsort(-scores, axis=1)
        assert member["top1_error"] == (order[:, 0] != label).mean()
        missed = ~(order[:, :5] == label[:, None]).any(axis=1)
        assert member["top5_error"] == missed.mean()
    mean = np.mean([np.exp(v) for v in values], axis=0)
    assert found["mean"]["top1_error"] == (mean.argmax(axis=1) != label).mean()
    kept = score_files.read_scores(out)
    np.testing.assert_allclose(np.exp(kept.scores.scores), mean, rtol=1e-5)
    assert metrics.means(kept.scores)["top1_error"] == pytest.approx(found["mean"]["top1_error"])


def test_searched_weights_leave_out_the_noise(three, capsys):
    """Found on one half and reported on the other, which is better for it."""
    runs, _, _ = three
    _, printed, _ = said(capsys, *runs, "--weights=search", "--error=top1")
    found = json.loads(printed.splitlines()[-1])
    assert found["examples"] == 200
    assert found["weights"][2] == 0 and min(found["weights"][:2]) > 0
    assert found["weighted"]["top1_error"] < found["mean"]["top1_error"] - 0.05
    again = said(capsys, *runs, "--weights=search", "--error=top1")[1]
    assert again == printed


def test_the_search_finds_a_planted_optimum():
    """Errors are how far weights are from (.8, .25, 0), whatever the others are at the time."""
    probabilities = [np.eye(3)[:, [member]] for member in range(3)]
    planted = np.array([0.8, 0.25, 0.0])
    asked = []

    def errors_of(total):
        asked.append(total[:, 0] / 20)
        return round(float(np.abs(asked[-1] - planted).sum() * 20))

    np.testing.assert_allclose(ensemble.search(probabilities, errors_of), planted)
    np.testing.assert_allclose(asked[0], 0.5)
    grid = np.array(asked) * 20
    np.testing.assert_allclose(grid, grid.round(), atol=1e-9)
    assert grid.min() == 0 and grid.max() == 20


def test_sums_of_the_search_lose_nothing_that_is_small():
    """Whatever was tried before, each sum is that of the weights: those are columns 0 and 1."""
    small = 1e-20
    probabilities = [np.array([[1, 0, 1, small]]), np.array([[0, 1, small, 1]])]

    def errors_of(total):
        (first, second, *mixed) = total[0].tolist()
        assert mixed == pytest.approx([first + small * second, second + small * first], 1e-12, 0)
        return round(abs(first - 4) + abs(second - 9))

    np.testing.assert_allclose(ensemble.search(probabilities, errors_of), [0.2, 0.45])


@pytest.mark.parametrize("options", [[], ["--weights=search"], ["--weights=1,3"]])
def test_small_probabilities_are_ranked(options, capsys, tmp_path):
    """The label is second, after class 0, with a probability below those of float32."""
    label = np.full(40, 9)
    scores = np.full((40, 10), -150, np.float32)
    scores[:, 0], scores[:, 9] = 0, -105
    assert not metrics.misses(jnp.asarray(scores), jnp.asarray(label), 2).any()
    paths = [write(tmp_path / f"{number}.npz", scores, label) for number in range(2)]
    out = tmp_path / "out.npz"
    code, printed, _ = said(capsys, *paths, *options, f"--out={out}")
    found = json.loads(printed.splitlines()[-1])
    assert code == 0 and found["mean"] == {"top1_error": 1, "top5_error": 0}
    assert all(member["top5_error"] == 0 for member in found["members"])
    assert found.get("weighted", found["mean"])["top5_error"] == 0
    np.testing.assert_allclose(score_files.read_scores(out).scores.scores, scores, atol=1e-5)


def test_errors_are_printed_where_the_average_cannot_be_written(three, capsys, tmp_path):
    runs, _, _ = three
    (tmp_path / "file").write_text("")
    code, printed, err = said(capsys, *runs, f"--out={tmp_path / 'file' / 'out.npz'}")
    assert code == 1 and "cannot be written" in err
    assert json.loads(printed.splitlines()[-1])["examples"] == 400


def test_given_weights_are_taken_where_there_are_no_labels(three, capsys, tmp_path):
    _, values, label = three
    files = [
        write(tmp_path / f"test-{number}.npz", v, -np.ones_like(label), split="test")
        for number, v in enumerate(values)
    ]
    out = tmp_path / "out.npz"
    assert said(capsys, *files, "--weights=1,0.5,0", f"--out={out}")[0] == 0
    expected = (np.exp(values[0]) + 0.5 * np.exp(values[1])) / 1.5
    np.testing.assert_allclose(np.exp(score_files.read_scores(out).scores.scores), expected, 1e-5)
    code, _, err = said(capsys, *files, "--weights=search")
    assert code == 2 and "no labels to find weights by" in err


def test_scores_that_do_not_go_together_are_named(three, capsys, tmp_path):
    runs, values, label = three
    other = label.copy()
    other[3] = (label[3] + 1) % 10
    names = [f"/elsewhere/{i}.jpg" for i in range(400)]
    for name, message, changed in (
        ("split", "of the splits validation and test", {"split": "test"}),
        ("classes", "other classes, or in another order (a, b)", {"class_names": "bacdefghij"}),
        ("label", "number 3 is /data/3.jpg of class", {"label": other}),
        ("name", "number 0 is /data/0.jpg", {"names": ["x.jpg", *names[1:]]}),
        ("count", "of other examples (400 and 399; 399 is in one", {"count": 399}),
        ("fewer", "scores of 10 and 9 classes", {"width": 9}),
    ):
        count, width = changed.pop("count", 400), changed.pop("width", 10)
        given = changed.pop("label", label)[:count]
        path = tmp_path / f"{name}.npz"
        write(path, values[0][:count, :width], given, **changed)
        code, _, err = said(capsys, runs[0], str(path))
        assert code == 2 and message in err and str(path) in err, err
        assert len(err.splitlines()) == 1
    elsewhere = write(tmp_path / "same.npz", values[1], label, names=names)
    assert said(capsys, runs[0], elsewhere)[0] == 0  # of the same files in another place
    for arguments, message in (
        ([runs[0], str(tmp_path / "none.npz")], "none.npz: no such run and no such file of scores"),
        ([runs[0], runs[1], "--protocol=dense"], "no scores of --protocol=dense in"),
        ([runs[0], runs[0]], "named twice"),
        ([*runs, "--weights=1,2"], "--weights=1,2: equal, search, or 3 numbers"),
    ):
        code, _, err = said(capsys, *arguments)
        assert code == 2 and message in err, err
    write(tmp_path / "run0" / "scores" / "test-center_crop.npz", values[0], label, split="test")
    code, _, err = said(capsys, *runs)
    assert code == 2 and "several files of scores" in err
    assert said(capsys, *runs, "--split=validation")[0] == 0
    # What is damaged and not wanted, and what systems leave behind, is in nobody's way.
    for name in ("test-center_crop", "._validation-center_crop", "validation-dense"):
        (tmp_path / "run0" / "scores" / f"{name}.npz").write_bytes(b"\0\5\26\7")
    assert said(capsys, *runs, "--split=validation", "--protocol=center_crop")[0] == 0
    code, _, err = said(capsys, *runs, "--split=test")
    assert code == 2 and "test-center_crop.npz: no file of scores, or damaged" in err
    (tmp_path / "damaged.npz").write_bytes(b"PK\3\4 no more")
    code, _, err = said(capsys, str(tmp_path / "damaged.npz"))
    assert code == 2 and "damaged.npz: no file of scores, or damaged" in err
