"""Pages that show a run, and that compare several."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import jax
import numpy as np
import pytest

from evaluation import Scores
from evaluation.score_files import write_scores
from training import workdir as workdirs
from visualization import curves, records
from visualization.compare import differing
from visualization.curves import Series

_VOID = {"meta", "link", "img", "wbr"}


class Page(HTMLParser):
    """A page's tables, by caption, images and links; fails if tags do not match."""

    def __init__(self, path):
        super().__init__()
        self.open, self.images, self.links, self.tables, self.words = [], [], [], {}, ""
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        self.close()
        assert not self.open
        assert "http" not in self.text and "<script" not in self.text and "//" not in self.links

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.links += [named[n] for n in ("src", "href") if n in named]
        if tag == "img":
            self.images.append(named)
        if tag == "caption":
            self.rows, self.words = [], ""
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.words = ""
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in ("line", "circle", "path", "rect"), tag  # of SVG

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "caption":
            self.tables[self.words] = self.rows
        if tag in ("td", "th"):
            self.rows[-1].append(self.words)

    def handle_data(self, data):
        self.words += data


def check(page):
    """Needs nothing else, and every image says what it shows."""
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert all(image["alt"] for image in page.images)
    assert set(re.findall(r'href="#(\w+)"', page.text)) <= set(re.findall(r'id="(\w+)"', page.text))


def metrics(epochs, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {"step": 10 * n + 5 * i, "epoch": n + i / 2, "split": split, "loss": float(rng.random()),
         "top1_error": float(rng.random()), "top5_error": 0.25, "learning_rate": 0.1 / n,
         "images_per_second": 100.0}
        for n in range(1, epochs + 1)
        for i, split in enumerate(("train", "validation"))
    ]  # fmt: skip


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def change(workdir, **parts):
    path = workdir / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


def run_of(run, tmp_path, name="run", lines=None):
    """A copy of a run with metrics."""
    copy = Path(shutil.copytree(run, tmp_path / name))
    lines = metrics(12) if lines is None else lines
    if lines:
        write_lines(copy / "metrics.jsonl", lines)
    return copy


def without_data(workdir):
    saved = json.loads((workdir / "config.json").read_text())["config"]
    saved["data"] |= {"name": "mnist", "dir": str(workdir / "nowhere")}
    change(workdir, config=saved)


def test_shows_a_run(look, run, tmp_path):
    """Numbers are those of the files; the matrix counts what the network guesses."""
    workdir = run_of(run, tmp_path)
    change(workdir, command=["main.py", "--config=configs/lenet5.py:caffe", "--config.seed=0"])
    evaluated = {"split": "test", "protocol": "center_crop", "checkpoint": 1, "examples": 360,
                 "top1_error": 0.875, "top5_error": 0.5, "loss": 2.25}  # fmt: skip
    write_lines(workdir / "evaluations.jsonl", [evaluated])
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
        ["test", "center_crop", "1", "360", "87.50%", "50.00%", "2.2500"]
    ]
    assert page.tables["overridden, of configs/lenet5.py:caffe"][1:] == [["seed", "0"]]

    from visualization import command_line
    from visualization.opening import open_run_or_file

    opened = open_run_or_file(command_line.make_parser("").parse_args([str(workdir)]))
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
    code, printed, _ = look("report", workdir)
    assert code == 0
    assert not any(line.startswith("without confusion") for line in printed)
    matrix = Page(Path(printed[-1])).tables["images by true and guessed class"]
    expected = np.zeros((10, 10), int)
    np.add.at(expected, (label[label >= 0], scores.argmax(axis=1)[label >= 0]), 1)
    np.testing.assert_array_equal(np.array([row[1:] for row in matrix[1:]], int), expected)
    assert [row[0] for row in matrix[1:5]] == ["crane", "crane", "red, small", "class 3"]
    for other in ("--split=train", "--data_name=cifar10"):  # of which there are no scores
        code, printed, _ = look("report", workdir, other)
        assert code == 0
        assert any(line.startswith("without confusion: ") for line in printed)


@pytest.mark.quick
def test_compares_runs(look, run, tmp_path):
    first = run_of(run, tmp_path, "first")
    second = run_of(run, tmp_path, "second", metrics(5, seed=1))
    saved = json.loads((second / "config.json").read_text())["config"]
    saved["optimizer"] |= {"momentum": 0.5}
    change(second, config=saved | {"seed": 7})
    third = run_of(run, tmp_path, "third", [])
    code, printed, err = look("compare", first, f"--out={tmp_path}", second, third)
    assert code == 0, err
    assert printed[0] == "without curves of third: metrics.jsonl has no line yet"
    page = Page(tmp_path / "compare.html")
    check(page)
    assert page.tables["fields of the configs"] == [
        ["field", "first", "second", "third"],
        ["optimizer.momentum", "0.9", "0.5", "0.9"],
        ["seed", "0", "7", "0"],
    ]
    rows = page.tables["top-1 errors; the last ones, and the lowest of validation"][1:]
    for row, lines in zip(rows, (metrics(12), metrics(5, seed=1)), strict=False):
        errors = [m["top1_error"] for m in lines if m["split"] == "validation"]
        assert row[5:7] == [f"{errors[-1]:.2%}", f"{min(errors):.2%}"]
    assert rows[2][4:9] == ["-"] * 5
    assert page.text.count("<svg") == 4


def test_a_text_and_a_number_differ():
    fields = [{"a": "1", "b": "", "c": 2}, {"a": 1, "c": 2}]
    assert differing(fields) == [("a", ['"1"', "1"]), ("b", ['""', ""])]


def test_a_published_error_says_what_is_overridden(run, tmp_path):
    """Fields of the recipe count; the seed and how often is logged do not."""
    workdir = run_of(run, tmp_path)
    without_data(workdir)
    command = ["main.py", "--config=configs/lenet5.py", "--config.log_every_steps=3"]
    change(workdir, command=[*command, "--config.seed=0"])
    assert "overridden" not in records.read(workdir).published.source
    change(workdir, command=[*command, "--config.optimizer.momentum=0.9"])
    assert records.read(workdir).published.source.endswith("; here a field is overridden")
    saved = json.loads((workdir / "config.json").read_text())["config"]
    saved["data"]["classes"] = [0, 1]
    change(workdir, config=saved)
    assert records.read(workdir).published is None  # nothing was published of two digits


@pytest.mark.parametrize(
    "command, arguments, message",
    [
        ("report", ["setup.cfg"], "setup.cfg: a file; name the directory of a run"),
        ("report", ["docs"], "docs: a directory, but no run"),
        ("report", ["RUN", "--network=lenet5"], "'--network=lenet5' is not understood"),
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


def test_a_curve_stops_where_there_is_no_number():
    points = [(0, 1.0), (1, None), (2, 3.0), (3, 4.0)]
    drawn = curves.chart("Loss", [Series("run", points)], x="step")
    assert re.findall("[ML]", re.search(' d="(.*)"', drawn)[1]) == ["M", "M", "L"]
    falls = curves.chart("Rate", [Series("", [(0, 0.1), (1, 0.01), (2, 0)])], x="step",
                         logarithmic=True, steps=True)  # fmt: skip
    assert re.findall("[ML]", re.search(' d="(.*)"', falls)[1]) == ["M", "L", "L"]
    assert curves.chart("Loss", [Series("run", [(0, None)])], x="step") == ""


def test_points_are_left_out_but_not_the_last():
    few = curves.thinned([(n, float(n)) for n in range(5001)], 100)
    assert len(few) <= 100 and few[0] == (0, 0.0) and few[-1] == (5000, 5000.0)


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
