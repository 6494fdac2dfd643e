"""Krizhevsky, Sutskever and Hinton 2012.

Values of ImageNet ablations are those of the authors' own logs, top-1 error by ten views on the
ILSVRC-2012 validation set (layer-params-*.cfg of the released code), unless a claim says otherwise.
"""

from claims.claim import NONE, Arm, Claim, Fields, Measure, Order, Same, Step
from claims.measures import (
    ENSEMBLE_ERROR,
    ONE_OF_ENSEMBLE,
    TEST_ERROR,
    TRAINING_ERROR,
    VALIDATION_ERROR,
    epochs_to,
    epochs_to_loss,
    overfitting,
    printed,
    test_error,
)
from claims.papers._rows import (
    DIGITS,
    SMALL_ALEXNET,
    SMALL_FRACTION,
    SMALL_NOTE,
    THOUSAND,
    WEIGHTS_CHECKED,
    row,
)

TITLE = (
    "Krizhevsky, Sutskever and Hinton: ImageNet Classification with Deep Convolutional Neural "
    "Networks, 2012"
)
YEAR = 2012

TO_25, TO_45 = epochs_to(0.25, ends=True), epochs_to(0.45, ends=True)
RATES = (0.001, 0.002, 0.004)
BASE = Arm("the paper's network", paper=40.66)
_MEMORISED = (
    "200 photographs memorised at 224 pixels with every part of the recipe (docs/results.md); "
    f"{WEIGHTS_CHECKED}"
)


def ablation(
    id: str,
    section: str,
    statement: str,
    name: str,
    overrides: Fields,
    paper: float | None,
    *,
    here: Fields = NONE,
    source: str = "",
    note: str = "",
    fraction: float = SMALL_FRACTION,
    base: Arm = BASE,
) -> Claim:
    """The claim that the network is worse when something is changed.

    Args:
      id, section, statement: see `Claim`.
      name: of what is changed.
      overrides: that change it.
      paper: its top-1 error; None where there is none.
      here: overrides of the changed network here alone.
      source: its config, where it has one of its own.
      note: added to what is said of the small network.
      fraction: see `Claim`.
      base: the other arm.
    """
    cost = None if paper is None or base.paper is None else round(paper - base.paper, 2)
    return Claim(
        id, section, statement, "alexnet",
        (base, Arm(name, overrides, source=source, paper=paper, here=here)),
        TEST_ERROR, (Order(base.name, name, paper=cost),),
        here=SMALL_ALEXNET, fraction=fraction, note=f"{SMALL_NOTE} {note}".strip(),
    )  # fmt: skip


def without(name: str, section: str, statement: str, layers: str) -> Claim:
    """The claim that a layer, or several, are missed; the paper has no exact numbers."""
    return ablation(
        f"alexnet-{name}", section, statement, f"without {layers}", {"model.without": layers}, None
    )


def _sent(side: str) -> Measure:
    """Bytes that a device sends for an image, of `ours` (towers) or `peer` (data parallelism)."""
    pattern = rf'"name": "sent_per_image/alexnet".*"{side}": ([\d.e+]+)'
    step = Step("two_towers", module="benchmarks.two_towers", flags=("--quick",))
    return printed(step, pattern, "bytes that a device sends for an image", trained=False)


_RESULTS = (
    row("alexnet-error", "Table 2", "alexnet", within=0.4, checked=_MEMORISED),
    row("alexnet-original-error", "the authors' log", "alexnet:original", within=0.4,
        checked=_MEMORISED),
    row("alexnet-owt-error", "Krizhevsky 2014; torchvision", "alexnet:owt", within=0.5,
        checked=WEIGHTS_CHECKED),
    row("alexnet-caffe-error", "Caffe's readme", "alexnet:caffe", within=0.5,
        checked=WEIGHTS_CHECKED),
    row("alexnet-caffenet-error", "Caffe's readme", "alexnet:caffenet", within=0.5,
        checked=WEIGHTS_CHECKED),
)  # fmt: skip

