"""Residual networks for ImageNet: He, Zhang, Ren and Sun, 2015 and 2016.

"Deep Residual Learning for Image Recognition" (section 3.4) and "Identity Mappings in Deep
Residual Networks".

    python main.py --config=configs/resnet.py:50 --config.data.dir=DIR

Variants, and errors of the authors' models on the ILSVRC-2012 validation set, for ten views
(for the centre crop):
  :18, :34      11,689,512 and 21,797,672 parameters; 24.5% top-1, 7.5% top-5 error for 34
                (27.9 and 25.0 top-1 with --config.model.shortcut=pad, option A)
  :50           25,557,032    22.9% top-1, 6.7% top-5 error (24.7 / 7.8); the default
  :101          44,549,160    21.8 / 6.1 (23.6 / 7.1)
  :152          60,192,808    21.4 / 5.7 (23.0 / 6.7)
  :plain18, :plain34          the same without shortcuts; 27.9 (top-1) and 28.5 / 10.0, ten views
                              (--config.model.batch_norm=False, with
                              --config.batch_norm.recompute_examples=0: without BatchNorm as well)
  :preact_18 ... :preact_200  normalisation and neuron before each convolution (2016)

The stride of 2 is in the first 1x1 convolution of a bottleneck, as in the paper. PyTorch's
weights are for a stride in the 3x3 convolution ("v1.5") and a padded first pooling:

    python main.py --config=configs/resnet.py:50 --config.data.dir=DIR --mode=evaluate \
        --config.init_from=resnet50.pth \
        --config.model.stride_in=3x3 --config.model.pool1_padded=True

BatchNorm normalises over groups of 32 examples, as on each of 8 GPUs (--config.batch_norm.group=0:
over the whole batch). Its statistics are computed anew over 51,200 training images after the last
step, as the authors did for the networks they published; their notes do not say over how many.

Differences from the paper: the per-pixel mean, which the paper subtracts, is that of the central
224x224 pixels at a shorter side of 256; it does not move with crop and scale.

The paper's best single networks are tested at five scales, fully convolutional
(--config.evaluation.protocol=multi_scale): 20.74 / 5.25 with 50 layers, 19.38 / 4.49 with 152.

Cost: 120 epochs of 1.28 M images at 23 GFLOP each (50 layers, forward and backward).
"""

from ml_collections import ConfigDict

from configs import common

DEPTHS = (18, 34, 50, 101, 152)
VARIANTS = {
    "": "resnet50",
    **{str(n): f"resnet{n}" for n in DEPTHS},
    **{f"plain{n}": f"plain{n}" for n in (18, 34)},
    **{f"preact_{n}": f"preact_resnet{n}" for n in (*DEPTHS, 200)},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant; the module's docstring lists them."""
    config = common.base_config(batch_size=256, learning_rate=0.1)
    config.data.mean = "image_center"
    config.data.augment.crop = "image"  # section 3.4
    config.data.augment.scale_range = (256, 480)
    config.data.augment.colour_noise = "paper"

    model = config.model
    model.name = common.choose_variant(variant, VARIANTS)
    model.stride_in = "1x1"  # or 3x3
    model.pool1_padded = False
    if variant.startswith("plain"):
        model.batch_norm = True
    else:
        model.shortcut = "projection"  # option B; or pad (A), none
    model.neuron = "relu"
    model.init = "he"
    model.init_std = 0.01  # of gaussian

    config.batch_norm.group = 32
    config.batch_norm.recompute_examples = 51_200
    config.optimizer.weight_decay = 0.0001
    config.optimizer.decay_biases = True  # the paper names no exception
    config.optimizer.plateau_patience = 5
    config.optimizer.plateau_drops = 3
    config.total_steps = 600_000
    config.evaluation.protocol = "ten_view"  # section 3.4; the best results: multi_scale
    return config
