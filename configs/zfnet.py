"""ZFNet: Zeiler and Fergus, 2014.

"Visualizing and Understanding Convolutional Networks", ECCV 2014, sections 3.1 and 5.1.

    python main.py --config=configs/zfnet.py --config.data.dir=DIR

Variants:
  (none)  Figure 3; 62,357,608 parameters. Expected on the ILSVRC-2012 validation set:
          38.4% top-1 and 16.5% top-5 error, ten views.
  :spp    pyramid pooling (He, Zhang, Ren and Sun, "Spatial Pyramid Pooling in Deep Convolutional
          Networks for Visual Recognition", 2014, arXiv 1406.4729) in place of the last pool: 50
          windows, and a vector of 12,800 numbers for images of any size; 77,037,672
          parameters. 34.98 / 14.14, ten views, trained on crops of one size; images of other
          sizes whole, by --config.evaluation.protocol=dense.
  :wide   conv3 to conv5 with 512, 1024 and 512 maps; 107,627,624 parameters. 37.5 / 16.0.

Differences from the paper: it trains on ten fixed crops of each image (corners, centre, flips);
this config draws crops at any offset. "Contrast normalization" is taken to be AlexNet's response
normalisation. The paper does not mention weight decay; it is AlexNet's here. :spp is ZFNet with
another last pool and ZFNet's recipe; the paper of pyramid pooling alters colours in training, and
trains on two sizes in turn in a second experiment (34.60 / 13.64).

Cost: 70 epochs of 1.28 M images at 7.0 GFLOP each (forward and backward). The authors'
run took twelve days on one GTX 580.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant: "", "spp" or "wide"."""
    usual = (96, 256, 384, 384, 256)
    kernels = {"": usual, "spp": usual, "wide": (96, 256, 512, 1024, 512)}
    config = common.base_config(batch_size=128, learning_rate=0.01)
    config.data.mean = "image"

    model = config.model
    model.name = f"zfnet_{variant}" if variant else "zfnet"
    model.kernels = common.choose_variant(variant, kernels)
    model.hidden = (4096, 4096)
    model.pyramid = (6, 3, 2, 1) if variant == "spp" else ()  # windows a side of each level
    model.neuron = "relu"
    model.pool = "max"
    model.lrn = True
    model.lrn_constants = common.alexnet_lrn()
    model.lcn = False
    model.dropout = 0.5
    model.init = "gaussian"
    model.init_std = 0.01

    config.optimizer.weight_decay = 0.0005
    config.optimizer.plateau_patience = 5
    config.optimizer.max_filter_rms = 0.1  # section 3.1
    config.total_epochs = 70.0
    config.evaluation.protocol = "ten_view"
    return config
