"""The errors that were published for the configs: the one table of them that programs read.

The docstrings of the configs say the same in words; a test compares the two. Beside them the years
of the networks, and the results of the ImageNet challenges.
"""

import importlib
from typing import NamedTuple


class Published(NamedTuple):
    """What a paper, or the authors of a recipe, report.

    Attributes:
      data: name of the dataset, as in `data.name`.
      top1, top5: errors in percent on the split that is reported; None where not given.
      views: the test protocol.
      source: who reports it.
    """

    data: str
    top1: float | None
    top5: float | None
    views: str
    source: str


# The variant that a config is of where its name has none.
_DEFAULTS = {
    "all_convolutional": "c",
    "cifar10": "resnet20",
    "inception": "v3",
    "overfeat": "fast",
    "resnet": "50",
    "vgg": "d",
}

_KRIZHEVSKY, _CAFFE = "Krizhevsky et al. 2012", "Caffe's model"
_HE, _IDENTITY = "He et al. 2015", "He et al. 2016"
_VGG, _ZEILER = "Simonyan and Zisserman 2015", "Zeiler and Fergus 2014"
_LIN, _SERMANET = "Lin et al. 2014", "Sermanet et al. 2014"
_SPRINGENBERG, _TORCHVISION = "Springenberg et al. 2015", "torchvision's weights"


def _imagenet(top1: float | None, top5: float | None, views: str, source: str) -> Published:
    return Published("imagenet2012", top1, top5, views, source)


def _cifar10(top1: float, source: str, views: str = "center_crop") -> Published:
    return Published("cifar10", top1, None, views, source)


def _mnist(top1: float, source: str) -> Published:
    return Published("mnist", top1, None, "center_crop", source)


# (config, variant) -> what was published. Of overfeat:fast and zfnet:spp no second source has been
# found; overfeat:accurate is also in Simonyan and Zisserman's Table 7, inception:v3 in the paper's
# abstract.
PUBLISHED = {
    ("alexnet", ""): _imagenet(40.7, 18.2, "ten_view", _KRIZHEVSKY),
    ("alexnet", "original"): _imagenet(40.66, 18.21, "ten_view", "the authors' log"),
    ("alexnet", "pretrained"): _imagenet(38.99, 16.62, "ten_view", "the authors' log"),
    ("alexnet", "owt"): _imagenet(43.5, 20.9, "center_crop", _TORCHVISION),
    ("alexnet", "caffe"): _imagenet(42.9, 19.8, "center_crop", _CAFFE),
    ("alexnet", "caffenet"): _imagenet(42.6, 19.6, "center_crop", _CAFFE),
    ("all_convolutional", "a"): _cifar10(10.3, _SPRINGENBERG),
    ("all_convolutional", "b"): _cifar10(9.1, _SPRINGENBERG),
    ("all_convolutional", "c"): _cifar10(9.08, _SPRINGENBERG),
    ("all_convolutional", "base_a"): _cifar10(12.47, _SPRINGENBERG),
    ("all_convolutional", "base_b"): _cifar10(10.2, _SPRINGENBERG),
    ("all_convolutional", "base_c"): _cifar10(9.74, _SPRINGENBERG),
    ("all_convolutional", "strided_a"): _cifar10(13.46, _SPRINGENBERG),
    ("all_convolutional", "strided_b"): _cifar10(10.98, _SPRINGENBERG),
    ("all_convolutional", "strided_c"): _cifar10(10.19, _SPRINGENBERG),
    ("all_convolutional", "convpool_a"): _cifar10(10.21, _SPRINGENBERG),
    ("all_convolutional", "convpool_b"): _cifar10(9.33, _SPRINGENBERG),
    ("all_convolutional", "convpool_c"): _cifar10(9.31, _SPRINGENBERG),
    ("cifar10", "resnet20"): _cifar10(8.75, _HE),
    ("cifar10", "resnet32"): _cifar10(7.51, _HE),
    ("cifar10", "resnet44"): _cifar10(7.17, _HE),
    ("cifar10", "resnet56"): _cifar10(6.97, _HE),
    ("cifar10", "resnet110"): _cifar10(6.43, _HE),
    ("cifar10", "preact_resnet110"): _cifar10(6.37, _IDENTITY),
    ("cifar10", "preact_resnet164"): _cifar10(5.46, _IDENTITY),
    ("cifar10", "18pct"): _cifar10(18, "cuda-convnet"),
    ("cifar10", "13pct"): _cifar10(13, "cuda-convnet", "ten_view"),
    ("cifar10", "11pct"): _cifar10(11, "cuda-convnet2", "nine_crop"),
    ("googlenet", ""): _imagenet(None, 7.89, "crops_144", "Szegedy et al. 2015"),
    ("googlenet", "bn"): _imagenet(30.2, 10.5, "center_crop", _TORCHVISION),
    ("inception", "v3"): _imagenet(21.2, 5.6, "center_crop", "Szegedy et al. 2016"),
    ("inception", "v4"): _imagenet(20.0, 5.0, "center_crop", "Szegedy et al. 2017"),
    ("lenet5", ""): _mnist(0.95, "LeCun et al. 1998"),
    ("lenet5", "caffe"): _mnist(0.9, "Caffe's example"),
    ("nin", ""): _cifar10(8.81, _LIN),
    ("nin", "plain"): _cifar10(10.41, _LIN),
    ("nin", "imagenet"): _imagenet(40.64, None, "center_crop", "the authors' Caffe model"),
    ("overfeat", "fast"): _imagenet(38.12, 16.27, "overfeat", _SERMANET),
    ("overfeat", "accurate"): _imagenet(35.74, 14.18, "overfeat", _SERMANET),
    ("resnet", "34"): _imagenet(24.5, 7.5, "ten_view", _HE),
    ("resnet", "50"): _imagenet(22.9, 6.7, "ten_view", _HE),
    ("resnet", "101"): _imagenet(21.8, 6.1, "ten_view", _HE),
    ("resnet", "152"): _imagenet(21.4, 5.7, "ten_view", _HE),
    ("resnet", "plain18"): _imagenet(27.9, None, "ten_view", _HE),
    ("resnet", "plain34"): _imagenet(28.5, 10.0, "ten_view", _HE),
    ("vgg", "a"): _imagenet(29.6, 10.4, "dense", _VGG),
    ("vgg", "a_lrn"): _imagenet(29.7, 10.5, "dense", _VGG),
    ("vgg", "b"): _imagenet(28.7, 9.9, "dense", _VGG),
    ("vgg", "c"): _imagenet(28.1, 9.4, "dense", _VGG),
    ("vgg", "d"): _imagenet(27.0, 8.8, "dense", _VGG),
    ("vgg", "e"): _imagenet(27.3, 9.0, "dense", _VGG),
    ("zfnet", ""): _imagenet(38.4, 16.5, "ten_view", _ZEILER),
    ("zfnet", "wide"): _imagenet(37.5, 16.0, "ten_view", _ZEILER),
    ("zfnet", "spp"): _imagenet(34.98, 14.14, "ten_view", "He et al. 2014"),
}


