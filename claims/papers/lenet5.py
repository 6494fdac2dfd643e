"""LeCun, Bottou, Bengio and Haffner 1998, and Caffe's LeNet."""

from claims.claim import NONE, Arm, Claim, Order
from claims.measures import TEST_ERROR
from claims.papers._rows import row

TITLE = (
    "LeCun, Bottou, Bengio and Haffner: Gradient-Based Learning Applied to Document Recognition, "
    "1998"
)
YEAR = 1998

_DISTORTED = {
    "data.augment.rotation": 10.0,
    "data.augment.shear": 0.1,
    "data.augment.stretch": 1.15,
}

CLAIMS = (
    row("lenet5-error", "III.B", "lenet5", within=0.15, here=NONE,
        note="59,000 training images; momentum in place of the diagonal Levenberg-Marquardt "
        "method. The rate was once chosen on the test error of runs of other lengths."),
    Claim(
        "lenet5-training-size", "III.B, Figure 6",
        "The error falls as the training set grows: 15,000, 30,000 and all images.",
        "lenet5",
        (Arm("59,000 images", paper=0.95),
         Arm("30,000 images", {"data.train_examples": 30_000}),
         Arm("15,000 images", {"data.train_examples": 15_000})),
        TEST_ERROR,
        (Order("59,000 images", "30,000 images"), Order("30,000 images", "15,000 images")),
        fraction=0.25,
        note="At equal epochs: fewer images also mean fewer updates.",
    ),
    Claim(
        "lenet5-distortions", "III.B",
        "Training on distorted images as well lowers the error from .95% to .8%.",
        "lenet5", (Arm("with distortions", _DISTORTED, paper=0.8), Arm("without", paper=0.95)),
        TEST_ERROR, (Order("with distortions", "without", paper=0.15),), fraction=0.5,
        note="Rotation by up to 10 degrees, shear of .1 and stretching by 1.15, of every image "
        "anew; the paper distorts by translation, scale, squeezing and shear of its own.",
    ),
    row("lenet5-caffe-error", "Caffe's example", "lenet5:caffe", within=0.15, here=NONE),
)  # fmt: skip