_NEURONS = (
    Claim(
        "alexnet-relu", "3.1, Figure 1",
        "A four-layer network with ReLUs reaches 25% training error on CIFAR-10 six times sooner "
        "than with tanh units, the rate of each chosen to be as fast as possible; no "
        "regularisation.",
        "cifar10:figure1",
        (Arm("ReLU", tune={"optimizer.learning_rate": RATES}),
         Arm("tanh", {"model.neuron": "tanh"}, tune={"optimizer.learning_rate": RATES})),
        TO_25, (Order("ReLU", "tanh", paper=6, ratio=True, least=2),), tuned_by=TO_25,
        note="The paper publishes neither network nor rates; the layers are those of "
        "cuda-convnet's 19% network. A run ends where it has reached 25%. Confirmed if the ratio "
        "is above 2 (\"several times\").",
    ),
    Claim(
        "alexnet-neurons", "3.1",
        "ReLU trains faster than the saturating neurons sigmoid and |tanh|, which Jarrett et al. "
        "used to another end; leaky ReLU and ELU do not saturate either.",
        "cifar10:figure1",
        (Arm("ReLU", tune={"optimizer.learning_rate": (0.001, 0.002)}),
         *(Arm(name, {"model.neuron": neuron}, tune={"optimizer.learning_rate": (0.001, 0.002)})
           for name, neuron in (("|tanh|", "abs_tanh"), ("sigmoid", "sigmoid"),
                                ("leaky ReLU", "leaky_relu"), ("ELU", "elu")))),
        TO_45, (Order("ReLU", "sigmoid", ratio=True, least=2), Order("ReLU", "|tanh|", ratio=True)),
        fraction=0.2, tuned_by=TO_45,
        note="To 45% training error, where a run ends; it is reached in eight epochs. Leaky ReLU "
        "and ELU, which are younger than the paper, are measured without a claim.",
    ),
    ablation(
        "alexnet-relu-imagenet", "3.1", "Large networks could not have been tried with "
        "traditional saturating neurons: with tanh the network learns far more slowly.",
        "tanh", {"model.neuron": "tanh"}, None,
    ),
)  # fmt: skip

_NORM = (
    row("alexnet-11pct-error", "3.3; cuda-convnet2", "cifar10:11pct", within=0.5, here=NONE,
        fraction=0.1),
    row("alexnet-13pct-error", "3.3; cuda-convnet", "cifar10:13pct", within=0.5, here=NONE,
        fraction=0.08),
    row("alexnet-18pct-error", "cuda-convnet", "cifar10:18pct", within=0.5, here=NONE,
        fraction=0.15),
    Claim(
        "alexnet-lrn-cifar", "3.3",
        "A four-layer network has 13% test error on CIFAR-10 without response normalisation and "
        "11% with it.",
        "cifar10:11pct",
        (Arm("with normalisation", paper=11), Arm("without", {"model.norm": False}, paper=13)),
        TEST_ERROR, (Order("with normalisation", "without", paper=2),), fraction=0.1,
        note="cuda-convnet's files of these names also differ in the width of local3 and in "
        "fc10's decay; here the norms alone are taken out.",
    ),
    Claim(
        "alexnet-lrn-cifar-ten-views", "3.3",
        "Normalisation lowers the four-layer network's error by ten views as well, half of them "
        "mirrored.",
        "cifar10:11pct", (Arm("with normalisation"), Arm("without", {"model.norm": False})),
        test_error("ten_view"), (Order("with normalisation", "without"),), fraction=0.1,
        note="The config's own test has nine views, as cuda-convnet2's has.",
    ),
    Claim(
        "alexnet-lrn-13pct", "3.3",
        "Response normalisation helps the 13% network too, whose layers are otherwise as they are.",
        "cifar10:13pct",
        (Arm("with normalisation", {"model.norm": True}), Arm("without", paper=13)),
        TEST_ERROR, (Order("with normalisation", "without"),), fraction=0.08,
    ),
    Claim(
        "alexnet-lrn-18pct", "cuda-convnet, layers-18pct",
        "Normalisation inside maps takes the four-layer network from 19% to 18%.",
        "cifar10:18pct",
        (Arm("with normalisation", paper=18),
         Arm("without", {"model.name": "cifar10_four_layer"}, paper=19)),
        TEST_ERROR, (Order("with normalisation", "without", paper=1),), fraction=0.15,
        note="The norms alone are taken out; cuda-convnet's 19% network also has three times "
        "fc10's decay.",
    ),
    ablation("alexnet-lrn", "3.3", "Response normalisation reduces the top-1 error by 1.4 points.",
             "without normalisation", {"model.lrn": False}, 42.03),
    Claim(
        "alexnet-lrn-constants", "3.3",
        "k = 2, n = 5, alpha = 1e-4 and beta = .75 were determined using a validation set.",
        "alexnet",
        (Arm("the paper's"),
         Arm("k = 1", {"model.lrn_constants.k": 1.0}),
         Arm("alpha = 1e-2", {"model.lrn_constants.alpha": 1e-2}),
         Arm("n = 15", {"model.lrn_constants.size": 15})),
        VALIDATION_ERROR,
        tuple(Order("the paper's", other) for other in ("k = 1", "alpha = 1e-2", "n = 15")),
        here=SMALL_ALEXNET, fraction=SMALL_FRACTION, note=SMALL_NOTE,
    ),
)  # fmt: skip

