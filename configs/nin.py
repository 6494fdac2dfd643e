"""Network in Network: Lin, Chen and Yan, ICLR 2014 (arXiv 1312.4400).

    python main.py --config=configs/nin.py --config.data.dir=DIR

DIR is where TFDS prepared cifar10; for :imagenet that of ImageNet. Variants:
  (none)     CIFAR-10 with crops and flips; 966,986 parameters. The paper's test error is 8.81%.
  :plain     without augmentation: 10.41%.
  :imagenet  the authors' Caffe model of four mlpconv layers; 7,595,176 parameters, 40.64% top-1
             error for the centre crop. Reads their nin_imagenet.caffemodel.

Differences from the paper: images are divided by 58, about their deviation, after the mean image is
subtracted; the paper normalises their contrast and whitens them. It translates images when it
augments them and does not say by how much; here they are padded by 4 pixels, the default of the
authors' code. Rates, decay and epochs are of that code (NIN/cifar-10_params, and for :plain its
README: 200 epochs, 30 at a tenth, 30 at a hundredth, and an error of 10.4%; the rates of biases do
not fall); the paper watches training error. A rate of 1 there is .1 here, as the loss is multiplied
by .1 there. The ImageNet model comes without a test of ten views.

Cost: 260 epochs of 45,000 images at 1.3 GFLOP each (forward and backward); :imagenet 22 epochs of
1.28 M images at 6.6 GFLOP.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant: "", "plain" or "imagenet"."""
    make = common.choose_variant(variant, {"": _cifar10, "plain": _plain, "imagenet": _imagenet})
    return make()


def _base(name: str, batch_size: int, learning_rate: float) -> ConfigDict:
    config = common.base_config(batch_size=batch_size, learning_rate=learning_rate)
    config.model.name = name
    config.model.neuron = "relu"
    config.model.dropout = 0.5
    config.model.init = "gaussian"
    config.model.init_std = 0.05
    config.optimizer.groups.biases = common.parameter_group("bias", multiplier=2.0)
    return config


def _cifar10() -> ConfigDict:
    config = _base("nin_cifar10", batch_size=128, learning_rate=0.1)  # section 4.1
    config.data.name = "cifar10"
    config.data.resize = 32
    config.data.pad = 4
    config.data.crop = 32
    config.data.mean = "image"
    config.data.deviation = (58.0, 58.0, 58.0)
    config.model.pools = ("max", "max")
    # cifar-10_params: rates 1 and .1 of a loss that is multiplied by .1
    config.optimizer.weight_decay = 0.0001
    groups = config.optimizer.groups
    groups.cccp6 = common.parameter_group("cccp6/kernel", multiplier=0.1)
    groups.cccp6_bias = common.parameter_group("cccp6/bias", multiplier=0.2, drop_epochs=())
    groups.biases.drop_epochs = ()
    config.optimizer.drop_epochs = (200.0, 230.0)
    config.total_epochs = 260.0
    return config


def _plain() -> ConfigDict:
    config = _cifar10()
    config.data.pad = 0
    config.data.augment.crop = "center"
    config.data.augment.flip = False
    return config


def _imagenet() -> ConfigDict:
    """solver.prototxt and train_val.prototxt of nin_imagenet."""
    config = _base("nin_imagenet", batch_size=64, learning_rate=0.01)
    config.data.mean = "image"
    config.model.pool = "max"
    config.model.init_std_conv1 = 0.01
    config.optimizer.weight_decay = 0.0005
    config.optimizer.drop_steps = (200_000, 400_000)
    config.total_steps = 450_000
    return config
