"""What ours is measured beside computes the same."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vision_models
from benchmarks.layers import TORCH_LRN
from benchmarks.workload import BATCHES, Case
from vision_models import response
from vision_models.alexnet import PAPER_LRN
from vision_models.analysis import count_parameters, multiply_adds

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("name", list(BATCHES))
def test_the_networks_are_the_same_size(name):
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks import torch_networks

    case = Case("ours", name, 1, "float32", 0)
    ours = nnx.eval_shape(
        lambda: vision_models.create(name, num_classes=case.classes, rngs=nnx.Rngs(0))
    )
    with torch.device("meta"):
        theirs = torch_networks.make(name, case.classes)
        counted = sum(p.numel() for p in theirs.parameters())
        images = torch.zeros(1, 3, case.crop, case.crop)
        with FlopCounterMode(display=False) as flops:
            logits = theirs.eval()(images)
    assert logits.shape == (1, case.classes)
    assert counted == count_parameters(ours)
    assert flops.get_total_flops() == 2 * multiply_adds(ours)
    if name == "googlenet":
        with torch.device("meta"):
            assert [x.shape for x in theirs.train()(images)] == [(1, 1000)] * 3


def test_response_normalisation_is_that_of_alexnet():
    maps = np.random.default_rng(0).normal(0, 300, (2, 6, 5, 24)).astype(np.float32)
    ours = response.local_response_normalization(jnp.asarray(maps), **PAPER_LRN)
    channels_first = torch.from_numpy(maps.transpose(0, 3, 1, 2))
    theirs = torch.nn.functional.local_response_norm(channels_first, **TORCH_LRN)
    np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), rtol=1e-5)
