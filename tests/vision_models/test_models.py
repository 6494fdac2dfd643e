"""Every network: parameters and multiply-adds, shapes, and what the summary says."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vision_models
from vision_models.analysis import activation_shapes, layer_table
from vision_models.forward import WHOLE_BATCH, sides
from vision_models.functional import functional


@functools.cache
def abstract(name):
    return nnx.eval_shape(lambda: vision_models.create(name, rngs=nnx.Rngs(0)))


def residual_products(blocks, *, pixels, maps, stem, fc, bottleneck=False, projection=False):
    """Multiply-adds of a residual network from its paper's table, with plain arithmetic.

    blocks, pixels and maps are those of each stage; a bottleneck's stride is in its first
    1x1, and its last 1x1 has four times the maps.
    """
    total = stem + fc
    reads = maps[0]
    for count, side, width in zip(blocks, pixels, maps, strict=True):
        makes = 4 * width if bottleneck else width
        for number in range(count):
            if bottleneck:
                total += side**2 * (reads * width + 9 * width * width + width * makes)
            else:
                total += side**2 * (9 * reads * width + 9 * width * width)
            if projection and number == 0 and reads != makes:
                total += side**2 * reads * makes
            reads = makes
    return total


CIFAR = {"pixels": (32, 16, 8), "maps": (16, 32, 64)}
IMAGENET = {"pixels": (56, 28, 14, 7), "maps": (64, 128, 256, 512)}
STEM = 112**2 * 7**2 * 3 * 64


def cifar(n):
    return residual_products((n,) * 3, **CIFAR, stem=32**2 * 27 * 16, fc=640)


def imagenet(*blocks, bottleneck, projection=True):
    fc = 1000 * (2048 if bottleneck else 512)
    return residual_products(
        blocks, **IMAGENET, stem=STEM, fc=fc, bottleneck=bottleneck, projection=projection
    )


# Springenberg's last three convolutions, at 6x6 pixels.
ALL_CNN_TAIL = 6**2 * (331_776 + 36_864 + 1_920)


# Name: parameters, multiply-adds (None where the source gives a rounded figure, asserted
# below). The sources:
#   paper     the networks' papers, and tables of layers multiplied out by hand
#   torch     torchvision's documentation (num_params, GFLOPS)
#   caffe     the layer definitions of Caffe's model zoo and of cuda-convnet, multiplied out
#   cv        parameter counts published with imgclsmob's models (PreResNets); its first
#             block has a normalisation of 64 maps (128 parameters) that the paper's has not
COUNTS = {
    # paper: 156 + 12 + 1,516 + 32 + 48,120 + 10,164; connections less those of biases.
    "lenet5": (
        60_000,
        (122_304 - 6 * 784) + (151_600 - 16 * 100) + (48_120 - 120) + (10_164 - 84),
    ),
    "lenet5_linear": (
        60_850,
        (122_304 - 6 * 784) + (151_600 - 16 * 100) + (48_120 - 120) + (10_164 - 84) + 84 * 10,
    ),
    "lenet_caffe": (431_080, 24**2 * 500 + 8**2 * 25_000 + 800 * 500 + 5_000),  # caffe
    # code: layers-145.cfg, layers-145-half.cfg, layers-146-2011.cfg
    "alexnet": (60_965_224, 724_406_816),
    "alexnet_one_gpu": (59_798_312, 391_514_384),
    "alexnet_six_conv": (
        60_965_224 + 2 * (9 * 256 * 128 + 128),
        724_406_816 + 36 * 9 * 256 * 256,
    ),
    "alexnet_owt": (61_100_840, 714_188_480),  # torch (.71 G)
    "zfnet": (
        62_357_608,
        110**2 * 49 * 3 * 96
        + 26**2 * 25 * 96 * 256
        + 13**2 * 9 * (256 * 384 + 384 * 384 + 384 * 256)
        + 9216 * 4096
        + 4096**2
        + 4096 * 1000,
    ),
    "zfnet_wide": (
        107_627_624,
        110**2 * 49 * 3 * 96
        + 26**2 * 25 * 96 * 256
        + 13**2 * 9 * (256 * 512 + 512 * 1024 + 1024 * 512)
        + 18432 * 4096
        + 4096**2
        + 4096 * 1000,
    ),
    # ZFNet with 50 windows of 256 maps before fc6
    "zfnet_spp": (
        62_357_608 + (50 - 36) * 256 * 4096,
        110**2 * 49 * 3 * 96
        + 26**2 * 25 * 96 * 256
        + 13**2 * 9 * (256 * 384 + 384 * 384 + 384 * 256)
        + 12_800 * 4096
        + 4096**2
        + 4096 * 1000,
    ),
    # paper: 145 and 144 M, Tables 1 and 3 multiplied out; the released weights of the fast one
    # are 145,920,872 numbers
    "overfeat_fast": (
        145_920_872,
        56**2 * 363 * 96
        + 24**2 * 2400 * 256
        + 12**2 * 9 * (256 * 512 + 512 * 1024 + 1024 * 1024)
        + 36_864 * 3072
        + 3072 * 4096
        + 4_096_000,
    ),
    "overfeat_accurate": (
        147 * 96
        + 49 * 96 * 256
        + 9 * (256 * 512 + 512 * 512 + 512 * 1024 + 1024 * 1024)
        + 25_600 * 4096
        + 4096**2
        + 4_096_000
        + (96 + 256 + 512 + 512 + 1024 + 1024 + 4096 + 4096 + 1000),
        108**2 * 147 * 96
        + 30**2 * 49 * 96 * 256
        + 15**2 * 9 * (256 * 512 + 512 * 512 + 512 * 1024 + 1024 * 1024)
        + 25_600 * 4096
        + 4096**2
        + 4_096_000,
    ),
    # paper ("133, 133, 134, 138, 144 million"), torch (7.61, 11.31, 15.47, 19.63 G)
    "vgg_a": (132_863_336, 7_609_090_048),
    "vgg_a_lrn": (132_863_336, 7_609_090_048),
    "vgg_b": (133_047_848, 11_308_466_176),
    "vgg_b_5x5": (134_503_528, 9_356_017_664),
    "vgg_c": (133_638_952, 11_770_888_192),
    "vgg_d": (138_357_544, 15_470_264_320),
    "vgg_e": (143_667_240, 19_632_062_464),
    # torch
    "vgg_a_bn": (132_868_840, 7_609_090_048),
    "vgg_b_bn": (133_053_736, 11_308_466_176),
    "vgg_d_bn": (138_365_992, 15_470_264_320),
    "vgg_e_bn": (143_678_248, 19_632_062_464),
    # Keras' VGG16 without top, and 512 x 1000 weights and biases
    "vgg_d_no_fc": (
        14_714_688 + 513_000,
        15_470_264_320 - 25_088 * 4096 - 4096**2 - 4_096_000 + 512_000,
    ),
    "googlenet": (13_378_280, 1_582_671_872),  # caffe (1.58 G); paper: 6,998,552 without sides
    "googlenet_bn": (13_004_888, 1_498_376_192),  # torch (1.50 G)
    "inception_v3": (27_161_264, 5_713_216_096),  # torch (5.71 G); 23,834,568 without sides
    "inception_v4": (42_679_816, 12_253_974_624),  # timm (42.68 M, 12.28 G)
    "resnet18": (11_689_512, imagenet(2, 2, 2, 2, bottleneck=False)),
    "resnet34": (21_797_672, imagenet(3, 4, 6, 3, bottleneck=False)),
    "resnet50": (25_557_032, imagenet(3, 4, 6, 3, bottleneck=True)),
    "resnet101": (44_549_160, imagenet(3, 4, 23, 3, bottleneck=True)),
    "resnet152": (60_192_808, imagenet(3, 8, 36, 3, bottleneck=True)),
    # ResNets less their projections and these' normalisations
    "plain18": (
        11_689_512 - 64 * 128 - 128 * 256 - 256 * 512 - 2 * (128 + 256 + 512),
        imagenet(2, 2, 2, 2, bottleneck=False, projection=False),
    ),
    "plain34": (
        21_797_672 - 64 * 128 - 128 * 256 - 256 * 512 - 2 * (128 + 256 + 512),
        imagenet(3, 4, 6, 3, bottleneck=False, projection=False),
    ),
    "preact_resnet18": (11_687_848 - 128, imagenet(2, 2, 2, 2, bottleneck=False)),  # cv
    "preact_resnet34": (21_796_008 - 128, imagenet(3, 4, 6, 3, bottleneck=False)),
    "preact_resnet50": (25_549_480 - 128, imagenet(3, 4, 6, 3, bottleneck=True)),
    "preact_resnet101": (44_541_608 - 128, imagenet(3, 4, 23, 3, bottleneck=True)),
    "preact_resnet152": (60_185_256 - 128, imagenet(3, 8, 36, 3, bottleneck=True)),
    "preact_resnet200": (64_666_280 - 128, imagenet(3, 24, 36, 3, bottleneck=True)),
    # paper: .27, .46, .66, .85 and 1.7 M
    "resnet20": (269_722, cifar(3)),
    "resnet32": (464_154, cifar(5)),
    "resnet44": (658_586, cifar(7)),
    "resnet56": (853_018, cifar(9)),
    "resnet110": (1_727_962, cifar(18)),
    "plain8": (
        3 * 144 + 2 * 2304 + 4608 + 9216 + 18_432 + 36_864 + 2 * (3 * 16 + 2 * 32 + 2 * 64) + 650,
        cifar(1),
    ),
    "plain20": (269_722, cifar(3)),
    "plain32": (464_154, cifar(5)),
    "plain44": (658_586, cifar(7)),
    "plain56": (853_018, cifar(9)),
    "plain110": (1_727_962, cifar(18)),
    "preact_resnet20": (269_722, cifar(3)),
    "preact_resnet56": (853_018, cifar(9)),
    "preact_resnet110": (1_727_962, cifar(18)),
    "preact_resnet164": (  # cv, 1.7 M in the paper
        1_703_258,
        residual_products(
            (18,) * 3, **CIFAR, stem=32**2 * 27 * 16, fc=2560, bottleneck=True, projection=True
        ),
    ),
    # caffe: cifar10_full has the body of the 18% network
    "cifar10_four_layer": (89_578, 32**2 * 2400 + 16**2 * 25_600 + 8**2 * 51_200 + 10_240),
    "cifar10_18pct": (89_578, 32**2 * 2400 + 16**2 * 25_600 + 8**2 * 51_200 + 10_240),
    "cifar10_13pct": (
        4_864 + 102_464 + 36 * (576 * 32 + 32) + 36 * (288 * 32 + 32) + 11_530,
        24**2 * 4_800 + 12**2 * 102_400 + 36 * (576 * 32 + 288 * 32) + 11_520,
    ),
    "cifar10_11pct": (
        4_864 + 102_464 + 36 * (576 * 64 + 64) + 36 * (576 * 32 + 32) + 11_530,
        24**2 * 4_800 + 12**2 * 102_400 + 36 * (576 * 64 + 576 * 32) + 11_520,
    ),
    # paper: 1.28 M, 1.35 M and 1.4 M; Table 1 multiplied out
    "all_cnn_a": (
        7_296 + 83_040 + 460_992 + 2 * 331_968 + 37_056 + 1_930,
        32**2 * 7_200
        + 16**2 * (82_944 + 460_800)
        + 8**2 * 331_776
        + 6**2 * (331_776 + 36_864 + 1_920),
    ),
    "all_cnn_b": (
        7_296 + 9_312 + 83_040 + 460_992 + 37_056 + 2 * 331_968 + 37_056 + 1_930,
        32**2 * (7_200 + 9_216)
        + 16**2 * (82_944 + 460_800 + 36_864)
        + 8**2 * 331_776
        + 6**2 * (331_776 + 36_864 + 1_920),
    ),
    "all_cnn_c": (
        1_369_738,
        32**2 * (2_592 + 82_944)
        + 16**2 * (82_944 + 165_888 + 331_776)
        + 8**2 * 331_776
        + 6**2 * (331_776 + 36_864 + 1_920),
    ),
    # paper: .9 M for A; a ConvPool-CNN has as many parameters as the All-CNN
    "base_cnn_a": (839_242, 32**2 * 7_200 + 16**2 * 460_800 + ALL_CNN_TAIL),
    "strided_cnn_a": (839_242, 16**2 * 7_200 + 8**2 * 460_800 + ALL_CNN_TAIL),
    "convpool_cnn_a": (
        1_254_250,
        32**2 * (7_200 + 82_944) + 16**2 * (460_800 + 331_776) + ALL_CNN_TAIL,
    ),
    "base_cnn_b": (
        7_296 + 9_312 + 460_992 + 37_056 + 331_968 + 37_056 + 1_930,
        32**2 * (7_200 + 9_216) + 16**2 * (460_800 + 36_864) + ALL_CNN_TAIL,
    ),
    "strided_cnn_b": (
        7_296 + 9_312 + 460_992 + 37_056 + 331_968 + 37_056 + 1_930,
        32**2 * 7_200 + 16**2 * (9_216 + 460_800) + 8**2 * 36_864 + ALL_CNN_TAIL,
    ),
    "convpool_cnn_b": (
        1_300_618,
        32**2 * (7_200 + 9_216 + 82_944) + 16**2 * (460_800 + 36_864 + 331_776) + ALL_CNN_TAIL,
    ),
    "base_cnn_c": (
        2_688 + 83_040 + 166_080 + 2 * 331_968 + 37_056 + 1_930,
        32**2 * (2_592 + 82_944) + 16**2 * (165_888 + 331_776) + ALL_CNN_TAIL,
    ),
    "strided_cnn_c": (
        2_688 + 83_040 + 166_080 + 2 * 331_968 + 37_056 + 1_930,
        32**2 * 2_592 + 16**2 * (82_944 + 165_888) + 8**2 * 331_776 + ALL_CNN_TAIL,
    ),
    "convpool_cnn_c": (
        1_369_738,
        32**2 * (2_592 + 2 * 82_944) + 16**2 * (165_888 + 2 * 331_776) + ALL_CNN_TAIL,
    ),
    # caffe: nin_cifar10 and nin_imagenet multiplied out (cv: 966,986)
    "nin_cifar10": (
        966_986,
        32**2 * (75 * 192 + 192 * 160 + 160 * 96)
        + 16**2 * (25 * 96 * 192 + 2 * 192 * 192)
        + 8**2 * (9 * 192 * 192 + 192 * 192 + 192 * 10),
    ),
    "nin_imagenet": (
        7_595_176,
        54**2 * (363 * 96 + 2 * 96 * 96)
        + 27**2 * (25 * 96 * 256 + 2 * 256 * 256)
        + 13**2 * (9 * 256 * 384 + 2 * 384 * 384)
        + 6**2 * (9 * 384 * 1024 + 1024 * 1024 + 1024 * 1000),
    ),
    # The lectures' patterns multiplied out
    "convnet": (
        896 + 9_248 + 18_496 + 36_928 + 73_856 + 147_584 + 2048 * 256 + 256 + 2_570,
        32**2 * (864 + 9_216)
        + 16**2 * (18_432 + 36_864)
        + 8**2 * (73_728 + 147_456)
        + 2048 * 256
        + 2_560,
    ),
    "conv_relu_pool_fc": (912 + 30_730, 32**2 * 900 + 30_720),
}
COUNTS |= {f"vgg{n}": COUNTS[f"vgg_{c}"] for n, c in ((11, "a"), (13, "b"), (16, "d"), (19, "e"))}


# Building the deep ones takes seconds.
DEEP = {n for n in COUNTS if any(d in n for d in ("101", "110", "152", "164", "200", "_v4"))}


def each(names):
    return [pytest.param(n, marks=pytest.mark.slow if n in DEEP else ()) for n in sorted(names)]


EACH = each(COUNTS)


@pytest.mark.parametrize("name", EACH)
def test_counts(name):
    model = abstract(name)
    assert vision_models.count_parameters(model) == COUNTS[name][0]
    assert vision_models.multiply_adds(model) == COUNTS[name][1]


def test_every_model_is_in_the_table():
    assert sorted(COUNTS) == vision_models.list_models()


# What papers and documentation give rounded.
ROUNDED = {
    "googlenet": 1.583e9,
    "resnet18": 1.81e9,
    "resnet34": 3.66e9,
    "resnet50": 3.86e9,
    "resnet101": 7.57e9,
    "resnet152": 11.28e9,
    "vgg_d": 15.47e9,
    "alexnet_owt": 0.714e9,
    "inception_v3": 5.713e9,
    "inception_v4": 12.28e9,
}


@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_counts(name):
    assert COUNTS[name][1] == pytest.approx(ROUNDED[name], rel=0.003)


def test_ungrouped_convolutions_are_another_network():
    model = nnx.eval_shape(lambda: vision_models.create("alexnet", towers=1, rngs=nnx.Rngs(0)))
    assert vision_models.count_parameters(model) == 62_378_344
    assert vision_models.multiply_adds(model) == 1_135_256_096


def test_options_that_change_the_counts():
    def count(name, **options):
        model = nnx.eval_shape(lambda: vision_models.create(name, rngs=nnx.Rngs(0), **options))
        return vision_models.count_parameters(model)

    assert count("googlenet", auxiliary=False) == 6_998_552
    assert count("googlenet_bn", auxiliary=False) == 6_624_904  # torch
    assert count("inception_v3", auxiliary=False) == 23_834_568  # cv
    assert count("vgg_d", batch_norm=True) == 138_365_992  # torch
    assert count("vgg_a", batch_norm=True) == 132_868_840  # torch
    assert count("lenet5", head="linear") == 60_850
    assert count("resnet50", stride_in="3x3") == 25_557_032
    # A bias in place of a scale and a bias for each of 16 (32, 64) maps: conv1 and three blocks.
    assert count("plain20", batch_norm=False) == 269_722 - 7 * 16 - 6 * 32 - 6 * 64
    assert count("plain18", batch_norm=False) == 11_515_688 - 5 * 64 - 4 * (128 + 256 + 512)
    assert count("convnet", batch_norm=True) == 814_122 + 2 * (32 + 64 + 128)
    # local3 and local4 of the 13% network once in place of at each of 36 positions.
    shared = 4_864 + 102_464 + (576 * 32 + 32) + (288 * 32 + 32) + 11_530
    assert count("cifar10_13pct", shared=True) == shared


def test_v15_costs_more():
    model = nnx.eval_shape(
        lambda: vision_models.create("resnet50", stride_in="3x3", rngs=nnx.Rngs(0))
    )
    assert vision_models.multiply_adds(model) == pytest.approx(4.09e9, rel=0.002)  # torch


# Sides of the maps in the papers' tables and figures.
SIDES = {
    "lenet5": {"c1": 28, "s2": 14, "c3": 10, "s4": 5, "c5": 1},
    "alexnet": {"conv1": 55, "pool1": 27, "conv2": 27, "pool2": 13, "conv5": 13, "pool5": 6},
    "zfnet": {"conv1": 110, "pool1": 55, "conv2": 26, "pool2": 13, "conv5": 13, "pool5": 6},
    "overfeat_fast": {"conv1": 56, "pool1": 28, "conv2": 24, "pool2": 12, "pool5": 6},
    "overfeat_accurate": {"pool1": 36, "conv2": 30, "pool2": 15, "conv6": 15, "pool6": 5},
    "vgg_d": {"pool1": 112, "pool2": 56, "pool3": 28, "pool4": 14, "pool5": 7},
    "googlenet": {
        "conv1": 112,
        "pool1": 56,
        "conv2": 56,
        "pool2": 28,
        "inception_3b": 28,
        "pool3": 14,
        "inception_4e": 14,
        "pool4": 7,
        "inception_5b": 7,
    },
    "resnet50": {
        "conv1": 112,
        "pool1": 56,
        "conv2_3": 56,
        "conv3_4": 28,
        "conv4_6": 14,
        "conv5_3": 7,
    },
    "resnet56": {"conv1": 32, "conv2_9": 32, "conv3_9": 16, "conv4_9": 8},
    "cifar10_18pct": {"pool1": 16, "pool2": 8, "pool3": 4},
    "cifar10_11pct": {"pool1": 12, "pool2": 6, "local4": 6},
    "all_cnn_c": {"conv3": 16, "conv6": 8, "conv7": 6},
    "base_cnn_c": {"pool1": 16, "conv3": 16, "pool2": 8, "conv5": 6},
    "strided_cnn_b": {"conv1": 32, "conv2": 16, "conv4": 8, "conv5": 6},
    "convpool_cnn_a": {"conv2": 32, "pool1": 16, "conv4": 16, "pool2": 8, "conv5": 6},
    "inception_v3": {"conv1a": 149, "pool1": 73, "pool2": 35, "mixed_5d": 35}
    | {"mixed_6a": 17, "mixed_6e": 17, "mixed_7a": 8, "mixed_7c": 8},
    "inception_v4": {"conv1": 149, "stem_a": 73, "stem_b": 71, "stem_c": 35}
    | {"inception_a4": 35, "inception_b7": 17, "inception_c3": 8},
    "nin_cifar10": {"pool1": 16, "pool2": 8},
    "nin_imagenet": {"conv1": 54, "pool1": 27, "pool2": 13, "pool3": 6},
}


@pytest.mark.parametrize("name", each(SIDES))
def test_sides_of_the_maps_are_the_papers(name):
    shapes = activation_shapes(abstract(name))
    assert {layer: shapes[layer][:2] for layer in SIDES[name]} == {
        layer: (side, side) for layer, side in SIDES[name].items()
    }


@pytest.mark.parametrize("name", EACH)
def test_every_layers_size_follows_the_formula(name):
    """(W - F + 2P) / S + 1, rounded down, or up where pools round up; and every row adds up."""
    model = abstract(name)
    rows = {row.name: row for row in layer_table(model)}
    previous = {"": (model.image_size, model.image_size)}
    assert sum(row.parameters for row in rows.values()) == COUNTS[name][0]
    assert sum(r.multiply_adds for r in rows.values() if not r.auxiliary) == COUNTS[name][1]

    def walk(parts, path, size):
        sizes = []
        for layer in parts.names:
            part, whole = getattr(parts, layer), f"{path}{layer}"
            if hasattr(part, "names"):
                out = walk(part, f"{whole}/", size)
            else:
                row = rows[whole]
                out = row.output[:2] if len(row.output) == 3 else (1, 1)
                averages = row.kind in ("GlobalAveragePool", "AdaptiveAveragePool")
                if row.window and not averages and len(row.output) == 3:
                    top, bottom, left, right = row.padding
                    for axis, pads in enumerate((top + bottom, left + right)):
                        span = size[axis] - sides(row.window)[axis] + pads
                        down, up = span // row.stride + 1, -(-span // row.stride) + 1
                        allowed = {down, up} if getattr(part, "ceil", False) else {down}
                        assert out[axis] in allowed, row
            if type(parts).__name__ == "Branches":
                sizes.append(out)
            elif type(part).__name__ != "Auxiliary":
                size = out
        assert len(set(sizes)) <= 1
        return sizes[0] if sizes else size

    walk(model, "", previous[""])


TRAINABLE = [
    "lenet5",
    "resnet20",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("cifar10_11pct", "preact_resnet110", "all_cnn_a", "convnet")
    ),
]


@pytest.mark.parametrize("name", TRAINABLE)
def test_gradients_reach_every_parameter(name):
    """One training pass of the real network: finite, and no parameter without a gradient."""
    network = functional(lambda rngs: vision_models.create(name, rngs=rngs))
    params, statistics = network.init(jax.random.key(0))
    size = abstract(name).image_size
    images = jax.random.normal(jax.random.key(1), (4, size, size, 3))
    keys = jax.random.split(jax.random.key(2), 4)

    @jax.jit
    def loss(params):
        logits, auxiliary, after = network.train(params, statistics, images, keys, WHOLE_BATCH)
        losses = [jax.nn.log_softmax(v)[:, 0] for v in (logits, *auxiliary.values())]
        total = sum(map(jnp.sum, losses))
        return total, after

    gradients, after = jax.grad(loss, has_aux=True)(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf != 0), path
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), statistics, after)
    assert all(jax.tree.leaves(changed))


@pytest.mark.slow
def test_auxiliary_classifiers_count_in_training_only():
    network = functional(lambda rngs: vision_models.create("googlenet", num_classes=3, rngs=rngs))
    params, statistics = jax.jit(network.init)(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (2, 224, 224, 3))
    keys = jax.random.split(jax.random.key(2), 2)
    _, auxiliary, _ = jax.eval_shape(
        lambda *of: network.train(*of, WHOLE_BATCH), params, statistics, images, keys
    )
    assert {n: v.shape for n, v in auxiliary.items()} == {"aux1": (2, 3), "aux2": (2, 3)}
    apply = jax.jit(network.apply)
    before = apply(params, statistics, images)
    params["aux1"]["classifier"]["kernel"] = params["aux1"]["classifier"]["kernel"] + 1
    np.testing.assert_array_equal(apply(params, statistics, images), before)


def test_options_travel_as_json():
    """So that a saved file can say how its network is made."""
    for name in vision_models.list_models():
        options = vision_models.default_options(name)
        assert json.loads(json.dumps(options, default=dict)).keys() == options.keys()


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("resnet50", {"depth": 51}, "depth=51: choose 18, 34"),
        ("resnet50", {"shortcut": "none "}, "choose one of projection, pad, none"),
        ("resnet50", {"stride_in": "5x5"}, "choose 1x1 or 3x3"),
        ("resnet20", {"depth": 21}, "depth=21: a multiple of 6, and 2"),
        ("vgg_d", {"configuration": "f"}, "unknown configuration 'f'; choose one of a, b"),
        ("vgg_d", {"image_size": 16}, "16 pixels are too small: nothing is left at pool5"),
        (
            "vgg_d",
            {"init": "glorot"},
            "unknown init 'glorot'; choose one of gaussian, xavier, he, lecun",
        ),
        (
            "vgg_d",
            {"pool": "mean"},
            "unknown pool 'mean'; choose one of max, average, padded_average, sum",
        ),
        ("lenet5", {"num_classes": 7}, "num_classes=7: the RBF head has codes for the ten digits"),
        ("lenet5", {"head": "softmax"}, "choose rbf or linear"),
        ("convnet", {"window": 4}, "window=4 odd"),
        ("all_cnn_a", {"base": "d"}, "choose one of a, b, c"),
        ("all_cnn_a", {"reduction": "none"}, "reduction=none: choose one of pool, stride, conv"),
        ("resnet20", {"batch_norm": False}, r"batch_norm=False: .* \(shortcut=none, preact"),
        ("resnet18", {"batch_norm": False}, "batch_norm=False: of plain networks alone"),
        ("plain8", {"batch_norm": False, "preactivation": True}, "batch_norm=False: of plain"),
        (
            "alexnet_owt",
            {"neuron": "swish"},
            "unknown neuron 'swish'; choose one of identity, relu",
        ),
        ("zfnet", {"num_classes": 0}, "num_classes=0: at least 1"),
        ("zfnet", {"kernels": (96, 256)}, "kernels takes 5 numbers and hidden 2, not 2 and 2"),
        ("zfnet", {"lrn_constants": {"size": 0}}, "lrn_constants.size=0: at least 1"),
        ("vgg_d", {"hidden": (10, 10, 10)}, r"hidden=\(10, 10, 10\): the units of fc6 and fc7"),
        ("convnet", {"kernels": 0}, "conv1_1: maps 0, at least 1"),
        ("convnet", {"window": -1}, "conv1_1: window -1, at least 1"),
        ("convnet", {"hidden": 0}, "hidden1: units 0, at least 1"),
        ("alexnet", {"kernels": (0, 0, 0, 0, 0)}, "conv1: maps 0, at least 1"),
        ("googlenet", {"image_size": 64}, r"aux1: .* nothing is left at pool \(auxiliary=False"),
        ("nin_cifar10", {"pools": ("max",)}, r"pools=\('max',\): the kinds of pool1 and pool2"),
        ("nin_imagenet", {"image_size": 8}, "8 pixels are too small: nothing is left at conv1"),
        ("inception_v3", {"image_size": 128}, r"aux: .* nothing is left at conv2 \(auxiliary=F"),
        ("inception_v4", {"image_size": 74}, "74 pixels are too small: nothing is left at"),
        ("overfeat_fast", {"hidden": (8,)}, "kernels takes 5 numbers and hidden 2, not 5 and 1"),
        ("overfeat_accurate", {"image_size": 60}, "60 pixels are too small: nothing is left at"),
        ("zfnet_spp", {"pool": "median"}, "unknown pool 'median'"),
        ("googlenet", {"droput": 1}, "'googlenet' has no option droput"),
    ],
)
def test_wrong_options_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: vision_models.create(name, rngs=nnx.Rngs(0), **options))
