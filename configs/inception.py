"""Inception-v3 and -v4: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2016, and Szegedy et al. 2017.

"Rethinking the Inception Architecture for Computer Vision" (arXiv 1512.00567) and "Inception-v4,
Inception-ResNet and the Impact of Residual Connections on Learning" (arXiv 1602.07261).

    python main.py --config=configs/inception.py:v3 --config.data.dir=DIR

Variants, and the papers' errors on the ILSVRC-2012 validation set for one crop, without the 1,762
images of the blacklist (with them about .2 and .1 more, says the first):
  :v3  23,834,568 parameters and 3,326,696 in the auxiliary classifier; 21.2% top-1 and 5.6%
       top-5 error (the default). torchvision's weights, which need
       --config.model.count_padding=True, have 22.7 / 6.5.
  :v4  42,679,816 parameters; 20.0 / 5.0; the authors' released weights have 19.8 / 4.8
       (TF-Slim's README). timm's weights are read.

Differences from the papers: they train with RMSProp (decay .9, epsilon 1.0) on 50 and 20 replicas
that do not wait for each other. Here it is momentum at the same rate on one batch: where gradients
are small beside epsilon, RMSProp divides by about 1. Gradients are limited to a norm of 2.0, as in
the first paper: those of the first steps are otherwise so large at this depth that they spoil the
weights. The papers name no weight decay, initialisation, dropout of v3, weight of the auxiliary
classifier or decay of the averaged parameters; these are of the authors' TF-Slim code. Photographs
are cropped as for GoogLeNet; the first paper refers to its own.

Cost: 100 epochs of 1.28 M images at 34 GFLOP each (forward and backward); :v4 160 epochs at 74.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "v3") -> ConfigDict:
    """The config of a variant: "v3" or "v4"."""
    third = common.choose_variant(variant, {"v3": True, "v4": False})
    config = common.base_config(batch_size=32, learning_rate=0.045)  # section 8
    config.data.resize = 342  # the central 87.5%
    config.data.crop = 299
    config.data.mean = "values"
    config.data.mean_values = (127.5, 127.5, 127.5)
    config.data.deviation = (127.5, 127.5, 127.5)
    config.data.augment.crop = "area"

    model = config.model
    model.name = f"inception_{variant}"
    model.neuron = "relu"
    model.dropout = 0.2
    model.init = "he"
    model.init_std = 0.1  # of gaussian
    if third:
        model.auxiliary = True
        model.count_padding = False
        config.loss.auxiliary_weight = 0.4

    config.loss.label_smoothing = 0.1  # section 7
    config.optimizer.max_gradient_norm = 2.0  # section 8
    config.optimizer.weight_decay = 0.00004
    config.optimizer.drop_factor = 0.94  # section 8: every two epochs
    config.total_epochs = 100.0 if third else 160.0
    config.optimizer.drop_epochs = tuple(range(2, int(config.total_epochs), 2))
    config.optimizer.average = "exponential"  # section 8
    return config
