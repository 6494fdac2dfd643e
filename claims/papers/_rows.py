"""What several papers' files share: rows of result tables, and a small AlexNet for CIFAR-10."""

import types

from claims.claim import NONE, Arm, Claim, Fields, Near
from claims.measures import test_error
from configs.papers import PUBLISHED

# The network that comes with the project as alexnet-cifar10: two towers, CIFAR-10 enlarged to 72
# pixels, crops of 64, half of conv1's kernels and a quarter of those above. The rate drops where
# the 2012 run dropped it, in place of on plateaus.
SMALL_ALEXNET: Fields = types.MappingProxyType(
    {
        "data.name": "cifar10",
        "data.resize": 72,
        "data.crop": 64,
        "model.kernels": (48, 64, 96, 96, 64),
        "model.hidden": (256, 256),
        "model.init_std": 0.03,
        "model.init_std_conv3to5": 0.06,
        "optimizer.plateau_patience": 0,
        "optimizer.drop_epochs": (25, 51, 79),
        "total_epochs": 91,
    }
)
# Two and a half of 91 epochs: some seven minutes on two CPU cores.
SMALL_FRACTION = 2.5 / 91
SMALL_NOTE = (
    "CIFAR-10 enlarged to 72 pixels in place of ImageNet; the two-tower network with 48, 64, 96, "
    "96 and 64 kernels and 256 hidden units."
)
# Caffe's LeNet on the digits of scikit-learn: some 100 epochs of 200 images, or 13 of all.
DIGITS: Fields = types.MappingProxyType(
    {
        "data.name": "digits",
        "data.validation_examples": 360,
        "total_steps": 300,
        "optimizer.drop_steps": (200, 250),
        "evaluate_every_steps": 100,
        "checkpoint_every_steps": 100,
    }
)
# And on MNIST, to start from: about an epoch.
THOUSAND: Fields = types.MappingProxyType({"total_steps": 1000, "optimizer.drop_steps": (500, 750)})
IMAGENET_CHECKED = (
    "parameters, multiply-adds and layers of the network (tests/vision_models/test_models.py); "
    "the test protocol against loops over crops (tests/evaluation/test_protocols.py)"
)
WEIGHTS_CHECKED = (
    f"{IMAGENET_CHECKED}; logits with the same weights as PyTorch's network, to 1e-4 of the "
    "largest (tests/vision_models/weights)"
)


def row(
    id: str,
    section: str,
    source: str,
    *,
    within: float,
    common: Fields = NONE,
    here: Fields | None = None,
    fraction: float = 1.0,
    checked: str = IMAGENET_CHECKED,
    note: str = "",
    waits: str = "",
) -> Claim:
    """The claim that a config reaches its published error.

    Args:
      id, section, source, common, here, fraction, checked, note, waits: see `Claim`.
      within: tolerance in points.
    """
    config, _, variant = source.partition(":")
    found = PUBLISHED[config, variant]
    top5 = found.top1 is None
    value = found.top5 if top5 else found.top1
    assert value is not None
    said = f"{value:g}% {'top-5 ' * top5}error by {found.views} ({found.source})."
    return Claim(
        id,
        section,
        f"{'The network' if variant == '' else f'The network of configs/{config}.py:{variant}'} "
        f"has {said}",
        source,
        (Arm("network", NONE, paper=value),),
        test_error(top5=top5),
        (Near("network", within),),
        common=common,
        here=here,
        fraction=fraction,
        checked="" if here is not None else checked,
        note=note,
        waits=waits,
        published=True,
    )