_STRUCTURE = (
    ablation("alexnet-overlap", "3.4",
             "Overlapping pooling (3/2 against 2/2) reduces the top-1 error by .4 points.",
             "pools of 2/2", {"model.pool_window": 2}, 41.06),
    Claim(
        "alexnet-overlap-overfits", "3.4",
        "Models with overlapping pooling find it slightly more difficult to overfit.",
        "alexnet", (Arm("pools of 3/2"), Arm("pools of 2/2", {"model.pool_window": 2})),
        overfitting("loss"), (Order("pools of 3/2", "pools of 2/2"),),
        here=SMALL_ALEXNET, fraction=SMALL_FRACTION, note=SMALL_NOTE,
    ),
    ablation("alexnet-one-gpu", "3.2",
             "Two towers have 1.7 / 1.2 points less error than one GPU's network of half the "
             "kernels (ILSVRC-2010 test).",
             "one GPU", {}, 39.17, source="alexnet:one_gpu", base=Arm("two towers", paper=37.47),
             here={"model.kernels": (24, 32, 48, 48, 64)}),
    ablation("alexnet-connected", "3.2; layer-params-150.cfg",
             "Without connections between the towers the top-1 error is 1.2 points higher.",
             "towers not connected", {"model.connected": False}, 41.83),
    Claim(
        "alexnet-lcn", "3.3",
        "Response normalisation resembles the local contrast normalisation of Jarrett et al.; the "
        "paper does not say which has less error.",
        "alexnet",
        (BASE, Arm("local contrast normalisation", {"model.lcn": True})),
        TEST_ERROR, (), here=SMALL_ALEXNET, fraction=SMALL_FRACTION, note=SMALL_NOTE,
    ),
    Claim(
        "alexnet-towers", "3.2; cuda-convnet2",
        "One tower of all kernels, each reading all maps, is no worse than two towers.",
        "alexnet",
        (Arm("two towers", paper=40.66), Arm("one tower", {"model.towers": 1}, paper=40.42)),
        TEST_ERROR, (Same("two towers", "one tower", within=1.0),),
        here=SMALL_ALEXNET, fraction=SMALL_FRACTION, note=SMALL_NOTE,
    ),
    Claim(
        "alexnet-bytes", "3.2",
        "Communication in certain layers alone keeps what two GPUs exchange to an acceptable "
        "fraction of the computation: fewer bytes than their gradients.",
        "alexnet",
        (Arm("towers", measure=_sent("ours")), Arm("data parallelism", measure=_sent("peer"))),
        _sent("ours"),
        (Order("towers", "data parallelism", ratio=True),),
    ),
    without("conv3", "7", "Without conv3, a middle layer, the top-1 error is about 2 points "
            "higher.", "conv3"),
    without("conv4", "7", "Without conv4, a middle layer, it is about 2 points higher, too.",
            "conv4"),
    without("conv5", "7", "Without conv5, a middle layer, it is about 2 points higher, too.",
            "conv5"),
    Claim(
        "alexnet-fc7", "ZFNet's Table 3",
        "Without the second hidden fully connected layer the error is about the same: 40.0 against "
        "40.5%.",
        "alexnet",
        (Arm("the paper's network", paper=40.5),
         Arm("without fc7", {"model.without": "fc7"}, paper=40.0)),
        TEST_ERROR, (Same("the paper's network", "without fc7", within=1.0),),
        here=SMALL_ALEXNET, fraction=SMALL_FRACTION, note=SMALL_NOTE,
    ),
    without("fc", "7", "Depth is important: without both hidden fully connected layers, which hold "
            "most of the parameters, the network is worse.", "fc6,fc7"),
)  # fmt: skip

