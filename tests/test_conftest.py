"""What all tests rely on: which devices they use, and that those without their data are skipped."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT, part_of


@pytest.mark.parametrize("asked, taken", [({}, "cpu"), ({"JAX_PLATFORMS": "cuda"}, "cuda")])
def test_accelerators_are_left_alone_unless_asked_for(asked, taken):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
    script = (
        "import sys, tests.conftest, os; print(os.environ['JAX_PLATFORMS'], 'jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT, capture_output=True, text=True, env=environment | asked,
    )  # fmt: skip
    assert done.stdout == f"{taken} False\n", done.stderr


def test_a_part_of_the_data_that_is_missing_is_named(tmp_path):
    (tmp_path / "tfds" / "mnist").mkdir(parents=True)
    assert part_of(tmp_path, "tfds/mnist") == tmp_path / "tfds" / "mnist"
    assert part_of(tmp_path, "tfds", "mnist") == tmp_path / "tfds"
    assert part_of(tmp_path, "", "tfds") == tmp_path
    for parts, missing in [
        (("weights/net.th",), "weights/net.th"),
        (("tfds", "mnist", "cifar10"), "tfds/cifar10"),
        (("", "imagenet_sample"), "imagenet_sample"),
    ]:
        with pytest.raises(pytest.skip.Exception, match=f"^{tmp_path}/{missing} is not there; "):
            part_of(tmp_path, *parts)
