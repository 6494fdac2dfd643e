"""AlexNet: Krizhevsky, Sutskever and Hinton, 2012.

"ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012.

    python main.py --config=configs/alexnet.py --config.data.dir=DIR

Variants:
  (none)     the paper. Two towers, 60,965,224 parameters. Expected on the
             ILSVRC-2012 validation set: 40.7% top-1 and 18.2% top-5 error, ten views.
  :original  what the 2012 code does where it differs from the paper's text; 40.66% and
             18.21% in the authors' log:
             response normalisation by a mean of squares, before conv1's neuron, and
             once more inside each map after conv2; conv3 to conv5 start with
             deviation .03; biases learn at .02 throughout; the centre of the mean
             image is subtracted from every crop; stronger colour noise, off from
             epoch 67; the rate falls at epochs 25, 51 and 79, on conv1 at 25, 51
             and 67, and conv1 is frozen from 72.
  :one_gpu   the paper's comparison with half the kernels on one device
             (59,798,312 parameters): 1.7 and 1.2 points worse.
  :digits    the two-tower network on scikit-learn's handwritten digits, embedded:
             a minute and a half on a laptop, 1 to 2% error. Needs no --config.data.dir.

The command of a variant is the same with --config=configs/alexnet.py:VARIANT.

Cost: 90 epochs of 1.28 M images at 4.3 GFLOP each (forward and backward), 5 x 10^17
in all. The 2012 run took "between five and six days" on two GTX 580.
"""

from ml_collections import ConfigDict, config_dict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant: "", "original", "one_gpu" or "digits"."""
    config = _paper()
    change = common.choose_variant(
        variant,
        {"": lambda c: None, "original": _original, "one_gpu": _one_gpu, "digits": _digits},
    )
    change(config)
    return config


def _paper() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.batch_size = 128  # over all devices (section 5)
    config.compute_dtype = "float32"  # or bfloat16; parameters are always float32

    config.data = data = ConfigDict()
    data.name = "imagenet2012"
    data.dir = config_dict.placeholder(str)
    data.cache_dir = config_dict.placeholder(str)  # mean image, indices; else ~/.cache
    data.validation_examples = config_dict.placeholder(int)  # where there is no such split
    data.resize = 256  # shorter side, then the central square (section 2)
    data.crop = 224
    # Subtracted: "image", the mean of every pixel, aligned with crop and flip;
    # "image_center", its central crop whatever the crop; "channel"; "none".
    data.mean = "image"
    data.augment = augment = ConfigDict()
    augment.random_crop = True  # section 4.1
    augment.flip = True
    augment.colour_noise = "paper"  # or original, gaussian, none
    common.add_duration(augment, "colour_noise_until")  # None: to the end

    config.model = model = ConfigDict()
    model.name = "alexnet"
    model.num_classes = config_dict.placeholder(int)  # as many as the dataset has
    model.image_size = data.get_ref("crop")
    model.towers = 2
    model.connected = True  # False: no exchange between towers before fc8
    model.kernels = (96, 256, 384, 384, 256)
    model.hidden = (4096, 4096)
    model.without = ""  # layers left out, of conv3,conv4,conv5,fc6,fc7
    model.neuron = "relu"  # or tanh
    model.lrn = True
    model.lrn_constants = ConfigDict(  # section 3.3
        {"size": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75, "average": False}
    )
    model.norm1_before_neuron = False
    model.spatial_norm2 = False
    model.pool_window = 3  # 2 does not overlap (section 3.4)
    model.dropout = 0.5  # section 4.2
    model.init_std = 0.01  # section 5
    model.init_std_conv3to5 = 0.01
    model.init_bias = 1.0

    config.optimizer = optimizer = ConfigDict()
    # Proportional to the batch size when that is overridden; .01 at 128.
    optimizer.learning_rate = config.get_ref("batch_size").to_float() * (0.01 / 128)
    optimizer.momentum = 0.9
    optimizer.weight_decay = 0.0005
    optimizer.decay_biases = False
    # The rate is multiplied by drop_factor when validation error has not improved for
    # plateau_patience evaluations (0: never), at most plateau_drops times, and at the
    # moments of drop_*.
    optimizer.drop_factor = 0.1
    optimizer.plateau_patience = 5
    optimizer.plateau_drops = 3
    common.add_duration(optimizer, "drop", several=True, epochs=())
    # Parameters whose rate differs; see common.parameter_group.
    optimizer.groups = ConfigDict()

    common.add_duration(config, "total", epochs=90.0)
    common.add_duration(config, "log_every", steps=100)
    common.add_duration(config, "evaluate_every", epochs=1.0)
    common.add_duration(config, "checkpoint_every", epochs=1.0)
    config.checkpoint_keep = 3  # newest ones; the best by validation error stays as well

    config.mesh = ConfigDict()
    config.mesh.data = config_dict.placeholder(int)  # as many as the devices allow
    config.mesh.tower = config_dict.placeholder(int)  # 2 on an even number of devices

    config.evaluation = evaluation = ConfigDict()
    evaluation.protocol = "ten_view"  # of --mode=evaluate; or center_crop
    evaluation.split = config_dict.placeholder(str)  # the labelled test split
    evaluation.checkpoint = "latest"  # or best, or a step
    evaluation.batch_size = config.get_oneway_ref("batch_size")
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
    # The last state of the parameter file has the biases of conv1 standing still too.
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


def _digits(config: ConfigDict) -> None:
    config.batch_size = 64
    config.data.name = "digits"
    config.data.resize = 68
    config.data.crop = 64  # the smallest that all three pools leave something of
    config.data.augment.flip = False  # a mirrored digit is another sign
    config.data.augment.colour_noise = "none"
    config.model.init_std_conv3to5 = 0.03
    config.optimizer.plateau_patience = 0
    config.optimizer.drop_epochs = (7, 9)
    config.total_epochs = 10.0
    config.log_every_steps = 20
    config.checkpoint_keep = 1
    config.evaluation.protocol = "center_crop"  # ten views mirror
