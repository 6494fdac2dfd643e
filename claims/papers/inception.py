"""Szegedy et al. 2016 and 2017."""

from claims.claim import Arm, Claim, Order
from claims.measures import TEST_ERROR
from claims.papers._rows import WEIGHTS_CHECKED, row

TITLE = (
    "Szegedy, Vanhoucke, Ioffe and others: Rethinking the Inception Architecture, and Szegedy, "
    "Ioffe, Vanhoucke and Alemi: Inception-v4, 2016"
)
YEAR = 2016

CLAIMS = (
    row("inception-v3-error", "Table 3", "inception:v3", within=0.5, checked=WEIGHTS_CHECKED),
    row("inception-v4-error", "Inception-v4, Table 2", "inception:v4", within=0.5,
        checked=WEIGHTS_CHECKED),
    Claim(
        "inception-v4", "Inception-v4, Table 2",
        "Inception-v4 has less error than Inception-v3: 20.0 against 21.2%.",
        "inception:v4",
        (Arm("v4", paper=20.0), Arm("v3", source="inception:v3", paper=21.2)),
        TEST_ERROR, (Order("v4", "v3", paper=1.2),), here=None, checked=WEIGHTS_CHECKED,
    ),
)  # fmt: skip
