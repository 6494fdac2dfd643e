"""He, Zhang, Ren and Sun 2015 and 2016. Errors on CIFAR-10 are of the 2015 paper's Table 6."""

from claims.claim import NONE, Arm, Claim, Order, Same
from claims.measures import (
    MULTIPLY_ADDS,
    RESPONSE_DEVIATION,
    TEST_ERROR,
    TRAINING_ERROR,
    epochs_to,
    test_error,
)
from claims.papers._rows import IMAGENET_CHECKED, WEIGHTS_CHECKED, row

TITLE = (
    "He, Zhang, Ren and Sun: Deep Residual Learning for Image Recognition, 2015; Identity Mappings "
    "in Deep Residual Networks, 2016"
)
YEAR = 2015

_CIFAR = (
    row("resnet-20-error", "4.2, Table 6", "cifar10:resnet20", within=0.4, here=NONE,
        fraction=0.02),
    *(row(f"resnet-{depth}-error", "4.2, Table 6", f"cifar10:resnet{depth}", within=0.4,
          checked="the same code and recipe at 20 layers (resnet-20-error)")
      for depth in (32, 44, 56, 110)),
    row("resnet-preact-110-error", "2016, Table 2", "cifar10:preact_resnet110", within=0.4,
        checked="the same code and recipe at 20 layers (resnet-20-error)"),
    row("resnet-preact-164-error", "2016, Table 2", "cifar10:preact_resnet164", within=0.4,
        checked="the same code and recipe at 20 layers (resnet-20-error)"),
)  # fmt: skip


def _degradation(
    id: str, measure: object, statement: str, *, fraction: float, deep: int = 56
) -> Claim:
    """Plain networks of 20 and of more layers."""
    arms = (Arm("plain 20", source="cifar10:plain20"),
            Arm(f"plain {deep}", source=f"cifar10:plain{deep}"))  # fmt: skip
    return Claim(
        id, "4.2, Figure 6", statement, "cifar10:plain20", arms,
        measure, (Order("plain 20", f"plain {deep}"),), fraction=fraction,  # type: ignore[arg-type]
    )  # fmt: skip