# How a network's name begins -> the year in which its paper first came out; the longest counts.
_YEARS = {
    "lenet": 1998,
    "alexnet": 2012,
    "alexnet_owt": 2014,
    "cifar10": 2012,
    "nin": 2013,
    "overfeat": 2013,
    "zfnet": 2013,
    "zfnet_spp": 2014,
    "vgg": 2014,
    "googlenet": 2014,
    "googlenet_bn": 2015,
    **dict.fromkeys(("all_cnn", "base_cnn", "strided_cnn", "convpool_cnn"), 2014),
    "inception_v3": 2015,
    "resnet": 2015,
    "plain": 2015,
    "conv": 2016,
    "inception_v4": 2016,
    "preact": 2016,
}


def year(network: str) -> int:
    """The year in which a network's paper first came out."""
    return _YEARS[max((start for start in _YEARS if network.startswith(start)), key=len)]


class Entry(NamedTuple):
    """The best entry of an ImageNet challenge, or another that the lectures name.

    Attributes:
      year: of the challenge.
      name: of the entry, for people.
      network: the network here that is nearest to it; "" for features made by hand.
      layers: those with weights; 0 for features made by hand.
      top5: error in percent on the test set, without images from elsewhere.
    """

    year: int
    name: str
    network: str
    layers: int
    top5: float


# Most are averages of several networks. Errors of 2010 and 2011 as in Russakovsky et al. 2015, of
# 2012 to 2014 as in Simonyan and Zisserman 2015, Table 7, of 2015 as in He et al. 2015, Table 5.
CHALLENGES = (
    Entry(2010, "NEC-UIUC", "", 0, 28.2),
    Entry(2011, "XRCE", "", 0, 25.8),
    Entry(2012, "AlexNet", "alexnet", 8, 16.4),
    Entry(2013, "Clarifai", "zfnet", 8, 11.7),
    Entry(2014, "VGG", "vgg_e", 19, 7.3),
    Entry(2014, "GoogLeNet", "googlenet", 22, 6.7),
    Entry(2015, "ResNet", "resnet152", 152, 3.57),
)


def network_of(config: str, variant: str) -> str:
    """The name of the network that a config trains."""
    module = importlib.import_module(f"configs.{config}")
    return str(module.get_config(variant).model.name)


def published(config: str, variant: str, data: str) -> Published | None:
    """What was published for a config; None where nothing was, or on another dataset.

    Args:
      config: its name, such as `cifar10`.
      variant: its variant, or "" for the default.
      data: name of the dataset.
    """
    found = PUBLISHED.get((config, variant or _DEFAULTS.get(config, "")))
    return found if found is not None and found.data == data else None
