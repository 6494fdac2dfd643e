"""Springenberg, Dosovitskiy, Brox and Riedmiller 2015."""

import types

from claims.claim import NONE, Arm, Claim, Fields, Order, Same
from claims.measures import TEST_ERROR
from claims.papers._rows import row
from configs.papers import PUBLISHED

TITLE = (
    "Springenberg, Dosovitskiy, Brox and Riedmiller: Striving for Simplicity: The All "
    "Convolutional Net, 2015"
)
YEAR = 2015

# One of 350 epochs: eight minutes on two CPU cores for A, twelve for C.
_ONE_EPOCH = 1 / 350
_SHORT: Fields = types.MappingProxyType({"model.dropout": 0.0, "model.input_dropout": 0.0})


def _pools(base: str) -> Claim:
    """The four networks of a base."""
    kinds = {
        "All-CNN": "",
        "ConvPool-CNN": "convpool_",
        "base": "base_",
        "Strided-CNN": "strided_",
    }
    errors = {
        name: PUBLISHED["all_convolutional", f"{kind}{base}"].top1 or 0.0
        for name, kind in kinds.items()
    }
    arms = [
        Arm(name, source=f"all_convolutional:{kind}{base}", paper=errors[name])
        for name, kind in kinds.items()
    ]

    def below_strided(name: str) -> Order:
        return Order(name, "Strided-CNN", paper=round(errors["Strided-CNN"] - errors[name], 2))

    return Claim(
        f"all-convolutional-pools-{base}", "4.2.1, Table 3",
        "Convolutions of stride 2 in place of max pools do not lower accuracy; pools left out do. "
        f"Base {base.upper()}.",
        f"all_convolutional:{base}", tuple(arms), TEST_ERROR,
        (below_strided("All-CNN"), below_strided("base"),
         Same("All-CNN", "ConvPool-CNN", within=1.0)),
        here=_SHORT, fraction=2 * _ONE_EPOCH,
        note="Without dropout here, which needs hundreds of epochs.",
    )  # fmt: skip


CLAIMS = (
    *(row(f"all-convolutional-{base}-error", "Table 3", f"all_convolutional:{base}", within=0.5,
          here=NONE, fraction=_ONE_EPOCH)
      for base in "abc"),
    *(row(f"all-convolutional-{kind}-{base}-error", "Table 3", f"all_convolutional:{kind}_{base}",
          within=0.5, checked="parameters, multiply-adds and layers of the network "
          "(tests/vision_models/test_models.py, test_ablations.py)")
      for kind in ("base", "strided", "convpool") for base in "abc"),
    Claim(
        "all-convolutional-bases", "4.2.1, Table 3",
        "The deeper bases B and C have less error than A: 9.10 and 9.08 against 10.30%.",
        "all_convolutional:c",
        (Arm("C", paper=9.08), Arm("A", source="all_convolutional:a", paper=10.30)),
        TEST_ERROR, (Order("C", "A", paper=1.22),), here=_SHORT, fraction=2 * _ONE_EPOCH,
        note="Without dropout here, which needs hundreds of epochs.",
    ),
    Claim(
        "all-convolutional-augmentation", "4.2.1, Table 4",
        "With crops and flips the error of C falls from 9.08 to 7.25%.",
        "all_convolutional:c",
        (Arm("crops and flips", {"data.augment.crop": "square", "data.augment.flip": True,
                                 "data.pad": 4}, paper=7.25),
         Arm("none", paper=9.08)),
        TEST_ERROR, (Order("crops and flips", "none", paper=1.83),), here=None,
        checked="nothing shorter can decide it: augmentation pays when training error is low",
    ),
    *(_pools(base) for base in "abc"),
)  # fmt: skip
