"""Best practices of Stanford's CS231n, and its table of transfer, as claims."""

import re
import types

from claims.claim import Arm, Claim, Fields, Measure, Near, Order, Same, Step, Value
from claims.measures import (
    TEST_ERROR,
    TRAINING_ERROR,
    VALIDATION_ERROR,
    Finished,
    epochs_to,
    first_gradient_share,
    linear_error,
)
from claims.papers._rows import DIGITS, SMALL_ALEXNET, SMALL_FRACTION, SMALL_NOTE, THOUSAND

TITLE = "Stanford CS231n: Convolutional Neural Networks for Visual Recognition, lectures"
YEAR = 2016

# Three of 30 epochs: six minutes on two CPU cores.
_SHORT = 0.1
# A fiftieth of 64,000 steps.
_FIFTIETH = 0.02
RATES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def _failed(run: Finished) -> Value:
    """Number of layers whose check failed, from pytest's last line."""
    last = (run.output(CHECKS).strip().splitlines() or [""])[-1]
    found = re.findall(r"(\d+) (passed|failed|errors?)\b", last)
    if not found:
        raise LookupError(f"no gradient was checked ({last})")
    return Value(float(sum(int(count) for count, word in found if word != "passed")))


CHECKS = Step(
    "gradient_checks", module="pytest",
    flags=("-n", "0", "tests/vision_models/test_gradients.py"), codes=(1,),  # 1: some failed
)  # fmt: skip
FAILED = Measure("layers whose gradient is wrong", "", _failed, (CHECKS,))


def _depth(layers: int, **options: object) -> Fields:
    """A plain network of the lectures: 3 stages of `layers` convolutions of 16, 32, 64 maps."""
    named = {f"model.{name}": value for name, value in options.items()}
    return types.MappingProxyType(
        {"model.convolutions": layers, "model.kernels": 16, "model.hidden_layers": 0, **named}
    )


