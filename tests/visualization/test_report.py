"""A page that shows a run."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from evaluation import Scores
from evaluation.score_files import write_scores
from tests.runs import drawn_run
from tests.visualization.pages import (
    Page,
    change,
    check,
    metrics,
    opened_run,
    run_of,
    without_data,
    write_lines,
)
from training import workdir as workdirs
from visualization import records

# The smallest network on canvases with digits.
BOXES = [
    "--config=configs/convnet.py:conv_relu_pool_fc",
    "--config.model.kernels=2",
    "--config.data.name=digit_canvases",
    "--config.data.boxes.count=3",
    "--config.data.resize=12",
    "--config.data.pad=0",
    "--config.data.crop=12",
]


def test_shows_a_run(look, run, tmp_path):
    """Numbers are those of the files; the matrix counts what the network guesses."""
    workdir = run_of(run, tmp_path)
    change(workdir, command=["main.py", "--config=configs/lenet5.py:caffe", "--config.seed=0"])
    evaluated = {"split": "test", "protocol": "center_crop", "checkpoint": 1, "examples": 360,
                 "top1_error": 0.875, "top5_error": 0.5, "loss": 2.25}  # fmt: skip
    later = evaluated | {"split": "validation", "top1_error": 0.625}
    write_lines(workdir / "evaluations.jsonl", [evaluated, later])
    code, printed, err = look("report", workdir, "--limit=5000")
    assert code == 0, err
    assert printed == [str(workdir / "pictures" / "report.html")]
    page = Page(Path(printed[0]))
    check(page)
    lines = [line for line in metrics(12) if line["split"] == "validation"]
    assert page.tables["validation, from metrics.jsonl"][1:] == [
        [f"{m['step']}", f"{m['epoch']:.4g}", f"{m['loss']:.4f}", f"{m['top1_error']:.2%}",
         "25.00%", f"{m['learning_rate']:.4g}"]
        for m in lines
    ]  # fmt: skip
    assert page.tables["evaluations.jsonl"][1:] == [
        ["test", "87.50%", "50.00%", "2.2500", "center_crop", "360", "1"],
        ["validation", "62.50%", "50.00%", "2.2500", "center_crop", "360", "1"],
    ]
    assert "<dt>evaluated, validation</dt><dd>62.50%<" in page.text
    assert page.tables["overridden, of configs/lenet5.py:caffe"][1:] == [["seed", "0"]]

    opened = opened_run(workdir)
    expected = np.zeros((10, 10), int)
    for batch in opened.images():
        logits = opened.model(opened.inputs(batch["image"]))
        np.add.at(expected, (batch["label"], np.asarray(logits).argmax(axis=1)), 1)
    found = np.array([row[1:] for row in page.tables["images by true and guessed class"][1:]], int)
    np.testing.assert_array_equal(found, expected)
    share = 1 - np.trace(expected) / expected.sum()
    assert f"wrong first guesses ({share:.2%}) among all {expected.sum()} images of" in page.text
    assert len(page.images) == 1 + 8 + 8
    layers = page.tables["window is size/stride; sees is the receptive field in pixels"]
    assert sum(int(row[4].replace(",", "")) for row in layers[1:]) == sum(
        leaf.size for leaf in jax.tree.leaves(opened.trained.params)
    )


@pytest.mark.parametrize(
    "lines, said, without",
    [
        ([], "Not finished: step 1 ", "without curves: metrics.jsonl has no line yet"),
        (metrics(1)[:1], "Still running: step 10 ", "without evaluations: --mode=evaluate"),
        ([{**m, "loss": None} for m in metrics(2)], "Not finished: step 25 ", "without eval"),
    ],
    ids=["no metrics", "one line, running", "no number"],
)
def test_names_what_a_run_does_not_have(look, run, tmp_path, lines, said, without):
    workdir = run_of(run, tmp_path, lines=lines)
    without_data(workdir)
    with workdirs.locked(workdir if "running" in said else tmp_path / "other"):
        code, printed, err = look("report", workdir)
    assert code == 0, err
    assert any(line.startswith(without) for line in printed)
    for part in ("guesses", "mistakes", "confusion"):
        assert any(x.startswith(f"without {part}: ") and "--data_dir" in x for x in printed)
    page = Page(Path(printed[-1]))
    check(page)
    assert said in page.text
    assert len(page.images) == 1  # the kernels
    assert ("<circle" in page.text) == (len(lines) > 0)  # a single point is seen


def test_a_damaged_file_of_scores_that_was_not_asked_for(look, run, tmp_path):
    workdir = run_of(run, tmp_path)
    (workdir / "scores").mkdir()
    (workdir / "scores" / "test-center_crop.npz").write_bytes(b"PK")
    code, printed, err = look("report", workdir, "--split=validation", "--limit=9")
    assert code == 0, err
    assert not any(line.startswith("without guesses: ") for line in printed)
    without_data(workdir)
    code, printed, err = look("report", workdir)
    assert code == 0, err
    (reason,) = (line for line in printed if line.startswith("without guesses: "))
    assert "test-center_crop.npz: no file of scores, or damaged" in reason


def test_shows_a_run_that_has_not_begun(look, run, tmp_path):
    workdir = run_of(run, tmp_path, lines=[])
    shutil.rmtree(workdir / "checkpoints")
    code, printed, _ = look("report", workdir)
    assert code == 0
    assert "without first kernels: there is no checkpoint yet" in printed
    page = Page(Path(printed[-1]))
    assert "Nothing has been logged or saved yet." in page.text
    assert "window is size/stride; sees is the receptive field in pixels" in page.tables


def test_counts_saved_scores_without_the_dataset(look, run, tmp_path):
    workdir = run_of(run, tmp_path)
    without_data(workdir)
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(50, 10)).astype(np.float32)
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    label = rng.integers(-1, 10, 50).astype(np.int32)
    names = ["n02012849", "n03126707", "red, small", *(f"class {n}" for n in range(3, 10))]
    write_scores(
        workdir / "scores" / "test-ten_view.npz",
        Scores(np.arange(50, dtype=np.int32), scores, label),
        str, 1, "", split="test", protocol="ten_view", class_names=names,
    )  # fmt: skip
    (workdir / "scores" / "._test-ten_view.npz").write_bytes(b"\0\5\26\7")  # newer, and a system's
    code, printed, _ = look("report", workdir)
    assert code == 0
    assert not any(line.startswith("without confusion") for line in printed)
    matrix = Page(Path(printed[-1])).tables["images by true and guessed class"]
    expected = np.zeros((10, 10), int)
    np.add.at(expected, (label[label >= 0], scores.argmax(axis=1)[label >= 0]), 1)
    np.testing.assert_array_equal(np.array([row[1:] for row in matrix[1:]], int), expected)
    assert [row[0] for row in matrix[1:5]] == ["crane", "crane", "red, small", "class 3"]
    written = Path(printed[-1]).read_text()
    code, _, err = look("report", workdir, f"--data_dir={tmp_path / 'nowhere'}")
    assert code == 2 and "nowhere" in err
    (workdir / "scores" / "validation-dense.npz").write_bytes(b"PK")
    code, printed, err = look("report", workdir, "--split=test", f"--out={tmp_path / 'out'}")
    assert code == 0 and not any(line.startswith("without confusion") for line in printed), err
    (workdir / "scores" / "validation-dense.npz").unlink()
    for other in ("--split=train", "--data_name=cifar10"):  # of which there are no scores
        code, _, err = look("report", workdir, other)
        assert code == 2 and "--data_dir" in err
    assert (workdir / "pictures" / "report.html").read_text() == written


def test_a_published_error_says_what_is_overridden(run, tmp_path):
    """Fields of the recipe count; the seed and how often is logged do not."""
    workdir = run_of(run, tmp_path)
    without_data(workdir)
    command = ["main.py", "--config=configs/lenet5.py", "--config.log_every_steps=3"]
    change(workdir, command=[*command, "--config.seed=0"])
    assert "overridden" not in records.read(workdir).published.source
    for field in ("optimizer.momentum=0.9", "total_steps=60"):  # recipe, length
        change(workdir, command=[*command, f"--config.{field}"])
        assert records.read(workdir).published.source.endswith(" (here a field is overridden)")
    saved = json.loads((workdir / "config.json").read_text())["config"]
    saved["data"]["classes"] = [0, 1]
    change(workdir, config=saved)
    assert records.read(workdir).published is None  # nothing was published of two digits
    saved["data"]["classes"], saved["loss"]["boxes"] = [], "scr"
    change(workdir, config=saved)
    assert records.read(workdir).published is None  # nor of their boxes


@pytest.mark.parametrize(
    "command, arguments, message",
    [
        ("report", ["setup.cfg"], "setup.cfg: a file; name the directory of a run"),
        ("report", ["docs"], "docs: a directory, but no run"),
        ("report", ["RUN", "--network=lenet5"], "'--network=lenet5' is not understood"),
        ("report", ["RUN", "--split=tset"], "tset"),
        ("report", ["RUN", "--checkpoint=999"], "999"),
        ("report", ["RUN", "--seed=-1"], "-1: at least 0"),
        ("report", [], "arguments are required: RUN;"),
        ("compare", ["RUN", "--split=test"], "'--split=test' is not understood"),
        ("compare", ["RUN"], "name two runs or more"),
        ("compare", ["RUN", "RUN"], "named twice; name each run once"),
        ("compare", ["RUN", "docs"], "docs: a directory, but no run"),
        ("compare", ["RUN", "nowhere"], "nowhere: there is no such run"),
    ],
    ids=str,
)
def test_what_is_no_run_is_named(look, run, tmp_path, command, arguments, message):
    named = [run if argument == "RUN" else argument for argument in arguments]
    code, _, err = look(command, *named, f"--out={tmp_path}")
    assert code == 2 and message in err, err
    assert len(err.splitlines()) <= 2


def test_lines_that_are_no_metrics_are_left_out(run, tmp_path):
    workdir = run_of(run, tmp_path)
    with open(workdir / "metrics.jsonl", "a") as file:
        file.write('[1]\n{"step": 7}\n{"step": 500, "split": "tr')
    assert records.read(workdir).metrics == sorted(metrics(12), key=lambda line: line["step"])


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(look, towers, run, tmp_path, width, scheme):
    """No line on the console, nothing wider than the window, no request, the colours asked for."""
    playwright = pytest.importorskip("playwright.sync_api")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium")
    workdir = run_of(towers, tmp_path)
    assert look("report", workdir, "--limit=20", f"--out={tmp_path}")[0] == 0
    assert look("compare", workdir, run, f"--out={tmp_path}")[0] == 0
    said, asked = [], []
    with playwright.sync_playwright() as started:
        window = started.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for name in ("report", "compare"):
            page = window.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("request", lambda request: asked.append(request.url))
            page.goto((tmp_path / f"{name}.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            light = sum(map(int, re.findall(r"\d+", ground)[:3])) > 384
            assert light == (scheme == "light")
            assert page.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
            assert len(page.screenshot(full_page=True)) > 10_000
    assert said == []
    assert all(url.startswith(("file:", "data:")) for url in asked)


def test_texts_are_shown_as_they_are_written(look, run, tmp_path):
    """Of classes, paths and fields: none is taken for HTML."""
    odd = """<u>"&amp;'"""
    workdir = run_of(run, tmp_path, odd)
    saved = json.loads((workdir / "config.json").read_text())["config"]
    saved["data"] |= {"dir": odd}
    command = ["main.py", f"--config.data.dir={odd}"]
    change(workdir, config=saved, command=command, versions={odd: odd})
    label = np.arange(10, dtype=np.int32)
    write_scores(
        workdir / "scores" / "test-center_crop.npz",
        Scores(label, np.log(np.full((10, 10), 0.1, np.float32)), label),
        str, 1, "", split="test", protocol="center_crop", class_names=[f"{odd}{n}" for n in label],
    )  # fmt: skip
    write_lines(workdir / "evaluations.jsonl", [{"split": odd, "top1_error": 0.5}])
    code, printed, err = look("report", workdir)
    assert code == 0, err
    page = Page(Path(printed[-1]))
    check(page)
    assert "<u>" not in page.text
    assert page.tables["images by true and guessed class"][1][0] == f"{odd}0"
    assert ["data.dir", odd] in page.tables["overridden, of an unknown config"]
    assert [f"versions.{odd}", odd] in page.tables["as the run was last started"]
    assert page.tables["evaluations.jsonl"][1][0] == odd
    code, _, err = look("compare", workdir, run, f"--out={tmp_path}")
    assert code == 0, err
    page = Page(tmp_path / "compare.html")
    check(page)
    assert "<u>" not in page.text and page.tables["fields of the configs"][0][1] == odd


