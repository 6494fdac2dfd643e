"""Every config: its paper's numbers, a step on tiny input, and no field that nothing reads."""

import pytest
from ml_collections import ConfigDict

import main
from configs import command_line
from configs.alexnet import get_config
from tests.conftest import ROOT

VARIANTS = ["", "original", "one_gpu", "digits"]

# The paper's sections 2 to 5, and the released code where `original` differs.
PAPER = {
    "batch_size": 128,
    "data.name": "imagenet2012",
    "data.resize": 256,
    "data.crop": 224,
    "data.mean": "image",
    "data.augment.random_crop": True,
    "data.augment.flip": True,
    "data.augment.colour_noise": "paper",
    "data.augment.colour_noise_until_epochs": None,
    "model.name": "alexnet",
    "model.towers": 2,
    "model.kernels": (96, 256, 384, 384, 256),
    "model.hidden": (4096, 4096),
    "model.neuron": "relu",
    "model.lrn": True,
    "model.lrn_constants.size": 5,
    "model.lrn_constants.k": 2.0,
    "model.lrn_constants.alpha": 1e-4,
    "model.lrn_constants.beta": 0.75,
    "model.lrn_constants.average": False,
    "model.norm1_before_neuron": False,
    "model.spatial_norm2": False,
    "model.pool_window": 3,
    "model.dropout": 0.5,
    "model.init_std": 0.01,
    "model.init_std_conv3to5": 0.01,
    "model.init_bias": 1.0,
    "optimizer.learning_rate": 0.01,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 0.0005,
    "optimizer.decay_biases": False,
    "optimizer.drop_factor": 0.1,
    "optimizer.plateau_drops": 3,
    "total_epochs": 90.0,
    "evaluation.protocol": "ten_view",
}
RECIPES = {
    "": PAPER,
    "original": PAPER
    | {
        "data.mean": "image_center",
        "data.augment.colour_noise": "original",
        "data.augment.colour_noise_until_epochs": 67.0,
        "model.lrn_constants.average": True,
        "model.norm1_before_neuron": True,
        "model.spatial_norm2": True,
        "model.init_std_conv3to5": 0.03,
        "optimizer.plateau_patience": 0,
        "optimizer.drop_epochs": (25, 51, 79),
        "optimizer.groups.biases.multiplier": 2.0,
        "optimizer.groups.biases.drop_epochs": (),
        "optimizer.groups.conv1.drop_epochs": (25, 51, 67),
        "optimizer.groups.conv1.freeze_epochs": 72.0,
        "optimizer.groups.conv1_bias.freeze_epochs": 72.0,
        "total_epochs": 91.0,
    },
    "one_gpu": PAPER
    | {
        "model.name": "alexnet_one_gpu",
        "model.towers": 1,
        "model.kernels": (48, 128, 192, 192, 256),
    },
}


def value_of(config, path):
    for name in path.split("."):
        config = config[name]
    return config


@pytest.mark.parametrize("variant", RECIPES)
def test_recipe_equals_the_papers(variant):
    config = get_config(variant)
    assert {path: value_of(config, path) for path in RECIPES[variant]} == RECIPES[variant]


class Recorder:
    """A config that remembers which of its fields were read."""

    def __init__(self, config, read, prefix=""):
        self.__dict__.update(_config=config, _read=read, _prefix=prefix)

    def __getitem__(self, name):
        value = self._config[name]
        if isinstance(value, ConfigDict):
            return Recorder(value, self._read, f"{self._prefix}{name}.")
        self._read.add(self._prefix + name)
        return value

    def __getattr__(self, name):
        if name in self._config:
            return self[name]
        return getattr(self._config, name)

    def keys(self):
        return self._config.keys()

    def items(self):
        return [(name, self[name]) for name in self._config]

    def __iter__(self):
        return iter(self._config)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_tiny_run_reads_every_field(variant, imagenet_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    arguments = [
        f"--config=configs/alexnet.py:{variant}".rstrip(":"),
        f"--config.data.cache_dir={tmp_path}",
        "--config.data.resize=68",
        "--config.data.crop=64",
        f"--config.model.kernels={(8, 8, 8, 8, 8)}",
        f"--config.model.hidden={(16, 16)}",
        "--config.batch_size=4",
        "--config.total_steps=2",
        "--config.log_every_steps=1",
        "--config.mesh.data=1",
    ]
    if variant != "digits":
        arguments.append(f"--config.data.dir={imagenet_folder}")
    read: set[str] = set()
    for mode in ("train", "evaluate"):
        values = main.define_flags()
        flag = [f"--workdir={tmp_path / 'run'}", f"--mode={mode}"]
        parsed = command_line.parse(["main.py", *arguments, *flag], values)
        object.__setattr__(parsed, "config", Recorder(parsed.config, read))
        assert main.run(parsed, values) == 0, capsys.readouterr().err
    unread = set(command_line.field_names(get_config(variant))) - read
    assert unread == set()
