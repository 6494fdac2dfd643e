"""OverFeat: Sermanet, Eigen, Zhang, Mathieu, Fergus and LeCun, 2014 (arXiv 1312.6229).

"OverFeat: Integrated Recognition, Localization and Detection using Convolutional Networks",
section 3: classification.

    python main.py --config=configs/overfeat.py:fast --config.data.dir=DIR

Variants, and the paper's errors on the ILSVRC-2012 validation set (Table 2), with the last pool's
windows at every offset (evaluation.protocol=overfeat):
  :fast      145,920,872 parameters; 38.12% top-1 and 16.27% top-5 error at six scales (the
             default).
  :accurate  144,656,488 parameters; 35.74 / 14.18 at four scales, which are
             --config.evaluation.scales="(245,281,389,461)".

Differences from the paper: it trains on five random crops of an image, and their mirror images,
together; here every crop is drawn anew. It does not say how pixels are scaled: here the mean and
deviation of the authors' released program are taken. Nor does it say when training ends (10
epochs after the last fall of the rate here), or what the average over scales is of.

Cost: 90 epochs of 1.28 M images at 17 GFLOP each (forward and backward); :accurate 32.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "fast") -> ConfigDict:
    """The config of a variant: "fast" or "accurate"."""
    fast = common.choose_variant(variant, {"fast": True, "accurate": False})
    config = common.base_config(batch_size=128, learning_rate=0.05)  # section 3.1
    config.data.resize = 256
    config.data.crop = 231 if fast else 221
    config.data.mean = "values"
    config.data.mean_values = (118.380948,) * 3
    config.data.deviation = (61.896913,) * 3
    config.data.augment.crop = "image"

    model = config.model
    model.name = f"overfeat_{variant}"
    model.kernels = (96, 256, 512, 1024, 1024) if fast else (96, 256, 512, 512, 1024, 1024)
    model.hidden = (3072, 4096) if fast else (4096, 4096)
    model.neuron = "relu"
    model.pool = "max"
    model.dropout = 0.5
    model.init = "gaussian"
    model.init_std = 0.01

    config.optimizer.momentum = 0.6
    config.optimizer.weight_decay = 0.00001
    config.optimizer.drop_factor = 0.5
    config.optimizer.drop_epochs = (30, 50, 60, 70, 80)
    config.total_epochs = 90.0
    config.evaluation.protocol = "overfeat"
    return config