# A fiftieth of 64,000 steps, 3.6 epochs: 7 minutes of 20 layers and 20 of 56 on two CPU cores.
_SHORT = 0.02
_DEPTH = (
    _degradation("resnet-degradation", TRAINING_ERROR, "A plain network of 56 layers has more "
                 "training error than one of 20: it is not overfitting.", fraction=_SHORT),
    _degradation("resnet-degradation-test", TEST_ERROR, "A plain network of 56 layers has more "
                 "test error than one of 20.", fraction=_SHORT),
    Claim(
        "resnet-depth", "4.2, Table 6",
        "A residual network of 56 layers has less error than one of 20: 6.97 against 8.75%.",
        "cifar10:resnet20",
        (Arm("ResNet-56", source="cifar10:resnet56", paper=6.97), Arm("ResNet-20", paper=8.75)),
        TEST_ERROR, (Order("ResNet-56", "ResNet-20", paper=1.78),), fraction=_SHORT,
    ),
    Claim(
        "resnet-plain-110", "4.2",
        "A plain network of 110 layers has more than 60% error; a residual one has 6.43%.",
        "cifar10:resnet110",
        (Arm("ResNet-110", paper=6.43), Arm("plain 110", source="cifar10:plain110")),
        TEST_ERROR, (Order("ResNet-110", "plain 110", least=50),), here=None,
        checked="resnet-degradation, of 56 layers",
    ),
    Claim(
        "resnet-against-plain", "4.2, Figure 6",
        "Shortcuts lower the training error of 56 layers: optimisation, not capacity, was at "
        "fault.",
        "cifar10:resnet56",
        (Arm("ResNet-56"), Arm("plain 56", source="cifar10:plain56")),
        TRAINING_ERROR, (Order("ResNet-56", "plain 56"),), fraction=_SHORT,
    ),
    Claim(
        "resnet-against-plain-20", "4.1 (at 18 layers)",
        "At 20 layers a residual network converges faster than a plain one.",
        "cifar10:resnet20", (Arm("ResNet-20"), Arm("plain 20", source="cifar10:plain20")),
        TRAINING_ERROR, (Order("ResNet-20", "plain 20"),), fraction=_SHORT,
    ),
    Claim(
        "resnet-responses", "4.2, Figure 7",
        "The layers of residual networks respond less strongly than those of plain ones: residual "
        "functions are closer to zero.",
        "cifar10:resnet20",
        (Arm("ResNet-20"), Arm("plain 20", source="cifar10:plain20")),
        RESPONSE_DEVIATION, (Order("ResNet-20", "plain 20"),), fraction=_SHORT,
    ),
    Claim(
        "resnet-responses-depth", "4.2, Figure 7",
        "Deeper residual networks respond less strongly: a layer modifies the signal less.",
        "cifar10:resnet20", (Arm("ResNet-56", source="cifar10:resnet56"), Arm("ResNet-20")),
        RESPONSE_DEVIATION, (Order("ResNet-56", "ResNet-20"),), fraction=_SHORT,
    ),
    *(Claim(
        f"resnet-preactivation{'-20' * (depth == 20)}", "2016, 3.1 and Table 2",
        "Normalisation and neuron before each convolution train deep networks better: 6.37 against "
        "6.61% at 110 layers.",
        f"cifar10:resnet{depth}",
        (Arm("pre-activation", source=f"cifar10:preact_resnet{depth}"), Arm("the paper of 2015")),
        TEST_ERROR, (Order("pre-activation", "the paper of 2015"),), fraction=_SHORT,
        common={"optimizer.warmup_steps": 400},
        note=f"At {depth} layers, both with the warm-up of 400 of 64,000 steps.",
    ) for depth in (56, 20)),
    Claim(
        "resnet-shortcuts", "4.1, Table 3",
        "Projections where the shape changes (B) are slightly better than padding with zeros (A): "
        "24.52 against 25.03%; the difference is small.",
        "cifar10:resnet20",
        (Arm("option A"), Arm("option B", {"model.shortcut": "projection"})),
        TEST_ERROR, (Same("option A", "option B", within=2.0),), fraction=_SHORT,
        note="ResNet-20 on CIFAR-10; the paper's figures are of 34 layers on ImageNet.",
    ),
    Claim(
        "resnet-warmup", "4.2, footnote 5",
        "At 110 layers a rate of .1 is slightly too large to start with: it is several epochs "
        "before the training error is below 90%. With .01 for 400 steps it is sooner.",
        "cifar10:resnet110",
        (Arm("warm-up"), Arm("none", {"optimizer.warmup_steps": 1})),
        epochs_to(0.85), (Order("warm-up", "none", ratio=True),), here=None,
        note="85% is clear of what guessing gives by chance.",
        checked="the config's warm-up (tests/configs/test_configs.py)",
    ),
    Claim(
        "resnet-cost", "4.1",
        "152 layers have less complexity than VGG-16 and VGG-19: 11.3 against 15.3 and 19.6 "
        "billion multiply-adds.",
        "resnet:152",
        (Arm("ResNet-152", paper=11.3e9), Arm("VGG-D", source="vgg:d", paper=15.3e9),
         Arm("VGG-E", source="vgg:e", paper=19.6e9)),
        MULTIPLY_ADDS, (Order("ResNet-152", "VGG-D", paper=4e9), Order("VGG-D", "VGG-E")),
    ),
)  # fmt: skip

_IMAGENET = (
    *(row(f"resnet-imagenet-{depth}-error", "Table 3", f"resnet:{depth}", within=0.4,
          checked=WEIGHTS_CHECKED)
      for depth in (34, 50, 101, 152)),
    *(row(f"resnet-plain-{depth}-error", "Table 2", f"resnet:plain{depth}", within=0.4)
      for depth in (18, 34)),
    Claim(
        "resnet-plain-imagenet", "4.1, Table 2",
        "A plain network of 34 layers has more error than one of 18, 28.5 against 27.9%; residual "
        "networks reverse it, 25.0 against 27.9%, and of 34 layers the residual one is better.",
        "resnet:plain18",
        (Arm("plain 18", paper=27.94), Arm("plain 34", source="resnet:plain34", paper=28.54),
         Arm("ResNet-18", {"model.shortcut": "pad"}, source="resnet:18", paper=27.88),
         Arm("ResNet-34", {"model.shortcut": "pad"}, source="resnet:34", paper=25.03)),
        TEST_ERROR,
        (Order("plain 18", "plain 34", paper=0.6), Order("ResNet-34", "ResNet-18", paper=2.85),
         Order("ResNet-34", "plain 34", paper=3.51)), here=None,
        checked="resnet-degradation, on CIFAR-10",
    ),
    Claim(
        "resnet-multi-scale", "4.1, Table 4",
        "Fully convolutional at five scales, 50 layers have 20.74% against 22.85% by ten views.",
        "resnet:50",
        (Arm("five scales", measure=test_error("multi_scale"), paper=20.74),
         Arm("ten views", measure=test_error("ten_view"), paper=22.85)),
        TEST_ERROR, (Order("five scales", "ten views", paper=2.11),), here=None,
        checked=IMAGENET_CHECKED,
    ),
)  # fmt: skip

CLAIMS = (*_CIFAR, *_DEPTH, *_IMAGENET)