_PRACTICE = (
    Claim(
        "lectures-gradient-checks", "Neural networks 3, gradient checks",
        "Analytic gradients agree with differences, layer by layer.",
        "convnet", (Arm("every layer", paper=0),), FAILED, (Near("every layer", within=0),),
    ),
    Claim(
        "lectures-centred", "Neural networks 2, data preprocessing",
        "Data with their mean subtracted train better than raw data.",
        "convnet", (Arm("centred"), Arm("raw", {"data.mean": "none"})),
        TRAINING_ERROR, (Order("centred", "raw"),), fraction=_SHORT,
    ),
    Claim(
        "lectures-initialisers", "Neural networks 2, weight initialization",
        "He's deviation, sqrt(2 / n), is the one for ReLUs; Glorot's is too small for deep "
        "networks of them, and a fixed .01 smaller still.",
        "convnet",
        tuple(Arm(name, _depth(6, init=init)) for name, init in
              (("He", "he"), ("Glorot", "xavier"), (".01", "gaussian"))),
        TRAINING_ERROR, (Order("He", ".01"), Order("He", "Glorot")), fraction=_SHORT,
        note="19 layers, no BatchNorm.",
    ),
    Claim(
        "lectures-gradient-norms", "Neural networks 2, weight initialization",
        "With too small an initial deviation the gradient vanishes on its way to the first layers.",
        "convnet",
        (Arm("gaussian, .01", _depth(6, init="gaussian")), Arm("He", _depth(6, init="he"))),
        first_gradient_share(), (Order("gaussian, .01", "He"),), fraction=_SHORT / 10,
        note="19 layers, no BatchNorm, after a tenth of the claim lectures-initialisers' run.",
    ),
    *(Claim(
        f"lectures-escape-{words}", "Krizhevsky's and He's depths; the lectures on initialization",
        f"ReLU networks of {depth} layers without BatchNorm learn by He's initialisation; tanh "
        "networks of that depth are slower.",
        "convnet",
        (Arm("ReLU", _depth(n)), Arm("tanh", _depth(n, neuron="tanh", init="xavier")),
         Arm("no neuron", _depth(n, neuron="identity", init="xavier"))),
        TRAINING_ERROR, (Order("ReLU", "tanh"), Order("ReLU", "no neuron")), fraction=_SHORT,
        note="All at the config's one rate, .01; Glorot's initialisation but for ReLU.",
    ) for words, depth, n in (("few", 7, 2), ("ten", 13, 4))),
    *(Claim(
        f"lectures-batch-norm{'' if depth == 20 else f'-{depth}'}",
        "Neural networks 2, batch normalization",
        f"Plain networks of {depth} layers train better with BatchNorm than without it.",
        f"cifar10:plain{depth}",
        (Arm("BatchNorm"),
         Arm("none", {"model.batch_norm": False, "data.deviation": (64.0, 64.0, 64.0)},
             tune={"optimizer.learning_rate": (0.1, 0.01)})),
        TRAINING_ERROR, (Order("BatchNorm", "none"),), fraction=_FIFTIETH,
        tuned_by=TRAINING_ERROR,
        note="The rate without BatchNorm is the better of .01 and of .1, which is that with it; "
        "pixels are then divided by 64, for nothing else brings them to a deviation of about 1.",
    ) for depth in (8, 20, 56)),
    Claim(
        "lectures-batch-norm-init", "Neural networks 2, batch normalization",
        "Networks with BatchNorm are far more robust to a bad initialisation.",
        "convnet",
        (Arm("BatchNorm", _depth(6, init="gaussian", batch_norm=True)),
         Arm("none", _depth(6, init="gaussian"))),
        TRAINING_ERROR, (Order("BatchNorm", "none"),), fraction=_SHORT,
        note="19 layers that start with a deviation of .01.",
    ),
    Claim(
        "lectures-rates", "Neural networks 3, learning rate",
        "A good rate lies between one that is too low, with which the loss falls slowly, and one "
        "that is too high, with which it does not fall or diverges: .01, .0001 and 1.",
        "convnet",
        (Arm("good"),
         Arm("too low", {"optimizer.learning_rate": 0.0001}),
         Arm("too high", {"optimizer.learning_rate": 1.0})),
        TRAINING_ERROR, (Order("good", "too low"), Order("good", "too high")), fraction=_SHORT,
    ),
    Claim(
        "lectures-cross-validation", "Classification, validation sets",
        "A single validation split of a few hundred examples gives the error that each of five "
        "folds gives.",
        "alexnet:digits",
        (Arm("one split", {"data.validation_examples": 288}),
         *(Arm(f"fold {n}", {"data.folds": 5, "data.fold": n}) for n in range(5))),
        VALIDATION_ERROR,
        tuple(Same("one split", f"fold {n}", within=3.0) for n in range(5)), fraction=0.5,
        note="At one rate. The lectures advise cross-validation for so few examples; "
        "python -m claims sweep --folds=5 makes a table of rates.",
    ),
    Claim(
        "lectures-depth", "Architectures",
        "More layers at about equal cost are better: six convolutions against three wider ones.",
        "convnet",
        (Arm("N = 2, 32 maps"), Arm("N = 1, 63 maps",
                                    {"model.convolutions": 1, "model.kernels": 63})),
        VALIDATION_ERROR, (Order("N = 2, 32 maps", "N = 1, 63 maps"),), fraction=_SHORT,
        note="Both of 39 million multiply-adds.",
    ),
    Claim(
        "lectures-parameters", "Architectures",
        "More parameters are better: 64 maps in the first stage against 32 and 16.",
        "convnet",
        (Arm("64 maps", {"model.kernels": 64}), Arm("32 maps"),
         Arm("16 maps", {"model.kernels": 16})),
        VALIDATION_ERROR, (Order("64 maps", "32 maps"), Order("32 maps", "16 maps")),
        fraction=_SHORT / 2,
    ),
    Claim(
        "lectures-no-fc", "Architectures",
        "Hidden fully connected layers, with most of the parameters, can be left out.",
        "convnet", (Arm("hidden layer"), Arm("none", {"model.hidden_layers": 0})),
        TEST_ERROR, (Same("hidden layer", "none", within=3.0),), fraction=_SHORT,
    ),
    Claim(
        "lectures-sharing", "Architectures, parameter sharing",
        "Convolutions have far fewer parameters than locally connected layers (conv1 of AlexNet "
        "34,944 in place of 105,705,600), and less error.",
        "cifar10:13pct", (Arm("convolutions", {"model.shared": True}), Arm("locally connected")),
        TEST_ERROR, (Order("convolutions", "locally connected"),), fraction=0.08,
        note="local3 and local4 of the 13% network, with 146,570 parameters in all in place of "
        "1,116,490.",
    ),
    Claim(
        "lectures-exchanges", "AlexNet's section 3.2",
        "Each exchange between the towers lowers the error and costs bytes.",
        "alexnet",
        (Arm("all exchanges"),
         Arm("those of fc6 and fc7", {"model.exchanges": "fc6,fc7"}),
         Arm("that of fc7", {"model.connected": False})),
        TEST_ERROR, (Order("all exchanges", "those of fc6 and fc7"),
                     Order("those of fc6 and fc7", "that of fc7")),
        here=SMALL_ALEXNET, fraction=SMALL_FRACTION,
        note=f"{SMALL_NOTE} The bytes are in the network's table (--mode=summary).",
    ),
)  # fmt: skip

