"""Every config: its paper's numbers."""

import importlib

import pytest

import vision_models
from configs import common
from configs.common import ConfigError
from tests.conftest import ROOT
from vision_models.alexnet import PAPER_LRN

# The paper's sections 2 to 5, and the released code where `original` differs.
ALEXNET = {
    "batch_size": 128,
    "data.name": "imagenet2012",
    "data.resize": 256,
    "data.crop": 224,
    "data.mean": "image",
    "data.augment.crop": "square",
    "data.augment.flip": True,
    "data.augment.colour_noise": "paper",
    "data.augment.colour_noise_until_epochs": None,
    "model.name": "alexnet",
    "model.towers": 2,
    "model.kernels": (96, 256, 384, 384, 256),
    "model.hidden": (4096, 4096),
    "model.neuron": "relu",
    "model.lrn": True,
    "model.lrn_constants.size": 5,
    "model.lrn_constants.k": 2.0,
    "model.lrn_constants.alpha": 1e-4,
    "model.lrn_constants.beta": 0.75,
    "model.lrn_constants.average": False,
    "model.exchanges": "pool2,pool5,fc6,fc7",
    "model.norm1_before_neuron": False,
    "model.spatial_norm2": False,
    "model.pool_window": 3,
    "model.dropout": 0.5,
    "model.init_std": 0.01,
    "model.init_std_conv3to5": 0.01,
    "model.init_bias": 1.0,
    "optimizer.learning_rate": 0.01,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 0.0005,
    "optimizer.decay_biases": False,
    "optimizer.drop_factor": 0.1,
    "optimizer.plateau_drops": 3,
    "total_epochs": 90.0,
    "evaluation.protocol": "ten_view",
}
# layer-params-146 of the released code, as far as its notes are known.
SIX_CONV = ALEXNET | {
    "model.name": "alexnet_six_conv",
    "model.conv6": 256,
    "model.init_std_conv3to5": 0.03,
}
STAGE = SIX_CONV | {
    "data.mean": "image_center",
    "data.augment.colour_noise": "original",
    "model.lrn_constants.average": True,
    "model.norm1_before_neuron": True,
    "model.spatial_norm2": True,
    "optimizer.learning_rate": 0.001,
    "optimizer.plateau_patience": 0,
    "init_head": "new",
}
FALL = STAGE | {"data.name": "folder", "optimizer.drop_epochs": None}
# Zeiler and Fergus 2014, section 3.1 and Figure 3.
ZFNET = {
    "batch_size": 128,
    "data.resize": 256,
    "data.crop": 224,
    "data.mean": "image",
    "model.kernels": (96, 256, 384, 384, 256),
    "model.hidden": (4096, 4096),
    "model.dropout": 0.5,
    "model.init": "gaussian",
    "model.init_std": 0.01,
    "optimizer.learning_rate": 0.01,
    "optimizer.momentum": 0.9,
    "optimizer.max_filter_rms": 0.1,
    "optimizer.drop_factor": 0.1,
    "total_epochs": 70.0,
    "evaluation.protocol": "ten_view",
}
# Simonyan and Zisserman 2015, sections 2.1 and 3.1.
VGG = {
    "evaluation.protocol": "dense",
    "evaluation.validation_protocol": "center_crop",
    "batch_size": 256,
    "data.resize": 256,
    "data.crop": 224,
    "data.mean": "channel",
    "data.augment.crop": "image",
    "data.augment.scale_range": (),
    "data.augment.flip": True,
    "data.augment.colour_noise": "paper",
    "model.dropout": 0.5,
    "model.init": "xavier",
    "model.init_std": 0.1,
    "optimizer.learning_rate": 0.01,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 0.0005,
    "optimizer.drop_factor": 0.1,
    "optimizer.plateau_drops": 3,
    "total_epochs": 74.0,
}
# Szegedy et al. 2015, sections 5 and 6; what it does not say from bvlc_googlenet.
GOOGLENET = {
    "evaluation.protocol": "crops_144",
    "evaluation.validation_protocol": "center_crop",
    "batch_size": 32,
    "data.crop": 224,
    "data.augment.crop": "area",
    "data.augment.area_range": (0.08, 1.0),
    "data.augment.aspect_range": (3 / 4, 4 / 3),
    "model.dropout": 0.4,
    "model.auxiliary_dropout": 0.7,
    "loss.auxiliary_weight": 0.3,
    "optimizer.learning_rate": 0.01,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 0.0002,
    "optimizer.drop_factor": 0.96,
    "optimizer.drop_epochs": (8, 16, 24, 32, 40, 48, 56),
    "optimizer.average": "exponential",
    "optimizer.average_decay": 0.9999,
    "total_epochs": 60.0,
}
# Szegedy et al. 2016, section 8; what it does not say from TF-Slim.
INCEPTION = {
    "batch_size": 32,
    "data.crop": 299,
    "data.augment.crop": "area",
    "model.dropout": 0.2,
    "model.init": "he",
    "optimizer.learning_rate": 0.045,
    "optimizer.momentum": 0.9,
    "optimizer.drop_factor": 0.94,
    "loss.label_smoothing": 0.1,
    "optimizer.max_gradient_norm": 2.0,
    "optimizer.weight_decay": 0.00004,
    "optimizer.average": "exponential",
    "evaluation.protocol": "center_crop",
}
# He et al. 2015, section 3.4.
RESNET = {
    "evaluation.protocol": "ten_view",
    "evaluation.validation_protocol": "center_crop",
    "batch_size": 256,
    "data.crop": 224,
    "data.mean": "image_center",
    "data.augment.crop": "image",
    "data.augment.scale_range": (256, 480),
    "data.augment.colour_noise": "paper",
    "model.stride_in": "1x1",
    "model.init": "he",
    "batch_norm.group": 32,
    "batch_norm.recompute_examples": 51_200,
    "optimizer.learning_rate": 0.1,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 0.0001,
    "optimizer.drop_factor": 0.1,
    "optimizer.plateau_drops": 3,
    "total_steps": 600_000,
    "loss.auxiliary_weight": 0.0,
}
# He et al. 2015, section 4.2.
CIFAR_RESNET = {
    "evaluation.protocol": "center_crop",
    "evaluation.validation_protocol": "center_crop",
    "batch_size": 128,
    "data.name": "cifar10",
    "data.resize": 32,
    "data.pad": 4,
    "data.crop": 32,
    "data.mean": "image",
    "data.augment.crop": "square",
    "data.augment.flip": True,
    "data.augment.colour_noise": "none",
    "model.init": "he",
    "optimizer.learning_rate": 0.1,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 0.0001,
    "optimizer.drop_factor": 0.1,
    "optimizer.drop_steps": (32_000, 48_000),
    "optimizer.plateau_patience": 0,
    "optimizer.warmup_steps": None,
    "batch_norm.group": 64,
    "batch_norm.recompute_examples": 0,
    "total_steps": 64_000,
}
WARMED_UP = {"optimizer.warmup_steps": 400, "optimizer.warmup_factor": 0.1}
# cuda-convnet's example-layers.
CUDA_CONVNET = {
    "batch_size": 128,
    "data.name": "cifar10",
    "data.resize": 32,
    "data.pad": 0,
    "data.mean": "image",
    "data.deviation": (1.0, 1.0, 1.0),
    "model.init_std_conv1": 0.0001,
    "model.init_std": 0.01,
    "optimizer.learning_rate": 0.001,
    "optimizer.momentum": 0.9,
    "optimizer.groups.biases.match": "bias",
    "optimizer.groups.biases.multiplier": 2.0,
}
FOUR_LAYER = CUDA_CONVNET | {
    "data.crop": 32,
    "data.augment.crop": "center",
    "data.augment.flip": False,
    "model.pools": ("max", "average", "average"),
}
CONV_LOCAL = CUDA_CONVNET | {
    "data.crop": 24,
    "data.augment.crop": "square",
    "data.augment.flip": True,
    "model.init_std_local": 0.04,
    "optimizer.weight_decay": 0.0,
    "optimizer.groups.local3.weight_decay": 0.004,
    "optimizer.groups.local4.weight_decay": 0.004,
    "optimizer.groups.biases.multiplier": 2.0,
    "optimizer.groups.biases.drop_epochs": (),  # only epsW is divided
}
# Springenberg et al. 2015, section 3.1.
ALL_CNN = {
    "data.crop": 32,
    "model.dropout": 0.5,
    "model.input_dropout": 0.2,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 0.001,
    "optimizer.drop_factor": 0.1,
    "optimizer.drop_epochs": (200, 250, 300),
    "total_epochs": 350.0,
}
# Lin et al. 2014, section 4.1, the authors' NIN/cifar-10_def, cifar-10_params and README. The loss
# there is multiplied by .1, which the rate, of 1 there, is here.
NIN = {
    "batch_size": 128,
    "data.name": "cifar10",
    "data.crop": 32,
    "model.name": "nin_cifar10",
    "model.pools": ("max", "max"),
    "model.dropout": 0.5,
    "model.init_std": 0.05,
    "optimizer.learning_rate": 0.1,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 0.0001,
    "optimizer.drop_factor": 0.1,
    "optimizer.drop_epochs": (200, 230),
    "optimizer.groups.biases.multiplier": 2.0,
    "optimizer.groups.cccp6.multiplier": 0.1,
    "optimizer.groups.cccp6_bias.multiplier": 0.2,
    "optimizer.groups.biases.drop_epochs": (),
    "optimizer.groups.cccp6_bias.drop_epochs": (),
    "total_epochs": 260.0,
}
# Sermanet et al. 2014, section 3.1 and Tables 1 and 3.
OVERFEAT = {
    "batch_size": 128,
    "data.resize": 256,
    "model.dropout": 0.5,
    "model.init_std": 0.01,
    "optimizer.learning_rate": 0.05,
    "optimizer.momentum": 0.6,
    "optimizer.weight_decay": 0.00001,
    "optimizer.drop_factor": 0.5,
    "optimizer.drop_epochs": (30, 50, 60, 70, 80),
    "evaluation.protocol": "overfeat",
}
# LeCun et al. 1998, section II.B and III: 28x28 in 32x32, background -.1 and ink 1.175.
LENET = {
    "data.name": "mnist",
    "data.resize": 28,
    "data.pad": 2,
    "data.crop": 32,
    "data.mean_values": (0.1 * 255 / 1.275,) * 3,
    "data.deviation": (255 / 1.275,) * 3,
    "data.augment.flip": False,
    "model.neuron": "scaled_tanh",
    "model.head": "rbf",
    "total_epochs": 20.0,
}

