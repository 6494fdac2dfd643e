"""The lectures' small networks on CIFAR-10: [(CONV-RELU)*N-POOL?]*M-[FC-RELU]*K-FC.

Stanford CS231n, "Convolutional Neural Networks: Architectures".

    python main.py --config=configs/convnet.py --config.data.dir=DIR

DIR is where TFDS prepared cifar10. Variants:
  (none)               N = 2, M = 3, K = 1; 814,122 parameters
  :conv_relu_pool_fc   [CONV-RELU-POOL-FC] with 12 kernels of 5x5; 31,642 parameters
Overrides make any other: --config.model.convolutions=N --config.model.stages=M
--config.model.hidden_layers=K, and --config.model.pool="" for no pooling.

The recipe comes from no paper: rate .01, crops and flips, 30 epochs. The error is about 20%, and
35 to 40% for :conv_relu_pool_fc.

Cost: 0.24 GFLOP an image (forward and backward), minutes to an hour on a CPU.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant: "" or "conv_relu_pool_fc"."""
    small = common.choose_variant(variant, {"": False, "conv_relu_pool_fc": True})
    config = common.base_config(batch_size=128, learning_rate=0.01)
    config.data.name = "cifar10"
    config.data.resize = 32
    config.data.pad = 4
    config.data.crop = 32
    config.data.mean = "channel"
    config.data.deviation = (64.0, 64.0, 64.0)

    model = config.model
    model.name = "conv_relu_pool_fc" if small else "convnet"
    model.convolutions = 1 if small else 2
    model.stages = 1 if small else 3
    model.hidden_layers = 0 if small else 1
    model.kernels = 12 if small else 32
    model.window = 5 if small else 3
    model.hidden = 256
    model.pool = "max"  # or average, padded_average, sum, l2; "" for none
    model.neuron = "relu"
    model.batch_norm = False
    model.dropout = 0.0
    model.init = "he"
    model.init_std = 0.01  # of gaussian

    config.optimizer.weight_decay = 0.0005
    config.optimizer.drop_epochs = (20, 26)
    config.total_epochs = 30.0
    return config
