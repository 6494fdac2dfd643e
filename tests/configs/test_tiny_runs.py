"""Every config trains and evaluates, and every field of it is read."""

import pytest
from ml_collections import ConfigDict

import main
from configs import command_line, notes
from input_pipeline.datasets import digit_canvases
from tests.configs.test_configs import ALL, get_config
from tests.conftest import ROOT


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


# Small enough for seconds; what a network cannot do without stays.
TINY = {
    "alexnet": {
        "data.resize": 68,
        "data.crop": 64,
        "model.kernels": (8, 8, 8, 8, 8),
        "model.hidden": (16, 16),
        "model.conv6": 8,
    },
    "zfnet": {
        "data.resize": 68,
        "data.crop": 64,
        "model.kernels": (8, 8, 8, 8, 8),
        "model.hidden": (16, 16),
    },
    "overfeat": {
        "data.resize": 84,
        "data.crop": 80,
        "model.hidden": (8, 8),
        # What is left at the largest offset still has to fill a window of the last pool.
        "evaluation.scales": (104, 116),
    },
    "vgg": {"data.resize": 36, "data.crop": 32, "model.hidden": (16, 16)},
    "googlenet": {"data.resize": 84, "data.crop": 80},
    # The auxiliary classifier needs 299 pixels.
    "inception": {"data.resize": 84, "data.crop": 80, "model.auxiliary": False},
    "resnet": {"data.resize": 36, "data.crop": 32},
    "nin": {"data.resize": 36, "data.crop": 32},
    "localization": {
        "data.resize": 68,
        "data.crop": 64,
        "model.kernels": (8, 8, 8, 8, 8),
        "model.hidden": (16, 16),
    },
    "convnet": {"model.kernels": 4, "model.hidden": 8},
}
# Nearly every field is in one of these; the others take longer and are marked slow.
QUICK = [
    ("alexnet", ""),
    ("zfnet", ""),
    ("cifar10", "resnet20"),
    ("cifar10", "18pct"),
    ("cifar10", "figure1"),
    ("lenet5", ""),
    ("lenet5", "caffe"),
    ("convnet", ""),
]


def fields(name, variant):
    return set(command_line.field_names(get_config(name, variant)))


@pytest.mark.parametrize(
    "name, variant",
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow, id=":".join(case))
        for case in ALL
    ],
)
def test_a_tiny_run_reads_every_field(
    name, variant, imagenet_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(ROOT)
    arguments = [
        f"--config=configs/{name}.py:{variant}".rstrip(":"),
        f"--config.data.cache_dir={tmp_path}",
        "--config.batch_size=4",
        "--config.evaluation.batch_size=60",
        "--config.total_steps=2",
        "--config.log_every_steps=1",
        "--config.mesh.data=1",
        *(
            f"--config.{field}={value}"
            for field, value in TINY.get(name, {}).items()
            if field in fields(name, variant)
        ),
    ]
    if name == "localization":  # which needs boxes
        counts = {"train": 64, "validation": 60, "test": 60}
        monkeypatch.setattr(digit_canvases, "COUNTS", counts)
        arguments.append("--config.data.name=digit_canvases")
    elif get_config(name, variant).data.name == "imagenet2012":
        arguments.append(f"--config.data.dir={imagenet_folder}")
    else:
        arguments.append("--config.data.name=digits")
    read: set[str] = set()
    for mode in ("train", "evaluate"):
        values = main.define_flags()
        flag = [f"--workdir={tmp_path / 'run'}", f"--mode={mode}"]
        parsed = command_line.parse(["main.py", *arguments, *flag], values)
        object.__setattr__(parsed, "config", Recorder(parsed.config, read))
        assert main.run(parsed, values) == 0, capsys.readouterr().err
    config = get_config(name, variant).to_dict()
    unread = fields(name, variant) - read
    assert {field for field in unread if notes.reason(field, config, "train") is None} == set()


def test_the_quick_runs_have_nearly_every_field():
    """But for groups of the optimiser, which some have, and fields of networks that take longer."""
    quick = {field for case in QUICK for field in fields(*case)}
    others = {field for case in ALL for field in fields(*case)} - quick
    assert any(field.startswith("optimizer.groups.") for field in quick)
    assert {field for field in others if not field.startswith("optimizer.groups.")} == {
        *("model.conv6", "model.auxiliary", "model.auxiliary_dropout", "model.count_padding"),
        *("model.stride_in", "model.pool1_padded"),
        *("model.local3", "model.shared", "model.init_std_local", "model.norm"),
        "model.input_dropout",
    }
