"""GoogLeNet: Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich, 2015.

"Going Deeper with Convolutions", CVPR 2015.

    python main.py --config=configs/googlenet.py --config.data.dir=DIR

Variants:
  (none)  the paper; 6,998,552 parameters and 6,379,728 in the auxiliary classifiers.
          Expected on the ILSVRC-2012 validation set: 31.3% top-1 and 11.1% top-5 error for
          the centre crop (Caffe's port). The paper's top-5 errors are 10.07% for the centre
          crop, 9.15% for ten and 7.89% for 144 crops. The config tests with 144;
          --config.evaluation.protocol=center_crop with one.
  :bn     the network that torchvision calls googlenet: batch normalisation, 3x3 kernels
          in the 5x5 branches; 6,624,904 parameters and 6,379,984 in the auxiliary
          classifiers. torchvision's weights have 30.2 / 10.5.

Differences from the paper: it gives neither batch size, initial rate, weight decay,
initialisation nor length. These are Caffe's (bvlc_googlenet), except that Caffe's "xavier"
filler draws from a wider range. Crops are always rescaled by bilinear interpolation; the paper
chooses one of four kinds at random. It gives no constant for "Polyak averaging"; the decay .9999
is that of the authors' later code. (--config.optimizer.average=polyak averages all updates from
average_from_epochs on.)

Cost: 60 epochs of 1.28 M images at 9.5 GFLOP each (forward and backward).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant: "" or "bn"."""
    batch_norm = common.choose_variant(variant, {"": False, "bn": True})
    config = common.base_config(batch_size=32, learning_rate=0.01)
    config.data.mean = "channel"
    config.data.augment.crop = "area"  # section 6

    model = config.model
    model.name = "googlenet_bn" if batch_norm else "googlenet"
    model.auxiliary = True
    if not batch_norm:
        model.lrn = True
        model.init_bias = 0.2
    model.neuron = "relu"
    model.pool = "max"
    model.dropout = 0.2 if batch_norm else 0.4  # section 5
    model.auxiliary_dropout = 0.7
    model.init = "xavier"
    model.init_std = 0.01  # of gaussian

    config.loss.auxiliary_weight = 0.3  # section 5
    config.optimizer.weight_decay = 0.0002
    config.optimizer.groups.biases = common.parameter_group("bias", multiplier=2.0)
    config.optimizer.drop_factor = 0.96  # section 6: 4% less every eight epochs
    config.optimizer.drop_epochs = tuple(range(8, 60, 8))
    config.optimizer.average = "exponential"  # section 6
    config.total_epochs = 60.0
    config.evaluation.protocol = "crops_144"  # section 7
    return config
