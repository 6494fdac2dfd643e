"""VGG: Simonyan and Zisserman, 2015.

"Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.

    python main.py --config=configs/vgg.py:a --config.data.dir=DIR
    python main.py --config=configs/vgg.py:d --config.data.dir=DIR \
        --config.init_from=runs/vgg-a --workdir=runs/vgg-d

The paper starts the deeper networks from a trained A: from its first four convolutions and its
fully connected layers (section 3.1). The authors found later that they train from scratch with
Glorot's deviations (xavier), with which all variants start here. The Gaussian of variance 10^-2
that the paper gives for A (--config.model.init=gaussian) makes logits of some 10^8 and diverges.

Variants, and the paper's errors on the ILSVRC-2012 validation set, dense evaluation at one
scale, S = Q = 256 (Table 3):
  :a          11 layers, 132,863,336 parameters   29.6% top-1, 10.4% top-5 error
  :a_lrn      A with AlexNet's normalisation      29.7 / 10.5
  :b          13 layers, 133,047,848              28.7 / 9.9
  :b_5x5      B with a 5x5 convolution for each pair of 3x3, 134,503,528; top-1 error 7
              points above that of B
  :c          16 layers, 133,638,952              28.1 / 9.4
  :d          16 layers, 138,357,544              27.0 / 8.8   (the default)
  :e          19 layers, 143,667,240              27.3 / 9.0
  :d_no_fc    D with global average pooling in place of fc6 and fc7, 15,227,688; not in the
              paper
  :a_bn, :b_bn, :d_bn, :e_bn   with batch normalisation, as torchvision has them (vgg16_bn);
              not in the paper

PyTorch weights: --config.init_from=vgg16.pth for :d, in any mode; the others likewise.

Training scale S (section 3.1): 256 by default; the paper's others are
  S = 384          --config.data.resize=384 --config.optimizer.learning_rate=0.001, from S = 256
  S in [256; 512]  "--config.data.augment.scale_range=(256,512)" --config.data.resize=384
                   --config.optimizer.learning_rate=0.001, from S = 384
each with --config.init_from=RUN, the run that it starts from.

The test is the paper's dense evaluation, --config.evaluation.protocol=dense, at the scale Q = S;
for a range of S, Q is its middle, data.resize. The paper's Table 4 tests at three scales:
"--config.evaluation.scales=(224,256,288)" for S = 256, "(256,384,512)" for the range. Table 5
uses the protocols multi_crop and multi_crop_and_dense at the latter. A whole image takes the
memory of two crops at S = 256 and of four at 384; lower --config.evaluation.batch_size if needed.

Cost: 74 epochs of 1.28 M images at 93 GFLOP each (D, forward and backward); the authors'
runs took two to three weeks on four Titan Black.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = {
    "": "d",
    **{name: name for name in ("a", "a_lrn", "b", "b_5x5", "c", "d", "e", "d_no_fc")},
    **{f"{name}_bn": f"{name}_bn" for name in "abde"},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant; the module's docstring lists them."""
    name = common.choose_variant(variant, VARIANTS)
    config = common.base_config(batch_size=256, learning_rate=0.01)  # section 3.1
    config.data.mean = "channel"  # section 2.1
    config.data.augment.crop = "image"  # section 3.1
    config.data.augment.colour_noise = "paper"  # section 3.1

    model = config.model
    model.name = f"vgg_{name}"
    model.batch_norm = name.endswith("_bn")
    if name != "d_no_fc":
        model.hidden = (4096, 4096)
    model.neuron = "relu"
    model.pool = "max"
    model.dropout = 0.5
    model.init = "xavier"
    model.init_std = 0.1  # of gaussian: a variance of 10^-2

    config.optimizer.weight_decay = 0.0005
    config.optimizer.plateau_patience = 5
    config.optimizer.plateau_drops = 3
    config.total_epochs = 74.0
    config.evaluation.protocol = "dense"  # section 3.2
    return config