RECIPES = {
    "alexnet": {
        "": ALEXNET,
        "original": ALEXNET
        | {
            "data.mean": "image_center",
            "data.augment.colour_noise": "original",
            "data.augment.colour_noise_until_epochs": 67.0,
            "model.lrn_constants.average": True,
            "model.norm1_before_neuron": True,
            "model.spatial_norm2": True,
            "model.init_std_conv3to5": 0.03,
            "optimizer.plateau_patience": 0,
            "optimizer.drop_epochs": (25, 51, 79),
            "optimizer.groups.biases.multiplier": 2.0,
            "optimizer.groups.biases.drop_epochs": (),
            "optimizer.groups.conv1.drop_epochs": (25, 51, 67),
            "optimizer.groups.conv1.freeze_epochs": 72.0,
            "optimizer.groups.conv1_bias.freeze_epochs": 72.0,
            "total_epochs": 91.0,
        },
        "one_gpu": ALEXNET
        | {
            "model.name": "alexnet_one_gpu",
            "model.towers": 1,
            "model.kernels": (48, 128, 192, 192, 256),
        },
        "six_conv": SIX_CONV,
        "pretrain_2009": FALL
        | {
            **{f"optimizer.groups.{n}.multiplier": 10.0 for n in ("conv6", "fc6", "fc7", "fc8")},
            "optimizer.groups.fc6.match": "fc6/",
            "optimizer.groups.conv6.drop_epochs": (2.16,),
            "total_epochs": 6.65,
        },
        "pretrain_2011": FALL
        | {
            **{f"optimizer.groups.{n}.multiplier": 10.0 for n in ("fc6", "fc7", "fc8")},
            "optimizer.groups.fc8.drop_epochs": (6,),
            "total_epochs": 8.11,
        },
        "pretrained": STAGE
        | {
            "data.name": "imagenet2012",
            "data.augment.colour_noise_until_epochs": 38.0,
            "optimizer.drop_epochs": (22, 42),
            "optimizer.groups.conv1.multiplier": 0.1,
            "optimizer.groups.conv1.drop_epochs": (5,),
            "optimizer.groups.conv1.freeze_epochs": 7.0,
            "optimizer.groups.fc8.multiplier": 10.0,
            "optimizer.groups.fc8.drop_epochs": (9, 22, 42),
            "total_epochs": 54.0,
        },
        "owt": {"model.name": "alexnet_owt", "batch_size": 128, "optimizer.learning_rate": 0.01},
        # models/bvlc_alexnet/solver.prototxt and train_val.prototxt
        "caffe": {
            "batch_size": 256,
            "data.crop": 227,
            "model.lrn_constants.k": 1.0,
            "model.lrn_constants.average": True,
            "model.lrn_across_towers": True,
            "model.pool_before_norm": False,
            "model.init_bias": 0.1,
            "optimizer.learning_rate": 0.01,
            "optimizer.drop_steps": (100_000, 200_000, 300_000, 400_000),
            "optimizer.groups.biases.multiplier": 2.0,
            "total_steps": 450_000,
        },
        "caffenet": {"model.pool_before_norm": True, "model.init_bias": 1.0, "data.crop": 227},
        "digits": {"data.name": "digits", "total_epochs": 10.0},
    },
    "zfnet": {
        "": ZFNET | {"model.name": "zfnet"},
        "spp": ZFNET | {"model.name": "zfnet_spp", "model.pyramid": (6, 3, 2, 1)},
        "wide": ZFNET | {"model.name": "zfnet_wide", "model.kernels": (96, 256, 512, 1024, 512)},
    },
    "overfeat": {
        "fast": OVERFEAT
        | {"data.crop": 231, "model.kernels": (96, 256, 512, 1024, 1024)}
        | {"model.name": "overfeat_fast", "model.hidden": (3072, 4096)},
        "accurate": OVERFEAT
        | {"data.crop": 221, "model.kernels": (96, 256, 512, 512, 1024, 1024)}
        | {"model.name": "overfeat_accurate", "model.hidden": (4096, 4096)},
    },
    "vgg": {
        "": VGG | {"model.name": "vgg_d"},
        **{
            v: VGG | {"model.name": f"vgg_{v}", "model.batch_norm": False}
            for v in ("a", "a_lrn", "b", "b_5x5", "c", "d", "e", "d_no_fc")
        },
        **{
            f"{v}_bn": VGG | {"model.name": f"vgg_{v}_bn", "model.batch_norm": True} for v in "abde"
        },
    },
    "googlenet": {
        "": GOOGLENET | {"model.name": "googlenet"},
        "bn": GOOGLENET | {"model.name": "googlenet_bn", "model.dropout": 0.2},
    },
    "inception": {
        "v3": INCEPTION
        | {"model.name": "inception_v3", "model.auxiliary": True, "loss.auxiliary_weight": 0.4}
        | {"model.count_padding": False, "total_epochs": 100.0}
        | {"optimizer.drop_epochs": tuple(range(2, 100, 2))},
        "v4": INCEPTION | {"model.name": "inception_v4", "total_epochs": 160.0},
    },
    "resnet": {
        "": RESNET | {"model.name": "resnet50"},
        **{v: RESNET | {"model.name": f"resnet{v}"} for v in ("18", "34", "50", "101", "152")},
        **{f"plain{n}": RESNET | {"model.name": f"plain{n}"} for n in (18, 34)},
        **{
            f"preact_{n}": RESNET | {"model.name": f"preact_resnet{n}"}
            for n in (18, 34, 50, 101, 152, 200)
        },
    },
    "cifar10": {
        **{
            f"resnet{n}": CIFAR_RESNET | {"model.name": f"resnet{n}", "model.shortcut": "pad"}
            for n in (20, 32, 44, 56)
        },
        **{
            f"plain{n}": CIFAR_RESNET | {"model.name": f"plain{n}", "model.batch_norm": True}
            for n in (8, 20, 32, 44, 56)
        },
        "resnet110": CIFAR_RESNET | WARMED_UP | {"model.name": "resnet110"},
        "plain110": CIFAR_RESNET | WARMED_UP | {"model.name": "plain110"},
        **{
            f"preact_resnet{n}": CIFAR_RESNET | WARMED_UP | {"model.name": f"preact_resnet{n}"}
            for n in (20, 56, 110, 164)
        },
        "18pct": FOUR_LAYER
        | {
            "model.name": "cifar10_18pct",
            "optimizer.weight_decay": 0.004,
            "optimizer.groups.fc10.weight_decay": 1.0,
            "optimizer.drop_epochs": (120, 130),
            "total_epochs": 140.0,
        },
        "figure1": FOUR_LAYER | {"model.neuron": "relu", "optimizer.weight_decay": 0.0},
        "figure1_tanh": FOUR_LAYER | {"model.neuron": "tanh", "optimizer.weight_decay": 0.0},
        "13pct": CONV_LOCAL
        | {"model.local3": 32, "model.shared": False, "optimizer.groups.fc10.weight_decay": 0.004}
        | {"optimizer.drop_epochs": (140, 150), "total_epochs": 160.0}
        | {"evaluation.protocol": "ten_view"},
        "11pct": CONV_LOCAL
        | {"model.local3": 64, "model.norm": True, "optimizer.groups.fc10.weight_decay": 0.01}
        | {"optimizer.drop_epochs": (500, 510), "total_epochs": 520.0}
        | {"evaluation.protocol": "nine_crop"},
    },
    "all_convolutional": {
        f"{variant}{base}": ALL_CNN | {"model.name": f"{network}_{base}"}
        for variant, network in {
            "": "all_cnn",
            "base_": "base_cnn",
            "strided_": "strided_cnn",
            "convpool_": "convpool_cnn",
        }.items()
        for base in "abc"
    },
    "nin": {
        "": NIN | {"data.pad": 4, "data.augment.flip": True},
        "plain": NIN | {"data.pad": 0, "data.augment.flip": False, "data.augment.crop": "center"},
        # nin_imagenet's solver.prototxt and train_val.prototxt
        "imagenet": {
            "batch_size": 64,
            "data.name": "imagenet2012",
            "data.crop": 224,
            "model.name": "nin_imagenet",
            "model.init_std": 0.05,
            "model.init_std_conv1": 0.01,
            "optimizer.learning_rate": 0.01,
            "optimizer.drop_steps": (200_000, 400_000),
            "optimizer.weight_decay": 0.0005,
            "optimizer.groups.biases.multiplier": 2.0,
            "total_steps": 450_000,
        },
    },
    "lenet5": {
        "": LENET,
        "linear": LENET | {"model.name": "lenet5_linear", "model.head": "linear"},
        # examples/mnist/lenet_solver.prototxt and lenet_train_test.prototxt
        "caffe": {
            "batch_size": 64,
            "data.crop": 28,
            "data.deviation": (256.0, 256.0, 256.0),
            "model.init": "xavier",
            "optimizer.learning_rate": 0.01,
            "optimizer.momentum": 0.9,
            "optimizer.weight_decay": 0.0005,
            "optimizer.groups.biases.multiplier": 2.0,
            "total_steps": 10_000,
        },
    },
    "convnet": {
        "": {"model.convolutions": 2, "model.stages": 3, "model.hidden_layers": 1},
        "conv_relu_pool_fc": {"model.convolutions": 1, "model.stages": 1, "model.kernels": 12},
    },
}
# Simonyan and Zisserman 2015, appendix A.1.
BOXES = {
    "loss.boxes": "pcr",
    "init_head": "new",
    "data.boxes.count": 32,
    "data.boxes.extent": "whole",
    "optimizer.learning_rate": 0.001,
    "evaluation.protocol": "center_crop_true_class",
    "evaluation.validation_protocol": "center_crop_true_class",
}
OF_VGG = BOXES | {"data.resize": 384, "model.name": "vgg_d", "batch_size": 256}
RECIPES["localization"] = {
    "": OF_VGG,
    "vgg_d": OF_VGG,
    "alexnet": BOXES | {"model.name": "alexnet", "batch_size": 128},
    "resnet50": BOXES | {"model.name": "resnet50", "batch_size": 256},
    "digits": {"loss.boxes": "pcr", "data.name": "digit_canvases"},
}
ALL = [(name, variant) for name, recipes in RECIPES.items() for variant in recipes]


