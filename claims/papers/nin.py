"""Lin, Chen and Yan 2014."""

from claims.papers._rows import IMAGENET_CHECKED, row

TITLE = "Lin, Chen and Yan: Network in Network, 2014"
YEAR = 2014

_CHECKED = "parameters, multiply-adds and layers (tests/vision_models/test_models.py)"

CLAIMS = (
    row("nin-error", "4.2, Table 1", "nin", within=0.5, checked=_CHECKED),
    row("nin-plain-error", "4.2, Table 1", "nin:plain", within=0.5, checked=_CHECKED),
    row("nin-imagenet-error", "the authors' Caffe model", "nin:imagenet", within=0.5,
        checked=f"{IMAGENET_CHECKED}; logits with the same weights as the model put together in "
        "PyTorch (tests/vision_models/weights)"),
)  # fmt: skip
