"""AlexNet: Krizhevsky, Sutskever and Hinton, 2012.

"ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012.

    python main.py --config=configs/alexnet.py --config.data.dir=DIR

Variants:
  (none)     the paper. Two towers, 60,965,224 parameters. Expected on the
             ILSVRC-2012 validation set: 40.7% top-1 and 18.2% top-5 error, ten views.
  :original  the 2012 code where it differs from the paper's text; 40.66% and 18.21% in
             the authors' log. Response normalisation divides by a mean of squares; it
             comes before conv1's neuron, and once more inside each map after conv2.
             conv3 to conv5 start with deviation .03. Biases learn at .02 throughout.
             The centre of the mean image is subtracted from every crop. Colour noise is
             stronger and ends at epoch 67. The rate falls at epochs 25, 51 and 79; that
             of conv1 at 25, 51 and 67, and conv1 is frozen from epoch 72.
  :one_gpu   the paper's comparison with half the kernels on one device
             (59,798,312 parameters): 1.7 and 1.2 points worse.
  :six_conv  "1 CNN*" of Table 2: a sixth convolution over the last pool (61,555,304
             parameters), from random weights.
  :pretrain_2009, :pretrain_2011, :pretrained
             its recipe in three stages, below; 39.0 / 16.6 (38.99 / 16.62 in the authors' log).
  :owt       the one-tower network of Krizhevsky 2014 ("One weird trick"), which torchvision
             calls alexnet (61,100,840 parameters); torchvision's weights have 43.5 / 20.9.
  :caffe     Caffe's AlexNet: k = 1, biases of .1, crops of 227, batch 256; 42.9 / 19.8,
             centre crop. Reads bvlc_alexnet.caffemodel. (Caffe squeezes images to 256x256
             and starts fc6 and fc7 with deviation .005; this config does neither.)
  :caffenet  CaffeNet, which pools before it normalises; 42.6 / 19.6. Reads
             bvlc_reference_caffenet.caffemodel.
  :digits    the two-tower network on the handwritten digits that come with scikit-learn:
             a minute and a half on a laptop, an error below 2%. Needs no --config.data.dir.

The command of a variant is the same with --config=configs/alexnet.py:VARIANT.

"1 CNN*", after the notes in the 2012 code's layer-params-146. Each stage starts from the one
before, with a new fc8:

    python main.py --config=configs/alexnet.py:original --config.data.dir=DIR
    python main.py --config=configs/alexnet.py:pretrain_2009 --config.data.dir=DIR_2009 \
        --config.init_from=runs/alexnet-original --workdir=runs/alexnet-2009
    python main.py --config=configs/alexnet.py:pretrain_2011 --config.data.dir=DIR_2011 \
        --config.init_from=runs/alexnet-2009 --workdir=runs/alexnet-2011
    python main.py --config=configs/alexnet.py:pretrained --config.data.dir=DIR \
        --config.init_from=runs/alexnet-2011

DIR_2009 and DIR_2011 hold a folder for each class of ImageNet's releases of Fall 2009 (10,184
classes) and of Fall 2011 (15 million images, 21,843 classes). These images were not at hand: of the
three stages only the programs have been run, on others. The log has 39.10 / 16.88 without the stage
of 2011. Differences from the notes: fc6 and fc7, too, start from the stage before (there from
random weights until the last stage); biases learn as their weights do; in the last stage fc8 begins
at rate .01 (there after 300 batches at .001), and conv1 stays frozen from epoch 7.

Cost: 90 epochs of 1.28 M images at 4.3 GFLOP each (forward and backward), 5 x 10^17
in all. The 2012 run took "between five and six days" on two GTX 580.
"""

from ml_collections import ConfigDict, config_dict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant; the module's docstring lists them."""
    config = _paper()
    change = common.choose_variant(
        variant,
        {
            "": lambda c: None,
            "original": _original,
            "one_gpu": _one_gpu,
            "six_conv": _six_conv,
            "pretrain_2009": _pretrain_2009,
            "pretrain_2011": _pretrain_2011,
            "pretrained": _pretrained,
            "owt": _owt,
            "caffe": _caffe,
            "caffenet": _caffenet,
            "digits": _digits,
        },
    )
    change(config)
    return config


def _paper() -> ConfigDict:
    config = common.base_config(batch_size=128, learning_rate=0.01)  # section 5
    config.data.resize = 256  # section 2
    config.data.crop = 224
    config.data.mean = "image"
    config.data.augment.colour_noise = "paper"  # section 4.1

    model = config.model
    model.name = "alexnet"
    model.towers = 2
    model.connected = True  # False: no exchange between towers before fc8
    model.exchanges = "pool2,pool5,fc6,fc7"  # layers whose maps all towers read
    model.kernels = (96, 256, 384, 384, 256)
    model.hidden = (4096, 4096)
    model.without = ""  # layers left out, of conv3,conv4,conv5,fc6,fc7
    model.neuron = "relu"  # or tanh, ...
    model.lrn = True
    model.lrn_constants = common.alexnet_lrn()  # section 3.3
    model.lrn_across_towers = False
    model.lcn = False  # True: local contrast normalisation in its place
    model.pool_before_norm = False
    model.norm1_before_neuron = False
    model.spatial_norm2 = False
    model.pool = "max"
    model.pool_window = 3  # 2 does not overlap (section 3.4)
    model.dropout = 0.5  # section 4.2
    model.inverted_dropout = False
    model.init = "gaussian"
    model.init_std = 0.01  # section 5
    model.init_std_conv3to5 = 0.01
    model.init_bias = 1.0

    config.optimizer.weight_decay = 0.0005
    config.optimizer.plateau_patience = 5
    config.optimizer.plateau_drops = 3
    config.total_epochs = 90.0
    config.evaluation.protocol = "ten_view"
    return config


