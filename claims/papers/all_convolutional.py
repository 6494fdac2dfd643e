"""Springenberg, Dosovitskiy, Brox and Riedmiller 2015."""

import types

from claims.claim import NONE, Arm, Claim, Fields, Order
from claims.measures import TEST_ERROR
from claims.papers._rows import row

TITLE = (
    "Springenberg, Dosovitskiy, Brox and Riedmiller: Striving for Simplicity: The All "
    "Convolutional Net, 2015"
)
YEAR = 2015

# One of 350 epochs: eight minutes on two CPU cores for A, twelve for C.
_ONE_EPOCH = 1 / 350
_SHORT: Fields = types.MappingProxyType({"model.dropout": 0.0, "model.input_dropout": 0.0})

CLAIMS = (
    *(row(f"all-convolutional-{base}-error", "Table 3", f"all_convolutional:{base}", within=0.5,
          here=NONE, fraction=_ONE_EPOCH)
      for base in "abc"),
    Claim(
        "all-convolutional-bases", "4.1, Table 3",
        "The deeper bases B and C have less error than A: 9.10 and 9.08 against 10.30%.",
        "all_convolutional:c",
        (Arm("C", paper=9.08), Arm("A", source="all_convolutional:a", paper=10.30)),
        TEST_ERROR, (Order("C", "A", paper=1.22),), here=_SHORT, fraction=2 * _ONE_EPOCH,
        note="Without dropout here, which needs hundreds of epochs.",
    ),
    Claim(
        "all-convolutional-augmentation", "4.2, Table 3",
        "With crops and flips the error of C falls from 9.08 to 7.25%.",
        "all_convolutional:c",
        (Arm("crops and flips", {"data.augment.crop": "square", "data.augment.flip": True,
                                 "data.pad": 4}, paper=7.25),
         Arm("none", paper=9.08)),
        TEST_ERROR, (Order("crops and flips", "none", paper=1.83),), here=None,
        checked="nothing shorter can decide it: augmentation pays when training error is low",
    ),
    Claim(
        "all-convolutional-pools", "4.1, Table 3",
        "Convolutions of stride 2 in place of max pools do not lower accuracy (All-CNN-C 9.08, "
        "ConvPool-CNN-C 9.31, base C 9.74, Strided-CNN-C 10.19%).",
        "all_convolutional:c", (Arm("All-CNN-C", paper=9.08),), TEST_ERROR, (), here=None,
        checked="All-CNN's parameters (tests/vision_models/test_models.py)",
        waits="the base, strided and pooled variants as options of the network",
    ),
)  # fmt: skip
