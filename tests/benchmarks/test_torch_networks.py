"""What ours is measured beside computes the same, on a device of the same kind."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vision_models
from benchmarks import dense, layers, torch_networks, turns, workload
from benchmarks.layers import TORCH_LRN
from benchmarks.workload import BATCHES, Case
from tests.conftest import ROOT
from vision_models import googlenet, response
from vision_models.alexnet import PAPER_LRN
from vision_models.analysis import count_parameters, multiply_adds

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("name", list(BATCHES))
def test_the_networks_are_the_same_size(name):
    from torch.utils.flop_counter import FlopCounterMode

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


def test_the_tables_are_those_of_googlenet():
    assert list(torch_networks.INCEPTION.items()) == list(googlenet.INCEPTION.items())
    assert tuple(googlenet.POOLED) == torch_networks.POOLED
    assert tuple(googlenet.AUXILIARY) == torch_networks.AUXILIARY


SMALL = Case("eager", "cifar10_four_layer", 2, "float32", 0, "cpu")


@pytest.mark.parametrize(
    "make, case",
    [
        (workload.their_training, SMALL),
        (workload.their_inference, SMALL),
        (layers.theirs, Case("eager", "conv_16", 1, "float32", 0, "cpu")),
        (dense.their_maps, dense.Case("single", "any", 1, "float32", [[9, 7]], "cpu")),
    ],
)
def test_pytorch_takes_the_device_that_jax_has(make, case, monkeypatch):
    """The CPU, though there be a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(dense, "convolutional", lambda name: torch.nn.Conv2d(3, 4, 3))
    work, finish, *_ = make(case)
    work()
    finish()
    assert 0 < workload.peak_bytes(case) <= turns.resident_bytes()


def test_pytorchs_processes_hold_no_jax():
    """Their memory is measured: the whole process's."""
    script = (
        "import sys; from benchmarks import inference, layers, train_step, workload\n"
        "case = workload.Case('eager', 'cifar10_four_layer', 2, 'float32', 0)\n"
        "for make in (workload.their_training, workload.their_inference):\n"
        "    work, _ = make(case); work()\n"
        "print(sorted({'jax', 'flax', 'tensorflow', 'vision_models'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
