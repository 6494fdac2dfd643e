"""Simonyan and Zisserman 2015."""

import types

from claims.claim import Arm, Claim, Fields, Measure, Near, Order, Same
from claims.measures import PARAMETERS, TEST_ERROR, VALIDATION_ERROR, test_error
from claims.papers._rows import WEIGHTS_CHECKED, row

TITLE = (
    "Simonyan and Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, "
    "2015"
)
YEAR = 2015

# CIFAR-10 at its own size. Five pools leave one cell.
SMALL: Fields = types.MappingProxyType(
    {
        "data.name": "cifar10",
        "data.resize": 32,
        "data.crop": 32,
        "data.pad": 4,
        "data.augment.crop": "square",
        "data.deviation": (64.0, 64.0, 64.0),
        "data.augment.colour_noise": "none",
        "model.hidden": (256, 256),
        "model.init": "he",
        "optimizer.plateau_patience": 0,
        "optimizer.drop_epochs": (37, 56, 67),
        "evaluation.protocol": "center_crop",
    }
)
NOTE = (
    "CIFAR-10 at 32 pixels, divided by 64; 256 hidden units; He's initialisation; the rate falls "
    "at half, three quarters and nine tenths of the run; tested on the whole image."
)
# A stack of windows of 3 against one window that sees as much, in the lectures' small network.
STACKED = {"model.convolutions": 3, "model.window": 3}
_DENSE_CHECKED = (
    f"{WEIGHTS_CHECKED}; dense evaluation against a grid of crops "
    "(tests/vision_models/test_transform.py)"
)


_Q = (256, 384, 512)  # scales of testing


def _protocol(
    id: str, section: str, statement: str, better: tuple[str, Measure, float],
    worse: tuple[str, Measure, float],
) -> Claim:  # fmt: skip
    """The claim that a protocol, (name, measure, error), is better than another, for D."""
    arms = [Arm(name, measure=measure, paper=error) for name, measure, error in (better, worse)]
    gap = round(worse[2] - better[2], 2)
    return Claim(
        id, section, statement, "vgg:d", tuple(arms), TEST_ERROR,
        (Order(better[0], worse[0], paper=gap),),
        common={"data.resize": 384, "data.augment.scale_range": (256, 512)}, here=None,
        checked=_DENSE_CHECKED, note=_FROM_SCRATCH,
    )  # fmt: skip


_FROM_SCRATCH = "From scratch; the paper fine-tunes from the network of one scale."

