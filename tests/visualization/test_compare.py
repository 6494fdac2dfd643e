"""Several runs on a page."""

import json
import re

import pytest

from tests.visualization.pages import (
    Page,
    change,
    check,
    metrics,
    run_of,
    write_lines,
)
from visualization.compare import differing


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
        assert row[1:3] == [f"{errors[-1]:.2%}", f"{min(errors):.2%}"]
    assert rows[2][1:7] == ["-"] * 6
    assert page.text.count("<svg") == 4


def test_a_text_and_a_number_differ():
    fields = [{"a": "1", "b": "", "c": 2}, {"a": 1, "c": 2}]
    assert differing(fields) == [("a", ['"1"', "1"]), ("b", ['""', ""])]


def test_runs_without_a_config_are_no_runs_of_the_same_config(look, run, tmp_path):
    runs = [run_of(run, tmp_path, name) for name in ("first", "second", "third")]
    for workdir in runs[:2]:
        (workdir / "config.json").unlink()
    code, _, err = look("compare", *runs, f"--out={tmp_path}")
    assert code == 0, err
    text = Page(tmp_path / "compare.html").text
    assert "Missing: fields of the configs of first, second, which no config.json tells." in text
    assert "No difference" not in text


def test_what_a_run_measured_and_what_was_published(look, run, tmp_path):
    """The last evaluation, with split and protocol; the published error with its own."""
    first, second = (run_of(run, tmp_path, name) for name in ("first", "second"))
    write_lines(
        first / "evaluations.jsonl",
        [{"split": "test", "protocol": "center_crop", "top1_error": 0.25},
         {"split": "train", "protocol": "ten_view", "top1_error": 0.125}],
    )  # fmt: skip
    saved = json.loads((second / "config.json").read_text())["config"]
    saved["data"] |= {"name": "imagenet2012"}
    del saved["data"]["classes"]  # as a run of an earlier version
    change(second, config=saved, command=["main.py", "--config=configs/googlenet.py"])
    lines = [m | {"top1_error": None} for m in metrics(3) if m["split"] == "validation"]
    write_lines(second / "metrics.jsonl", [*lines, *(m for m in metrics(3))])
    code, _, err = look("compare", first, second, f"--out={tmp_path}")
    assert code == 0, err
    page = Page(tmp_path / "compare.html")
    rows = page.tables["top-1 errors; the last ones, and the lowest of validation"][1:]
    assert [row[4] for row in rows] == ["12.50% train, ten_view", "-"]
    assert [row[10] for row in rows] == ["-", "7.89%, top-5, crops_144, Szegedy et al. 2015"]
    differing = {row[0] for row in page.tables["fields of the configs"][1:]}
    assert "data.name" in differing and "data.classes" not in differing


def test_each_run_has_an_entry_in_the_legend(look, run, tmp_path):
    """Also where its validation has no number."""
    lines = [m | {"top1_error": None} if m["split"] == "validation" else m for m in metrics(3)]
    first, second = run_of(run, tmp_path, "first"), run_of(run, tmp_path, "second", lines)
    assert look("compare", first, second, f"--out={tmp_path}")[0] == 0
    text = (tmp_path / "compare.html").read_text()
    legends = re.findall(r"<figcaption>Top-1 error(.*?)</figcaption>", text)
    assert legends and all("first" in one and "second" in one for one in legends)
