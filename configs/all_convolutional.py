"""All-convolutional networks: Springenberg, Dosovitskiy, Brox and Riedmiller, 2015.

"Striving for Simplicity: The All Convolutional Net", ICLR 2015 workshop, section 3.

    python main.py --config=configs/all_convolutional.py:c --config.data.dir=DIR

DIR is where TFDS prepared cifar10. Variants, and the paper's test errors without
augmentation, in percent (Table 3):
  :a  1,254,250 parameters   10.30
  :b  1,300,618               9.10
  :c  1,369,738               9.08   (the default; 7.25 with crops and flips)
and the networks that these are compared with:
  :base_a  839,242  12.47    :base_b  885,610  10.20    :base_c  954,730  9.74, with max pools
  :strided_a, :strided_b, :strided_c  the same without pools: their stride is in the convolution
                before each; 13.46, 10.98, 10.19
  :convpool_a, :convpool_b, :convpool_c  with pools, after a further convolution: as many parameters
                as :a, :b, :c; 10.21, 9.33, 9.31

Differences from the paper: images are divided by 58, about their deviation, after the mean
image is subtracted; the paper whitens them. The rate is one of the four that the paper chose from
(.25, .1, .05, .01). It says nothing of batch size and initialisation, and gives the base networks B
and C one and 1.3 million parameters, more than Table 1 multiplied out.

Cost: 350 epochs of 45,000 images at 1.6 GFLOP each (C, forward and backward).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "c") -> ConfigDict:
    """The config of a variant; the module's docstring lists them."""
    kinds = {"": "all_cnn_", "base_": "base_cnn_", "strided_": "strided_cnn_"}
    kinds["convpool_"] = "convpool_cnn_"
    name = common.choose_variant(
        variant,
        {f"{kind}{base}": f"{network}{base}" for kind, network in kinds.items() for base in "abc"},
    )
    config = common.base_config(batch_size=128, learning_rate=0.05)
    config.data.name = "cifar10"
    config.data.resize = 32
    config.data.crop = 32
    config.data.mean = "image"
    config.data.deviation = (58.0, 58.0, 58.0)
    config.data.augment.crop = "center"
    config.data.augment.flip = False

    model = config.model
    model.name = name
    model.neuron = "relu"
    model.dropout = 0.5
    model.input_dropout = 0.2
    model.init = "he"
    model.init_std = 0.05  # of gaussian

    config.optimizer.weight_decay = 0.001
    config.optimizer.drop_epochs = (200, 250, 300)
    config.total_epochs = 350.0
    return config
