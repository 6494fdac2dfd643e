"""Pages of runs: read as a browser does, and runs to make them of."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np

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
        assert "http" not in self.text and "<script" not in self.text
        assert not any("//" in link for link in self.links if not link.startswith("data:"))

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


def opened_run(run, *arguments):
    """A run as the commands open it."""
    from visualization import command_line
    from visualization.opening import open_run_or_file

    return open_run_or_file(command_line.make_parser("").parse_args([str(run), *arguments]))


def opened_of(name, **options):
    """A network without weights, as the commands open one."""
    from flax import nnx

    import vision_models
    from visualization.opening import Opened

    opened = Opened(SimpleNamespace(source="here"), SimpleNamespace(), None)
    vars(opened)["model"] = nnx.eval_shape(
        lambda: vision_models.create(name, rngs=nnx.Rngs(0), **options)
    )
    return opened
