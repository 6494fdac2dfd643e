"""The tour as it is committed, and executed from its first cell."""

import ast
import base64
import io
import json
import re

import pytest
from PIL import Image

from tests.conftest import ROOT

TOUR = ROOT / "notebooks" / "tour.ipynb"
MOST = 700_000  # bytes: every clone carries its pictures


@pytest.fixture(scope="module")
def cells():
    return json.loads(TOUR.read_text())["cells"]


def outputs(cells):
    return [out for cell in cells if cell["cell_type"] == "code" for out in cell["outputs"]]


def test_the_tour_reads_without_running(cells):
    """Every cell was executed, in order and without an error, and pictures are there."""
    codes = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in codes] == [*range(1, len(codes) + 1)]
    assert {out["output_type"] for out in outputs(cells)} == {"stream", "display_data"}
    assert sum("image/png" in out.get("data", {}) for out in outputs(cells)) >= 8
    assert TOUR.stat().st_size < MOST


def test_cells_are_short(cells):
    codes = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["id"] for cell in codes if len(cell["source"]) >= 20] == []


def test_the_tour_says_nothing_of_the_machine(cells):
    """No absolute paths, and no versions of what it was executed with, in text and in pictures."""
    contents = [part for out in outputs(cells) for part in out.get("data", {}).items()]
    texts = [text for kind, text in contents if not kind.startswith("image/")]
    said = "".join("".join(t) for t in [*texts, *(out.get("text", []) for out in outputs(cells))])
    assert not re.search(r"(?<![\w.])/\w+/|[A-Z]:\\|@", said)
    for kind, coded in contents:
        if kind == "image/png":
            with Image.open(io.BytesIO(base64.b64decode("".join(coded)))) as picture:
                assert not {"Software", "Author", "Creation Time"} & picture.info.keys()
    assert not any(cell["metadata"] for cell in cells)
    assert "version" not in json.loads(TOUR.read_text())["metadata"]["language_info"]


def test_links_lead_to_files(cells):
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    assert [link for link in links if not (TOUR.parent / link).exists()] == []


def test_what_the_tour_imports_is_there(cells):
    """Found in the files, without running the cells, which takes minutes."""
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    nodes = [node for code in codes for node in ast.walk(ast.parse(code))]
    found = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    ours = [node for node in found if (ROOT / node.module.split(".")[0]).is_dir()]
    assert len(ours) >= 5
    for node in ours:
        path = ROOT.joinpath(*node.module.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        words = re.findall(r"\w+", file.read_text())
        for alias in node.names:
            there = alias.name in words or (path / f"{alias.name}.py").exists()
            assert there, f"{node.module}.{alias.name}"


@pytest.mark.slow
def test_the_tour_runs_from_the_top(cells, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(TOUR, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=None, resources={"metadata": {"path": str(TOUR.parent)}}
    ).execute()  # raises the error of a cell
    executed = {out["output_type"] for out in outputs(notebook.cells)}
    assert executed == {"stream", "display_data"}
    # What does not depend on the machine is as it is committed.
    fixed = dict.fromkeys(["code-6", "code-9", "code-13", "code-19", "code-24"])
    for found in (cells, notebook.cells):
        texts = {
            c["id"]: "".join("".join(out["text"]) for out in c["outputs"])
            for c in found
            if c["id"] in fixed
        }
        assert fixed.keys() == texts.keys()
        assert all(fixed[name] in (None, text) for name, text in texts.items())
        fixed |= texts