def test_the_surest_mistakes_come_first_and_the_truth_stands_out(look, run, tmp_path):
    workdir = run_of(run, tmp_path)
    names = [str(n) for n in range(10)]
    given = np.full((4, 10), 0.02, np.float32)
    given[[0, 1, 2, 3], [1, 2, 3, 4]] = 0.5, 0.7, 0.9, 0.6  # the last is right
    label = np.array([0, 0, 0, 4], np.int32)
    write_scores(
        workdir / "scores" / "validation-center_crop.npz",
        Scores(np.arange(4, dtype=np.int32), np.log(given), label),
        str, 1, "", split="validation", protocol="center_crop", class_names=names,
    )  # fmt: skip
    code, printed, err = look("report", workdir)
    assert code == 0, err
    text = Page(Path(printed[-1])).text
    mistakes = text[text.index('id="mistakes"') : text.index('id="confusion"')]
    assert re.findall(r"taken for (\d)</p>", mistakes) == ["3", "2", "1"]
    guesses = text[text.index('id="guesses"') : text.index('id="mistakes"')]
    assert re.findall(r'guess true".*?<span title="(\d)">', guesses).count("4") == 1


def test_curves_and_the_published_error_are_drawn_at_their_heights(look, run, tmp_path):
    workdir = run_of(run, tmp_path)
    without_data(workdir)  # MNIST, of which LeNet-5's error was published
    change(workdir, command=["main.py", "--config=configs/lenet5.py"])
    code, printed, err = look("report", workdir)
    assert code == 0, err
    text = Page(Path(printed[-1])).text
    assert "<dt>published</dt><dd>0.95%<small>center_crop, LeCun et al. 1998</small>" in text
    (chart,) = re.findall(
        r"<figure class=.chart.>\n<figcaption>Top-1 error.*?</figure>", text, re.S
    )
    assert "center_crop, LeCun et al. 1998: 0.95%" in chart
    ticks = re.findall(r'class="end" x="[\d.]+" y="([\d.]+)">([\d.]+)%', chart)
    (low, zero), *_, (high, most) = [(float(y) - 4.5, float(tick)) for y, tick in ticks]

    def percent(y):
        return zero + (float(y) - low) / (high - low) * (most - zero)

    shown = [percent(y) for y in re.findall(r'<circle [^>]*cy="([\d.]+)"', chart)]
    errors = [100 * m["top1_error"] for m in metrics(12) if m["split"] == "validation"]
    np.testing.assert_allclose(shown, errors, atol=0.1)
    (level,) = re.findall(r'<line class="level"[^>]* y1="([\d.]+)"', chart)
    assert percent(level) == pytest.approx(0.95, abs=0.1)


