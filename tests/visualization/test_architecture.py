"""Drawings of networks: nothing is missing, and nothing lies on anything else."""

import itertools
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from flax import nnx

import vision_models
from vision_models.analysis import layer_table
from visualization.drawing import drawing

_SVG = "{http://www.w3.org/2000/svg}"
_SIDES = ("x", "y", "width", "height")
_QUICK = ("lenet5", "alexnet", "conv_relu_pool_fc", "plain8")
_DEEP = [name for name in vision_models.list_models() if name not in _QUICK]


def _abstract(name, **options):
    return nnx.eval_shape(lambda: vision_models.create(name, rngs=nnx.Rngs(0), **options))


def _walk(element, x=0.0, y=0.0):
    """(element, x, y) of all, with the place of their group."""
    for child in element:
        left, top = x, y
        if child.tag == f"{_SVG}g":
            words = child.get("transform").removeprefix("translate(").removesuffix(")")
            left, top = (a + float(b) for a, b in zip((x, y), words.split(","), strict=True))
        yield child, left, top
        yield from _walk(child, left, top)


def _read(svg):
    """Boxes [n, 4] as left, top, right, bottom; edges as points [n, 2]; texts; width, height."""
    root = ElementTree.fromstring(svg)
    boxes, edges, texts = [], [], []
    for element, x, y in _walk(root):
        if element.get("class") == "box":
            left, top, width, height = (float(element.get(k)) for k in _SIDES)
            boxes.append((x + left, y + top, x + left + width, y + top + height))
        elif element.tag == f"{_SVG}polyline":
            points = [point.split(",") for point in element.get("points").split()]
            edges.append(np.array(points, float) + np.array([x, y]))
        elif element.tag == f"{_SVG}text":
            texts.append(element.text)
    return np.array(boxes), edges, texts, [float(root.get(k)) for k in ("width", "height")]


def _labels(svg):
    """What is written beside edges: left, top, right, bottom [n, 4], in a wide font."""
    found = []
    for element, x, y in _walk(ElementTree.fromstring(svg)):
        kinds = (element.get("class") or "").split()
        if element.tag == f"{_SVG}text" and ("size" in kinds or "left" in kinds):
            letter = 7.5 if "name" in kinds else 6.4  # DejaVu's, which many Linux systems have
            place, base = float(element.get("x")) + x, float(element.get("y")) + y
            width = len(element.text) * letter
            left = place - width * (1.0 if "left" in kinds else "between" in kinds and 0.5)
            found.append((left, base - 8, left + width, base))
    return np.array(found).reshape(-1, 4)


def _check(name):
    model = _abstract(name)
    svg = drawing(model)
    boxes, edges, texts, (width, height) = _read(svg)
    drawn = [row for row in layer_table(model) if row.kind != "Exchange"]
    assert len(boxes) >= 1 + len(drawn)
    assert model.towers > 1 or len(boxes) == 1 + len(drawn)
    assert f"{model.num_classes} scores" in texts
    assert (boxes >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
    labels = _labels(svg)
    apart = 0.1
    left, top, right, bottom = boxes.T
    wide = np.minimum.outer(right, right) - np.maximum.outer(left, left) > apart
    high = np.minimum.outer(bottom, bottom) - np.maximum.outer(top, top) > apart
    assert (wide & high).sum() == len(boxes), "boxes lie on one another"
    for points in edges:
        for start, end in itertools.pairwise(points):
            steps = np.linspace(start, end, 50)[:, None]
            inside = (steps > boxes[:, :2] + apart) & (steps < boxes[:, 2:] - apart)
            assert not inside.all(axis=-1).any(), f"an edge runs through a box at {start}"
            pixels = np.linspace(start, end, int(np.abs(end - start).max()) + 2)[:, None]
            crossed = (pixels > labels[:, :2]) & (pixels < labels[:, 2:])
            assert not crossed.all(axis=-1).any(), f"an edge crosses a label at {start}, {end}"
        assert (points >= 0).all() and (points <= [width, height]).all()


@pytest.mark.parametrize("name", _QUICK)
def test_a_drawing(name):
    _check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", _DEEP)
def test_every_network(name):
    _check(name)


@pytest.mark.quick
def test_towers_exchange_where_the_paper_says():
    """Edges cross before conv3, fc6 and fc7; each tower is drawn, with its own share of maps."""
    _, edges, texts, _ = _read(drawing(_abstract("alexnet")))
    found = Counter(texts)
    assert found["conv1"] == found["fc7"] == 2 and found["fc8"] == 1
    assert found["11\N{MULTIPLICATION SIGN}11 conv, 48, /4, relu"] == 2
    assert found["55\N{MULTIPLICATION SIGN}55\N{MULTIPLICATION SIGN}48"] == 2
    slanted = [edge for edge in edges if len(edge) == 2 and (edge[0] != edge[1]).all()]
    # Two cross at each of three exchanges; two leave the image, and two reach fc8.
    assert len(slanted) == 3 * 2 + 2 + 2


def test_branches_and_shortcuts():
    """A plus for each residual block, under the name of the block."""
    svg = drawing(_abstract("resnet20"))
    assert svg.count("<circle") == 9 and svg.count('class="bar"') == 0
    assert {"conv2_1", "conv4_3"} <= set(_read(svg)[2])


def test_nothing_is_added_in_a_plain_network():
    """Each block has its name, and one straight way through it."""
    svg = drawing(_abstract("plain8"))
    _, edges, texts, _ = _read(svg)
    assert "<circle" not in svg and {"conv2_1", "conv3_1", "conv4_1"} <= set(texts)
    assert all(len(np.unique(edge[:, 0])) == 1 for edge in edges)


@pytest.mark.slow
def test_inception():
    """A bar for each module, sizes on the edges of its branches, dashes to what hangs aside."""
    svg = drawing(_abstract("googlenet"))
    assert svg.count('class="bar"') == 9 and svg.count('class="side"') == 2
    texts = [text.replace("\N{MULTIPLICATION SIGN}", "x") for text in _read(svg)[2]]
    assert {"28x28x64", "28x28x128", "28x28x32", "28x28x256"} <= set(texts)


def test_of_a_run_and_of_a_name(look, run, tmp_path):
    code, printed, err = look("architecture", run, f"--out={tmp_path}")
    assert (code, printed) == (0, [str(tmp_path / "architecture.svg")]), err
    code, printed, err = look("architecture", "lenet5", f"--out={tmp_path}")
    assert (code, printed) == (0, [str(tmp_path / "architecture_lenet5.svg")]), err
    config = "--config=configs/lenet5.py"
    code, _, err = look("architecture", "vgg_d", config, f"--out={tmp_path}")
    assert code == 2 and "name the same in both" in err
    code, _, err = look("architecture", "lenet6", f"--out={tmp_path}")
    assert code == 2 and "did you mean" in err
