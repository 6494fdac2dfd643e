"""Zeiler and Fergus 2014. Table 3 is of their replication of AlexNet and of their own network."""

from claims.claim import Arm, Claim, Order
from claims.measures import TEST_ERROR, evaluated_training_error
from claims.papers._rows import IMAGENET_CHECKED, SMALL_ALEXNET, SMALL_FRACTION, SMALL_NOTE, row
from claims.papers.alexnet import ablation

TITLE = "Zeiler and Fergus: Visualizing and Understanding Convolutional Networks, 2014"
YEAR = 2014

BASE = Arm("the paper's network", paper=40.5)
_WIDE = "512, 1024, 512 maps"


def removed(name: str, statement: str, layers: str, paper: float) -> Claim:
    """The claim that layers of the replicated AlexNet are missed (Table 3)."""
    return ablation(
        f"zfnet-{name}", "5.1, Table 3", statement, f"without {layers}",
        {"model.without": layers}, paper, base=BASE,
    )  # fmt: skip


CLAIMS = (
    row("zfnet-error", "Table 2", "zfnet", within=0.4, checked=IMAGENET_CHECKED),
    row("zfnet-wide-error", "Table 2", "zfnet:wide", within=0.4, checked=IMAGENET_CHECKED),
    row("zfnet-spp-error", "He et al. 2014 (SPP-net), Table 2", "zfnet:spp", within=0.4,
        checked=f"{IMAGENET_CHECKED}; pyramid pooling by hand "
        "(tests/vision_models/test_pyramid.py)"),
    removed("layers-3-4", "Without layers 3 and 4 the error is 45.4%, 4.9 points higher.",
            "conv3,conv4", 45.4),
    removed("layers-6-7", "Without layers 6 and 7 the error is 44.8%, 4.3 points higher.",
            "fc6,fc7", 44.8),
    removed("layers-3-4-6-7", "Without layers 3, 4, 6 and 7 it is 71.3%: the overall depth is "
            "important.", "conv3,conv4,fc6,fc7", 71.3),
    Claim(
        "zfnet-layer-7", "5.1, Table 3",
        "Without layer 7 training error falls from 35.1% to 27.4%; the test error is about the "
        "same (alexnet-fc7).",
        "alexnet",
        (Arm("without fc7", {"model.without": "fc7"}, paper=27.4),
         Arm("the paper's network", paper=35.1)),
        evaluated_training_error(), (Order("without fc7", "the paper's network", paper=7.7),),
        here=SMALL_ALEXNET, fraction=SMALL_FRACTION, note=SMALL_NOTE,
    ),
    ablation("zfnet-fc-2048", "5.1, Table 3", "With 2,048 units in place of 4,096 in layers 6 and "
             "7 the error is 41.7%.", "half the units", {"model.hidden": (2048, 2048)}, 41.7,
             base=BASE, here={"model.hidden": (128, 128)}),
    Claim(
        "zfnet-fc-8192", "5.1, Table 3",
        "With 8,192 units in layers 6 and 7 the network overfits more: 26.8% training error "
        "against 35.1%.",
        "alexnet",
        (Arm("twice the units", {"model.hidden": (8192, 8192)}, paper=26.8,
             here={"model.hidden": (512, 512)}),
         Arm("the paper's network", paper=35.1)),
        evaluated_training_error(), (Order("twice the units", "the paper's network", paper=8.3),),
        here=SMALL_ALEXNET, fraction=SMALL_FRACTION, note=SMALL_NOTE,
    ),
    Claim(
        "zfnet-own-fc-2048", "5.1, Table 3",
        "Their own network with 2,048 units has 40.2% against 38.4%.",
        "zfnet", (Arm("ZFNet", paper=38.4),
                  Arm("half the units", {"model.hidden": (2048, 2048)}, paper=40.2)),
        TEST_ERROR, (Order("ZFNet", "half the units", paper=1.8),), here=None,
        checked="zfnet-fc-2048, of the replicated network in small",
    ),
    Claim(
        "zfnet-own-fc-8192", "5.1, Table 3",
        "Their own network with 8,192 units in layers 6 and 7 has 38.8% against 38.4%: larger "
        "fully connected layers do not help.",
        "zfnet", (Arm("ZFNet", paper=38.4),
                  Arm("twice the units", {"model.hidden": (8192, 8192)}, paper=38.8)),
        TEST_ERROR, (Order("ZFNet", "twice the units", paper=0.4),), here=None,
        checked="zfnet-fc-8192, of the replicated network in small",
    ),
    Claim(
        "zfnet-wide-fc-8192", "5.1, Table 3",
        "The wider network with 8,192 units overfits: 38.3% against 37.5%.",
        "zfnet:wide", (Arm(_WIDE, paper=37.5),
                       Arm("and 8,192 units", {"model.hidden": (8192, 8192)}, paper=38.3)),
        TEST_ERROR, (Order(_WIDE, "and 8,192 units", paper=0.8),), here=None,
        checked=IMAGENET_CHECKED,
    ),
    Claim(
        "zfnet-wide", "5.1, Table 3",
        "Wider middle layers (512, 1024, 512) lower the error from 38.4% to 37.5%.",
        "zfnet", (Arm(_WIDE, source="zfnet:wide", paper=37.5), Arm("384, 384, 256", paper=38.4)),
        TEST_ERROR, (Order(_WIDE, "384, 384, 256", paper=0.9),), here=None,
        checked=IMAGENET_CHECKED,
    ),
    Claim(
        "zfnet-strides", "4.1",
        "7x7 filters of stride 2 in layer 1 in place of 11x11 of stride 4 lower the top-5 error by "
        "1.7 points (38.4 against 40.5% top-1).",
        "zfnet", (Arm("7x7, stride 2", paper=38.4), Arm("11x11, stride 4", source="alexnet",
                                                        paper=40.5)),
        TEST_ERROR, (Order("7x7, stride 2", "11x11, stride 4", paper=2.1),), here=None,
        checked=IMAGENET_CHECKED,
        note="Of the whole networks with their recipes, as in the paper's table: towers, epochs "
        "and the limit of the kernels' RMS differ as well.",
    ),
)  # fmt: skip
