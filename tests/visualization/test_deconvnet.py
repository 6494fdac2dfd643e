"""The command deconvnet: which units are found, what they see, and its faults."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from visualization import deconvnet
from visualization.projection import fields


def test_fields_are_those_of_the_papers():
    """163 pixels for conv5 of CaffeNet's geometry; a field's place is within the window."""
    from flax import nnx

    import vision_models
    from vision_models.analysis import layer_table

    model = nnx.eval_shape(
        lambda: vision_models.create("alexnet", num_classes=10, rngs=nnx.Rngs(0))
    )
    found = fields(model)
    jump, low, high = found["conv5"]
    assert (jump, high - low + 1) == (16, 163)
    # Windows of 1 x 7 and 7 x 1 among them.
    inception = nnx.eval_shape(lambda: vision_models.create("inception_v3", rngs=nnx.Rngs(0)))
    for network in (model, inception):
        found, rows = fields(network), layer_table(network)
        seen = [row for row in rows if len(row.output) == 3 and not row.auxiliary]
        assert len(seen) > 10
        for row in seen:
            _, low, high = found[row.name]
            assert high - low + 1 == row.receptive_field, row.name


def test_patches_hold_the_pixels_of_the_field():
    """Row i of the layer sees i * jump + low .. i * jump + high; outside is the ground."""
    image = np.arange(64.0).reshape(8, 8, 1)
    inside = deconvnet.patch(image, np.array([2, 1]), (2, 0, 2), -1)
    np.testing.assert_array_equal(inside, image[4:7, 2:5])
    corner = deconvnet.patch(image, np.array([0, 0]), (2, -1, 1), -1)
    assert (corner[0] == -1).all() and corner[1, 1] == 0


@pytest.mark.parametrize(
    "method",
    ["guided", *(pytest.param(m, marks=pytest.mark.slow) for m in ("deconv", "gradient"))],
)
def test_a_picture_of_a_run(run, look, tmp_path, method):
    """The run's own dataset: projections above patches, a row for each map."""
    code, printed, said = look(
        "deconvnet", run, "--layer=conv1", f"--method={method}", "--limit=20", "--count=2",
        "--strongest=4", f"--out={tmp_path}",
    )  # fmt: skip
    path = tmp_path / f"deconvnet_conv1_{method}.png"
    assert (code, printed[-1]) == (0, str(path)), said
    maps = [line.split(": ") for line in printed[:-1]]
    assert [name for name, _ in maps] == ["conv1 map 0", "conv1 map 19"]
    strengths = [[float(part) for part in values.split(", ")] for _, values in maps]
    assert all(found == sorted(found, reverse=True) and len(found) == 4 for found in strengths)
    with Image.open(path) as image:
        tile = ((image.height - 8) // 2 - 1) // 2
        numbers = image.width - (4 * tile + 3)
        assert tile >= 48 and image.height == 2 * (2 * tile + 1) + 8 and numbers > 0
        of_map = np.asarray(image)[: 2 * tile + 1, :numbers]
        assert of_map.min() == 0 and (of_map[:, 0] == 255).all(), "the map's number, and room"


def test_the_strongest_equal_those_of_all_activations(run):
    """At most one of an image, the strongest first, whatever the batches are."""
    from visualization import command_line
    from visualization.opening import open_run_or_file

    arguments = command_line.make_parser("").parse_args([str(run), "--batch_size=4"])
    opened = open_run_or_file(arguments)
    images = np.concatenate([batch["image"] for batch in opened.images(7)])
    found = deconvnet.strongest(opened, "conv1", [2, 0], 5, iter(images))
    maps = np.concatenate(
        [
            opened.recorder(["conv1"])(opened.inputs(part))[1]["conv1"]
            for part in (images[:4], images[3:])
        ]
    )
    maps = np.delete(maps, 4, axis=0)  # the fourth image was in both
    for row, number in enumerate([2, 0]):
        largest = maps[..., number].max(axis=(1, 2))
        order = np.argsort(-largest, kind="stable")[:5]
        np.testing.assert_array_equal(found.images[row], images[order])
        np.testing.assert_allclose(found.values[row], largest[order], rtol=1e-5)
        for image, value, (y, x, map_of) in zip(
            order, found.values[row], found.units[row], strict=True
        ):
            np.testing.assert_allclose(maps[image, y, x, map_of], value, rtol=1e-5)
            assert map_of == number


def test_only_the_images_found_are_in_memory():
    """One image of each batch is the strongest of a map: the others of the batch go."""
    rng, batches, size = np.random.default_rng(0), 20, 64

    def recorded(layers, squares):
        for number in range(batches):
            maps = np.zeros((size, 1, 1, batches), np.float32)
            maps[7, 0, 0, number] = 1
            yield rng.integers(0, 256, (size, 32, 32, 3), np.uint8), None, {"conv": maps}

    opened = SimpleNamespace(recorded=recorded)
    tracemalloc.start()
    try:
        found = deconvnet.strongest(opened, "conv", range(batches), 1, [])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found.values == 1).all() and len(np.unique(found.images)) > 1
    batch = size * 32 * 32 * 3
    assert peak < 5 * batch


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--layer=conv9"], "did you mean conv"),
        (["--layer=ip2"], "makes no maps"),
        (["--layer=conv1", "--maps=1,x"], "numbers from 0"),
        (["--layer=conv1", "--maps=5000"], "numbers from 0"),
    ],
)
def test_faults_are_said(run, look, tmp_path, flags, said):
    """One line that names the way out."""
    code, _, error = look("deconvnet", run, *flags, f"--out={tmp_path}")
    assert code == 2 and said in error
