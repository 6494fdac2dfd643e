"""All-convolutional networks: Springenberg, Dosovitskiy, Brox and Riedmiller, 2015.

"Striving for Simplicity: The All Convolutional Net", ICLR 2015 workshop, section 3.

    python main.py --config=configs/all_convolutional.py:c --config.data.dir=DIR

DIR is where TFDS prepared cifar10. Variants, and the paper's test errors without
augmentation, in percent (Table 3):
  :a  1,254,250 parameters   10.30
  :b  1,300,618               9.10
  :c  1,369,738               9.08   (the default; 7.25 with crops and flips)

Differences from the paper: images are divided by 58, about their deviation, after the mean
image is subtracted; the paper whitens them. The rate is one of the four that the paper chose from
(.25, .1, .05, .01). It says nothing of batch size and initialisation.

Cost: 350 epochs of 45,000 images at 1.6 GFLOP each (C, forward and backward).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "c") -> ConfigDict:
    """The config of a variant: "a", "b" or "c"."""
    name = common.choose_variant(variant, {base: f"all_cnn_{base}" for base in "abc"})
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