@pytest.mark.parametrize("boxes", ["pcr", pytest.param("scr", marks=pytest.mark.slow)])
def test_shows_a_run_that_learns_boxes(look, run, tmp_path, boxes):
    """Its error is of boxes, its table that of its network, and it guesses no classes."""
    workdir = drawn_run(tmp_path / "boxes", *BOXES, f"--config.loss.boxes={boxes}")
    lines = [m | {"localization_error": 0.75} for m in metrics(3)]
    for line in lines:
        del line["top1_error"], line["top5_error"]
    write_lines(workdir / "metrics.jsonl", lines)
    write_lines(workdir / "evaluations.jsonl", [{"split": "test", "localization_error": 0.375}])
    code, printed, err = look("report", workdir)
    assert code == 0, err
    refused = f"regresses boxes (loss.boxes={boxes}) and knows no classes; name a classifier"
    for part in ("guesses", "mistakes", "confusion"):
        assert f"without {part}: {workdir} {refused}" in printed
    page = Page(Path(printed[-1]))
    check(page)
    assert "<figcaption>Localization error" in page.text and "Top-1 error" not in page.text
    assert "<dt>validation error</dt><dd>75.00%<" in page.text
    assert page.tables["evaluations.jsonl"][:2] == [
        ["split", "localization error", "loss", "protocol", "images", "checkpoint"],
        ["test", "37.50%", "-", "", "-", ""],
    ]
    from training import Trained

    layers = page.tables["window is size/stride; sees is the receptive field in pixels"]
    assert sum(int(row[4].replace(",", "")) for row in layers[1:]) == sum(
        leaf.size for leaf in jax.tree.leaves(Trained.open(workdir).params)
    )
    code, _, err = look("occlusion", workdir)
    assert code == 2 and refused in err
    code, _, err = look("compare", workdir, run_of(run, tmp_path), f"--out={tmp_path}")
    assert code == 0, err
    page = Page(tmp_path / "compare.html")
    assert page.text.count("<svg") == 6
    caption = "top-1 errors and localization errors; the last ones, and the lowest of validation"
    header, row = page.tables[caption][:2]
    errors = dict(zip(header, row, strict=True))
    assert [errors[name] for name in ("training", "validation", "lowest")] == ["75.00%"] * 3


