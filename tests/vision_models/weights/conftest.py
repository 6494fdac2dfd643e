"""Files that the tests of weights share."""

import pytest


@pytest.fixture
def resnet18(tmp_path):
    from tests.vision_models.weights.making import saved, torch_network

    return saved(torch_network("resnet18"), tmp_path / "resnet18.pth")
