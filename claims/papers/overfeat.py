"""Sermanet et al. 2014."""

from claims.claim import Arm, Claim, Order
from claims.measures import test_error
from claims.papers._rows import IMAGENET_CHECKED, row

TITLE = (
    "Sermanet, Eigen, Zhang, Mathieu, Fergus and LeCun: OverFeat: Integrated Recognition, "
    "Localization and Detection using Convolutional Networks, 2014"
)
YEAR = 2014

_CHECKED = f"{IMAGENET_CHECKED}; the windows of Table 5 (tests/vision_models/test_overfeat.py)"

_ACCURATE_SCALES = (245, 281, 389, 461)

CLAIMS = (
    row("overfeat-error", "Table 2", "overfeat:fast", within=0.5, checked=_CHECKED),
    row("overfeat-accurate-error", "Table 2", "overfeat:accurate", within=0.5, checked=_CHECKED,
        common={"evaluation.scales": _ACCURATE_SCALES}),
    Claim(
        "overfeat-accurate", "3.2, Table 2",
        "The accurate network has less error than the fast one: 35.74 against 38.12%.",
        "overfeat:fast",
        (Arm("accurate", source="overfeat:accurate", paper=35.74,
             measure=test_error("overfeat", scales=_ACCURATE_SCALES)),
         Arm("fast", paper=38.12)),
        test_error("overfeat"), (Order("accurate", "fast", paper=2.38),), here=None,
        checked=_CHECKED,
    ),
)  # fmt: skip
