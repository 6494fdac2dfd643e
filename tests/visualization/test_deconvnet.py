"""The command deconvnet: which units are found, what they see, and its faults."""

import numpy as np
import pytest

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
    for row in layer_table(model):
        if len(row.output) == 3:
            _, low, high = found[row.name]
            assert high - low + 1 == row.receptive_field


def test_patches_hold_the_pixels_of_the_field():
    """Row i of the layer sees i * jump + low .. i * jump + high; outside is the ground."""
    image = np.arange(64.0).reshape(8, 8, 1)
    inside = deconvnet.patch(image, np.array([2, 1]), (2, 0, 2), -1)
    np.testing.assert_array_equal(inside, image[4:7, 2:5])
    corner = deconvnet.patch(image, np.array([0, 0]), (2, -1, 1), -1)
    assert (corner[0] == -1).all() and corner[1, 1] == 0


def test_a_picture_of_a_run(run, look, tmp_path):
    """The run's own dataset, every method."""
    for method in ("deconv", "gradient"):
        code, _, said = look(
            "deconvnet", run, "--layer=conv1", f"--method={method}", "--limit=20",
            f"--out={tmp_path}",
        )  # fmt: skip
        assert code == 0, said
        assert (tmp_path / f"deconvnet_conv1_{method}.png").exists()


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--layer=conv9"], "there are conv1"),
        (["--layer=fc8"], "makes no maps"),
        (["--layer=conv1", "--maps=1,x"], "numbers from 0"),
        (["--layer=conv1", "--maps=5000"], "numbers from 0"),
    ],
)
def test_faults_are_said(run, look, tmp_path, flags, said):
    """One line that names the way out."""
    code, _, error = look("deconvnet", run, *flags, f"--out={tmp_path}")
    assert code == 2 and said in error