def get_config(name, variant):
    return importlib.import_module(f"configs.{name}").get_config(variant)


def value_of(config, path):
    for name in path.split("."):
        config = config[name]
    return config


@pytest.mark.parametrize("name, variant", ALL)
def test_recipe_equals_the_papers(name, variant):
    config, recipe = get_config(name, variant), RECIPES[name][variant]
    found = {path: value_of(config, path) for path in recipe}
    assert found == {
        path: pytest.approx(value) if isinstance(value, float) else value
        for path, value in recipe.items()
    }


def test_every_config_and_variant_has_a_recipe():
    files = {
        p.stem for p in (ROOT / "configs").glob("*.py") if "\ndef get_config(" in p.read_text()
    }
    assert files == set(RECIPES)
    for name in files:
        with pytest.raises(ConfigError) as error:
            get_config(name, "no such variant")
        listed = str(error.value).split("there are ")[1].split(", or none")[0]
        assert {v.strip(" :") for v in listed.split(",")} == set(RECIPES[name]) - {""}


@pytest.mark.parametrize("name, variant", ALL)
def test_the_model_takes_its_options(name, variant):
    """And every network has a config."""
    config = get_config(name, variant)
    known = vision_models.default_options(config.model.name)
    assert set(config.model) - {"name"} <= set(known)


@pytest.mark.parametrize("name, variant", ALL)
def test_configs_repeat_networks_definitions_as_they_are(name, variant):
    """Configs do without JAX, and so without the networks: what both say must be the same."""
    model = get_config(name, variant).model
    definition = vision_models.definition(model.name)
    repeated = {option: model[option] for option in definition if option in model}
    assert repeated == {option: definition[option] for option in repeated}


def test_configs_repeat_alexnets_constants_as_they_are():
    assert common.alexnet_lrn().to_dict() == dict(PAPER_LRN)


def test_every_network_has_a_config():
    configured = {get_config(name, variant).model.name for name, variant in ALL}
    aliases = {"vgg11", "vgg13", "vgg16", "vgg19"}
    assert configured | aliases == set(vision_models.list_models())


def test_the_rate_follows_the_batch_size():
    config = get_config("resnet", "50")
    config.batch_size = 32
    assert config.optimizer.learning_rate == pytest.approx(0.0125)
    assert config.evaluation.batch_size == 32