# Caffe's LeNet of MNIST, on the digits of scikit-learn (similar) and, from CIFAR-10, on MNIST
# (different), with few or many examples.
_NEW = {**DIGITS, "init_head": "new"}
_SOURCE = Arm("source", here=THOUSAND)
_SECOND_HALF: Fields = types.MappingProxyType(
    {
        "data.classes": (5, 6, 7, 8, 9),
        "data.train_examples": 1000,
        "total_steps": 16_000,
        "optimizer.drop_steps": (8000, 12_000),
    }
)


def _transfer(name: str, statement: str, source: str, few: bool, better: str, worse: str) -> Claim:
    """A cell of the table: what is trained of a network that was trained on something else."""
    size = {"data.train_examples": 100} if few else {}
    data = {} if source == "mnist" else {"data.name": "cifar10", "data.resize": 28}
    arms = {
        "all layers": Arm("all layers", {**_NEW, **size}, starts_from="source"),
        "last layer": Arm("last layer", {**_NEW, **size, "optimizer.train_last": 1},
                          starts_from="source"),
        "last two layers": Arm("last two layers", {**_NEW, **size, "optimizer.train_last": 2},
                               starts_from="source"),
        "from scratch": Arm("from scratch", {**DIGITS, **size}),
    }  # fmt: skip
    origin = Arm("source", data, here=_SOURCE.here)
    return Claim(
        f"lectures-transfer-{name}", "Transfer learning, the table of four cases", statement,
        "lenet5:caffe", (origin, *arms.values()), VALIDATION_ERROR, (Order(better, worse),),
        note="Caffe's LeNet, 1,000 steps on "
        f"{'MNIST' if source == 'mnist' else 'CIFAR-10 at 28 pixels'}, then 300 on the digits of "
        f"scikit-learn{', 100 of them' if few else ''}.",
    )  # fmt: skip


_TRANSFER = (
    _transfer("similar-little", "Similar data, and little of them: train a linear classifier on "
              "top.", "mnist", True, "last layer", "from scratch"),
    _transfer("similar-much", "Similar data, and many of them: fine-tune more layers.", "mnist",
              False, "all layers", "last layer"),
    _transfer("different-little", "Different data, and little of them: the top layers are too "
              "specific; earlier features help more.", "cifar10", True, "last two layers",
              "last layer"),
    _transfer("different-much", "Different data, and many of them: fine-tune all layers.",
              "cifar10", False, "all layers", "last layer"),
    Claim(
        "lectures-transfer-earlier", "Transfer learning, the table of four cases",
        "Different data, and little of them: a linear classifier on earlier features does better "
        "than one on top.",
        "lenet5:caffe",
        (Arm("on pool1", measure=linear_error("pool1", "digits", 10)),
         Arm("on pool2", measure=linear_error("pool2", "digits", 10)),
         Arm("on ip1, the top", measure=linear_error("ip1", "digits", 10))),
        linear_error("ip1", "digits", 10), (Order("on pool2", "on ip1, the top"),),
        common={"data.name": "cifar10", "data.resize": 28}, here=THOUSAND,
        note="Caffe's LeNet, 1,000 steps on CIFAR-10 at 28 pixels; ten of each digit of "
        "scikit-learn, tested on up to 50 others.",
    ),
    Claim(
        "lectures-transfer-faster", "Transfer learning",
        "Training that starts from a trained network is faster than from random weights.",
        "lenet5:caffe",
        (_SOURCE, Arm("trained", _NEW, starts_from="source"), Arm("random", DIGITS)),
        epochs_to(0.1), (Order("trained", "random", ratio=True),),
        common={"log_every_steps": 5},
    ),
    Claim(
        "lectures-halves", "Transfer learning",
        "Pretraining on half of CIFAR-10's classes helps with the other half.",
        "cifar10:resnet20",
        (Arm("first half", {"data.classes": (0, 1, 2, 3, 4)}),
         Arm("pretrained", {**_SECOND_HALF, "init_head": "new"}, starts_from="first half"),
         Arm("from scratch", _SECOND_HALF)),
        TEST_ERROR, (Order("pretrained", "from scratch"),), fraction=_FIFTIETH,
        note="ResNet-20; 1,000 images of the second half's five classes, a quarter of the steps.",
    ),
)  # fmt: skip

CLAIMS = (*_PRACTICE, *_TRANSFER)