CLAIMS = (
    *(row(f"vgg-{name.replace('_', '-')}-error", "Table 3", f"vgg:{name}", within=0.4,
          checked=_DENSE_CHECKED)
      for name in ("a", "a_lrn", "b", "c", "d", "e")),
    Claim(
        "vgg-lrn", "4.1, Table 3",
        "Local response normalisation does not improve on network A without any: 29.7 against "
        "29.6%.",
        "vgg:a", (Arm("A", paper=29.6), Arm("A-LRN", source="vgg:a_lrn", paper=29.7)),
        TEST_ERROR, (Same("A", "A-LRN", within=1.0),), here=SMALL, fraction=2 / 74, note=NOTE,
    ),
    Claim(
        "vgg-depth", "4.1, Table 3",
        "The error falls with depth, from 11 layers in A over 13 in B and 16 in D to 19 in E.",
        "vgg:a",
        (Arm("A", paper=29.6), Arm("B", source="vgg:b", paper=28.7),
         Arm("D", source="vgg:d", paper=27.0), Arm("E", source="vgg:e", paper=27.3)),
        TEST_ERROR, (Order("B", "A", paper=0.9), Order("D", "B", paper=1.7)),
        here=SMALL, fraction=1 / 74, note=f"{NOTE} E saturates in the paper; it is not compared.",
    ),
    Claim(
        "vgg-1x1", "4.1, Table 3",
        "C, whose added layers are 1x1, is worse than D, whose are 3x3: spatial context matters; "
        "it is better than B: the additional non-linearity helps.",
        "vgg:d",
        (Arm("D", paper=27.0), Arm("C", source="vgg:c", paper=28.1),
         Arm("B", source="vgg:b", paper=28.7)),
        TEST_ERROR, (Order("D", "C", paper=1.1), Order("C", "B", paper=0.6)),
        here=SMALL, fraction=1 / 74, note=NOTE,
    ),
    Claim(
        "vgg-5x5", "4.1",
        "B with a 5x5 convolution in place of each pair of 3x3 has 7 points more top-1 error, on a "
        "centre crop.",
        "vgg:b", (Arm("two 3x3"), Arm("one 5x5", source="vgg:b_5x5")),
        test_error("center_crop"), (Order("two 3x3", "one 5x5", paper=7),),
        here=SMALL, fraction=1 / 74, note=NOTE,
    ),
    Claim(
        "vgg-three-3x3", "2.3",
        "Three 3x3 convolutions see as much as one of 7x7, with 27/49 of its weights and three "
        "non-linearities: they discriminate better.",
        "convnet",
        (Arm("three 3x3", STACKED), Arm("one 7x7", {"model.convolutions": 1, "model.window": 7})),
        VALIDATION_ERROR, (Order("three 3x3", "one 7x7"),), fraction=0.1,
        note="The lectures' network of three stages on CIFAR-10. The stacks also have 3 to 9 times "
        "the convolutions' work in their first layers.",
    ),
    Claim(
        "vgg-two-3x3", "2.3", "Two 3x3 convolutions discriminate better than one of 5x5.",
        "convnet",
        (Arm("two 3x3"), Arm("one 5x5", {"model.convolutions": 1, "model.window": 5})),
        VALIDATION_ERROR, (Order("two 3x3", "one 5x5"),), fraction=0.1,
    ),
    Claim(
        "vgg-parameters", "Table 2",
        "In spite of its depth E has 144 million parameters, A 133: no more than shallower "
        "networks with larger windows.",
        "vgg:a",
        (Arm("A", paper=133e6), Arm("E", source="vgg:e", paper=144e6),
         Arm("OverFeat", source="overfeat:accurate", paper=144e6)),
        PARAMETERS,
        (Near("A", within=5e5), Near("E", within=5e5), Order("E", "OverFeat")),
        note="The shallower network is OverFeat's accurate one, which the paper names.",
    ),
    Claim(
        "vgg-no-fc", "the lectures",
        "Without fc6 and fc7 (an average over the map instead) VGG-D has a ninth of its "
        "parameters.",
        "vgg:d", (Arm("fc6 and fc7"), Arm("average", source="vgg:d_no_fc")),
        PARAMETERS, (Order("average", "fc6 and fc7", ratio=True, least=8),),
    ),
    _protocol("vgg-multi-scale", "4.2, Table 4", "Several scales at test time lower the error of D "
              "trained with jitter from 25.6 to 24.8%.",
              ("three scales", test_error("dense", scales=_Q), 24.8),
              ("one scale", test_error("dense"), 25.6)),
    _protocol("vgg-multi-crop", "4.3, Table 5", "Multiple crops perform slightly better than dense "
              "evaluation: 24.6 against 24.8%.",
              ("crops", test_error("multi_crop", scales=_Q), 24.6),
              ("dense", test_error("dense", scales=_Q), 24.8)),
    _protocol("vgg-complementary", "4.3, Table 5", "The two are complementary: both have 24.4%.",
              ("both", test_error("multi_crop_and_dense", scales=_Q), 24.4),
              ("crops", test_error("multi_crop", scales=_Q), 24.6)),
    Claim(
        "vgg-jitter", "4.1, Table 3",
        "Scale jittering in training, S in [256; 512], is better than S = 384: 25.6 against 26.8%.",
        "vgg:d",
        (Arm("jittered", {"data.augment.scale_range": (256, 512), "data.resize": 384}, paper=25.6),
         Arm("S = 384", {"data.resize": 384}, paper=26.8)),
        TEST_ERROR, (Order("jittered", "S = 384", paper=1.2),), here=None, checked=_DENSE_CHECKED,
        note=_FROM_SCRATCH,
    ),
)  # fmt: skip