def test_a_network_of_another_version_is_named(look, run, tmp_path):
    workdir = run_of(run, tmp_path)
    saved = json.loads((workdir / "config.json").read_text())["config"]
    saved["model"]["gone"] = 1
    change(workdir, config=saved)
    code, printed, err = look("report", workdir)
    assert code == 0, err
    for part in ("first kernels", "guesses", "layers"):
        assert any(line.startswith(f"without {part}: ") and "gone" in line for line in printed)


def test_says_whose_images_are_guessed_and_what_has_no_number(look, run, tmp_path):
    lines = [m | {"loss": None} for m in metrics(2)]
    workdir = run_of(run, tmp_path, lines=lines)
    with open(workdir / "metrics.jsonl", "a") as file:
        file.write(
            '{"step": 30, "epoch": "x", "split": "train", "loss": NaN, "learning_rate": "y"}'
        )
    code, printed, err = look("report", workdir, "--data_name=digit_canvases", "--limit=4")
    assert code == 0, err
    said = "Loss (training), Loss (validation): metrics.jsonl has no number of it"
    assert f"without {said}" in printed
    text = Page(Path(printed[-1])).text
    assert f"Missing: {said}." in text and "nan" not in text.lower().replace("nanmean", "")
    assert "images of digit_canvases, test, center_crop" in text


def test_a_share_of_the_steps_is_never_rounded_up(run, tmp_path):
    workdir = run_of(run, tmp_path, lines=[{"step": 999, "split": "train"}])
    saved = json.loads((workdir / "config.json").read_text())["config"]
    for total, said in ((1000, "step 999 of 1,000 (99%)"), (60, "step 999 of 60.")):
        saved |= {"total_steps": total, "total_epochs": None}
        change(workdir, config=saved)
        assert said in records.read(workdir).state()[1]
