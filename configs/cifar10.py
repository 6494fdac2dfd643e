"""CIFAR-10: the residual networks of He et al., and the networks of AlexNet's time.

    python main.py --config=configs/cifar10.py:resnet20 --config.data.dir=DIR

DIR is where TFDS prepared cifar10. 5,000 of the 50,000 training images are held out for
validation. The figures below are errors on the test set, in percent.

He et al. 2015, section 4.2 (mean image, 4 pixels of padding, crops, flips; 64,000 steps of 128
images; BatchNorm over groups of 64, as on each of the paper's two GPUs):
  :resnet20 ... :resnet110    20, 32, 44, 56, 110 layers; 8.75, 7.51, 7.17, 6.97, 6.43
  :plain8, :plain20 ... :plain110         without shortcuts; 56 layers are worse than 20 (Figure
                              6); --config.model.batch_norm=False: without BatchNorm as well,
                              which needs --config.data.deviation="(64.0,64.0,64.0)" to train
He et al. 2016:
  :preact_resnet110, :preact_resnet164    6.37, 5.46
  :preact_resnet20, :preact_resnet56      the same, of depths that the paper does not have

Krizhevsky's cuda-convnet (example-layers); each name is its error:
  :18pct    three convolutions, normalisation inside maps; no augmentation
  :13pct    two convolutions, two locally connected layers; 24x24 crops, flips; 160 epochs;
              tested on ten views, four corners, the centre and their mirror images
  :11pct    the same with normalisation across maps (cuda-convnet2), which AlexNet's section
              3.3 compares; 520 epochs; tested on nine crops without mirror images
              (both train on all 45,000 images from the beginning; cuda-convnet on 40,000 until
              their error stalls, then on 50,000)
Krizhevsky et al. 2012, Figure 1:
  :figure1, :figure1_tanh     a four-layer network without regularisation. Compare the epochs
                              to 25% training error: ReLU takes a sixth of tanh's. The paper
                              tuned the rate of each and published neither network nor rates;
                              the layers here are those of cuda-convnet's 19% network.

Cost: resnet20 is 0.24 GFLOP an image (forward and backward), 8.2 M images.
"""

from ml_collections import ConfigDict

from configs import common

DEPTHS = (20, 32, 44, 56, 110)


def get_config(variant: str = "resnet20") -> ConfigDict:
    """The config of a variant; the module's docstring lists them."""
    residual = (
        *(f"resnet{n}" for n in DEPTHS),
        *(f"plain{n}" for n in (8, *DEPTHS)),
        *(f"preact_resnet{n}" for n in (20, 56, 110, 164)),
    )
    make = common.choose_variant(
        variant,
        {
            **dict.fromkeys(residual, _residual),
            "18pct": _eighteen,
            "13pct": _thirteen,
            "11pct": _eleven,
            "figure1": _figure1,
            "figure1_tanh": _figure1,
        },
    )
    return make(variant)


def _data(config: ConfigDict) -> None:
    config.data.name = "cifar10"
    config.data.resize = 32
    config.data.crop = 32
    config.data.mean = "image"


def _residual(variant: str) -> ConfigDict:
    config = common.base_config(batch_size=128, learning_rate=0.1)
    _data(config)
    config.data.pad = 4

    model = config.model
    model.name = variant
    if variant.startswith("plain"):
        model.batch_norm = True
    else:
        # "pad" is option A of the 2015 paper; or projection (option B), none
        model.shortcut = "projection" if variant == "preact_resnet164" else "pad"
    model.neuron = "relu"
    model.init = "he"
    model.init_std = 0.01  # of gaussian

    config.batch_norm.group = 64
    config.optimizer.weight_decay = 0.0001
    config.optimizer.decay_biases = True  # the paper names no exception
    config.optimizer.drop_steps = (32_000, 48_000)
    if variant.endswith("110") or variant.startswith("preact"):
        config.optimizer.warmup_steps = 400
    config.total_steps = 64_000
    return config


def _cuda_convnet() -> ConfigDict:
    config = common.base_config(batch_size=128, learning_rate=0.001)
    _data(config)
    config.optimizer.groups.biases = common.parameter_group("bias", multiplier=2.0)
    return config


def _four_layer(config: ConfigDict, name: str) -> None:
    config.data.augment.crop = "center"
    config.data.augment.flip = False
    config.model.name = name
    config.model.neuron = "relu"
    config.model.pools = ("max", "average", "average")
    config.model.init = "gaussian"
    config.model.init_std_conv1 = 0.0001  # images are not scaled
    config.model.init_std = 0.01


def _eighteen(variant: str) -> ConfigDict:
    """cuda-convnet's layers-18pct.cfg and layer-params-18pct.cfg."""
    config = _cuda_convnet()
    _four_layer(config, "cifar10_18pct")
    config.optimizer.weight_decay = 0.004
    config.optimizer.groups.fc10 = common.parameter_group("fc10/kernel", weight_decay=1.0)
    config.optimizer.drop_epochs = (120, 130)
    config.total_epochs = 140.0
    return config


def _figure1(variant: str) -> ConfigDict:
    config = _cuda_convnet()
    _four_layer(config, "cifar10_four_layer")
    config.model.neuron = "tanh" if variant.endswith("tanh") else "relu"
    config.total_epochs = 40.0
    return config


def _thirteen(variant: str) -> ConfigDict:
    """cuda-convnet's layers-conv-local-13pct.cfg and layer-params-conv-local-13pct.cfg."""
    config = _cuda_convnet()
    config.data.crop = 24
    config.model.name = "cifar10_13pct"
    config.model.neuron = "relu"
    config.model.pool = "max"
    config.model.norm = False
    config.model.local3 = 32
    config.model.shared = False  # True: local3 and local4 are convolutions
    config.model.init = "gaussian"
    config.model.init_std_conv1 = 0.0001
    config.model.init_std = 0.01
    config.model.init_std_local = 0.04
    for name in ("local3", "local4", "fc10"):
        config.optimizer.groups[name] = common.parameter_group(f"{name}/kernel", weight_decay=0.004)
    # cuda-convnet's Methodology page: about 100 epochs on four fifths of the images and 40 on all
    # of them, then the rate divided by ten twice, but not that of the biases.
    config.optimizer.drop_epochs = (140, 150)
    config.optimizer.groups.biases.drop_epochs = ()
    config.total_epochs = 160.0
    config.evaluation.protocol = "ten_view"  # cuda-convnet's multiview test
    return config


def _eleven(variant: str) -> ConfigDict:
    """cuda-convnet2's layers-cifar10-11pct.cfg and layer-params-cifar10-11pct.cfg."""
    config = _thirteen(variant)
    config.model.name = "cifar10_11pct"
    config.model.norm = True
    config.model.local3 = 64
    config.optimizer.groups.fc10.weight_decay = 0.01
    # The parameter file: 350 epochs on four fifths of the images, 150 on all, 10 and 10 more.
    config.optimizer.drop_epochs = (500, 510)
    config.total_epochs = 520.0
    config.evaluation.protocol = "nine_crop"  # cuda-convnet2's
    return config