def _original(config: ConfigDict) -> None:
    """layers-145.cfg, layer-params-145.cfg and convdata_jpeg.py of the released code."""
    config.model.lrn_constants.average = True
    config.model.norm1_before_neuron = True
    config.model.spatial_norm2 = True
    config.model.init_std_conv3to5 = 0.03
    config.data.mean = "image_center"
    config.data.augment.colour_noise = "original"
    config.data.augment.colour_noise_until_epochs = 67.0
    config.total_epochs = 91.0
    config.optimizer.plateau_patience = 0
    config.optimizer.drop_epochs = (25, 51, 79)
    # In the last version of the parameter file the biases of conv1 are frozen as well.
    groups = config.optimizer.groups
    groups.biases = common.parameter_group("bias", multiplier=2.0, drop_epochs=())
    groups.conv1 = common.parameter_group(
        "conv1/kernel", drop_epochs=(25, 51, 67), freeze_epochs=72.0
    )
    groups.conv1_bias = common.parameter_group(
        "conv1/bias", multiplier=2.0, drop_epochs=(), freeze_epochs=72.0
    )


def _one_gpu(config: ConfigDict) -> None:
    config.model.name = "alexnet_one_gpu"
    config.model.towers = 1
    config.model.kernels = (48, 128, 192, 192, 256)


def _six_conv(config: ConfigDict) -> None:
    config.model.name = "alexnet_six_conv"
    config.model.conv6 = 256
    config.model.init_std_conv3to5 = 0.03  # as in the code; the paper does not say


def _stage(config: ConfigDict, epochs: float) -> None:
    """What the stages of "1 CNN*" share: the 2012 code's network at a tenth of its rate."""
    _original(config)
    _six_conv(config)
    common.set_rate(config, 0.001, batch_size=128)
    config.optimizer.drop_epochs = None
    config.optimizer.groups = ConfigDict()
    config.data.augment.colour_noise_until_epochs = None
    config.total_epochs = epochs
    config.init_head = "new"


def _pretrain_2009(config: ConfigDict) -> None:
    _stage(config, 6.65)
    config.data.name = "folder"
    for name in ("conv6", "fc6", "fc7", "fc8"):
        config.optimizer.groups[name] = common.parameter_group(
            f"{name}/", multiplier=10.0, drop_epochs=(2.16,)
        )


def _pretrain_2011(config: ConfigDict) -> None:
    _stage(config, 8.11)
    config.data.name = "folder"
    for name in ("fc6", "fc7", "fc8"):
        config.optimizer.groups[name] = common.parameter_group(
            f"{name}/", multiplier=10.0, drop_epochs=(6,)
        )


def _pretrained(config: ConfigDict) -> None:
    _stage(config, 54.0)
    config.data.augment.colour_noise_until_epochs = 38.0
    config.optimizer.drop_epochs = (22, 42)
    config.optimizer.groups.conv1 = common.parameter_group(
        "conv1/", multiplier=0.1, drop_epochs=(5,), freeze_epochs=7.0
    )
    config.optimizer.groups.fc8 = common.parameter_group(
        "fc8/", multiplier=10.0, drop_epochs=(9, 22, 42)
    )


def _owt(config: ConfigDict) -> None:
    keep = {name: config.model[name] for name in ("num_classes", "neuron", "dropout")}
    image_size = config.data.get_ref("crop")
    config.model = ConfigDict({"name": "alexnet_owt", **keep, "init": "he", "init_std": 0.01})
    config.model.num_classes = config_dict.placeholder(int)
    config.model.image_size = image_size
    config.data.mean = "channel"
    config.data.deviation = (58.395, 57.12, 57.375)  # He's initialisation assumes unit variance


def _caffe(config: ConfigDict) -> None:
    """Caffe's models/bvlc_alexnet/solver.prototxt and train_val.prototxt."""
    common.set_rate(config, 0.01, batch_size=256)
    config.optimizer.drop_steps = (100_000, 200_000, 300_000, 400_000)
    config.optimizer.plateau_patience = 0
    config.optimizer.decay_biases = False
    config.optimizer.groups.biases = common.parameter_group("bias", multiplier=2.0)
    config.total_epochs = None
    config.total_steps = 450_000
    config.data.crop = 227
    config.data.augment.colour_noise = "none"
    config.model.lrn_constants.k = 1.0
    config.model.lrn_constants.average = True
    config.model.lrn_across_towers = True
    config.model.inverted_dropout = True
    config.model.init_bias = 0.1
    config.evaluation.protocol = "center_crop"


def _caffenet(config: ConfigDict) -> None:
    """Caffe's models/bvlc_reference_caffenet, where it differs from bvlc_alexnet."""
    _caffe(config)
    config.model.pool_before_norm = True
    config.model.init_bias = 1.0


def _digits(config: ConfigDict) -> None:
    config.batch_size = 64
    config.data.name = "digits"
    config.data.resize = 68
    config.data.crop = 64  # the smallest that three poolings leave any cells of
    config.data.augment.flip = False  # a mirrored digit is another sign
    config.data.augment.colour_noise = "none"
    config.model.init_std_conv3to5 = 0.03
    config.optimizer.plateau_patience = 0
    config.optimizer.drop_epochs = (7, 9)
    config.total_epochs = 10.0
    config.log_every_steps = 20
    config.checkpoint_keep = 2
    config.evaluation.protocol = "center_crop"  # ten views include mirrored ones