_REGULARISED = (
    ablation("alexnet-colour-noise", "4.1",
             "Altering the intensities of RGB reduces the top-1 error by over 1 point.",
             "without colour noise", {"data.augment.colour_noise": "none"}, None),
    Claim(
        "alexnet-augmentation", "4.1",
        "Without crops and mirrored images the network suffers from substantial overfitting.",
        "alexnet",
        (Arm("crops and mirrors"),
         Arm("without", {"data.augment.crop": "center", "data.augment.flip": False})),
        overfitting("top1_error"), (Order("crops and mirrors", "without"),),
        here=SMALL_ALEXNET, fraction=SMALL_FRACTION, note=SMALL_NOTE,
    ),
    Claim(
        "alexnet-ten-views", "4.1",
        "The softmax averaged over ten views has less error than the centre crop: 39.0% against "
        "37.5% (ILSVRC-2010 test).",
        "cifar10:11pct",
        (Arm("ten views", measure=test_error("ten_view")),
         Arm("centre crop", measure=test_error("center_crop"))),
        TEST_ERROR, (Order("ten views", "centre crop", paper=1.55),), fraction=0.1,
        note="The 11% network of section 3.3, on CIFAR-10.",
    ),
    Claim(
        "alexnet-nine-views", "the released code, convdata_cifar.py",
        "On CIFAR-10 nine views without mirrored ones, as the released code has it, have less "
        "error than the centre crop.",
        "cifar10:11pct",
        (Arm("nine views", measure=test_error("nine_crop"), paper=11),
         Arm("centre crop", measure=test_error("center_crop"))),
        TEST_ERROR, (Order("nine views", "centre crop"),), fraction=0.1,
    ),
    Claim(
        "alexnet-weight-decay", "5",
        "A small amount of weight decay is important for the model to learn: it reduces its "
        "training error.",
        "alexnet", (Arm("decay of .0005"), Arm("none", {"optimizer.weight_decay": 0.0})),
        TRAINING_ERROR, (Order("decay of .0005", "none"),),
        here=SMALL_ALEXNET, fraction=SMALL_FRACTION, note=SMALL_NOTE,
    ),
    Claim(
        "alexnet-dropout", "4.2",
        "Without dropout the network exhibits substantial overfitting.",
        "alexnet", (Arm("dropout"), Arm("without dropout", {"model.dropout": 0.0})),
        overfitting("loss"), (Order("dropout", "without dropout"),),
        here=SMALL_ALEXNET, fraction=SMALL_FRACTION, note=SMALL_NOTE,
    ),
    Claim(
        "alexnet-dropout-steps", "4.2",
        "Dropout roughly doubles the iterations required to converge.",
        "alexnet", (Arm("without dropout", {"model.dropout": 0.0}), Arm("dropout")),
        epochs_to_loss(1.6), (Order("without dropout", "dropout", paper=2, ratio=True),),
        here=SMALL_ALEXNET, fraction=SMALL_FRACTION,
        note=f"{SMALL_NOTE} Epochs to a training loss of 1.6, the loss that dropout itself raises.",
    ),
    Claim(
        "alexnet-dropout-mean", "4.2",
        "Half of the outputs at test time is a reasonable approximation of the mean over the "
        "networks that dropout samples.",
        "alexnet",
        (Arm("halved outputs", measure=test_error("center_crop")),
         Arm("mean over sampled networks", measure=test_error("center_crop", masks=30))),
        TEST_ERROR, (Same("halved outputs", "mean over sampled networks", within=0.5),),
        here=SMALL_ALEXNET, fraction=SMALL_FRACTION,
        note=f"{SMALL_NOTE} The arithmetic mean of the probabilities of 30 networks, each with the "
        "same masks for all images; the paper speaks of the geometric mean.",
    ),
)  # fmt: skip

_BEYOND = (
    Claim(
        "alexnet-ensemble", "Table 2",
        "The average of five networks has less error than one: 38.1% against 40.7%.",
        "lenet5:caffe",
        (Arm("one network", measure=ONE_OF_ENSEMBLE, paper=40.7),
         *(Arm(f"average of {words}", members=n, paper=38.1 if n == 5 else None)
           for n, words in ((2, "two"), (3, "three"), (5, "five")))),
        ENSEMBLE_ERROR,
        tuple(Order(f"average of {n}", "one network") for n in ("three", "five")),
        fraction=0.05,
        note="Caffe's LeNet on MNIST in place of AlexNet; members have seeds of their own. Not by "
        "the paper's numbers, which are of ImageNet.",
    ),
    row("alexnet-six-conv", "Table 2, 1 CNN*; the authors' log", "alexnet:pretrained", within=0.4,
        checked="the network's 61,555,304 parameters (tests/vision_models/test_models.py); each "
        "stage's rates (tests/configs/test_configs.py)",
        note="The stages are configs/alexnet.py:pretrain_2009, :pretrain_2011 and :pretrained.",
        waits="the images of ImageNet Fall 2009 and 2011"),
    Claim(
        "alexnet-pretraining", "Table 2, 1 CNN*, in small",
        "Pretraining on other images helps: digits after MNIST against digits alone.",
        "lenet5:caffe",
        (Arm("MNIST", here=THOUSAND),
         Arm("digits after MNIST", {**DIGITS, "data.train_examples": 200, "init_head": "new"},
             starts_from="MNIST"),
         Arm("digits alone", {**DIGITS, "data.train_examples": 200})),
        VALIDATION_ERROR, (Order("digits after MNIST", "digits alone"),),
        note="Caffe's LeNet; 200 of the digits that come with scikit-learn, tested on 360 others.",
    ),
    Claim(
        "alexnet-fall2009", "6", "On Fall 2009 (10,184 classes) the errors are 67.4 / 40.9%.",
        "alexnet:pretrain_2009", (Arm("network", paper=67.4),), TEST_ERROR, (), here=None,
        checked="nothing", waits="ImageNet Fall 2009, half of it for testing",
    ),
)  # fmt: skip

CLAIMS = (*_RESULTS, *_NEURONS, *_NORM, *_STRUCTURE, *_REGULARISED, *_BEYOND)
