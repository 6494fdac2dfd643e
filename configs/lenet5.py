"""LeNet-5: LeCun, Bottou, Bengio and Haffner, 1998; and Caffe's LeNet.

"Gradient-Based Learning Applied to Document Recognition", section III.

    python main.py --config=configs/lenet5.py --config.data.dir=DIR

DIR is where TFDS prepared mnist. Variants, and their test errors in percent:
  (none)   the paper's network with its RBF output; 60,000 trainable parameters. .95
  :linear  with a fully connected output layer; 60,850 parameters.
  :caffe   Caffe's example (20 and 50 maps, ReLU); 431,080 parameters. .9, and .86 with the
           weights of lenet_iter_10000.caffemodel (--config.init_from=FILE).

Images are padded to 32x32; background is -.1 and ink 1.175. (Those of :caffe are 28x28, 0 to 1.)

Differences from the paper: momentum on batches of 32 replaces the diagonal Levenberg-Marquardt
method on single examples. The constant j of equation 9, of which the paper says only that it is
positive, is 1. 1,000 of the 60,000 training images are held out for validation.
Differences from Caffe: the rate falls in three steps instead of smoothly (policy inv), and the
initialisation "xavier" draws from a narrower range.

Cost: 20 epochs, minutes on a CPU.
"""

from ml_collections import ConfigDict, config_dict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant: "", "linear" or "caffe"."""
    return common.choose_variant(variant, {"": _paper, "linear": _linear, "caffe": _caffe})()


def _paper() -> ConfigDict:
    config = common.base_config(batch_size=32, learning_rate=0.002)
    config.data.name = "mnist"
    config.data.validation_examples = 1000  # of 60,000; the paper trains on all
    config.data.resize = 28
    config.data.pad = 2
    config.data.crop = 32
    config.data.mean = "values"  # 0 -> -.1, 255 -> 1.175
    config.data.mean_values = (20.0, 20.0, 20.0)
    config.data.deviation = (200.0, 200.0, 200.0)
    config.data.augment.flip = False
    config.data.augment.crop = "center"

    config.model.name = "lenet5"
    config.model.neuron = "scaled_tanh"
    config.model.head = "rbf"  # or linear
    config.loss.rubbish_penalty = 1.0  # j of equation 9

    config.optimizer.drop_epochs = (10, 14, 17)
    config.optimizer.drop_factor = 0.25
    config.total_epochs = 20.0
    config.log_every_steps = 500
    return config


def _linear() -> ConfigDict:
    config = _paper()
    config.model.name = "lenet5_linear"
    config.model.head = "linear"
    config.loss.rubbish_penalty = None
    common.set_rate(config, 0.02, batch_size=32)
    return config


def _caffe() -> ConfigDict:
    """Caffe's examples/mnist/lenet_solver.prototxt and lenet_train_test.prototxt."""
    config = _paper()
    image_size = config.data.get_ref("crop")
    common.set_rate(config, 0.01, batch_size=64)
    config.loss.rubbish_penalty = None
    config.data.pad = 0
    config.data.crop = 28
    config.data.mean = "none"
    config.data.deviation = (256.0, 256.0, 256.0)
    config.model = ConfigDict({"name": "lenet_caffe", "neuron": "relu", "pool": "max"})
    config.model.num_classes = config_dict.placeholder(int)
    config.model.image_size = image_size
    config.model.init = "xavier"
    config.model.init_std = 0.01  # of gaussian
    config.optimizer.weight_decay = 0.0005
    config.optimizer.groups.biases = common.parameter_group("bias", multiplier=2.0)
    config.optimizer.decay_biases = True
    config.optimizer.drop_factor = 0.86
    config.optimizer.drop_epochs = None
    config.optimizer.drop_steps = (2500, 5000, 7500)
    config.total_epochs = None
    config.total_steps = 10_000
    return config
