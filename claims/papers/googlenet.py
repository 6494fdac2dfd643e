"""Szegedy et al. 2015. Its networks need 224 pixels: nothing of it is run on small images."""

from claims.claim import Arm, Claim, Order
from claims.measures import PARAMETERS, TEST_ERROR, test_error
from claims.papers._rows import IMAGENET_CHECKED, WEIGHTS_CHECKED, row

TITLE = "Szegedy, Liu, Jia and others: Going Deeper with Convolutions, 2015"
YEAR = 2015

CLAIMS = (
    row("googlenet-error", "Table 3", "googlenet", within=0.4, checked=IMAGENET_CHECKED),
    row("googlenet-bn-error", "torchvision", "googlenet:bn", within=0.5, checked=WEIGHTS_CHECKED),
    Claim(
        "googlenet-crops", "7, Table 3",
        "More crops lower the top-5 error: 10.07% with one, 9.15% with ten, 7.89% with 144.",
        "googlenet",
        tuple(Arm(name, paper=error, measure=test_error(protocol, top5=True))
              for name, protocol, error in (("144 crops", "crops_144", 7.89),
                                            ("ten crops", "ten_view", 9.15),
                                            ("one crop", "center_crop", 10.07))),
        TEST_ERROR, (Order("144 crops", "ten crops", paper=1.26),
                     Order("ten crops", "one crop", paper=0.92)),
        here=None, checked="the 144 crops against a loop over Pillow's images "
        "(tests/evaluation/test_protocols.py)",
    ),
    Claim(
        "googlenet-parameters", "1", "It has 12 times fewer parameters than AlexNet.",
        "googlenet",
        (Arm("GoogLeNet", {"model.auxiliary": False}), Arm("AlexNet", source="alexnet")),
        PARAMETERS, (Order("GoogLeNet", "AlexNet", paper=12, ratio=True, least=11.5),),
        note="Counted without the auxiliary classifiers. Confirmed from 11.5 on.",
    ),
    Claim(
        "googlenet-auxiliary", "5", "The auxiliary classifiers' effect is relatively minor "
        "(.5%).",
        "googlenet",
        (Arm("with them"), Arm("without", {"model.auxiliary": False})),
        test_error("center_crop"), (Order("with them", "without", paper=0.5),),
        here=None, checked=IMAGENET_CHECKED,
        note="The figure is of the paper's arXiv text; which error it is of is not said.",
    ),
)  # fmt: skip
