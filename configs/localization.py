r"""Boxes: the second task of ILSVRC, "classification with localization".

Simonyan and Zisserman 2015, appendix A. The last layer of a classifier is replaced by a regressor
of boxes (centre, width and height, in units of the crop), trained with the Euclidean loss on images
that have a box of their class.

    python main.py --config=configs/localization.py:vgg_d --config.data.dir=DIR \
        --config.init_from=runs/vgg-d
    python main.py --mode=evaluate --run=RUN --config.data.dir=DIR

Variants, and the localization error of VGG-D on the ILSVRC-2012 validation set with the box of the
true class in the central crop (Table 8, S = 384; evaluation.protocol=center_crop_true_class):
  :vgg_d      33.1% per class (pcr) with all layers trained, the default. With the fully connected
              layers alone ("--config.optimizer.frozen=conv") 34.3%; one box for all classes
              (--config.loss.boxes=scr) 36.4%.
  :alexnet    SuperVision's entry of 2012 predicted a box for each class (Erhan et al. 2014); its
              code and this protocol's error are not public (34.2% on the test set with five
              guesses).
  :resnet50   the same regressor on ResNet-50, of whose fully connected layer alone
              "--config.optimizer.train_last=1" is learned. (He et al. 2016 use a region proposal
              network.)
  :digits     canvases of 224 pixels with a handwritten digit at a random place, size and aspect,
              drawn from a seed; needs no --config.data.dir. Minutes on two cores; docs/results.md
              has its error and that of a regressor that always answers the mean box.

Training starts from a classifier of the same scale (--config.init_from), with a new last layer.
Papers leave open: how targets are scaled, what the biases of the new layer start from (here the box
in the middle, of half the sides), which of several boxes is the target (here the one of which the
crop shows most), and what a crop that cuts the object learns (here the whole box;
--config.data.boxes.extent=visible for the part).

Cost: as the classifier's for an epoch; a sixth of its epochs.
"""

from ml_collections import ConfigDict

from configs import alexnet, common, resnet, vgg

MOST = 32  # boxes of an image


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant; the module's docstring lists them."""
    make = common.choose_variant(
        variant,
        {
            "": _vgg_d,
            "vgg_d": _vgg_d,
            "alexnet": _alexnet,
            "resnet50": _resnet50,
            "digits": _digits,
        },
    )
    config: ConfigDict = make()
    config.data.boxes.count = MOST
    config.loss.boxes = "pcr"
    config.evaluation.protocol = "center_crop_true_class"
    config.evaluation.validation_protocol = "center_crop_true_class"
    return config


def _vgg_d() -> ConfigDict:
    config = vgg.get_config("d")
    common.set_rate(config, 0.001, batch_size=256)  # appendix A.1
    config.data.resize = 384
    config.init_head = "new"
    config.total_epochs = 12.0  # not published
    return config


def _alexnet() -> ConfigDict:
    config = alexnet.get_config()
    common.set_rate(config, 0.001, batch_size=128)
    config.init_head = "new"
    config.total_epochs = 15.0
    return config


def _resnet50() -> ConfigDict:
    config = resnet.get_config("50")
    common.set_rate(config, 0.001, batch_size=256)
    config.init_head = "new"
    config.total_steps = 100_000
    return config


def _digits() -> ConfigDict:
    config = alexnet.get_config()
    # The last layer is stable up to a rate of 2 (1 + momentum) / |mean features|^2: about .1 with
    # LeCun's weights, .001 with He's, whose squares are twice as large after each of seven layers.
    common.set_rate(config, 0.04, batch_size=64)
    data, model = config.data, config.model
    data.name = "digit_canvases"
    data.resize = data.crop = 224  # the whole canvas
    data.mean, data.mean_values, data.deviation = "values", (16.0,) * 3, (64.0,) * 3
    data.augment.crop = "center"
    data.augment.flip = False
    data.augment.colour_noise = "none"
    model.kernels = (16, 32, 48, 48, 32)
    model.hidden = (256, 256)
    model.lrn = False
    model.dropout = 0.0
    model.init = "lecun"
    model.init_bias = 0.0
    config.optimizer.weight_decay = 0.0
    config.optimizer.plateau_patience = 0
    config.optimizer.drop_steps = (700, 900)
    config.total_epochs, config.total_steps = None, 1000
    config.evaluate_every_epochs = None
    config.evaluate_every_steps = 500
    config.checkpoint_every_epochs = None
    config.checkpoint_every_steps = 500
    return config
